"""Sample of rows that a candidate answers twice, in different batches: the answers must be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import cycle

import numpy as np

from pipeline.signature import Array, Signature, batch_size_of

from ..compare.differences import by_row, measure

MAX_ROWS = 256
BATCH_SIZES = (1, 2, 7, 64)  # used in turns for the second answers
_SEED = 7


class StabilitySample:
    """Randomly drawn rows, a candidate's first answers to them, and the batches in which they are run again.

    Where the batch size is fixed, the first dimension may not be rows, so whole batches are drawn: their rows stay
    together and only change their order.

    Args:
        count: number of validation rows.
        max_rows: the most rows to draw.
        max_batch: the most rows in a batch.
    """

    def __init__(
        self, signature: Signature, count: int, max_rows: int = MAX_ROWS, max_batch: int = BATCH_SIZES[-1]
    ) -> None:
        self._max_batch = max_batch
        self._size = batch_size_of(signature)
        self._draw = np.random.default_rng(_SEED)
        size = self._size or 1
        drawn = self._draw.choice(count // size, min(count // size, max(1, max_rows // size)), replace=False)
        self.numbers = (np.sort(drawn)[:, None] * size + np.arange(size)).ravel()  # [rows], ascending
        self.batches = list(self._batches())
        self.outputs = [
            spec.name for spec in signature.outputs if spec.shape is None or spec.shape[:1] == (self._size,)
        ]
        self._first: dict[str, dict[int, Array]] = {name: {} for name in self.outputs}
        self._scales: dict[tuple[str, tuple[int, ...]], Array] = {}
        self._first_batches: dict[int, range] = {}
        self._pairs: dict[str, int] = {}  # by output, the dimension of the other row
        self.repeated = set[str]()  # outputs whose answers go on as they ended, up to the longest of their batch
        self.padding: dict[str, Array] = {}  # by output, the value that fills answers up to the longest of their batch

    def _batches(self) -> Iterator[Array]:
        if self._size:
            yield from self._draw.permutation(self.numbers.reshape(-1, self._size))
            return
        shuffled, start = self._draw.permutation(self.numbers), 0
        for size in cycle(BATCH_SIZES):
            if start >= len(shuffled):
                return
            yield shuffled[start : start + min(size, self._max_batch)]
            start += min(size, self._max_batch)

    @property
    def is_complete(self) -> bool:
        """True once there is a first answer to each row."""
        return all(len(self._first[name]) == len(self.numbers) for name in self.outputs)

    def keep(self, outputs: Mapping[str, Array], numbers: range) -> None:
        """Keeps the first answers to the rows of a batch that are in the sample.

        An output without one answer for each row cannot be compared by row, and is removed from `outputs`.
        """
        kept = self.numbers[(self.numbers >= numbers.start) & (self.numbers < numbers.stop)]
        self._first_batches |= dict.fromkeys(map(int, kept), numbers)
        for name in list(self.outputs):
            values = outputs.get(name)
            if values is None or not values.ndim or len(values) != len(numbers):
                self.outputs.remove(name)
                continue
            # Copied, because a view would hold the whole batch in memory.
            self._first[name] |= {
                int(row): values[row - numbers.start : row - numbers.start + 1].copy() for row in kept
            }

    def find_pairs(self, again: Mapping[str, Array]) -> None:
        """Finds outputs with an answer for each pair of rows: a further dimension is as long as the batch.

        Args:
            again: the answers to the first of `batches`.
        """
        numbers = self.batches[0]
        size, first_size = len(numbers), len(self._first_batches[int(numbers[0])])
        for name in self.outputs:
            first = self.first_answers(name, numbers)
            if first is None or name not in again or size == first_size:
                continue
            sides = zip(first.shape[1:], again[name].shape[1:], strict=False)
            axes = [axis for axis, (was, now) in enumerate(sides, 1) if was == first_size and now == size]
            if axes:
                self._pairs[name] = axes[0]

    def first_pairs(self, name: str, numbers: Array, again: Array) -> Array | None:
        """Returns the first answers to the pairs of rows in a batch, in the shape of the second ones.

        Pairs that were not together in a batch have no first answer: theirs is the second. None if the output has not
        an answer for each pair.
        """
        if name not in self._pairs:
            return None
        axis, expected = self._pairs[name], again.copy()
        for at, row in enumerate(map(int, numbers)):
            batch = self._first_batches[row]
            known = [place for place, other in enumerate(map(int, numbers)) if other in batch]
            columns = [int(numbers[place]) - batch.start for place in known]
            answer = np.take(self._first[name][row][0], columns, axis=axis - 1)
            expected[at][(slice(None),) * (axis - 1) + (known,)] = answer
        return expected

    def pad_alike(self, name: str, numbers: Array, again: Array) -> tuple[Array, Array] | None:
        """Returns the first and the second answers to rows, filled up to one shape with the output's padding.

        Answers of many lengths, such as decoded words, are padded to the longest of their batch: what is beyond the
        shorter of two answers is one value, the same for all rows.

        Or they go on as they ended, such as a state that stays after the last step of its row: then each is filled up
        with its own last value.

        Returns:
            Both, `[rows, ...]`; None if the answers are not padded so.
        """
        firsts = [self._first[name][int(row)][0] for row in numbers]
        if any(first.ndim != again.ndim - 1 or first.dtype != again.dtype for first in firsts):
            return None
        shape = np.max([again.shape[1:], *(first.shape for first in firsts)], axis=0).tolist()
        beyond = [_beyond(one, other) for pair in zip(firsts, again, strict=True) for one, other in (pair, pair[::-1])]
        filling = np.concatenate(beyond)
        value = self.padding.get(name, filling[:1])
        if name in self.repeated or not len(value) or not _is_same(filling, value):
            return self._repeat_alike(name, firsts, again)
        self.padding[name] = value
        sides = np.empty((2, len(numbers), *shape), again.dtype)
        sides[...] = value[0]
        for row, pair in enumerate(zip(firsts, again, strict=True)):
            for side, answer in enumerate(pair):
                sides[side, row][tuple(map(slice, answer.shape))] = answer
        return sides[0], sides[1]

    def _repeat_alike(self, name: str, firsts: Sequence[Array], again: Array) -> tuple[Array, Array] | None:
        """Returns both answers filled up to one length; None if one that is longer does not repeat what is shared.

        Answers of which all are one value from the first on are none that ended: their length is the batch's.
        """
        answers = [*firsts, again[0]] if again.size else []
        is_alike = all(one.size and one.shape[1:] == again.shape[2:] for one in answers)
        if not answers or not is_alike:
            return None
        if all(_is_same(one[0], one[0, :1]) for one in self._first[name].values()):
            return None
        length = max(again.shape[1], *(len(first) for first in firsts))
        sides = np.empty((2, len(firsts), length, *again.shape[2:]), again.dtype)
        for row, (first, other) in enumerate(zip(firsts, again, strict=True)):
            shorter = min(len(first), len(other))
            for side, answer in enumerate((first, other)):
                if not _is_same(answer[shorter:], answer[shorter - 1]):
                    return None
                sides[side, row] = answer[np.minimum(np.arange(length), len(answer) - 1)]
        self.repeated.add(name)
        self.padding.pop(name, None)  # a batch of one row has one last value
        return sides[0], sides[1]

    def merge(self, later: StabilitySample) -> None:
        """Adds the first answers to later rows of the same sample."""
        self.outputs = [name for name in self.outputs if name in later.outputs]
        for name in self.outputs:
            self._first[name] |= later._first[name]
        self._first_batches |= later._first_batches

    def scale(self, name: str, shape: tuple[int, ...]) -> Array:
        """Returns the largest finite magnitude of each element over the answers of a shape: float64 `[1, elements]`.

        Args:
            shape: of one row's answer.
        """
        if (name, shape) not in self._scales:
            alike = (answer for answer in self._first[name].values() if answer.shape[1:] == shape)
            self._scales[name, shape] = reduce(np.maximum, (measure(answer, answer).magnitude for answer in alike))
        return self._scales[name, shape]

    def contrast(self, name: str) -> tuple[int, int]:
        """Returns the rows with the lowest and the highest answers on average."""
        means = {
            row: float(np.nan_to_num(by_row(answer).astype(np.float64)).mean()) if answer.dtype.kind not in "OSU" else 0
            for row, answer in self._first[name].items()
        }
        rows = sorted(means, key=means.__getitem__)
        return rows[0], rows[-1]

    def first_answers(self, name: str, numbers: Array) -> Array | None:
        """Returns the first answers `[rows, ...]` of an output; None if their shapes differ from row to row."""
        answers = [self._first[name][int(row)] for row in numbers]
        return np.concatenate(answers) if len({answer.shape for answer in answers}) == 1 else None


def _is_same(values: Array, value: Array) -> bool:
    """Returns True if all values are one, to the bit; NaN is NaN."""
    return bool(((values == value) | ((values != values) & (value != value))).all())


def _beyond(answer: Array, other: Array) -> Array:
    """Returns the values of an answer that are beyond the shape of another one, flat."""
    is_beyond = np.ones(answer.shape, bool)
    is_beyond[tuple(map(slice, other.shape))] = False
    return answer[is_beyond]
