"""Loads a GraphDef whose large tensors stay on disk, as views of the mapped file.

Protobuf would copy a file of a gigabyte twice to read it. Instead the wire format
(protobuf.dev/programming-guides/encoding) is walked down to the large `tensor_content`s, and protobuf parses the rest.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

from .graph import Graph
from .protos import DecodeError, GraphDef, NodeDef
from .varint import encode_varint, read_varint

LARGE = 1 << 16  # bytes, from which a tensor stays on disk
# Field numbers from a GraphDef down: node (graph.proto), attr (node_def.proto), a map's value, tensor
# (attr_value.proto), tensor_content (tensor.proto).
_DOWN = (1, 5, 2, 8, 4)
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class LazyGraph:
    """A graph, and the contents of its large tensors.

    Args:
        graph: without the `tensor_content` of large constants.
        contents: by node the bytes of its large tensor; they are read from disk on access.
    """

    graph: Graph
    contents: Mapping[str, memoryview]


def load_lazily(path: Path) -> LazyGraph:
    """Reads a `.pb`.

    Raises:
        DataError: the file cannot be read, or is no GraphDef.
    """
    try:
        with path.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        lean = bytearray()
        contents: dict[str, memoryview] = {}
        for start, content, end in _fields(whole, _DOWN[0]):
            if end - content <= LARGE or not content:
                lean += whole[start:end]
                continue
            node, cut = _without(whole[content:end], _DOWN[1:])
            lean += _field(_DOWN[0], node)
            contents |= {NodeDef.FromString(node).name: part for part in cut}
        return LazyGraph(Graph.of(GraphDef.FromString(bytes(lean))), contents)
    except (OSError, ValueError, DecodeError) as exc:  # an empty file cannot be mapped: ValueError
        raise DataError("the candidate's graph cannot be read", where=path, got=exc) from exc


def split_field(message: memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """Returns a message without one of its fields, and all contents of that field.

    Raises:
        ValueError: the message is cut off or broken.
    """
    rest, contents = bytearray(), list[memoryview]()
    for start, content, end in _fields(message, number):
        if content:
            contents.append(message[content:end])
        else:
            rest += message[start:end]
    return bytes(rest), contents


def _without(message: memoryview, down: tuple[int, ...]) -> tuple[bytes, list[memoryview]]:
    """Returns a message without the large fields at the end of a path of fields, and these fields."""
    lean, cut = bytearray(), list[memoryview]()
    for start, content, end in _fields(message, down[0]):
        if not content or end - content <= LARGE:
            lean += message[start:end]
        elif len(down) == 1:
            cut.append(message[content:end])
        else:
            inner, found = _without(message[content:end], down[1:])
            lean += _field(down[0], inner)
            cut += found
    return bytes(lean), cut


def _fields(message: memoryview, wanted: int) -> list[tuple[int, int, int]]:
    """Returns start, content and end of each field of a message; content is 0 unless the field is the wanted one."""
    found, at = [], 0
    while at < len(message):
        start, content = at, 0
        tag, at = read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = read_varint(message, at)
        elif kind == _LENGTH_DELIMITED:
            length, at = read_varint(message, at)
            content = at if tag >> 3 == wanted else 0
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at > len(message):
            raise ValueError("the file is cut off")
        found.append((start, content, at))
    return found


def _field(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(content)) + content
