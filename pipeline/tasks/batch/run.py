"""Run the models of a batch that have to run, on the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipelineError, StageCrashed
from pipeline.report.facts import Overview
from pipeline.settings import EngineSettings, Operations, Settings
from pipeline.store.file_names import REPORT_FILE
from pipeline.workers.child import Limits
from pipeline.workers.executor import open_executor
from pipeline.workers.executor.interface import Ended

from ..chain.job import Job
from ..chain.parameters import Parameters
from ..chain.plan import Chain
from . import cache
from .listing import TABLES, Row
from .outcome import Outcome, collect_outcome, failed_outcome
from .progress import Progress


@dataclass(frozen=True)
class Batch:
    """Settings and paths that all models of a list share.

    Args:
        stem: the name of the batch.
        root: the local folder of the artifacts.
    """

    stem: str
    root: Path
    settings: Settings
    operations: Operations

    def chain_of(self, row: Row) -> Chain:
        """Return the chain of a model. Raises: as `Job.from_parameters`."""
        return Chain(Job.from_parameters(row.parameters, self.settings, self.inner))

    @property
    def inner(self) -> Operations:
        """Settings of the work on one model: in the worker itself, because a worker must not wait for other workers."""
        return replace(self.operations, engine=EngineSettings())

    def failed_file(self, row: Row) -> Path:
        """Return the cache file of a model that failed."""
        return cache.failed_file(self.root, self.stem, row.name)


def load_outcomes(rows: Sequence[Row], batch: Batch) -> dict[str, Outcome]:
    """Return the known outcomes by name: of models that are complete, and of those that failed in this batch."""
    known: dict[str, Outcome] = {}
    for row in rows:
        try:
            chain = batch.chain_of(row)
        except PipelineError as exc:
            known[row.name] = failed_outcome(row.name, exc)
            continue
        outcome = cache.load(cache.passed_file(chain.job), chain) or cache.load(batch.failed_file(row), chain)
        if outcome is not None:
            known[row.name] = outcome
    return known


def convert(
    given: Parameters, settings: Settings, operations: Operations, failure_file: Path, batch: str = ""
) -> Outcome:
    """Make all stages of a model's chain that are missing or stale, up to its report.

    Args:
        operations: how the work on this one model is done.
        failure_file: where to store the outcome if the model does not pass.
        batch: the name of the batch, whose page the model's report leads back to.

    Returns:
        The outcome; an error is an outcome too.
    """
    try:
        job = Job.from_parameters(given, settings, operations)
        overview = Overview(f"batch {batch}", f"../../{TABLES}/{batch}/{REPORT_FILE}") if batch else None
        chain = Chain(replace(job, overview=overview))
    except PipelineError as exc:
        return failed_outcome(given.name, exc)
    try:
        *others, last = chain.up_to()
        for stage in others:
            chain.build(stage)
        inputs = cache.Inputs.look(chain)
        chain.build(last)  # examines everything before it
        outcome = collect_outcome(chain)
        looked, is_certain = cache.look(chain, inputs)
        if not is_certain:
            looked, _ = cache.look(chain)
            chain.require_complete()
    except PipelineError as exc:
        outcome, (looked, _) = failed_outcome(given.name, exc), cache.look(chain)
    cache.store(cache.passed_file(chain.job) if outcome.has_passed else failure_file, looked, outcome)
    return outcome


def run(
    rows: Sequence[Row], batch: Batch, workers: int, notify: Callable[[str, int], None] = lambda line, percent: None
) -> dict[str, Outcome]:
    """Convert the models without a known outcome.

    Args:
        workers: how many models are converted at the same time, if this machine does the work.
        notify: called with a line and a percentage now and then.

    Returns:
        The outcome of each model by name, including those that were complete before.
    """
    known = load_outcomes(rows, batch)
    left = [row for row in rows if row.name not in known]
    if not left:
        return known
    progress = Progress(len(left), len(known), notify)
    chosen = batch.operations.batch
    limits = Limits(chosen.limit_seconds, int(chosen.limit_memory_gb * 1e9))
    items = [(row.parameters, batch.settings, batch.inner, batch.failed_file(row), batch.stem) for row in left]
    try:
        with open_executor(batch.operations.engine, min(workers, len(left)), limits) as engine:
            for event in engine.map("pipeline.tasks.batch.run:convert", items):
                if not isinstance(event, Ended):
                    progress.start(event.number)
                    continue
                row, outcome = left[event.number], event.result
                if isinstance(outcome, PipelineError):
                    outcome = failed_outcome(row.name, _name_model(row, outcome))
                    cache.store(batch.failed_file(row), cache.look(batch.chain_of(row))[0], outcome)
                known[row.name] = outcome
                progress.end(event.number, outcome)
    finally:
        progress.close()
    return known


def _name_model(row: Row, error: PipelineError) -> PipelineError:
    """Add to the crash of a worker process the model that it worked on, and the setting that limits it."""
    if not isinstance(error, StageCrashed):
        return error
    settings = {"time limit": "[batch] limit_seconds", "memory limit": "[batch] limit_memory_gb"}
    hint = error.next_step
    for limit, setting in settings.items():
        hint = hint.replace(limit, setting) if hint else hint
    return StageCrashed(error.what, where=row.name, got=error.got, wanted=error.wanted, next_step=hint)


def plan(rows: Sequence[Row], batch: Batch) -> Iterator[tuple[Row, Mapping[str, str]]]:
    """Find out what would run.

    Yields:
        Each row with the reasons of the stages that would run, by stage; no reason if the model is complete.
    """
    known = load_outcomes(rows, batch)
    for row in rows:
        outcome = known.get(row.name)
        if outcome is not None and outcome.has_passed:
            yield row, {}
            continue
        try:
            states = batch.chain_of(row).examine("report")
        except PipelineError as exc:
            yield row, {"all": str(exc)}
            continue
        would = {stage: state.reasons[0] for stage, state in states.items() if not state.is_complete}
        if not would and outcome is not None:
            would = {"all": f"it failed: {outcome.reason}"}
        yield row, would


def is_on_offer(row: Row, batch: Batch) -> bool:
    """Return True if a stage of a model could be kept by accepting what has changed."""
    from ..chain.acceptance import on_offer  # only `why` needs it

    try:
        return bool(on_offer(batch.chain_of(row)))
    except PipelineError:  # its plan says why
        return False
