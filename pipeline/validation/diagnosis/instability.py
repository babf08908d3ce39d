"""Finds the node that makes a row's answer depend on chance, or on the rows beside it.

The candidate's graph is asked for its inner tensors twice with the same rows, and once with some of the rows in other
company. The first tensor, in the order of computation, that is not the same for the same row is where it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.signature import Array, Batch, Signature

from .graph_walk import NEVER_FETCHED, Walker, ancestors_of, chunks, inside_loops, ordered
from .node_findings import Instability, Node
from .open_graph import open_graph

_CLOSE = 1e-4  # what a kernel that adds in another order for other rows may cost; what depends on them differs by more


def find_instability(
    candidate: Path, signature: Signature, rows: Batch, others: Batch, shared: int, threads: int
) -> Instability | None:
    """Looks for the first inner tensor of a candidate that is not the same for the same row.

    Args:
        candidate: the folder with `model.pb`, `graph.pb` or `saved_model.pb`.
        rows: by input name an array `[rows, ...]`.
        others: as many rows, of which the first `shared` are the same and the rest are not.

    Raises:
        RunnerError: the graph cannot be opened.
    """
    session = open_graph(candidate, threads)
    fed, moved = ({spec.tensor_name: side[spec.name] for spec in signature.inputs} for side in (rows, others))
    count = len(next(iter(rows.values()), ()))
    names, by_row = list(_fetchable(session.graph, [spec.tensor_name for spec in signature.outputs])), set[str]()
    walks = [Walker(session, names, feed) for feed in (fed, fed, moved)]
    for chunk in chunks(session.graph, names, count):
        first, again, elsewhere = (walk.answers(chunk) for walk in walks)
        for name in chunk:
            one, two, other = first.pop(name), again.pop(name), elsewhere.pop(name)
            if isinstance(one, str) or isinstance(two, str):
                continue
            tensor = session.graph.get_tensor_by_name(name)
            if not _is_same(one, two):
                return Instability(name, True, (_node(tensor.op),))
            if not _is_by_row(tensor, one, count):
                continue
            by_row.add(name)
            if not isinstance(other, str) and not _is_same(one[:shared], other[:shared]):
                return Instability(name, False, tuple(_mixing(tensor.op, by_row)))
    return None


def _fetchable(graph: tf.Graph, outputs: Sequence[str]) -> Iterator[str]:
    needed = ancestors_of(graph, outputs)
    inside = inside_loops(needed)
    read = {*outputs, *(tensor.name for operation in needed.values() for tensor in operation.inputs)}
    for operation in ordered(needed):
        if operation.name not in inside and operation.type not in (*NEVER_FETCHED, "Const", "ImmutableConst"):
            for tensor in operation.outputs:
                if tensor.name in read and tensor.dtype.base_dtype not in (tf.resource, tf.variant):
                    yield tensor.name


def _is_by_row(tensor: tf.Tensor, value: Array, count: int) -> bool:
    """Whether a tensor has the batch as its first dimension."""
    known = tensor.shape[0] if tensor.shape.rank else None
    return bool(value.ndim) and len(value) == count and known in (None, count)


def _is_same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    with np.errstate(all="ignore"):
        return bool(np.allclose(one.astype(np.float64), other.astype(np.float64), _CLOSE, _CLOSE, equal_nan=True))


def _mixing(operation: tf.Operation, by_row: set[str]) -> Iterator[Node]:
    waiting, seen = [operation], set[str]()
    while waiting:
        current = waiting.pop(0)
        if current.name not in seen and current.type not in ("Const", "Placeholder"):
            seen.add(current.name)
            yield _node(current)
            waiting += [tensor.op for tensor in current.inputs if tensor.name not in by_row]


def _node(operation: tf.Operation) -> Node:
    return Node(operation.name, operation.type, tuple(tensor.op.type for tensor in operation.inputs))
