"""Matrix of formats and checks: passed or failed, and the most important number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.settings import FAILED, PASSED, SEARCHES

from .facts import ReportFacts
from .gist import MADE, Check
from .verdict import (
    DECISIONS,
    REFERENCE,
    WEIGHTS,
    candidates,
    checks,
    is_check_passed,
    refused_formats,
    severity,
)
from .wording import difference, number

ORDER = (MADE, WEIGHTS, "equal", "edge", "generated", "stable", "golden", *SEARCHES, DECISIONS)
SKIPPED, NONE = "skipped", "none"
SIGNS = {PASSED: "✓", FAILED: "✗", SKIPPED: "○", NONE: ""}


@dataclass(frozen=True)
class Cell:
    """Result of one check of one format.

    Args:
        state: `passed`, `failed`, `skipped`, or `none` if the check does not apply to the format.
        text: the number, or a word.
        title: the same as a sentence.
        target: index of the check in the verdict; None if there is none.
    """

    state: str
    text: str
    title: str
    target: int | None = None

    @property
    def sign(self) -> str:
        return SIGNS[self.state]


@dataclass(frozen=True)
class Matrix:
    """Rows of formats, columns of checks; every row has a cell for each column."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def matrix(facts: ReportFacts) -> Matrix:
    """Builds the matrix of all checks of a verdict, with the checkpoint as the last row."""
    found: dict[tuple[str, str], list[tuple[int, Check]]] = {}
    for index, check in enumerate(checks(facts)):
        found.setdefault((str(check["format"]), column_of(check)), []).append((index, check))
    skipped = {str(name): str(reason) for name, reason in (facts.verdict.get("skipped") or {}).items()}
    names = {check for _, check in found} | {name for name in skipped if name in ORDER}
    columns = [name for name in ORDER if name in names] + sorted(names - set(ORDER))
    formats = candidates(facts)
    if any(format == REFERENCE for format, _ in found):
        formats.append(REFERENCE)
    # A check of a format that was not made is not shown as skipped.
    not_made = {REFERENCE, *refused_formats(facts)}
    rows = [
        (format, [_cell(facts, format, name, found.get((format, name), []), skipped, not_made) for name in columns])
        for format in formats
    ]
    return Matrix(columns, rows)


def column_of(check: Check) -> str:
    """Returns the name of a check's column; each other runtime has one of its own."""
    return str(check.get("runtime") or check["check"])


def _cell(
    facts: ReportFacts,
    format: str,
    name: str,
    found: Sequence[tuple[int, Check]],
    skipped: dict[str, str],
    not_made: set[str],
) -> Cell:
    if not found:
        if name in skipped and format not in not_made:
            return Cell(SKIPPED, "skipped", f"{format}, {name}: skipped, {skipped[name]}")
        return Cell(NONE, "–", f"{format}, {name}: not made")
    failed = [(index, check) for index, check in found if not is_check_passed(check)]
    own = [check for _, check in failed or found]
    text = _failure(facts, format, name, own) if failed else _success(facts, format, name, own)
    state = FAILED if failed else PASSED
    return Cell(state, text, f"{format}, {name}: {state}, {text}", (failed or found)[0][0])


def _success(facts: ReportFacts, format: str, name: str, own: Sequence[Check]) -> str:
    if name == MADE:
        return "made"
    if name == DECISIONS:
        return f"{_flipped(facts, format, own)} flipped"
    if all(check.get("bit_equal") for check in own):
        return "bit-equal"
    sizes = [check["max_abs_diff"] for check in own if check.get("max_abs_diff") is not None]
    return difference(max(sizes, key=severity)) if sizes else "equal"


def _failure(facts: ReportFacts, format: str, name: str, own: Sequence[Check]) -> str:
    if name == MADE:
        return "refused"
    failed = max(int(check.get("rows_failed") or 0) for check in own)
    if name == DECISIONS and failed:
        return f"{_flipped(facts, format, own)} flipped"
    if failed:
        of = max(int(check.get("rows") or 0) for check in own)
        return f"{number(failed)} of {number(of)} {'variables' if name == WEIGHTS else 'rows'}"
    return FAILED if any(check.get("rows") for check in own) else "no row compared"


def _flipped(facts: ReportFacts, format: str, own: Sequence[Check]) -> str:
    decisions = (facts.verdict.get("decisions") or {}).get(format) or {}
    return number(int(decisions.get("flipped", max(int(check.get("rows_failed") or 0) for check in own))))
