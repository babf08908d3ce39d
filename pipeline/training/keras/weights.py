"""Names a Keras model's variables as Saver files do, and loads their values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.values import read_values
from pipeline.safety.keras_files import require_safe_file

from .failures import keras_errors
from .load import named_by_content, require_intact
from .objects import weight_keys


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that inference needs, by name."""
    return _by_path(model.weights)


def training_state(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that resuming a training needs: weights, random states, optimizer variables."""
    return _by_path([*model.variables, *model.optimizer.variables])


def _by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Maps paths to variables; a custom class may repeat a path, which then gets a number."""
    by_path: dict[str, tf.Variable] = {}
    for variable in variables:
        path, number = variable.path, 1
        while path in by_path:
            path, number = f"{variable.path}_{number}", number + 1
        by_path[path] = variable.value
    return by_path


def load_weights(model: keras.Model, bundle: Bundle) -> None:
    """Loads the weights of a checkpoint into a model: a Saver's by name, TensorFlow 2's by its objects.

    Raises:
        CheckpointError: a weight is missing, of another dtype or shape, or damaged; or the objects are not the model's.
    """
    weights = named_weights(model)
    variables = {key: weights[name] for name, key in weight_keys(model, weights, bundle).items()}
    for key, value in read_values(bundle, variables).items():
        variables[key].assign(value)


def load_weights_file(model: keras.Model, path: Path) -> None:
    """Loads the weights of a Keras file (a model file or a weights file) into a model.

    Raises:
        CheckpointError: the file is missing or damaged, or has the weights of another model.
    """
    require_intact(path, is_model=False)
    require_safe_file(path)
    # Keras would also load the optimizer's state, including its learning rate.
    previous = [(variable, variable.numpy()) for variable in (model.optimizer.variables if model.compiled else ())]
    with keras_errors(path), named_by_content(path) as named:
        model.load_weights(named)
    for variable, value in previous:
        variable.assign(value)
