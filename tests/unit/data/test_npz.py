"""Named arrays in one file: everything comes back, and the same arrays give the same bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import strategies
from hypothesis import given

from pipeline.data.npz import add_kind, load_arrays, of_kind, save_arrays
from pipeline.errors import DataError


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        if array.dtype == object:
            assert found[name].ravel().tolist() == array.ravel().tolist()
        else:
            assert found[name].tobytes() == array.tobytes()


def strings(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@given(strategies.named_arrays())
def test_arrays_come_back_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.npz"
    save_arrays(path, arrays)
    assert_same(load_arrays(path), arrays)


def test_trailing_zero_bytes_of_strings_stay(tmp_path: Path) -> None:
    arrays = {"text": strings(b"a\0", b"\0\0", b"", b"\xff"), "one": strings(b"alone\0")}
    save_arrays(tmp_path / "a.npz", arrays)
    assert_same(load_arrays(tmp_path / "a.npz"), arrays)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 2), ()])
def test_strings_keep_their_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.full(shape, b"x\0", dtype=object)
    save_arrays(tmp_path / "a.npz", {"text": array})
    assert_same(load_arrays(tmp_path / "a.npz"), {"text": array})


def test_bfloat16_comes_back_as_bfloat16(tmp_path: Path) -> None:
    arrays = {"half": np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)}
    save_arrays(tmp_path / "a.npz", arrays)
    assert_same(load_arrays(tmp_path / "a.npz"), arrays)


def test_the_same_arrays_give_the_same_bytes_in_any_order_and_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"b": np.arange(6.0).reshape(2, 3), "a": strings(b"x", b"y")}
    two = {"a": strings(b"x", b"y"), "b": np.asfortranarray(one["b"])}
    save_arrays(tmp_path / "one.npz", one)
    monkeypatch.setattr("time.time", lambda: 2e9)
    save_arrays(tmp_path / "two.npz", two)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_another_value_gives_other_bytes(tmp_path: Path) -> None:
    save_arrays(tmp_path / "one.npz", {"a": strings(b"x", b"yz")})
    save_arrays(tmp_path / "two.npz", {"a": strings(b"xy", b"z")})
    assert (tmp_path / "one.npz").read_bytes() != (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("name", ["file", "scope/x", "a.npy", "arr_0", "Ä b"])
def test_any_name_can_be_kept(tmp_path: Path, name: str) -> None:
    save_arrays(tmp_path / "a.npz", {name: np.zeros(2)})
    assert_same(load_arrays(tmp_path / "a.npz"), {name: np.zeros(2)})


def test_saving_does_not_change_the_arrays(tmp_path: Path) -> None:
    arrays = {"text": strings(b"a"), "x": np.ones(2)}
    save_arrays(tmp_path / "a.npz", arrays)
    assert list(arrays) == ["text", "x"]
    assert arrays["text"].dtype == object


@pytest.mark.parametrize("item", ["text", 1, None])
def test_an_object_that_is_not_bytes_is_refused(tmp_path: Path, item: object) -> None:
    with pytest.raises(TypeError):
        save_arrays(tmp_path / "a.npz", {"text": np.array([b"a", item], dtype=object)})


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.npz: no readable arrays"):
        load_arrays(tmp_path / "absent.npz")


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"text", b"\x80\x04N."])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(DataError):
        load_arrays(tmp_path / "a.npz")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(DataError):
        load_arrays(tmp_path / "a.npy")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", text=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError):
        load_arrays(tmp_path / "a.npz")


def test_strings_without_their_bytes_are_refused(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", {"text": strings(b"a")})
    with zipfile.ZipFile(tmp_path / "a.npz") as whole, zipfile.ZipFile(tmp_path / "b.npz", "w") as part:
        name = next(name for name in whole.namelist() if "lengths" in name)
        part.writestr(name, whole.read(name))
    with pytest.raises(DataError):
        load_arrays(tmp_path / "b.npz")


def test_a_byte_that_changed_is_refused_or_changes_no_value(tmp_path: Path) -> None:
    arrays = {"a": strings(b"xy"), "b": np.ones(1)}
    path = tmp_path / "a.npz"
    save_arrays(path, arrays)
    raw = path.read_bytes()
    for position in range(len(raw)):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        try:
            found = load_arrays(path)
        except DataError:
            continue
        except Exception as exc:
            pytest.fail(f"byte {position}: {exc!r} is none of ours")
        if found.keys() == arrays.keys():
            assert_same(found, arrays)


def test_kinds_are_kept_apart_in_one_file() -> None:
    both = add_kind("input", {"x": np.zeros(1)}) | add_kind("inputs", {"x": np.ones(1)})
    assert sorted(both) == ["input/x", "inputs/x"]
    assert of_kind("input", both) == {"x": np.zeros(1)}
    assert of_kind("label", both) == {}
