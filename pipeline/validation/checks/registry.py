"""Checks of a candidate, one function each.

A check records its results with the `ResultsRecorder` and returns None; or it returns the reason why it does not apply.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pipeline.data.npz import of_kind
from pipeline.errors import RunnerError
from pipeline.formats.calibration import rows_within
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Array, Batch, batch_size_of

from ..compare.differences import is_finite, measure
from ..compare.tolerance import Tolerance
from ..results.findings import UNSTABLE
from ..results.recorder import ResultsRecorder
from .made_up import is_no_row, is_refused_by_both, note_beyond, note_refused, ranges_of, sentence_of
from .material import Material, row_count
from .neighbours import NeighbourTrial
from .passes import compare_rows, record_answers
from .searches import check_boundary, check_ladders, check_repeated, check_sizes
from .unoptimized import Answer, Answers, UnoptimizedPair, run_both

Check = Callable[[ResultsRecorder, SubprocessRunner, SubprocessRunner, Material], str | None]


def check_equal(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on all validation rows."""
    format, started = candidate.format, time.monotonic()
    recorder.expect(format, "equal")
    if material.run_sharded is not None:
        material.run_sharded(recorder, reference, candidate, material, "equal")
    else:
        with UnoptimizedPair(recorder, "equal", reference, candidate) as unoptimized:
            compare_rows(recorder, reference, candidate, material, range(len(material.rows)), unoptimized)
    material.rows_per_second[format] = len(material.rows) / (time.monotonic() - started)
    return None


