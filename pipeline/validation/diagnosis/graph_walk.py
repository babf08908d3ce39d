"""Opens a candidate's graph with TensorFlow's optimizer off, and computes its tensors in topological order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.errors import RunnerError, first_line
from pipeline.formats.frozen import import_frozen
from pipeline.formats.mmap import read_graph
from pipeline.formats.session import session_config
from pipeline.signature import Array
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, SAVED_MODEL_FILE

_CHUNK, _CHUNK_BYTES = 64, 64_000_000  # tensors computed at a time, and their size
NEVER_FETCHED = frozenset(
    {"Switch", "RefSwitch", "Merge", "RefMerge", "NoOp", "Placeholder", "Assert", "ControlTrigger"}
)
_LOOP_BACK_OPS = ("NextIteration", "RefNextIteration")


def open_graph(folder: Path, threads: int) -> v1.Session:
    """Opens `model.pb`, `graph.pb` with its weight files, or `saved_model.pb`.

    Raises:
        RunnerError: none of them exists, or its import failed.
    """
    session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_unoptimized=True))
    try:
        if (folder / GRAPH_FILE).is_file():
            with session.graph.as_default():
                tf.import_graph_def(read_graph(folder), name="")
        elif (folder / SAVED_MODEL_FILE).is_file():
            v1.saved_model.load(session, ["serve"], str(folder))
        else:
            import_frozen(session, folder / FROZEN_FILE)
    except (OSError, DecodeError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as exc:
        raise RunnerError("a graph whose tensors cannot be fetched", where=folder, got=first_line(exc)) from exc
    return session


def _walk(starts: Iterable[tf.Operation], following: Callable[[Any], Iterable[Any]]) -> dict[str, tf.Operation]:
    waiting, found = list(starts), dict[str, Any]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting.extend(following(operation))
    return found


def _consumers(operation: tf.Operation) -> Iterator[tf.Operation]:
    return (consumer for tensor in operation.outputs for consumer in tensor.consumers())


def ancestor_operations(graph: tf.Graph, outputs: Sequence[str]) -> dict[str, tf.Operation]:
    """Finds the nodes that tensors are computed from, by name."""
    starts = (graph.get_tensor_by_name(name).op for name in outputs)
    return _walk(starts, lambda operation: (tensor.op for tensor in operation.inputs))


def topological_order(operations: Mapping[str, tf.Operation]) -> Iterator[tf.Operation]:
    """Yields each node after those that it is computed from, ignoring the back edges of v1 loops."""
    edges = {
        name: [
            tensor.op.name
            for tensor in operation.inputs
            if tensor.op.name in operations and tensor.op.type not in _LOOP_BACK_OPS
        ]
        for name, operation in operations.items()
    }
    yield from (operations[name] for name in TopologicalSorter(edges).static_order())


def nodes_in_loops(operations: Mapping[str, tf.Operation]) -> set[str]:
    """Finds the nodes in v1 loops, which cannot be fetched because they run once for each iteration."""
    starts = [operation for operation in operations.values() if operation.type in ("Enter", "RefEnter")]
    exits = ("Exit", "RefExit")
    return set(_walk(starts, lambda operation: (each for each in _consumers(operation) if each.type not in exits)))


def chunks(graph: tf.Graph, names: Sequence[str], rows: int) -> Iterator[list[str]]:
    """Divides tensors into groups that fit into memory, by the sizes known from the graph.

    Args:
        rows: assumed length of an unknown first dimension; other unknown dimensions count as 1.
    """
    chunk, size = list[str](), 0
    for name in names:
        needed = _size_in_bytes(graph.get_tensor_by_name(name), rows)
        if chunk and (len(chunk) == _CHUNK or size + needed > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += needed
    if chunk:
        yield chunk


def _size_in_bytes(tensor: tf.Tensor, rows: int) -> int:
    lengths = tensor.shape.as_list() if tensor.shape.rank is not None else []
    sizes = [(1 if axis else max(rows, 1)) if length is None else length for axis, length in enumerate(lengths)]
    return math.prod(sizes) * max(int(tensor.dtype.base_dtype.size), 1)


class GraphWalker:
    """Computes the tensors of a graph group by group, each from the values of earlier groups.

    A session keeps a pruned graph for every set of tensors that it ever fetched. If it is fed with earlier values, that
    graph holds only the group, instead of everything that leads to it.

    Args:
        names: the tensors in topological order.
        feeds: the inputs, by tensor.
    """

    def __init__(self, session: tf.compat.v1.Session, names: Sequence[str], feeds: Mapping[str, Any]) -> None:
        self._session, self._feeds = session, dict(feeds)
        self._positions = {name: number for number, name in enumerate(names)}
        self._cached: dict[str, Array] = {}
        self._descendants = set(_walk((session.graph.get_tensor_by_name(name).op for name in feeds), _consumers))
        self._last_uses = {name: self._last_use(name) for name in names}

    def _last_use(self, name: str) -> int:
        """Returns the position of the last tensor that reads this one directly."""
        consumers = self._session.graph.get_tensor_by_name(name).consumers()
        positions = [self._positions.get(tensor.name) for operation in consumers for tensor in operation.outputs]
        # A consumer that is not among the tensors, as in a loop, may lead to any later one.
        return max((len(self._positions) if position is None else position for position in positions), default=-1)

    def answers(self, chunk: Sequence[str]) -> dict[str, Array | str]:
        """Computes the next tensors; a value is TensorFlow's error message if it failed."""
        found = self._run(chunk)
        end = self._positions[chunk[-1]]
        for name, value in found.items():
            tensor = self._session.graph.get_tensor_by_name(name)
            is_cacheable = tensor.op.name in self._descendants and self._session.graph.is_feedable(tensor)
            if not isinstance(value, str) and is_cacheable:  # what is independent of the inputs is computed again
                self._cached[name] = value
        self._cached = {name: value for name, value in self._cached.items() if self._last_uses[name] > end}
        return found

    def _run(self, names: Sequence[str]) -> dict[str, Array | str]:
        try:
            values = self._session.run(list(names), {**self._cached, **self._feeds})
            return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
        except (tf.errors.OpError, ValueError, TypeError) as exc:
            if len(names) == 1:
                return {names[0]: first_line(exc)}
            half = len(names) // 2
            return {**self._run(names[:half]), **self._run(names[half:])}
