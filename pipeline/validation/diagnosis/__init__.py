"""Says why what failed validation failed: one kind of cause, by evidence, with the node, variable or step.

    evidence     what causes are told by, gathered when it is asked for
    processes    causes that show in what was said instead of an answer, or in which outputs there are
    recordings   ... in what was recorded when the model was trained
    outputs      ... in the values of outputs
    weights      ... in the weights
    graphs       ... in the graph's nodes

Each kind is a function that looks at the evidence and answers, or passes on; the first that answers is the cause. So
what is certain and close to the root stands first, and what is left when nothing else explains it last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import PipelineError

from ..checks.material import Material
from ..results.recorder import ResultsRecorder
from . import crashes, goldens, nodes, outputs, weights
from .evidence import Cause, Evidence

__all__ = ["KINDS", "TABLE", "Cause", "Evidence", "explain"]

# By the kinds that a function may tell.
TABLE: tuple[tuple[tuple[str, ...], Callable[[Evidence], Cause | None]], ...] = (
    (("table_not_initialized",), crashes.table_not_initialized),
    (("crash",), crashes.crash),
    (("renamed_output", "missing_output"), crashes.missing_output),
    (("shape_or_dtype",), crashes.shape_or_dtype),
    (("wrong_step", "averages_not_used"), goldens.recorded_at_another_step),
    (("onednn_on_one_side",), goldens.onednn_on_one_side),
    (("outputs_swapped",), outputs.outputs_swapped),
    (("averages_not_used",), weights.averages_not_used),
    (("wrong_step",), weights.wrong_step),
    (("half_precision",), weights.half_precision),
    (("transposed_weights",), weights.transposed_weights),
    (("other_training",), weights.other_training),
    (("weights_differ",), weights.weights_differ),
    (("dropout_on",), nodes.dropout_on),
    (("softmax_over_batch",), nodes.softmax_over_batch),
    (("batch_norm_in_training",), nodes.batch_norm_in_training),
    (("neighbours",), nodes.neighbours),
    (("nan",), outputs.nan),
    (("wrapped_integers",), outputs.wrapped_integers),
    (("node_differs",), nodes.node_differs),
    (("decision_at_the_edge",), outputs.decision_at_the_edge),
    (("kernel_rounding",), nodes.kernel_rounding),
)
KINDS = tuple(dict.fromkeys([*(kind for kinds, _ in TABLE for kind in kinds), "unknown"]))


def explain(
    validation: ResultsRecorder,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    material: Material,
    threads: int,
) -> dict[str, Cause]:
    """The causes of what failed, by format.

    Args:
        checkpoint: the artifact of the checkpoint; where it fails its own recorded outputs, it has a cause too.
        candidates: the artifact's folder by format.
        material: what the checks ran on.
    """
    causes: dict[str, Cause] = {}
    for format, artifact in {"checkpoint": checkpoint, **candidates}.items():
        evidence = Evidence(format, artifact, validation, checkpoint, material, threads)
        told = causes.get("checkpoint")
        if told is not None and {one.check for one in evidence.failed} == {"golden"}:
            causes[format] = Cause(told.kind, f"it gives what its checkpoint gives: {told.sentence}")
        elif evidence.failed:
            causes[format] = _cause(evidence)
    return causes


def _cause(evidence: Evidence) -> Cause:
    try:
        for _, tell in TABLE:
            cause = tell(evidence)
            if cause is not None:
                return cause
    except PipelineError as exc:
        return Cause("unknown", f"the cause could not be looked for: {exc}")
    return Cause("unknown", f"no cause was found: {_what_was_looked_at(evidence)}")


def _what_was_looked_at(evidence: Evidence) -> str:
    if evidence.format == "checkpoint":
        return "no other checkpoint that is known here gives the recorded outputs, and oneDNN's kernels do not either"
    if evidence.graph is None:
        return (
            "this format keeps no names of inner tensors and no weights to compare, so that only its answers can be "
            "looked at. If frozen passes, the conversion from it is where they part"
        )
    if not evidence.has_saver:
        return (
            "the checkpoint is a SavedModel, whose functions keep no names to compare inner tensors by; only weights "
            "and answers can be looked at"
        )
    return "weights, nodes and answers show nothing that is known. Feed the worst rows again with worst/reproduce.sh"
