"""Writes a frozen graph to disk; its weights are streamed from the checkpoint in chunks.

A GraphDef on disk is a sequence of fields: for each node a tag, a length, and that many bytes
(protobuf.dev/programming-guides/encoding). The constants of variables are written field by field, so that no
tensor is held in memory; protobuf writes the rest. The bytes equal TensorFlow's deterministic serialization of the same
graph: fields by number, attributes by name.
"""

from __future__ import annotations

import errno
import math
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.bundle.tensor import StoredTensor
from pipeline.errors import FreezeError
from pipeline.graph.protos import AttrValue, NodeDef, TensorProto, TensorShapeProto
from pipeline.graph.varint import encode_varint

from .constants import Constant, FrozenGraph, content, strings
from .float16 import convert_to_float16

Progress = Callable[[int, int], None]  # called with the bytes written, and the total

MAX_PB_BYTES = 2**31 - 1  # protobuf's limit: a larger GraphDef is written without complaint and cannot be parsed

_LENGTH_DELIMITED, _VARINT = 2, 0
# Field numbers of graph.proto, node_def.proto (a map's key is 1, its value 2), attr_value.proto and tensor.proto.
_GRAPH_NODE, _GRAPH_LIBRARY, _GRAPH_VERSIONS = 1, 2, 4
_NODE_NAME, _NODE_OP, _NODE_ATTR = 1, 2, 5
_ATTR_TENSOR = 8
_TENSOR_DTYPE, _TENSOR_SHAPE, _TENSOR_CONTENT = 1, 2, 4

# Where a TensorProto keeps a single element, by dtype: make_tensor_proto writes content only for two elements and more.
_SINGLE = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    **dict.fromkeys(
        ("int32", "int16", "int8", "uint8", "uint16", "qint8", "quint8", "qint16", "quint16", "qint32"), "int_val"
    ),
}
_BITS = {"float16": "half_val", "bfloat16": "half_val"}
_PAIRS = {"complex64": "scomplex_val", "complex128": "dcomplex_val"}


def write_pb(graph: FrozenGraph, bundle: Bundle, path: Path, progress: Progress | None = None) -> None:
    """Writes a `.pb`, and verifies each tensor's checksum.

    Args:
        progress: called with the bytes written so far and the total, first with 0.

    Raises:
        FreezeError: the file would be larger than protobuf can read, and nothing is written; or a value is beyond
            float16's range, and the file is incomplete.
        CheckpointError: a tensor is damaged, and the file is incomplete.
    """
    layout = lay_out(graph, bundle)
    if layout.size_bytes > MAX_PB_BYTES:
        raise _too_large(layout.size_bytes, graph, bundle, path)
    layout.write(bundle, path, progress or ignore_progress)


def _too_large(size: int, graph: FrozenGraph, bundle: Bundle, path: Path) -> FreezeError:
    """Returns the error, with the alternatives for this graph."""
    half = lay_out(convert_to_float16(graph), bundle).size_bytes
    way = f", or with --weights float16, which takes {format_bytes(half)}" if half <= MAX_PB_BYTES else ""
    return FreezeError(
        "the model is too large for a .pb",
        where=path,
        got=format_bytes(size),
        wanted=f"at most {format_bytes(MAX_PB_BYTES)}, what protobuf can read",
        next_step=f"Freeze it with --format mmap, whose weights lie in files beside the graph{way}",
    )


def format_bytes(size: int) -> str:
    """Formats a size for people and programs: `2214592512 bytes (2.21 GB)`."""
    return f"{size} bytes ({size / 1e9:.2f} GB)"


def ignore_progress(done: int, total: int) -> None:
    """Ignores the progress."""


@dataclass(frozen=True)
class Layout:
    """The bytes of a GraphDef without the content of its large constants, and its size."""

    parts: list[_Part]
    tail: bytes

    @property
    def size_bytes(self) -> int:
        """The size of the whole GraphDef in bytes."""
        return len(self.tail) + sum(len(_header(_GRAPH_NODE, p.size_bytes)) + p.size_bytes for p in self.parts)

    def write(self, bundle: Bundle, path: Path, progress: Progress) -> None:
        """Writes the file."""
        total = self.size_bytes
        progress(0, total)
        with path.open("wb") as file:
            _reserve(file, total)
            for part in self.parts:
                file.write(_header(_GRAPH_NODE, part.size_bytes))
                part.write(file, bundle, lambda: progress(file.tell(), total))
            file.write(self.tail)
        progress(total, total)


