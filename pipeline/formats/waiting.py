"""Ops of a graph that wait for rows which nobody brings here: those of a queue, an iterator or a reader.

A queue gives rows and labels together. Where the rows are fed, TensorFlow does not ask the queue for them; but it asks
for the labels if the graph leads there, even into a branch that is not taken: the input of a `Switch` is computed on
either side. So `find_cuts` tells the edges whose values nothing observes, and `cut` takes them out of a graph. What a
graph asks for after that, it cannot compute from its inputs, and `require_no_wait` says so before it would wait.

TensorFlow itself says which branches are taken: nothing here is shared with freezing, whose work is checked by this.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

from pipeline.errors import RunnerError

_WAITING = re.compile(r"QueueDequeue.*|IteratorGetNext.*|ReaderRead.*|(Ordered)?(Map)?Unstage.*|BarrierTakeMany")
_FILLING = re.compile(r"QueueEnqueue.*|MakeIterator|(Ordered)?(Map)?Stage|BarrierInsertMany")
_STEADY = ("VarHandleOp", "VariableV2", "Variable", "ReadVariableOp", "Assert")  # stateful, and alike in every run
_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")


@dataclass
class Cuts:
    """Edges of a graph that are taken out.

    Args:
        values: dtype of the value that nothing observes, by node and the number of its input.
        orders: nodes that another one waits for without reading them, by that node.
    """

    values: dict[tuple[str, int], Any] = field(default_factory=dict)
    orders: dict[str, set[str]] = field(default_factory=dict)

    @property
    def feeds(self) -> dict[str, Any]:
        """What to feed in place of the values."""
        return {
            f"{_name(*edge)}:0": np.asarray(b"" if dtype == tf.string else 0, dtype.as_numpy_dtype)
            for edge, dtype in self.values.items()
        }


def find_cuts(session: v1.Session, outputs: Collection[str], fed: Collection[str], pins: Mapping[str, Any]) -> Cuts:
    """Finds the edges to ops that wait whose values nothing observes.

    Args:
        outputs, fed: names of tensors, the pinned ones not among them.
        pins: values by tensor.
    """
    cuts, graph = Cuts(), session.graph
    known = {*fed, *pins}
    reached = _reach(graph, outputs, known, cuts)
    late = _behind(_waiting(reached), reached, known, cuts)
    if not late:
        return cuts
    for operation in reached.values():
        for number in _unobserved(operation, session, reached, fed, pins):
            tensor = operation.inputs[number]
            if tensor.op.name in late and tensor.name not in known and tensor.dtype not in (tf.resource, tf.variant):
                cuts.values[operation.name, number] = tensor.dtype
    reached = _reach(graph, outputs, known, cuts)
    late = _behind(_waiting(reached), reached, known, cuts)
    read = _reach(graph, outputs, known, cuts, with_orders=False)
    for operation in reached.values():
        before = ({other.name for other in operation.control_inputs} & late) - read.keys()
        if before:
            cuts.orders[operation.name] = before
    return cuts


def cut(graph: v1.GraphDef, cuts: Cuts) -> None:
    """Takes edges out of a graph; a placeholder is in place of each value."""
    for node in graph.node:
        before = [f"^{name}" for name in cuts.orders.get(node.name, ())]
        for gone in before:
            node.input.remove(gone)
    nodes = {node.name: node for node in graph.node}
    for (name, number), dtype in cuts.values.items():
        placeholder = graph.node.add(name=_name(name, number), op="Placeholder")
        placeholder.attr["dtype"].type = dtype.as_datatype_enum
        placeholder.attr["shape"].shape.unknown_rank = True
        nodes[name].input[number] = placeholder.name


def require_no_wait(graph: tf.Graph, outputs: Collection[str], fed: Collection[str]) -> None:
    """Refuses a graph whose outputs need an op that would wait for ever.

    Args:
        outputs, fed: names of tensors.

    Raises:
        RunnerError: there is such an op, and no other one that the outputs need brings it rows.
    """
    waiting = _waiting(_reach(graph, outputs, set(fed), Cuts()))
    if waiting:
        operation = waiting[0]
        raise RunnerError(
            "the outputs need rows of an op that waits for them, and nobody brings any",
            where=f"{operation.name} ({operation.type})",
            next_step=f"Make what it gives an input: --inputs {operation.name}",
        )


def _name(node: str, number: int) -> str:
    return f"{node}/unobserved_{number}"


def _reach(
    graph: tf.Graph, outputs: Iterable[str], fed: Collection[str], cuts: Cuts, with_orders: bool = True
) -> dict[str, Any]:
    """Returns the operations that are run for outputs, by name; none in a graph where no op waits.

    Args:
        with_orders: also those that are only waited for, and not read.
    """
    if not any(_WAITING.fullmatch(operation.type) for operation in graph.get_operations()):
        return {}
    waiting, found = [graph.get_tensor_by_name(name).op for name in outputs if name not in fed], dict[str, Any]()
    while waiting:
        operation = waiting.pop()
        if operation.name in found:
            continue
        found[operation.name] = operation
        gone = cuts.orders.get(operation.name, ())
        waiting += [other for other in operation.control_inputs if with_orders and other.name not in gone]
        waiting += [
            tensor.op
            for number, tensor in enumerate(operation.inputs)
            if tensor.name not in fed and (operation.name, number) not in cuts.values
        ]
    return found


def _waiting(reached: Mapping[str, Any]) -> list[Any]:
    """Returns the operations that wait; none if others of them bring what they wait for."""
    if any(_FILLING.fullmatch(operation.type) for operation in reached.values()):
        return []
    return [operation for operation in reached.values() if _WAITING.fullmatch(operation.type)]


def _behind(waiting: Iterable[Any], reached: Mapping[str, Any], fed: Collection[str], cuts: Cuts) -> set[str]:
    """Returns the names of operations that run after one that waits, itself included."""
    after: dict[str, list[str]] = {}
    for operation in reached.values():
        for other in operation.control_inputs:
            after.setdefault(other.name, []).append(operation.name)
        for number, tensor in enumerate(operation.inputs):
            if tensor.name not in fed and (operation.name, number) not in cuts.values:
                after.setdefault(tensor.op.name, []).append(operation.name)
    found, to_do = set[str](), [operation.name for operation in waiting]
    while to_do:
        name = to_do.pop()
        if name not in found:
            found.add(name)
            to_do += after.get(name, [])
    return found


def _unobserved(
    operation: Any, session: v1.Session, reached: Mapping[str, Any], fed: Collection[str], pins: Mapping[str, Any]
) -> list[int]:
    """Returns the numbers of the inputs of a `Switch` or an `If` that the branch which is taken does not read."""
    if operation.type == "Switch":
        taken = _truth(session, operation.inputs[1], fed, pins)
        if taken is None:
            return []
        used = {tensor.name for other in reached.values() for tensor in other.inputs}
        return [] if operation.outputs[int(taken)].name in used else [0]
    if operation.type in ("If", "StatelessIf"):
        taken = _truth(session, operation.inputs[0], fed, pins)
        if taken is None:
            return []
        branch = operation.get_attr("then_branch" if taken else "else_branch").name
        return [number + 1 for number in _unread(session.graph, branch)]
    return []


def _unread(graph: tf.Graph, function: str) -> list[int]:
    """Returns the numbers of the arguments that a function does not read."""
    definition = next(each for each in graph.as_graph_def().library.function if each.signature.name == function)
    read = {reference.split(":")[0] for node in definition.node_def for reference in node.input}
    read |= {reference.split(":")[0] for reference in definition.ret.values()}
    return [number for number, given in enumerate(definition.signature.input_arg) if given.name not in read]


def _truth(session: v1.Session, tensor: Any, fed: Collection[str], pins: Mapping[str, Any]) -> bool | None:
    """Returns the value of a condition as TensorFlow computes it; None if it depends on rows or on chance."""
    while tensor.name not in pins and tensor.op.type == "Identity":  # it may wait for a check of the labels
        tensor = tensor.op.inputs[0]
    for operation in _ancestors(tensor, pins):
        is_row = any(output.name in fed for output in operation.outputs) or operation.type in _PLACEHOLDERS
        if is_row or (operation.op_def.is_stateful and operation.type not in _STEADY):
            return None
    try:
        value = np.asarray(session.run(tensor, dict(pins)))
    except (tf.errors.OpError, ValueError, TypeError):  # also a condition inside a branch that is not taken
        return None
    return bool(value) if value.ndim == 0 and value.dtype == bool else None


def _ancestors(tensor: Any, pins: Mapping[str, Any]) -> list[Any]:
    found, to_do = dict[str, Any](), [] if tensor.name in pins else [tensor.op]
    while to_do:
        operation = to_do.pop()
        if operation.name not in found:
            found[operation.name] = operation
            to_do += [*operation.control_inputs, *(each.op for each in operation.inputs if each.name not in pins)]
    return list(found.values())
