"""Prunes a graph to the nodes that the outputs need, and refuses ops that no .pb can carry.

The nodes that outputs are computed from stay. Nodes that they only wait for stay too, unless these change state: a
training step, an initializer, a save. Such a control edge is dropped if nothing that it changes is read; otherwise the
output would depend on it, and no constant could replace that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline.errors import FreezeError, nearest
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node, whole_node
from pipeline.graph.nodes import control_inputs, data_inputs, is_control, node_of
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import FunctionDef, NodeDef
from pipeline.graph.unsupported import CHANGES_STATE, DT_RESOURCE, acts, refusal_of
from pipeline.graph.variables import VARIABLE_OPS, Variable, variable_behind, variable_of

STACK_PUSHES = frozenset({"StackPush", "StackPushV2"})
_READING_OPS = frozenset(
    {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"}
)
_IDLE_OPS = frozenset({"Const", "Identity", "IdentityN", "NoOp"})
_PASSES_STACKS = frozenset({"Identity", "Enter", "Switch", "RefIdentity", "RefEnter", "RefSwitch"})


def require_tensors(graph: Graph, outputs: Iterable[str]) -> None:
    """Checks that tensors exist.

    Raises:
        FreezeError: a tensor does not exist; the message gives the nearest names.
    """
    nodes = graph.nodes
    for name in outputs:
        if node_of(name) not in nodes:
            raise FreezeError("no such tensor in the graph", where=name, next_step=nearest(node_of(name), nodes))
        count = _count_outputs(whole_node(nodes[node_of(name)]), graph.functions)
        if count == 0:
            raise FreezeError(
                "the node gives nothing", where=name, got=f"op {nodes[node_of(name)].op}", wanted="a node with outputs"
            )
        port = name.rpartition(":")[2] if ":" in name else "0"
        if count is not None and (not port.isdecimal() or int(port) >= count):
            raise FreezeError(
                "the node has no such output", where=name, got=f"port {port}", wanted=f"one of {count} from 0 on"
            )


def _count_outputs(node: NodeDef, functions: Mapping[str, FunctionDef]) -> int | None:
    """Returns the number of a node's outputs; None if its op is unknown and the node declares no shapes."""
    dtypes = output_dtypes(node, functions)
    if dtypes is not None:
        return len(dtypes)
    return len(node.attr["_output_shapes"].list.shape) if "_output_shapes" in node.attr else None


def reach(graph: Graph, outputs: Iterable[str], also: Collection[str] = ()) -> Graph:
    """Returns the part of a graph that outputs depend on in any way, and all functions.

    Most nodes that a Saver writes are for training, initializing and saving; later passes need not walk them.

    Args:
        outputs: tensors or nodes.
        also: ops whose nodes stay, with their ancestors.

    Raises:
        FreezeError: an output does not exist.
    """
    names = list(outputs)
    require_tensors(graph, names)
    starts = [node.name for node in graph.node if node.op in also]
    reached = graph.ancestors([*map(node_of, names), *starts], with_control=True)
    return graph.replace_nodes(node for node in graph.node if node.name in reached)


def prune(graph: Graph, outputs: Iterable[str], inputs: Iterable[str] = (), bodies: Graph | None = None) -> Graph:
    """Returns the nodes that the outputs need, in their order, without needless control edges.

    Args:
        outputs: tensors or nodes.
        inputs: nodes whose own inputs are not followed.
        bodies: the graph with pruned functions; by default the graph itself.

    Raises:
        FreezeError: an output does not exist, or is computed from an op that cannot be in a .pb.
    """
    names, ends, bodies = list(outputs), set(inputs), bodies or graph
    require_tensors(graph, names)
    # The ancestors of a value stay, and are refused if they have side effects: only others can be dropped.
    values = _values(graph, map(node_of, names), ends)
    tainted = graph.descendants(
        [node.name for node in graph.node if node.name not in values and acts(node, graph, set())]
    )
    kept, dropped = find_kept_nodes(graph, values, ends, tainted)
    for node in graph.node:
        if node.name in kept and node.name not in ends:
            _refuse(node, None, bodies, set())
    _require_unchanged(graph, kept, dropped)
    return bodies.replace_nodes(_remove_edges(node, kept, ends) for node in graph.node if node.name in kept)


def _values(graph: Graph, outputs: Iterable[str], ends: set[str]) -> set[str]:
    """Returns the nodes that outputs are computed from, with pushes to their stacks, which no input names."""
    values = graph.ancestors(outputs, with_control=False, stop=ends)
    pushes = {node.name: _stack(node, graph) for node in graph.node if node.op in STACK_PUSHES}
    while new := [name for name, stack in pushes.items() if stack in values and name not in values]:
        values |= graph.ancestors(new, with_control=False, stop=ends)
    return values


def _stack(node: NodeDef, graph: Graph) -> str:
    for _ in range(len(graph.node)):
        given = data_inputs(node)
        if not given or (node.op not in STACK_PUSHES and node.op not in _PASSES_STACKS):
            break
        node = graph.nodes[node_of(given[0])]
    return str(node.name)


