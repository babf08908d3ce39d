"""Calls a Keras model by names: of the inputs that it is fed, and of the outputs that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import ModelError
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of


def settle_arithmetic(threads: int = 0) -> None:
    """Makes what this process computes depend on its inputs alone; to be called before anything is computed.

    Args:
        threads: other numbers may give other last bits; 0 for TensorFlow's own. A SavedModel keeps the number of the
            process that wrote it, so one that writes leaves it open.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()


class NamedModel:
    """A Keras model that is fed and answers by names.

    A functional model has names of its own: the keys of its dicts, or the names of its input and output layers. One
    input or one output needs no name. Any other model takes a dict of inputs by name, and gives a dict.

    Args:
        model: a built model.
        signature: names, dtypes and shapes of what it is fed and gives.
    """

    def __init__(self, model: keras.Model, signature: Signature) -> None:
        self.model, self.signature = model, signature
        self._fed, self._given = ([spec.name for spec in specs] for specs in (signature.inputs, signature.outputs))

    @classmethod
    def by_own_names(cls, model: keras.Model) -> NamedModel:
        """A model by the names that it has itself.

        Raises:
            ModelError: it has none, or two inputs or outputs have the same.
        """
        if not (is_functional(model) or (isinstance(model, keras.Sequential) and model.built)):
            raise ModelError("the model does not tell its inputs and outputs", got=type(model).__name__)
        inputs, outputs = ([_own_spec(*item) for item in own_tensors(model, side).items()] for side in ("in", "out"))
        return cls(model, Signature(tuple(inputs), tuple(outputs)))

    def pack(self, values: Mapping[str, Any]) -> Any:
        """Values by name, as the model takes them."""
        fed = [values[name] for name in self._fed]
        if not is_functional(self.model):
            return fed[0] if len(fed) == 1 else dict(zip(self._fed, fed, strict=True))
        own = own_tensors(self.model, "in")
        by_own_name = dict(zip(own, fed, strict=True)) if len(own) == 1 else values
        if isinstance(self.model.input, dict):
            return {name: by_own_name[name] for name in own}
        return keras.tree.pack_sequence_as(self.model.input, [by_own_name[name] for name in own])

    def unpack(self, answer: Any) -> dict[str, Any]:
        """What the model gave, by name.

        Raises:
            ModelError: it gave something that has no such name.
        """
        if isinstance(answer, Mapping):
            given = dict(answer)
        elif len(self._given) == 1 and len(keras.tree.flatten(answer)) == 1:
            given = {self._given[0]: keras.tree.flatten(answer)[0]}
        elif is_functional(self.model):
            given = dict(zip(own_tensors(self.model, "out"), keras.tree.flatten(answer), strict=True))
        else:
            raise ModelError("several outputs without names", where=self.model.name, wanted="a dict of outputs by name")
        missing = [name for name in self._given if name not in given]
        if missing:
            raise ModelError(
                "the model does not give an output that its signature promises",
                where=missing[0],
                got=", ".join(sorted(given)),
                next_step="Give that name to the output's layer, or return a dict",
            )
        return {name: given[name] for name in self._given}

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, as the model gives them when it is not in training."""
        return self.unpack(self.model(self.pack(values), training=False))

    def answer(self, rows: Batch) -> dict[str, Array]:
        """Keras's own answers to rows, by output name.

        Args:
            rows: a whole number of batches, where the batch is fixed.
        """
        count = len(next(iter(rows.values())))
        size = batch_size_of(self.signature) or count
        batches = (
            {
                spec.name: tf.constant(rows[spec.name][start : start + size], spec.dtype)
                for spec in self.signature.inputs
            }
            for start in range(0, count, size)
        )
        answers = [{name: np.asarray(value) for name, value in self(batch).items()} for batch in batches]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._given}


def is_functional(model: keras.Model) -> bool:
    """Whether it is a graph of layers that was made of inputs and outputs."""
    return hasattr(model, "output_names")


def own_tensors(model: keras.Model, side: str) -> dict[str, keras.KerasTensor]:
    """The inputs or outputs of a functional or sequential model, by its own names.

    Args:
        side: `in` or `out`.

    Raises:
        ModelError: two of them have the same name.
    """
    if not is_functional(model):
        [tensor] = model.inputs if side == "in" else model.outputs
        return {tensor.name if side == "in" else model.layers[-1].name: tensor}
    structure = model.input if side == "in" else model.output
    tensors = keras.tree.flatten(structure)
    names: Sequence[str] = [tensor.name for tensor in tensors] if side == "in" else model.output_names
    if isinstance(structure, dict) and len(structure) == len(tensors):
        named = dict(structure)
    else:
        named = dict(zip(names, tensors, strict=True))
    if len(named) != len(tensors):
        doubled = sorted({name for name in names if list(names).count(name) > 1})
        raise ModelError(
            f"two {side}puts of the model have the same name",
            where=model.name,
            got=", ".join(doubled),
            next_step="Give each a layer with a name of its own, or return a dict",
        )
    return named


def _own_spec(name: str, tensor: keras.KerasTensor) -> TensorSpec:
    return TensorSpec(name, keras.backend.standardize_dtype(tensor.dtype), tuple(tensor.shape))
