"""Makes a graph simpler before it is frozen: settled switches, gradients that functions were given."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node
from pipeline.graph.nodes import control_inputs, data_inputs, is_control, node_of, normalized
from pipeline.graph.protos import NodeDef

from .constant_folding import constants_of, truth_of
from .prune import STACK_PUSHES

_SWITCHES = ("Switch", "RefSwitch")


def with_own_gradients(graph: Graph) -> Graph:
    """The graph with a call of the gradient that a function was given, where TensorFlow would look it up.

    A library names gradients beside its functions (function.proto, GradientDef); a SymbolicGradient of such a
    function is a call of the gradient, with the same inputs and outputs.
    """
    if not graph.gradients:
        return graph
    return graph.replace_nodes(_own_gradient(node, graph.gradients) for node in graph.node)


def _own_gradient(node: NodeDef, gradients: Mapping[str, str]) -> NodeDef:
    if node.op != "SymbolicGradient" or node.attr["f"].func.name not in gradients:
        return node
    call = copy_node(node)
    call.op = gradients[node.attr["f"].func.name]
    call.attr.clear()
    return call


def with_settled_switches(graph: Graph) -> Graph:
    """The graph without the branches of old conds that a constant condition never takes.

    What hangs on a Switch's dead output is dead; a Merge of one live input and dead ones is that input.
    """
    if not any(node.op in _SWITCHES for node in graph.node):
        return graph
    graph = graph.parsed
    conditions = {node.name: node.input[1] for node in graph.node if node.op in _SWITCHES}
    needed = graph.ancestors(map(node_of, conditions.values()), with_control=False)
    known = constants_of(graph.replace_nodes(node for node in graph.node if node.name in needed))
    settled = {
        name: int(truth) for name, reference in conditions.items() if (truth := truth_of(reference, known)) is not None
    }
    if not settled:
        return graph
    dead = _dead_nodes(graph, settled)
    counted = {node_of(r) for node in graph.node for r in data_inputs(node) if normalized(r) == f"{node_of(r)}:1"}
    return graph.replace_nodes(_without_dead_inputs(node, graph, dead, settled, counted) for node in graph.node)


def _without_dead_inputs(
    node: NodeDef, graph: Graph, dead: set[str], settled: Mapping[str, int], counted: set[str]
) -> NodeDef:
    """A node as it is without the branches that are never taken.

    Args:
        counted: nodes whose second output is used: that of a Merge tells which input came.
    """
    if node.name in dead:  # of dead nodes nothing is used; but nothing may be pushed there either
        return NodeDef(name=node.name, op="NoOp") if node.op in STACK_PUSHES else node
    inputs = list(node.input)
    if node.op == "ControlTrigger":
        inputs = [r for r in inputs if not _is_dead(r, dead, settled)]
    alive = [r for r in data_inputs(node) if not _is_dead(r, dead, settled)]
    is_merged = node.op in ("Merge", "RefMerge") and len(alive) == 1 and node.name not in counted
    if is_merged:
        inputs = [*alive, *control_inputs(node)]
    inputs = [graph.nodes[node_of(r)].input[0] if node_of(r) in settled and not is_control(r) else r for r in inputs]
    if not is_merged and inputs == list(node.input):
        return node
    if is_merged:
        new = NodeDef(name=node.name, op="Identity")
        new.attr["T"].type = node.attr["T"].type
    else:
        new = copy_node(node)
    new.input[:] = inputs
    return new


def _dead_nodes(graph: Graph, settled: Mapping[str, int]) -> set[str]:
    dead, waiting = set[str](), list(graph.node)
    while waiting:
        node = waiting.pop()
        if node.name not in dead and _dies(node, dead, settled):
            dead.add(node.name)
            waiting.extend(graph.consumers.get(node.name, ()))  # a Merge dies with its last input
    return dead


def _dies(node: NodeDef, dead: set[str], settled: Mapping[str, int]) -> bool:
    if node.op in ("Merge", "RefMerge"):
        return all(_is_dead(reference, dead, settled) for reference in data_inputs(node))
    if node.op == "ControlTrigger":
        return False  # it waits for the dead too, and lives (tensorflow/core/ops/control_flow_ops.cc)
    return any(_is_dead(reference, dead, settled) for reference in node.input)


def _is_dead(reference: str, dead: set[str], settled: Mapping[str, int]) -> bool:
    name = node_of(reference)
    if name in settled and not is_control(reference):
        return normalized(reference) != f"{name}:{settled[name]}"
    return name in dead
