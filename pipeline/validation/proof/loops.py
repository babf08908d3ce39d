"""The parts of loops, as TensorFlow builds them.

TensorFlow 1 (tensorflow/python/ops/control_flow_ops.py) makes for each variable an Enter, a Merge of it with a
NextIteration, a Switch by the LoopCond, and an Exit.
"""

from __future__ import annotations

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef

from .ops import PASSES, WHILES, plain_op
from .scope import Scope, Unproven


def leaves_loop(scope: Scope, exit_node: NodeDef) -> bool:
    """Returns True if an Exit ends a loop; False in a frame without turns."""
    source = scope.graph.nodes.get(node_of(data_inputs(exit_node)[0]))
    return source is not None and plain_op(source.op) == "Switch"


def loop_of(scope: Scope, exit_node: NodeDef) -> tuple[str, list[NodeDef]]:
    """Returns the LoopCond of a loop, and the Merges of its variables.

    Raises:
        Unproven: TensorFlow does not build such a loop.
    """
    nodes = scope.graph.nodes
    switch = nodes.get(node_of(data_inputs(exit_node)[0]))
    condition = node_of(data_inputs(switch)[1]) if switch is not None and plain_op(switch.op) == "Switch" else ""
    if condition not in nodes or nodes[condition].op != "LoopCond":
        raise _unusual(scope, exit_node)
    merges = dict[str, NodeDef]()
    for node in scope.graph.consumers.get(condition, ()):
        if plain_op(node.op) == "Switch" and node_of(data_inputs(node)[1]) == condition:
            merge = nodes.get(node_of(data_inputs(node)[0]))
            if merge is None or plain_op(merge.op) != "Merge":
                raise _unusual(scope, node)
            merges[merge.name] = merge
    return condition, list(merges.values())


def sides_of(scope: Scope, merge: NodeDef) -> tuple[str, str]:
    """Returns the inputs of a loop's Merge: the one before the loop, and the one after a turn.

    Raises:
        Unproven: TensorFlow does not build such a loop.
    """
    nodes, given = scope.graph.nodes, data_inputs(merge)
    kinds = [plain_op(nodes[node_of(one)].op) if node_of(one) in nodes else "" for one in given]
    if sorted(kinds) != ["Enter", "NextIteration"]:
        raise _unusual(scope, merge)
    return given[kinds.index("Enter")], given[kinds.index("NextIteration")]


def _unusual(scope: Scope, node: NodeDef) -> Unproven:
    return Unproven(f"a loop that TensorFlow does not build: {scope.place(node.name)}")


def require_usual_enter(scope: Scope, node: NodeDef) -> None:
    """Checks that what enters a loop is a constant of it or the first value of a variable, as TensorFlow marks it.

    Raises:
        Unproven: it is not.
    """
    if scope.turning is None:
        merges = [one for one in scope.graph.node if plain_op(one.op) == "Merge"]
        above = [scope.graph.nodes.get(node_of(reference)) for one in merges for reference in data_inputs(one)]
        enters = [one for one in above if one is not None and plain_op(one.op) == "Enter"]
        scope.turning = {one.name: whole_node(one).attr["frame_name"].s for one in enters}
    is_constant, frame = node.attr["is_constant"].b, node.attr["frame_name"].s
    if is_constant == (node.name in scope.turning) and frame in scope.turning.values():
        raise _unusual(scope, node)


def is_kept(scope: Scope, merge: NodeDef) -> bool:
    """Returns True if a variable of a TensorFlow 1 loop is the same after each turn."""
    nodes = scope.graph.nodes
    reference = data_inputs(nodes[node_of(sides_of(scope, merge)[1])])[0]
    for _ in range(len(scope.graph.node)):
        node = nodes.get(node_of(reference))
        if node is None:
            return False
        if plain_op(node.op) == "Switch":
            return node_of(data_inputs(node)[0]) == str(merge.name)
        if plain_op(node.op) not in PASSES:
            return False
        reference = data_inputs(node)[0]
    return False


def returns_argument(graph: Graph, name: str, number: int, callers: frozenset[str] = frozenset()) -> bool:
    """Returns True if a function's result is its argument of the same number, so that a loop never changes it."""
    function = graph.functions.get(name)
    if function is None or name in callers or number >= len(function.signature.output_arg):
        return False
    nodes = graph.body(name).nodes
    argument = function.signature.input_arg[number].name
    reference = function.ret[function.signature.output_arg[number].name]
    for _ in range(len(nodes) + 1):
        if reference == argument:
            return True
        inner = nodes.get(node_of(reference))
        if inner is None or not data_inputs(inner):
            return False
        port = int(reference.rpartition(":")[2]) if reference.count(":") == 2 else 0
        inside = inner.attr["body"].func.name if inner.op in WHILES else ""
        if inside and returns_argument(graph, inside, port, callers | {name}):
            reference = data_inputs(inner)[port]
        elif inner.op in PASSES:
            reference = data_inputs(inner)[0]
        else:
            return False
    return False
