"""Read what the finished stages of a job have written."""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType
from typing import Any

from pipeline.errors import DamagedArtifact
from pipeline.settings import PASSED
from pipeline.store.file_names import COSTS_FILE, SIGNATURE_FILE, VERDICT_FILE

from .job import Job

# What is read of the files, as far as it is not free text: a type or several, a list of one, a mapping of any names
# ({str: …}), or a mapping with these names; `?` marks those that may be missing.
_NUMBER = (int, float)
_VERDICT_SHAPE: Any = {
    "verdict": str,
    "reasons": [str],
    "checks": [{"format": str, "check": str, "output": str, "verdict": str, "rows": int, "rows_failed?": int}],
    "metrics": {str: {"accuracy": _NUMBER, "f1": _NUMBER}},
    "decisions": {str: {"rows": int, "flipped": int}},
    "comparisons?": int,
    "made_up_alone?": {str: str},
    "causes?": {str: {"kind": str, "sentence": str}},
    "rows?": {str: int},
    "skipped?": {str: str},
    "notes?": {str: [str]},
    "scores?": {str: {str: object}},
}
_COSTS_SHAPE: Any = {"formats": {str: {"problem": (str, NoneType)}}, "machine?": {str: object}}


def read_verdict(job: Job) -> dict[str, Any]:
    """Return the content of the last verdict.json. Raises: as `_read`."""
    return _read(job, "validation", VERDICT_FILE, _VERDICT_SHAPE)


def read_costs(job: Job) -> dict[str, Any]:
    """Return the content of the last costs.json; a format that is not proven equal is never recommended.

    Raises: as `_read`.
    """
    from pipeline.formats.benchmark.recommend import recommend

    costs = _read(job, "costs", COSTS_FILE, _COSTS_SHAPE)
    failed = {check["format"] for check in read_verdict(job)["checks"] if check["verdict"] != PASSED}
    try:
        return {**costs, "recommendation": recommend(costs["formats"], failed)}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _unknown_shape(job, "costs", COSTS_FILE, exc) from exc


def count_made_up_rows(job: Job, verdict: dict[str, Any]) -> int:
    """Return the number of validation rows if nobody gave any and they were made up; 0 without inputs, too."""
    if not job.has_made_up_rows or not _has_inputs(job.folder("checkpoint") / SIGNATURE_FILE):
        return 0
    return int((verdict.get("rows") or {}).get("validation", 0))


def _has_inputs(signature: Path) -> bool:
    try:
        return bool(json.loads(signature.read_text(encoding="utf-8")).get("inputs", True))
    except (OSError, ValueError, AttributeError):  # the bytes are checked by whoever needs them
        return True


def _read(job: Job, stage: str, name: str, shape: Any) -> dict[str, Any]:
    """Read a file of a finished stage.

    Raises:
        DamagedArtifact: it is missing, no JSON, or of another shape, although the artifact's manifest fits.
    """
    path: Path = job.folder(stage) / name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise _unknown_shape(job, stage, name, exc) from exc
    misfit = _misfit(content, shape, name)
    if misfit:
        raise _unknown_shape(job, stage, name, misfit)
    return content


def _unknown_shape(job: Job, stage: str, name: str, got: object) -> DamagedArtifact:
    got = f"{type(got).__name__}: {got}" if isinstance(got, Exception) else got
    return DamagedArtifact(
        f"the {stage} did not write this {name}",
        where=job.display_path(stage, name),
        got=got,
        next_step=f"Remove {job.display_path(stage)} and run again: the stage is made again",
    )


def _misfit(value: Any, shape: Any, place: str) -> str:
    """Describe the first part of a value that is not of its shape; empty if all of it is."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is {_kind(value)}"
        return next(filter(None, (_misfit(each, shape[0], f"{place}[{at}]") for at, each in enumerate(value))), "")
    if not isinstance(shape, dict):
        is_fit = isinstance(value, shape) and (shape is object or not isinstance(value, bool))
        return "" if is_fit else f"{place} is {_kind(value)}"
    if not isinstance(value, dict):
        return f"{place} is {_kind(value)}"
    if str in shape:
        parts = ((key, each, shape[str]) for key, each in value.items())
        return next(filter(None, (_misfit(each, inner, f"{place}, {key}") for key, each, inner in parts)), "")
    for key, inner in shape.items():
        name = key.removesuffix("?")
        if name not in value and name == key:
            return f"{place} has no {name}"
        if name in value and (misfit := _misfit(value[name], inner, f"{place}, {name}")):
            return misfit
    return ""


def _kind(value: Any) -> str:
    names = {NoneType: "null", list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")
