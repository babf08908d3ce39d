"""The checks that validation makes of a candidate, one function each.

A check writes what it finds through `Validation`, and returns None; or it returns why it does not apply.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pipeline.data.npz import of_kind
from pipeline.errors import RunnerError
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Batch

from ..compare.differences import is_finite
from ..results.findings import UNSTABLE
from ..results.recorder import ResultsRecorder
from .material import Material, rows_in
from .passes import compare_rows, tell_answers
from .unoptimized import Answers, UnoptimizedPair, ask_both

Check = Callable[[ResultsRecorder, SubprocessRunner, SubprocessRunner, Material], str | None]


def check_equal(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """The candidate against the checkpoint, on all validation rows."""
    format, started = candidate.format, time.monotonic()
    validation.expect(format, "equal")
    if material.compare_elsewhere is not None:
        material.compare_elsewhere(validation, reference, candidate, material, "equal")
    else:
        with UnoptimizedPair(validation, "equal", reference, candidate) as plain:
            compare_rows(validation, reference, candidate, material, range(len(material.rows)), plain)
    material.rows_per_second[format] = len(material.rows) / (time.monotonic() - started)
    return None


def check_decisions(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """What is decided by the candidate against what is by the checkpoint, on all validation rows."""
    format, decision = candidate.format, material.signature.decision
    if decision is None:
        return "no output decides"
    if "equal" not in validation.settings.chosen_checks:
        if material.compare_elsewhere is not None:
            material.compare_elsewhere(validation, reference, candidate, material, "decisions")
        else:
            compare_rows(validation, reference, candidate, material, range(len(material.rows)))
    if format not in material.flips:
        return f"{decision.output} has not one decision for each row"
    validation.judge_decisions(format, decision.output, material.flips[format])
    return None


def check_edges(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """The same on rows that no data file holds.

    A format that other kernels compute is not held to what TensorFlow's make of NaN, infinities and what overflows: a
    max-pool may pass NaN on or drop it.
    """
    format, left_out = candidate.format, list[str]()
    with UnoptimizedPair(validation, "edge", reference, candidate) as plain:
        for label, batch in material.edges.items():
            answers = ask_both(reference, candidate, batch)
            if FORMATS[format].edges == "finite" and _is_other_overflow(validation, format, batch, answers):
                left_out.append(label)
                continue
            answers = plain.settled(batch, answers, rows_in(batch), label)
            tell_answers(validation, "edge", format, label, answers, [label] * rows_in(batch))
    if left_out:
        validation.note(
            format,
            f"edge: {len(left_out)} of {len(material.edges)} rows ({', '.join(left_out)}) are NaN, infinite, or "
            f"overflow when they are multiplied; {format} answers them otherwise than the checkpoint, for its kernels "
            "are not TensorFlow's, and that is not held against it",
        )
    return None


def check_generated(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """The same on generated rows, in batches of several sizes."""
    if not material.generated:
        return "a batch of generated rows would be too large"
    with UnoptimizedPair(validation, "generated", reference, candidate) as plain:
        for label, batch in material.generated.items():
            labels = [f"{label}/{row}" for row in range(rows_in(batch))]
            answers = plain.settled(batch, ask_both(reference, candidate, batch), rows_in(batch))
            tell_answers(validation, "generated", candidate.format, label, answers, labels)
    return None


def _is_other_overflow(validation: ResultsRecorder, format: str, batch: Batch, answers: Answers) -> bool:
    """Whether the sides differ in a batch of NaN, infinities or numbers that are infinite when multiplied."""
    ours, theirs = answers
    if isinstance(ours, RunnerError) or isinstance(theirs, RunnerError):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [values * values for values in batch.values() if values.dtype.kind in "fcV"]
    if all(bool(is_finite(square).all()) for square in squares):
        return False
    return bool(validation.disagreeing(format, ours, theirs, rows_in(batch)))


def check_stable(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """The candidate against itself: the same rows again, in another order and other batches."""
    format, rows, sample = candidate.format, material.rows, material.sample(candidate.format)
    if not sample.is_kept:  # for `equal` was not asked for
        for numbers in rows.batches(material.size):
            sample.keep(candidate.run(RowRange(rows, numbers.start, numbers.stop)), numbers)
    if not sample.outputs:
        return "no output has an answer for each row"
    validation.expect(format, "stable", sample.outputs)
    for chosen in sample.batches:
        try:
            again = candidate.run(rows.take(chosen))
        except RunnerError as exc:
            refusal = f"stable: rows that were answered are refused in a batch of {len(chosen)}: {exc}"
            validation.fail(format, "stable", refusal, sample.outputs)
            return None
        first = {name: sample.first_answers(name, chosen) for name in sample.outputs}
        for name, answers in first.items():
            if answers is None:
                reason = f"stable of {name}: the shape of a row's answer differs from batch to batch. {UNSTABLE}"
                validation.fail(format, "stable", reason, [name])
        compared = {name: answers for name, answers in first.items() if answers is not None}
        validation.compare(
            format, "stable", compared, {name: again[name] for name in compared}, chosen.tolist(), compared
        )
    return None


def check_goldens(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """The candidate against the outputs recorded when the model was trained."""
    if not material.goldens:
        return "no outputs were recorded when the model was trained"
    check_recorded(validation, candidate, material)
    return None


def check_recorded(validation: ResultsRecorder, runner: SubprocessRunner, material: Material) -> None:
    """A candidate or the checkpoint against the recorded outputs."""
    validation.expect(runner.format, "golden")
    inputs, recorded = (of_kind(kind, material.goldens) for kind in ("input", "output"))
    count = rows_in(inputs)
    for start in range(0, count, material.size):
        numbers = range(start, min(start + material.size, count))
        batch = {name: values[numbers.start : numbers.stop] for name, values in inputs.items()}
        expected = {
            # An output without the batch as its first dimension is recorded as it is, once for all rows.
            name: values[numbers.start : numbers.stop] if values.ndim and len(values) == count else values
            for name, values in recorded.items()
        }
        validation.compare(runner.format, "golden", expected, runner.run(batch), numbers)


TABLE: dict[str, Check] = {
    "equal": check_equal,
    "decisions": check_decisions,
    "edge": check_edges,
    "generated": check_generated,
    "stable": check_stable,
    "golden": check_goldens,
}
