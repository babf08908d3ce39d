"""The gist of a verdict: what the console, a headline and a line of a table say of `verdict.json`.

A comparison is a line of `results.csv`: one row of one output (or one variable) under one check, with both values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.settings import PASSED, PROVED, TESTED

from .wording import count_noun, difference, join_names, round_numbers

Verdict = Mapping[str, Any]
Check = Mapping[str, Any]

MADE = "made"  # the check that a requested format could be made
UNKNOWN = "unknown"  # the kind of a cause that was not found
_NOT_MADE = "it could not be made"
_MOST_LETTERS = 240  # of a claim: TensorFlow's own sentences may be pages

# A claim ends at a colon, its evidence at the last full stop, behind which is what to do. Neither in brackets.
_CLAIM_END = re.compile(r"(?::|[.;])\s")
_LAST_SENTENCE = re.compile(r"(?<=[^.A-Z])\. (?=[A-Z](?:(?!\. [A-Z]).)*$)", re.DOTALL)


@dataclass(frozen=True)
class Failure:
    """Why formats failed.

    Args:
        formats: the formats with this cause, in the verdict's order.
        kind: kind of the cause, in words; `made` for formats that could not be made.
        sentence: the claim, its evidence, and what to do.
    """

    formats: tuple[str, ...]
    kind: str
    sentence: str

    @property
    def is_unmade(self) -> bool:
        """True for formats that could not be made."""
        return self.kind == MADE

    @property
    def claim(self) -> str:
        """What is claimed, without evidence and figures of many digits."""
        return claim_of(self.sentence)

    @property
    def detail(self) -> str:
        """What stands in the brackets behind a claim, such as why a format could not be made; else the claim."""
        return self.claim.removeprefix(f"{_NOT_MADE} (").removesuffix(")") if self.is_unmade else self.claim

    @property
    def next_step(self) -> str:
        """What to do; empty if the sentence does not say."""
        found = _LAST_SENTENCE.search(self.sentence)
        return self.sentence[found.end() :].rstrip(".") if found else ""

    def __str__(self) -> str:
        if self.is_unmade:
            return f"{join_names(self.formats)} could not be made: {self.detail}"
        return f"{join_names(self.formats)}: {self.claim}"


def count_comparisons(verdict: Verdict) -> int:
    """Counts the lines of results.csv."""
    counted = verdict.get("comparisons")
    return counted if isinstance(counted, int) else sum(int(check.get("rows") or 0) for check in _checks(verdict))


def failures(verdict: Verdict) -> list[Failure]:
    """Returns why formats failed, one entry for each reason; empty if the verdict is `passed` or says nothing."""
    if verdict.get("verdict") == PASSED:
        return []
    grouped: dict[tuple[str, str], list[str]] = {}
    for format, kind, sentence in _causes(verdict):
        grouped.setdefault((kind, sentence), []).append(format)
    return [Failure(tuple(formats), kind, sentence) for (kind, sentence), formats in grouped.items()]


def fails_on_made_up_rows_alone(verdict: Verdict) -> bool:
    """Returns True if every format that failed agrees with the checkpoint on all rows of the data."""
    failed = {str(check["format"]) for check in _checks(verdict) if check.get("verdict") != PASSED}
    return bool(failed) and failed <= set(verdict.get("made_up_alone") or {})


def reason(verdict: Verdict) -> str:
    """Returns why a verdict is not `passed`, as one short sentence; empty if it is."""
    if verdict.get("verdict") == PASSED:
        return ""
    known = failures(verdict)
    if not known:
        return claim_of(str(next(iter(verdict.get("reasons") or ()), "the verdict gives no reason")))
    if fails_on_made_up_rows_alone(verdict):
        return f"{known[0]} (on made-up rows alone: all rows of the data agree)"
    more = f" (and {count_noun(len(known) - 1, 'other cause')})" if len(known) > 1 else ""
    return f"{known[0]}{more}"


def figures(verdict: Verdict) -> str:
    """Returns the three numbers of a failure: comparisons that failed, all of them, and the largest difference."""
    failed = [check for check in _checks(verdict) if check.get("verdict") != PASSED]
    count = sum(int(check.get("rows_failed") or 0) for check in failed)
    sizes = [float(check["max_abs_diff"]) for check in failed if check.get("max_abs_diff") is not None]
    largest = f"; largest difference {difference(_largest(sizes))}" if any(sizes) else ""
    whole = count_noun(count_comparisons(verdict), "comparison")
    if failed and not count:
        return (
            f"{len(failed):,} of {count_noun(len(_checks(verdict)), 'check')} failed without a comparison, of {whole}"
        )
    return f"{count:,} of {whole} failed{largest}"


def with_word(verdict: Verdict, word: str) -> list[str]:
    """Returns the formats that are `proved`, `tested` or `differs`; none of a verdict that does not say."""
    return [str(format) for format, found in (verdict.get("proofs") or {}).items() if found["word"] == word]


def proofs(verdict: Verdict) -> list[str]:
    """Returns a sentence for each format on what is proved of it, or what stands between it and a proof."""
    sentences = []
    for format, found in (verdict.get("proofs") or {}).items():
        if found["word"] == PROVED:
            within = f", {found['within']}" if found.get("within") else ""
            sentences.append(
                f"{format}: proved: its outputs are the same functions of the inputs as the checkpoint's{within}"
            )
        elif found["word"] == TESTED:
            sentences.append(f"{format}: tested, not proved: {'; '.join(found['reasons'])}")
    return sentences


def claim_of(sentence: str) -> str:
    """Returns the claim of a sentence of the form `claim: evidence. What to do`."""
    text, depth = " ".join(sentence.split()), 0
    for at, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth <= 0 and _CLAIM_END.match(text, at):
            text = text[:at]
            break
    text = round_numbers(text.rstrip("."))
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"


def _causes(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """Yields format, kind and sentence, for a failed format without a known cause what its worst check found."""
    known = verdict.get("causes") or {}
    failed = [check for check in _checks(verdict) if check.get("verdict") != PASSED]
    for format in dict.fromkeys([*known, *(str(check["format"]) for check in failed)]):
        own = [check for check in failed if check["format"] == format]
        refused = next((check for check in own if check["check"] == MADE), None)
        cause = known.get(format) or {"kind": UNKNOWN, "sentence": ""}
        if refused is not None:
            yield str(format), MADE, _why_not_made(str(format), str(refused.get("reason") or ""))
        elif cause["kind"] != UNKNOWN or not own:
            yield str(format), str(cause["kind"]).replace("_", " "), str(cause["sentence"])
        else:
            yield str(format), UNKNOWN, _found(own, str(cause["sentence"]))


def _why_not_made(format: str, reason: str) -> str:
    """Says why a format could not be made: the claim holds the node and what is wrong with it."""
    why = reason.removeprefix(f"{format} could not be made: ")
    step = _LAST_SENTENCE.search(why)
    told, rest = (why[: step.start()], f". {why[step.end() :]}") if step else (why, "")
    return f"{_NOT_MADE} ({told}){rest}" if told else _NOT_MADE


def _found(own: Sequence[Check], looked: str) -> str:
    worst = max(own, key=lambda check: int(check.get("rows_failed") or 0))
    rows, failed = int(worst.get("rows") or 0), int(worst.get("rows_failed") or 0)
    if not failed and worst.get("reason"):
        return _uncompared(worst, looked)
    counted = f"{failed:,} of {count_noun(rows, 'row')} differ in {worst['output']} (check {worst['check']})"
    return f"{counted}: {looked}" if looked else counted


def _uncompared(check: Check, looked: str) -> str:
    """Says why a check failed without a comparison that did: the claim first, then where, and what to do."""
    what, where = str(check["reason"]), f"{check['check']} of {check['output']}"
    if what.startswith(f"{where}: "):
        what = f"{what.removeprefix(f'{where}: ')} ({where})"
    step = _LAST_SENTENCE.search(looked)
    return what if _LAST_SENTENCE.search(what) or not step else f"{what.rstrip('.')}. {looked[step.end() :]}"


def _largest(sizes: Iterable[float]) -> float:
    return max(sizes, key=lambda size: float("inf") if size != size else size)


def _checks(verdict: Verdict) -> Sequence[Check]:
    return verdict.get("checks") or ()
