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
from pipeline.inputs import open_file

from .duplicates import require_single_in_graph
from .graph import Graph
from .protos import CountedGraph, DecodeError, GraphDef, NodeDef
from .wire import LENGTH_DELIMITED, encode_field, fields

LARGE = 1 << 16  # bytes, from which a tensor stays on disk
# Fields by their numbers, from graph.proto by node_def.proto (whose map has keys and values) down to tensor.proto.
_NODE, _ATTR, _KEY, _VALUE, _TENSOR, _CONTENT = 1, 5, 1, 2, 8, 4


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
        DataError: the file cannot be read, is no GraphDef, or contains something twice that must be there once.
    """
    try:
        with open_file(path) as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        lean = bytearray()
        contents: dict[str, memoryview] = {}
        for field in fields(whole):
            node = whole[field.content : field.end]
            if field.number == _NODE and field.kind == LENGTH_DELIMITED and len(node) > LARGE:
                rest, content = _without_content(node)
                lean += encode_field(_NODE, rest)
                if content is not None:
                    contents[NodeDef.FromString(rest).name] = content
            else:
                lean += whole[field.start : field.end]
        graph = GraphDef.FromString(bytes(lean))
        require_single_in_graph(graph, CountedGraph.FromString(bytes(lean)))
        _require_names(graph)
        return LazyGraph(Graph.of(graph), contents)
    except (OSError, ValueError, DecodeError) as exc:  # an empty file cannot be mapped: ValueError
        raise DataError("the candidate's graph cannot be read", where=path, got=exc) from exc


def _require_names(graph: GraphDef) -> None:
    """Checks that each node has a name of its own."""
    seen = set[str]()
    for node in graph.node:
        if node.name in seen:
            raise ValueError(f"two nodes are called {node.name!r}")
        seen.add(node.name)


def split_field(message: memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """Returns a message without one of its fields, and all contents of that field.

    Raises:
        ValueError: the message is cut off or broken.
    """
    rest, contents = bytearray(), list[memoryview]()
    for field in fields(message):
        if field.number == number and field.kind == LENGTH_DELIMITED:
            contents.append(message[field.content : field.end])
        else:
            rest += message[field.start : field.end]
    return bytes(rest), contents


def _without_content(node: memoryview) -> tuple[bytes, memoryview | None]:
    """Returns a node without the content of its tensor, and this content; None if that is not large.

    Raises:
        ValueError: a large attribute is written in several parts, of which protobuf would make one.
    """
    lean, content = bytearray(), None
    for field in fields(node):
        entry = node[field.content : field.end]
        if field.number == _ATTR and field.kind == LENGTH_DELIMITED and len(entry) > LARGE:
            rest, found = _cut(entry)
            lean += encode_field(_ATTR, rest)
            content = content if found is None else found
        else:
            lean += node[field.start : field.end]
    return bytes(lean), content


def _cut(entry: memoryview) -> tuple[bytes, memoryview | None]:
    """Returns a large attribute without the content of its tensor, and this content."""
    parts = _parts(entry, "an attribute")
    if parts.keys() != {_KEY, _VALUE} or bytes(parts[_KEY]) != b"value":
        return bytes(entry), None
    value = _parts(parts[_VALUE], "a value")
    if len(value) > 1:
        raise ValueError("an attribute has two values")
    rest, contents = split_field(value.get(_TENSOR, memoryview(b"")), _CONTENT)
    if len(contents) > 1:
        raise ValueError("a tensor has two contents")
    if not contents or len(contents[0]) <= LARGE:
        return bytes(entry), None
    lean = encode_field(_VALUE, encode_field(_TENSOR, rest))
    return encode_field(_KEY, b"value") + lean, contents[0]


def _parts(message: memoryview, what: str) -> dict[int, memoryview]:
    """Returns the bytes of the fields of a message by number, each of which may be there once."""
    found: dict[int, memoryview] = {}
    for field in fields(message):
        if field.number in found or field.kind != LENGTH_DELIMITED:
            raise ValueError(f"{what} is written in two parts, or in an unusual way")
        found[field.number] = message[field.content : field.end]
    return found
