"""Finds the first node at which a candidate's graph differs from its checkpoint's.

Freezing keeps the names of nodes, so the inner tensors of both graphs can be compared one by one, in the order of their
computation. TensorFlow's optimizer is off on both sides, so a difference comes from the graph or its weights, not from
the order of additions in a kernel. Few tensors are held at a time, so the graph can be of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.formats.checkpoint import open_session
from pipeline.formats.session import session_config
from pipeline.graph.variables import VARIABLE_OPS
from pipeline.safety import is_idle
from pipeline.signature import Array, Signature, as_fed
from pipeline.store.file_names import SIGNATURE_FILE

from ..compare.differences import by_row, disagreement, measure, worst_elements
from ..compare.tolerance import EXACT, Tolerance, within_tolerance
from .graph_walk import (
    NEVER_FETCHED,
    GraphWalker,
    ancestor_operations,
    chunks,
    nodes_in_loops,
    open_graph,
    topological_order,
)
from .node_findings import PASS_THROUGH_OPS, Agreement, Divergence, Drift


def find_divergence(
    checkpoint: Path,
    candidate: Path,
    signature: Signature,
    batch: Mapping[str, Array],
    tolerances: Mapping[str, Tolerance],
    threads: int,
) -> Divergence | Agreement:
    """Compares the inner tensors of a checkpoint's graph and of a candidate's.

    Args:
        checkpoint: the artifact with `model.ckpt.*` and `signature.json`.
        candidate: the folder with `model.pb`, or with a graph in another format that keeps the names.
        batch: by input name an array `[rows, ...]`.
        tolerances: by dtype; exact for dtypes that are missing.

    Raises:
        CheckpointError, RunnerError: one of the graphs cannot be opened.
    """
    reference, pinned = open_session(checkpoint, signature, session_config(threads, is_unoptimized=True))
    other = open_graph(candidate, threads)
    fed = as_fed(batch, Signature.read(checkpoint / SIGNATURE_FILE))
    feeds = {spec.tensor_name: fed[spec.name] for spec in signature.inputs}
    compared, first, last = 0, None, None
    names = list(_comparable(reference.graph, other.graph, [spec.tensor_name for spec in signature.outputs]))
    walkers = GraphWalker(reference, names, {**pinned, **feeds}), GraphWalker(other, names, feeds)
    for chunk in chunks(reference.graph, names, len(next(iter(batch.values()), ()))):
        expected, actual = (walker.answers(chunk) for walker in walkers)
        for name in chunk:
            found = _compare_tensor(expected.pop(name), actual.pop(name), tolerances)
            if found.texts is not None:
                return _divergence(reference.graph, other.graph, name, found, first, compared)
            if found.largest:
                last = Drift(name, reference.graph.get_tensor_by_name(name).op.type, found.largest)
                first = first or last
            compared += 1
    return Agreement(compared, first, last)


def _comparable(reference: tf.Graph, candidate: tf.Graph, outputs: Sequence[str]) -> Iterator[str]:
    """Yields the names of tensors that both graphs compute for the outputs, except inside of loops.

    Outputs that no node reads are skipped: a batch norm in inference leaves its reserve spaces uninitialised.
    """
    known = {operation.name: operation for operation in reference.get_operations()}
    needed = ancestor_operations(candidate, outputs)
    read = {*outputs, *(tensor.name for operation in needed.values() for tensor in operation.inputs)}
    inside = nodes_in_loops(needed)
    for operation in topological_order(needed):
        other = known.get(operation.name)
        if other is None or operation.name in inside or {operation.type, other.type} & NEVER_FETCHED:
            continue
        if is_idle(other.type) or is_idle(operation.type):  # unsafe ops are accepted as long as nothing runs them
            continue
        for own, its in zip(operation.outputs, other.outputs, strict=False):
            dtypes = {own.dtype.base_dtype, its.dtype.base_dtype}
            if own.name in read and not dtypes & {tf.resource, tf.variant}:
                yield own.name


@dataclass(frozen=True)
class _TensorComparison:
    """Comparison of two values of a tensor: both as text if they differ, and the largest difference."""

    texts: tuple[str, str] | None = None
    element: tuple[int, ...] = ()
    largest: float = 0.0


def _compare_tensor(
    expected: Array | str, actual: Array | str, tolerances: Mapping[str, Tolerance]
) -> _TensorComparison:
    if isinstance(expected, str) or isinstance(actual, str):
        both_refuse = isinstance(expected, str) and isinstance(actual, str)
        messages = [side if isinstance(side, str) else "an answer" for side in (expected, actual)]
        return _TensorComparison() if both_refuse else _TensorComparison((messages[0], messages[1]), (), math.inf)
    if disagreement(expected, actual) is not None:
        kinds = (f"{expected.dtype.name} {list(expected.shape)}", f"{actual.dtype.name} {list(actual.shape)}")
        return _TensorComparison(kinds, (), math.inf)
    # Nearly all tensors are equal in every bit, and measuring takes eight times their memory.
    if not expected.size or (expected.dtype != object and expected.tobytes() == actual.tobytes()):
        return _TensorComparison()
    flat = [side.reshape(1, -1) for side in (expected, actual)]
    differences = measure(flat[0], flat[1])
    is_within = within_tolerance(differences, tolerances.get(expected.dtype.name, EXACT))
    largest = float(differences.absolute.max())
    if is_within.all():
        return _TensorComparison(largest=largest)
    worst = int(worst_elements(differences, is_within)[0])
    index = tuple(int(part) for part in np.unravel_index(worst % expected.size, expected.shape))
    texts = (str(by_row(flat[0])[0, worst]), str(by_row(flat[1])[0, worst]))
    return _TensorComparison(texts, index, largest)


def _divergence(
    reference: tf.Graph, candidate: tf.Graph, name: str, found: _TensorComparison, drift: Drift | None, compared: int
) -> Divergence:
    one, other = (graph.get_tensor_by_name(name).op for graph in (reference, candidate))
    assert found.texts is not None  # checked by the caller
    return Divergence(
        tensor=name,
        op=one.type,
        candidate_op=other.type,
        reference=found.texts[0],
        candidate=found.texts[1],
        element=found.element,
        inputs=tuple(tensor.name for tensor in other.inputs),
        variables=tuple(dict.fromkeys(_variables(one))),
        attributes=tuple(_attributes(one, other)),
        largest=found.largest,
        drift=drift,
        compared=compared,
    )


def _attributes(one: tf.Operation, other: tf.Operation) -> Iterator[str]:
    """Describes the attributes in which two nodes of one op differ."""
    if one.type != other.type:
        return
    mine, its = one.node_def.attr, other.node_def.attr
    for key in sorted(set(mine) & set(its)):
        if not key.startswith("_") and mine[key] != its[key]:
            texts = [" ".join(str(side[key]).split()).partition(": ")[2] for side in (mine, its)]
            yield f"{key} is {texts[1]}, in the checkpoint {texts[0]}" if max(map(len, texts)) < 60 else f"other {key}"


def _variables(operation: tf.Operation) -> Iterator[str]:
    """Yields the variables that a node reads directly."""
    for start in [operation, *(tensor.op for tensor in operation.inputs)]:
        current = start
        while current.type in PASS_THROUGH_OPS and current.inputs:
            current = current.inputs[0].op
        if current.type in VARIABLE_OPS:
            yield current.name
