"""Interfaces that a model class provides.

A model is any class with a signature and a forward pass; it needs no registration and no base class:

    class Doubler:
        signature = Signature(inputs=(TensorSpec("x", "float32", (None,)),),
                              outputs=(TensorSpec("y", "float32", (None,)),))
        data = "numbers.csv"                                   # optional: next to this file, or in data/

        def forward(self, inputs, training):                   # builds the graph, twice
            return {"y": inputs["x"] * tf.compat.v1.get_variable("w", [], tf.float32)}

        def loss(self, outputs, labels): ...                   # optional: without it the model is not trained
        def optimizer(self): ...                               # optional: default Adam at [graph] learning_rate
        labels = TensorSpec("labels", "float32", (None,))      # optional: default int64 [batch]
        def examples(self, path): ...                          # reads a data file

Instead of a forward pass, a loss and an optimizer, it may have one method that returns a Keras model:

        def build(self):                                       # compiled, so that `fit` trains it
            model = keras.Sequential([keras.Input((), name="x"), ..., keras.layers.Dense(1, name="y")])
            model.compile("adam", "mse")
            return model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from pipeline.data.readers import Examples
    from pipeline.signature import Signature


class Model(Protocol):
    """Model that builds a TensorFlow graph. Optional members:

    `loss(outputs, labels) -> scalar float tensor`: without it the model is not trained. It receives
    everything that `forward` returned, and the labels as a placeholder.
    `optimizer() -> tf.compat.v1.train.Optimizer`: replaces the optimizer of the settings.
    `labels: TensorSpec`: dtype and shape of the labels; default int64 `[batch]`.
    `data: str`: the model's own data file, as a literal string, because it is read without running the code.
    """

    signature: Signature

    def forward(self, inputs: Mapping[str, tf.Tensor], training: bool) -> Mapping[str, tf.Tensor]:
        """Builds the graph in TensorFlow's current default graph.

        Called twice, for the training graph and for the deployed graph. Both must create variables with
        the same names. Random ops, dropout and batch statistics belong under `if training`.

        Args:
            inputs: a placeholder for each input of the signature, by name.
            training: True for the training graph.

        Returns:
            Every output of the signature, by name, with its dtype and a compatible shape; and any other
            tensors that the loss needs (logits, for example).
        """
        ...

    def examples(self, path: Path) -> Examples:
        """Reads a data file.

        Raises:
            DataError: the model cannot read this file.
        """
        ...


class KerasModel(Protocol):
    """Model that builds a Keras model. Optional members:

    `loss`: a loss for `compile`. A model that `build` returns uncompiled is compiled with it and with Adam at [graph]
    learning_rate; without a loss it is not trained.
    `data: str`: see `Model`.
    """

    signature: Signature

    def build(self) -> keras.Model:
        """Builds the model, compiled or not. Define it in the class itself: it is detected without running the code.

        Called in several processes, after Keras was seeded: it must return the same layers each time.

        Returns:
            A model with the inputs and outputs of the signature: a functional model by the names of its layers or the
            keys of its dicts (a single input or output needs no name), any other model by dicts.
        """
        ...

    def examples(self, path: Path) -> Examples:
        """Reads a data file; see `Model.examples`."""
        ...
