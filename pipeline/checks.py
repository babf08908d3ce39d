"""The checks that validation makes of a candidate, one function each.

A check writes what it finds through `Validation`, and returns None; or it returns why it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .arrays import of_kind
from .edges import edge_batches
from .errors import RunnerError
from .findings import UNSTABLE, Validation
from .formats import ApartRunner, Array, Batch
from .rows import batch_size_of, made_up_rows
from .signature import Signature, TensorSpec
from .stability import SIZES, Sample

_SEED = 1009  # none that a chain's own made-up rows are likely to have


@dataclass
class Material:
    """What the checks of one validation run on, and what one of them leaves for others.

    Args:
        rows: the validation rows, by input name `[rows, ...]`.
        goldens: the recorded inputs and outputs; empty where none were.
        size: rows per batch.
        decisions: by format the batches of the deciding output, on the validation rows.
        samples: by format the rows to ask again, once `equal` has kept the first answers to them.
    """

    signature: Signature
    rows: Batch
    goldens: Batch
    size: int
    decisions: dict[str, list[Array]] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of validation rows."""
        return rows_in(self.rows)

    @cached_property
    def edges(self) -> Mapping[str, Batch]:
        """Batches of awkward rows, by what is special about them."""
        return edge_batches(self.signature, self.rows)

    @cached_property
    def made_up(self) -> dict[str, Batch]:
        """Batches of generated rows in several sizes, by name; none where a batch would be too large."""
        specs = tuple(
            # Lengths that the signature leaves open are those of the validation rows.
            TensorSpec(spec.name, spec.dtype, (spec.shape[0] if spec.shape else None, *self.rows[spec.name].shape[1:]))
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
            self.samples[format] = Sample(self.signature, self.count)
        return self.samples[format]

    def rows_of(self, check: str) -> int:
        """How many rows a check is made on."""
        counts: Mapping[str, Callable[[], int]] = {
            "equal": lambda: self.count,
            "edge": lambda: len(self.edges),
            "generated": lambda: sum(rows_in(batch) for batch in self.made_up.values()),
            "stable": lambda: len(Sample(self.signature, self.count).numbers),
            "golden": lambda: rows_in(of_kind("input", self.goldens)),
        }
        return counts[check]()


def rows_in(batch: Batch) -> int:
    """The number of rows of a batch."""
    return len(next(iter(batch.values()), ()))


def batches_of(rows: Batch, size: int) -> Iterator[tuple[Batch, range]]:
    """Rows in batches, each with its rows' numbers."""
    count = rows_in(rows)
    for start in range(0, count, size):
        yield (
            {name: values[start : start + size] for name, values in rows.items()},
            range(start, min(start + size, count)),
        )


Check = Callable[[Validation, ApartRunner, ApartRunner, Material], str | None]


def check_equal(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The candidate against the checkpoint, on all validation rows."""
    validation.expect(candidate.format, "equal")
    decision, sample = material.signature.decision, material.sample(candidate.format)
    for batch, numbers in batches_of(material.rows, material.size):
        reference.ask(batch)
        candidate.ask(batch)
        ours, theirs = reference.answer(), candidate.answer()
        validation.compare(candidate.format, "equal", ours, theirs, numbers)
        sample.keep(theirs, numbers)
        if decision is not None:
            for format, outputs in (("checkpoint", ours), (candidate.format, theirs)):
                if decision.output in outputs:
                    material.decisions.setdefault(format, []).append(outputs[decision.output])
    return None


def check_edges(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The same on rows that no data file holds."""
    for label, batch in material.edges.items():
        _compare_or_refuse(validation, "edge", (reference, candidate), (label, batch), [label] * rows_in(batch))
    return None


def check_generated(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The same on generated rows, in batches of several sizes."""
    if not material.made_up:
        return "a batch of generated rows would be too large"
    for label, batch in material.made_up.items():
        labels = [f"{label}/{row}" for row in range(rows_in(batch))]
        _compare_or_refuse(validation, "generated", (reference, candidate), (label, batch), labels)
    return None


def _compare_or_refuse(
    validation: Validation,
    check: str,
    runners: tuple[ApartRunner, ApartRunner],
    labelled: tuple[str, Batch],
    labels: Sequence[str],
) -> None:
    """Compares the answers to a batch; where a side refuses it, the other has to as well."""
    label, batch = labelled
    answers: dict[str, Batch] = {}
    refusals: dict[str, str | None] = {"reference": None, "candidate": None}
    for side, runner in zip(refusals, runners, strict=True):
        try:
            answers[side] = runner.run(batch)
        except RunnerError as exc:
            refusals[side] = exc.got or exc.what
    format = runners[1].format
    if any(refusals.values()):
        validation.tell_refusals(format, check, label, refusals)
    else:
        validation.compare(format, check, answers["reference"], answers["candidate"], labels)


def check_stable(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> str | None:
    """The candidate against itself: the same rows again, in another order and other batches."""
    format, rows, sample = candidate.format, material.rows, material.sample(candidate.format)
    if not sample.is_kept:  # for `equal` was not asked for
        for batch, its_rows in batches_of(rows, material.size):
            sample.keep(candidate.run(batch), its_rows)
    if not sample.outputs:
        return "no output has an answer for each row"
    validation.expect(format, "stable", sample.outputs)
    for numbers in sample.batches:
        try:
            again = candidate.run({name: values[numbers] for name, values in rows.items()})
        except RunnerError as exc:
            refusal = f"stable: rows that were answered are refused in a batch of {len(numbers)}: {exc}"
            validation.fail(format, "stable", refusal, sample.outputs)
            return None
        first = {name: sample.first_answers(name, numbers) for name in sample.outputs}
        for name, answers in first.items():
            if answers is None:
                reason = f"stable of {name}: the shape of a row's answer differs from batch to batch. {UNSTABLE}"
                validation.fail(format, "stable", reason, [name])
        compared = {name: answers for name, answers in first.items() if answers is not None}
        validation.compare(
            format, "stable", compared, {name: again[name] for name in compared}, numbers.tolist(), compared
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
    for batch, numbers in batches_of(inputs, material.size):
        expected = {
            # An output without the batch as its first dimension is recorded as it is, once for all rows.
            name: values[numbers.start : numbers.stop] if values.ndim and len(values) == count else values
            for name, values in recorded.items()
        }
        validation.compare(runner.format, "golden", expected, runner.run(batch), numbers)


TABLE: dict[str, Check] = {
    "equal": check_equal,
    "edge": check_edges,
    "generated": check_generated,
    "stable": check_stable,
    "golden": check_goldens,
}
