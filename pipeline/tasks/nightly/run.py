"""Make a night: its chain, the comparison with the night before, and the records of its result."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, PipelineError, ValidationFailed, logger
from pipeline.formats.registry import read_refusal
from pipeline.formats.runner import SubprocessRunner
from pipeline.hashing import hash_code, library_versions
from pipeline.report import gist
from pipeline.settings import FAILED, PASSED, NightlySettings
from pipeline.signature import Signature, batch_size_of
from pipeline.store import artifact, file_names
from pipeline.store.artifact import hold
from pipeline.store.manifest import Manifest
from pipeline.training.models.source import PROJECT
from pipeline.workers.child import Limits
from pipeline.workers.worker import as_pipeline_error

from ..chain.job import Job
from ..chain.plan import Chain
from ..chain.results import read_costs, read_verdict
from ..summary import require_passed
from .drift import compare_answers, describe_signature_changes, write_answers
from .history import (
    Night,
    is_done,
    nearest_passed,
    newest_passed,
    passed_nights,
    read_history,
    read_record,
    write_history,
)
from .page import write_page
from .paths import CURRENT, NIGHT, Nights, digests_of
from .prometheus import metrics_file, write_metrics

_METRICS = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class Outcome:
    """The result of a night, and the event to notify people of.

    Args:
        event: `passed`, `failed`, or `recovered` if it passed after it, or the night before it, had failed.
        error: why the night failed; None if it passed.
    """

    night: Night
    event: str
    error: PipelineError | None


def run_night(chain: Chain, nights: Nights, settings: NightlySettings) -> Outcome | None:
    """Make a night, unless another process has done so meanwhile.

    While the current night is made again, `current` points to the one before; at the end, to the newest that passed.

    Args:
        chain: of a job with the paths of the night.

    Returns:
        None if nothing was left to do.

    Raises:
        PipelineError: the result of the night could not be written; a failed night is an outcome, not an error.
    """
    night = chain.job.paths.name
    with hold(nights.lock):
        if is_done(nights, night):
            return None
        before, was_current = read_history(nights), nights.current
        damaged = _find_damaged(nights, before, night)
        sound = {date: each for date, each in before.items() if date not in damaged}
        nights.set_current(newest_passed(nights, sound, without=[night]))
        error: PipelineError | None = None
        try:
            for stage in chain.up_to():  # all of them: the report on a failed validation too
                chain.build(stage)
            chain.require_complete()  # what is published counts, and what another host published first
            require_passed(chain.job)
        except Exception as exc:  # any failure makes a failed night
            error = as_pipeline_error(exc, night)
            logger.debug("in the night %s:", night, exc_info=exc)
        try:
            record = _conclude(chain, nights, sound, settings, error)
        except PipelineError as exc:
            error = error or exc
            record = _conclude(chain, nights, sound, settings, error)
        if error is None and not record.has_passed:
            where = nights.place(night, NIGHT)
            next_step = "If that is meant, run this night with --nightly-changed-share 1"
            error = ValidationFailed(record.reason, where=where, next_step=next_step)
        _update_records(nights, record, damaged, settings)
        if error is None and was_current in damaged:
            error = DamagedArtifact(
                f"the current night {was_current} was damaged",
                where=nights.place(CURRENT),
                got=damaged[was_current],
                next_step=f"{night} passed and is current now; find out what was deployed in between",
            )
        known = [each for date, each in before.items() if date <= record.date]
        has_recovered = record.has_passed and known and not known[-1].has_passed
        return Outcome(record, "recovered" if has_recovered else PASSED if record.has_passed else FAILED, error)


def _find_damaged(nights: Nights, history: Mapping[str, Night], making: str) -> dict[str, str]:
    """Hash the nights that passed, the newest first, until one is as it was finished: the one to deploy and to compare.

    Args:
        making: the night that is made now, which does not count.

    Returns:
        What is wrong with the newer ones, by night.
    """
    damaged = {}
    for night in passed_nights(nights, history):
        if night == making:
            continue
        problem = nights.find_problem(night, is_full=True)
        if problem is None:
            break
        logger.error("the night %s was damaged after it had passed: %s", night, problem)
        damaged[night] = problem
    return damaged


def _conclude(
    chain: Chain, nights: Nights, before: Mapping[str, Night], settings: NightlySettings, error: PipelineError | None
) -> Night:
    """Make the artifact with the result of the night, and read it."""
    job, night = chain.job, chain.job.paths.name
    other = None if error is not None else nearest_passed(night, before, nights.kept())

    def want() -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "name": nights.name,
            "code": hash_code(Path(__file__), [PROJECT]),
            "versions": library_versions(),
        }
        if error is not None:
            return {**wanted, "failure": str(error)}
        kept = {"changed_share": settings.changed_share, "rows": settings.rows}
        wanted |= {"settings": {"nightly": kept}, "upstream": digests_of(_manifests(chain))}
        if other is not None:
            manifest = nights.manifest(other, NIGHT)
            wanted["night"] = {other: None if manifest is None else manifest.content_digest}
        return wanted

    def make(folder: Path) -> Mapping[str, Any]:
        if error is None:
            record = _compare(job, nights, other, settings, folder)
            seconds = {stage: manifest.notes.get("seconds", 0.0) for stage, manifest in _manifests(chain).items()}
        else:
            record, seconds = Night(night, FAILED, str(error)), {}
        values = asdict(record)
        for name in ("finished", "seconds", "is_removed"):
            del values[name]
        if record.largest_difference is not None and not math.isfinite(record.largest_difference):
            values["largest_difference"] = str(record.largest_difference)
        (folder / file_names.RECORD_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        (folder / file_names.SUMMARY_FILE).write_text(_summary(nights.name, record), encoding="utf-8")
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        return {NIGHT: {"finished": finished, "seconds": seconds}}

    artifact.build(job.paths, NIGHT, want, make)
    if job.remote is not None:
        job.remote.push(job.paths, NIGHT)
    nights.refresh()
    record = read_record(nights, night)
    assert record is not None  # it was just made
    return record


def _compare(job: Job, nights: Nights, other: str | None, settings: NightlySettings, folder: Path) -> Night:
    """Run the night's model on the rows of another night, and record its answers to its own rows."""
    format, stage = next(
        (format, stage) for format, stage in job.candidates.items() if read_refusal(job.folder(stage)) is None
    )
    checkpoint = job.folder("checkpoint")
    signature = Signature.read(checkpoint / file_names.SIGNATURE_FILE)
    is_fixed = batch_size_of(signature) is not None
    batch_size = batch_size_of(signature) or job.settings.validation.batch_size
    threads, limits = job.settings.training.threads, Limits(*job.settings.validation.limits)
    night = _measure_night(job, format, Manifest.read(job.folder(stage)).content_digest)
    with SubprocessRunner(format, job.folder(stage), threads, limits) as runner:
        write_answers(runner, checkpoint, batch_size, settings.rows, folder / file_names.ANSWERS_FILE)
        if other is None:
            return night
        night = replace(night, compared_with=other)
        their_result, their_checkpoint = nights.fetch(other, NIGHT), nights.fetch(other, "checkpoint")
        artifact.verify(their_result)
        artifact.verify(their_checkpoint, file_names.SIGNATURE_FILE, file_names.GOLDENS_FILE)
        then = Signature.read(their_checkpoint / file_names.SIGNATURE_FILE)
        changes = describe_signature_changes(then, signature)
        drift: dict[str, Any] = {"compared_with": other, "signature": changes}
        if not changes:
            recorded = {
                "goldens": their_checkpoint / file_names.GOLDENS_FILE,
                "rows": their_result / file_names.ANSWERS_FILE,
            }
            decisions = (then.decision, signature.decision)
            compared = {
                kind: compare_answers(runner, path, decisions, batch_size, is_fixed)
                for kind, path in recorded.items()
                if path.is_file()
            }
            drift |= {kind: found.to_dict() for kind, found in compared.items()}
            if compared:  # the recorded rows; the goldens if no rows were recorded
                most = compared.get("rows") or compared["goldens"]
                farthest = max(found.largest_difference for found in compared.values())
                night = replace(night, rows=most.rows, changed=most.changed, largest_difference=farthest)
        (folder / file_names.DRIFT_FILE).write_text(json.dumps(drift, indent=2) + "\n", encoding="utf-8")
    reason = _reason(night, changes, settings)
    return replace(night, verdict=FAILED, reason=reason) if reason else night