def check_decisions(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate's decisions with the checkpoint's on all validation rows."""
    format, decision = candidate.format, material.signature.decision
    if decision is None:
        return "no output decides"
    if "equal" not in recorder.settings.chosen_checks:
        if material.run_sharded is not None:
            material.run_sharded(recorder, reference, candidate, material, "decisions")
        else:
            compare_rows(recorder, reference, candidate, material, range(len(material.rows)))
    if format not in material.flips:
        return f"{decision.output} has not one decision for each row"
    recorder.judge_decisions(format, decision.output, material.flips[format])
    return None


def check_edge_cases(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on edge-case rows, which data files rarely hold.

    A format with other kernels than TensorFlow's may answer NaN, infinities and overflow differently: a max-pool, for
    instance, may pass NaN on or drop it.
    """
    format, excluded, refused = candidate.format, list[str](), dict[str, Answer]()
    if material.parts_of_one:
        return f"the inputs {', '.join(material.parts_of_one)} are one value together, of several rows"
    if not material.edge_cases:
        return "the model has no inputs"
    ranges, beyond = ranges_of(candidate, material.signature), list[str]()
    with UnoptimizedPair(recorder, "edge", reference, candidate) as unoptimized:
        for label, batch in material.edge_cases.items():
            if not rows_within(ranges, batch, row_count(batch)).all():
                beyond.append(label)
                continue
            answers = run_both(reference, candidate, batch)
            if FORMATS[format].edge_cases == "finite" and _differs_by_overflow(recorder, format, batch, answers):
                excluded.append(label)
                continue
            if is_no_row(format, answers, material):
                refused[label] = answers[0]
                continue
            answers = unoptimized.resolve_differences(batch, answers, row_count(batch), label)
            if is_refused_by_both(answers):
                refused[label] = answers[0]
            record_answers(recorder, "edge", format, label, answers, [label] * row_count(batch))
    if excluded:
        recorder.note(
            format,
            f"edge: {len(excluded)} of {len(material.edge_cases)} rows ({', '.join(excluded)}) are NaN, infinite, or "
            f"overflow when they are multiplied; {format} answers them otherwise than the checkpoint, for its kernels "
            "are not TensorFlow's, and that is not held against it",
        )
    note_refused(recorder, format, "edge", refused, len(material.edge_cases))
    return note_beyond(recorder, format, "edge", ranges, len(beyond), len(material.edge_cases))


def check_generated(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on generated rows, in batches of several sizes."""
    if not material.signature.inputs:
        return "the model has no inputs"
    if not material.generated:
        return "a batch of generated rows would be too large"
    format, refused = candidate.format, dict[str, Answer]()
    ranges, beyond, is_cut = ranges_of(candidate, material.signature), 0, batch_size_of(material.signature) is None
    with UnoptimizedPair(recorder, "generated", reference, candidate) as unoptimized:
        answered = {label: run_both(reference, candidate, batch) for label, batch in material.generated.items()}
        if all(is_refused_by_both(one) or is_no_row(format, one, material) for one in answered.values()):
            sentence = sentence_of(next(iter(answered.values()))[0])
            return f"these rows were made up, and the checkpoint refuses all of them: {sentence}"
        for label, batch in material.generated.items():
            answers, labels = answered[label], [f"{label}/{row}" for row in range(row_count(batch))]
            is_within = rows_within(ranges, batch, row_count(batch))
            if not is_within.all():
                chosen = np.flatnonzero(is_within) if is_cut else np.array([], np.int64)
                beyond += row_count(batch) - len(chosen)
                if not len(chosen):
                    continue
                batch = {name: values[chosen] for name, values in batch.items()}
                answers, labels = run_both(reference, candidate, batch), [labels[row] for row in chosen]
            is_none = is_no_row(format, answers, material)
            if is_none or is_refused_by_both(answers):
                refused[label] = answers[0]
            if is_none:
                continue
            answers = unoptimized.resolve_differences(batch, answers, row_count(batch))
            record_answers(recorder, "generated", format, label, answers, labels)
    note_refused(recorder, format, "generated", refused, len(material.generated))
    return note_beyond(recorder, format, "generated", ranges, beyond, material.count_rows("generated"))


def _differs_by_overflow(recorder: ResultsRecorder, format: str, batch: Batch, answers: Answers) -> bool:
    """Returns True if the sides differ on a batch with NaN, infinities or numbers whose squares are infinite."""
    expected, actual = answers
    if isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [values * values for values in batch.values() if values.dtype.kind in "fcV"]
    if all(bool(is_finite(square).all()) for square in squares):
        return False
    return bool(recorder.difference_kinds(format, expected, actual, row_count(batch)))


def check_stable(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with itself: runs the same rows again, in another order and other batches."""
    format, rows, sample = candidate.format, material.rows, material.sample(candidate.format)
    if not sample.is_complete:  # because `equal` was not requested
        for numbers in rows.batches(material.batch_size):
            sample.keep(candidate.run(RowRange(rows, numbers.start, numbers.stop)), numbers)
    if not sample.outputs:
        return "no output has an answer for each row"
    recorder.expect(format, "stable", sample.outputs)
    has_open_batch = batch_size_of(material.signature) is None
    with NeighbourTrial(recorder, candidate, rows, sample, material.sizes.held if has_open_batch else 0) as trial:
        for chosen in sample.batches:
            try:
                again = candidate.run(rows.take(chosen))
            except RunnerError as exc:
                refusal = f"stable: rows that were answered are refused in a batch of {len(chosen)}: {exc}"
                recorder.fail(format, "stable", refusal, sample.outputs)
                break
            if chosen is sample.batches[0]:
                sample.find_pairs(again)
            pairs = {
                name: answers
                for name in sample.outputs
                if (answers := sample.first_pairs(name, chosen, again[name])) is not None
            }
            first = {name: sample.first_answers(name, chosen) for name in sample.outputs if name not in pairs}
            of_other_shape = [name for name, one in first.items() if one is None or one.shape != again[name].shape]
            padded = {name: sample.pad_alike(name, chosen, again[name]) for name in of_other_shape}
            for name, answers in first.items():
                if answers is None and padded[name] is None:
                    reason = f"stable of {name}: the shape of a row's answer differs from batch to batch. {UNSTABLE}"
                    recorder.fail(format, "stable", reason, [name])
            compared = {name: one for name, one in first.items() if one is not None and padded.get(name) is None}
            sides = trial.resolve(chosen, compared, {name: again[name] for name in compared})
            recorder.compare(format, "stable", *sides, chosen.tolist(), compared)
            twice = {name: (answers, again[name]) for name, answers in pairs.items()}
            twice |= {name: answers for name, answers in padded.items() if answers is not None}
            for name, (one, other) in twice.items():
                scaled = _without_rounding(one, other, recorder.finding(format, "stable", name).tolerance)
                recorder.compare(format, "stable", {name: scaled}, {name: other}, chosen.tolist(), [name])
    for name, value in sample.padding.items():
        recorder.note(
            format,
            f"stable of {name}: answers are padded with {value[0]} to the longest of their batch, and compared "
            "without regard to how far",
        )
    for name in sorted(sample.repeated):
        recorder.note(
            format,
            f"stable of {name}: answers repeat their last value up to the longest of their batch, and are compared "
            "without regard to how far",
        )
    if trial.conclusion is not None:
        material.conclusions[format] = trial.conclusion
    return None


def _without_rounding(first: Array, again: Array, tolerance: Tolerance) -> Array:
    """Returns the first answers to pairs of rows, and the second where the two differ no more than a kernel rounds.

    A kernel rounds a sum in proportion to its terms, which the largest answer tells, and not to the sum.
    """
    differences = measure(first, again)
    if differences.absolute.size != first.size:  # of complex numbers, each part has its own
        return first
    is_rounded = differences.absolute <= tolerance.rtol * differences.magnitude.max(initial=0)
    return np.where(is_rounded.reshape(first.shape), again, first)


def check_goldens(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the outputs recorded when the model was trained."""
    if not material.goldens:
        return "no outputs were recorded when the model was trained"
    compare_with_recorded(recorder, candidate, material)
    return None


def compare_with_recorded(recorder: ResultsRecorder, runner: SubprocessRunner, material: Material) -> None:
    """Compares a candidate, or the checkpoint itself, with the recorded outputs."""
    recorder.expect(runner.format, "golden")
    inputs, recorded = (of_kind(kind, material.goldens) for kind in ("input", "output"))
    count = row_count(inputs)
    for start in range(0, count, material.batch_size):
        numbers = range(start, min(start + material.batch_size, count))
        batch = {name: values[numbers.start : numbers.stop] for name, values in inputs.items()}
        expected = {
            # An output without rows as its first dimension is recorded once for all rows.
            name: values[numbers.start : numbers.stop] if values.ndim and len(values) == count else values
            for name, values in recorded.items()
        }
        recorder.compare(runner.format, "golden", expected, runner.run(batch), numbers)


CHECK_FUNCTIONS: dict[str, Check] = {
    "equal": check_equal,
    "decisions": check_decisions,
    "edge": check_edge_cases,
    "generated": check_generated,
    "stable": check_stable,
    "golden": check_goldens,
    "sizes": check_sizes,
    "ladders": check_ladders,
    "boundary": check_boundary,
    "repeated": check_repeated,
}
