"""Diagnoses why a validation failed: one kind of cause, with the node, variable or step that shows it.

A function for each kind examines the evidence and returns a cause or None; the first cause counts. So certain causes
close to the root come first, and those that remain when nothing else explains the failure come last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import PipelineError

from ..checks.material import Material
from ..results.recorder import ResultsRecorder
from . import crashes, goldens, nodes, outputs, runtimes, weights
from .evidence import Cause, Evidence
from .exclusion import explain_unknown

__all__ = ["KINDS", "TABLE", "Cause", "Evidence", "explain"]

# Each function with the kinds of cause that it may return.
DIAGNOSES: tuple[tuple[tuple[str, ...], Callable[[Evidence], Cause | None]], ...] = (
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
    (("batch_size",), nodes.batch_size),
    (("nan",), outputs.nan),
    (("wrapped_integers",), outputs.wrapped_integers),
    (("node_differs",), nodes.node_differs),
    (("decision_at_the_edge",), outputs.decision_at_the_edge),
    (("kernel_rounding",), nodes.kernel_rounding),
)
_OF_MESSAGES = 4  # the first ones need no answers
KINDS = tuple(dict.fromkeys([*(kind for kinds, _ in DIAGNOSES for kind in kinds), "other_runtime", "unknown"]))


def explain(
    recorder: ResultsRecorder, checkpoint: Path, candidates: Mapping[str, Path], material: Material, threads: int
) -> dict[str, Cause]:
    """Finds the causes of failures, by format.

    Args:
        checkpoint: the artifact of the checkpoint; it gets a cause too if it fails its own recorded outputs.
        candidates: the artifact's folder by format.
        material: the material of the checks.
    """
    causes: dict[str, Cause] = {}
    for format, artifact in {"checkpoint": checkpoint, **candidates}.items():
        evidence = Evidence(format, artifact, recorder, checkpoint, material, threads)
        original = causes.get("checkpoint")
        if original is not None and {one.check for one in evidence.failed} == {"golden"}:
            causes[format] = Cause(original.kind, f"it gives what its checkpoint gives: {original.sentence}")
        elif evidence.failed:
            causes[format] = _find_cause(evidence)
        elif evidence.failed_elsewhere:
            causes[format] = runtimes.other_runtime(evidence)
    return causes


def _find_cause(evidence: Evidence) -> Cause:
    failed: list[str] = []
    not_run = crashes.not_run(evidence)
    for _, diagnose in DIAGNOSES[:_OF_MESSAGES] if not_run else DIAGNOSES:
        try:
            cause = diagnose(evidence)
        except PipelineError as exc:
            failed.append(f"{diagnose.__name__.replace('_', ' ')} could not be looked for: {exc}")
            continue
        if cause is not None:
            return cause
    return Cause("unknown", not_run or explain_unknown(evidence, failed))
