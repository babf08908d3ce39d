"""Runs the models of a batch that have to run, over the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipelineError, StageCrashed
from pipeline.settings import EngineSettings, Operations, Settings
from pipeline.workers.child import Limits
from pipeline.workers.executor import open_executor
from pipeline.workers.executor.interface import Ended

from ..chain import plan as chain
from ..chain.job import Job, job_of
from . import cache
from .listing import Row
from .outcome import Outcome, failed_outcome
from .progress import Progress


@dataclass(frozen=True)
class Batch:
    """The models of a list, and how they are made.

    Args:
        stem: the batch's name.
        root: the folder of artifacts on this machine.
    """

    stem: str
    root: Path
    settings: Settings
    operations: Operations

    def job_of(self, row: Row) -> Job:
        """The job of a model; its own work is done by the process that has it.

        Raises:
            PipelineError: a parameter is not right.
        """
        return job_of(row.request, self.settings, self.inner)

    @property
    def inner(self) -> Operations:
        """How the work of one model is done: what has the whole batch's engine does not wait for that engine."""
        return replace(self.operations, engine=EngineSettings())

    def failure_of(self, row: Row) -> Path:
        """Where it is kept that a model failed."""
        return cache.place_of_failure(self.root, self.stem, row.name)


def recall(rows: Sequence[Row], batch: Batch) -> dict[str, Outcome]:
    """What is known already of models, by name: of those that are complete, and those that failed in this batch."""
    known: dict[str, Outcome] = {}
    for row in rows:
        try:
            job = batch.job_of(row)
        except PipelineError as exc:
            known[row.name] = failed_outcome(row.name, exc)
            continue
        outcome = cache.recall(cache.place_of(job), job) or cache.recall(batch.failure_of(row), job)
        if outcome is not None:
            known[row.name] = outcome
    return known


def run(
    rows: Sequence[Row], batch: Batch, workers: int, tell: Callable[[str, int], None] = lambda line, percent: None
) -> dict[str, Outcome]:
    """Converts the models of which nothing is known.

    Args:
        workers: how many models are worked on at the same time, where the engine is this machine.
        tell: gets a line and a percentage now and then.

    Returns:
        What came of each, by name; those that were complete too.
    """
    known = recall(rows, batch)
    left = [row for row in rows if row.name not in known]
    if not left:
        return known
    progress = Progress(len(left), len(known), tell)
    chosen = batch.operations.batch
    limits = Limits(chosen.limit_seconds, int(chosen.limit_memory_gb * 1e9))
    items = [(row.request, batch.settings, batch.inner, batch.failure_of(row)) for row in left]
    try:
        with open_executor(batch.operations.engine, min(workers, len(left)), limits) as engine:
            for event in engine.map("pipeline.tasks.batch.convert:convert", items):
                if not isinstance(event, Ended):
                    progress.start(event.number)
                    continue
                row, outcome = left[event.number], event.result
                if isinstance(outcome, PipelineError):
                    outcome = failed_outcome(row.name, _of_model(row, outcome))
                    cache.remember(batch.failure_of(row), batch.job_of(row), outcome)
                known[row.name] = outcome
                progress.end(event.number, outcome)
    finally:
        progress.close()
    return known


def _of_model(row: Row, error: PipelineError) -> PipelineError:
    """The end of a worker's process as that of the model it was at work on, with the setting that bounds it."""
    if not isinstance(error, StageCrashed):
        return error
    settings = {"time limit": "[batch] limit_seconds", "memory limit": "[batch] limit_memory_gb"}
    hint = error.next_step
    for limit, setting in settings.items():
        hint = hint.replace(limit, setting) if hint else hint
    return StageCrashed(error.what, where=row.name, got=error.got, wanted=error.wanted, next_step=hint)


def forget_failures(rows: Sequence[Row], batch: Batch) -> None:
    """Lets models that failed be tried again."""
    for row in rows:
        batch.failure_of(row).unlink(missing_ok=True)


def plan(rows: Sequence[Row], batch: Batch) -> Iterator[tuple[Row, Mapping[str, str]]]:
    """What would run.

    Yields:
        Each row with the reason of each stage that would run, by stage; none where the model is complete.
    """
    known = recall(rows, batch)
    for row in rows:
        outcome = known.get(row.name)
        if outcome is not None and outcome.has_passed:
            yield row, {}
            continue
        try:
            states = chain.examine(batch.job_of(row), "report")
        except PipelineError as exc:
            yield row, {"all": str(exc)}
            continue
        would = {stage: state.reasons[0] for stage, state in states.items() if not state.is_complete}
        if not would and outcome is not None:
            would = {"all": f"it failed: {outcome.reason}"}
        yield row, would
