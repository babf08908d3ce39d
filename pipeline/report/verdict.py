"""Interprets the verdict for the page, the summary and the XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.settings import PASSED, PROVED, TESTED

from . import gist
from .facts import ReportFacts
from .gist import MADE, Check, Failure
from .wording import NOTHING, count_noun, difference, join_names, shorten

REFERENCE = "checkpoint"
STABLE = "stable"  # the check that compares a candidate with itself
DECISIONS = "decisions"  # the check that compares decisions instead of outputs
WEIGHTS = "weights"  # the check that compares variables instead of rows


def checks(facts: ReportFacts) -> Sequence[Check]:
    """Returns all checks of the verdict, in its order."""
    return facts.verdict.get("checks") or ()


def failed_checks(facts: ReportFacts) -> list[Check]:
    """Returns the checks that did not pass; anything but the word `passed` is a failure."""
    return [check for check in checks(facts) if not is_check_passed(check)]


def is_check_passed(check: Check) -> bool:
    """Returns True if the check's verdict is exactly `passed`."""
    return bool(check.get("verdict") == PASSED)


def is_passed(facts: ReportFacts) -> bool:
    """Returns True if the verdict is `passed`, there are checks, and all of them passed."""
    return facts.verdict.get("verdict") == PASSED and bool(checks(facts)) and not failed_checks(facts)


def candidates(facts: ReportFacts) -> list[str]:
    """Returns the formats that were compared with the checkpoint, in the verdict's order."""
    return [name for name in dict.fromkeys(str(check["format"]) for check in checks(facts)) if name != REFERENCE]


def refused_formats(facts: ReportFacts) -> list[str]:
    """Returns the formats that could not be made."""
    return [str(check["format"]) for check in failed_checks(facts) if check["check"] == MADE]


def headline(facts: ReportFacts) -> str:
    """Words the verdict as one sentence, with the cause if there is one alone."""
    on = _made_up(facts)
    if is_passed(facts):
        return _headline_of_passed(facts, on)
    known = causes(facts)
    why = known[0].detail if len(known) == 1 else ""
    failed = list(dict.fromkeys(str(check["format"]) for check in failed_checks(facts)))
    if failed == [REFERENCE]:
        return f"The checkpoint does not give its own recorded outputs{_because(why)}."
    refused = refused_formats(facts)
    names = [name for name in failed if name != REFERENCE and name not in refused]
    proven = [name for name in candidates(facts) if failed and name not in failed]
    if {str(check["check"]) for check in failed_checks(facts)} == {STABLE}:
        doubt = "the answers to a row depend on other rows or on chance"
        return f"{_are(names)} equal to the checkpoint, and {doubt}{_because(why)}."
    alone = [name for name in names if name in (facts.verdict.get("made_up_alone") or {})]
    if alone and alone == names and not refused:
        agrees = (
            f"{join_names(alone)} agree{'s' if len(alone) == 1 else ''} with the checkpoint on all rows of the data"
        )
        return f"{agrees}, and not on rows that were made up{_because(why)}."
    parts = [f"{_are(names)} not proven equal to the checkpoint{on}{_because(why)}"] if names or not refused else []
    if proven:
        parts.append(_are(proven) if parts else f"{_are(proven)} proven equal to the checkpoint{on}")
    if refused:
        parts.append(f"{join_names(refused)} could not be made{_because('' if names else why)}")
    return f"{'; '.join(parts)}."


def _headline_of_passed(facts: ReportFacts, on: str) -> str:
    proved, tested = (gist.with_word(facts.verdict, word) for word in (PROVED, TESTED))
    if not proved and not tested:  # a verdict of before that says nothing of proofs
        return f"{_are(candidates(facts))} proven equal to the checkpoint{on}."
    parts = [f"{_are(proved)} proved equal to the checkpoint for every input"] if proved else []
    if tested:
        agree = (
            f"{join_names(tested)} agree{'s' if len(tested) == 1 else ''} with {'it' if proved else 'the checkpoint'}"
        )
        parts.append(f"{agree} on all rows that were tried{on.replace(' on ', ', ')}")
    return f"{'; '.join(parts)}."


def _made_up(facts: ReportFacts) -> str:
    """Says that the rows were made up, where the verdict is of rows: other weights are a fact of any rows."""
    is_of_rows = all(check["check"] != WEIGHTS for check in failed_checks(facts))
    return f" on {count_noun(facts.made_up_rows, 'made-up row')}" if facts.made_up_rows and is_of_rows else ""


def _because(why: str) -> str:
    return f": {why}" if why else ""


def causes(facts: ReportFacts) -> list[Failure]:
    """Returns why formats failed, in the verdict's order; formats with the same cause share an entry."""
    return gist.failures(facts.verdict)


