"""Calls a Keras model with inputs by name, and returns its outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import ModelError
from pipeline.formats.row_bytes import rows_together
from pipeline.formats.whole_inputs import run_by_rows
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of


def make_deterministic(threads: int = 0) -> None:
    """Makes this process compute the same bits for the same inputs; call it before any computation.

    Args:
        threads: another number may change the last bits; 0 for TensorFlow's default. A SavedModel stores the number of
            threads of the process that wrote it, so a process that writes one uses the default.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()


class NamedModel:
    """A Keras model with inputs and outputs by name.

    A functional model has its own names: the keys of its dicts, or the names of its input and output layers. A single
    input or output needs no name. Any other model takes a dict of inputs by name, and returns a dict.

    Args:
        model: a built model.
        signature: names, dtypes and shapes of the inputs and outputs.
    """

    def __init__(self, model: keras.Model, signature: Signature) -> None:
        self.model, self.signature = model, signature
        self._input_names, self._output_names = (
            [spec.name for spec in specs] for specs in (signature.inputs, signature.outputs)
        )

    @classmethod
    def from_own_names(cls, model: keras.Model) -> NamedModel:
        """Wraps a model, with the model's own names.

        Raises:
            ModelError: the model has no names.
        """
        if not (is_functional(model) or (isinstance(model, keras.Sequential) and model.built)):
            raise ModelError("the model does not define its inputs and outputs", got=type(model).__name__)
        inputs, outputs = ([_own_spec(*item) for item in own_tensors(model, side).items()] for side in ("in", "out"))
        return cls(model, Signature(tuple(inputs), tuple(outputs)))

    def pack(self, values: Mapping[str, Any]) -> Any:
        """Arranges input values by name in the structure that the model takes."""
        inputs = [values[name] for name in self._input_names]
        if not is_functional(self.model):
            return inputs[0] if len(inputs) == 1 else dict(zip(self._input_names, inputs, strict=True))
        own = own_tensors(self.model, "in")
        by_own_name = dict(zip(own, inputs, strict=True)) if len(own) == 1 else values
        if isinstance(self.model.input, dict):
            return {name: by_own_name[name] for name in own}
        return keras.tree.pack_sequence_as(self.model.input, [by_own_name[name] for name in own])

    def unpack(self, returned: Any) -> dict[str, Any]:
        """Returns the model's outputs by name.

        Raises:
            ModelError: outputs have no names, or an output of the signature is missing.
        """
        if isinstance(returned, Mapping):
            outputs = dict(returned)
        elif len(self._output_names) == 1 and len(keras.tree.flatten(returned)) == 1:
            outputs = {self._output_names[0]: keras.tree.flatten(returned)[0]}
        elif is_functional(self.model):
            outputs = dict(zip(own_tensors(self.model, "out"), keras.tree.flatten(returned), strict=True))
        else:
            raise ModelError("several outputs without names", where=self.model.name, wanted="a dict of outputs by name")
        missing = [name for name in self._output_names if name not in outputs]
        if missing:
            raise ModelError(
                "the model does not return an output of its signature",
                where=missing[0],
                got=", ".join(sorted(outputs)),
                next_step="Give that name to the output's layer, or return a dict",
            )
        return {name: outputs[name] for name in self._output_names}

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the outputs by name, in inference mode."""
        return self.unpack(self.model(self.pack(values), training=False))

    def run(self, batch: Batch) -> dict[str, Array]:
        """Computes Keras's own outputs for one batch."""
        fed = {spec.name: tf.constant(batch[spec.name], spec.dtype) for spec in self.signature.inputs}
        return {name: np.asarray(value) for name, value in self(fed).items()}

    def predict(self, rows: Batch) -> dict[str, Array]:
        """Computes Keras's own outputs for rows, by output name.

        Args:
            rows: inputs by name; a multiple of the batch size if the signature fixes it. Inputs that are one value
                together are run value by value.
        """
        count = len(next(iter(rows.values())))
        size = batch_size_of(self.signature) or rows_together(rows, self.signature)
        runner = run_by_rows(self, self.signature)
        batches = (
            {name: values[start : start + size] for name, values in rows.items()} for start in range(0, count, size)
        )
        answers = [runner.run(batch) for batch in batches]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([predict[name] for predict in answers]) for name in self._output_names}


def is_functional(model: keras.Model) -> bool:
    """Returns True for a functional model: a graph of layers between inputs and outputs."""
    return hasattr(model, "output_names")


def own_tensors(model: keras.Model, side: str) -> dict[str, keras.KerasTensor]:
    """Returns the inputs or outputs of a functional or sequential model, by its own names.

    The outputs of one layer have its name and a number, from the second on: of an LSTM with its states `lstm`, `lstm_1`
    and `lstm_2`.

    Args:
        side: `in` or `out`.
    """
    if not is_functional(model):
        [tensor] = model.inputs if side == "in" else model.outputs
        return {tensor.name if side == "in" else model.layers[-1].name: tensor}
    structure = model.input if side == "in" else model.output
    tensors = keras.tree.flatten(structure)
    names: Sequence[str] = [tensor.name for tensor in tensors] if side == "in" else model.output_names
    if isinstance(structure, dict) and len(structure) == len(tensors):
        by_name = dict(structure)
    else:
        by_name = dict(zip(_numbered(names), tensors, strict=True))
    return by_name


def _numbered(names: Sequence[str]) -> list[str]:
    """Returns names of which none occurs twice: those that do get the first number that is free."""
    numbered: list[str] = []
    for name in names:
        free = (each for each in (f"{name}_{number}" for number in count(1)) if each not in {*names, *numbered})
        numbered.append(next(free) if name in numbered else name)
    return numbered


def _own_spec(name: str, tensor: keras.KerasTensor) -> TensorSpec:
    return TensorSpec(name, keras.backend.standardize_dtype(tensor.dtype), tuple(tensor.shape))
