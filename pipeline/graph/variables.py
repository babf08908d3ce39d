"""Variables of a graph, and the checkpoint key of each.

A variable's key is mostly its name, but a Saver may use other keys, for moving averages or renamed layers. The graph
shows what restoring does: the names that a RestoreV2 reads, and the Assign that takes each result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .graph import Graph
from .lazy_nodes import whole_node
from .nodes import data_inputs, dims_of, node_of
from .protos import NodeDef, TensorProto

REFERENCE_OPS = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
VARIABLE_OPS = REFERENCE_OPS | {"VarHandleOp"}

_ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
_RESTORING = frozenset({"RestoreV2", "RestoreSlice"})
_PASSING_OPS = frozenset({"Identity", "RefIdentity", "Reshape"})
_SAVED_THROUGH = _RESTORING | _PASSING_OPS
_PASSING_HANDLES = frozenset({"Switch", "RefSwitch", "Enter", "RefEnter"})
_PASSES_VARIABLES = _PASSING_OPS | _PASSING_HANDLES
_MOST_VARIABLES = 10_000_000


@dataclass(frozen=True)
class Variable:
    """A variable of a graph.

    Args:
        name: its node.
        identity: container and shared name; two nodes of one identity are one variable.
        dtype: TensorFlow's DataType.
        shape: a size or None per dimension; None if the rank is unknown.
    """

    name: str
    identity: tuple[str, str]
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Saved:
    """The place of a variable in a checkpoint.

    Args:
        key: of the tensor.
        part: for a part of a partitioned variable, `start,length` or `-` per axis, joined by `:`
            (tensorflow/core/framework/tensor_slice.h); empty for the whole tensor.
    """

    key: str
    part: str = ""


def identity_of(node: NodeDef) -> tuple[str, str]:
    """Returns the identity of a variable or table: container and shared name. Nodes of one identity share the value."""
    return _text(node.attr["container"].s), _text(node.attr["shared_name"].s) or node.name


def variable_of(node: NodeDef) -> Variable:
    """Reads a variable from its node."""
    node = whole_node(node)
    attributes = node.attr
    shape = attributes["shape"].shape
    dims = dims_of(shape)
    if node.op in ("Variable", "VariableV2") and not attributes["shape"].HasField("shape"):
        dims = None
    return Variable(node.name, identity_of(node), attributes["dtype"].type, dims)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def restored_keys(graph: Graph, restore_op: str | None) -> dict[tuple[str, str], Saved]:
    """Returns the checkpoint key that restoring reads for each variable, by the variable's identity.

    Args:
        restore_op: the op that a Saver runs to restore; None, or an unknown name, means all of the graph's.

    Returns:
        Entries for the variables that an Assign writes from a RestoreV2 (or RestoreSlice); the named op wins over the
        graph's other Savers.
    """
    own = graph.ancestors([node_of(restore_op)], with_control=True) if restore_op else set()
    assigning = [node for node in graph.node if node.op in _ASSIGN_OPS or graph.functions]
    keys: dict[tuple[str, str], Saved] = {}
    lists: Strings = {}
    for node in sorted(assigning, key=lambda node: node.name in own):  # the last one wins
        keys.update(_find_restored(node, graph, graph, {}, lists))
        keys.update(_find_restored_in_functions(node, graph, lists))
    return keys


# By the body of a function (or the graph itself) and the name of a Const: its strings.
Strings = dict[tuple[int, str], Sequence[bytes]]


def _find_restored(
    node: NodeDef, body: Graph, graph: Graph, arguments: Mapping[str, str], lists: Strings
) -> Iterator[tuple[tuple[str, str], Saved]]:
    """Yields the variable that one Assign restores, in the graph or in a function called with tensors of the graph."""
    if node.op in _ASSIGN_OPS and len(given := data_inputs(node)) > 1:
        saved = saved_behind(given[1], body, lists)
        target = arguments.get(node_of(given[0]), given[0]) if body is not graph else given[0]
        if saved is not None and (variable := variable_behind(target, graph.nodes)) is not None:
            yield variable.identity, saved


def _find_restored_in_functions(call: NodeDef, graph: Graph, lists: Strings) -> Iterator[tuple[tuple[str, str], Saved]]:
    """Yields the variables that savers of TensorFlow 2 restore: inside a function that takes the handles."""
    for name in graph.called_by(call):
        body = graph.body(name)
        names = [argument.name for argument in graph.functions[name].signature.input_arg]
        arguments = dict(zip(names, data_inputs(call), strict=False))
        for node in body.node:
            yield from _find_restored(node, body, graph, arguments, lists)


def variable_behind(reference: str, nodes: Mapping[str, NodeDef]) -> Variable | None:
    """Finds the variable that an input refers to, through ops that only pass it on; None if it is none."""
    for _ in range(len(nodes)):
        node = nodes.get(node_of(reference))
        if node is None:
            return None
        if node.op in VARIABLE_OPS:
            return variable_of(node)
        if node.op not in _PASSES_VARIABLES or not data_inputs(node):
            return None
        reference = data_inputs(node)[0]
    return None


def saved_behind(reference: str, body: Graph, lists: Strings) -> Saved | None:
    """Finds the checkpoint key that a value was restored from; None if it was not restored."""
    nodes = body.nodes
    for _ in range(len(nodes)):
        node = nodes.get(node_of(reference))
        if node is None or node.op not in _SAVED_THROUGH:
            return None
        given = data_inputs(node)
        if len(given) < (3 if node.op in _RESTORING else 1):
            return None
        if node.op in _RESTORING:
            port = reference.rpartition(":")[2] if ":" in reference else "0"
            key, part = (_string_at(node_of(name), port, body, lists) for name in given[1:3])
            return None if key is None or part is None else Saved(key, part.rpartition(" ")[2])
        reference = given[0]
    return None


def _string_at(name: str, index: str, body: Graph, lists: Strings) -> str | None:
    """Returns one string of a Const node; the lists of a Saver are long, so each is read once."""
    place = (id(body), name)
    if place not in lists:
        node = body.nodes.get(name)
        is_const = node is not None and node.op == "Const"
        lists[place] = list(whole_node(node).attr["value"].tensor.string_val) if is_const else []
    values = lists[place]
    # A constant of equal values stores the value once.
    return _text(values[min(int(index), len(values) - 1)]) if values and index.isdecimal() else None


def is_restored(filling: NodeDef, nodes: Mapping[str, NodeDef]) -> bool:
    """Returns True if what fills a table is read from a checkpoint when that is restored."""
    origins = [nodes.get(node_of(reference)) for reference in data_inputs(filling)[1:]]
    return any(origin is not None and origin.op in _RESTORING for origin in origins)


def strings_of(node: NodeDef | None) -> list[str] | None:
    """Returns the strings of a Const node; None if it is not one."""
    if node is None or node.op != "Const":
        return None
    tensor: TensorProto = whole_node(node).attr["value"].tensor
    values = [_text(value) for value in tensor.string_val]
    size = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    # A constant of equal values stores the value once.
    return values + values[-1:] * min(size - len(values), _MOST_VARIABLES) if values else None
