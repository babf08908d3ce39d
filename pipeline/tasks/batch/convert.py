"""Converts one model of a batch, in the process of a worker."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.settings import Operations, Settings

from ..chain import plan
from ..chain.job import job_of
from ..chain.parameters import Parameters
from . import cache
from .outcome import Outcome, failed_outcome, outcome_of

logger = logging.getLogger("pipeline")


def convert(request: Parameters, settings: Settings, operations: Operations, failure: Path) -> Outcome:
    """Makes what is missing or has changed of a model's chain, from its checkpoint or its code to its report.

    Args:
        operations: how its own work is done.
        failure: where it is kept that it did not pass.

    Returns:
        What came of it, whatever that is.
    """
    try:
        job = job_of(request, settings, operations)
    except PipelineError as exc:
        return failed_outcome(request.name, exc)
    try:
        stages = cache.all_stages(job)
        for stage in stages:
            plan.build(job, stage)
        outcome = outcome_of(job, stages)
    except PipelineError as exc:
        outcome = failed_outcome(request.name, exc)
    cache.remember(cache.place_of(job) if outcome.has_passed else failure, job, outcome)
    return outcome
