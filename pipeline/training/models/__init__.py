"""What a model is, and how one is found by name.

A model is any class with a signature and a forward pass; nothing is registered or inherited:

    class Doubler:
        signature = Signature(inputs=(TensorSpec("x", "float32", (None,)),),
                              outputs=(TensorSpec("y", "float32", (None,)),))
        data = "numbers.csv"                                   # optional: beside this file, or under data/

        def forward(self, inputs, training):                   # builds the graph, twice
            return {"y": inputs["x"] * tf.compat.v1.get_variable("w", [], tf.float32)}

        def loss(self, outputs, labels): ...                   # optional: nothing is trained without it
        def optimizer(self): ...                               # optional: Adam at [graph] learning_rate
        labels = TensorSpec("labels", "float32", (None,))      # optional: int64 [batch] without it
        def examples(self, path): ...                          # how a data file becomes batches

In the place of a forward pass, a loss and an optimizer it may have one method that gives a Keras model:

        def build(self):                                       # compiled, so that `fit` trains it
            model = keras.Sequential([keras.Input((), name="x"), ..., keras.layers.Dense(1, name="y")])
            model.compile("adam", "mse")
            return model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.signature import Signature

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from pipeline.data.readers import Examples


class Model(Protocol):
    """Code that builds a graph. These are looked for, and may be missing:

    `loss(outputs, labels) -> scalar float tensor`: without it there is nothing to train. It is given
    all that `forward` returned, and the labels as a placeholder.
    `optimizer() -> tf.compat.v1.train.Optimizer`: replaces the one of the settings.
    `labels: TensorSpec`: dtype and shape of the labels, int64 `[batch]` without it.
    `data: str`: the model's own data file, as a literal string, for it is read without running the code.
    """

    signature: Signature

    def forward(self, inputs: Mapping[str, tf.Tensor], training: bool) -> Mapping[str, tf.Tensor]:
        """Builds the graph in TensorFlow's current default graph.

        Called twice, in two graphs: for training and for what is deployed. Both must create variables of
        the same names. Random ops, dropout, and batch statistics belong under `if training`.

        Args:
            inputs: a placeholder for each input of the signature, by name.
            training: whether this is the training graph.

        Returns:
            Every output of the signature, by name, with its dtype and a compatible shape; what the
            loss needs besides (logits, say) may stand beside them.
        """
        ...

    def examples(self, path: Path) -> Examples:
        """Reads a data file.

        Raises:
            DataError: the file is not what this model reads.
        """
        ...


class KerasModel(Protocol):
    """Code that gives a Keras model. This is looked for, and may be missing:

    `loss`: what `compile` takes for one. A model that is not compiled is compiled with it and with Adam at [graph]
    learning_rate; without a loss either, nothing is trained.
    `data: str`: as for any model.
    """

    signature: Signature

    def build(self) -> keras.Model:
        """Gives the model, compiled or not. It stands in the class itself, for it is looked for without running it.

        Called in several processes, after Keras was seeded: each time it has to give the same layers.

        Returns:
            A model whose inputs and outputs are the signature's: a functional one by the names of its layers or the
            keys of its dicts (a single one needs no name), any other by dicts.
        """
        ...

    def examples(self, path: Path) -> Examples:
        """Reads a data file; see `Model.examples`."""
        ...