def comparisons(facts: ReportFacts) -> int:
    """Returns the number of lines of results.csv."""
    return gist.count_comparisons(facts.verdict)


def notes(facts: ReportFacts) -> list[str]:
    """Returns notes on checks that passed, and on stages that were accepted, as sentences."""
    by_format = (facts.verdict.get("notes") or {}).items()
    accepted = [f"{stage.stage}: {each.phrase}" for stage in facts.stages for each in stage.accepted]
    own = (f"{format}: {sentence}" for format, sentences in by_format for sentence in sentences)
    return [*gist.proofs(facts.verdict), *own, *accepted]


def _are(names: Sequence[str]) -> str:
    return f"{join_names(names) or 'The model'} {'are' if len(names) > 1 else 'is'}"


def reasons(facts: ReportFacts) -> list[str]:
    """Returns the verdict's reasons, without those that repeat a cause; empty only if the causes say it all.

    A verdict without reasons gets one, and so does a verdict `passed` with a failed check.
    """
    repeated = {f"{format}: {cause['sentence']}" for format, cause in (facts.verdict.get("causes") or {}).items()}
    repeated |= {str(check.get("reason")) for check in failed_checks(facts) if check["check"] == MADE}
    own_reasons = [str(reason) for reason in facts.verdict.get("reasons") or () if reason not in repeated]
    if is_passed(facts):
        return own_reasons or [_all_passed(facts)]
    if not checks(facts):
        return [*own_reasons, "Nothing was checked."]
    failed = [f"{title(check)}: {reason(check)}" for check in failed_checks(facts)]
    if facts.verdict.get("verdict") == PASSED:
        return [*own_reasons, "The verdict says passed, but a check failed.", *failed]
    if own_reasons or causes(facts):
        return own_reasons
    return failed or ["The verdict is not passed, and gives no reason."]


def _all_passed(facts: ReportFacts) -> str:
    count = len(checks(facts))
    passed = "The one check passed" if count == 1 else f"All {count_noun(count, 'check')} passed"
    return f"{passed}, in {count_noun(comparisons(facts), 'comparison')}."


def title(check: Check) -> str:
    """Returns a check's format, name and output as text."""
    place = f" in {check['runtime']}" if check.get("runtime") else ""
    return f"{check['format']}, {check['check']}{place}, {check['output']}"


def reason(check: Check) -> str:
    """Returns the reason of a check's failure, as a sentence."""
    failed, rows = check.get("rows_failed") or 0, check.get("rows") or 0
    return str(check.get("reason") or f"{failed:,} of {count_noun(rows, 'row')} failed.")


def worst(check: Check) -> str:
    """Describes a check's worst row; empty if it has none."""
    row = check.get("worst")
    if not row or check["check"] == MADE:
        return ""
    element = f", element {row['element']}" if row.get("element") not in (None, "") else ""
    reference, candidate = shorten(row.get("reference")), shorten(row.get("candidate"))
    return f"row {row.get('row')}{element}: {reference} became {candidate}"


def tolerance(check: Check) -> str:
    """Returns a check's tolerance as text."""
    atol, rtol = check.get("atol"), check.get("rtol")
    if check["check"] == MADE:
        return NOTHING
    if atol is None and rtol is None:
        return "exact"
    if not atol and not rtol:
        return "0 (bit for bit)"
    return f"{difference(atol)} + {difference(rtol)}·|x|"


def largest(facts: ReportFacts) -> Check | None:
    """Returns the check with the largest absolute difference from the reference, NaN first; None if there is none."""
    measured = [check for check in against_reference(facts) if check.get("max_abs_diff") is not None]
    return max(measured, key=lambda check: severity(check["max_abs_diff"]), default=None)


def against_reference(facts: ReportFacts) -> list[Check]:
    """Returns the checks that compare a candidate's outputs or weights with the reference."""
    own = (STABLE, DECISIONS, MADE)
    return [check for check in checks(facts) if check["format"] != REFERENCE and check["check"] not in own]


def skipped(facts: ReportFacts) -> list[str]:
    """Returns the skipped checks, each with its reason."""
    return [f"{name}: {reason}" for name, reason in (facts.verdict.get("skipped") or {}).items()]


def severity(difference: Any) -> float:
    """Returns a difference for sorting, NaN as infinity; verdict.json has both as text."""
    return math.inf if math.isnan(float(difference)) else float(difference)


def metric_names(facts: ReportFacts) -> list[str]:
    """Returns the names of the single-valued metrics of all formats, in the verdict's order."""
    metrics = facts.verdict.get("metrics") or {}
    return list(
        dict.fromkeys(
            key for values in metrics.values() for key, value in values.items() if not isinstance(value, list | dict)
        )
    )
