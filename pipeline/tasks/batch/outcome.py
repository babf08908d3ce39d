"""Outcome: the result of one model of a batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.errors import PipelineError
from pipeline.formats.registry import FORMATS, read_refusal
from pipeline.hashing import hash_values
from pipeline.report import gist
from pipeline.settings import FAILED, PASSED
from pipeline.store.manifest import Manifest

from ..chain.plan import Chain
from ..chain.results import read_verdict

_VERSION = r"/\.versions/(\w+)-[0-9a-f]{12}-[0-9a-f]+|/\.work/(\w+)/[0-9a-f]{16}"
ERROR = "error"  # besides passed and failed: nothing could be compared


@dataclass(frozen=True)
class Outcome:
    """The result of one model; equal artifacts give equal outcomes, except for the seconds.

    Args:
        name: its folder under the output root.
        verdict: `passed`; `failed` if a format is not proven equal; `error` if the chain stopped before that.
        kind: the class of the error; empty if it passed.
        reason: a sentence; empty if it passed.
        formats: the formats that were made.
        checks: for each format, check and output: `name` (`frozen.equal.probability`), `verdict` and `reason`.
        comparisons: the number of lines of the model's results.csv.
        max_abs_diff: the largest difference; None if nothing could be subtracted.
        flipped: the number of rows with another decision than the checkpoint's.
        size_bytes: the size of all deployed formats together.
        digest: sha256 of all deployed formats.
        seconds: the time that each stage took when it was last made.
    """

    name: str
    verdict: str
    kind: str = ""
    reason: str = ""
    formats: Sequence[str] = ()
    checks: Sequence[Mapping[str, str]] = ()
    comparisons: int = 0
    max_abs_diff: float | None = None
    flipped: int = 0
    size_bytes: int = 0
    digest: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_passed(self) -> bool:
        return self.verdict == PASSED


def read_outcome(values: Mapping[str, Any]) -> Outcome:
    """Read an outcome from plain values, as `dataclasses.asdict` gives them.

    Raises:
        TypeError, ValueError: a value is missing, unknown or of another kind.
    """
    outcome = Outcome(**values)
    plain = Outcome("", PASSED, max_abs_diff=0.0)
    for item in fields(Outcome):
        value, kind = getattr(outcome, item.name), type(getattr(plain, item.name))
        kinds = {tuple: (list, tuple), float: (float, int, type(None))}.get(kind, (kind,))
        if not isinstance(value, kinds):
            raise TypeError(f"{item.name} is a {type(value).__name__}")
    if outcome.verdict not in (PASSED, FAILED, ERROR):
        raise ValueError(f"the verdict {outcome.verdict}")
    return outcome


def failed_outcome(name: str, error: PipelineError) -> Outcome:
    """Return the outcome of a model whose chain stopped before the verdict."""
    # Name the stage, not its version or work folder: their names differ each time.
    reason = re.sub(_VERSION, lambda found: f"/{found[1] or found[2]}", str(error))
    return Outcome(name, ERROR, type(error).__name__, reason)


def collect_outcome(chain: Chain) -> Outcome:
    """Return the outcome of a finished chain, read from its artifacts."""
    job = chain.job
    verdict = read_verdict(job)
    manifests = {stage: Manifest.read(job.folder(stage)) for stage in chain.up_to()}
    made = {
        format: manifests[stage] for format, stage in job.candidates.items() if read_refusal(job.folder(stage)) is None
    }
    has_passed = verdict["verdict"] == PASSED
    differences = [check["max_abs_diff"] for check in verdict["checks"] if check.get("max_abs_diff") is not None]
    return Outcome(
        name=job.paths.name,
        verdict=PASSED if has_passed else FAILED,
        kind="" if has_passed else "ValidationFailed",
        reason=gist.reason(verdict),
        formats=tuple(format for format in FORMATS if format in made),
        checks=[
            {
                "name": f"{check['format']}.{check['check']}.{check['output']}",
                "verdict": check["verdict"],
                "reason": "" if check["verdict"] == PASSED else str(check.get("reason") or "it did not pass"),
            }
            for check in verdict["checks"]
        ],
        comparisons=gist.count_comparisons(verdict),
        max_abs_diff=max(map(float, differences), default=None),
        flipped=sum(flips["flipped"] for flips in verdict["decisions"].values()),
        size_bytes=sum(entry.size_bytes for manifest in made.values() for entry in manifest.files.values()),
        digest=hash_values("deployed", {format: manifest.content_digest for format, manifest in made.items()}),
        seconds={stage: manifest.notes.get("seconds", 0.0) for stage, manifest in manifests.items()},
    )