def find_kept_nodes(
    graph: Graph, values: set[str], ends: set[str], tainted: set[str], waited_for: Iterable[str] = ()
) -> tuple[set[str], set[str]]:
    """Returns the nodes to keep, and the nodes at the other end of dropped control edges.

    Where something is dropped, a node that only reads a variable is not kept for being waited for: its value may be
    used by nothing but what is dropped, as that of a counter or of the state behind a seed.

    Args:
        values: the nodes that outputs are computed from.
        ends: nodes whose inputs are not followed.
        tainted: nodes with side effects, and their descendants; edges from them are dropped.
        waited_for: nodes that whoever asks for the outputs waits for.
    """
    kept, dropped, waiting = set(values), set[str](), list(values)
    targets = [*waited_for]
    while waiting or targets:
        if not targets:
            name = waiting.pop()
            targets = [] if name in ends else [node_of(reference) for reference in control_inputs(graph.nodes[name])]
        for target in targets:
            if target in kept or target not in graph.nodes:
                continue
            if target in tainted:
                dropped.add(target)
                continue
            if tainted and _is_bare_read(target, graph):
                continue
            # None of its ancestors is tainted, so all can stay.
            new = graph.ancestors([target], with_control=False, stop=ends) - kept
            kept |= new
            waiting.extend(new)
        targets = []
    return kept, dropped


def _is_bare_read(name: str, graph: Graph) -> bool:
    """Returns True if a node reads a variable, and neither it nnor what it waits for does anything else."""
    if graph.nodes[name].op != "Identity" and not _only_reads(graph.nodes[name], graph):
        return False
    above = [graph.nodes[one] for one in graph.ancestors([name], with_control=True)]
    rest = [one for one in above if one.op not in _IDLE_OPS]
    return bool(rest) and all(one.op in VARIABLE_OPS or _only_reads(one, graph) for one in rest)


def _only_reads(node: NodeDef, graph: Graph, callers: tuple[str, ...] = ()) -> bool:
    """Returns True if a node reads a variable and does nothing else, itself or in the functions that it calls."""
    if node.op in _READING_OPS:
        return True
    names = [*graph.called_by(node)]
    if not names or set(names) & set(callers):
        return False
    inside = [inner for name in names for inner in graph.functions[name].node_def if inner.op not in _IDLE_OPS]
    return all(_only_reads(inner, graph, (*callers, *names)) for inner in inside)


def _refuse(node: NodeDef, function: str | None, graph: Graph, seen: set[str]) -> None:
    refusal = refusal_of(node.op)
    if refusal is not None:
        raise refusal.error(node, function)
    for name in graph.called_by(node):
        if name not in seen:
            seen.add(name)
            for inner in graph.body(name).node:
                _refuse(inner, name, graph, seen)


def _require_unchanged(graph: Graph, kept: set[str], dropped: set[str]) -> None:
    """Checks that dropped control edges changed no variable that is read."""
    if not dropped:
        return
    nodes = graph.nodes
    read = {variable_of(nodes[name]).identity for name in kept if nodes[name].op in VARIABLE_OPS}
    for name in sorted(graph.ancestors(dropped, with_control=True) - kept):
        if any(variable.identity in read for variable in changed_variables(nodes[name], graph)):
            raise CHANGES_STATE.error(nodes[name], None)


def changed_variables(node: NodeDef, graph: Graph) -> Iterator[Variable]:
    """Yields the variables of the graph that a node changes, itself or in a function that it calls."""
    given = data_inputs(node)
    for index in sorted(changed_inputs(node, graph)):
        source = graph.nodes.get(node_of(given[index]))
        if source is not None and source.op == "Identity" and source.attr["T"].type != DT_RESOURCE:
            continue  # the value of an old variable; an Identity of a handle is still the variable
        variable = variable_behind(given[index], graph.nodes)
        if variable is not None:
            yield variable


def changed_inputs(node: NodeDef, graph: Graph, callers: tuple[str, ...] = ()) -> set[int]:
    """Returns the inputs that may be variables changed by a node, itself or in a function that it calls."""
    given = data_inputs(node)
    if CHANGES_STATE.matches(node.op):
        return set(range(len(given)))
    changed = set[int]()
    for name in graph.called_by(node):
        if name in callers:
            continue
        arguments = [argument.name for argument in graph.functions[name].signature.input_arg]
        body = graph.body(name)
        first = len(given) - len(arguments)  # an If has its condition before them
        for inner in body.node:
            passed = data_inputs(inner)
            for index in changed_inputs(inner, graph, (*callers, name)):
                reference = passed[index]
                while ":" in reference and body.nodes[node_of(reference)].op in ("Identity", "Enter", "Switch"):
                    reference = data_inputs(body.nodes[node_of(reference)])[0]
                if reference in arguments:
                    place = first + arguments.index(reference)
                    changed |= {place} if 0 <= place < len(given) else set(range(len(given)))
    return changed


def _remove_edges(node: NodeDef, kept: set[str], ends: set[str]) -> NodeDef:
    inputs = [] if node.name in ends else [r for r in node.input if not is_control(r) or node_of(r) in kept]
    if len(inputs) == len(node.input):
        return node
    new = copy_node(node)
    new.input[:] = inputs
    return new
