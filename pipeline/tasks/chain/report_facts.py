"""Collect the facts for a job's report from its artifacts."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, logger
from pipeline.formats.registry import read_refusal
from pipeline.hashing import library_versions
from pipeline.store.file_names import (
    HISTORY_FILE,
    REPORT_FIGURES_FILE,
    RESULTS_FILE,
    SAVED_MODEL_FOLDER,
    SIGNATURE_FILE,
    WORST_FOLDER,
)
from pipeline.store.manifest import Manifest

from .job import CANDIDATE, Job
from .results import count_made_up_rows, read_costs, read_verdict

if TYPE_CHECKING:
    from pipeline.report.facts import ReportFacts


def collect_report_facts(job: Job, stages: Sequence[str]) -> ReportFacts:
    """Return the content of the report.

    Args:
        stages: the finished stages before the report, in the order of the chain.
    """
    from pipeline.report.facts import AcceptedFacts, ReportFacts, RunFacts, StageFacts
    from pipeline.signature import Signature
    from pipeline.store.acceptance import Acceptance

    manifests = {name: Manifest.read(job.folder(name)) for name in stages}
    verdict, notes = read_verdict(job), manifests["validation"].notes
    made, host, commit = (str(notes.get(name, "")) for name in ("made", "host", "commit"))
    return ReportFacts(
        name=job.paths.name,
        verdict={**verdict, "rows_per_second": notes.get("rows_per_second", {})},
        results=job.folder("validation") / RESULTS_FILE,
        history=job.folder("training") / HISTORY_FILE if "training" in manifests else None,
        signature=Signature.read(job.folder("checkpoint") / SIGNATURE_FILE),
        exported=_exported(manifests),
        sizes={**_sizes_of_checkpoint(manifests["checkpoint"]), **_sizes_of_formats(job, manifests)},
        settings=asdict(job.settings),
        versions={**library_versions(), "python": platform.python_version()},
        stages=[
            StageFacts(
                name,
                manifest.content_digest,
                manifest.fingerprint,
                manifest.notes.get("seconds"),
                manifest.notes.get("made"),
                [
                    AcceptedFacts(str(each), each.command, [str(change) for change in each.changes])
                    for each in Acceptance.read_all(manifest)
                ],
            )
            for name, manifest in manifests.items()
        ],
        command=shlex.join(sys.argv),
        inputs=_inputs(manifests),
        costs=read_costs(job),
        graph=_graph(job),
        previous=_previous(job),
        worst=[str(job.paths.artifact("validation") / WORST_FOLDER / path.name) for path in _worst_files(job)],
        run=RunFacts(made, host, commit, _version()),
        made_up_rows=count_made_up_rows(job, verdict),
        overview=job.overview,
    )


def _version() -> str:
    try:
        return version("freeze-pipeline")
    except PackageNotFoundError:  # the folder alone, never installed
        return ""


def _inputs(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return the sha256 of each file from outside, and of each environment variable, that decided a stage."""
    inputs: dict[str, str] = {}
    for manifest in manifests.values():
        files = manifest.fingerprint_inputs.get("files") or {}
        inputs |= {label: digest for label, digest in files.items() if digest is not None}
        for kind, label in (("model_files", "the model's file"), ("model_variables", "the model's variable")):
            recorded = manifest.fingerprint_inputs.get(kind) or {}
            inputs |= {f"{label} {name}": digest for name, digest in recorded.items() if digest is not None}
    return inputs


def _graph(job: Job) -> dict[str, Any] | None:
    """Summarize the graph of the checkpoint; return None if it cannot be read without TensorFlow."""
    from pipeline.freezing.inspection import summarise  # loads protobuf, which a finished run does not need

    folder = job.folder("checkpoint")
    try:
        return summarise(folder / SAVED_MODEL_FOLDER if (folder / SAVED_MODEL_FOLDER).is_dir() else folder)
    except PipelineError as exc:
        logger.info("the report leaves out the graph: %s", exc)
        return None


def _previous(job: Job) -> dict[str, Any] | None:
    """Return the key figures of the last report, which is still published; None if there is none."""
    path = job.folder("report") / REPORT_FIGURES_FILE
    try:
        previous = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        logger.info("the report is not compared with the last one, which cannot be read: %s", exc)
        return None
    return previous if isinstance(previous, dict) else None


def _worst_files(job: Job) -> list[Path]:
    """Return the files of the worst rows, scripts last."""
    folder = job.folder("validation") / WORST_FOLDER
    files = (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
    return sorted(files, key=lambda path: (path.suffix == ".sh", path.name))


def _sizes_of_checkpoint(manifest: Manifest) -> dict[str, int]:
    """Return the size of each file of a Saver's checkpoint or a SavedModel, without rows and goldens."""
    saved = ("model.", f"{SAVED_MODEL_FOLDER}/")
    files = {path: entry for path, entry in sorted(manifest.files.items()) if path.startswith(saved)}
    return {f"checkpoint/{path}": entry.size_bytes for path, entry in files.items()}


def _sizes_of_formats(job: Job, manifests: Mapping[str, Manifest]) -> dict[str, int]:
    """Return the size of each file of each format; a folder counts as one, because it may hold thousands."""
    sizes: dict[str, int] = {}
    for stage in job.candidates.values():
        if read_refusal(job.folder(stage)) is not None:
            continue
        for path, entry in sorted(manifests[stage].files.items()):
            folder, slash, _ = path.partition("/")
            if path != SIGNATURE_FILE:
                name = f"{stage}/{folder}{slash}"
                sizes[name] = sizes.get(name, 0) + entry.size_bytes
    return sizes


def _exported(manifests: Mapping[str, Manifest]) -> str:
    """Say which weights the checkpoint holds, and which candidate they are compared with."""
    notes = manifests["checkpoint"].notes
    if "adopted" in notes:
        exported = f"taken over from {notes['adopted']}"
    elif steps := manifests["training"].notes.get("steps"):
        exported = f"{notes.get('exported')} step, {notes.get('step')} of {steps}"
    else:
        exported = "initial values, nothing trained"
    if CANDIDATE not in manifests:
        return exported
    manifest = manifests[CANDIDATE]
    return f"{exported}; compared with {manifest.notes.get('candidate')}, artifact {manifest.content_digest[:12]}…"
