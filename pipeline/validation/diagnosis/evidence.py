"""Evidence for causes; each piece is gathered once, when first used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.checkpoint.source import open_artifact
from pipeline.data.npz import of_kind
from pipeline.errors import PipelineError
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import VARIABLE_OPS
from pipeline.signature import DTYPES, Array, Batch, batch_size_of, read_origin
from pipeline.store.file_names import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER, SIGNATURE_FILE
from pipeline.workers.child import Limits, run_in_subprocess

from ..checks.material import Material, row_count
from ..checks.neighbours import Conclusion
from ..compare.tolerance import EXACT, Tolerance, tolerance_for, widen
from ..compare.weights import WeightsComparison, compare_weights, read_candidate, read_differing
from ..replay.feed import RestartingRunner
from ..replay.worst_rows import failed_cases
from ..results.findings import COMPARED, Finding
from ..results.recorder import ResultsRecorder
from .node_findings import Agreement, Divergence, Instability
from .similarity import Similarity, ValueSource, other_checkpoints, similarities

_ROWS = 32
_BATCH_ROWS = 7  # rows in each of two batches that share some rows


@dataclass(frozen=True)
class Cause:
    """Cause of a failed validation.

    Args:
        kind: one of `diagnosis.KINDS`.
        sentence: the finding, its evidence and the next step.
    """

    kind: str
    sentence: str


class Evidence:
    """Evidence about one format that failed.

    Args:
        format: a candidate, or `checkpoint` if it does not reproduce its own recorded outputs.
        artifact: its folder.
    """

    def __init__(
        self, format: str, artifact: Path, recorder: ResultsRecorder, checkpoint: Path, material: Material, threads: int
    ) -> None:
        self.format, self.artifact = format, artifact
        self.recorder, self.checkpoint, self.material, self.threads = recorder, checkpoint, material, threads
        self.signature, self.limits = recorder.signature, Limits(*recorder.settings.limits)

    @cached_property
    def failed(self) -> list[Finding]:
        """Findings that failed here, in no other interpreter."""
        return [one for one in self._failed if not one.runtime]

    @property
    def failed_elsewhere(self) -> list[Finding]:
        """Findings that failed in another interpreter."""
        return [one for one in self._failed if one.runtime]

    @property
    def _failed(self) -> list[Finding]:
        return [one for one in self.recorder.findings.values() if one.format == self.format and not one.has_passed]

    def has_failed(self, *checks: str) -> bool:
        """Returns True if one of these checks failed."""
        return any(one.check in checks for one in self.failed)

    def failed_outputs(self, *checks: str) -> set[str]:
        """Returns the outputs on which one of these checks failed."""
        return {one.output for one in self.failed if one.check in checks}

    @cached_property
    def messages(self) -> str:
        """Sentences of all failed findings, as one text."""
        return "\n".join(one.sentence() for one in self.failed)

    @cached_property
    def has_saver(self) -> bool:
        """True if the checkpoint is a Saver's, whose graph keeps its names."""
        return not (self.checkpoint / SAVED_MODEL_FOLDER).is_dir()

    # Outputs of both sides

    @cached_property
    def _batches(self) -> list[Batch]:
        """Batches to examine: the first validation rows, and the batches of the worst rows."""
        size = batch_size_of(self.signature) or min(_ROWS, self.material.sizes.held)
        first = self.material.rows.read(0, size)
        cases = failed_cases(self.recorder, self.material, self.format) if self.format != "checkpoint" else ()
        return [first, *(case.batch for case in cases if case.check not in ("stable", "golden"))]

    @cached_property
    def output_pairs(self) -> list[tuple[Batch, Batch]]:
        """Outputs of checkpoint and candidate, for batches that both answer."""
        with (
            RestartingRunner("checkpoint", self.checkpoint, self.threads) as reference,
            RestartingRunner(self.format, self.artifact, self.threads, self.limits) as candidate,
        ):
            both = [(reference.run(batch), candidate.run(batch)) for batch in self._batches if row_count(batch)]
        return [
            (expected, actual)
            for expected, actual in both
            if not isinstance(expected, PipelineError) and not isinstance(actual, PipelineError)
        ]

    def flat(self, output: str, other: str | None = None) -> tuple[Array, Array] | None:
        """Flattens all values of an output, of checkpoint and candidate; None if their dtypes or shapes differ.

        Args:
            other: the candidate's output, if another one.
        """
        taken = [
            (expected[output], actual[other or output])
            for expected, actual in self.output_pairs
            if output in expected and (other or output) in actual
        ]
        if not taken or any(a.dtype != b.dtype or a.shape != b.shape for a, b in taken):
            return None
        return np.concatenate([a.ravel() for a, _ in taken]), np.concatenate([b.ravel() for _, b in taken])

    # Weights

    @cached_property
    def weights(self) -> WeightsComparison | None:
        """Comparison of the weights; None if the format's files do not hold them as constants."""
        graph = self.graph
        if graph is None or any(node.op in VARIABLE_OPS for node in graph.node):
            return None
        try:
            found = compare_weights(self.checkpoint, self.artifact)
        except PipelineError:
            return None
        return None if found.problem is not None else found

    @cached_property
    def similarities(self) -> list[Similarity]:
        """Similarities of each variable that differs."""
        if self.weights is None or not self.has_saver:
            return []
        names = {one.name for one in self.weights.variables if not one.is_equal}
        if not names:
            return []
        pairs = read_differing(self.checkpoint, self.artifact, names)
        return similarities(pairs, self.checkpoint / CHECKPOINT_PREFIX, self.other_prefixes)

    @cached_property
    def other_prefixes(self) -> list[str]:
        """Prefixes of other checkpoints of the same model."""
        return other_checkpoints(self.checkpoint)

    # Graphs

    @cached_property
    def graph(self) -> Graph | None:
        """The candidate's graph; None if its format has no TensorFlow graph."""
        try:
            return read_candidate(self.artifact).graph if self.format != "checkpoint" else None
        except PipelineError:
            return None

    @cached_property
    def reference_nodes(self) -> Mapping[str, NodeDef]:
        """Nodes of the checkpoint's graph, by name; empty if it cannot be read."""
        try:
            key = read_origin(self.checkpoint / SIGNATURE_FILE).get("signature")
            return open_artifact(self.checkpoint, key).graph.nodes
        except PipelineError:
            return {}

    def ancestry(self, outputs: Collection[str]) -> list[NodeDef]:
        """Returns the candidate's nodes that the given outputs are computed from."""
        if self.graph is None:
            return []
        starts = [node_of(spec.tensor_name) for spec in self.signature.outputs if spec.name in outputs]
        return [self.graph.nodes[name] for name in sorted(self.graph.ancestors(starts, with_control=True))]

    @cached_property
    def divergence(self) -> Divergence | Agreement | None:
        """The first inner tensor that differs, or the agreement of all; None if there is no graph to search."""
        if self.graph is None or not self.has_saver:
            return None
        if not self.has_failed(*COMPARED, "decisions"):  # all outputs are the checkpoint's
            return None
        settings, tolerance_class = self.recorder.settings, self.recorder.tolerance_classes.get(self.format, "")
        tolerances = {dtype: tolerance_for(settings, dtype, tolerance_class) for dtype in DTYPES if "float" in dtype}
        for one in self.recorder.precisions.values():  # inner tensors are as narrow as what they lead to
            tolerances = {dtype: widen(settings, each, dtype, "", one) for dtype, each in tolerances.items()}
        found: Divergence | Agreement | None = None
        for batch in [*self._batches[1:], self._batches[0]][:3]:
            if not row_count(batch):
                continue
            try:
                found = run_in_subprocess(
                    "pipeline.validation.diagnosis.divergence:find_divergence",
                    *(self.checkpoint, self.artifact, self.signature, dict(batch), tolerances, self.threads),
                    limits=self.limits,
                    is_sandboxed=True,
                )
            except PipelineError:
                return None
            if isinstance(found, Divergence):
                return found
        return found

    @cached_property
    def instability(self) -> Instability | None:
        """The candidate's first inner tensor that changes when the same row is run again; None if none does."""
        rows, size = self.material.rows, batch_size_of(self.signature) or _BATCH_ROWS
        count = len(rows)
        if self.graph is None or count < size or not size:
            return None
        shared = (size + 1) // 2
        first = np.arange(size)
        second = np.concatenate([first[:shared], count - 1 - np.arange(size - shared)])
        batches = [rows.take(which) for which in (first, second)]
        try:
            found: Instability | None = run_in_subprocess(
                "pipeline.validation.diagnosis.instability:find_instability",
                *(self.artifact, self.signature, *batches, shared, self.threads, self.has_failed("stable")),
                limits=self.limits,
                is_sandboxed=True,
            )
        except PipelineError:
            return None
        return found

    @property
    def conclusion(self) -> Conclusion | None:
        """What the candidate's answers depend on besides their row, as the check `stable` found."""
        return self.material.conclusions.get(self.format)

    # Recordings

    @cached_property
    def goldens(self) -> tuple[Batch, Batch]:
        """Inputs and outputs recorded when the model was trained."""
        return of_kind("input", self.material.goldens), of_kind("output", self.material.goldens)

    def golden_tolerances(self) -> dict[str, Tolerance]:
        """Returns the tolerances of the check `golden`, by output."""
        findings = (one for one in self.recorder.findings.values() if one.check == "golden")
        return {one.output: one.tolerance for one in findings if one.format == self.format}

    @cached_property
    def recorded_source(self) -> ValueSource | None:
        """Source of the weights that reproduce the recorded outputs in the checkpoint's graph."""
        inputs, recorded = self.goldens
        if not self.has_saver or not row_count(inputs):
            return None
        tolerances = {spec.name: self.golden_tolerances().get(spec.name, EXACT) for spec in self.signature.outputs}
        try:
            found: ValueSource | None = run_in_subprocess(
                "pipeline.validation.diagnosis.recorded_weights:find_weights",
                *(self.checkpoint, self.other_prefixes, self.signature, dict(inputs), dict(recorded)),
                *(tolerances, self.threads),
                is_sandboxed=True,
            )
        except PipelineError:
            return None
        return found
