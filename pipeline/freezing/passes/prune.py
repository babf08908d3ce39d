"""What is kept for the outputs, and what may not be among it.

Kept is what the outputs' values are computed from. What they only wait for is kept too, unless state is changed
there: a training step, an initializer, a save. Such an edge goes, if nothing that it changes is read; otherwise the
value would depend on it, and no constant could give it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pipeline.errors import FreezeError, nearest
from pipeline.graph.nodes import ancestors, called_functions, control_inputs, data_inputs, node_of
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import FunctionDef, FunctionDefLibrary, GraphDef, NodeDef
from pipeline.graph.unsupported import CHANGES_STATE, DT_RESOURCE, acts, refusal_of
from pipeline.graph.variables import VARIABLE_OPS, Variable, variable_behind, variable_of

STACK_PUSHES = frozenset({"StackPush", "StackPushV2"})
_PASSES_STACKS = frozenset({"Identity", "Enter", "Switch", "RefIdentity", "RefEnter", "RefSwitch"})


def require_outputs(
    nodes: Mapping[str, NodeDef], outputs: Iterable[str], functions: Mapping[str, FunctionDef] | None = None
) -> None:
    """Makes sure that the tensors are there.

    Args:
        functions: of the graph's library.

    Raises:
        FreezeError: one is not; the nearest names are given.
    """
    for name in outputs:
        if node_of(name) not in nodes:
            raise FreezeError("no such tensor in the graph", where=name, next_step=nearest(node_of(name), nodes))
        count = _count_outputs(nodes[node_of(name)], functions or {})
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
    """How many outputs a node has; None where its op is not known, and nobody wrote shapes beside it."""
    dtypes = output_dtypes(node, functions)
    if dtypes is not None:
        return len(dtypes)
    return len(node.attr["_output_shapes"].list.shape) if "_output_shapes" in node.attr else None


def reach(graph: GraphDef, outputs: Iterable[str], also: Collection[str] = ()) -> GraphDef:
    """The part of a graph that the outputs hang on in any way, and all functions.

    Most of what a Saver writes is training, initializing and saving: whoever looks through all nodes comes after this.

    Args:
        outputs: tensors or nodes.
        also: ops whose nodes are to stay, with what they hang on.

    Raises:
        FreezeError: an output is not there.
    """
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    require_outputs(nodes, outputs, functions)
    starts = [name for name, node in nodes.items() if node.op in also]
    reached = ancestors(nodes, [*map(node_of, outputs), *starts], with_control=True)
    kept = [node for name, node in nodes.items() if name in reached]
    return GraphDef(node=kept, library=graph.library, versions=graph.versions)


def prune(
    graph: GraphDef,
    outputs: Iterable[str],
    inputs: Iterable[str] = (),
    bodies: FunctionDefLibrary | None = None,
) -> list[NodeDef]:
    """The nodes that the outputs need, in their order, without the control edges that they do not.

    Args:
        outputs: tensors or nodes.
        inputs: nodes where the way back ends.
        bodies: the functions as they are kept; by default the graph's.

    Raises:
        FreezeError: an output is not there, or what it is computed from cannot be in a .pb.
    """
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    require_outputs(nodes, outputs, functions)
    ends = set(inputs)
    left = {function.signature.name: function for function in (bodies or graph.library).function}
    # What a value hangs on is kept, and refused if it acts: only what is beside it has to go.
    values = _values(nodes, map(node_of, outputs), ends)
    tainted = tainted_nodes(
        nodes, (name for name in nodes if name not in values and acts(nodes[name], functions, set()))
    )
    kept, dropped = kept_nodes(nodes, values, ends, tainted)
    for node in graph.node:
        if node.name in kept and node.name not in ends:
            _refuse(node, None, left, set())
    _require_unchanged(nodes, functions, kept, dropped)
    return [_without_edges(node, kept, ends) for node in graph.node if node.name in kept]


def _values(nodes: Mapping[str, NodeDef], outputs: Iterable[str], ends: set[str]) -> set[str]:
    """What outputs are computed from. What is popped from a stack was pushed there, which no input tells."""
    values = ancestors(nodes, outputs, with_control=False, stop=ends)
    pushes = {node.name: _stack(node, nodes) for node in nodes.values() if node.op in STACK_PUSHES}
    while new := [name for name, stack in pushes.items() if stack in values and name not in values]:
        values |= ancestors(nodes, new, with_control=False, stop=ends)
    return values


def _stack(node: NodeDef, nodes: Mapping[str, NodeDef]) -> str:
    for _ in range(len(nodes)):
        given = data_inputs(node)
        if not given or (node.op not in STACK_PUSHES and node.op not in _PASSES_STACKS):
            break
        node = nodes[node_of(given[0])]
    return str(node.name)


def kept_nodes(
    nodes: Mapping[str, NodeDef], outputs: Iterable[str], ends: set[str], tainted: set[str]
) -> tuple[set[str], set[str]]:
    """The nodes to keep for outputs, and the ends of the control edges that go."""
    kept, dropped = ancestors(nodes, outputs, with_control=False, stop=ends), set[str]()
    waiting = list(kept)
    while waiting:
        name = waiting.pop()
        if name in ends:
            continue
        for target in map(node_of, control_inputs(nodes[name])):
            if target in kept or target not in nodes:
                continue
            if target in tainted:
                dropped.add(target)
                continue
            # Nothing above it is tainted, so all of it can stay.
            new = ancestors(nodes, [target], with_control=False, stop=ends) - kept
            kept |= new
            waiting.extend(new)
    return kept, dropped


def tainted_nodes(nodes: Mapping[str, NodeDef], acting: Iterable[str]) -> set[str]:
    """Nodes that change state or act on the outside world, and all that hang on them."""
    consumers: dict[str, list[str]] = {}
    for node in nodes.values():
        for reference in node.input:
            consumers.setdefault(node_of(reference), []).append(node.name)
    waiting = list(acting)
    tainted = set[str]()
    while waiting:
        name = waiting.pop()
        if name not in tainted:
            tainted.add(name)
            waiting.extend(consumers.get(name, ()))
    return tainted


def _refuse(node: NodeDef, function: str | None, functions: Mapping[str, FunctionDef], seen: set[str]) -> None:
    refusal = refusal_of(node.op)
    if refusal is not None:
        raise refusal.error(node, function)
    for name in called_functions(node, functions):
        if name not in seen:
            seen.add(name)
            for inner in functions[name].node_def:
                _refuse(inner, name, functions, seen)


def _require_unchanged(
    nodes: Mapping[str, NodeDef], functions: Mapping[str, FunctionDef], kept: set[str], dropped: set[str]
) -> None:
    """What the edges that go would have waited for must not change a variable that is read."""
    if not dropped:
        return
    read = {variable.identity for name in kept if (variable := _variable(name, nodes)) is not None}
    for name in sorted(ancestors(nodes, dropped, with_control=True) - kept):
        node = nodes[name]
        given = data_inputs(node)
        for index in sorted(changed_inputs(node, functions)):
            if _reads_reference(nodes.get(node_of(given[index]))):
                continue
            variable = variable_behind(given[index], nodes)
            if variable is not None and variable.identity in read:
                raise CHANGES_STATE.error(node, None)


def _reads_reference(node: NodeDef | None) -> bool:
    """Whether a node takes the value of an old variable: an Identity of a handle still is the variable."""
    return node is not None and node.op == "Identity" and node.attr["T"].type != DT_RESOURCE


def changed_inputs(node: NodeDef, functions: Mapping[str, FunctionDef], callers: tuple[str, ...] = ()) -> set[int]:
    """The inputs of a node that may be variables that it changes, by itself or in a function that it calls."""
    given = data_inputs(node)
    if CHANGES_STATE.ops.fullmatch(node.op):
        return set(range(len(given)))
    changed = set[int]()
    for name in called_functions(node, functions):
        if name in callers:
            continue
        function = functions[name]
        arguments = [argument.name for argument in function.signature.input_arg]
        body = {inner.name: inner for inner in function.node_def}
        first = len(given) - len(arguments)  # before them an If has its condition
        for inner in function.node_def:
            passed = data_inputs(inner)
            for index in changed_inputs(inner, functions, (*callers, name)):
                reference = passed[index]
                while ":" in reference and body[node_of(reference)].op in ("Identity", "Enter", "Switch"):
                    reference = data_inputs(body[node_of(reference)])[0]
                if reference in arguments:
                    place = first + arguments.index(reference)
                    changed |= {place} if 0 <= place < len(given) else set(range(len(given)))
    return changed


def _variable(name: str, nodes: Mapping[str, NodeDef]) -> Variable | None:
    return variable_of(nodes[name]) if nodes[name].op in VARIABLE_OPS else None


def _without_edges(node: NodeDef, kept: set[str], ends: set[str]) -> NodeDef:
    new = NodeDef()
    new.CopyFrom(node)
    if node.name in ends:
        del new.input[:]
    elif control_inputs(node):
        del new.input[:]
        new.input.extend(r for r in node.input if not r.startswith("^") or node_of(r) in kept)
    return new
