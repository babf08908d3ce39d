"""Convert one model of a batch, in a worker process."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.settings import Operations, Settings

from ..chain.job import Job
from ..chain.parameters import Parameters
from ..chain.plan import Chain
from . import cache
from .outcome import Outcome, collect_outcome, failed_outcome


def convert(given: Parameters, settings: Settings, operations: Operations, failure_file: Path) -> Outcome:
    """Make all stages of a model's chain that are missing or stale, up to its report.

    Args:
        operations: how the work on this one model is done.
        failure_file: where to store the outcome if the model does not pass.

    Returns:
        The outcome; an error is an outcome too.
    """
    try:
        chain = Chain(Job.from_parameters(given, settings, operations))
    except PipelineError as exc:
        return failed_outcome(given.name, exc)
    try:
        for stage in chain.up_to():
            chain.build(stage)
        outcome = collect_outcome(chain)
    except PipelineError as exc:
        outcome = failed_outcome(given.name, exc)
    cache.store(cache.passed_file(chain.job) if outcome.has_passed else failure_file, chain, outcome)
    return outcome
