"""The content of a report: plain values, and the paths of two tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.signature import Signature


@dataclass(frozen=True)
class AcceptedFacts:
    """A time when a stage was kept although what it was made with had changed.

    Args:
        phrase: when, and by whom.
        command: the command line that accepted it.
        changes: what had changed, as sentences.
    """

    phrase: str
    command: str
    changes: Sequence[str]


@dataclass(frozen=True)
class StageFacts:
    """Provenance of one stage's artifact.

    Args:
        stage: the stage's name.
        digest: hash of the artifact's bytes.
        fingerprint: hash of all inputs of the stage.
        seconds: duration of the stage; None if it was not recorded.
        made: time when it was made, ISO 8601; None if it was not recorded.
        accepted: when it was kept under changed code or libraries, the oldest first.
    """

    stage: str
    digest: str
    fingerprint: str
    seconds: float | None
    made: str | None = None
    accepted: Sequence[AcceptedFacts] = ()


@dataclass(frozen=True)
class RunFacts:
    """When, where and with what the comparison was made; a text is empty if it was not recorded.

    Args:
        made: time when it was made, ISO 8601.
        host: name, processor and cores of the machine.
        commit: git commit of the user's code.
        version: version of the pipeline.
    """

    made: str = ""
    host: str = ""
    commit: str = ""
    version: str = ""


@dataclass(frozen=True)
class Overview:
    """The page of the batch or of the nights that a run is part of.

    Args:
        title: what it is, such as `batch models`.
        address: its address, relative to the folder of the report.
    """

    title: str
    address: str


@dataclass(frozen=True)
class ReportFacts:
    """The content of a report about one model.

    Args:
        name: the run's name.
        verdict: the content of `verdict.json`.
        results: `results.csv`, one row per candidate format, check, output and example.
        history: `history.csv` with the columns step, loss, validation_loss; without rows if nothing was trained;
            None if the checkpoint was imported.
        signature: the model's inputs, outputs and decision.
        exported: the exported training step, as one phrase.
        sizes: size in bytes by file, relative to the model's folder.
        settings: values by key, by section of `tasks.cfg`.
        versions: version by library.
        stages: provenance, in the order of the chain.
        command: the command line of the run.
        inputs: sha256 of each external file, by its role.
        costs: the content of `costs.json`; None if nothing was measured.
        graph: summary of the checkpoint's graph from `inspection.summarise`; None if it is not known.
        previous: the content of the last report's `report.json`; None if there is none.
        worst: paths of the files in `validation/worst/`; empty if no rows were stored.
        run: when, where and with what the comparison was made.
        made_up_rows: number of validation rows if they were made up; 0 if they are the user's.
        overview: the page that the report leads back to; None if there is none.
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
    run: RunFacts = RunFacts()
    made_up_rows: int = 0
    overview: Overview | None = None
