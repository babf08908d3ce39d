"""Makes a graph simpler before it is frozen: settled switches, gradients that functions were given."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.graph.nodes import ancestors, control_inputs, data_inputs, is_control, node_of, normalized
from pipeline.graph.protos import GraphDef, NodeDef

from .constant_folding import constants_of, truth_of
from .prune import STACK_PUSHES

_SWITCHES = ("Switch", "RefSwitch")


def with_own_gradients(graph: GraphDef) -> GraphDef:
    """The graph with a call of the gradient that a function was given, where TensorFlow would look it up.

    A library names gradients beside its functions (function.proto, GradientDef); a SymbolicGradient of such a
    function is a call of the gradient, with the same inputs and outputs.
    """
    gradients = {gradient.function_name: gradient.gradient_func for gradient in graph.library.gradient}
    if not gradients:
        return graph
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.op == "SymbolicGradient" and node.attr["f"].func.name in gradients:
            node.op = gradients[node.attr["f"].func.name]
            node.attr.clear()
    return new


def with_settled_switches(graph: GraphDef) -> GraphDef:
    """The graph without the branches of old conds that a constant condition never takes.

    What hangs on a Switch's dead output is dead; a Merge of one live input and dead ones is that input.
    """
    if not any(node.op in _SWITCHES for node in graph.node):
        return graph
    nodes = {node.name: node for node in graph.node}
    conditions = {node.name: node.input[1] for node in graph.node if node.op in _SWITCHES}
    needed = ancestors(nodes, map(node_of, conditions.values()), with_control=False)
    known = constants_of(node for node in graph.node if node.name in needed)
    settled = {
        name: int(truth) for name, reference in conditions.items() if (truth := truth_of(reference, known)) is not None
    }
    if not settled:
        return graph
    dead = _dead_nodes(graph, settled)
    counted = {node_of(r) for node in graph.node for r in data_inputs(node) if normalized(r) == f"{node_of(r)}:1"}
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.name in dead and node.op in STACK_PUSHES:
            node.CopyFrom(NodeDef(name=node.name, op="NoOp"))  # nothing is pushed there
        if node.name in dead:
            continue
        if node.op == "ControlTrigger":
            living = [r for r in node.input if not _is_dead(r, dead, settled)]
            del node.input[:]
            node.input.extend(living)
        alive = [r for r in data_inputs(node) if not _is_dead(r, dead, settled)]
        if node.op in ("Merge", "RefMerge") and len(alive) == 1 and node.name not in counted:
            dtype = node.attr["T"].type
            waits_for = control_inputs(node)
            node.CopyFrom(NodeDef(name=node.name, op="Identity", input=[*alive, *waits_for]))
            node.attr["T"].type = dtype
        for index, reference in enumerate(node.input):
            if not is_control(reference) and node_of(reference) in settled:
                node.input[index] = nodes[node_of(reference)].input[0]
    return new


def _dead_nodes(graph: GraphDef, settled: Mapping[str, int]) -> set[str]:
    consumers: dict[str, list[NodeDef]] = {}
    for node in graph.node:
        for reference in node.input:
            consumers.setdefault(node_of(reference), []).append(node)
    dead, waiting = set[str](), list(graph.node)
    while waiting:
        node = waiting.pop()
        if node.name not in dead and _dies(node, dead, settled):
            dead.add(node.name)
            waiting.extend(consumers.get(node.name, ()))  # a Merge dies with its last input
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
