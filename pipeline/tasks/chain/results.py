"""Read what the finished stages of a job have written."""

from __future__ import annotations

import json
from typing import Any

from pipeline.settings import PASSED
from pipeline.store.file_names import COSTS_FILE, VERDICT_FILE

from .job import Job


def read_verdict(job: Job) -> dict[str, Any]:
    """Return the content of the last verdict.json."""
    verdict: dict[str, Any] = json.loads((job.folder("validation") / VERDICT_FILE).read_text(encoding="utf-8"))
    return verdict


def read_costs(job: Job) -> dict[str, Any]:
    """Return the content of the last costs.json; a format that is not proven equal is never recommended."""
    from pipeline.formats.benchmark.recommend import recommend

    costs: dict[str, Any] = json.loads((job.folder("costs") / COSTS_FILE).read_text(encoding="utf-8"))
    failed = {check["format"] for check in read_verdict(job)["checks"] if check["verdict"] != PASSED}
    return {**costs, "recommendation": recommend(costs["formats"], failed)}
