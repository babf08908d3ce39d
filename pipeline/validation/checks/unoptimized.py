"""Runs rows again with TensorFlow's optimizer off, if they differ only by rounding or overflow.

The checkpoint's variables are constants in a .pb, and for constants the optimizer chooses other kernels: for instance,
it folds a batch norm into the weights of a convolution. Graph and weights are equal, but the last bits differ, and in a
deep net they can exceed the bound of an element that is much smaller than its neighbours. With the optimizer off on
both sides, every node runs unchanged, so a remaining difference comes from the graph or its weights.

Where the graph of an output is proved equal to the checkpoint's, two more differences are worth the question: what is
left of a NaN, and a decision that turns where a number is rounded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.errors import RunnerError
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Batch

from ..results.recorder import ResultsRecorder

Answer: TypeAlias = "Batch | RunnerError"
Answers: TypeAlias = "tuple[Answer, Answer]"

OPTIMIZER_KINDS = frozenset({"decision", "overflow", "rounding"})


def run_both(reference: SubprocessRunner, candidate: SubprocessRunner, batch: Batch | RowRange) -> Answers:
    """Runs a batch on both sides; an error of a runner is its answer."""
    return _run(reference, batch), _run(candidate, batch)


def _run(runner: SubprocessRunner, batch: Batch | RowRange) -> Answer:
    try:
        return runner.run(batch)
    except RunnerError as exc:
        return exc


@dataclass
class OptimizerDifferences:
    """Rows that differed only by rounding or overflow, and agreed with the optimizer off.

    Args:
        labels: names of their batches, where they have one.
        largest: the largest absolute difference.
    """

    rows: int = 0
    labels: list[str] = field(default_factory=list)
    largest: float = 0.0

    def merge(self, later: OptimizerDifferences) -> None:
        """Adds those of later rows."""
        self.rows += later.rows
        self.labels += later.labels
        self.largest = max(self.largest, later.largest)

    def record(self, recorder: ResultsRecorder, format: str, check: str) -> None:
        """Adds a note on the candidate, if there are such rows."""
        if not self.rows:
            return
        named = f" ({', '.join(self.labels)})" if self.labels else ""
        how = f"differ by up to {self.largest:.3g}" if self.largest else "overflow"
        recorder.note(
            format,
            f"{check}: {self.rows} rows{named} {how} with TensorFlow's optimizer, which makes other kernels "
            f"of constants than of variables; with it off they agree, so graph and weights are the same",
        )


class UnoptimizedPair(AbstractContextManager["UnoptimizedPair"]):
    """Both sides with the optimizer off, opened at the first row that needs them.

    Args:
        check: the check that uses the pair.
        opened: the two runners to reuse, or an empty list that receives them once opened.

    Attributes:
        resolved: the rows resolved so far; they become a note on the candidate.
    """

    def __init__(
        self,
        recorder: ResultsRecorder,
        check: str,
        reference: SubprocessRunner,
        candidate: SubprocessRunner,
        opened: list[SubprocessRunner] | None = None,
    ) -> None:
        self._recorder, self._check, self._sides = recorder, check, (reference, candidate)
        self._unoptimized: list[SubprocessRunner] = [] if opened is None else opened
        self.resolved = OptimizerDifferences()
        self._is_useful = True

    def begin_segment(self) -> None:
        """Tries again, even if the optimizer did not explain the differences of the last segment."""
        self._is_useful = True

    def resolve_differences(self, batch: Batch | RowRange, answers: Answers, rows: int, label: str = "") -> Answers:
        """Returns the answers without the optimizer, if they agree and the given ones differ only by rounding.

        Args:
            answers: both sides' answers to the batch.
            rows: number of rows in the batch.
            label: name of the batch, for the note.
        """
        expected, actual = answers
        if not self._is_useful or isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
            return answers
        inputs = None if isinstance(batch, RowRange) else batch
        found = self._recorder.difference_kinds(self._sides[1].format, expected, actual, rows, inputs)
        if not found or not set(found) <= OPTIMIZER_KINDS:
            return answers
        if not self._unoptimized:
            self._unoptimized += [runner.unoptimized() for runner in self._sides]
        again = run_both(self._unoptimized[0], self._unoptimized[1], batch)
        if not self._agrees(again, rows):
            # Other batches of the segment most likely fail too, so they are not run twice.
            self._is_useful = False
            return answers
        labels, largest = [label] if label else [], max(found.get(kind, 0.0) for kind in ("rounding", "decision"))
        self.resolved.merge(OptimizerDifferences(rows, labels, largest))
        return again

    def _agrees(self, answers: Answers, rows: int) -> bool:
        expected, actual = answers
        if isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
            return False
        return not self._recorder.difference_kinds(self._sides[1].format, expected, actual, rows)

    def __exit__(self, *exc_info: object) -> None:
        for runner in self._unoptimized:
            runner.close()
        self.resolved.record(self._recorder, self._sides[1].format, self._check)
