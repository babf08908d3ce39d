"""A Keras model's variables by name, as they stand in the files of a Saver."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.values import read_values
from pipeline.safety.keras_files import require_safe_file

from .load import keras_errors, require_whole


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """What a model answers with."""
    return _named(model.weights)


def named_state(model: keras.Model) -> dict[str, tf.Variable]:
    """All that a training goes on with: weights, the states of random draws, the optimizer's variables."""
    return _named([*model.variables, *model.optimizer.variables])


def _named(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Variables by their paths; of several with one path, as a class of one's own may have, the later are numbered."""
    named: dict[str, tf.Variable] = {}
    for variable in variables:
        path, number = variable.path, 1
        while path in named:
            path, number = f"{variable.path}_{number}", number + 1
        named[path] = variable.value
    return named


def take_weights(model: keras.Model, bundle: Bundle) -> None:
    """Gives a model the weights of a checkpoint that was written by these names.

    Raises:
        CheckpointError: a weight is missing, of another dtype or shape, or damaged.
    """
    variables = named_weights(model)
    for name, value in read_values(bundle, variables).items():
        variables[name].assign(value)


def take_weights_of_file(model: keras.Model, path: Path) -> None:
    """Gives a model the weights of a file of Keras's: of a model, or weights alone.

    Raises:
        CheckpointError: the file is missing or damaged, or holds the weights of another model.
    """
    require_whole(path, is_model=False)
    require_safe_file(path)
    # Keras takes over the state of an optimizer as well, with its learning rate.
    kept = [(variable, variable.numpy()) for variable in (model.optimizer.variables if model.compiled else ())]
    with keras_errors(path):
        model.load_weights(path)
    for variable, value in kept:
        variable.assign(value)
