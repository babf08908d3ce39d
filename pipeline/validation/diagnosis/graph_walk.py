"""Walks the nodes of a graph in TensorFlow in the order in which they are computed, some at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.formats.session import error_line
from pipeline.signature import Array

_CHUNK, _CHUNK_BYTES = 64, 64_000_000  # tensors that are computed at the same time, and their bytes
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


def chunks(graph: tf.Graph, names: Sequence[str], rows: int) -> Iterator[list[str]]:
    """Tensors in groups that fit into memory, as far as the graph tells sizes.

    Args:
        rows: for a first dimension that the graph leaves open; for another one 1.
    """
    chunk, size = list[str](), 0
    for name in names:
        needed = _bytes_of(graph.get_tensor_by_name(name), rows)
        if chunk and (len(chunk) == _CHUNK or size + needed > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += needed
    if chunk:
        yield chunk


def _bytes_of(tensor: tf.Tensor, rows: int) -> int:
    lengths = tensor.shape.as_list() if tensor.shape.rank is not None else []
    sizes = [(1 if axis else max(rows, 1)) if length is None else length for axis, length in enumerate(lengths)]
    return math.prod(sizes) * max(int(tensor.dtype.base_dtype.size), 1)


class Walker:
    """Computes the tensors of a graph group by group, each group from what the ones before it gave.

    A session keeps a graph of its own for everything that it was ever asked for at once. Fed with what it needs of the
    groups before, that graph holds the group alone, and not again all that leads to it.

    Args:
        names: the tensors in the order of their computation.
        fed: by tensor what the graph is given.
    """

    def __init__(self, session: tf.compat.v1.Session, names: Sequence[str], fed: Mapping[str, Any]) -> None:
        self._session, self._fed = session, dict(fed)
        self._place = {name: number for number, name in enumerate(names)}
        self._kept: dict[str, Array] = {}
        self._ours = _descendants(session.graph, fed)
        self._last = {name: self._last_use(name) for name in names}

    def _last_use(self, name: str) -> int:
        """The place of the last tensor that is computed from this one at once."""
        consumers = self._session.graph.get_tensor_by_name(name).consumers()
        places = [self._place.get(tensor.name) for operation in consumers for tensor in operation.outputs]
        # What is not walked over, as in a loop, may be asked for by anything behind it.
        return max((len(self._place) if place is None else place for place in places), default=-1)

    def answers(self, chunk: Sequence[str]) -> dict[str, Array | str]:
        """The values of the next tensors, or what TensorFlow said instead."""
        found = self._run(chunk)
        end = self._place[chunk[-1]]
        for name, value in found.items():
            if not isinstance(value, str) and self._is_to_keep(name):
                self._kept[name] = value
        self._kept = {name: value for name, value in self._kept.items() if self._last[name] > end}
        return found

    def _is_to_keep(self, name: str) -> bool:
        """Whether a value is fed to what comes after; what hangs on no input, as a weight, is read again instead."""
        tensor = self._session.graph.get_tensor_by_name(name)
        return tensor.op.name in self._ours and bool(self._session.graph.is_feedable(tensor))

    def _run(self, names: Sequence[str]) -> dict[str, Array | str]:
        try:
            values = self._session.run(list(names), {**self._kept, **self._fed})
            return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
        except (tf.errors.OpError, ValueError, TypeError) as exc:
            if len(names) == 1:
                return {names[0]: error_line(exc)}
            half = len(names) // 2
            return {**self._run(names[:half]), **self._run(names[half:])}


def _descendants(graph: tf.Graph, fed: Mapping[str, Any]) -> set[str]:
    """The nodes that are computed from what is fed."""
    waiting, found = [graph.get_tensor_by_name(name).op for name in fed], set[str]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting.extend(consumer for tensor in operation.outputs for consumer in tensor.consumers())
    return found
