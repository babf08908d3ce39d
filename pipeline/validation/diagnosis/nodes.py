"""Causes found in the candidate's graph: nodes in training mode, and the first node that differs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..results.findings import COMPARED
from .evidence import Cause, Evidence
from .node_findings import Agreement, Divergence, Instability, NodeInfo

_DISTRIBUTIONS = ("Uniform", "StandardNormal", "TruncatedNormal")
RANDOM_OPS = (
    *("RandomUniform", "RandomStandardNormal", "TruncatedNormal", "Multinomial", "RandomGamma", "RandomPoisson"),
    *("RandomShuffle", "ParameterizedTruncatedNormal", "Stateless", *(f"Stateful{kind}" for kind in _DISTRIBUTIONS)),
)
_SOFTMAX = ("Softmax", "LogSoftmax")
_STATISTICS = ("Mean", "SquaredDifference")
_INFERENCE = (
    "Build the graph for inference, or pin the placeholder that switches it off, if it has one (such as "
    "--pin is_training=false, --pin keep_prob=1)"
)
_LARGE = 0.1  # relative; no rounding of weights to 8 bits moves answers that far
_SMALL = 1e-3  # relative; above the rounding error of any kernel
_SHAPE_BY_BATCH = re.compile(r"stable of (\S+): (?:the shape of a row's answer differs|shape )")


def _find_instability(evidence: Evidence) -> Instability | None:
    """Returns the evidence of an unstable node, if a failed check suggests one."""
    is_suspect = evidence.has_failed("stable", "golden", *COMPARED)
    return evidence.instability if is_suspect else None


def dropout_on(evidence: Evidence) -> Cause | None:
    """A random op changes an output."""
    found = _find_instability(evidence)
    shown = evidence.conclusion
    if found is None and shown is not None and shown.kind == "chance":
        return Cause("dropout_on", f"an answer depends on chance: {shown.sentence}. {_INFERENCE}")
    if found is None or not found.is_random:
        return None
    name, op = found.mixing_nodes[0].name, found.mixing_nodes[0].op
    is_random = op.startswith(RANDOM_OPS)
    what = "dropout is on" if is_random else "an answer depends on chance"
    return Cause(
        "dropout_on",
        f"{what}: the node {name} ({op}) gives other values when the same rows are asked again. {_INFERENCE}",
    )


def batch_norm_in_training(evidence: Evidence) -> Cause | None:
    """A batch norm uses the batch's own statistics."""
    found = _find_instability(evidence)
    nodes = found.mixing_nodes if found is not None and not found.is_random else ()
    # A softmax over the batch is a cause of its own; a batch norm contains none.
    if any(_is_softmax(node) for node in nodes):
        return None
    for node in nodes:
        if node.op.startswith("FusedBatchNorm") or node.op in _STATISTICS:
            return _batch_norm(node.name, node.op, _training_norms(evidence))
    for other in _training_norms(evidence)[:1]:
        return _batch_norm(other.name, other.op, _training_norms(evidence))
    return None


def _training_norms(evidence: Evidence) -> list[Any]:
    above = evidence.ancestry(evidence.failed_outputs("stable", "golden", *COMPARED))
    return [node for node in above if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b]


def _batch_norm(name: str, op: str, norms: Sequence[Any]) -> Cause:
    how = "is_training is true" if op.startswith("FusedBatchNorm") else "it is taken over the batch"
    averages = ", or take the averages that the checkpoint keeps, if it does (--inference yes)" if norms else ""
    return Cause(
        "batch_norm_in_training",
        f"batch norm is in training mode: the node {name} ({op}) normalises by the batch's own statistics ({how}), so "
        "that a row's answer depends on the rows beside it. Build the graph for inference, or pin the "
        f"placeholder that switches it, if it has one (such as --pin is_training=false){averages}",
    )


def softmax_over_batch(evidence: Evidence) -> Cause | None:
    """A softmax is taken over the rows."""
    found = _find_instability(evidence)
    for node in found.mixing_nodes if found is not None and not found.is_random else ():
        if _is_softmax(node):
            return Cause(
                "softmax_over_batch",
                f"a softmax is taken over the rows of the batch: the node {node.name} ({node.op}), so that a row's "
                "answer depends on the rows beside it. Give it the axis of the classes (axis=-1)",
            )
    return None


def _is_softmax(node: NodeInfo) -> bool:
    return node.op in _SOFTMAX or (node.op == "Sum" and "Exp" in node.input_ops)


