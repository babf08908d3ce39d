"""Finds the weights of a Keras model in a checkpoint of TensorFlow 2's objects.

Keras 2 (`save_weights`) and `tf.train.Checkpoint` store layers and not names: the stored objects and the model are
walked together, from each stored object that may be the model. The names that the variables had are the second witness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.objects import (
    StoredObject,
    holds_objects,
    is_of_training,
    keys_by_name,
    misfit,
    read_objects,
    variables_below,
)
from pipeline.errors import CheckpointError, logger

_LAYER = re.compile(r"layer_with_weights-(\d+)")  # Keras 2: the layers that have weights, in their order
_ADAPT = (
    "Give the layers of build the order and the shapes of the checkpoint's, or their names (name=); and the attributes "
    "that hold them those of the checkpoint's paths (ema/dense/kernel: self.ema = …)"
)


@dataclass(frozen=True)
class Found:
    """What a checkpoint has for a model.

    Args:
        keys: the checkpoint's keys of the weights, by the weights' names.
        left_out: the paths of what stands beside the model there, and that the code has nothing for.
    """

    keys: dict[str, str]
    left_out: tuple[str, ...] = ()


def find_weights(model: keras.Model, weights: Mapping[str, tf.Variable], bundle: Bundle, needed: Set[str]) -> Found:
    """Finds the model's weights in a checkpoint.

    Args:
        weights: the model's variables by name.
        needed: the names of those that must be found.

    Raises:
        CheckpointError: a checkpoint of objects does not hold this model, or more than one that could be it.
    """
    if not holds_objects(bundle) or (needed and needed <= bundle.tensors.keys()):
        return Found({name: name for name in weights if name in needed or name in bundle.tensors})
    names = {id(variable): name for name, variable in weights.items()}
    shapes = {name: tuple(variable.shape) for name, variable in weights.items()}
    wanted = {name: shape for name, shape in shapes.items() if name in needed}
    objects = read_objects(bundle)
    by_object = _by_objects(model, names, objects, bundle, shapes, wanted)
    by_name = keys_by_name(bundle, wanted)
    if by_object is None and len(by_name) < len(wanted):
        raise _misfit(model, names, objects, bundle, wanted)
    if by_object is not None and len(by_name) == len(wanted):
        _require_agreement(by_object.keys, by_name, bundle, wanted)
    found = Found(by_name) if by_object is None else by_object
    logger.info(
        "checkpoint: %d weights are found by %s", len(found.keys), "their names" if by_object is None else "the objects"
    )
    return found


def _by_objects(
    model: keras.Model,
    names: Mapping[int, str],
    objects: Sequence[StoredObject],
    bundle: Bundle,
    shapes: Mapping[str, tuple[int | None, ...]],
    wanted: Mapping[str, tuple[int | None, ...]],
) -> Found | None:
    """Finds the weights by walking both; None if no stored object is the model."""
    found: dict[int, list[tuple[str, _Walked]]] = {}
    for number, path, depth in _places(objects):
        if depth > min(found, default=depth):
            break
        walked = _walk(model, number, names, objects)
        if wanted.keys() <= walked.keys.keys() and _are_of(bundle, walked.keys, wanted):
            found.setdefault(depth, []).append((path, walked))
    if not found:
        return None
    fitting = found[min(found)]
    path, walked = fitting[0]
    if any(other.keys[name] != walked.keys[name] for _, other in fitting for name in wanted):
        places = sorted(path for path, _ in fitting)
        raise CheckpointError(
            "several objects of the checkpoint could be the model",
            where=bundle.prefix,
            got=", ".join(places),
            next_step=f"Have build return a keras.Model that holds it by that name (self.{places[0]} = …) and calls "
            "it; or save the one that is meant alone: tf.train.Checkpoint(model=NET).write(PREFIX)",
        )
    left_out = _left_out(path, walked, objects, bundle, wanted)
    keys = {name: key for name, key in walked.keys.items() if name in wanted or _is_of(bundle, key, shapes[name])}
    return Found(keys, left_out)


def _left_out(
    path: str,
    walked: _Walked,
    objects: Sequence[StoredObject],
    bundle: Bundle,
    wanted: Mapping[str, tuple[int | None, ...]],
) -> tuple[str, ...]:
    """Returns what the model's object holds beside the model; layers found by their number must be complete."""
    used, left, lacking = set(walked.keys.values()), list[str](), list[str]()
    for name, number, is_numbered in walked.unmatched:
        unused = [one for one in variables_below(objects, number) if one.key not in used and _is_state(bundle, one)]
        used.update(one.key for one in unused if one.key)
        if is_numbered:
            lacking += [one.path for one in unused if _is_weight(bundle, one)]
        if unused:
            left.append(name if objects[number].key else f"{name}/ ({len(unused)} variables)")
    if lacking:
        more = ", ".join(lacking[:6])
        raise misfit(bundle, wanted, f"the checkpoint's model has weights that the code lacks: {more}", _ADAPT)
    start = "" if path == "the root" else f"{path.replace('.', '/')}/"
    if left:
        logger.info(
            "checkpoint: left out, as the code has nothing of these names: %s", ", ".join(start + one for one in left)
        )
    return tuple(start + one for one in left)


