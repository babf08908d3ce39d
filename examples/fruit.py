"""Example of a model: recognizes a fruit by weight, diameter and redness. Run it from the project's root:

luigi --module pipeline WriteReport --model examples/fruit.py:Fruit
"""

import numpy as np
import tensorflow as tf

from pipeline import Decision, Examples, Signature, TensorSpec, read_table

COLUMNS = {"weight_g": "float32", "diameter_mm": "float32", "redness": "float32"}


class Fruit:
    # Names, dtypes and shapes of the deployed model, and the output that decides.
    signature = Signature(
        inputs=[TensorSpec("features", "float32", [None, 3])],
        outputs=[TensorSpec("probabilities", "float32", [None, 3])],
        decision=Decision(
            "probabilities", labels=["apple", "orange", "cherry"]
        ),  # no threshold: the largest value wins
    )
    data = "fruit.csv"  # next to this file; --data gives another file

    def forward(self, inputs, training):
        # Called twice: for the training graph and for the deployed graph.
        scaled = inputs["features"] / tf.constant([100.0, 50.0, 1.0])
        hidden = tf.nn.relu(dense(scaled, 16, "hidden"))
        if training:
            hidden = tf.nn.dropout(hidden, rate=0.1)
        logits = dense(hidden, 3, "logits")
        return {"probabilities": tf.nn.softmax(logits), "logits": logits}  # outputs beyond the signature are allowed

    def loss(self, outputs, labels):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs["logits"]))

    def optimizer(self):
        return tf.compat.v1.train.AdamOptimizer(0.02)

    def examples(self, path):
        table = read_table(path, COLUMNS, label="fruit")
        return Examples({"features": np.stack([table.inputs[name] for name in COLUMNS], axis=1)}, table.labels)


def dense(x, units, name):
    with tf.compat.v1.variable_scope(name):
        kernel = tf.compat.v1.get_variable("kernel", [x.shape[-1], units])
        bias = tf.compat.v1.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return x @ kernel + bias