def neighbours(evidence: Evidence) -> Cause | None:
    """An output depends on other rows of the batch, by a node of no known kind."""
    found = _find_instability(evidence) if evidence.has_failed("stable") else None
    shown = evidence.conclusion
    if found is None and shown is not None and shown.kind == "neighbours":
        return Cause("neighbours", f"a row's answer depends on the rows beside it: {shown.sentence}. {_INFERENCE}")
    if found is None:
        return None
    node = found.mixing_nodes[0]
    return Cause(
        "neighbours",
        f"a row's answer depends on the rows beside it: the first tensor that does is {found.tensor}, of the node "
        f"{node.name} ({node.op}). Let it work along the other axes",
    )


def batch_size(evidence: Evidence) -> Cause | None:
    """An output depends on the number of rows in the batch."""
    shape = _SHAPE_BY_BATCH.search(evidence.messages)
    if shape is not None:
        return Cause(
            "batch_size",
            f"the shape of a row's answer depends on its batch ({shape[1]}): what one row gets cannot be told. "
            "Freeze an output whose shape is that of its row, such as the tensor before this one (--outputs)",
        )
    shown = evidence.conclusion
    if shown is None or shown.kind != "size":
        return None
    return Cause(
        "batch_size",
        f"an answer depends on the number of rows in its batch: {shown.sentence}. Look for a node that reads the first "
        "dimension (Shape, Size) and computes with it, or for a mean over a tensor that includes it",
    )


def node_differs(evidence: Evidence) -> Cause | None:
    """The first node that differs is of another op, or has other attributes."""
    found = evidence.divergence
    if not isinstance(found, Divergence) or _is_rounding(evidence, found):
        return None
    return Cause(
        "node_differs", f"{found.sentence()}. Compare what wrote the two graphs: the same code, the same version?"
    )


def kernel_rounding(evidence: Evidence) -> Cause | None:
    """Weights and nodes are equal, but kernels round differently."""
    found = evidence.divergence if evidence.graph is not None else _rounding_by_size(evidence)
    if isinstance(found, Cause):
        return found
    next_step = (
        "If it is acceptable, raise the bounds in [validation]; the model amplifies last bits where it takes the "
        "difference of large numbers"
    )
    if isinstance(found, Agreement):
        if found.first is None or found.last is None:
            inside = f"all {found.compared} inner tensors are the same to the bit"
        else:
            inside = (
                f"all {found.compared} inner tensors agree; the first that is not the same to the bit is "
                f"{found.first.tensor} ({found.first.op}), by {found.first.largest:g}, the last {found.last.tensor} "
                f"({found.last.op}), by {found.last.largest:g}"
            )
        return Cause(
            "kernel_rounding",
            f"kernels round, or overflow, in another order: with TensorFlow's optimizer off {inside}, so graph and "
            f"weights are the same. {next_step}",
        )
    if isinstance(found, Divergence) and _is_rounding(evidence, found) and found.drift is not None:
        return Cause(
            "kernel_rounding",
            f"all weights are equal and a small difference grows along the graph: from {found.drift.largest:g} at "
            f"{found.drift.tensor} ({found.drift.op}) to {found.largest:g} at {found.tensor} ({found.op}), which is "
            f"beyond its bound. {next_step}",
        )
    return None


def _rounding_by_size(evidence: Evidence) -> Cause | None:
    """For a format without inner names: no value differs by more than rounding explains."""
    largest, bound = 0.0, _SMALL
    for finding in evidence.failed:
        sides = evidence.flat(finding.output) if finding.check in COMPARED else None
        if sides is None or sides[0].dtype.kind not in "fV":
            return None
        wide = [side.astype(np.float64) for side in sides]
        if not all(np.isfinite(side).all() for side in wide):
            return None
        distance, size = float(np.abs(wide[0] - wide[1]).max()), float(np.abs(wide[0]).max())
        largest, bound = max(largest, distance / max(size, 1e-30)), max(bound, min(10 * finding.tolerance.rtol, _LARGE))
    if not 0 < largest <= bound:
        return None
    return Cause(
        "kernel_rounding",
        f"no value is off by more than {largest:.2g} of the largest one: that is how {evidence.format} rounds its "
        "weights or its kernels, rather than another model; its inner tensors have no names to be compared by. If it "
        "is acceptable, raise the bounds in [validation]",
    )


def _is_rounding(evidence: Evidence, found: Divergence) -> bool:
    """Returns True if nodes and weights are equal, and a small earlier difference only grew."""
    weights = evidence.weights
    is_same = found.op == found.candidate_op and not found.attributes and found.drift is not None
    are_equal = weights is not None and all(one.is_equal for one in weights.variables)
    try:
        size = abs(float(found.reference))
    except ValueError:
        return False
    return is_same and are_equal and found.largest <= _SMALL * max(size, 1.0)
