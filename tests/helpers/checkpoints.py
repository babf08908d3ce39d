"""Checkpoints for tests: tensors of every kind as TensorFlow stores them, and indices of one's own making."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import leveldb_tables
import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from pipeline.checkpoint.bundle import Bundle

v1 = tf.compat.v1
PROJECT = Path(__file__).resolve().parents[2]

FLOATS = ["float16", "float32", "float64", "complex64", "complex128"]
INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
SMALL = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"]
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}
SHAPES = [(), (1,), (3,), (0,), (0, 7), (2, 3, 1, 2, 4)]
STRINGS = [b"", b"a\0b", b"\xff\xfe", "é ø".encode(), b"x" * 127, b"y" * 128, b"z" * 20_000, b"\0"]


def values(name: str, shape: tuple[int, ...]) -> Any:
    """A tensor of a dtype with every bit pattern possible, NaNs with payloads among them."""
    rng = np.random.default_rng(len(name))
    count = math.prod(shape)
    if name == "string":
        return tf.constant([STRINGS[k % len(STRINGS)] for k in range(count)], tf.string, [count]).numpy().reshape(shape)
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if name in ("int4", "uint4"):
        return rng.integers(0, 8, shape).astype(dtype)
    return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(shape)


def save(prefix: Path, tensors: Mapping[str, Any], slices: Sequence[str] = ()) -> Path:
    """A checkpoint of the V2 format."""
    slices = slices or [""] * len(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(tensors), shape_and_slices=slices, tensors=list(tensors.values())
    )
    return prefix


def save_v1(path: Path, tensors: Mapping[str, Any], slices: Sequence[str] = ()) -> Path:
    """A checkpoint of the V1 format."""
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=list(tensors),
        shapes_and_slices=slices or [""] * len(tensors),
        data=list(tensors.values()),
    )
    return path


def assert_same(found: np.ndarray, wanted: Any) -> None:
    """Equal in dtype, shape, and every bit."""
    wanted = np.asarray(wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype == object:
        assert found.tolist() == wanted.tolist()
    else:
        assert found.tobytes() == wanted.tobytes()


def assert_holds(bundle: Bundle, tensors: Mapping[str, Any]) -> None:
    """A bundle has these tensors and no others, by each way of reading."""
    assert list(bundle.tensors) == sorted(tensors, key=str.encode)
    bundle.verify()
    for key, value in tensors.items():
        stored, wanted = bundle.tensors[key], np.asarray(value)
        assert (stored.key, stored.shape, stored.elements) == (key, wanted.shape, wanted.size)
        assert_same(bundle.read(key), wanted)
        if stored.is_string:
            assert bundle.strings(key) == wanted.ravel().tolist()
        else:
            content = b"".join(bundle.stream(key, chunk_bytes=7))
            assert content == wanted.tobytes()
            assert stored.size_bytes == len(content)


SMALL_ONES = {"f": np.float32([1, 2]), "s": np.array([b"a\0", b"", b"ccc"], object), "b": np.array([True, False])}


def save_parts_v1(path: Path, parts: Mapping[str, Any], slices: Sequence[str]) -> Path:
    """The slices of one tensor `w` in a checkpoint of the V1 format."""
    data = list(parts.values())
    tf.raw_ops.SaveSlices(filename=str(path), tensor_names=["w"] * len(data), shapes_and_slices=slices, data=data)
    return path


def in_session(build: Any, prefix: Path, **saver: Any) -> dict[str, np.ndarray]:
    """Saves the variables that `build` makes, and returns them."""
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        build()
        session.run(v1.global_variables_initializer())
        v1.train.Saver(**saver).save(session, str(prefix), write_meta_graph=False)
    reader = tf.train.load_checkpoint(str(prefix))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def on_two_devices() -> None:
    for device, name in (("/cpu:0", "a"), ("/cpu:1", "b"), ("/cpu:1", "c")):
        with tf.device(device):
            v1.get_variable(name, [3, 2], initializer=v1.random_normal_initializer())


def cut_in_four(name: str, shape: tuple[int, ...] = (5, 7)) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """A tensor in four boxes, along both axes, in an order of their own."""
    whole = values(name, shape)
    boxes = [(2, 3, 0, 4), (0, 2, 0, 4), (2, 3, 4, 3), (0, 2, 4, 3)]
    parts = {f"{k}": whole[r : r + rows, c : c + columns] for k, (r, rows, c, columns) in enumerate(boxes)}
    return whole, parts, [f"5 7 {r},{rows}:{c},{columns}" for r, rows, c, columns in boxes]


def save_parts(prefix: Path, parts: Mapping[str, Any], slices: Sequence[str]) -> Path:
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=["w"] * len(parts), shape_and_slices=slices, tensors=list(parts.values())
    )
    return prefix


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def flip(path: Path, at: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


HEADER = tensor_bundle_pb2.BundleHeaderProto(num_shards=1, version={"producer": 1})


def proto(**fields: Any) -> Any:
    """An entry of eight bytes, with some fields of one's own."""
    shape = fields.pop("shape", [2])
    made = tensor_bundle_pb2.BundleEntryProto(
        **{"dtype": 1, "size": 8, "crc32c": leveldb_tables.mask_crc(0x8C28B28A)} | fields
    )
    for size in shape:
        made.shape.dim.add(size=size)
    return made


def cut(*extents: Sequence[tuple[int, int]], **fields: Any) -> Any:
    made = proto(size=0, **fields)
    for extent in extents:
        added = made.slices.add()
        for start, length in extent:
            added.extent.add(start=start, length=length)
    return made


def write_index(prefix: Path, entries: Mapping[bytes, Any], header: Any = HEADER) -> None:
    rows = {b"": header, **entries}
    encoded = [(key, row if isinstance(row, bytes) else row.SerializeToString()) for key, row in sorted(rows.items())]
    Path(f"{prefix}.index").write_bytes(leveldb_tables.table_of(encoded))
    data_of(prefix).write_bytes(bytes(16))


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
