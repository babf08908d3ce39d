"""The rows of a training, read by the model's own reader and divided."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.data.npz import prefixed, save_arrays
from pipeline.data.readers import Examples, split
from pipeline.errors import DataError
from pipeline.settings import SplitSettings
from pipeline.signature import Array, Signature
from pipeline.store.files import VALIDATION_ROWS_FILE

from .models.source import ModelSource


class Reader(Protocol):
    """What of a model reads its rows."""

    signature: Signature

    def examples(self, path: Path) -> Examples:
        """Reads a data file; see `models.Model.examples`."""
        ...


def read_examples(reader: Reader, source: ModelSource, data: Path | None) -> Examples:
    """Reads a model's rows.

    Raises:
        DataError: there is no data file, or its rows are not the model's inputs.
    """
    if data is None:
        raise DataError(
            "the model names no data file of its own", where=source.class_name, next_step="Give one with --data"
        )
    examples = reader.examples(data)
    wanted = {spec.name for spec in reader.signature.inputs}
    if set(examples.inputs) != wanted:
        raise DataError(
            "the examples are not the model's inputs", where=data, got=sorted(examples.inputs), wanted=sorted(wanted)
        )
    return examples


def divide(
    examples: Examples, data: Path | None, settings: SplitSettings, is_trained: bool
) -> tuple[Examples, Examples]:
    """The rows to train on, and those to validate on; all are both where nothing is trained.

    Raises:
        DataError: there is nothing to train on.
    """
    if not is_trained:
        return examples, examples
    if examples.labels is None:
        raise DataError("no labels to train on", where=data, next_step="Let the model's `examples` return them")
    return split(examples, settings.seed, settings.validation_share)


def save_validation(examples: Examples, folder: Path) -> None:
    """Writes `validation.npz`."""
    labels = {} if examples.labels is None else {"labels": examples.labels}
    save_arrays(folder / VALIDATION_ROWS_FILE, {**prefixed("input", examples.inputs), **labels})


def row_order(rows: int, batch_size: int, seed: int, done: int) -> Iterator[Array]:
    """The rows of each step, after the steps already done: shuffled anew for every pass over the data.

    Yields:
        Indices int64 `[batch]`; the last batch of a pass is shorter where the rows do not divide.
    """
    per_pass = math.ceil(rows / batch_size)
    for step in itertools.count(done):
        number, position = divmod(step, per_pass)
        if position == 0 or step == done:
            shuffled = np.random.default_rng((seed, number)).permutation(rows)
        yield shuffled[position * batch_size : (position + 1) * batch_size]
