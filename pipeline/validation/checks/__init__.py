"""The checks that validation makes of a candidate, one function each.

A check writes what it finds through `Validation`, and returns None; or it returns why it does not apply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.data.edge_cases import edge_batches
from pipeline.data.generated import batch_size_of, made_up_rows
from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import RunnerError, SettingError, nearest
from pipeline.formats.registry import FORMATS, ApartRunner, Array, Batch, Wanted
from pipeline.freezing.freeze import SIGNATURE, read_origin
from pipeline.rowfile import RowFile
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.workers.child import Limits

from ..compare.decisions import Flips, Scores
from ..compare.differences import is_finite
from ..results.findings import UNSTABLE
from ..results.recorder import Validation
from .passes import compare_rows, tell_answers
from .stability import SIZES, Sample
from .unoptimized import Answers, PlainPair, ask_both

_SEED = 1009  # none that a chain's own made-up rows are likely to have


@dataclass
class Material:
    """What the checks of one validation run on, and what one of them leaves for others.

    Args:
        rows: the validation rows.
        labels: the rows' true classes, int `[rows]` under the name `labels`; None where there are none.
        goldens: the recorded inputs and outputs; empty where none were.
        size: rows per batch.
        scores: by format what it decides, the checkpoint's too, once the validation rows were answered.
        flips: by format the rows that it decides otherwise than the checkpoint.
        rows_per_second: by format how fast the validation rows were compared.
        samples: by format the rows to ask again, once the first answers to them are kept.
        score_edges: of the bins in which all sides' scores are counted, once the first batch was answered; None where
            that has not one decision for each row.
        compare_elsewhere: makes the pass of a check over the validation rows in other processes; None where this one
            makes it.
    """

    signature: Signature
    rows: RowFile
    labels: RowFile | None
    goldens: Batch
    size: int
    scores: dict[str, Scores] = field(default_factory=dict)
    flips: dict[str, Flips] = field(default_factory=dict)
    rows_per_second: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)
    score_edges: Array | None = None
    compare_elsewhere: Elsewhere | None = None

    @cached_property
    def edges(self) -> Mapping[str, Batch]:
        """Batches of awkward rows, by what is special about them."""
        return edge_batches(self.signature, self.rows.first)

    @cached_property
    def made_up(self) -> dict[str, Batch]:
        """Batches of generated rows in several sizes, by name; none where a batch would be too large."""
        specs = tuple(
            # Lengths that the signature leaves open are those of the validation rows.
            TensorSpec(
                spec.name,
                spec.dtype,
                (spec.shape[0] if spec.shape else None, *self.rows.first[spec.name].shape[1:]),
            )
            for spec in self.signature.inputs
        )
        fixed = batch_size_of(self.signature)
        sizes = (fixed,) if fixed else SIZES
        rows = made_up_rows(Signature(specs, self.signature.outputs), sum(sizes), _SEED)
        starts = np.cumsum([0, *sizes[:-1]])
        batches = {
            f"made up {size}": {name: values[start : start + size] for name, values in rows.items()}
            for start, size in zip(starts, sizes, strict=True)
        }
        return {label: batch for label, batch in batches.items() if rows_in(batch)}

    def sample(self, format: str) -> Sample:
        """The rows that a candidate is asked again; the same ones for every candidate."""
        if format not in self.samples:
            self.samples[format] = Sample(self.signature, len(self.rows))
        return self.samples[format]

    def rows_of(self, check: str) -> int:
        """How many rows a check is made on."""
        counts: Mapping[str, Callable[[], int]] = {
            "equal": lambda: len(self.rows),
            "decisions": lambda: max((flips.rows for flips in self.flips.values()), default=0),
            "edge": lambda: len(self.edges),
            "generated": lambda: sum(rows_in(batch) for batch in self.made_up.values()),
            "stable": lambda: len(Sample(self.signature, len(self.rows)).numbers),
            "golden": lambda: rows_in(of_kind("input", self.goldens)),
        }
        return counts[check]()


def limits_of(checkpoint: Path, limits: Limits) -> Limits | None:
    """What the process of a checkpoint may take: one that somebody else made no more than a candidate."""
    return limits if read_origin(checkpoint / SIGNATURE) else None


def read_material(checkpoint: Path, settings: ValidationSettings, batch: int | None) -> Material:
    """What the checks of a validation run on.

    Args:
        checkpoint: its artifact, with its signature, goldens and validation rows.
        batch: the number of rows that a candidate takes at once, where that is fixed.

    Raises:
        SettingError: a tolerance is for an output that is not there.
        DataError: a file of the artifact is missing or damaged.
    """
    signature = Signature.read(checkpoint / "signature.json")
    if batch is not None:
        signature = signature.of_batch(batch)
    for output in settings.output_tolerances:
        names = [spec.name for spec in signature.outputs]
        if output not in names:
            raise SettingError(
                "no such output", where="[validation] tolerances", got=output, next_step=nearest(output, names)
            )
    path, recorded = checkpoint / "validation.npz", checkpoint / "goldens.npz"
    kept = RowFile(path)
    has_classes = "labels" in kept.names and kept.first["labels"].dtype.kind in "iu"
    goldens = load_arrays(recorded) if recorded.exists() else {}
    size = batch_size_of(signature) or settings.batch_size
    return Material(signature, RowFile(path, "input"), kept if has_classes else None, goldens, size)


def rows_in(batch: Batch) -> int:
    """The number of rows of a batch."""
    return len(next(iter(batch.values()), ()))


Check = Callable[[Validation, ApartRunner, ApartRunner, Material], str | None]
Elsewhere = Callable[[Validation, ApartRunner, ApartRunner, Material, str], None]


def check_equal(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The candidate against the checkpoint, on all validation rows."""
    format, started = candidate.format, time.monotonic()
    validation.expect(format, "equal")
    if material.compare_elsewhere is not None:
        material.compare_elsewhere(validation, reference, candidate, material, "equal")
    else:
        with PlainPair(validation, "equal", reference, candidate) as plain:
            compare_rows(validation, reference, candidate, material, range(len(material.rows)), plain)
    material.rows_per_second[format] = len(material.rows) / (time.monotonic() - started)
    return None


