"""Nodes whose attributes are parsed on access.

Most nodes of a Saver's graph belong to training; freezing needs only their names and inputs. A parsed message takes
1,200 bytes, a `LazyNode` 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import intern
from typing import Any

from .duplicates import require_single
from .protos import LazyGraphDef, NodeDef


class LazyNode:
    """A node that reads like a NodeDef.

    Attributes:
        name, op, input: as in the message.
        raw: the bytes of the message.
    """

    __slots__ = ("_graph", "_index", "input", "name", "op")

    def __init__(self, name: str, op: str, inputs: Sequence[str], graph: LazyGraphDef, index: int) -> None:
        self.name, self.op, self.input, self._graph, self._index = name, op, inputs, graph, index

    @property
    def raw(self) -> bytes:
        content: bytes = self._graph.node[self._index]
        return content

    def parse(self) -> NodeDef:
        """Returns the node as a new message."""
        return NodeDef.FromString(self.raw)

    @property
    def attr(self) -> Any:
        """The attributes; every access parses the message again."""
        return self.parse().attr

    @property
    def device(self) -> str:
        device: str = self.parse().device
        return device


def read_nodes(graph: LazyGraphDef) -> list[LazyNode]:
    """Returns the nodes of a graph; each is parsed once, so that damage is found now.

    Raises:
        DecodeError: the bytes of a node are damaged, or one of its attributes stands twice.
    """
    names: dict[str, str] = {}  # an input is mostly the name of a node: one string serves both
    known, parse, nodes = names.setdefault, NodeDef.FromString, list[LazyNode]()
    for index, raw in enumerate(graph.node):
        message = parse(raw)
        # Each attribute begins with its tag, the byte 0x2a (0xaa if it is written longer than it must be): where there
        # are no more of these bytes than attributes, none stands twice.
        if raw.count(b"*") + raw.count(b"\xaa") != len(message.attr):
            require_single(raw, message)
        name, given = message.name, message.input[:]
        inputs = tuple(map(known, given, given))
        nodes.append(LazyNode(known(name, name), intern(message.op), inputs, graph, index))
    return nodes


def whole_node(node: NodeDef | LazyNode) -> NodeDef:
    """Returns a node as a message: to read several of its attributes."""
    return node.parse() if isinstance(node, LazyNode) else node


def copy_node(node: NodeDef | LazyNode, into: NodeDef | None = None) -> NodeDef:
    """Returns a copy of a node that may be changed.

    Args:
        into: an empty message that becomes the copy.
    """
    copy = NodeDef() if into is None else into
    if isinstance(node, LazyNode):
        copy.MergeFromString(node.raw)
    else:
        copy.CopyFrom(node)
    return copy