def _reason(night: Night, changes: list[str], settings: NightlySettings) -> str:
    """Return why a night fails although its model is equal to its checkpoint; empty if it does not fail."""
    if settings.changed_share >= 1:
        return ""
    if changes:
        return f"its signature is not that of {night.compared_with}: {'; '.join(changes)}"
    share = night.changed_share
    if share is not None and share > settings.changed_share:
        return (
            f"{night.changed} of {night.rows} decisions ({share:.1%}) are not those of {night.compared_with}, more "
            f"than {settings.changed_share:.1%} ([nightly] changed_share)"
        )
    return ""


def _measure_night(job: Job, format: str, digest: str) -> Night:
    verdict = read_verdict(job)
    metrics = verdict["metrics"]
    figures = metrics.get(format) or metrics.get("checkpoint") or {}
    costs = read_costs(job)["formats"]
    smallest = {name: min(entry["batches"].items(), key=lambda item: int(item[0]))[1] for name, entry in costs.items()}
    return Night(
        job.paths.name,
        PASSED,
        digest=digest,
        comparisons=gist.count_comparisons(verdict),
        metrics={name: figures[name] for name in _METRICS if name in figures},
        sizes={name: entry["size_bytes"] for name, entry in costs.items() if entry["size_bytes"] is not None},
        latencies={name: batch["p50_ms"] for name, batch in smallest.items() if batch["p50_ms"] is not None},
    )


