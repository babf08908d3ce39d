"""Tells scalars of a graph, such as the decay of a moving average, and the value of those that are constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, dims_of, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import VARIABLE_OPS

from ..passes.constant_folding import find_ranges

_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "RealDiv": lambda a, b: a / b,
    "Minimum": min,
    "Maximum": max,
}
_OF_SCALARS = frozenset(
    {*_ARITHMETIC, "Pow", "Cast", "Identity", "FloorDiv", "Neg", "Select", "SelectV2", "Greater", "AssignAdd"}
)
_COUNTS = frozenset({"Size", "Prod"})  # of a batch
_PICKS = frozenset({"StridedSlice", "Gather", "GatherV2"})  # a size out of a shape
_MOST_STEPS = 12


class NoFactor(Exception):
    """A tensor that is no scalar, or may be none."""


def factor_of(graph: Graph, reference: str, steps: int = _MOST_STEPS) -> float | None:
    """Returns the value of a scalar tensor; None if it is known when it runs only.

    Raises:
        NoFactor: it is not known to be a scalar.
    """
    node = graph.nodes.get(node_of(reference))
    if node is None or steps == 0:
        raise NoFactor
    if node.op == "Const":
        return _constant(graph, node)
    if node.op in PLACEHOLDERS or node.op in VARIABLE_OPS:
        if dims_of(whole_node(node).attr["shape"].shape) != ():
            raise NoFactor
        return None
    given = data_inputs(node)
    if node.op in _COUNTS or (node.op in _PICKS and graph.nodes[node_of(given[0])].op == "Shape"):
        return None
    if node.op == "ReadVariableOp":
        return factor_of(graph, given[0], steps - 1)
    if node.op not in _OF_SCALARS:
        raise NoFactor
    values = [factor_of(graph, one, steps - 1) for one in given]
    if node.op in ("Cast", "Identity"):
        return values[0]
    if node.op in _ARITHMETIC and len(values) == 2 and values[0] is not None and values[1] is not None:
        is_over_0 = node.op in ("Div", "RealDiv") and not values[1]
        return None if is_over_0 else _ARITHMETIC[node.op](values[0], values[1])
    return None


def _constant(graph: Graph, node: NodeDef) -> float | None:
    node = whole_node(node)
    if node.attr["value"].tensor.tensor_shape.dim:
        raise NoFactor
    found = find_ranges(graph.replace_nodes([node])).get(node.name)
    return None if found is None else float(found.low)
