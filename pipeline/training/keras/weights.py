"""Names a Keras model's variables as Saver files do, and loads their values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.objects import holds_objects, is_of_training
from pipeline.checkpoint.values import read_values
from pipeline.errors import CheckpointError, this_command
from pipeline.safety.keras_files import require_safe_file

from .failures import keras_errors
from .load import named_by_content, require_intact
from .objects import Found, find_weights

_OF_TRAINING = (keras.optimizers.Optimizer, keras.metrics.Metric, keras.losses.Loss, keras.random.SeedGenerator)


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that inference may need, by name: Keras's own, and those beside them."""
    named = _by_path(model.weights)
    for path, variable in variables_beside(model).items():
        named[path if path not in named else f"{path} of {model.name}"] = variable
    return named


def variables_beside(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that Keras does not list, by the attributes that lead to them.

    A `tf.Variable`, and whatever a `tf.Module` holds, is part of what a model computes and of a `tf.train.Checkpoint`,
    but not of `model.weights`. What Keras's own layers keep for themselves (the weights of TF-IDF) is no state to load.
    """
    known = {id(variable.value) for variable in model.variables}
    found: dict[str, tf.Variable] = {}
    waiting, seen = [(model, "")], {id(model)}
    while waiting:
        own, path = waiting.pop(0)
        for name, child in tf.train.TrackableView(own).children(own).items():
            if id(child) in seen or isinstance(child, _OF_TRAINING) or is_of_training(name):
                continue
            seen.add(id(child))
            inner = f"{path}/{name}".lstrip("/")
            variable = child.value if isinstance(child, keras.Variable) else child
            if not isinstance(variable, tf.Variable):
                waiting.append((child, inner))
            elif id(variable) not in known and not (variable is child and type(own).__module__.startswith("keras.")):
                found[inner] = variable
    return found


def training_state(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns the variables that resuming a training needs: weights, random states, optimizer variables."""
    return {**variables_beside(model), **_by_path([*model.variables, *model.optimizer.variables])}


def _by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Maps paths to variables; a custom class may repeat a path, which then gets a number."""
    by_path: dict[str, tf.Variable] = {}
    for variable in variables:
        path, number = variable.path, 1
        while path in by_path:
            path, number = f"{variable.path}_{number}", number + 1
        by_path[path] = variable.value
    return by_path


def load_weights(model: keras.Model, bundle: Bundle, needed: Sequence[tf.Variable] | None = None) -> Found:
    """Loads the weights of a checkpoint into a model: a Saver's by name, TensorFlow 2's by its objects.

    Args:
        needed: the variables that must be found; those that are not among them are loaded if they are. None for all of
            Keras's weights, and of a Saver's checkpoint for those beside them too.

    Returns:
        The keys of the variables that were loaded, by their names; and what was left out.

    Raises:
        CheckpointError: a weight is missing, of another dtype or shape, or damaged; or the objects are not the model's.
    """
    weights = named_weights(model)
    if needed is None:
        needed = [one.value for one in model.weights] if holds_objects(bundle) else list(weights.values())
    names = {id(variable): name for name, variable in weights.items()}
    for number, variable in enumerate(needed):  # what no attribute leads to has its own name
        if id(variable) not in names:
            name = variable.name.removesuffix(":0")
            names[id(variable)] = name = name if name not in weights else f"{name}_{number}"
            weights[name] = variable
    found = find_weights(model, weights, bundle, {names[id(variable)] for variable in needed})
    variables = {key: weights[name] for name, key in found.keys.items()}
    for key, value in read_values(bundle, variables).items():
        variables[key].assign(value)
    return found


def require_loaded(model: keras.Model, needed: Sequence[tf.Variable], changed: Container[str], path: Path) -> None:
    """Requires that a Keras file gave a value to all that the outputs need.

    Args:
        needed: the variables that the outputs need.
        changed: the variables beside Keras's own, by the attributes that lead to them, that loading has changed.

    Raises:
        CheckpointError: a variable kept the value that the code gives it, since Keras files hold Keras's variables.
    """
    kept = {id(variable.value) for variable in model.variables}
    beside = {id(variable): name for name, variable in variables_beside(model).items()}
    lacking = [
        beside.get(id(one), one.name.removesuffix(":0"))
        for one in needed
        if id(one) not in kept and beside.get(id(one)) not in changed
    ]
    if lacking:
        raise CheckpointError(
            "the outputs need variables that a Keras file does not hold, those of tf.Variable and tf.Module",
            where=path,
            got=f"no {', '.join(lacking)}",
            next_step="Where the trained model is, write tf.train.Checkpoint(model=MODEL).write('all.ckpt'), and then: "
            f"{this_command({'--checkpoint': 'all.ckpt'})}; or make what never changes a tf.constant",
        )


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
