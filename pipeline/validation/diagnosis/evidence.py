"""What causes are told by: each piece is gathered when it is asked for, and once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.checkpoint.artifact import open_artifact, read_origin
from pipeline.data.npz import of_kind
from pipeline.errors import PipelineError
from pipeline.graph.nodes import ancestors, node_of
from pipeline.graph.protos import GraphDef, NodeDef
from pipeline.graph.variables import VARIABLE_OPS
from pipeline.signature import DTYPES, Array, Batch, batch_size_of
from pipeline.store.files import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER, SIGNATURE_FILE
from pipeline.workers.child import Limits, run_in_subprocess

from ..checks.material import Material, rows_in
from ..compare.weights import WeightsFinding, compare_weights, differing_pairs, read_candidate
from ..replay.feed import Side
from ..replay.worst_rows import failed_cases
from ..results.findings import Finding
from ..results.recorder import ResultsRecorder
from .node_findings import Agreement, Divergence, Instability
from .similarity import Place, Resemblance, other_checkpoints, resemblances

_ROWS = 32
_ALONGSIDE = 7  # rows that are looked at in two companies


@dataclass(frozen=True)
class Cause:
    """Why a format is not proven equal.

    Args:
        kind: one word of the table in `causes`.
        sentence: what was found, by which evidence, and what to do.
    """

    kind: str
    sentence: str

    def to_dict(self) -> dict[str, str]:
        """The cause as it stands in verdict.json."""
        return {"kind": self.kind, "sentence": self.sentence}


class Evidence:
    """What can be known of one format that has failed.

    Args:
        format: a candidate, or `checkpoint` where it does not give its own recorded outputs.
        artifact: its folder.
    """

    def __init__(
        self,
        format: str,
        artifact: Path,
        validation: ResultsRecorder,
        checkpoint: Path,
        material: Material,
        threads: int,
    ) -> None:
        self.format, self.artifact = format, artifact
        self.validation, self.checkpoint, self.material, self.threads = validation, checkpoint, material, threads
        self.signature, self.limits = validation.signature, Limits(*validation.settings.limits)

    @cached_property
    def failed(self) -> list[Finding]:
        """The findings that failed."""
        return [one for one in self.validation.findings.values() if one.format == self.format and not one.has_passed]

    def has_failed(self, *checks: str) -> bool:
        """Whether one of these checks failed."""
        return any(one.check in checks for one in self.failed)

    def failed_outputs(self, *checks: str) -> set[str]:
        """The outputs on which one of these checks failed."""
        return {one.output for one in self.failed if one.check in checks}

    @cached_property
    def is_rows_apart(self) -> bool:
        """Whether rows differ from the checkpoint's, which a graph can be searched for."""
        return self.has_failed("equal", "edge", "generated", "decisions")

    @cached_property
    def said(self) -> str:
        """All that the findings say, as one text."""
        return "\n".join(one.sentence() for one in self.failed)

    @cached_property
    def has_saver(self) -> bool:
        """Whether the checkpoint is a Saver's, with a graph that keeps its names."""
        return not (self.checkpoint / SAVED_MODEL_FOLDER).is_dir()

    # The two sides' answers

    @cached_property
    def _samples(self) -> list[Batch]:
        """Rows to look at: the first of the validation rows, and the batches of the worst rows."""
        size = batch_size_of(self.signature) or _ROWS
        first = self.material.rows.read(0, size)
        cases = failed_cases(self.validation, self.material, self.format) if self.format != "checkpoint" else ()
        return [first, *(case.batch for case in cases if case.check not in ("stable", "golden"))]

    @cached_property
    def pairs(self) -> list[tuple[Batch, Batch]]:
        """The outputs of the checkpoint and of the candidate, for batches that both answer."""
        with (
            Side("checkpoint", self.checkpoint, self.threads) as reference,
            Side(self.format, self.artifact, self.threads, self.limits) as candidate,
        ):
            both = [(reference.run(batch), candidate.run(batch)) for batch in self._samples if rows_in(batch)]
        return [
            (ours, theirs)
            for ours, theirs in both
            if not isinstance(ours, PipelineError) and not isinstance(theirs, PipelineError)
        ]

    def flat(self, output: str, other: str | None = None) -> tuple[Array, Array] | None:
        """All values of an output in a row, the checkpoint's and the candidate's; None where they cannot be paired.

        Args:
            other: the candidate's output to take instead.
        """
        taken = [
            (ours[output], theirs[other or output])
            for ours, theirs in self.pairs
            if output in ours and (other or output) in theirs
        ]
        if not taken or any(a.dtype != b.dtype or a.shape != b.shape for a, b in taken):
            return None
        return np.concatenate([a.ravel() for a, _ in taken]), np.concatenate([b.ravel() for _, b in taken])

    # Weights

    @cached_property
    def weights(self) -> WeightsFinding | None:
        """How the weights compare; None where the format's files do not tell them."""
        graph = self.graph
        if graph is None or any(node.op in VARIABLE_OPS for node in graph.node):
            return None
        try:
            found = compare_weights(self.checkpoint, self.artifact)
        except PipelineError:
            return None
        return None if found.problem is not None else found

    @cached_property
    def resemblances(self) -> list[Resemblance]:
        """What each of the weights that differ is like."""
        if self.weights is None or not self.has_saver:
            return []
        names = {one.name for one in self.weights.weights if not one.is_equal}
        if not names:
            return []
        pairs = differing_pairs(self.checkpoint, self.artifact, names)
        return resemblances(pairs, self.checkpoint / CHECKPOINT_PREFIX, self.others)

    @cached_property
    def others(self) -> list[str]:
        """The prefixes of other checkpoints of the same model."""
        return other_checkpoints(self.checkpoint)

    # Graphs

    @cached_property
    def graph(self) -> GraphDef | None:
        """The candidate's graph; None where its format has none of TensorFlow's."""
        try:
            return read_candidate(self.artifact).graph if self.format != "checkpoint" else None
        except PipelineError:
            return None

    @cached_property
    def reference_nodes(self) -> dict[str, NodeDef]:
        """The nodes of the checkpoint's graph, by name; none where they cannot be read."""
        try:
            key = read_origin(self.checkpoint / SIGNATURE_FILE).get("signature")
            return {node.name: node for node in open_artifact(self.checkpoint, key).graph.node}
        except PipelineError:
            return {}

    def ancestry(self, outputs: Collection[str]) -> list[NodeDef]:
        """The candidate's nodes that some of the outputs are computed from."""
        if self.graph is None:
            return []
        nodes = {node.name: node for node in self.graph.node}
        starts = [node_of(spec.tensor_name) for spec in self.signature.outputs if spec.name in outputs]
        return [nodes[name] for name in sorted(ancestors(nodes, starts, with_control=True))]

    @cached_property
    def divergence(self) -> Divergence | Agreement | None:
        """The first inner tensor that differs; None where there is no graph to search."""
        if self.graph is None or not self.has_saver or not self.is_rows_apart:
            return None
        settings, coarser = self.validation.settings, self.validation.bounds.get(self.format, "")
        bounds = {dtype: settings.tolerance(dtype, coarser) for dtype in DTYPES if "float" in dtype}
        found: Divergence | Agreement | None = None
        for batch in [*self._samples[1:], self._samples[0]][:3]:
            if not rows_in(batch):
                continue
            try:
                found = run_in_subprocess(
                    "pipeline.validation.diagnosis.divergence:find_divergence",
                    *(self.checkpoint, self.artifact, self.signature, dict(batch), bounds, self.threads),
                    limits=self.limits,
                    is_confined=True,
                )
            except PipelineError:
                return None
            if isinstance(found, Divergence):
                return found
        return found

    @cached_property
    def instability(self) -> Instability | None:
        """The first inner tensor of the candidate that is not the same for the same row; None where none is found."""
        rows, size = self.material.rows, batch_size_of(self.signature) or _ALONGSIDE
        count = len(rows)
        if self.graph is None or count < size or not size:
            return None
        shared = (size + 1) // 2
        first = np.arange(size)
        others = np.concatenate([first[:shared], count - 1 - np.arange(size - shared)])
        batches = [rows.take(which) for which in (first, others)]
        try:
            found: Instability | None = run_in_subprocess(
                "pipeline.validation.diagnosis.instability:find_instability",
                *(self.artifact, self.signature, *batches, shared, self.threads),
                limits=self.limits,
                is_confined=True,
            )
        except PipelineError:
            return None
        return found

    # Recordings

    @cached_property
    def goldens(self) -> tuple[Batch, Batch]:
        """What was fed and recorded when the model was trained."""
        return of_kind("input", self.material.goldens), of_kind("output", self.material.goldens)

    def golden_bounds(self) -> dict[str, tuple[float, float]]:
        """Relative and absolute tolerance by output, as `golden` has it."""
        found = (one for one in self.validation.findings.values() if one.check == "golden")
        return {one.output: (one.tolerance.rtol, one.tolerance.atol) for one in found if one.format == self.format}

    @cached_property
    def recorded_by(self) -> Place | None:
        """Whose weights give the recorded outputs in the checkpoint's graph."""
        inputs, recorded = self.goldens
        if not self.has_saver or not rows_in(inputs):
            return None
        bounds = {spec.name: self.golden_bounds().get(spec.name, (0.0, 0.0)) for spec in self.signature.outputs}
        try:
            found: Place | None = run_in_subprocess(
                "pipeline.validation.diagnosis.recorded_weights:find_weights",
                *(self.checkpoint, self.others, self.signature, dict(inputs), dict(recorded), bounds, self.threads),
                is_confined=True,
            )
        except PipelineError:
            return None
        return found
