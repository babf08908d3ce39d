"""Finds the node that makes a row's output depend on chance, or on the other rows of the batch.

The candidate's inner tensors are computed twice with the same rows, and once with some of these rows in another batch.
The first tensor, in topological order, that is not the same for the same row shows the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.signature import Array, Batch, Signature, as_fed
from pipeline.store.file_names import SIGNATURE_FILE

from .graph_walk import (
    NEVER_FETCHED,
    GraphWalker,
    ancestor_operations,
    chunks,
    nodes_in_loops,
    open_graph,
    topological_order,
)
from .node_findings import Instability, NodeInfo

_CLOSE = 1e-4  # above the error of adding in another order, and below the effect of a dependence on other rows


def find_instability(
    candidate: Path,
    signature: Signature,
    rows: Batch,
    other_rows: Batch,
    shared: int,
    threads: int,
    is_exact: bool = False,
) -> Instability | None:
    """Finds the first inner tensor of a candidate that is not the same for the same row.

    Args:
        candidate: the folder with `model.pb`, `graph.pb` or `saved_model.pb`.
        rows: by input name an array `[rows, ...]`.
        other_rows: as many rows, of which only the first `shared` are the same.
        is_exact: if no tensor differs by much, take the first that differs in a bit: both batches have the same shapes,
            so kernels add in the same order, and a difference comes from the other rows, however small it is.

    Raises:
        RunnerError: the graph cannot be opened.
    """
    session = open_graph(candidate, threads)
    feeds, other_feeds = (
        {spec.tensor_name: side[spec.name] for spec in signature.inputs}
        for side in (as_fed(each, Signature.read(candidate / SIGNATURE_FILE)) for each in (rows, other_rows))
    )
    count = len(next(iter(rows.values()), ()))
    names, by_row = list(_fetchable(session.graph, [spec.tensor_name for spec in signature.outputs])), set[str]()
    smallest: Instability | None = None
    walkers = [GraphWalker(session, names, feed) for feed in (feeds, feeds, other_feeds)]
    for chunk in chunks(session.graph, names, count):
        first, again, elsewhere = (walker.answers(chunk) for walker in walkers)
        for name in chunk:
            one, two, other = first.pop(name), again.pop(name), elsewhere.pop(name)
            if isinstance(one, str) or isinstance(two, str):
                continue
            tensor = session.graph.get_tensor_by_name(name)
            if not _is_same(one, two):
                return Instability(name, True, (_node(tensor.op),))
            if smallest is None and not _is_identical(one, two):
                smallest = Instability(name, True, (_node(tensor.op),))
            known = tensor.shape[0] if tensor.shape.rank else None
            if not one.ndim or len(one) != count or known not in (None, count):  # its first dimension is not the rows
                continue
            by_row.add(name)
            if isinstance(other, str) or _is_identical(one[:shared], other[:shared]):
                continue
            found = Instability(name, False, tuple(_find_mixing_nodes(tensor.op, by_row)))
            if not _is_same(one[:shared], other[:shared]):
                return found
            smallest = smallest or found
    return smallest if is_exact else None


def _fetchable(graph: tf.Graph, outputs: Sequence[str]) -> Iterator[str]:
    needed = ancestor_operations(graph, outputs)
    inside = nodes_in_loops(needed)
    read = {*outputs, *(tensor.name for operation in needed.values() for tensor in operation.inputs)}
    for operation in topological_order(needed):
        if operation.name not in inside and operation.type not in (*NEVER_FETCHED, "Const", "ImmutableConst"):
            for tensor in operation.outputs:
                if tensor.name in read and tensor.dtype.base_dtype not in (tf.resource, tf.variant):
                    yield tensor.name


def _is_same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    with np.errstate(all="ignore"):
        return bool(np.allclose(one.astype(np.float64), other.astype(np.float64), _CLOSE, _CLOSE, equal_nan=True))


def _is_identical(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other)) if one.dtype == object else one.tobytes() == other.tobytes()


def _find_mixing_nodes(operation: tf.Operation, by_row: set[str]) -> Iterator[NodeInfo]:
    waiting, seen = [operation], set[str]()
    while waiting:
        current = waiting.pop(0)
        if current.name not in seen and current.type not in ("Const", "Placeholder"):
            seen.add(current.name)
            yield _node(current)
            waiting += [tensor.op for tensor in current.inputs if tensor.name not in by_row]


def _node(operation: tf.Operation) -> NodeInfo:
    return NodeInfo(operation.name, operation.type, tuple(tensor.op.type for tensor in operation.inputs))
