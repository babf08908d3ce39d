"""Walks the nodes of a graph in TensorFlow in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import tensorflow as tf

NEVER_FETCHED = frozenset(
    {"Switch", "RefSwitch", "Merge", "RefMerge", "NoOp", "Placeholder", "Assert", "ControlTrigger"}
)
_TURNS = ("NextIteration", "RefNextIteration")


def ancestors_of(graph: tf.Graph, outputs: Sequence[str]) -> dict[str, tf.Operation]:
    """The nodes that tensors are computed from, by name."""
    waiting, found = [graph.get_tensor_by_name(name).op for name in outputs], dict[str, Any]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found


def ordered(operations: Mapping[str, tf.Operation]) -> Iterator[tf.Operation]:
    """Nodes so that each comes after those that it is computed from; an old loop's way back does not count."""
    edges = {
        name: [
            tensor.op.name
            for tensor in operation.inputs
            if tensor.op.name in operations and tensor.op.type not in _TURNS
        ]
        for name, operation in operations.items()
    }
    yield from (operations[name] for name in TopologicalSorter(edges).static_order())


def inside_loops(operations: Mapping[str, tf.Operation]) -> set[str]:
    """Nodes of old loops, which exist once for each turn and cannot be fetched."""
    waiting = [op for op in operations.values() if op.type in ("Enter", "RefEnter")]
    inside = set[str]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in inside and operation.type not in ("Exit", "RefExit"):
            inside.add(operation.name)
            waiting.extend(consumer for tensor in operation.outputs for consumer in tensor.consumers())
    return inside
