"""Runs batches of rows through models with inputs that have one value for all rows, or with no input at all.

Everywhere else a batch has rows: such an input has its value in each of them. Here, at the model's door, rows of equal
values are run together. If no input has rows, each row is a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import RunnerError
from pipeline.signature import Array, Batch, Signature, as_fed, whole_inputs

from .runner import Runner


def run_by_rows(runner: Runner, signature: Signature) -> Runner:
    """Returns a runner that takes rows for each input of a signature; the given one if all inputs have rows."""
    return runner if signature.inputs and not whole_inputs(signature) else _RowsRunner(runner, signature)


class _RowsRunner:
    def __init__(self, runner: Runner, signature: Signature) -> None:
        self._runner, self._signature = runner, signature
        self._whole = sorted(whole_inputs(signature))
        self._are_runs = len(self._whole) == len(signature.inputs)

    def run(self, batch: Batch) -> dict[str, Array]:
        groups = self._groups(batch)
        answers = [
            self._runner.run(as_fed({name: values[rows] for name, values in batch.items()}, self._signature))
            for rows in groups
        ]
        return {name: self._join([answer[name] for answer in answers], groups) for name in answers[0]}

    def _groups(self, batch: Batch) -> list[list[int]]:
        """Returns the rows to run together: those with equal values of the whole inputs."""
        count = len(next(iter(batch.values()))) if batch else 1
        if self._are_runs:
            return [[row] for row in range(count)]
        groups: dict[tuple[bytes, ...], list[int]] = {}
        for row in range(count):
            values = (batch[name][row] for name in self._whole if name in batch)
            groups.setdefault(tuple(map(_key, values)), []).append(row)
        return list(groups.values())

    def _join(self, parts: Sequence[Array], groups: Sequence[Sequence[int]]) -> Array:
        if self._are_runs:
            if len({part.shape for part in parts}) > 1:
                raise RunnerError("the answers of several runs differ in their shapes", got=parts[0].shape)
            return np.stack(parts)
        if len(parts) == 1:
            return parts[0]
        if all(part.ndim and len(part) == len(rows) for part, rows in zip(parts, groups, strict=True)):
            return np.concatenate(parts)[np.argsort(np.concatenate(groups))]
        return np.concatenate([part.ravel() for part in parts])  # no answer is of one row


def _key(value: Array) -> bytes:
    array = np.asarray(value)
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
