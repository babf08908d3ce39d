"""Rows that differ only in how kernels round or overflow are asked again with TensorFlow's optimizer off.

A checkpoint's variables are constants in its .pb, and of constants the optimizer makes other kernels: it folds a batch
norm into the weights of a convolution, say. The graph and its weights are the same, and the last bits are not; in a
deep net they may pass the bound of an element that is small beside its neighbours. With the optimizer off on both
sides every node is run as it stands, so that what differs then is the graph or its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.errors import RunnerError
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.signature import Batch

from ..results.recorder import ResultsRecorder

Answer: TypeAlias = "Batch | RunnerError"
Answers: TypeAlias = "tuple[Answer, Answer]"

EXCUSABLE = frozenset({"not finite", "rounding"})


def ask_both(reference: SubprocessRunner, candidate: SubprocessRunner, batch: Batch | RowRange) -> Answers:
    """What both sides answer to a batch, or why they refuse it."""
    return _ask(reference, batch), _ask(candidate, batch)


def _ask(runner: SubprocessRunner, batch: Batch | RowRange) -> Answer:
    try:
        return runner.run(batch)
    except RunnerError as exc:
        return exc


@dataclass
class Excused:
    """What differed by rounding alone, and agreed with the optimizer off.

    Args:
        rows: how many.
        labels: of the batches that have one.
        largest: the largest absolute difference.
    """

    rows: int = 0
    labels: list[str] = field(default_factory=list)
    largest: float = 0.0

    def absorb(self, later: Excused) -> None:
        """Adds what was excused on later rows."""
        self.rows += later.rows
        self.labels += later.labels
        self.largest = max(self.largest, later.largest)

    def tell(self, validation: ResultsRecorder, format: str, check: str) -> None:
        """Makes a note of it, if there is anything."""
        if not self.rows:
            return
        named = f" ({', '.join(self.labels)})" if self.labels else ""
        how = f"differ by up to {self.largest:.3g}" if self.largest else "overflow"
        validation.note(
            format,
            f"{check}: {self.rows} rows{named} {how} with TensorFlow's optimizer, which makes other kernels "
            f"of constants than of variables; with it off they agree, so graph and weights are the same",
        )


class UnoptimizedPair:
    """Both sides with the optimizer off, opened when the first row needs it. Its rows become a note on the candidate.

    Args:
        check: the name of the check that it is for.
        opened: both sides with the optimizer off, empty if they are not opened yet; what is opened is put there, and
            may be used again by the next pair.

    Attributes:
        excused: its rows so far.
    """

    def __init__(
        self,
        validation: ResultsRecorder,
        check: str,
        reference: SubprocessRunner,
        candidate: SubprocessRunner,
        opened: list[SubprocessRunner] | None = None,
    ) -> None:
        self._validation, self._check, self._deployed = validation, check, (reference, candidate)
        self._plain: list[SubprocessRunner] = [] if opened is None else opened
        self.excused = Excused()
        self._is_of_use = True

    def begin_stretch(self) -> None:
        """Tries anew: what was wrong with batches before may not be with those that come."""
        self._is_of_use = True

    def settled(self, batch: Batch | RowRange, answers: Answers, rows: int, label: str = "") -> Answers:
        """The answers to judge: those of the plain pair where the given ones differ by rounding alone and those agree.

        Args:
            answers: both sides' to the batch.
            rows: how many the batch has.
            label: what the batch is called, for the note.
        """
        ours, theirs = answers
        if not self._is_of_use or isinstance(ours, RunnerError) or isinstance(theirs, RunnerError):
            return answers
        found = self._validation.disagreeing(self._deployed[1].format, ours, theirs, rows)
        if not found or not set(found) <= EXCUSABLE:
            return answers
        if not self._plain:
            self._plain += [runner.unoptimized() for runner in self._deployed]
        again = ask_both(self._plain[0], self._plain[1], batch)
        if not self._agrees(again, rows):
            # What is wrong with one batch is mostly wrong with all: they need not all be asked twice.
            self._is_of_use = False
            return answers
        self.excused.absorb(Excused(rows, [label] if label else [], found.get("rounding", 0.0)))
        return again

    def _agrees(self, answers: Answers, rows: int) -> bool:
        ours, theirs = answers
        if isinstance(ours, RunnerError) or isinstance(theirs, RunnerError):
            return False
        return not self._validation.disagreeing(self._deployed[1].format, ours, theirs, rows)

    def __enter__(self) -> UnoptimizedPair:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for runner in self._plain:
            runner.close()
        self.excused.tell(self._validation, self._deployed[1].format, self._check)
