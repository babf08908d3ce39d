"""Finds nodes that compute the same: the same op of the same inputs and weights, such as a net that is built twice."""

from __future__ import annotations

from collections.abc import Iterable

from ..protos import NodeDef
from ..unsupported import refusal_of
from ..variables import VARIABLE_OPS
from .topology import NumberedGraph


def find_twins(graph: NumberedGraph, ends: Iterable[int]) -> dict[int, int]:
    """Returns the first node that computes the same, for each node that some are computed from, themselves included."""
    waiting, above = list(ends), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in above:
            above.add(index)
            waiting += [source for source, _ in graph.inputs[index]]
    first: dict[object, int] = {}
    found: dict[int, int] = {}
    for index in graph.order:
        if index in above:
            given = tuple((found.get(source, source), port) for source, port in graph.inputs[index])
            key = _key(graph.nodes[index], given) if graph.ops[index] and _is_function(graph, index) else index
            found[index] = first.setdefault(key, index)
    return found


def _is_function(graph: NumberedGraph, index: int) -> bool:
    """Returns True if equal inputs always give equal outputs."""
    op = graph.ops[index]
    return op not in VARIABLE_OPS and refusal_of(op) is None and (op == "Const" or bool(graph.inputs[index]))


def _key(node: NodeDef, given: tuple[tuple[int, int], ...]) -> tuple[object, ...]:
    names = sorted(name for name in node.attr if not name.startswith("_"))
    return node.op, given, tuple((name, node.attr[name].SerializeToString(deterministic=True)) for name in names)
