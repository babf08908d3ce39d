"""Feeds rows that were made up to both sides, and tells faults of the candidate from what proves nothing.

A row that the checkpoint refuses proves nothing, whatever the candidate says: it is left out, and told. If a batch is
refused, its halves are tried, until it is known which rows are.

Rows at the ends of their range can make differences that are rounding. An answer that moves far when its inputs move a
little moves as far by the rounding of kernels (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition,
SIAM 2002, section 1.6: the forward error is the condition number times the backward error). So a difference beyond its
bound is held against the candidate only if it is larger than what the checkpoint's own answers move when its inputs are
moved by the relative bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import RunnerError
from pipeline.formats.calibration import rows_within
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Array, Batch, batch_size_of

from ..compare.differences import disagreement, is_finite, is_identical, measure
from ..compare.tolerance import Tolerance, tolerance_for, within_tolerance
from ..results.recorder import ResultsRecorder
from .made_up import ranges_of, sentence_of
from .material import Material, row_count
from .unoptimized import Answer, UnoptimizedPair

_DRAWS, _SEED, _LEAST_STEP = 4, 2029, 2e-6  # the step is about 16 ULP of a float32
_MOST_REFUSED = 3  # single rows that a candidate alone refuses; later batches are not cut
_MOST_NAMED = 5
_LOSSY = ("half", "int8")  # classes of candidates of less precision, and of bounds measured on usual rows
_LOSSY_FACTOR = 2  # of those bounds, on rows that were made up


@dataclass
class RowTrial(AbstractContextManager["RowTrial"]):
    """Rows of one check of one candidate.

    Attributes:
        rows: number of rows that were fed.
        refused: by row, what the checkpoint said that refused it.
    """

    recorder: ResultsRecorder
    check: str
    reference: SubprocessRunner
    candidate: SubprocessRunner
    material: Material
    rows: int = 0
    refused: dict[str, Answer] = field(default_factory=dict)
    _beyond: int = 0
    _endless: int = 0  # rows whose answers are not finite, for kernels that are not TensorFlow's
    _refusals: int = 0  # rows that the candidate alone refuses
    _acquitted: int = 0
    _farthest: float = 0.0

    def __post_init__(self) -> None:
        self._format = self.candidate.format
        self._is_foreign = FORMATS[self._format].edge_cases == "finite"
        self._is_lossy = self.recorder.tolerance_classes.get(self._format, "") in _LOSSY
        self._ranges = ranges_of(self.candidate, self.material.signature)
        self._size = batch_size_of(self.material.signature)
        self._unoptimized = UnoptimizedPair(self.recorder, self.check, self.reference, self.candidate)

    def climb(self, labels: Sequence[str], rows: Batch, is_alone: bool = False) -> None:
        """Feeds rows in batches.

        Args:
            labels: a name for each row.
            is_alone: each in a batch of its own.
        """
        size = self._size or (1 if is_alone else min(self.material.batch_size, self.material.sizes.held))
        for start in range(0, len(labels), size):
            numbers = np.arange(start, start + (size if self._size else min(size, len(labels) - start)))
            numbers = np.minimum(numbers, len(labels) - 1)  # a batch of fixed size is filled with its last row
            self.feed(
                [labels[number] for number in numbers.tolist()],
                {name: values[numbers] for name, values in rows.items()},
            )

    def feed(self, labels: Sequence[str], rows: Batch, is_cut: bool = True) -> None:
        """Feeds a batch.

        Args:
            is_cut: feed its halves if it is refused.
        """
        is_cut = is_cut and self._size is None
        is_within = rows_within(self._ranges, rows, len(labels))
        if not is_within.all():
            chosen = np.flatnonzero(is_within) if is_cut else np.array([], np.int64)
            self._beyond += len(labels) - len(chosen)
            labels, rows = [labels[row] for row in chosen], {name: values[chosen] for name, values in rows.items()}
        if not labels:
            return
        try:
            expected = self.reference.run(rows)
        except RunnerError as exc:
            if is_cut and len(labels) > 1:
                self._feed_halves(labels, rows)
            else:
                self.refused[labels[0]] = exc
            return
        try:
            actual = self.candidate.run(rows)
        except RunnerError as exc:
            if is_cut and len(labels) > 1 and self._refusals < _MOST_REFUSED:
                self._feed_halves(labels, rows)
                return
            self._refusals += 1
            self.rows += len(labels)
            refusals = {"reference": None, "candidate": sentence_of(exc)}
            self.recorder.record_refusals(self._format, self.check, labels[0], refusals)
            return
        self.judge(labels, rows, expected, actual)

    def _feed_halves(self, labels: Sequence[str], rows: Batch) -> None:
        middle = len(labels) // 2
        for half in (slice(None, middle), slice(middle, None)):
            self.feed(labels[half], {name: values[half] for name, values in rows.items()})

    def judge(self, labels: Sequence[str], rows: Batch, expected: Batch, actual: Batch) -> None:
        """Records the answers to a batch, with the checkpoint's in the place of those that differ by rounding."""
        count = len(labels)
        if self._is_foreign and not (is_sane := _finite_rows(expected, count)).all():
            if not is_sane.any() or any(each.shape[:1] != (count,) for each in (*expected.values(), *actual.values())):
                self._endless += count
                return
            self._endless += int((~is_sane).sum())
            labels = [label for label, is_kept in zip(labels, is_sane, strict=True) if is_kept]
            rows, expected, actual = (
                {name: values[is_sane] for name, values in side.items()} for side in (rows, expected, actual)
            )
        self.rows += len(labels)
        answers = self._unoptimized.resolve_differences(rows, (expected, actual), len(labels))
        if not isinstance(answers[0], RunnerError) and not isinstance(answers[1], RunnerError):
            expected, actual = answers[0], answers[1]
        actual = self._acquit(rows, expected, actual, len(labels))
        self.recorder.compare(self._format, self.check, expected, actual, labels)

    def _acquit(self, rows: Batch, expected: Batch, actual: Batch, count: int) -> Batch:
        """Returns the candidate's answers with the checkpoint's in the place of those that differ by rounding."""
        off = self._off(expected, actual, count)
        if not off:
            return actual
        chosen = np.flatnonzero(np.any([is_off.any(axis=1) for is_off in off.values()], axis=0))
        reach = self._reach(rows, expected, chosen)
        acquitted, are_acquitted = dict(actual), np.zeros(count, bool)
        for name, is_off in off.items():
            differences = measure(expected[name], actual[name])
            tolerance = self._tolerance(name)
            allowed = np.zeros_like(differences.absolute)
            if expected[name].dtype.kind in "fcV":
                factor = _LOSSY_FACTOR if self._is_lossy else 1
                largest = differences.magnitude.max(axis=1, keepdims=True, initial=0)
                magnitude = largest if self._is_foreign else differences.magnitude
                allowed += factor * (tolerance.atol + tolerance.rtol * magnitude)
            if name in reach:
                allowed[chosen] += reach[name]
            is_far = (is_off & ~(differences.absolute <= allowed)).any(axis=1)
            is_near = is_off.any(axis=1) & ~is_far
            if self._is_lossy and self.check == "boundary" and expected[name].dtype.kind not in "fcV":
                is_near = is_off.any(axis=1)  # which side of its edge a row is on is not known to its precision
            if is_near.any():
                acquitted[name] = actual[name].copy()
                acquitted[name][is_near] = expected[name][is_near]
                are_acquitted |= is_near
                self._farthest = max(self._farthest, float(differences.absolute[is_near].max()))
        self._acquitted += int(are_acquitted.sum())
        return acquitted

    def _tolerance(self, output: str) -> Tolerance:
        return self.recorder.finding(self._format, self.check, output).tolerance

    def _off(self, expected: Batch, actual: Batch, count: int) -> dict[str, Array]:
        """Marks the elements beyond their bounds, bool `[rows, elements]`, of the outputs that have some."""
        found = {}
        for spec in self.material.signature.outputs:
            one, other = expected.get(spec.name), actual.get(spec.name)
            if one is None or other is None or disagreement(one, other) is not None or one.shape[:1] != (count,):
                continue
            if not is_identical(one, other):
                is_off = ~within_tolerance(measure(one, other), self._tolerance(spec.name))
                if is_off.any():
                    found[spec.name] = is_off
        return found

    def _reach(self, rows: Batch, expected: Batch, chosen: Array) -> dict[str, Array]:
        """Measures how far the checkpoint's answers move if float inputs move: by output `[rows, elements or 1]`.

        Args:
            chosen: the rows to look at; all of the batch are run if its size is fixed.
        """
        if not any(values.dtype.kind in "fV" for values in rows.values()):
            return {}
        outputs = [spec for spec in self.material.signature.outputs if spec.name in expected]
        settings, kind = self.recorder.settings, self.recorder.tolerance_classes.get(self._format, "")
        rtol = tolerance_for(settings, "float32", kind).rtol
        step = max(_LEAST_STEP, rtol, *(self._tolerance(spec.name).rtol for spec in outputs))
        run = np.arange(row_count(rows)) if self._size else chosen
        inside = chosen if self._size else np.arange(len(chosen))
        draw, reached = np.random.default_rng(_SEED), dict[str, Array]()
        for number in range(_DRAWS):
            if number % 2 == 0:  # and then the other way, so that one of the two crosses an edge that is near
                signs = {name: draw.choice([-step, step], values[run].shape) for name, values in rows.items()}
            steps = {name: values if number % 2 == 0 else -values for name, values in signs.items()}
            try:
                moved = self.reference.run({name: _moved(values[run], steps[name]) for name, values in rows.items()})
            except RunnerError:
                return {}
            for spec in outputs:
                sides = expected[spec.name][chosen], moved[spec.name][inside]
                if disagreement(*sides) is not None:
                    continue
                distance = measure(*sides).absolute
                if sides[0].dtype.kind in "fciuV":
                    distance = distance.max(axis=1, keepdims=True, initial=0)
                reached[spec.name] = np.maximum(reached.get(spec.name, 0), distance)
        return reached

    def __exit__(self, *exc_info: object) -> None:
        self._unoptimized.__exit__(*exc_info)
        self.material.searched[self.check] = max(self.rows, self.material.searched.get(self.check, 0))
        self._note_left_out()
        if self._acquitted:
            self.recorder.note(
                self._format,
                f"{self.check}: {self._acquitted} rows that were made up differ by up to {self._farthest:.3g}, no more "
                "than rounding: the checkpoint's own answers move as far when its inputs move by the relative bound, "
                "or it is within the bound of the row's largest value",
            )

    def _note_left_out(self) -> None:
        if self.refused:
            named = ", ".join([*self.refused][:_MOST_NAMED]) + (", …" if len(self.refused) > _MOST_NAMED else "")
            first = sentence_of(next(iter(self.refused.values())))
            self.recorder.note(
                self._format,
                f"{self.check}: {len(self.refused)} rows or batches ({named}) are none that this model takes, so they "
                f"prove nothing: {first}",
            )
        if self._beyond:
            told = ", ".join(f"{name} from {low:.3g} to {high:.3g}" for name, (low, high) in self._ranges.items())
            self.recorder.note(
                self._format,
                f"{self.check}: {self._beyond} rows are beyond the range that {self._format} was calibrated for "
                f"({told}), and are not held against it",
            )
        if self._endless:
            self.recorder.note(
                self._format,
                f"{self.check}: {self._endless} rows have answers that are NaN or infinite, which the kernels of "
                f"{self._format} need not share with TensorFlow's",
            )


def _moved(values: Array, steps: Array) -> Array:
    """Multiplies floats by 1 plus steps; other values stay."""
    if values.dtype.kind not in "fV":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values.astype(np.float64) * (1 + steps)).astype(values.dtype)


def _finite_rows(answers: Batch, count: int) -> Array:
    """Finds the rows of which all answers are finite: bool `[rows]`."""
    found = np.ones(count, bool)
    for values in answers.values():
        is_good = is_finite(values) if values.ndim else np.ones((1, 1), bool)
        found &= is_good.all(axis=1) if len(is_good) == count else bool(is_good.all())
    return found
