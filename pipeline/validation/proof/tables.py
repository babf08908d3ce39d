"""Lookup tables by their content: keys with their values, in whatever order and by whichever op they are filled."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.inputs import read_file

from .contents import Content, ContentTable, content_of_array, join_strings
from .ops import FROM_FILE, FROM_TENSORS
from .saved_names import identity_of
from .terms import TermTable

_WHOLE_LINE, _LINE_NUMBER = -2, -1  # of key_index and value_index, tensorflow/core/ops/lookup_ops.cc
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def find_fillers(graph: Graph, table: NodeDef, identity: tuple[str, str]) -> Iterator[NodeDef]:
    """Yields the ops that fill a table."""
    for node in graph.node:
        if node.op in FROM_TENSORS or node.op in FROM_FILE:
            filled = graph.nodes.get(node_of(data_inputs(node)[0]))
            if filled is not None and filled.op == table.op and identity_of(filled) == identity:
                yield whole_node(node)


def table_term(
    table: TermTable,
    contents: ContentTable,
    filler: NodeDef,
    terms: Sequence[int],
    dtypes: Sequence[int],
    made: tuple[Hashable, Sequence[int]],
) -> int:
    """Returns the term of a table that is filled by an op.

    Args:
        terms: of the op's keys and values, or of the file's name.
        dtypes: of keys and values.
        made: the attributes and inputs that the table is made with.

    Raises:
        DataError: a file cannot be read, is not as the op says, or gives one key two values.
    """
    known = [table[one].content for one in terms]
    attributes, given = made
    if filler.op in FROM_FILE:
        if known[0] is None:
            raise DataError("a table's file has no constant name", where=f"node {filler.name}")
        keys, values = _columns(filler, dtypes, contents.strings(known[0])[0])
    elif any(one is None for one in known):
        return table.make("table", attributes, [*given, *terms])
    else:
        keys, values = (_Column.of(contents, one) for one in known if one is not None)
    size = len(values.elements) // max(1, len(keys.elements))  # a value may have several numbers
    joined = [b"".join(values.elements[at : at + size]) for at in range(0, len(values.elements), size or 1)]
    pairs = dict(zip(keys.elements, joined, strict=True))
    if any(pairs[key] != value for key, value in zip(keys.elements, joined, strict=True)):
        raise DataError("a table has one key with two values", where=f"node {filler.name}")
    order = sorted(pairs)
    parts = [_content(order, keys.dtype), _content([pairs[key] for key in order], values.dtype)]
    return table.make("table", attributes, [*given, *(table.make("const", contents.number(part)) for part in parts)])


class _Column(NamedTuple):
    """The keys or the values of a table, each as bytes."""

    elements: list[bytes]
    dtype: int

    @classmethod
    def of(cls, contents: ContentTable, number: int) -> _Column:
        content = contents.contents[number]
        return cls(_elements(contents, number), content.dtype)


def _elements(contents: ContentTable, number: int) -> list[bytes]:
    """Returns the elements of a content, each as bytes."""
    content = contents.contents[number]
    if content.dtype == STRING.number:
        return contents.strings(number)
    raw, size = bytes(content.read()), DTYPES[content.dtype].size_bytes
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def _content(elements: Sequence[bytes], dtype: int) -> Content:
    is_text = dtype == STRING.number
    joined = join_strings(elements) if is_text else b"".join(elements)
    count = len(elements) if is_text else len(joined) // DTYPES[dtype].size_bytes  # a value may have several numbers
    return Content(dtype, (count,), len(joined), lambda: joined)


def _columns(filler: NodeDef, dtypes: Sequence[int], name: bytes) -> list[_Column]:
    """Reads keys and values from a vocabulary file.

    Args:
        dtypes: of both.
    """
    path = Path(name.decode("utf-8", "surrogateescape"))
    try:
        lines = read_file(path).replace(b"\r", b"").split(b"\n")
    except OSError as exc:
        raise DataError("a table's file cannot be read", where=path, got=exc.strerror) from exc
    lines = lines[:-1] if not lines[-1] else lines
    size = filler.attr["vocab_size"].i
    lines = lines[:size] if size > 0 else lines
    delimiter, offset = filler.attr["delimiter"].s or b"\t", filler.attr["offset"].i
    columns = []
    for attribute, dtype in zip(("key_index", "value_index"), dtypes, strict=True):
        index = filler.attr[attribute].i
        if index == _LINE_NUMBER:
            cells = [str(number + offset).encode() for number in range(len(lines))]
        else:
            cells = lines if index == _WHOLE_LINE else [line.split(delimiter)[index] for line in lines]
        columns.append(
            _Column([cell if dtype == STRING.number else _packed(cell, dtype, path) for cell in cells], dtype)
        )
    return columns


def _packed(cell: bytes, dtype: int, path: Path) -> bytes:
    if not _NUMBER.fullmatch(cell.strip()):
        raise DataError("a table's file has something else than a number", where=path, got=cell)
    kind = DTYPES[dtype].numpy()
    value = int(cell) if kind.kind in "iu" else float(cell)
    return bytes(content_of_array(np.array(value, kind), dtype).read())
