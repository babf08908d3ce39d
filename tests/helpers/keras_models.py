"""Small Keras models for tests, written to files in new processes, because no session may run before.

Each is made with weights that are not their initial values, so that a lost weight changes an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np


def images() -> keras.Model:
    """Convolution, batch norm and dropout, as a sequential model."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="probabilities"),
        ]
    )


def sequences() -> keras.Model:
    """An embedding that masks zeros, and an LSTM in both directions, for any length."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="ids"),
            keras.layers.Embedding(8, 4, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(3)),
            keras.layers.Dense(1, activation="sigmoid", name="probability"),
        ]
    )


def pairs() -> keras.Model:
    """Two inputs and two outputs, in lists, neither in the order of their names."""
    second, first = keras.Input((3,), name="second"), keras.Input((2,), name="first")
    hidden = keras.layers.Concatenate()([keras.layers.Dense(4)(second), first])
    return keras.Model(
        [second, first], [keras.layers.Dense(1, name="z")(hidden), keras.layers.Dense(2, name="a")(hidden)]
    )


def dicts() -> keras.Model:
    """The same in dicts, whose keys for outputs are not the names of their layers."""
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((2,), name="right")}
    hidden = keras.layers.Concatenate()([keras.layers.Dense(4)(inputs["left"]), inputs["right"]])
    return keras.Model(inputs, {"sum": keras.layers.Dense(1)(hidden), "pair": keras.layers.Dense(2)(hidden)})


def halves() -> keras.Model:
    """Mixed precision: float16 inside, float32 weights and answers."""
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(8, activation="relu", dtype="mixed_float16")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32", name="y")(hidden))


def words() -> keras.Model:
    """Text, with a vocabulary in a table."""
    inputs = keras.Input((), dtype="string", name="text")
    vocabulary = keras.layers.TextVectorization(vocabulary=["free", "now", "call"], output_sequence_length=3)
    hidden = keras.layers.Embedding(5, 2)(vocabulary(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="score")(keras.layers.Flatten()(hidden)))


MODELS = {model.__name__: model for model in (images, sequences, pairs, dicts, halves, words)}


def made(name: str) -> keras.Model:
    """Builds a model with random weights, including the moving statistics of batch norm."""
    keras.utils.set_random_seed(3)
    model = MODELS[name]()
    draw = np.random.default_rng(5)
    model.set_weights([(0.5 + draw.random(value.shape)).astype(value.dtype) for value in model.get_weights()])
    return model


def write(name: str, path: Path, how: str = "save") -> None:
    """Writes a model: `save`, `save_weights` and `export` are Keras's own, `saved_model` is TensorFlow's."""
    model: Any = made(name)
    if how == "saved_model":
        import tensorflow as tf

        tf.saved_model.save(model, str(path))
    elif how == "export":
        model.export(str(path), verbose=False)
    else:
        getattr(model, how)(path)
