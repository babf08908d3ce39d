"""Which variables a graph has, and under which key a checkpoint keeps each.

A variable's key is mostly its name, but not always: a Saver may have been told other keys, as for moving
averages or renamed layers. What counts is what restoring would do, and that is in the graph: the names that a RestoreV2
reads, and the Assign behind each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .nodes import ancestors, called_functions, data_inputs, node_of
from .protos import FunctionDef, GraphDef, NodeDef, TensorProto

REFERENCE_OPS = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
VARIABLE_OPS = REFERENCE_OPS | {"VarHandleOp"}

_ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
_RESTORING = frozenset({"RestoreV2", "RestoreSlice"})
_PASSING_OPS = frozenset({"Identity", "RefIdentity", "Reshape"})
_PASSING_HANDLES = frozenset({"Switch", "RefSwitch", "Enter", "RefEnter"})
_MOST_VARIABLES = 10_000_000


@dataclass(frozen=True)
class Variable:
    """A variable of a graph.

    Args:
        name: its node.
        identity: what makes two nodes one variable: container and shared name.
        dtype: TensorFlow's DataType.
        shape: a size or None per dimension; None where the rank is unknown.
    """

    name: str
    identity: tuple[str, str]
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint keeps a variable.

    Args:
        key: of the tensor.
        part: for a part of a partitioned variable, `start,length` or `-` per axis, joined by `:`
            (tensorflow/core/framework/tensor_slice.h); empty for the whole tensor.
    """

    key: str
    part: str = ""


def identity_of(node: NodeDef) -> tuple[str, str]:
    """What makes two nodes one variable, or one table: container and shared name."""
    return _text(node.attr["container"].s), _text(node.attr["shared_name"].s) or node.name


def variable_of(node: NodeDef) -> Variable:
    """Reads a variable's node."""
    shape = node.attr["shape"].shape
    dims = None if shape.unknown_rank else tuple(d.size if d.size >= 0 else None for d in shape.dim)
    if node.op in ("Variable", "VariableV2") and not node.attr["shape"].HasField("shape"):
        dims = None
    return Variable(node.name, identity_of(node), node.attr["dtype"].type, dims)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def restored_keys(graph: GraphDef, restore_op: str | None) -> dict[tuple[str, str], Saved]:
    """Where restoring takes each variable from, by the variable's identity.

    Args:
        restore_op: the op that a Saver runs to restore; None, or one that is not there, for all of the graph's.

    Returns:
        Entries for the variables that an Assign behind a RestoreV2 (or RestoreSlice) writes; the named
        op's restoring is stronger than that of the graph's other Savers.
    """
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    own = ancestors(nodes, [node_of(restore_op)], with_control=True) if restore_op else set()
    assigning = [node for node in nodes.values() if node.op in _ASSIGN_OPS or functions]
    keys: dict[tuple[str, str], Saved] = {}
    for node in sorted(assigning, key=lambda node: node.name in own):  # the last one wins
        keys.update(_assigned(node, nodes, nodes, {}))
        keys.update(_assigned_in_functions(node, nodes, functions))
    return keys


def _assigned(
    node: NodeDef, body: Mapping[str, NodeDef], nodes: Mapping[str, NodeDef], arguments: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str], Saved]]:
    """What one Assign restores, in the graph or in a function whose arguments are tensors of the graph."""
    if node.op in _ASSIGN_OPS and len(given := data_inputs(node)) > 1:
        saved = _saved_behind(given[1], body)
        target = arguments.get(node_of(given[0]), given[0]) if body is not nodes else given[0]
        if saved is not None and (variable := variable_behind(target, nodes)) is not None:
            yield variable.identity, saved


def _assigned_in_functions(
    call: NodeDef, nodes: Mapping[str, NodeDef], functions: Mapping[str, FunctionDef]
) -> Iterator[tuple[tuple[str, str], Saved]]:
    """What TF 2's savers restore: they do it inside a function that is given the handles."""
    for name in called_functions(call, functions):
        function = functions[name]
        body = {node.name: node for node in function.node_def}
        names = [argument.name for argument in function.signature.input_arg]
        arguments = dict(zip(names, data_inputs(call), strict=False))
        for node in function.node_def:
            yield from _assigned(node, body, nodes, arguments)


def variable_behind(reference: str, nodes: Mapping[str, NodeDef]) -> Variable | None:
    """The variable that an op is given, through whatever only passes it on."""
    for _ in range(len(nodes)):
        node = nodes.get(node_of(reference))
        if node is None:
            return None
        if node.op in VARIABLE_OPS:
            return variable_of(node)
        if node.op not in _PASSING_OPS | _PASSING_HANDLES or not data_inputs(node):
            return None
        reference = data_inputs(node)[0]
    return None


def _saved_behind(reference: str, nodes: Mapping[str, NodeDef]) -> Saved | None:
    """Where a value was restored from."""
    for _ in range(len(nodes)):
        node = nodes.get(node_of(reference))
        if node is None or node.op not in _RESTORING | _PASSING_OPS:
            return None
        given = data_inputs(node)
        if len(given) < (3 if node.op in _RESTORING else 1):
            return None
        if node.op in _RESTORING:
            port = reference.rpartition(":")[2] if ":" in reference else "0"
            key, part = (_string_at(nodes.get(node_of(name)), port) for name in given[1:3])
            return None if key is None or part is None else Saved(key, part.rpartition(" ")[2])
        reference = given[0]
    return None


def _string_at(node: NodeDef | None, index: str) -> str | None:
    """One string of a Const node: a Saver's lists are long, and each variable asks for one entry."""
    if node is None or node.op != "Const" or not index.isdecimal():
        return None
    values = node.attr["value"].tensor.string_val
    # A constant of equal values holds the value once.
    return _text(values[min(int(index), len(values) - 1)]) if values else None


def strings_of(node: NodeDef | None) -> list[str] | None:
    """The strings of a Const node; None where it is not one."""
    if node is None or node.op != "Const":
        return None
    tensor: TensorProto = node.attr["value"].tensor
    values = [_text(value) for value in tensor.string_val]
    size = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    # A constant of equal values holds the value once.
    return values + values[-1:] * min(size - len(values), _MOST_VARIABLES) if values else None
