"""Checkpoints of the V1 format: the same tensors, the same refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import leveldb_tables
import numpy as np
import pytest
import tensorflow as tf
from checkpoints import (
    QUANTIZED,
    SHAPES,
    assert_holds,
    assert_same,
    cut_in_four,
    on_two_devices,
    save,
    save_parts_v1,
    save_v1,
    values,
)

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.bundle.leveldb import Table
from pipeline.checkpoint.bundle.ordered_code import slice_key
from pipeline.errors import CheckpointError
from pipeline.graph import protos

v1 = tf.compat.v1
PROJECT = Path(__file__).resolve().parents[3]

V1_DTYPES = ["float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "uint16"]


@pytest.mark.parametrize("name", [*V1_DTYPES, "complex128", "float16", "string"])
def test_the_old_format_is_read_in_every_dtype_that_it_has(tmp_path: Path, name: str) -> None:
    tensors = {f"t{shape}": values(name, shape) for shape in SHAPES if name != "string" or shape}
    bundle = open_checkpoint(save_v1(tmp_path / "model", tensors))
    assert {stored.dtype_name for stored in bundle.tensors.values()} == {name}
    assert_holds(bundle, tensors)
    for key, value in tensors.items():
        theirs = tf.raw_ops.Restore(file_pattern=str(tmp_path / "model"), tensor_name=key, dt=tf.as_dtype(name))
        assert_same(bundle.read(key), theirs.numpy())
        if name == "string":
            again = open_checkpoint(save(tmp_path / "v2", {"s": value}))
            assert bundle.tensors[key].size_bytes == again.tensors["s"].size_bytes


@pytest.mark.parametrize(("name", "integer"), [item for item in QUANTIZED.items() if "16" not in item[0]])
def test_the_old_format_has_quantized_tensors(tmp_path: Path, name: str, integer: str) -> None:
    value = values(integer, (5, 2))
    assert_holds(open_checkpoint(save_v1(tmp_path / "m", {"q": tf.bitcast(value, tf.as_dtype(name))})), {"q": value})


@pytest.mark.parametrize("name", ["float32", "string", "bool"])
def test_the_old_format_has_slices(tmp_path: Path, name: str) -> None:
    whole, parts, slices = cut_in_four(name)
    save_parts_v1(tmp_path / "m", parts, slices)
    assert_holds(open_checkpoint(tmp_path / "m"), {"w": whole})


def test_the_old_format_has_shards_and_several_blocks(tmp_path: Path) -> None:
    wanted = in_session_v1(tmp_path / "model")
    save_v1(tmp_path / "model.2-00000-of-00003", {"a": np.float32(1)})  # of another checkpoint
    bundle = open_checkpoint(tmp_path / "model")
    assert_holds(bundle, wanted)
    (tmp_path / "model-00001-of-00002").unlink()
    with pytest.raises(CheckpointError, match="a shard of the checkpoint is missing"):
        open_checkpoint(tmp_path / "model")
    many = {f"n{k}": values("float64", (400,)) for k in range(200)}
    assert_holds(open_checkpoint(save_v1(tmp_path / "many", many)), many)
    assert len(Table(tmp_path / "many")._handles) > 1


def in_session_v1(prefix: Path) -> dict[str, np.ndarray]:
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        on_two_devices()
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=True, write_version=v1.train.SaverDef.V1)
        saver.save(session, str(prefix), write_meta_graph=False)
        return {variable.op.name: session.run(variable) for variable in v1.global_variables()}


def v1_file(meta: Any, *records: tuple[bytes, Any]) -> bytes:
    first = protos.SavedTensorSlices(meta=meta).SerializeToString()
    return leveldb_tables.table_of([(b"", first), *((key, record.SerializeToString()) for key, record in records)])


LATER = protos.SavedTensorSliceMeta(versions={"producer": 2, "min_consumer": 2})


def v1_meta(name: str = "w", shape: Sequence[int] = (2,), dtype: int = 1, extents: Any = ({},)) -> Any:
    shape_proto = protos.TensorShapeProto(dim=[{"size": size} for size in shape])
    meta = protos.SavedTensorSliceMeta(versions={"producer": 1})
    meta.tensor.add(name=name, shape=shape_proto, type=dtype, slice=[{"extent": list(extents)}] if extents else [])
    return meta


def v1_record(name: str = "w", **fields: Any) -> tuple[bytes, Any]:
    data = protos.TensorProto(**fields).SerializeToString()
    return slice_key("w", [(0, -1)]), protos.SavedTensorSlices(data={"name": name, "data": data})


GOOD = v1_record(float_val=[1, 2])
BROKEN = protos.SavedTensorSlices(data={"name": "w", "data": b"\xff"})
WRONG_V1: dict[str, tuple[bytes, str]] = {
    "no contents": (leveldb_tables.table_of([(GOOD[0], b"")]), "no table of contents"),
    "later version": (v1_file(LATER), "needs a later reader"),
    "no meta": (leveldb_tables.table_of([(b"", b"")]), "not a checkpoint of the V1 format"),
    "not a proto": (leveldb_tables.table_of([(b"", b"\xff")]), "not a SavedTensorSlices"),
    "no record": (v1_file(v1_meta()), "a record of 'w' is missing"),
    "another's": (v1_file(v1_meta(), v1_record("v", float_val=[1, 2])), "another tensor's"),
    "too few": (v1_file(v1_meta(), v1_record(float_val=[1])), "does not fit its shape"),
    "too many": (v1_file(v1_meta(), v1_record(float_val=[1, 2, 3])), "does not fit its shape"),
    "wrong field": (v1_file(v1_meta(), v1_record(double_val=[1, 2])), "does not fit its shape"),
    "broken record": (
        v1_file(v1_meta(), (GOOD[0], protos.SavedTensorSlices(data={"name": "w", "data": b"\xff"}))),
        "damag",
    ),
    "out of range": (v1_file(v1_meta(dtype=6), v1_record(int_val=[1, 128])), "is damaged"),
    "few strings": (v1_file(v1_meta(dtype=7), v1_record(string_val=[b"a"])), "does not fit its shape"),
    "huge": (v1_file(v1_meta(shape=[2**40]), GOOD), "cannot lie in"),
    "gap": (v1_file(v1_meta(extents=[{"length": 1}]), GOOD), "do not cover"),
    "no slices": (v1_file(v1_meta(extents=None), GOOD), "has no slices"),
    "dtype": (v1_file(v1_meta(dtype=14), GOOD), "V1 format has no such dtype"),
    "unknown dtype": (v1_file(v1_meta(dtype=77), GOOD), "unknown dtype"),
}


@pytest.mark.parametrize("case", WRONG_V1)
def test_an_old_file_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    leveldb_tables.write(tmp_path / "m", WRONG_V1[case][0])
    with pytest.raises(CheckpointError, match=WRONG_V1[case][1]):
        open_checkpoint(tmp_path / "m").verify()


def test_the_old_files_of_these_tests_are_right_but_for_what_they_change(tmp_path: Path) -> None:
    leveldb_tables.write(tmp_path / "m", v1_file(v1_meta(), GOOD))
    assert_holds(open_checkpoint(tmp_path / "m"), {"w": np.float32([1, 2])})


def test_an_old_shard_that_disagrees_is_refused(tmp_path: Path) -> None:
    leveldb_tables.write(tmp_path / "m-00000-of-00002", v1_file(v1_meta(), GOOD))
    leveldb_tables.write(tmp_path / "m-00001-of-00002", v1_file(v1_meta(shape=[3]), GOOD))
    with pytest.raises(CheckpointError, match="two shards disagree on 'w'"):
        open_checkpoint(tmp_path / "m")
