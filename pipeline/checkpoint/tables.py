"""Lookup tables of a graph: what makes and fills them becomes nodes of the graph itself, outside of functions.

A static table is filled from constants. The content of a mutable one is in the checkpoint, under two keys; restoring
fills the table with it. So its keys and values become two variables, and an op of the graph fills the table with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import FunctionDefLibrary, NodeDef
from pipeline.graph.variables import Saved, Strings, saved_behind

CONTENT = "_table_content"  # marks a variable that holds the keys or the values of a table
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_DEEPEST = 100  # calls within calls
_TABLE = re.compile(r"(Mutable|MutableDense)?HashTable(OfTensors)?(V2)?")
_IMPORTS = frozenset({"LookupTableImportV2", "LookupTableImport"})
_FILLS_TABLE = re.compile(r"InitializeTable(FromTextFile)?(V2)?|LookupTableImport(V2)?")


def hoist_tables(graph: Graph) -> Graph:
    """Returns the graph with tables and what fills them outside of functions, as in TensorFlow 1.

    Functions that no node calls are dropped: TensorFlow 2's loader creates objects with them.
    """
    nodes = [new for node in graph.node for new in _find_created_table(node, graph) or [node]]
    nodes += _fillings(graph)
    called = (graph.functions[name] for name in graph.called(nodes))
    return fill_from_checkpoint(Graph(nodes, FunctionDefLibrary(function=called), graph.versions))


def fill_from_checkpoint(graph: Graph) -> Graph:
    """Returns the graph with variables for the content of its tables that restoring reads from a checkpoint."""
    lists: Strings = {}
    filled = {
        node.name: [*_filled(node.name, node, [data_inputs(node)[0], *saved])]
        for node in graph.node
        if node.op in _IMPORTS and (saved := _saved_content(node, graph, lists)) is not None
    }
    return graph.replace_nodes(new for node in graph.node for new in filled.get(node.name, [node])) if filled else graph


def _saved_content(node: NodeDef, graph: Graph, lists: Strings) -> list[str | Saved] | None:
    """Returns where restoring finds the keys and the values of a table; None if something else fills it."""
    found = [saved_behind(reference, graph, lists) for reference in data_inputs(node)[1:3]]
    return None if None in found or len(found) < 2 else [one for one in found if one is not None]


def _filled(name: str, node: NodeDef, given: list[str | Saved]) -> Iterator[NodeDef]:
    """Yields an op that fills a table, after variables for what the checkpoint has."""
    inputs = []
    for one, part, attribute in zip(given, ("table", "keys", "values"), ("", "Tin", "Tout"), strict=False):
        if isinstance(one, Saved):
            variable = NodeDef(name=f"{name}/{part}", op="VariableV2")
            variable.attr["dtype"].type = node.attr[attribute].type
            variable.attr["shared_name"].s = one.key.encode("utf-8", "surrogateescape")
            variable.attr[CONTENT].b = True
            yield variable
        inputs.append(variable.name if isinstance(one, Saved) else one)
    yield NodeDef(name=name, op=node.op, input=inputs, attr=node.attr)


def _find_created_table(call: NodeDef, graph: Graph) -> list[NodeDef] | None:
    """Returns the table that a call creates, after its constants; None for any other call.

    A model that was loaded and saved again creates tables in functions.
    """
    node, body, functions = call, Graph(()), graph.functions
    for _ in range(_DEEPEST):
        name = node.attr["f"].func.name if node.op in _CALLS else ""
        if name in functions and len(functions[name].ret) == 1 and not data_inputs(node):
            body = graph.body(name)
            [result] = functions[name].ret.values()
        elif node.op == "Identity" and node.input:
            result = node.input[0]
        else:
            break
        node = body.nodes.get(node_of(result), NodeDef())
    if node is call or _TABLE.fullmatch(node.op) is None:
        return None
    given = [body.nodes.get(node_of(reference), NodeDef()) for reference in data_inputs(node)]
    if any(one.op != "Const" for one in given):
        return None
    constants = [NodeDef(name=f"{call.name}/{one.name}", op=one.op, attr=one.attr) for one in given]
    table = NodeDef(name=call.name, op=node.op, input=[one.name for one in constants], attr=node.attr)
    return [*constants, table]


def _fillings(graph: Graph) -> Iterator[NodeDef]:
    """Yields what fills tables inside functions as nodes of the graph, if it needs tensors of the graph alone, or the
    checkpoint."""
    functions, lists = graph.functions, Strings()
    for root in graph.node:
        seen = set[str]()  # functions of a damaged file may call each other without end
        # Each with its arguments: tensors of the graph, places in the checkpoint, or None for what only functions know;
        # and a name in the graph.
        waiting: list[tuple[NodeDef, list[str | Saved | None], str]] = [(root, [*data_inputs(root)], root.name)]
        while waiting:
            call, arguments, prefix = waiting.pop()
            name = call.attr["f"].func.name if call.op in _CALLS else call.op
            if name not in functions or name in seen:
                continue
            seen.add(name)
            names = [argument.name for argument in functions[name].signature.input_arg]
            given = dict(zip(names, arguments, strict=False))
            for node in functions[name].node_def:
                inputs = [_known(reference, given, name, graph, lists) for reference in data_inputs(node)]
                inner = f"{prefix}/{node.name}"
                waiting.append((node, inputs, inner))
                if _FILLS_TABLE.fullmatch(node.op) and None not in inputs:
                    yield from _filled(inner, node, [one for one in inputs if one is not None])


def _known(
    reference: str, given: Mapping[str, str | Saved | None], function: str, graph: Graph, lists: Strings
) -> str | Saved | None:
    """Returns the tensor of the graph, or the place in a checkpoint, that a function's tensor comes from."""
    return given[reference] if reference in given else saved_behind(reference, graph.body(function), lists)
