"""Runs the models of a batch that have to run, over the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .. import chain
from ..engine import Ended
from ..engine.opening import open_engine
from ..errors import PipelineError
from ..process import Limits
from ..request import job_of
from ..settings import Operations, Settings
from . import seen
from .listing import Row
from .outcome import Outcome, failed_outcome
from .progress import Progress


def recall(rows: Sequence[Row], settings: Settings, stem: str) -> dict[str, Outcome]:
    """What is known already of models, by name: of those that are complete, and those that failed in this batch."""
    known: dict[str, Outcome] = {}
    for row in rows:
        try:
            job = job_of(row.request, settings)
        except PipelineError as exc:
            known[row.name] = failed_outcome(row.name, exc)
            continue
        outcome = seen.recall(seen.place_of(job), job) or seen.recall(_failure(row, stem), job)
        if outcome is not None:
            known[row.name] = outcome
    return known


def run(
    rows: Sequence[Row],
    settings: Settings,
    operations: Operations,
    stem: str,
    workers: int,
    tell: Callable[[str, int], None] = lambda line, percent: None,
) -> dict[str, Outcome]:
    """Converts the models of which nothing is known.

    Args:
        stem: the batch's name.
        workers: how many models are worked on at the same time, where the engine is this machine.
        tell: gets a line and a percentage now and then.

    Returns:
        What came of each, by name; those that were complete too.
    """
    known = recall(rows, settings, stem)
    left = [row for row in rows if row.name not in known]
    if not left:
        return known
    progress = Progress(len(left), len(known), tell)
    limits = Limits(operations.batch.limit_seconds, int(operations.batch.limit_memory_gb * 1e9))
    items = [(row.request, settings, _failure(row, stem)) for row in left]
    try:
        with open_engine(operations.engine, min(workers, len(left)), limits) as engine:
            for event in engine.map("pipeline.batch.converting:convert", items):
                if not isinstance(event, Ended):
                    progress.start(event.number)
                    continue
                row, outcome = left[event.number], event.result
                if isinstance(outcome, PipelineError):
                    outcome = failed_outcome(row.name, outcome)
                    seen.remember(_failure(row, stem), job_of(row.request, settings), outcome)
                known[row.name] = outcome
                progress.end(event.number, outcome)
    finally:
        progress.close()
    return known


def forget_failures(rows: Sequence[Row], stem: str) -> None:
    """Lets models that failed be tried again."""
    for row in rows:
        _failure(row, stem).unlink(missing_ok=True)


def plan(rows: Sequence[Row], settings: Settings, stem: str) -> Iterator[tuple[Row, Mapping[str, str]]]:
    """What would run.

    Yields:
        Each row with the reason of each stage that would run, by stage; none where the model is complete.
    """
    known = recall(rows, settings, stem)
    for row in rows:
        outcome = known.get(row.name)
        if outcome is not None and outcome.has_passed:
            yield row, {}
            continue
        try:
            states = chain.examine(job_of(row.request, settings), "report")
        except PipelineError as exc:
            yield row, {"all": str(exc)}
            continue
        would = {stage: state.reasons[0] for stage, state in states.items() if not state.is_complete}
        if not would and outcome is not None:
            would = {"all": f"it failed: {outcome.reason}"}
        yield row, would


def _failure(row: Row, stem: str) -> Path:
    return seen.place_of_failure(Path(row.request.output_root), stem, row.name)