def _manifests(chain: Chain) -> dict[str, Manifest]:
    return {stage: Manifest.read(chain.job.folder(stage)) for stage in chain.up_to()}


def _summary(name: str, record: Night) -> str:
    """Return a short summary of the night as Markdown, for a CI job."""
    word = "✅ Passed" if record.has_passed else "❌ Failed"
    lines = [f"# {word}: {name}, night of {record.date}"]
    if record.reason:
        lines.append(
            f"    {' '.join(record.reason.split())}"
        )  # indented, so that text from outside is not read as markup
    if record.compared_with is None:
        lines.append("It was compared with no other night.")
    elif record.changed is not None:
        lines.append(f"{record.changed} of {record.rows} decisions are not those of {record.compared_with}.")
    else:
        lines.append(f"It was compared with {record.compared_with}; nothing in it decides.")
    return "\n\n".join(lines) + "\n"


def _update_records(nights: Nights, record: Night, damaged: Collection[str], settings: NightlySettings) -> None:
    """Update history, `current`, the page and the metrics, and remove outdated nights."""
    history = read_history(nights)
    write_history(nights, history)
    nights.set_current(newest_passed(nights, history, without=damaged))
    outdated = nights.outdated(settings.keep)
    if outdated:
        # Record the removal first: a night that is missing without a record would be made again.
        history |= {night: replace(history[night], is_removed=True) for night in outdated if night in history}
        write_history(nights, history)
        for night in outdated:
            nights.remove(night)
    nights.sweep([night for night, known in history.items() if known.is_removed])
    write_page(nights, history, settings.changed_share)
    if settings.metrics_file:
        write_metrics(metrics_file(settings.metrics_file, nights.name), nights, history)
