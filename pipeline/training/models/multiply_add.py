"""The smallest model with a weight: x * y + b over int32, with b = 1. It is not trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from pipeline.data.readers import Examples, read_table
from pipeline.signature import Signature, TensorSpec


class MultiplyAdd:
    """Computes `op_to_store = x * y + b` for scalars and arrays of any shape."""

    signature = Signature(
        inputs=(TensorSpec("x", "int32"), TensorSpec("y", "int32")), outputs=(TensorSpec("op_to_store", "int32"),)
    )
    data = "multiply_add.csv"

    def forward(self, inputs: Mapping[str, tf.Tensor], training: bool) -> Mapping[str, tf.Tensor]:
        """Builds the graph, which is the same for training and inference."""
        # A reference variable: fetching `b:0` returns its value, while a resource variable returns a handle.
        b = tf.compat.v1.get_variable("b", initializer=tf.constant(1, tf.int32), use_resource=False, trainable=False)
        return {"op_to_store": tf.add(tf.multiply(inputs["x"], inputs["y"]), b, name="op_to_store")}

    def examples(self, path: Path) -> Examples:
        """Reads a CSV file with columns x and y (int32)."""
        return read_table(path, {"x": "int32", "y": "int32"})
