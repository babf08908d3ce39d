"""Finds the first node at which a candidate's graph differs from its checkpoint.

Freezing keeps the names of nodes, so the inner tensors of both graphs can be compared one by one, in the order in which
they are computed. TensorFlow's optimizer is off on both sides: what differs then is the graph or its weights, and not
the order in which a kernel adds. A few tensors are held at a time, so that a graph of any size can be gone through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.formats.checkpoint import read_pins, restore
from pipeline.formats.session import session_config
from pipeline.safety import is_idle
from pipeline.signature import Array, Signature
from pipeline.store.files import CHECKPOINT_PREFIX

from ..compare import differences as compare
from ..compare.differences import Tolerance
from .graph_walk import NEVER_FETCHED, Walker, ancestors_of, chunks, inside_loops, ordered
from .node_findings import PASSES, VARIABLES, Agreement, Divergence, Drift
from .open_graph import open_graph

v1 = tf.compat.v1


def find_divergence(
    checkpoint: Path,
    candidate: Path,
    signature: Signature,
    batch: Mapping[str, Array],
    tolerances: Mapping[str, tuple[float, float]],
    threads: int,
) -> Divergence | Agreement:
    """Compares the inner tensors of a checkpoint's graph and of a candidate's.

    Args:
        checkpoint: the artifact with `model.ckpt.*` and `signature.json`.
        candidate: the folder with `model.pb`, or with a graph of the same names in another format.
        batch: by input name an array `[rows, ...]`.
        tolerances: relative and absolute bound by dtype; (0, 0) where a dtype is not there.

    Raises:
        CheckpointError, RunnerError: one of the graphs cannot be opened.
    """
    reference = v1.Session(graph=tf.Graph(), config=session_config(threads, is_plain=True))
    with reference.graph.as_default():
        restore(reference, checkpoint / CHECKPOINT_PREFIX)
    other = open_graph(candidate, threads)
    fed = {spec.tensor_name: batch[spec.name] for spec in signature.inputs}
    always = read_pins(reference.graph, checkpoint)
    compared, first, last = 0, None, None
    names = list(_comparable(reference.graph, other.graph, [spec.tensor_name for spec in signature.outputs]))
    walks = Walker(reference, names, {**always, **fed}), Walker(other, names, fed)
    for chunk in chunks(reference.graph, names, len(next(iter(batch.values()), ()))):
        ours, theirs = (walk.answers(chunk) for walk in walks)
        for name in chunk:
            found = _measured(ours.pop(name), theirs.pop(name), tolerances)
            if found.texts is not None:
                return _divergence(reference.graph, other.graph, name, found, first, compared)
            if found.largest:
                last = Drift(name, reference.graph.get_tensor_by_name(name).op.type, found.largest)
                first = first or last
            compared += 1
    return Agreement(compared, first, last)


def _comparable(reference: tf.Graph, candidate: tf.Graph, outputs: Sequence[str]) -> Iterator[str]:
    """Names of tensors that both graphs have, as they are computed for the outputs; not those inside of loops.

    What a node gives and nobody reads is left out: a batch norm in inference leaves its reserve spaces uninitialised.
    """
    known = {operation.name: operation for operation in reference.get_operations()}
    needed = ancestors_of(candidate, outputs)
    read = {*outputs, *(tensor.name for operation in needed.values() for tensor in operation.inputs)}
    inside = inside_loops(needed)
    for operation in ordered(needed):
        other = known.get(operation.name)
        if other is None or operation.name in inside or {operation.type, other.type} & NEVER_FETCHED:
            continue
        if is_idle(other.type) or is_idle(operation.type):  # which was let pass because nothing runs it
            continue
        for own, its in zip(operation.outputs, other.outputs, strict=False):
            dtypes = {own.dtype.base_dtype, its.dtype.base_dtype}
            if own.name in read and not dtypes & {tf.resource, tf.variant}:
                yield own.name


@dataclass(frozen=True)
class _Measured:
    """How two values of a tensor compare: both as text where they are apart, and the largest difference."""

    texts: tuple[str, str] | None = None
    element: tuple[int, ...] = ()
    largest: float = 0.0


def _measured(ours: Array | str, theirs: Array | str, tolerances: Mapping[str, tuple[float, float]]) -> _Measured:
    if isinstance(ours, str) or isinstance(theirs, str):
        both_refuse = isinstance(ours, str) and isinstance(theirs, str)
        said = [side if isinstance(side, str) else "an answer" for side in (ours, theirs)]
        return _Measured() if both_refuse else _Measured((said[0], said[1]), (), math.inf)
    if compare.disagreement(ours, theirs) is not None:
        kinds = (f"{ours.dtype.name} {list(ours.shape)}", f"{theirs.dtype.name} {list(theirs.shape)}")
        return _Measured(kinds, (), math.inf)
    # Nearly all tensors are the same to the bit, and measuring takes eight times their memory.
    if not ours.size or (ours.dtype != object and ours.tobytes() == theirs.tobytes()):
        return _Measured()
    flat = [side.reshape(1, -1) for side in (ours, theirs)]
    differences = compare.measure(flat[0], flat[1])
    is_within = compare.judge(differences, Tolerance(*tolerances.get(ours.dtype.name, (0.0, 0.0))))
    largest = float(differences.absolute.max())
    if is_within.all():
        return _Measured(largest=largest)
    worst = int(compare.worst_elements(differences, is_within)[0])
    index = tuple(int(part) for part in np.unravel_index(worst % ours.size, ours.shape))
    texts = (str(compare.by_row(flat[0])[0, worst]), str(compare.by_row(flat[1])[0, worst]))
    return _Measured(texts, index, largest)


def _divergence(
    reference: tf.Graph, candidate: tf.Graph, name: str, found: _Measured, drift: Drift | None, compared: int
) -> Divergence:
    one, other = (graph.get_tensor_by_name(name).op for graph in (reference, candidate))
    assert found.texts is not None  # it is one
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
    """The attributes of two nodes of one op that differ, as text."""
    if one.type != other.type:
        return
    mine, its = one.node_def.attr, other.node_def.attr
    for key in sorted(set(mine) & set(its)):
        if not key.startswith("_") and mine[key] != its[key]:
            texts = [" ".join(str(side[key]).split()).partition(": ")[2] for side in (mine, its)]
            yield f"{key} is {texts[1]}, in the checkpoint {texts[0]}" if max(map(len, texts)) < 60 else f"other {key}"


def _variables(operation: tf.Operation) -> Iterator[str]:
    """The variables that a node reads directly."""
    for start in [operation, *(tensor.op for tensor in operation.inputs)]:
        current = start
        while current.type in PASSES and current.inputs:
            current = current.inputs[0].op
        if current.type in VARIABLES:
            yield current.name
