"""Reads a model's rows with its own reader and splits them into training and validation rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.data.columns import reading
from pipeline.data.npz import add_kind, save_arrays
from pipeline.data.readers import Examples, split
from pipeline.data.table import read_rows
from pipeline.errors import DataError
from pipeline.inputs import DataSource
from pipeline.settings import SplitSettings
from pipeline.signature import Array, Signature
from pipeline.store.file_names import VALIDATION_ROWS_FILE

from .models.source import ModelSource, load_model


class Reader(Protocol):
    """The part of a model that reads its rows."""

    signature: Signature

    def examples(self, path: Path) -> Examples:
        """Reads a data file; see `models.Model.examples`."""
        ...


def read_examples(reader: Reader, source: ModelSource, data: DataSource | None) -> Examples:
    """Reads a model's rows.

    Raises:
        DataError: there is no data file, or its rows are not the model's inputs.
        SettingError: an option of the data was given that the model's reader does not use.
    """
    if data is None:
        raise DataError(
            "the model names no data file of its own", where=source.class_name, next_step="Give one with --data"
        )
    with reading(data):
        examples = reader.examples(data.path)
    wanted = {spec.name for spec in reader.signature.inputs}
    if set(examples.inputs) != wanted:
        raise DataError(
            "the examples are not the model's inputs",
            where=data.path,
            got=sorted(examples.inputs),
            wanted=sorted(wanted),
        )
    return examples


def read_given_rows(data: DataSource, signature: Signature, others: Collection[str] = ()) -> dict[str, Array]:
    """Reads rows for a signature, with the options that were given.

    Args:
        others: names that mean something else in the model's graph than an input.

    Raises:
        DataError: see `data.table.read_rows`.
        SettingError: an option was given that this kind of file does not use.
    """
    with reading(data, others):
        return read_rows(data.path, signature)


def split_examples(
    examples: Examples, data: DataSource | None, settings: SplitSettings, is_trained: bool
) -> tuple[Examples, Examples]:
    """Splits rows into training and validation rows; a model that is not trained gets all rows as both.

    Raises:
        DataError: there are no labels to train on.
    """
    if not is_trained:
        return examples, examples
    if examples.labels is None:
        raise DataError(
            "no labels to train on", where=data and data.path, next_step="Let the model's `examples` return them"
        )
    return split(examples, settings.seed, settings.validation_share)


def check_examples(source: ModelSource, data: DataSource, settings: SplitSettings | None) -> None:
    """Reads a model's rows, and splits them, only to say what is wrong with them.

    Args:
        settings: how they are split; None if they are not.

    Raises:
        PipelineError: see `read_examples` and `split_examples`.
    """
    model = load_model(source)
    examples = read_examples(model, source, data)
    if settings is not None:
        split_examples(examples, data, settings, hasattr(model, "loss"))


def save_validation(examples: Examples, folder: Path) -> None:
    """Writes `validation.npz`: the inputs, and the labels if there are any."""
    labels = {} if examples.labels is None else {"labels": examples.labels}
    save_arrays(folder / VALIDATION_ROWS_FILE, {**add_kind("input", examples.inputs), **labels})


def row_order(rows: int, batch_size: int, seed: int, done: int) -> Iterator[Array]:
    """Generates the rows of each training step, shuffled again for every epoch.

    Args:
        done: number of steps already done.

    Yields:
        Row indices, int64 `[batch]`; the last batch of an epoch is smaller if rows are left over.
    """
    steps_per_epoch = math.ceil(rows / batch_size)
    for step in itertools.count(done):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == done:
            shuffled = np.random.default_rng((seed, epoch)).permutation(rows)
        yield shuffled[position * batch_size : (position + 1) * batch_size]
