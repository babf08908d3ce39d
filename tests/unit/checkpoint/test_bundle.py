"""Checkpoints opened without TensorFlow give what TensorFlow stored, and nothing that is not theirs."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import leveldb_tables
import numpy as np
import pytest
import tensorflow as tf
from checkpoints import (
    FLOATS,
    INTEGERS,
    QUANTIZED,
    SHAPES,
    SMALL,
    SMALL_ONES,
    assert_holds,
    assert_same,
    cut_in_four,
    data_of,
    flip,
    in_session,
    on_two_devices,
    run_python,
    save,
    save_parts,
    save_parts_v1,
    values,
)

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.bundle.leveldb import Table
from pipeline.checkpoint.bundle.ordered_code import slice_key
from pipeline.errors import CheckpointError
from pipeline.graph import protos
from pipeline.graph.dtypes import DTYPES

v1 = tf.compat.v1
PROJECT = Path(__file__).resolve().parents[3]

STRANGERS = PROJECT.parent / "shared" / "models"


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS, *SMALL, "bool", "string"])
def test_every_dtype_and_shape_is_read_as_it_was_stored(tmp_path: Path, name: str) -> None:
    tensors = {f"t{shape}": values(name, shape) for shape in SHAPES}
    bundle = open_checkpoint(save(tmp_path / "model", tensors))
    assert {stored.dtype_name for stored in bundle.tensors.values()} == {name}
    assert {stored.dtype for stored in bundle.tensors.values()} == {tf.as_dtype(name).as_datatype_enum}
    assert_holds(bundle, tensors)
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    for key in tensors:
        theirs = reader.get_tensor(key)
        assert_same(bundle.read(key), theirs if name != "string" else np.array(theirs, dtype=object))


@pytest.mark.parametrize(("name", "integer"), QUANTIZED.items())
def test_quantized_tensors_are_read_as_their_integers(tmp_path: Path, name: str, integer: str) -> None:
    value = values(integer, (5, 2))
    bundle = open_checkpoint(save(tmp_path / "model", {"q": tf.bitcast(value, tf.as_dtype(name))}))
    assert bundle.tensors["q"].dtype_name == name
    assert_holds(bundle, {"q": value})


def test_the_table_of_dtypes_is_tensorflow_s() -> None:
    for number, dtype in DTYPES.items():
        theirs = tf.as_dtype(number)
        assert (theirs.as_datatype_enum, theirs.name) == (number, dtype.name)
        if dtype.name not in ("string", "variant", *QUANTIZED):
            assert theirs.as_numpy_dtype == dtype.numpy()
            assert dtype.size_bytes == dtype.numpy().itemsize
    known = {value for name, value in protos.DataType.items() if not name.endswith("_REF")}
    assert known - set(DTYPES) == {0, 20}  # invalid, and handles of resources


def test_without_ml_dtypes_the_bits_come_as_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = values("bfloat16", (4,))
    bundle = open_checkpoint(save(tmp_path / "model", {"b": value}))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert_same(bundle.read("b"), value.view(np.uint16))


def test_names_are_any_text(tmp_path: Path) -> None:
    names = ["a b", "é/ø", "日本", "a?*[x]", "a.b", "A/" * 200 + "end", "a", "a/b", "ÿ", "_\x7f"]
    tensors = {name: np.float32(k) for k, name in enumerate(names)}
    assert_holds(open_checkpoint(save(tmp_path / "a b?*.ckpt-7", tensors)), tensors)


def test_a_prefix_may_be_empty(tmp_path: Path) -> None:
    tf.raw_ops.SaveV2(prefix=f"{tmp_path}/", tensor_names=["a"], shape_and_slices=[""], tensors=[np.float32(1)])
    assert (tmp_path / ".index").is_file()
    assert_holds(open_checkpoint(f"{tmp_path}/"), {"a": np.float32(1)})


def test_thousands_of_tensors_lie_in_several_blocks(tmp_path: Path) -> None:
    tensors = {f"layer_{k}/some/longer/name/of/a/{'kernel' if k % 2 else 'bias'}": np.int32(k) for k in range(10_000)}
    prefix = save(tmp_path / "model", tensors)
    assert len(Table(Path(f"{prefix}.index"))._handles) > 1
    bundle = open_checkpoint(prefix)
    assert list(bundle.tensors) == sorted(tensors)
    assert all(bundle.read(key) == value for key, value in itertools.islice(tensors.items(), 0, None, 100))
    bundle.verify()


def test_a_checkpoint_without_tensors_is_empty(tmp_path: Path) -> None:
    leveldb_tables.write(tmp_path / "model.index", leveldb_tables.table_of([(b"", b"\x08\x01")]))
    assert open_checkpoint(tmp_path / "model").tensors == {}


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    wanted = in_session(on_two_devices, tmp_path / "model", sharded=True)
    bundle = open_checkpoint(tmp_path / "model")
    assert_holds(bundle, wanted)
    assert len({piece.path for stored in bundle.tensors.values() for piece in stored.pieces}) == 2


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("use_resource", [False, True])
def test_a_partitioned_variable_is_one_tensor(tmp_path: Path, axis: int, use_resource: bool) -> None:
    def build() -> None:
        cut = v1.fixed_size_partitioner(3, axis=axis)
        v1.get_variable(
            "scope/w", [10, 7], initializer=v1.random_normal_initializer(), partitioner=cut, use_resource=use_resource
        )
        v1.get_variable("plain", [2], initializer=v1.ones_initializer())

    wanted = in_session(build, tmp_path / "model")
    bundle = open_checkpoint(tmp_path / "model")
    assert_holds(bundle, wanted)
    assert len(bundle.tensors["scope/w"].pieces) == 3


@pytest.mark.parametrize("name", ["float32", "bfloat16", "complex128", "int8", "string"])
def test_slices_along_both_axes_are_put_together(tmp_path: Path, name: str) -> None:
    whole, parts, slices = cut_in_four(name)
    assert_holds(open_checkpoint(save_parts(tmp_path / "model", parts, slices)), {"w": whole})


def test_the_key_of_a_slice_is_tensorflow_s(tmp_path: Path) -> None:
    name = "w\0é"
    starts = [0, 1, 63, 64, 8191, 8192, 2**20 - 1, 2**20, 2**27, 2**34, 2**55, 2**60]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=[name] * len(starts),
        shape_and_slices=[f"{2**61} 3 {start},1:-" for start in starts],
        tensors=[np.zeros((1, 3), np.int8)] * len(starts),
    )
    keys = [key for key, _ in Table(tmp_path / "m.index") if key[:1] == b"\0"]
    assert keys == [slice_key(name, [(start, 1), (0, -1)]) for start in starts]


def test_slices_stored_in_another_order_come_in_theirs(tmp_path: Path) -> None:
    whole = values("int32", (5, 2))
    parts, slices = {"": whole[3:], " ": whole[:3]}, ["5 2 3,2:-", "5 2 0,3:-"]
    assert_holds(open_checkpoint(save_parts(tmp_path / "m", parts, slices)), {"w": whole})
    save_parts_v1(tmp_path / "old", parts, slices)
    assert_holds(open_checkpoint(tmp_path / "old"), {"w": whole})


def test_a_merged_checkpoint_holds_the_slices_of_all(tmp_path: Path) -> None:
    whole = values("float32", (6, 2))
    parts = [save_parts(tmp_path / f"p{k}", {"": whole[3 * k : 3 * k + 3]}, [f"6 2 {3 * k},3:-"]) for k in range(2)]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[str(p) for p in parts], destination_prefix=str(tmp_path / "m"))
    assert_holds(open_checkpoint(tmp_path / "m"), {"w": whole})


def test_variants_are_listed_and_verified_and_not_read(tmp_path: Path) -> None:
    variant = tf.raw_ops.TensorListFromTensor(tensor=tf.range(5), element_shape=tf.constant([], tf.int32))
    prefix = save(tmp_path / "model", {"v": variant, "w": np.float32(1)})
    bundle = open_checkpoint(prefix)
    bundle.verify()
    assert bundle.tensors["v"].dtype_name == "variant"
    with pytest.raises(CheckpointError, match=r"no fixed size.*variant"):
        bundle.stream("v")
    flip(data_of(prefix), bundle.tensors["v"].pieces[0].offset + 3)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="'v' is damaged"):
        bundle.verify()


STRANGERS_CHECKPOINTS = {
    "animal-classifier-v4/classifier-model-v4": 32,
    "half-plus-two-savedmodel/variables/variables": 5,
    "linear-regression/checkpoint/model": 2,
    "old-variable-op/export": 2,
    "retinaface-mnet/mnet.25-1080x1920": 273,
    "batchnorm-in-cond/regular_model": 64,
}


@pytest.mark.parametrize("place", STRANGERS_CHECKPOINTS)
def test_strangers_checkpoints_hold_what_tensorflow_finds_in_them(place: str) -> None:
    if not STRANGERS.is_dir():
        pytest.skip("the strangers' models are not here")
    reader = tf.train.load_checkpoint(str(STRANGERS / place))
    bundle = open_checkpoint(STRANGERS / place)
    assert len(bundle.tensors) == STRANGERS_CHECKPOINTS[place]
    assert_holds(bundle, {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()})


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model: no such checkpoint .*model.index and model.data-…"):
        open_checkpoint(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_checkpoint(tmp_path / ("long" * 100))
    bundle = open_checkpoint(save(tmp_path / "model", SMALL_ONES | {"dense/kernel": np.float32(1)}))
    with pytest.raises(CheckpointError, match="Did you mean 'dense/kernel'"):
        bundle.stream("dense/kernal")
    with pytest.raises(CheckpointError, match="no fixed size"):
        bundle.stream("s")
    with pytest.raises(CheckpointError, match="not a tensor of strings"):
        bundle.strings("f")


def test_reading_a_checkpoint_loads_no_tensorflow_and_no_numpy(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model", SMALL_ONES)
    code = f"""
import sys, pathlib
from pipeline.checkpoint.bundle import open_checkpoint
bundle = open_checkpoint(pathlib.Path({str(prefix)!r}))
before = set(sys.modules)
bundle.verify(), b"".join(bundle.stream("f")), bundle.strings("s")
print(sorted(name for name in ("tensorflow", "keras") if name in sys.modules), sorted(set(sys.modules) - before))
"""
    assert run_python(code).strip() == "[] []"
