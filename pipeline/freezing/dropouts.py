"""Finds dropouts of a constant rate, which no placeholder switches off, and the pins that make them pass what they get.

`tf.nn.dropout` keeps where a uniform draw is at least the rate, and scales by 1 / (1 - rate); older releases keep where
floor(keep_prob + draw) is 1, and divide by keep_prob (tensorflow/python/ops/nn_ops.py, dropout_v2 and dropout).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.unsupported import DRAWS, refusal_of

from .passes.constant_folding import find_ranges

_RANGES = frozenset({"Add", "AddV2", "Identity", "Mul", "Sub"})  # of a draw, from a minimum to a maximum
_DIVIDES = frozenset({"Div", "RealDiv"})
_CLOSE = 1e-3


def find_dropout_pins(graph: Graph, outputs: Sequence[str], inputs: Iterable[str]) -> dict[str, str]:
    """Returns the constants of dropouts on the way to outputs, with the values that switch these off."""
    return {name: value for pins in find_dropouts(graph, outputs, inputs) for name, value in pins.items()}


def find_dropouts(graph: Graph, outputs: Sequence[str], inputs: Iterable[str]) -> list[dict[str, str]]:
    """Returns for each dropout of a constant rate the constants, with the values that switch it off."""
    above = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
    graph = graph.replace_nodes(node for node in graph.node if node.name in above)  # gradients take masks as well
    found = [_pins_of(graph, node) for node in graph.node if refusal_of(node.op) is DRAWS]
    return [pins for pins in found if pins]


def _pins_of(graph: Graph, draw: NodeDef) -> dict[str, str]:
    """Returns the pins of one dropout; none if this draw is of anything else."""
    path = [draw]
    while path[-1] is draw or path[-1].op in _RANGES:
        takers = [taker for taker in graph.consumers.get(path[-1].name, ()) if taker.op != "Shape"]
        if len(takers) != 1:
            return {}
        path.append(takers[0])
    keeps = path[-1]
    if keeps.op == "GreaterEqual" and node_of(keeps.input[0]) == path[-2].name:
        rate = node_of(keeps.input[1])
        value = _value(graph, rate)
        pins, keep = {rate: "0"}, None if value is None else 1 - value
    elif keeps.op == "Floor" and path[-2].op in ("Add", "AddV2"):
        [given] = [node_of(name) for name in path[-2].input if node_of(name) != path[-3].name] or [""]
        pins, keep = {given: "1"}, _value(graph, given)
    else:
        return {}
    scaled = _scaled(graph, keeps)
    if keep is None or scaled is None or not all(node_of(name) in graph.nodes for name in scaled.input):
        return {}  # none, or what is scaled is fed
    [factor] = [node_of(name) for name in scaled.input if graph.nodes[node_of(name)].op == "Const"] or [""]
    scale = _value(graph, factor) if factor else None
    if scale is not None:
        if abs((scale if scaled.op in _DIVIDES else 1 / (scale or _CLOSE)) - keep) > _CLOSE:
            return {}
        pins[factor] = "1"
    elif not set(pins) & graph.ancestors(map(node_of, scaled.input), with_control=False):
        return {}
    scope = keeps.name.rpartition("/")[0] + "/"
    takers = [taker for name in pins for taker in graph.consumers.get(name, ())]
    return pins if all(taker.name.startswith(scope) for taker in takers) else {}


def _scaled(graph: Graph, keeps: NodeDef) -> NodeDef | None:
    """Returns the node that scales what a dropout keeps."""
    mask = keeps
    for _ in range(2):
        takers = graph.consumers.get(mask.name, ())
        if len(takers) != 1:
            return None
        if takers[0].op == "Cast":
            mask = takers[0]
            continue
        others = [graph.nodes[name] for name in map(node_of, data_inputs(takers[0])) if name != mask.name]
        if takers[0].op not in ("Mul", "SelectV2", "Select") or not others:
            return None
        return others[0] if others[0].op in _DIVIDES | {"Mul"} and len(others[0].input) == 2 else None
    return None


def _value(graph: Graph, name: str) -> float | None:
    """Returns the value of a scalar constant; None if a node is none."""
    node = graph.nodes.get(name)
    if node is None or node.op != "Const":
        return None
    node = whole_node(node)
    found = find_ranges(graph.replace_nodes([node])).get(name)
    is_one = found is not None and found.low == found.high and not node.attr["value"].tensor.tensor_shape.dim
    return float(found.low) if found is not None and is_one else None
