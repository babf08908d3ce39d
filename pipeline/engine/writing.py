"""Writes a frozen graph to disk, its weights streamed from the checkpoint a piece at a time.

A GraphDef on disk is its fields one after the other: a tag, a length, and that many bytes for each node
(protobuf.dev/programming-guides/encoding). The constants of variables are written field by field, so that a tensor is
never held in memory; all else is written by protobuf. The bytes are those of a deterministic serialization of the same
graph by TensorFlow: fields by number, attributes by name.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from ..bundle import Bundle
from ..bundle.stored import StoredTensor
from ..errors import FreezeError
from ..protos import AttrValue, FunctionDefLibrary, NodeDef, TensorProto, TensorShapeProto, VersionDef

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


@dataclass(frozen=True)
class Constant:
    """A variable's place in the graph, to be filled from the checkpoint.

    Args:
        name: the node's.
        tensor: where its value lies.
        box: for a part of it, where that begins and ends, by axis.
    """

    name: str
    tensor: StoredTensor
    box: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class FrozenGraph:
    """A graph whose variables are constants that are still in the checkpoint."""

    nodes: Sequence[NodeDef | Constant]
    library: FunctionDefLibrary
    versions: VersionDef


def write_pb(graph: FrozenGraph, bundle: Bundle, path: Path) -> None:
    """Writes a `.pb`; each tensor's checksum is compared on the way.

    Raises:
        FreezeError: the file would be larger than protobuf can read; nothing is written.
        CheckpointError: a tensor is damaged; the file is then worth nothing.
    """
    parts = [_constant_parts(node, bundle) if isinstance(node, Constant) else _whole(node) for node in graph.nodes]
    # Also an empty one, as TensorFlow does.
    tail = _field(_GRAPH_LIBRARY, graph.library.SerializeToString(deterministic=True))
    tail += _field(_GRAPH_VERSIONS, graph.versions.SerializeToString(deterministic=True))
    size = len(tail) + sum(len(_header(_GRAPH_NODE, part.size_bytes)) + part.size_bytes for part in parts)
    if size > MAX_PB_BYTES:
        raise FreezeError(
            "the model is too large for a .pb",
            where=path,
            got=f"{size} bytes",
            wanted=f"at most {MAX_PB_BYTES}, what protobuf can read",
            next_step="Deploy its checkpoint, or a smaller model",
        )
    with path.open("wb") as file:
        _reserve(file, size)
        for part in parts:
            file.write(_header(_GRAPH_NODE, part.size_bytes))
            part.write(file, bundle)
        file.write(tail)


def _reserve(file: BinaryIO, size: int) -> None:
    """Gives a file its room on the disk at once: writing takes a quarter less time, and a full disk is told first."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise  # any other file system is written to as it is


@dataclass(frozen=True)
class _Part:
    """One node's bytes: what stands before a tensor's content, and the tensor."""

    head: bytes
    tensor: StoredTensor | None
    size_bytes: int

    def write(self, file: BinaryIO, bundle: Bundle) -> None:
        file.write(self.head)
        if self.tensor is not None:
            for chunk in bundle.stream(self.tensor.key):
                file.write(chunk)


def _whole(node: NodeDef) -> _Part:
    raw = node.SerializeToString(deterministic=True)
    return _Part(raw, None, len(raw))


def _constant_parts(constant: Constant, bundle: Bundle) -> _Part:
    tensor = constant.tensor
    if constant.box is not None:
        return _whole(_part_of_whole(constant, constant.box, bundle))
    if tensor.elements < 2 or tensor.dtype_name == "string":
        return _whole(_small_constant(constant, bundle))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in tensor.shape])
    content = tensor.size_bytes
    head = (
        _varint(_tag(_TENSOR_DTYPE, _VARINT))
        + _varint(tensor.dtype)
        + _field(_TENSOR_SHAPE, shape.SerializeToString(deterministic=True))
        + _header(_TENSOR_CONTENT, content)
    )
    # From the inside out, each message tells its length before its bytes.
    size = len(head) + content
    for before, number in ((b"", _ATTR_TENSOR), (_field(1, b"value"), 2), (b"", _NODE_ATTR)):
        head = before + _header(number, size) + head
        size = len(head) + content
    dtype = AttrValue(type=tensor.dtype).SerializeToString(deterministic=True)
    first = (
        _field(_NODE_NAME, constant.name.encode())
        + _field(_NODE_OP, b"Const")
        + _field(_NODE_ATTR, _field(1, b"dtype") + _field(2, dtype))
    )
    return _Part(first + head, tensor, len(first) + size)


def _small_constant(constant: Constant, bundle: Bundle) -> NodeDef:
    """A constant of strings, or of one element or none: these stand in fields of their own."""
    tensor = constant.tensor
    node = NodeDef(name=constant.name, op="Const")
    node.attr["dtype"].type = tensor.dtype
    proto: TensorProto = node.attr["value"].tensor
    proto.dtype = tensor.dtype
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    if tensor.dtype_name == "string":
        proto.string_val.extend(bundle.strings(tensor.key))
    elif tensor.elements:
        _fill_single(proto, tensor, b"".join(bundle.stream(tensor.key)))
    return node


def _part_of_whole(constant: Constant, box: Sequence[tuple[int, int]], bundle: Bundle) -> NodeDef:
    """A constant of a part of a tensor, which is read whole and cut."""
    cut = bundle.read(constant.tensor.key)[tuple(slice(start, end) for start, end in box)]
    node = NodeDef(name=constant.name, op="Const")
    node.attr["dtype"].type = constant.tensor.dtype
    proto: TensorProto = node.attr["value"].tensor
    proto.dtype = constant.tensor.dtype
    proto.tensor_shape.SetInParent()
    for size in cut.shape:
        proto.tensor_shape.dim.add(size=size)
    if constant.tensor.dtype_name == "string":
        proto.string_val.extend(cut.ravel().tolist())
    else:
        proto.tensor_content = cut.tobytes()
    return node


def _fill_single(proto: TensorProto, tensor: StoredTensor, raw: bytes) -> None:
    name, code = tensor.dtype_name, tensor.kind.code
    if name in _BITS:
        getattr(proto, _BITS[name]).append(int.from_bytes(raw, "little"))
    elif name in _PAIRS:
        getattr(proto, _PAIRS[name]).extend(struct.unpack("<ff" if len(raw) == 8 else "<dd", raw))
    elif name in _SINGLE and code[1] == "f":
        getattr(proto, _SINGLE[name]).append(struct.unpack("<f" if len(raw) == 4 else "<d", raw)[0])
    elif name in _SINGLE:
        getattr(proto, _SINGLE[name]).append(int.from_bytes(raw, "little", signed=code[1] == "i"))
    else:
        proto.tensor_content = raw


@lru_cache(maxsize=4096)  # layers are of few sizes
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, kind: int) -> int:
    return number << 3 | kind


@lru_cache(maxsize=4096)
def _header(number: int, size: int) -> bytes:
    return _varint(_tag(number, _LENGTH_DELIMITED)) + _varint(size)


def _field(number: int, content: bytes) -> bytes:
    return _header(number, len(content)) + content
