"""Rows of a file, read a batch at a time: the same ones that reading the whole file gives."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.npz import NpzReader, load_arrays, save_arrays
from pipeline.errors import DataError

ROWS = 9000  # more than two blocks of noted offsets
DRAW = np.random.default_rng(11)


def strings(*shape: int) -> Any:
    array = np.empty(shape, object)
    flat = [bytes(DRAW.integers(0, 256, length, dtype=np.uint8)) for length in DRAW.integers(0, 9, array.size)]
    array[...] = np.array([*flat, None], object)[:-1].reshape(shape)
    return array


ARRAYS = {
    "input/x": DRAW.normal(size=(ROWS, 3)).astype(np.float32),
    "input/text": strings(ROWS),
    "input/pair": strings(ROWS, 2),
    "input/narrow": DRAW.normal(size=ROWS).astype(ml_dtypes.bfloat16),
    "labels": np.arange(ROWS, dtype=np.int64),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    save_arrays(path, ARRAYS)
    return path


def same(rows: dict[str, Any], wanted: Any) -> bool:
    return set(rows) == {"x", "text", "pair", "narrow"} and all(
        values.dtype == ARRAYS[f"input/{name}"].dtype and np.array_equal(values, ARRAYS[f"input/{name}"][wanted])
        for name, values in rows.items()
    )


@given(start=st.integers(0, ROWS), count=st.integers(0, 600))
def test_a_batch_is_that_of_the_whole_file(path: Path, start: int, count: int) -> None:
    assert same(NpzReader(path, "input").read(start, start + count), slice(start, start + count))


@given(st.lists(st.integers(0, ROWS - 1), max_size=12))
def test_rows_are_taken_in_the_order_they_are_asked_for(path: Path, numbers: list[int]) -> None:
    assert same(NpzReader(path, "input").take(numbers), np.array(numbers, np.int64))


def test_the_batches_hold_every_row_once(path: Path) -> None:
    rows = NpzReader(path, "input")
    assert len(rows) == ROWS
    assert [number for batch in rows.batches(256) for number in batch] == list(range(ROWS))


def test_without_a_kind_all_arrays_are_rows(path: Path) -> None:
    rows = NpzReader(path)
    assert set(rows.names) == set(ARRAYS)
    assert rows.read(5, 7)["labels"].tolist() == [5, 6]


def test_a_file_without_rows_has_dtypes_and_shapes(tmp_path: Path) -> None:
    save_arrays(tmp_path / "none.npz", {"input/x": np.zeros((0, 4), np.float16)})
    rows = NpzReader(tmp_path / "none.npz", "input")
    assert (len(rows), rows.first["x"].shape, rows.first["x"].dtype) == (0, (0, 4), np.float16)
    assert list(rows.batches(8)) == []


def test_rows_travel_to_another_process_by_their_place(path: Path) -> None:
    sent = pickle.dumps(NpzReader(path, "input"))
    assert len(sent) < 500
    assert same(pickle.loads(sent).read(10, 12), slice(10, 12))


def test_what_is_read_can_be_written_to(path: Path) -> None:
    rows = NpzReader(path, "input").read(0, 1)
    rows["x"][0, 0] = 5.0
    assert load_arrays(path)["input/x"][0, 0] == ARRAYS["input/x"][0, 0]


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>Not found</title>", b"PK\x03\x04 cut"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.npz: no readable arrays"):
        NpzReader(tmp_path / "rows.npz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        NpzReader(tmp_path / "rows.npz")


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "rows.npz", x=np.zeros(5))
    with pytest.raises(DataError, match="compressed"):
        NpzReader(tmp_path / "rows.npz")


def test_a_file_that_is_cut_off_later_is_refused_when_its_rows_are_read(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows.npz"
    copy.write_bytes(path.read_bytes())
    rows = NpzReader(copy)
    with zipfile.ZipFile(copy) as archive:
        middle = archive.getinfo("labels.npy").header_offset + 200
    copy.write_bytes(path.read_bytes()[:middle])
    with pytest.raises(DataError, match="cut off"):
        rows.read(0, ROWS)


def test_arrays_of_different_lengths_are_no_rows(tmp_path: Path) -> None:
    save_arrays(tmp_path / "rows.npz", {"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(DataError, match="different numbers of rows"):
        NpzReader(tmp_path / "rows.npz")
