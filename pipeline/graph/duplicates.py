"""Refuses nodes with an attribute that stands twice.

The attributes of a node are a map (tensorflow/core/framework/node_def.proto). In a file they are a list of keys and
values; of two with the same key protobuf keeps the last, and other readers the first. TensorFlow never writes two.
"""

from __future__ import annotations

from typing import Any

from .protos import CountedGraph, CountedLibrary, CountedNode, DecodeError, FunctionDefLibrary, GraphDef, NodeDef


def require_single(raw: bytes, node: NodeDef) -> None:
    """Checks a node.

    Args:
        raw: the bytes of the message.

    Raises:
        DecodeError: an attribute stands twice.
    """
    _require(node, CountedNode.FromString(raw))


def require_single_in_graph(graph: GraphDef, counted: CountedGraph) -> None:
    """Checks all nodes of a graph and of its functions.

    Args:
        counted: the same bytes, parsed as a CountedGraph.

    Raises:
        DecodeError: an attribute stands twice.
    """
    for node, other in zip(graph.node, counted.node, strict=True):
        _require(node, other)
    require_single_in_library(graph.library, counted.library)


def require_single_in_library(library: FunctionDefLibrary, counted: CountedLibrary) -> None:
    """Checks all nodes of functions. Args, Raises: as `require_single_in_graph`."""
    for function, others in zip(library.function, counted.function, strict=True):
        for node, other in zip(function.node_def, others.node_def, strict=True):
            _require(node, other)


def _require(node: NodeDef, counted: Any) -> None:
    if len(counted.attr) != len(node.attr):
        raise DecodeError(f"an attribute of node {node.name!r} stands twice")