def check_decisions(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
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
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The same on rows that no data file holds.

    A format that other kernels compute is not held to what TensorFlow's make of NaN, infinities and what overflows: a
    max-pool may pass NaN on or drop it.
    """
    format, left_out = candidate.format, list[str]()
    with PlainPair(validation, "edge", reference, candidate) as plain:
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
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The same on generated rows, in batches of several sizes."""
    if not material.made_up:
        return "a batch of generated rows would be too large"
    with PlainPair(validation, "generated", reference, candidate) as plain:
        for label, batch in material.made_up.items():
            labels = [f"{label}/{row}" for row in range(rows_in(batch))]
            answers = plain.settled(batch, ask_both(reference, candidate, batch), rows_in(batch))
            tell_answers(validation, "generated", candidate.format, label, answers, labels)
    return None


def _is_other_overflow(validation: Validation, format: str, batch: Batch, answers: Answers) -> bool:
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
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The candidate against itself: the same rows again, in another order and other batches."""
    format, rows, sample = candidate.format, material.rows, material.sample(candidate.format)
    if not sample.is_kept:  # for `equal` was not asked for
        for numbers in rows.batches(material.size):
            sample.keep(candidate.run(Wanted(rows, numbers.start, numbers.stop)), numbers)
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
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The candidate against the outputs recorded when the model was trained."""
    if not material.goldens:
        return "no outputs were recorded when the model was trained"
    check_recorded(validation, candidate, material)
    return None


def check_recorded(validation: Validation, runner: ApartRunner, material: Material) -> None:
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
