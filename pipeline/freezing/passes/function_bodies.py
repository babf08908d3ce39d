"""Leaves out of functions what their results do not need: counts of calls, summaries, draws that decide nothing.

A session runs what acts in a function although no result hangs on it. For a .pb it goes, as it goes from the graph
itself, if nothing that it changes is read.
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

from .prune import changed_inputs, kept_nodes

_PASSES = frozenset({"Identity", "RefIdentity", "Switch", "RefSwitch", "Enter", "RefEnter"})


def with_pruned_bodies(graph: Graph) -> Graph:
    """The graph with functions that keep what their results need, and checks and prints beside it."""
    pruned = [_pruned(function, graph) for function in graph.library.function]
    if all(new is old for new, old in zip(pruned, graph.library.function, strict=True)):
        return graph
    library = FunctionDefLibrary(function=pruned, gradient=graph.library.gradient)
    return Graph(graph.node, library, graph.versions)


def _pruned(function: FunctionDef, graph: Graph) -> FunctionDef:
    acting = {node.name for node in function.node_def if acts(node, graph, set())}
    if not acting:
        return function
    body = graph.body(function.signature.name)
    results = [node_of(reference) for reference in function.ret.values()]
    tainted = body.descendants(acting - body.ancestors(results, with_control=False))
    waited_for = [node for node in function.control_ret.values() if node not in tainted]
    kept, _ = kept_nodes(body, body.ancestors([*results, *waited_for], with_control=False), set(), tainted)
    gone = body.nodes.keys() - kept
    # A variable of the function's own may be one of the graph, which then changes unseen.
    if not acting & gone or any(body.nodes[name].op in VARIABLE_OPS for name in gone):
        return function
    new = FunctionDef()
    new.CopyFrom(function)
    del new.node_def[:]
    new.node_def.extend(_without_edges(node, gone) for node in function.node_def if node.name in kept)
    for result, name in function.control_ret.items():
        if name in gone:
            del new.control_ret[result]
            new.signature.control_output.remove(result)
    return new


def _without_edges(node: NodeDef, gone: set[str]) -> NodeDef:
    new = NodeDef()
    new.CopyFrom(node)
    del new.input[:]
    new.input.extend(r for r in node.input if not is_control(r) or node_of(r) not in gone)
    return new


def require_unread(kept: Graph, before: Graph, after: Graph) -> None:
    """Makes sure that what was left out of functions changed nothing that is read.

    Args:
        kept: the nodes that are kept of the graph.
        before: the graph with all that its functions do.
        after: the graph with the functions as they are kept.

    Raises:
        FreezeError: a variable is changed there, and read here.
    """
    if before is after:
        return
    changed: dict[tuple[str, str] | None, NodeDef] = {}
    for node in kept.node:
        given = data_inputs(node)
        for index in changed_inputs(node, before):
            variable = variable_behind(given[index], kept.nodes)
            changed[None if variable is None else variable.identity] = node
    if None in changed:  # one that goes by no name
        raise _error(changed[None], before)
    used = {reference for node in kept.node for reference in node.input}
    for node in kept.node if changed else ():
        for index, reference in enumerate(data_inputs(node)):
            variable = variable_behind(reference, kept.nodes)
            if variable is not None and variable.identity in changed and _reads(node, index, after, (), used):
                raise _error(changed[variable.identity], before)


def _error(call: NodeDef, graph: Graph) -> FreezeError:
    inside = graph.called_nodes([call])
    changing = ((node, name) for name, node in inside if CHANGES_STATE.ops.fullmatch(node.op))
    return CHANGES_STATE.error(*next(changing, (call, None)))


def _reads(node: NodeDef, index: int, graph: Graph, callers: tuple[str, ...], used: Set[str]) -> bool:
    """Whether a node may look at the variable that it is given.

    Args:
        callers: the functions in which it stands.
        used: the references of the innermost of them, or of the graph.
    """
    if node.op in _PASSES and not callers and node.attr["T"].type == DT_RESOURCE:
        return False  # whatever it passes the handle on to is asked itself
    names = list(graph.called_by(node))
    if not names or (node.op in LOOPS and used & _names_of(node.name, index)):
        return True
    return any(_reads_inside(graph.functions[name], node, index, graph, callers) for name in names)


def _names_of(node: str, port: int) -> set[str]:
    return {f"{node}:{port}", f"{node}:output:{port}", *([node] if port == 0 else [])}


def _reads_inside(function: FunctionDef, call: NodeDef, index: int, graph: Graph, callers: tuple[str, ...]) -> bool:
    arguments = [argument.name for argument in function.signature.input_arg]
    place = index - (len(data_inputs(call)) - len(arguments))  # before them an If has its condition
    if function.signature.name in callers or not 0 <= place < len(arguments):
        return True
    name = arguments[place]
    results = [function.ret[result.name] for result in function.signature.output_arg]
    if call.op in LOOPS and results[place : place + 1] == [name]:
        del results[place]  # the same handle for the next turn, and for whoever uses what the loop returns
    used = {*results, *(reference for node in function.node_def for reference in node.input)}
    return name in results or any(
        _reads(inner, at, graph, (*callers, function.signature.name), used) for inner, at in _uses(function, name)
    )


def _uses(function: FunctionDef, argument: str) -> Iterator[tuple[NodeDef, int]]:
    for node in function.node_def:
        for index, reference in enumerate(data_inputs(node)):
            if reference == argument:
                yield node, index
