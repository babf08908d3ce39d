"""Checkpoints of TensorFlow 2's objects: which key holds the value of which variable.

`tf.train.Checkpoint` and Keras's `save_weights` store, beside the values, the graph of the saved objects
(tensorflow/core/protobuf/trackable_object_graph.proto): each has children by name, and a variable has a key and the
name that it had. A key is a path of attributes, and not the variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import CheckpointError
from pipeline.graph.protos import DecodeError, TrackableObjectGraph

from .bundle import Bundle

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_OPTIMIZER = re.compile(r"_?(\w+_)?optimi[sz]er(_\w+)?|opt|train_\w*function|keras_api|\w*metrics?|save_counter")
_MOST_LISTED = 12

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class StoredObject:
    """An object of a checkpoint.

    Args:
        children: numbers of other objects, by the names of the attributes that hold them.
        key: of a variable, the key of its value; else None.
        name: of a variable, the name that it had.
    """

    children: Mapping[str, int]
    key: str | None
    name: str

    @property
    def path(self) -> str:
        """The path of attributes that leads to a variable."""
        return (self.key or "").removesuffix(_SUFFIX)


def holds_objects(bundle: Bundle) -> bool:
    """Returns True for a checkpoint of TensorFlow 2's objects."""
    return OBJECTS in bundle.tensors


def read_objects(bundle: Bundle) -> list[StoredObject]:
    """Returns the objects of a checkpoint, the root first; empty for a Saver's checkpoint.

    Raises:
        CheckpointError: the objects cannot be read.
    """
    if not holds_objects(bundle):
        return []
    try:
        nodes = TrackableObjectGraph.FromString(b"".join(bundle.strings(OBJECTS))).nodes
    except DecodeError as exc:
        raise CheckpointError("the checkpoint's objects cannot be read", where=bundle.prefix, got=exc) from exc
    return [
        StoredObject(
            {child.local_name: child.node_id for child in node.children if 0 <= child.node_id < len(nodes)},
            next((value.checkpoint_key for value in node.attributes if value.name == _VALUE), None),
            next((value.full_name for value in node.attributes if value.name == _VALUE), ""),
        )
        for node in nodes
    ]


def variables_below(objects: Sequence[StoredObject], start: int = 0) -> Iterator[StoredObject]:
    """Yields the variables that an object reaches, without those of optimizers and metrics."""
    waiting, seen = [start], set[int]()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        one = objects[number]
        if one.key is not None:
            yield one
        if not _is_optimizer(one):
            waiting += [child for name, child in one.children.items() if not is_of_training(name)]


def _is_optimizer(one: StoredObject) -> bool:
    """Returns True for an optimizer, whatever it is called."""
    return "iter" in one.children or "_iterations" in one.children


def is_of_training(name: str) -> bool:
    """Returns True for the name of an attribute that holds an optimizer, metrics or a counter of saves."""
    return _OPTIMIZER.fullmatch(name) is not None


def keys_by_name(bundle: Bundle, wanted: Mapping[str, Shape]) -> dict[str, str]:
    """Returns the keys of variables in a checkpoint of objects: by the names that they had, or by their paths.

    A name and a path may have one more part in front: the scope, or the attribute, that holds the model.

    Args:
        wanted: shapes by the variables' names.

    Returns:
        Keys by name, for the names of which one stored variable alone is that one; none for a Saver's checkpoint.

    Raises:
        CheckpointError: the objects cannot be read.
    """
    objects = read_objects(bundle)
    stored = [one for one in variables_below(objects) if one.key in bundle.tensors] if objects else []
    found: dict[str, str] = {}
    for name, shape in wanted.items():
        for level in (_equal, _equal_below):
            keys = {one.key for one in stored if one.key and (level(one.name, name) or level(one.path, name))}
            fitting = [key for key in keys if _fits(bundle.tensors[key].shape, shape)]
            if len(fitting) == 1:
                found[name] = fitting[0]
                break
            if fitting:
                break
    return found if len(set(found.values())) == len(found) else {}


def _equal(stored: str, name: str) -> bool:
    return stored.removesuffix(":0") == name


def _equal_below(stored: str, name: str) -> bool:
    shorter = stored.removesuffix(":0").partition("/")[2]
    return bool(shorter and shorter == name) or name.partition("/")[2] in {stored.removesuffix(":0"), shorter} - {""}


def _fits(stored: Sequence[int], shape: Shape) -> bool:
    if shape is None:
        return True
    return len(stored) == len(shape) and all(size in (None, own) for own, size in zip(stored, shape, strict=True))


def stored_shapes(bundle: Bundle) -> dict[str, Shape]:
    """Returns the shapes of the stored variables, by the attributes that lead to them. Raises: as `read_objects`.

    The key of a variable may be the path through an optimizer, which holds it too.
    """
    objects = read_objects(bundle)
    found: dict[str, Shape] = {}
    waiting, seen = [(0, "")] if objects else [], set[int]()
    while waiting:
        number, path = waiting.pop(0)
        if number in seen:
            continue
        seen.add(number)
        one = objects[number]
        if one.key is not None and one.key in bundle.tensors:
            found[path] = bundle.tensors[one.key].shape
        if not _is_optimizer(one):
            inner = ((child, f"{path}/{name}".lstrip("/")) for name, child in one.children.items())
            waiting += [(child, way) for child, way in inner if not is_of_training(way.rpartition("/")[2])]
    return dict(sorted(found.items()))


def misfit(bundle: Bundle, wanted: Mapping[str, Shape], what: str, next_step: str) -> CheckpointError:
    """Returns the error for objects that are not the model's, with the lists of both."""
    got = listed(stored_shapes(bundle))
    return CheckpointError(what, where=bundle.prefix, got=got, wanted=listed(wanted), next_step=next_step)


def listed(shapes: Mapping[str, Shape]) -> str:
    """Returns variables as text, `dense/kernel [6, 5]`."""
    texts = [
        f"{name} [{', '.join('?' if size is None else str(size) for size in shape or ())}]"
        for name, shape in shapes.items()
    ]
    more = f" and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more
