"""Removes dead branches of switches, and resolves gradients that functions declare."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node
from pipeline.graph.nodes import control_inputs, data_inputs, is_control, node_of, normalize_tensor
from pipeline.graph.protos import NodeDef

from .constant_folding import find_ranges, known_truth
from .prune import STACK_PUSHES

_SWITCHES = ("Switch", "RefSwitch")


def resolve_gradients(graph: Graph) -> Graph:
    """Returns the graph with calls of declared gradients in place of SymbolicGradients.

    A library may declare the gradients of its functions (function.proto, GradientDef); a SymbolicGradient of such a
    function is a call of that gradient, with the same inputs and outputs.
    """
    if not graph.gradients:
        return graph
    return graph.replace_nodes(_resolve_gradient(node, graph.gradients) for node in graph.node)


def _resolve_gradient(node: NodeDef, gradients: Mapping[str, str]) -> NodeDef:
    if node.op != "SymbolicGradient" or node.attr["f"].func.name not in gradients:
        return node
    call = copy_node(node)
    call.op = gradients[node.attr["f"].func.name]
    call.attr.clear()
    return call


def remove_dead_branches(graph: Graph) -> Graph:
    """Returns the graph without branches of TensorFlow 1 conds that a constant condition never takes.

    Descendants of a Switch's dead output are dead; a Merge with a single live input is that input.
    """
    if not any(node.op in _SWITCHES for node in graph.node):
        return graph
    graph = graph.parsed
    conditions = {node.name: node.input[1] for node in graph.node if node.op in _SWITCHES}
    needed = graph.ancestors(map(node_of, conditions.values()), with_control=False)
    known = find_ranges(graph.replace_nodes(node for node in graph.node if node.name in needed))
    settled = {
        name: int(truth)
        for name, reference in conditions.items()
        if (truth := known_truth(reference, known)) is not None
    }
    if not settled:
        return graph
    dead = _dead_nodes(graph, settled)
    counted = {node_of(r) for node in graph.node for r in data_inputs(node) if normalize_tensor(r) == f"{node_of(r)}:1"}
    return graph.replace_nodes(_remove_dead_inputs(node, graph, dead, settled, counted) for node in graph.node)


def _remove_dead_inputs(
    node: NodeDef, graph: Graph, dead: set[str], settled: Mapping[str, int], counted: set[str]
) -> NodeDef:
    """Returns a node without its inputs from dead branches.

    Args:
        counted: nodes whose second output is used: for a Merge, the number of the input that came.
    """
    if node.name in dead:  # nothing uses dead nodes, but they must not push either
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
            waiting.extend(graph.consumers.get(node.name, ()))  # a Merge is dead when all its inputs are
    return dead


def _dies(node: NodeDef, dead: set[str], settled: Mapping[str, int]) -> bool:
    if node.op in ("Merge", "RefMerge"):
        return all(_is_dead(reference, dead, settled) for reference in data_inputs(node))
    if node.op == "ControlTrigger":
        return False  # it also waits for dead nodes, and lives (tensorflow/core/ops/control_flow_ops.cc)
    return any(_is_dead(reference, dead, settled) for reference in node.input)


def _is_dead(reference: str, dead: set[str], settled: Mapping[str, int]) -> bool:
    name = node_of(reference)
    if name in settled and not is_control(reference):
        return normalize_tensor(reference) != f"{name}:{settled[name]}"
    return name in dead
