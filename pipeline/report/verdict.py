"""What the verdict amounts to, the same for the page, the summary and the XML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .facts import ReportFacts
from .wording import NOTHING, counted, difference, listed, shortened

Check = Mapping[str, Any]

REFERENCE = "checkpoint"
STABLE = "stable"  # the check that compares a candidate with itself
MADE = "made"  # the check that a format which was asked for could be made
DECISIONS = "decisions"  # the check that compares what is decided, and not the outputs
WEIGHTS = "weights"  # the check that compares variables, and not rows


def checks(facts: ReportFacts) -> Sequence[Check]:
    """Every check of the verdict, in its own order."""
    return facts.verdict.get("checks") or ()


def failed_checks(facts: ReportFacts) -> list[Check]:
    """The checks that did not pass; anything but the word `passed` is a failure."""
    return [check for check in checks(facts) if not is_check_passed(check)]


def is_check_passed(check: Check) -> bool:
    """True where the check says `passed`, and nothing else."""
    return bool(check.get("verdict") == "passed")


def is_passed(facts: ReportFacts) -> bool:
    """True where the verdict is `passed`, something was checked, and no check says otherwise."""
    return facts.verdict.get("verdict") == "passed" and bool(checks(facts)) and not failed_checks(facts)


def candidates(facts: ReportFacts) -> list[str]:
    """The formats that were compared with the checkpoint, in the verdict's order."""
    return [name for name in dict.fromkeys(str(check["format"]) for check in checks(facts)) if name != REFERENCE]


def refused_formats(facts: ReportFacts) -> list[str]:
    """The formats that could not be made."""
    return [str(check["format"]) for check in failed_checks(facts) if check["check"] == MADE]


def headline(facts: ReportFacts) -> str:
    """The verdict as one sentence."""
    if is_passed(facts):
        return f"{_are(candidates(facts))} proven equal to the checkpoint."
    failed = list(dict.fromkeys(str(check["format"]) for check in failed_checks(facts)))
    if failed == [REFERENCE]:
        return "The checkpoint does not give its own recorded outputs."
    refused = refused_formats(facts)
    names = [name for name in failed if name != REFERENCE and name not in refused]
    proven = [name for name in candidates(facts) if failed and name not in failed]
    if {str(check["check"]) for check in failed_checks(facts)} == {STABLE}:
        return f"{_are(names)} equal to the checkpoint, and the answers to a row depend on other rows or on chance."
    parts = [f"{_are(names)} not proven equal to the checkpoint"] if names or not refused else []
    if proven:
        parts.append(_are(proven) if parts else f"{_are(proven)} proven equal to the checkpoint")
    if refused:
        parts.append(f"{listed(refused)} could not be made")
    return f"{'; '.join(parts)}."


@dataclass(frozen=True)
class Cause:
    """Why formats differ: their names, the class of the cause, and what was found, as a sentence."""

    formats: str
    kind: str
    sentence: str


def causes(facts: ReportFacts) -> list[Cause]:
    """The causes that were found, in the verdict's order; formats with the same one share it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for format, cause in (facts.verdict.get("causes") or {}).items():
        alike.setdefault((str(cause["kind"]).replace("_", " "), str(cause["sentence"])), []).append(str(format))
    return [Cause(listed(formats), kind, sentence) for (kind, sentence), formats in alike.items()]


def notes(facts: ReportFacts) -> list[str]:
    """What passed and is worth knowing, as sentences."""
    told = (facts.verdict.get("notes") or {}).items()
    return [f"{format}: {sentence}" for format, sentences in told for sentence in sentences]


def _are(names: Sequence[str]) -> str:
    return f"{listed(names) or 'The model'} {'are' if len(names) > 1 else 'is'}"


def reasons(facts: ReportFacts) -> list[str]:
    """The verdict's reasons, without the causes behind them; never empty.

    A verdict without reasons is given one, and so is a `passed` that its own checks contradict.
    """
    told = {f"{format}: {cause['sentence']}" for format, cause in (facts.verdict.get("causes") or {}).items()}
    given = [str(reason) for reason in facts.verdict.get("reasons") or () if reason not in told]
    if is_passed(facts):
        return given or [f"{counted(len(checks(facts)), 'check')} made, all passed."]
    if not checks(facts):
        return [*given, "Nothing was checked."]
    failed = [f"{title(check)}: {reason(check)}" for check in failed_checks(facts)]
    if facts.verdict.get("verdict") == "passed":
        return [*given, "The verdict says passed, but a check failed.", *failed]
    return given or failed or ["The verdict is not passed, and gives no reason."]


def title(check: Check) -> str:
    """A check's name as words."""
    return f"{check['format']}, {check['check']}, {check['output']}"


def reason(check: Check) -> str:
    """Why a check failed, as a sentence."""
    failed, rows = check.get("rows_failed") or 0, check.get("rows") or 0
    return str(check.get("reason") or f"{failed:,} of {counted(rows, 'row')} failed.")


def worst(check: Check) -> str:
    """A check's worst row as words; empty where it has none."""
    row = check.get("worst")
    if not row or check["check"] == MADE:
        return ""
    element = f", element {row['element']}" if row.get("element") not in (None, "") else ""
    reference, candidate = shortened(row.get("reference")), shortened(row.get("candidate"))
    return f"row {row.get('row')}{element}: {reference} became {candidate}"


def tolerance(check: Check) -> str:
    """What a check allows, as words."""
    atol, rtol = check.get("atol"), check.get("rtol")
    if check["check"] == MADE:
        return NOTHING
    if atol is None and rtol is None:
        return "exact"
    if not atol and not rtol:
        return "0 (bit for bit)"
    return f"{difference(atol)} + {difference(rtol)}·|x|"


def largest(facts: ReportFacts) -> Check | None:
    """The check with the largest absolute difference from the reference, NaN before all; None if none has one."""
    measured = [check for check in against_reference(facts) if check.get("max_abs_diff") is not None]
    return max(measured, key=_severity, default=None)


def against_reference(facts: ReportFacts) -> list[Check]:
    """The checks that compare a candidate's outputs or weights with something other than itself."""
    own = (STABLE, DECISIONS, MADE)
    return [check for check in checks(facts) if check["format"] != REFERENCE and check["check"] not in own]


def skipped(facts: ReportFacts) -> list[str]:
    """The checks that were not made, each with its reason."""
    return [f"{name}: {reason}" for name, reason in (facts.verdict.get("skipped") or {}).items()]


def _severity(check: Check) -> float:
    value = float(check["max_abs_diff"])
    return math.inf if math.isnan(value) else value


def metric_names(facts: ReportFacts) -> list[str]:
    """The single-valued metrics that any format has, in the verdict's order."""
    metrics = facts.verdict.get("metrics") or {}
    return list(
        dict.fromkeys(
            key for values in metrics.values() for key, value in values.items() if not isinstance(value, list | dict)
        )
    )
