"""Prunes functions: removes counters, summaries and draws that their results do not need.

A session runs the side effects of a function even if no result needs them. A .pb drops them, as it drops those of the
graph itself, if nothing reads what they change.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.handles import LOOPS
from pipeline.graph.nodes import data_inputs, is_control, node_of
from pipeline.graph.protos import FunctionDef, FunctionDefLibrary, NodeDef
from pipeline.graph.unsupported import CHANGES_STATE, DT_RESOURCE, acts
from pipeline.graph.variables import VARIABLE_OPS, variable_behind

from .prune import changed_inputs, find_kept_nodes

_PASSES = frozenset({"Identity", "RefIdentity", "Switch", "RefSwitch", "Enter", "RefEnter"})


def prune_functions(graph: Graph) -> Graph:
    """Returns the graph with pruned functions; checks and prints stay."""
    pruned = [_prune_function(function, graph) for function in graph.library.function]
    if all(new is old for new, old in zip(pruned, graph.library.function, strict=True)):
        return graph
    library = FunctionDefLibrary(function=pruned, gradient=graph.library.gradient)
    return Graph(graph.node, library, graph.versions)


def _prune_function(function: FunctionDef, graph: Graph) -> FunctionDef:
    acting = {node.name for node in function.node_def if acts(node, graph, set())}
    if not acting:
        return function
    body = graph.body(function.signature.name)
    results = [node_of(reference) for reference in function.ret.values()]
    tainted = body.descendants(acting - body.ancestors(results, with_control=False))
    waited_for = [node for node in function.control_ret.values() if node not in tainted]
    kept, _ = find_kept_nodes(body, body.ancestors(results, with_control=False), set(), tainted, waited_for)
    gone = body.nodes.keys() - kept
    # A variable inside the function may be one of the graph, which would then change unseen.
    if not acting & gone or any(body.nodes[name].op in VARIABLE_OPS for name in gone):
        return function
    new = FunctionDef()
    new.CopyFrom(function)
    del new.node_def[:]
    new.node_def.extend(_remove_edges(node, gone) for node in function.node_def if node.name in kept)
    for result, name in function.control_ret.items():
        if name in gone:
            del new.control_ret[result]
            new.signature.control_output.remove(result)
    return new


def _remove_edges(node: NodeDef, gone: set[str]) -> NodeDef:
    new = NodeDef()
    new.CopyFrom(node)
    del new.input[:]
    new.input.extend(r for r in node.input if not is_control(r) or node_of(r) not in gone)
    return new


def require_changes_unread(kept: Graph, before: Graph, after: Graph) -> None:
    """Checks that the removed parts of functions changed nothing that is read.

    Args:
        kept: the nodes of the graph that stay.
        before: the graph with complete functions.
        after: the graph with pruned functions.

    Raises:
        FreezeError: a variable that is changed there is read.
    """
    if before is after:
        return
    changed: dict[tuple[str, str] | None, tuple[NodeDef, int]] = {}
    for node in kept.node:
        given = data_inputs(node)
        for index in changed_inputs(node, before):
            variable = variable_behind(given[index], kept.nodes)
            changed[None if variable is None else variable.identity] = node, index
    if None in changed:  # a variable without a name
        raise _error(*changed[None], before)
    used = {reference for node in kept.node for reference in node.input}
    for node in kept.node if changed else ():
        for index, reference in enumerate(data_inputs(node)):
            variable = variable_behind(reference, kept.nodes)
            if variable is not None and variable.identity in changed and _reads(node, index, after, (), used):
                raise _error(*changed[variable.identity], before)


def _error(call: NodeDef, index: int, graph: Graph) -> FreezeError:
    changing = _find_changing(call, index, graph, ())
    return CHANGES_STATE.error(*(changing or (call, None)))


def _find_changing(
    call: NodeDef, index: int, graph: Graph, callers: tuple[str, ...]
) -> tuple[NodeDef, str | None] | None:
    """Returns the node that changes the variable that a call is given as its input `index`, and its function."""
    if CHANGES_STATE.matches(call.op):
        return call, callers[-1] if callers else None
    for name in graph.called_by(call):
        arguments = [argument.name for argument in graph.functions[name].signature.input_arg]
        place = index - (len(data_inputs(call)) - len(arguments))  # an If has its condition before them
        if name in callers or not 0 <= place < len(arguments):
            continue
        for inner in graph.functions[name].node_def:
            given = data_inputs(inner)
            for at in sorted(changed_inputs(inner, graph, (*callers, name))):
                found = _find_changing(inner, at, graph, (*callers, name)) if given[at] == arguments[place] else None
                if found:
                    return found
    return None


def _reads(node: NodeDef, index: int, graph: Graph, callers: tuple[str, ...], used: Set[str]) -> bool:
    """Returns True if a node may read the variable that it is given.

    Args:
        callers: the functions around it.
        used: the references of the innermost of them, or of the graph.
    """
    if node.op in _PASSES and not callers and node.attr["T"].type == DT_RESOURCE:
        return False  # the receivers of the handle are checked themselves
    names = list(graph.called_by(node))
    result = {f"{node.name}:{index}", f"{node.name}:output:{index}", *([node.name] if index == 0 else [])}
    if not names or (node.op in LOOPS and used & result):
        return True
    return any(_reads_inside(graph.functions[name], node, index, graph, callers) for name in names)


def _reads_inside(function: FunctionDef, call: NodeDef, index: int, graph: Graph, callers: tuple[str, ...]) -> bool:
    arguments = [argument.name for argument in function.signature.input_arg]
    place = index - (len(data_inputs(call)) - len(arguments))  # an If has its condition before them
    if function.signature.name in callers or not 0 <= place < len(arguments):
        return True
    name = arguments[place]
    results = [function.ret[result.name] for result in function.signature.output_arg]
    if call.op in LOOPS and results[place : place + 1] == [name]:
        del results[place]  # the same handle in the next turn and in the loop's result
    used = {*results, *(reference for node in function.node_def for reference in node.input)}
    return name in results or any(
        _reads(inner, at, graph, (*callers, function.signature.name), used) for inner, at in _uses(function, name)
    )


def _uses(function: FunctionDef, argument: str) -> Iterator[tuple[NodeDef, int]]:
    for node in function.node_def:
        for index, reference in enumerate(data_inputs(node)):
            if reference == argument:
                yield node, index
