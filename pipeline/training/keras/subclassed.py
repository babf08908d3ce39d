"""Finds the inputs and outputs of a Keras model that is a class of the user's own.

Such a model has no graph of layers. Its file tells the shapes with which it was built, and calling it shows the rest.
Of the inputs' types nothing is told: they are the first with which the call succeeds. Names are those of dicts; else an
input is called as the argument of `call`, and an output `output_0`, as `model.export` calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import keras
import tensorflow as tf

from pipeline.errors import ModelError, first_line
from pipeline.signature import Signature, TensorSpec

from .adapter import NamedModel, is_functional

_DTYPES = ("float32", "string", "int32")
_MOST_TRIALS = 27
_BUILT = "_build_shapes_dict"  # of Keras 3; `keras.src.export` reads the same


def is_open(model: Any) -> bool:
    """Returns True for a model without inputs and outputs of its own, of Keras 3 or 2."""
    if isinstance(model, keras.Model):
        return not is_functional(model) and not isinstance(model, keras.Sequential)
    return getattr(model, "inputs", None) is None


def named_by_call(model: Any) -> NamedModel:
    """Wraps a model with the inputs that it was built with, and the outputs that it returns.

    Raises:
        ModelError: its file does not say how it was built, or it cannot be called so.
    """
    arguments = _built_with(model)
    shapes = dict(_leaves_by_name(arguments))
    where, failure = type(model).__name__, ""
    if not shapes:
        raise _unclear(where, "its file does not say with which shapes it was built")
    for dtypes in islice(product(_DTYPES, repeat=len(shapes)), _MOST_TRIALS):
        inputs = tuple(
            TensorSpec(name, dtype, (None, *shape[1:]))
            for (name, shape), dtype in zip(shapes.items(), dtypes, strict=True)
        )
        try:
            outputs = _trace(model, arguments, inputs)
        except Exception as exc:  # the user's code may raise anything
            failure = failure or first_line(exc)
            continue
        return CalledModel(model, Signature(inputs, outputs), arguments)
    raise _unclear(where, failure)


def _unclear(where: str, got: str) -> ModelError:
    return ModelError(
        "the model does not define its inputs and outputs",
        where=where,
        got=got,
        next_step="Write a class with its signature, whose build returns the model (docs/own_model.md): "
        "--model FILE.py:CLASS",
    )


class CalledModel(NamedModel):
    """A model of the user's class, with the structure of arguments that its `call` takes.

    Args:
        arguments: by argument, the shapes in the structure that the model takes.
    """

    def __init__(self, model: Any, signature: Signature, arguments: Mapping[str, Any]) -> None:
        super().__init__(model, signature)
        self._arguments = arguments

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(_outputs_by_name(_call(self.model, self._arguments, values)))


def _call(model: Any, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Calls a model for use, with inputs by name."""
    left = iter([values[name] for name, _ in _leaves_by_name(arguments)])
    packed = {name: _pack(shapes, left) for name, shapes in arguments.items()}
    return model(*packed.values(), training=False) if len(packed) == 1 else model(**packed, training=False)


def _trace(model: Any, arguments: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Returns what a model answers to inputs; raises whatever the model raises."""
    fed = {spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in inputs}
    function = tf.function(lambda values: _call(model, arguments, values), input_signature=[fed], autograph=False)
    found = _outputs_by_name(function.get_concrete_function().structured_outputs)
    return tuple(TensorSpec(name, one.dtype.name, _shape(one.shape)) for name, one in found)


def _shape(shape: tf.TensorShape) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape)


def _built_with(model: Any) -> dict[str, Any]:
    """Returns the shapes that a model was built with, by the argument of `call`; empty if it does not say."""
    named = [
        one.name
        for one in inspect.signature(model.call).parameters.values()
        if one.name not in ("training", "mask") and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    built = getattr(model, _BUILT, None)
    if built is None:  # Keras 2
        built = {"input_shape": getattr(model, "_build_input_shape", None)}
    if len(built) == 1:
        [shapes] = built.values()
        return {named[0] if named else "inputs": _plain(shapes)} if shapes is not None else {}
    return {name.removesuffix("_shape"): _plain(shapes) for name, shapes in built.items() if shapes is not None}


def _plain(shapes: Any) -> Any:
    """Returns shapes as dicts, lists and tuples of sizes; Keras keeps some in classes of its own."""
    if isinstance(shapes, tf.TensorShape):
        return tuple(shapes)
    if isinstance(shapes, Mapping):
        return {str(name): _plain(one) for name, one in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tuple(shapes)
    return [_plain(one) for one in shapes]


def _leaves_by_name(shapes: Any, name: str = "") -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """Yields shapes by the names of the inputs: the innermost key of dicts, and numbers of the parts of lists."""
    if isinstance(shapes, dict):
        for key, one in shapes.items():
            yield from _leaves_by_name(one, key)
    elif isinstance(shapes, list):
        for number, one in enumerate(shapes):
            yield from _leaves_by_name(one, f"{name}_{number}")
    else:
        yield name, shapes


def _pack(shapes: Any, left: Iterator[Any]) -> Any:
    """Returns the next values in the structure of their shapes."""
    if isinstance(shapes, dict):
        return {key: _pack(one, left) for key, one in shapes.items()}
    return [_pack(one, left) for one in shapes] if isinstance(shapes, list) else next(left)


def _outputs_by_name(returned: Any, name: str = "") -> Sequence[tuple[str, Any]]:
    """Returns the tensors that a model returned, by name."""
    if isinstance(returned, Mapping):
        return [found for key in returned for found in _outputs_by_name(returned[key], f"{name}_{key}".lstrip("_"))]
    if isinstance(returned, list | tuple):
        start = name or "output"
        return [found for number, one in enumerate(returned) for found in _outputs_by_name(one, f"{start}_{number}")]
    return [(name or "output_0", returned)]
