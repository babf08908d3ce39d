"""Finds the first node at which a frozen graph differs from its checkpoint.

Freezing keeps the names of nodes, so the inner tensors of both graphs can be compared one by one, in the order in which
they are computed. TensorFlow's optimizer is off on both sides: what differs then is the graph or its weights, and not
the order in which a kernel adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from . import compare
from .compare import Tolerance
from .formats.checkpoint import read_pins, restore
from .formats.frozen import import_frozen
from .formats.session import session_config
from .signature import Signature

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]

_CHUNK = 32  # tensors that are held at the same time
_VARIABLES = ("VarHandleOp", "Variable", "VariableV2", "AutoReloadVariable")
_PASSES = ("Identity", "ReadVariableOp", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch")
_NEVER_FETCHED = frozenset(
    {"Switch", "RefSwitch", "Merge", "RefMerge", "NoOp", "Placeholder", "Assert", "ControlTrigger"}
)


@dataclass(frozen=True)
class Divergence:
    """The first tensor that differs.

    Args:
        tensor: its name in both graphs.
        op: of the checkpoint's node; candidate_op: of the candidate's.
        reference, candidate: the two values at the element that differs most, as text; or what each side said.
        element: that element's index.
        inputs: the names of the candidate's inputs of the node.
        variables: those that the node reads directly.
        compared: how many tensors were compared before it, all within their bounds.
    """

    tensor: str
    op: str
    candidate_op: str
    reference: str
    candidate: str
    element: tuple[int, ...]
    inputs: tuple[str, ...]
    variables: tuple[str, ...]
    compared: int

    @property
    def cause(self) -> str:
        """What it amounts to, in words."""
        if self.variables and self.op in (*_PASSES, *_VARIABLES):
            return f"the weights differ: variable {self.variables[0]}"
        if self.op != self.candidate_op:
            return f"a {self.candidate_op} stands where the checkpoint has a {self.op}"
        if self.op.startswith("FusedBatchNorm"):
            return "a batch norm is computed otherwise: in training mode on one side"
        return "this node computes otherwise"

    def sentence(self) -> str:
        """The whole finding."""
        reads = f", which reads {', '.join(self.variables)}" if self.variables else ""
        place = f" at element {';'.join(map(str, self.element))}" if self.element else ""
        return (
            f"the first tensor that differs is {self.tensor} ({self.op}{reads}){place}: {self.candidate} instead of "
            f"{self.reference}; {self.compared} tensors before it agree: {self.cause}"
        )


def find_divergence(
    checkpoint: Path,
    pb: Path,
    signature: Signature,
    batch: Mapping[str, Array],
    tolerances: Mapping[str, tuple[float, float]],
    threads: int,
) -> Divergence | None:
    """Compares the inner tensors of a checkpoint's graph and of a frozen one.

    Args:
        checkpoint: the artifact with `model.ckpt.*` and `signature.json`.
        pb: the frozen graph.
        batch: by input name an array `[rows, ...]`.
        tolerances: relative and absolute bound by dtype; (0, 0) where a dtype is not there.

    Returns:
        The first difference, None where all tensors agree.

    Raises:
        CheckpointError, RunnerError: one of the graphs cannot be opened.
    """
    reference, candidate = (
        v1.Session(graph=tf.Graph(), config=session_config(threads, is_plain=True)) for _ in range(2)
    )
    with reference.graph.as_default():
        restore(reference, checkpoint / "model.ckpt")
    import_frozen(candidate, pb)
    fed = {spec.tensor_name: batch[spec.name] for spec in signature.inputs}
    always = read_pins(reference.graph, checkpoint)
    compared = 0
    tensors = list(_comparable(reference.graph, candidate.graph, [spec.tensor_name for spec in signature.outputs]))
    for start in range(0, len(tensors), _CHUNK):
        names = tensors[start : start + _CHUNK]
        ours, theirs = _answers(reference, names, {**always, **fed}), _answers(candidate, names, fed)
        for name in names:
            found = _difference(reference.graph, candidate.graph, name, ours[name], theirs[name], tolerances)
            if found is not None:
                return Divergence(**found, compared=compared)
            compared += 1
    return None


def _comparable(reference: tf.Graph, candidate: tf.Graph, outputs: Sequence[str]) -> Iterator[str]:
    """Names of tensors that both graphs have, as they are computed for the outputs; not those inside of loops.

    What a node gives and nobody reads is left out: a batch norm in inference leaves its reserve spaces uninitialised.
    """
    known = {operation.name: operation for operation in reference.get_operations()}
    needed = _ancestors(candidate, outputs)
    read = {*outputs, *(tensor.name for operation in needed.values() for tensor in operation.inputs)}
    inside = _inside_loops(needed)
    edges = {op.name: [tensor.op.name for tensor in op.inputs if tensor.op.name in needed] for op in needed.values()}
    for name in TopologicalSorter(_without_back_edges(edges, needed)).static_order():
        operation, other = needed[name], known.get(name)
        if other is None or name in inside or {operation.type, other.type} & _NEVER_FETCHED:
            continue
        for own, its in zip(operation.outputs, other.outputs, strict=False):
            dtypes = {own.dtype.base_dtype, its.dtype.base_dtype}
            if own.name in read and not dtypes & {tf.resource, tf.variant}:
                yield own.name


def _ancestors(graph: tf.Graph, outputs: Sequence[str]) -> dict[str, tf.Operation]:
    waiting, found = [graph.get_tensor_by_name(name).op for name in outputs], dict[str, Any]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found


def _inside_loops(operations: Mapping[str, tf.Operation]) -> set[str]:
    """Nodes of old loops, which exist once for each turn and cannot be fetched."""
    waiting = [op for op in operations.values() if op.type in ("Enter", "RefEnter")]
    inside = set[str]()
    while waiting:
        operation = waiting.pop()
        if operation.name not in inside and operation.type not in ("Exit", "RefExit"):
            inside.add(operation.name)
            waiting.extend(consumer for tensor in operation.outputs for consumer in tensor.consumers())
    return inside


def _without_back_edges(edges: Mapping[str, list[str]], operations: Mapping[str, tf.Operation]) -> dict[str, list[str]]:
    turns = ("NextIteration", "RefNextIteration")
    return {name: [given for given in inputs if operations[given].type not in turns] for name, inputs in edges.items()}


def _answers(session: tf.compat.v1.Session, names: Sequence[str], fed: Mapping[str, Any]) -> dict[str, Array | str]:
    """Each tensor's value, or what TensorFlow said instead."""
    try:
        return {name: np.asarray(value) for name, value in zip(names, session.run(list(names), fed), strict=True)}
    except (tf.errors.OpError, ValueError, TypeError) as exc:
        if len(names) == 1:
            return {names[0]: str(exc).strip().split("\n", 1)[0][:200]}
        half = len(names) // 2
        return {**_answers(session, names[:half], fed), **_answers(session, names[half:], fed)}


