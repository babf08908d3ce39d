"""Makes a graph simpler before it is frozen: inner inputs, settled branches, gradients that functions were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import FreezeError
from ..protos import GraphDef, NodeDef, OpList
from .graph import control_inputs, data_inputs, is_control, node_of, normalized
from .ops import output_dtypes


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


def with_settled_branches(graph: GraphDef) -> GraphDef:
    """The graph with a call of the one branch where an If's condition is a constant.

    What stands in the other branch, a dropout perhaps, is then in nobody's way.
    """
    nodes = {node.name: node for node in graph.node}
    settled = {
        node.name: condition
        for node in graph.node
        if node.op in ("If", "StatelessIf") and (condition := _constant_truth(data_inputs(node)[0], nodes)) is not None
    }
    if not settled:
        return graph
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.name in settled:
            branch = node.attr["then_branch" if settled[node.name] else "else_branch"].func
            node.attr["f"].func.CopyFrom(branch)
            node.op = "StatefulPartitionedCall" if node.op == "If" else "PartitionedCall"
            del node.input[0]
            for name in ("then_branch", "else_branch", "Tcond", "output_shapes"):
                node.attr.pop(name, None)
    return new


def with_settled_switches(graph: GraphDef) -> GraphDef:
    """The graph without the branches of old conds that a constant condition never takes.

    What hangs on a Switch's dead output is dead; a Merge of one live input and dead ones is that input.
    """
    nodes = {node.name: node for node in graph.node}
    settled = {
        node.name: int(condition)
        for node in graph.node
        if node.op in ("Switch", "RefSwitch") and (condition := _constant_truth(node.input[1], nodes)) is not None
    }
    if not settled:
        return graph
    dead = _dead_nodes(graph, settled)
    counted = {node_of(r) for node in graph.node for r in data_inputs(node) if normalized(r) == f"{node_of(r)}:1"}
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.name in dead:
            continue
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
    dead = set[str]()
    while True:
        found = {node.name for node in graph.node if node.name not in dead and _dies(node, dead, settled)}
        if not found:
            return dead
        dead |= found


def _dies(node: NodeDef, dead: set[str], settled: Mapping[str, int]) -> bool:
    if node.op in ("Merge", "RefMerge"):
        return all(_is_dead(reference, dead, settled) for reference in data_inputs(node))
    return any(_is_dead(reference, dead, settled) for reference in node.input)


def _is_dead(reference: str, dead: set[str], settled: Mapping[str, int]) -> bool:
    name = node_of(reference)
    if name in settled and not is_control(reference):
        return normalized(reference) != f"{name}:{settled[name]}"
    return name in dead


def _constant_truth(reference: str, nodes: Mapping[str, NodeDef]) -> bool | None:
    """Whether a bool is true; None where it is no constant of one bool."""
    node = nodes[node_of(reference)]
    while node.op == "Identity":
        node = nodes[node_of(node.input[0])]
    values = list(node.attr["value"].tensor.bool_val) if node.op == "Const" else []
    return bool(values[0]) if len(values) == 1 else None


def with_inputs(graph: GraphDef, inputs: Iterable[str], ops: OpList) -> GraphDef:
    """The graph with a Placeholder where an input is an inner tensor, so that nothing before it is needed.

    Args:
        inputs: tensors.
        ops: definitions of ops that the graph uses, as a MetaGraphDef has them; none are needed for TensorFlow's own.

    Raises:
        FreezeError: an input is another output than the node's first, which no Placeholder has, or has no known dtype.
    """
    wanted = {node_of(name): normalized(name) for name in inputs}
    inner = [n for n in graph.node if n.name in wanted and n.op not in ("Placeholder", "PlaceholderWithDefault")]
    if not inner:
        return graph
    definitions = {op.name: op for op in ops.op}
    functions = {function.signature.name: function for function in graph.library.function}
    names = {n.name for n in inner}
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.name in names:
            _become_placeholder(node, wanted[node.name], output_dtypes(node, functions, definitions))
    return new


def _become_placeholder(node: NodeDef, tensor: str, dtypes: Sequence[int] | None) -> None:
    if not dtypes or not tensor.endswith(":0"):
        raise FreezeError(
            "this tensor cannot be made an input", where=tensor, next_step="Give the first output of a node"
        )
    shapes = node.attr["_output_shapes"].list.shape
    placeholder = NodeDef(name=node.name, op="Placeholder")
    placeholder.attr["dtype"].type = dtypes[0]
    placeholder.attr["shape"].shape.unknown_rank = True
    if shapes:
        placeholder.attr["shape"].shape.CopyFrom(shapes[0])
    node.CopyFrom(placeholder)
