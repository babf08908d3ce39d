"""Pass over the validation rows: runs both sides batch by batch, compares their outputs and counts their decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from pipeline.errors import RunnerError
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Batch
from pipeline.workers.progress import tell

from ..compare.decisions import Flips, Scores, has_decisions, score_bins_for
from ..results.recorder import ResultsRecorder
from .made_up import note_empty
from .unoptimized import Answers, UnoptimizedPair

if TYPE_CHECKING:
    from .material import Material

_PREFETCH = 2  # batches that the runners are ahead of the comparison
SEGMENT_BATCHES = 64  # batches in a segment; segments do not depend on each other, so shards consist of whole ones


def compare_rows(
    recorder: ResultsRecorder,
    reference: SubprocessRunner,
    candidate: SubprocessRunner,
    material: Material,
    span: range,
    unoptimized: UnoptimizedPair | None = None,
    prefetch: int = _PREFETCH,
) -> None:
    """Runs the check `equal`, or `decisions` alone, over a span of validation rows.

    Results of consecutive spans can be merged into the result of the whole, if each span begins at a segment of
    `SEGMENT_BATCHES` batches.

    Args:
        span: the row numbers.
        unoptimized: the pair of `equal` with the optimizer off; None to count decisions only.
        prefetch: batches that both runners are ahead of the comparison; with 0 one process works at a time.
    """
    format = candidate.format
    for expected, actual, numbers in _stream_outputs(reference, candidate, material, span, prefetch):
        tell(f"row {numbers.stop} of {span.stop}", (numbers.stop - span.start) / len(span))
        _count_decisions(recorder, format, expected, actual, numbers, material)
        if unoptimized is None:
            continue
        if numbers.start == 0 and material.is_made_up:
            note_empty(recorder, format, expected)
        if numbers.start % (SEGMENT_BATCHES * material.batch_size) == 0:
            unoptimized.begin_segment()
        material.sample(format).keep(actual, numbers)
        rows = RowRange(material.rows, numbers.start, numbers.stop)
        answers = unoptimized.resolve_differences(rows, (expected, actual), len(numbers))
        record_answers(recorder, "equal", format, str(numbers.start), answers, numbers)


def _stream_outputs(
    reference: SubprocessRunner, candidate: SubprocessRunner, material: Material, span: range, prefetch: int
) -> Iterator[tuple[Batch, Batch, range]]:
    """Yields both sides' outputs batch by batch, with the row numbers; the runners read the rows themselves."""
    runners, waiting, size = (reference, candidate), deque[range](), material.batch_size
    batches = (range(start, min(start + size, span.stop)) for start in span[::size])
    try:
        if not prefetch:
            for numbers in batches:
                rows = RowRange(material.rows, numbers.start, numbers.stop)
                yield reference.run(rows), candidate.run(rows), numbers
            return
        for batch in chain(batches, repeat(None, prefetch)):
            if batch is not None:
                for runner in runners:
                    runner.ask(RowRange(material.rows, batch.start, batch.stop))
                waiting.append(batch)
            if waiting and (len(waiting) > prefetch or batch is None):
                yield reference.answer(), candidate.answer(), waiting.popleft()
    finally:
        for runner in runners:
            runner.discard_pending()


def _count_decisions(
    recorder: ResultsRecorder, format: str, expected: Batch, actual: Batch, numbers: range, material: Material
) -> None:
    """Counts both sides' decisions, and records them if the check `decisions` was requested."""
    decision = material.signature.decision
    if numbers.start == 0:
        set_score_bins(material, expected, len(numbers))
    if decision is None or material.score_bins is None:
        return
    if decision.output not in expected or decision.output not in actual:
        return
    sides = {"checkpoint": expected[decision.output], format: actual[decision.output]}
    if not all(has_decisions(output, decision, len(numbers)) for output in sides.values()):
        return
    if len({output.shape for output in sides.values()}) > 1:
        return
    labels = None if material.labels is None else material.labels.read(numbers.start, numbers.stop)["labels"]
    flips = material.flips.setdefault(format, Flips(decision))
    for side, output in sides.items():
        if side == format or len(material.flips) == 1:  # the checkpoint is counted once, with the first candidate
            if side not in material.scores:
                material.scores[side] = Scores(decision, material.score_bins)
            material.scores[side].add(output, labels)
    decided = flips.add(sides["checkpoint"], sides[format], numbers, labels)
    if "decisions" in recorder.settings.chosen_checks:
        recorder.record_decisions(format, decision, *decided, numbers)


def set_score_bins(material: Material, first: Batch, rows: int) -> None:
    """Chooses the score bins by the checkpoint's outputs of the first batch, once for all candidates.

    Args:
        rows: number of rows in the batch.
    """
    decision = material.signature.decision
    if decision is None or material.score_bins is not None or decision.output not in first:
        return
    if has_decisions(first[decision.output], decision, rows):
        material.score_bins = score_bins_for(first[decision.output], decision)


def record_answers(
    recorder: ResultsRecorder, check: str, format: str, label: str, answers: Answers, labels: Sequence[Any]
) -> None:
    """Records the answers to a batch; if one side refuses it, the other must refuse it too."""
    expected, actual = answers
    if isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
        refusals = {
            side: (answer.got or answer.what) if isinstance(answer, RunnerError) else None
            for side, answer in (("reference", expected), ("candidate", actual))
        }
        recorder.record_refusals(format, check, label, refusals)
    else:
        recorder.compare(format, check, expected, actual, labels)
