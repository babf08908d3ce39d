"""Findings: the result of one check on one output of one format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.settings import FAILED, PASSED
from pipeline.signature import Array

from ..compare.differences import Differences
from ..compare.tolerance import Tolerance

UNSTABLE = (
    "Its answer depends on a row's neighbours or on chance, as with batch norm or dropout in training mode, or with a "
    "softmax over the batch"
)


@dataclass
class Finding:
    """Result of one check on one output of one format, summed over its rows.

    Args:
        rows_allowed: number of rows that may fail; above 0 only for decisions.
        worst_rank: whether the worst row failed, and its difference.
        rows_rounded: rows that passed by the largest number of their row alone; see `ResultsRecorder.proved`.
        runtime: the other runtime that the candidate ran in; empty for this process's own.
    """

    format: str
    check: str
    output: str
    dtype: str
    tolerance: Tolerance
    rows: int = 0
    rows_failed: int = 0
    rows_allowed: int = 0
    is_bit_equal: bool = True
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    max_ulp_diff: float | None = None
    reason: str | None = None
    worst: dict[str, Any] | None = None
    worst_rank: tuple[bool, float] = (False, -1.0)
    rows_rounded: int = 0
    runtime: str = ""

    @property
    def has_passed(self) -> bool:
        return self.reason is None and self.rows > 0 and self.rows_failed <= self.rows_allowed

    def fail(self, reason: str) -> None:
        """Marks the check as failed, regardless of its rows; keeps the first reason."""
        self.reason = self.reason or reason

    def merge(self, later: Finding) -> None:
        """Adds the result of the same check on later rows."""
        self.rows += later.rows
        self.rows_failed += later.rows_failed
        self.rows_rounded += later.rows_rounded
        self.is_bit_equal = self.is_bit_equal and later.is_bit_equal
        for name in ("max_abs_diff", "max_rel_diff", "max_ulp_diff"):
            values = [value for value in (getattr(self, name), getattr(later, name)) if value is not None]
            setattr(self, name, max(values, default=None))
        self.reason = self.reason or later.reason
        if later.worst_rank > self.worst_rank:
            self.worst, self.worst_rank = later.worst, later.worst_rank

    def to_dict(self) -> dict[str, Any]:
        """Converts the finding to its form in verdict.json."""
        return {
            "format": self.format,
            "check": self.check,
            "output": self.output,
            "dtype": self.dtype,
            "rows": self.rows,
            "rows_failed": self.rows_failed,
            "rows_allowed": self.rows_allowed,
            "bit_equal": self.is_bit_equal and self.has_passed,
            "max_abs_diff": _json_number(self.max_abs_diff),
            "max_rel_diff": _json_number(self.max_rel_diff),
            "max_ulp_diff": None if self.max_ulp_diff is None else int(self.max_ulp_diff),
            "rtol": self.tolerance.rtol,
            "atol": self.tolerance.atol,
            "verdict": PASSED if self.has_passed else FAILED,
            "reason": None if self.has_passed else self.sentence(),
            "worst": self.worst,
            **({"runtime": self.runtime} if self.runtime else {}),
        }

    def sentence(self) -> str:
        """Explains why the check failed."""
        if self.reason is not None:
            return self.reason
        place = f"{self.check} of {self.output}" + (f" in {self.runtime}" if self.runtime else "")
        if self.rows == 0:
            return f"{place}: no row was compared"
        worst = self.worst or {}
        where = f"row {worst.get('row')}" + (f", element {worst['element']}" if worst.get("element") else "")
        bound = f"(bound: rtol {self.tolerance.rtol:g}, atol {self.tolerance.atol:g})"
        if self.check == "stable":
            return (
                f"stable of {self.output}: {self.rows_failed} of {self.rows} rows are answered otherwise when "
                f"{self.format} is asked again in other batches; the worst is {where}: first {worst.get('reference')}, "
                f"then {worst.get('candidate')} {bound}. {UNSTABLE}"
            )
        if self.check == "repeated":
            return (
                f"repeated of {self.output}: {self.rows_failed} of {self.rows} answers are others when usual rows are "
                f"asked again, or behind unusual ones; the worst is {where}: first {worst.get('reference')}, then "
                f"{worst.get('candidate')} {bound}. It keeps something from one row, or one call, to another"
            )
        return (
            f"{place}: {self.rows_failed} of {self.rows} rows differ; the worst is {where}: "
            f"reference {worst.get('reference')}, {self.format} {worst.get('candidate')} {bound}"
        )


MADE_UP_CHECKS = ("edge", "generated", "ladders", "boundary")  # whose rows are made up, whatever data was given
COMPARED = ("equal", *MADE_UP_CHECKS, "sizes")  # the candidate with the checkpoint, row by row


def made_up_alone(findings: Iterable[Finding], is_made_up: bool) -> dict[str, str]:
    """Returns by format a sentence on those that fail on made-up rows alone: all rows of the data agree.

    Args:
        is_made_up: there is no data, and the validation rows were made up too.
    """
    found: dict[str, str] = {}
    by_format: dict[str, list[Finding]] = {}
    for finding in findings:
        by_format.setdefault(finding.format, []).append(finding)
    for format, own in by_format.items():
        failed = list(dict.fromkeys(finding.check for finding in own if not finding.has_passed))
        has_compared = all(finding.rows_failed for finding in own if not finding.has_passed)
        rows = max((finding.rows for finding in own if finding.check == "equal"), default=0)
        if failed and has_compared and rows and not is_made_up and set(failed) <= set(MADE_UP_CHECKS):
            found[format] = (
                f"{format} agrees with the checkpoint on all {rows} rows of the data, and differs on rows that were "
                f"made up ({' and '.join(failed)}): look whether such rows occur where the model is used"
            )
    return found


def add_rows(
    finding: Finding, differences: Differences, is_within: Array, has_passed: Array, columns: Mapping[str, Any]
) -> None:
    """Adds the rows of one batch to a finding, and keeps the worst row."""
    finding.rows += len(has_passed)
    finding.rows_failed += int((~has_passed).sum())
    if not differences.absolute.size:
        return
    largest = float(differences.absolute.max())
    finding.is_bit_equal = finding.is_bit_equal and largest == 0
    row = int(np.lexsort((differences.absolute.max(axis=1), ~has_passed))[-1])
    rank = (not has_passed[row], float(differences.absolute[row].max()))
    if rank > finding.worst_rank:
        finding.worst_rank = rank
        finding.worst = {
            "row": _python_value(columns["row"][row]),
            "element": columns["element"][row],
            "reference": str(_python_value(columns["reference"][row])),
            "candidate": str(_python_value(columns["candidate"][row])),
        }
    if columns["abs_diff"][row] != "":
        finding.max_abs_diff = max(finding.max_abs_diff or 0.0, largest)
        finding.max_rel_diff = max(finding.max_rel_diff or 0.0, float(differences.relative.max()))
    if differences.ulp is not None:
        finding.max_ulp_diff = max(finding.max_ulp_diff or 0.0, float(differences.ulp.max()))


def _python_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _json_number(value: float | None) -> float | str | None:
    return str(value) if value is not None and not np.isfinite(value) else value
