"""The pass over validation rows: both sides are asked batch by batch, and what they answer is compared and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from pipeline.errors import RunnerError
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Batch

from ..compare.decisions import Flips, Scores, bins_for, has_decisions
from ..results.recorder import ResultsRecorder
from .unoptimized import Answers, UnoptimizedPair

if TYPE_CHECKING:
    from .material import Material

_AHEAD = 2  # batches that runners work on while the answers to one are compared
STRETCH = 64  # batches after which nothing depends on those before, so that rows can be divided there


def compare_rows(
    validation: ResultsRecorder,
    reference: SubprocessRunner,
    candidate: SubprocessRunner,
    material: Material,
    part: range,
    plain: UnoptimizedPair | None = None,
    ahead: int = _AHEAD,
) -> None:
    """The pass of `equal`, or of `decisions` alone, over some of the validation rows.

    What it finds on two parts, each added to the other in their order, is what it finds on both at once; a part begins
    where a stretch of `STRETCH` batches does.

    Args:
        part: the numbers of the rows.
        plain: the plain pair of `equal`; None where decisions are all that is looked at.
        ahead: batches that both sides work on while the answers to one are compared; with 0 one process is at work at
            any time.
    """
    format = candidate.format
    for ours, theirs, numbers in _answers(reference, candidate, material, part, ahead):
        _decide(validation, format, ours, theirs, numbers, material)
        if plain is None:
            continue
        if numbers.start % (STRETCH * material.size) == 0:
            plain.begin_stretch()
        material.sample(format).keep(theirs, numbers)
        wanted = RowRange(material.rows, numbers.start, numbers.stop)
        judged = plain.settled(wanted, (ours, theirs), len(numbers))
        tell_answers(validation, "equal", format, str(numbers.start), judged, numbers)


def _answers(
    reference: SubprocessRunner, candidate: SubprocessRunner, material: Material, part: range, ahead: int
) -> Iterator[tuple[Batch, Batch, range]]:
    """Both sides' answers to validation rows, batch by batch, with the rows' numbers.

    The runners read the rows for themselves, and are some batches ahead of what is compared.
    """
    runners, waiting = (reference, candidate), deque[range]()
    batches = (range(start, min(start + material.size, part.stop)) for start in part[:: material.size])
    try:
        if not ahead:
            for batch in batches:
                wanted = RowRange(material.rows, batch.start, batch.stop)
                yield reference.run(wanted), candidate.run(wanted), batch
            return
        for numbers in chain(batches, repeat(None, ahead)):
            if numbers is not None:
                for runner in runners:
                    runner.ask(RowRange(material.rows, numbers.start, numbers.stop))
                waiting.append(numbers)
            if waiting and (len(waiting) > ahead or numbers is None):
                yield reference.answer(), candidate.answer(), waiting.popleft()
    finally:
        for runner in runners:
            runner.discard_pending()


def _decide(
    validation: ResultsRecorder, format: str, ours: Batch, theirs: Batch, numbers: range, material: Material
) -> None:
    """Counts what both sides decide, and writes it down where the check was asked for."""
    decision = material.signature.decision
    if numbers.start == 0:
        note_score_bins(material, ours, len(numbers))
    if decision is None or material.score_bins is None:
        return
    if decision.output not in ours or decision.output not in theirs:
        return
    sides = {"checkpoint": ours[decision.output], format: theirs[decision.output]}
    if not all(has_decisions(output, decision, len(numbers)) for output in sides.values()):
        return
    if len({output.shape for output in sides.values()}) > 1:
        return
    labels = None if material.labels is None else material.labels.read(numbers.start, numbers.stop)["labels"]
    flips = material.flips.setdefault(format, Flips(decision))
    for side, output in sides.items():
        if side == format or len(material.flips) == 1:  # the checkpoint's are the same for every candidate
            if side not in material.scores:
                material.scores[side] = Scores(decision, material.score_bins)
            material.scores[side].add(output, labels)
    decided = flips.add(sides["checkpoint"], sides[format], numbers)
    if "decisions" in validation.settings.chosen_checks:
        validation.tell_decisions(format, decision, *decided, numbers)


def note_score_bins(material: Material, first: Batch, rows: int) -> None:
    """Takes the bins of scores from the checkpoint's answers to the first batch, once for all candidates.

    Args:
        rows: how many the batch has.
    """
    decision = material.signature.decision
    if decision is None or material.score_bins is not None or decision.output not in first:
        return
    if has_decisions(first[decision.output], decision, rows):
        material.score_bins = bins_for(first[decision.output], decision)


def tell_answers(
    validation: ResultsRecorder,
    check: str,
    format: str,
    label: str,
    answers: Answers,
    labels: Sequence[Any],
) -> None:
    """Compares the answers to a batch; where a side refuses it, the other has to as well."""
    ours, theirs = answers
    if isinstance(ours, RunnerError) or isinstance(theirs, RunnerError):
        refusals = {
            side: (answer.got or answer.what) if isinstance(answer, RunnerError) else None
            for side, answer in (("reference", ours), ("candidate", theirs))
        }
        validation.tell_refusals(format, check, label, refusals)
    else:
        validation.compare(format, check, ours, theirs, labels)
