"""Which tensor of a checkpoint its Saver restores into which variable, read off the graph's own restoring ops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.checkpoint.opened import Source
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.tensors import strings_of
from pipeline.graph.variables import Saved

_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})
_RESTORES = frozenset({"RestoreV2", "RestoreSlice"})
_PASSES = frozenset({"Identity", "RefIdentity", "Reshape", "Enter", "RefEnter", "Switch", "RefSwitch"})
VARIABLES = frozenset({"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp"})


def saved_names(source: Source) -> Mapping[tuple[str, str], Saved]:
    """Returns the tensor of the checkpoint that each variable is restored from, by the variable's identity.

    A graph may have several Savers: the one that its MetaGraph names counts.
    """
    graph = source.graph
    named = source.metas[0].rest.saver_def.restore_op_name if source.metas else ""
    own = graph.ancestors([node_of(named)], with_control=True) if named else set[str]()
    found: dict[tuple[str, str], Saved] = {}
    strings: dict[str, list[bytes]] = {}
    for is_own in (False, True):
        for node in graph.node:
            if node.op in _ASSIGNS and (node.name in own) == is_own:
                found.update(_restored(node, graph, strings))
    return found


def _restored(node: NodeDef, graph: Graph, strings: dict[str, list[bytes]]) -> Iterator[tuple[tuple[str, str], Saved]]:
    given = data_inputs(node)
    if len(given) < 2:
        return
    variable, (restore, port) = trace_variable(graph, given[0]), _behind(graph, given[1])
    if variable is None or restore is None or restore.op not in _RESTORES:
        return
    lists = []
    for reference in data_inputs(restore)[1:3]:
        name = node_of(reference)
        if name not in strings:
            constant = graph.nodes.get(name)
            is_known = constant is not None and constant.op == "Const"
            strings[name] = strings_of(whole_node(constant).attr["value"].tensor) if is_known else []
        lists.append(strings[name])
    if len(lists) == 2 and all(len(one) > port for one in lists):
        key, part = (one[port].decode("utf-8", "surrogateescape") for one in lists)
        yield identity_of(variable), Saved(key, part.rpartition(" ")[2])


def identity_of(node: NodeDef) -> tuple[str, str]:
    """Returns container and shared name of a variable or a table: nodes with the same are the same."""
    attributes = whole_node(node).attr
    container, shared = (attributes[name].s.decode("utf-8", "surrogateescape") for name in ("container", "shared_name"))
    return container, shared or node.name


def trace_variable(graph: Graph, reference: str) -> NodeDef | None:
    """Returns the variable that a reference or a handle belongs to; None if it is not one."""
    found = _behind(graph, reference)[0]
    return found if found is not None and found.op in VARIABLES else None


def trace_passed(graph: Graph, reference: str) -> NodeDef | None:
    """Returns the node that a reference leads to, through ops that pass their first input on."""
    return _behind(graph, reference)[0]


def _behind(graph: Graph, reference: str) -> tuple[NodeDef | None, int]:
    """Follows ops that pass their first input on; returns the node that they start at, and its output."""
    for _ in range(len(graph.node)):
        name, _, port = reference.partition(":")
        node = graph.nodes.get(name)
        if node is None or node.op not in _PASSES or not data_inputs(node):
            return node, int(port) if port.isdecimal() else 0
        reference = data_inputs(node)[0]
    return None, 0
