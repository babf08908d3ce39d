"""Finds the weights of a Keras model in a checkpoint of TensorFlow 2's objects.

Keras 2 (`save_weights`) and `tf.train.Checkpoint` store layers and not names: the stored objects and the model are
walked together, from each stored object that may be the model. The names that the variables had are the second witness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.objects import (
    StoredObject,
    holds_objects,
    keys_by_name,
    misfit,
    read_objects,
    variables_below,
)
from pipeline.errors import CheckpointError, logger

_LAYER = re.compile(r"layer_with_weights-(\d+)")  # Keras 2: the layers that have weights, in their order
_ADAPT = "Give the layers of build the order and the shapes of the checkpoint's, or their names (name=)"


def weight_keys(model: keras.Model, weights: Mapping[str, tf.Variable], bundle: Bundle) -> dict[str, str]:
    """Returns the checkpoint's key of each of the model's weights, by the weight's name.

    Args:
        weights: the model's variables by name.

    Raises:
        CheckpointError: a checkpoint of objects does not hold this model, or more than one that could be it.
    """
    if not holds_objects(bundle) or all(name in bundle.tensors for name in weights):
        return {name: name for name in weights}
    names = {id(variable): name for name, variable in weights.items()}
    wanted = {name: tuple(variable.shape) for name, variable in weights.items()}
    objects = read_objects(bundle)
    by_object = _by_objects(model, names, objects, bundle, wanted)
    by_name = keys_by_name(bundle, wanted)
    if by_object is None and len(by_name) < len(wanted):
        raise misfit(bundle, wanted, "the checkpoint's objects are not those of the model", _ADAPT)
    if by_object is not None and len(by_name) == len(wanted):
        _require_agreement(by_object, by_name, bundle, wanted)
    keys = by_name if by_object is None else by_object
    logger.info(
        "checkpoint: %d weights are found by %s", len(keys), "their names" if by_object is None else "the objects"
    )
    return keys


def _by_objects(
    model: keras.Model,
    names: Mapping[int, str],
    objects: Sequence[StoredObject],
    bundle: Bundle,
    wanted: Mapping[str, tuple[int | None, ...]],
) -> dict[str, str] | None:
    """Returns the keys by walking both; None if no stored object is the model."""
    found: dict[int, list[tuple[str, int, dict[str, str]]]] = {}
    for number, path, depth in _places(objects):
        if depth > min(found, default=depth):
            break
        keys = _walk(model, number, names, objects)
        if len(keys) == len(wanted) and all(_is_of(bundle, keys[name], shape) for name, shape in wanted.items()):
            found.setdefault(depth, []).append((path, number, keys))
    if not found:
        return None
    fitting = found[min(found)]
    if any(keys != fitting[0][2] for _, _, keys in fitting):
        raise CheckpointError(
            "several objects of the checkpoint could be the model",
            where=bundle.prefix,
            got=", ".join(sorted(path for path, _, _ in fitting)),
            next_step="Save the one that is meant alone: tf.train.Checkpoint(model=NET).write(PREFIX)",
        )
    path, number, keys = fitting[0]
    used = set(keys.values())
    left = [one for one in variables_below(objects, number) if one.key not in used and _is_weight(bundle, one)]
    if left:
        more = ", ".join(one.path for one in left[:6])
        raise misfit(bundle, wanted, f"the checkpoint's model has weights that the code lacks: {more}", _ADAPT)
    return keys


def _places(objects: Sequence[StoredObject]) -> Iterator[tuple[int, str, int]]:
    """Yields the objects with children: their number, their path, and how deep it is, the shallowest first."""
    waiting, seen = [(0, "", 0)], {0}
    while waiting:
        number, path, depth = waiting.pop(0)
        if objects[number].children:
            yield number, path or "the root", depth
        for name, child in objects[number].children.items():
            if child not in seen:
                seen.add(child)
                waiting.append((child, f"{path}.{name}".lstrip("."), depth + 1))


def _walk(model: Any, start: int, names: Mapping[int, str], objects: Sequence[StoredObject]) -> dict[str, str]:
    """Returns the keys of the weights that are reached by the same attributes in both."""
    keys: dict[str, str] = {}
    waiting, seen = [(model, start)], set[tuple[int, int]]()
    while waiting:
        own, number = waiting.pop()
        if (id(own), number) in seen:
            continue
        seen.add((id(own), number))
        if (key := objects[number].key) is not None:
            variable = own.value if isinstance(own, keras.Variable) else own
            if (name := names.get(id(variable))) is not None:
                keys[name] = key
            continue
        for attribute, child in objects[number].children.items():
            if (inner := _child(own, attribute)) is not None:
                waiting.append((inner, child))
    return keys


def _child(own: Any, name: str) -> Any:
    """Returns what an object of the model holds under a name of the checkpoint; None if there is nothing."""
    if (found := _LAYER.fullmatch(name)) and isinstance(own, keras.Model):
        layers = [layer for layer in own.layers if layer.weights]
        return layers[int(found[1])] if int(found[1]) < len(layers) else None
    if isinstance(own, list | tuple):
        return own[int(name)] if name.isdecimal() and int(name) < len(own) else None
    if isinstance(own, Mapping):
        return own.get(name)
    if not isinstance(own, keras.Layer | tf.Module):
        return None
    tracked = tf.train.TrackableView(own).children(own).get(name)
    if tracked is not None:
        return tracked
    try:
        held = getattr(own, name, None)
    except Exception:  # a property of the user's class may raise anything
        held = None
    if isinstance(held, keras.Layer | keras.Variable | tf.Variable | list | tuple | Mapping):
        return held
    own_weights = own.weights if isinstance(own, keras.Layer) else []
    named = [one for one in own_weights if one.name == name]
    return named[0] if len(named) == 1 else None


def _is_of(bundle: Bundle, key: str, shape: Sequence[int | None]) -> bool:
    return key in bundle.tensors and list(bundle.tensors[key].shape) == list(shape)


def _is_weight(bundle: Bundle, one: StoredObject) -> bool:
    """Returns True for what a layer learns, and not for a counter, a seed or a metric's sums."""
    tensor = bundle.tensors.get(one.key or "")
    is_of_layer = _LAYER.search(one.path) is not None
    return (
        tensor is not None
        and "float" in tensor.dtype_name
        and (len(tensor.shape) > 1 or (is_of_layer and bool(tensor.shape)))
    )


def _require_agreement(
    by_object: Mapping[str, str],
    by_name: Mapping[str, str],
    bundle: Bundle,
    wanted: Mapping[str, tuple[int | None, ...]],
) -> None:
    """Requires both witnesses to agree, but for the numbers that Keras gives to layers of one kind."""
    names = {one.key: one.name for one in variables_below(read_objects(bundle))}
    for name, key in by_object.items():
        if key != by_name[name] and _plain(names.get(key, "")) != _plain(names.get(by_name[name], "")):
            raise misfit(
                bundle,
                wanted,
                f"the checkpoint's layers have the names of others: {names[key]} is where {name} should be",
                _ADAPT,
            )


def _plain(name: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", name)
