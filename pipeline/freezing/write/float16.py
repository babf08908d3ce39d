"""Stores float32 and float64 variables as float16, with a Cast back to their dtype."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.graph.protos import DataType, NodeDef

from .constants import DT_HALF, Constant, FrozenGraph, names_of, unused_name

_FLOATS = frozenset({DataType.Value("DT_FLOAT"), DataType.Value("DT_DOUBLE")})


def convert_to_float16(graph: FrozenGraph) -> FrozenGraph:
    """Returns the graph with each float32 or float64 variable of two or more elements as float16 and a Cast.

    The float16 constant of a variable `w` is `w/float16`; the Cast is `w`, of the variable's own dtype, so that
    readers get rounded values of the dtype that they expect. No value is read here: a value too large for float16 is
    found when the graph is written.
    """
    taken = names_of(graph)
    return FrozenGraph(
        [new for node in graph.nodes for new in _convert_node(node, taken)], graph.library, graph.versions
    )


def _convert_node(node: NodeDef | Constant, taken: set[str]) -> Iterator[NodeDef | Constant]:
    if not isinstance(node, Constant) or node.dtype not in _FLOATS or node.elements < 2:
        yield node
        return
    half = replace(node, name=unused_name(f"{node.name}/float16", taken), is_halved=True)
    cast = NodeDef(name=node.name, op="Cast", input=[half.name])
    cast.attr["SrcT"].type = DT_HALF
    cast.attr["DstT"].type = node.dtype
    cast.attr["Truncate"].b = False
    yield half
    yield cast