def _difference(
    reference: tf.Graph,
    candidate: tf.Graph,
    name: str,
    ours: Array | str,
    theirs: Array | str,
    tolerances: Mapping[str, tuple[float, float]],
) -> dict[str, Any] | None:
    texts, element = _texts(ours, theirs, tolerances)
    if texts is None:
        return None
    one, other = (graph.get_tensor_by_name(name).op for graph in (reference, candidate))
    return {
        "tensor": name,
        "op": one.type,
        "candidate_op": other.type,
        "reference": texts[0],
        "candidate": texts[1],
        "element": element,
        "inputs": tuple(tensor.name for tensor in other.inputs),
        "variables": tuple(dict.fromkeys(_variables(one))),
    }


def _texts(
    ours: Array | str, theirs: Array | str, tolerances: Mapping[str, tuple[float, float]]
) -> tuple[tuple[str, str] | None, tuple[int, ...]]:
    """The two values where they differ most; None where both agree, or where neither side could answer."""
    if isinstance(ours, str) or isinstance(theirs, str):
        both_refuse = isinstance(ours, str) and isinstance(theirs, str)
        said = [side if isinstance(side, str) else "an answer" for side in (ours, theirs)]
        return (None if both_refuse else (said[0], said[1])), ()
    problem = compare.disagreement(ours, theirs)
    if problem is not None:
        return (f"{ours.dtype.name} {list(ours.shape)}", f"{theirs.dtype.name} {list(theirs.shape)}"), ()
    if not ours.size:
        return None, ()
    flat = [side.reshape(1, -1) for side in (ours, theirs)]
    differences = compare.measure(flat[0], flat[1])
    is_within = compare.judge(differences, Tolerance(*tolerances.get(ours.dtype.name, (0.0, 0.0))))
    if is_within.all():
        return None, ()
    worst = int(compare.worst_elements(differences, is_within)[0])
    index = tuple(int(part) for part in np.unravel_index(worst % ours.size, ours.shape))
    return (str(compare.by_row(flat[0])[0, worst]), str(compare.by_row(flat[1])[0, worst])), index


def _variables(operation: tf.Operation) -> Iterator[str]:
    """The variables that a node reads directly."""
    for start in [operation, *(tensor.op for tensor in operation.inputs)]:
        current = start
        while current.type in _PASSES and current.inputs:
            current = current.inputs[0].op
        if current.type in _VARIABLES:
            yield current.name
