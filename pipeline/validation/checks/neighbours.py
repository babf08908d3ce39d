"""Tells kernels that round by the size of a batch from answers that depend on other rows or on chance.

A kernel chooses the order of its additions by the shapes that it is given: one row is multiplied by another routine
than sixty-four. In floating point another order is another result. A sum of n products, computed in any order, is off
by at most

    g(n) * (|x1*y1| + ... + |xn*yn|)    with g(n) = n*u / (1 - n*u),

where u is the unit roundoff, 2^-24 for float32 (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition,
SIAM 2002, equation 3.5). So two orders differ by up to twice that: 9e-5 of the terms' sum for n = 784, and typically by
sqrt(n)*u, 2e-6 (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41-5,
2019). The bound grows with the terms and not with their sum: beside outputs of 85, an element near 0 has the error of
an element near 85. A bound in proportion to each element alone is therefore too narrow near 0.

Magnitude alone cannot acquit, because a small dependence on other rows may be as small. But the order of additions
depends on shapes, and not on values. So rows that were answered otherwise are put in the same places of two batches of
the same size, once among copies of one row, once among copies of another, as far from it as the sample has. A kernel
answers both alike, mostly to the bit; what depends on the other rows, or on chance, does not. The bound of this
comparison is the ordinary one. A row that passes it depends on nothing but the size of its batch, and that is rounding
if the first difference is

1. within the relative bound of the largest magnitude that its element has in the sample (its scale), or
2. no larger than the answers move if float inputs are moved by 16 ULP: a function this sensitive amplifies its own
   rounding, as a chaotic recurrence does (Higham, section 1.6: the forward error is the condition number times the
   backward error), or
3. below 1e-3 of its scale, and the row is answered alike to the bit in two further sizes of batch, as no function of
   the size itself is, or
4. gone with TensorFlow's optimizer off, which makes other kernels of the same graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from pipeline.data.npz import NpzReader
from pipeline.errors import RunnerError
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Array, Batch

from ..compare.differences import disagreement, is_identical, measure, row_blocks
from ..compare.tolerance import Tolerance, within_tolerance
from ..results.recorder import ResultsRecorder
from .stability import StabilitySample

_MAX_ROWS = 64  # in a batch of the trial
_ULPS, _DRAWS, _SEED = 16, 4, 11
_SIZES = (24, 40, 56)  # of further batches, in rows
_SMALL = 1e-3  # relative; above the rounding of any kernel


@dataclass(frozen=True)
class Conclusion:
    """What a candidate's answers depend on besides their row, as its answers show.

    Args:
        kind: `neighbours`, `chance` or `size`.
        sentence: the evidence.
    """

    kind: str
    sentence: str


@dataclass
class NeighbourTrial(AbstractContextManager["NeighbourTrial"]):
    """The trial of one candidate's rows that were answered otherwise in another batch.

    Args:
        max_rows: the most rows in a batch of the trial.

    Attributes:
        conclusion: why rows were not acquitted; None if all were.
    """

    recorder: ResultsRecorder
    candidate: SubprocessRunner
    rows: NpzReader
    sample: StabilitySample
    max_rows: int
    conclusion: Conclusion | None = None
    _acquitted: dict[str, float] = field(default_factory=dict)  # the largest difference by output
    _rows: set[int] = field(default_factory=set)
    _unoptimized: list[SubprocessRunner] = field(default_factory=list)

    def resolve(self, numbers: Array, first: Batch, again: Batch) -> tuple[Batch, Batch]:
        """Returns both answers to a batch, those of the trial instead for rows that are only rounded otherwise.

        Args:
            numbers: the numbers of the rows.
            first, again: by output `[rows, ...]`.
        """
        off = self._off(first, again)
        suspects = sorted({row for is_off in off.values() for row in np.flatnonzero(is_off.any(axis=1)).tolist()})
        half = min(_MAX_ROWS, self.max_rows) // 2
        if self.conclusion is not None or not suspects or not half or len(self.sample.numbers) < 2:
            return first, again
        first, again = ({name: values.copy() for name, values in side.items()} for side in (first, again))
        for start in range(0, len(suspects), half):
            places = suspects[start : start + half]
            trial = self._run_trial(numbers[places], off)
            if trial is None:
                break
            for name, is_off in off.items():
                which = np.array([place for place in places if is_off[place].any()], int)
                inside = [places.index(place) for place in which]
                self._judge(name, numbers[which], (first[name][which], again[name][which]), trial, inside)
                if self.conclusion is not None:
                    return first, again
                first[name][which], again[name][which] = (side[name][inside] for side in trial.sides)
                self._rows |= set(numbers[which].tolist())
        return first, again

    def _off(self, first: Batch, again: Batch) -> dict[str, Array]:
        """Marks the elements beyond their bounds, bool `[rows, elements]`, of the outputs that have some."""
        found = {}
        for name, values in first.items():
            other = again.get(name)
            if other is None or disagreement(values, other) is not None or is_identical(values, other):
                continue
            sides = ((values[block], other[block]) for block in row_blocks(values))
            is_off = [~within_tolerance(measure(one, two), self._tolerance(name)) for one, two in sides]
            if any(block.any() for block in is_off):
                found[name] = np.concatenate(is_off)
        return found

    def _tolerance(self, output: str) -> Tolerance:
        return self.recorder.finding(self.candidate.format, "stable", output).tolerance

    def _run_trial(self, numbers: Array, outputs: Mapping[str, Array]) -> _Trial | None:
        """Runs rows among two sorts of neighbours; None if a batch is refused or its answers are not by row."""
        contrast = self.sample.contrast(next(iter(outputs)))
        batches = []
        for neighbour in contrast:
            among = np.full(2 * len(numbers), neighbour)
            among[::2] = numbers
            batches.append(self.rows.take(among))
        trial = _Trial(batches[0], batches[1], tuple(outputs), len(numbers))
        return trial if trial.run(self.candidate) else None

    def _judge(
        self, output: str, numbers: Array, sides: tuple[Array, Array], trial: _Trial, inside: Sequence[int]
    ) -> None:
        """Judges rows by what the trial shows; sets `conclusion` if one is not acquitted.

        Args:
            sides: the two answers to the rows, `[rows, ...]`.
            inside: places of the rows in the trial.
        """
        tolerance = self._tolerance(output)
        among = [side[output][inside] for side in trial.sides]
        if any(disagreement(sides[0], other) is not None for other in among):
            self._conclude("neighbours", output, numbers[0], "the shape of its answer depends on the other rows")
            return
        moved = measure(among[0], among[1])
        is_steady = within_tolerance(moved, tolerance).all(axis=1)
        if not is_steady.all():
            row, largest = int(np.argmin(is_steady)), float(moved.absolute[~is_steady].max())
            again = trial.repeat(self.candidate, output)
            if again is None or not within_tolerance(measure(among[0], again[inside]), tolerance).all():
                evidence = f"the same batch asked twice is answered otherwise, by up to {largest:.3g}"
                self._conclude("chance", output, numbers[row], evidence)
            else:
                evidence = (
                    "in the same place of a batch of the same size, among other rows, it is answered otherwise, by up "
                    f"to {largest:.3g}; the same batch asked twice is answered alike"
                )
                self._conclude("neighbours", output, numbers[row], evidence)
            return
        differences = measure(sides[0], sides[1])
        scale = np.maximum(self.sample.scale(output, sides[0].shape[1:]), differences.magnitude)
        allowed = tolerance.atol + tolerance.rtol * scale
        excess = differences.absolute > allowed
        if excess.any() and (
            self._is_sensitive(trial, output, inside, differences.absolute, excess)
            or ((differences.absolute <= _SMALL * scale).all() and self._is_alike_in_two_sizes(numbers, output))
            or self._is_gone_unoptimized(numbers, trial, output, inside, allowed)
        ):
            excess = np.zeros_like(excess)
        if excess.any():
            row, largest = int(np.argmax(excess.any(axis=1))), float(differences.absolute[excess].max())
            evidence = (
                "among other rows in a batch of the same size it is answered alike, and in a batch of another size "
                f"otherwise, by up to {largest:.3g}: more than {tolerance.rtol:g} of the largest value there, and more "
                f"than the answers move with inputs moved by {_ULPS} ULP"
            )
            self._conclude("size", output, numbers[row], evidence)
            return
        self._acquitted[output] = max(self._acquitted.get(output, 0.0), float(differences.absolute.max()))

    def _is_sensitive(self, trial: _Trial, output: str, inside: Sequence[int], distance: Array, excess: Array) -> bool:
        """Returns True if moved inputs move the answers as far as the differences beyond their scale."""
        reach = trial.reach(self.candidate, output)
        if reach is None:
            return False
        is_number = trial.sides[0][output].dtype.kind in "fcV"
        # Numbers move by column: neighbouring rows are as sensitive. A decision is at an edge in its own row alone.
        reach = reach.max(axis=0, keepdims=True) if is_number else reach[inside]
        return bool((~excess | (distance <= reach)).all())

    def _is_alike_in_two_sizes(self, numbers: Array, output: str) -> bool:
        """Returns True if each row is answered alike, to the bit, in two of three further sizes of batch."""
        found: dict[int, list[bytes]] = {int(row): [] for row in numbers}
        for size in (size for size in _SIZES if size <= self.max_rows):
            for row, seen in found.items():
                batch = self.rows.take([row, *np.resize(self.sample.numbers, size - 1)])
                try:
                    seen.append(self.candidate.run(batch)[output][:1].tobytes())
                except (RunnerError, KeyError):
                    return False
        return all(len(set(seen)) < len(seen) for seen in found.values())

    def _is_gone_unoptimized(
        self, numbers: Array, trial: _Trial, output: str, inside: Sequence[int], allowed: Array
    ) -> bool:
        """Returns True if the answers agree with the optimizer off, in two sizes of batch."""
        if not FORMATS[self.candidate.format].is_optimized:
            return False
        if not self._unoptimized:
            self._unoptimized.append(self.candidate.unoptimized())
        try:
            large = self._unoptimized[0].run(trial.one)[output][::2][inside]
            small = np.concatenate([self._unoptimized[0].run(self.rows.take([row]))[output] for row in numbers])
        except (RunnerError, KeyError, ValueError):
            return False
        return disagreement(large, small) is None and bool((measure(large, small).absolute <= allowed).all())

    def _conclude(self, kind: str, output: str, row: int, evidence: str) -> None:
        self.conclusion = Conclusion(kind, f"row {int(row)}, output {output}: {evidence}")

    def __exit__(self, *exc_info: object) -> None:
        for runner in self._unoptimized:
            runner.close()
        if self._rows and self.conclusion is None:
            largest = max(self._acquitted.values())
            self.recorder.note(
                self.candidate.format,
                f"stable: {len(self._rows)} rows differ by up to {largest:.3g} between batches of different sizes, "
                "because kernels add in an order that depends on the size; among other rows, in a batch of the same "
                "size, they are answered alike, so they depend on their row alone",
            )


@dataclass
class _Trial:
    """Rows at the even places of two batches, among copies of one row or another at the odd ones.

    Args:
        one, other: by input `[2 * rows, ...]`.
        sides: the answers to the rows in either batch, by output `[rows, ...]`.
    """

    one: Batch
    other: Batch
    outputs: tuple[str, ...]
    count: int
    sides: tuple[dict[str, Array], dict[str, Array]] = ({}, {})

    def run(self, candidate: SubprocessRunner) -> bool:
        """Runs both batches; returns False if that is refused, or an output is not by row."""
        found = [self._answers(candidate, batch) for batch in (self.one, self.other)]
        if found[0] is None or found[1] is None:
            return False
        self.sides = found[0], found[1]
        return True

    def repeat(self, candidate: SubprocessRunner, output: str) -> Array | None:
        """Runs the first batch again."""
        found = self._answers(candidate, self.one)
        return None if found is None or found[output].shape != self.sides[0][output].shape else found[output]

    def reach(self, candidate: SubprocessRunner, output: str) -> Array | None:
        """Measures how far the answers move if float inputs are moved by a few ULP: float64 `[rows, elements]`."""
        draw, reached = np.random.default_rng(_SEED), None
        if not any(values.dtype.kind in "fV" for values in self.one.values()):
            return None
        for _ in range(_DRAWS):
            moved = {name: _move(values, draw) for name, values in self.one.items()}
            found = self._answers(candidate, moved)
            if found is None or disagreement(self.sides[0][output], found[output]) is not None:
                return None
            distance = measure(self.sides[0][output], found[output]).absolute
            reached = distance if reached is None else np.maximum(reached, distance)
        return reached

    def _answers(self, candidate: SubprocessRunner, batch: Batch) -> dict[str, Array] | None:
        try:
            answers = candidate.run(batch)
        except RunnerError:
            return None
        if any(name not in answers or answers[name].shape[:1] != (2 * self.count,) for name in self.outputs):
            return None
        return {name: answers[name][::2] for name in self.outputs}


def _move(values: Array, draw: np.random.Generator) -> Array:
    """Multiplies floats by 1 plus or minus 16 ULP; other values stay."""
    if values.dtype.kind not in "fV":
        return values
    step = _ULPS * (np.finfo(values.dtype).eps if values.dtype.kind == "f" else 2.0**-7)
    signs = draw.choice([-1.0, 1.0], values.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        moved: Array = (values.astype(np.float64) * (1 + step * signs)).astype(values.dtype)
    return moved
