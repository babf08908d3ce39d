"""What a report is made from: plain values, and the paths of two tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.signature import Signature


@dataclass(frozen=True)
class StageFacts:
    """Where one stage's artifact comes from.

    Args:
        stage: the stage's name.
        digest: hash of the artifact's bytes.
        fingerprint: hash of everything that decided them.
        seconds: how long the stage took; None where that was not recorded.
        made: when it was made, ISO 8601; None where that was not recorded.
    """

    stage: str
    digest: str
    fingerprint: str
    seconds: float | None
    made: str | None = None


@dataclass(frozen=True)
class ReportFacts:
    """All that a report tells about one model.

    Args:
        name: the run's name.
        verdict: the content of `verdict.json`.
        results: `results.csv`, one row per candidate format, check, output and example.
        history: `history.csv` with the columns step, loss, validation_loss; no rows where nothing was trained;
            None where the checkpoint came from elsewhere.
        signature: the model's inputs, outputs and decision.
        exported: which training step was exported, as one phrase.
        sizes: bytes by file, the file named relative to the model's folder.
        settings: values by key, by section of `tasks.cfg`.
        versions: version by library.
        stages: provenance, in the order of the chain.
        command: the command line that made it.
        inputs: sha256 of each file from outside, by what it is to the model.
        costs: the content of `costs.json`; None where nothing was measured.
        graph: the checkpoint's graph as `inspection.summarise` gives it; None where that is not known.
        previous: the content of the last report's `report.json`; None where there is none.
        worst: paths of the files in `validation/worst/`; empty where no row was worth keeping.
    """

    name: str
    verdict: Mapping[str, Any]
    results: Path
    history: Path | None
    signature: Signature
    exported: str
    sizes: Mapping[str, int]
    settings: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    stages: Sequence[StageFacts]
    command: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Any] | None = None
    graph: Mapping[str, Any] | None = None
    previous: Mapping[str, Any] | None = None
    worst: Sequence[str] = ()