def lay_out(graph: FrozenGraph, bundle: Bundle) -> Layout:
    """Lays out a graph as a GraphDef; reads only constants of one element and strings from the checkpoint.

    Raises:
        CheckpointError: one of these is damaged.
    """
    parts = [_constant_parts(node, bundle) if isinstance(node, Constant) else _whole(node) for node in graph.nodes]
    # Also an empty one, as TensorFlow does.
    tail = _field(_GRAPH_LIBRARY, graph.library.SerializeToString(deterministic=True))
    tail += _field(_GRAPH_VERSIONS, graph.versions.SerializeToString(deterministic=True))
    return Layout(parts, tail)


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserves a file's space on disk: writing takes a quarter less time, and a full disk is noticed first."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise  # any other file system is written to as it is


@dataclass(frozen=True)
class _Part:
    """One node's bytes: those before a constant's content, and the constant."""

    head: bytes
    constant: Constant | None
    size_bytes: int

    def write(self, file: BinaryIO, bundle: Bundle, tell: Callable[[], None]) -> None:
        file.write(self.head)
        if self.constant is not None:
            for chunk in content(self.constant, bundle):
                file.write(chunk)
                tell()


def _whole(node: NodeDef) -> _Part:
    raw = node.SerializeToString(deterministic=True)
    return _Part(raw, None, len(raw))


def _constant_parts(constant: Constant, bundle: Bundle) -> _Part:
    if constant.elements < 2 or constant.tensor.is_string:
        return _whole(_small_constant(constant, bundle))
    size_bytes = constant.size_bytes
    head = (
        encode_varint(_tag(_TENSOR_DTYPE, _VARINT))
        + encode_varint(constant.dtype)
        + _field(_TENSOR_SHAPE, shape_proto(constant.shape).SerializeToString(deterministic=True))
        + _header(_TENSOR_CONTENT, size_bytes)
    )
    # From the inside out: each message has its length before its bytes.
    size = len(head) + size_bytes
    for before, number in ((b"", _ATTR_TENSOR), (_field(1, b"value"), 2), (b"", _NODE_ATTR)):
        head = before + _header(number, size) + head
        size = len(head) + size_bytes
    dtype = AttrValue(type=constant.dtype).SerializeToString(deterministic=True)
    first = (
        _field(_NODE_NAME, constant.name.encode())
        + _field(_NODE_OP, b"Const")
        + _field(_NODE_ATTR, _field(1, b"dtype") + _field(2, dtype))
    )
    return _Part(first + head, constant, len(first) + size)


def shape_proto(shape: Iterable[int]) -> TensorShapeProto:
    """Returns a shape as TensorFlow's message."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])


def _small_constant(constant: Constant, bundle: Bundle) -> NodeDef:
    """Returns a constant of strings, or of at most one element, which have fields of their own."""
    tensor = constant.tensor
    node = NodeDef(name=constant.name, op="Const")
    node.attr["dtype"].type = tensor.dtype
    proto: TensorProto = node.attr["value"].tensor
    proto.dtype = tensor.dtype
    proto.tensor_shape.SetInParent()
    proto.tensor_shape.MergeFrom(shape_proto(constant.shape))
    if tensor.is_string:
        proto.string_val.extend(strings(constant, bundle))
    elif constant.elements:
        _fill_single(proto, tensor, b"".join(content(constant, bundle)))
    return node


def _fill_single(proto: TensorProto, tensor: StoredTensor, raw: bytes) -> None:
    name, code = tensor.dtype_name, tensor.kind.code
    if name in _BITS:
        getattr(proto, _BITS[name]).append(int.from_bytes(raw, "little"))
    elif name in _PAIRS or (name in _SINGLE and code[1] == "f"):
        half = len(raw) // 2 if name in _PAIRS else len(raw)
        values = struct.unpack(f"<{len(raw) // half}{'f' if half == 4 else 'd'}", raw)
        if any(math.isnan(value) for value in values):
            proto.tensor_content = raw  # by way of Python's floats a signalling NaN would become a quiet one
        else:
            getattr(proto, {**_PAIRS, **_SINGLE}[name]).extend(values)
    elif name in _SINGLE:
        getattr(proto, _SINGLE[name]).append(int.from_bytes(raw, "little", signed=code[1] == "i"))
    else:
        proto.tensor_content = raw


def _tag(number: int, kind: int) -> int:
    return number << 3 | kind


@lru_cache(maxsize=4096)  # layers are of few sizes
def _header(number: int, size: int) -> bytes:
    return encode_varint(_tag(number, _LENGTH_DELIMITED)) + encode_varint(size)


def _field(number: int, content: bytes) -> bytes:
    return _header(number, len(content)) + content