def _misfit(
    model: keras.Model,
    names: Mapping[int, str],
    objects: Sequence[StoredObject],
    bundle: Bundle,
    wanted: Mapping[str, tuple[int | None, ...]],
) -> CheckpointError:
    """Returns the error for a checkpoint without the model: what is lacking, if it holds most of it."""
    walks = [_walk(model, number, names, objects).keys for number, _, _ in _places(objects)]
    best = max(walks, key=lambda keys: len(wanted.keys() & keys.keys()), default={})
    lacking = [name for name in wanted if name not in best]
    if 2 * len(lacking) < len(wanted) and _are_of(bundle, best, {name: wanted[name] for name in wanted & best.keys()}):
        more = ", ".join(lacking[:6])
        what = f"the checkpoint lacks variables that the outputs need: {more}"
        return misfit(bundle, wanted, what, "Save them with it (tf.train.Checkpoint follows attributes, and no lists)")
    return misfit(bundle, wanted, "the checkpoint's objects are not those of the model", _ADAPT)


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


@dataclass(frozen=True)
class _Walked:
    """What a model and a stored object have in common.

    Args:
        keys: the checkpoint's keys of the weights, by name.
        unmatched: the stored objects that the model lacks: the attributes that lead to each, its number, and whether
            it has a number in place of a name.
    """

    keys: dict[str, str]
    unmatched: list[tuple[str, int, bool]]


def _walk(model: Any, start: int, names: Mapping[int, str], objects: Sequence[StoredObject]) -> _Walked:
    """Walks both by the same attributes."""
    keys: dict[str, str] = {}
    unmatched: list[tuple[str, int, bool]] = []
    waiting, seen = [(model, start, "")], set[tuple[int, int]]()
    while waiting:
        own, number, path = waiting.pop()
        if (id(own), number) in seen:
            continue
        seen.add((id(own), number))
        if (key := objects[number].key) is not None:
            variable = own.value if isinstance(own, keras.Variable) else own
            if (name := names.get(id(variable))) is not None:
                keys[name] = key
            continue
        for attribute, child in objects[number].children.items():
            inside = f"{path}/{attribute}".lstrip("/")
            if (inner := _child(own, attribute)) is not None:
                waiting.append((inner, child, inside))
            elif not is_of_training(attribute):
                unmatched.append((inside, child, attribute.isdecimal() or _LAYER.fullmatch(attribute) is not None))
    return _Walked(keys, unmatched)


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
    if isinstance(held, keras.Layer | tf.Module | keras.Variable | tf.Variable | list | tuple | Mapping):
        return held
    parts = [*own.weights, *getattr(own, "layers", ())] if isinstance(own, keras.Layer) else []
    named = [one for one in parts if one.name == name]
    return named[0] if len(named) == 1 else None


def _is_of(bundle: Bundle, key: str, shape: Sequence[int | None]) -> bool:
    return key in bundle.tensors and list(bundle.tensors[key].shape) == list(shape)


def _are_of(bundle: Bundle, keys: Mapping[str, str], wanted: Mapping[str, Sequence[int | None]]) -> bool:
    return all(_is_of(bundle, keys[name], shape) for name, shape in wanted.items())


def _is_state(bundle: Bundle, one: StoredObject) -> bool:
    """Returns True for what may be part of an answer, and not for the state of random draws."""
    return one.key in bundle.tensors and "seed_generator" not in one.path


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
