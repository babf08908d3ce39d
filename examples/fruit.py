"""A model of one's own: which fruit is it, by weight, diameter and redness? Run it from the project's root:

luigi --module pipeline WriteReport --model examples/fruit.py:Fruit
"""

import numpy as np
import tensorflow as tf

from pipeline import Decision, Examples, Signature, TensorSpec, read_table

COLUMNS = {"weight_g": "float32", "diameter_mm": "float32", "redness": "float32"}


class Fruit:
    # What is promised to those who deploy it: names, dtypes, shapes, and which output decides.
    signature = Signature(
        inputs=[TensorSpec("features", "float32", [None, 3])],
        outputs=[TensorSpec("probabilities", "float32", [None, 3])],
        decision=Decision("probabilities", labels=["apple", "orange", "cherry"]),  # no threshold: the largest wins
    )
    data = "fruit.csv"  # beside this file; --data gives another

    def forward(self, inputs, training):
        # Called twice: for the graph that is trained, and for the one that is deployed.
        scaled = inputs["features"] / tf.constant([100.0, 50.0, 1.0])
        hidden = tf.nn.relu(dense(scaled, 16, "hidden"))
        if training:
            hidden = tf.nn.dropout(hidden, rate=0.1)
        logits = dense(hidden, 3, "logits")
        return {"probabilities": tf.nn.softmax(logits), "logits": logits}  # more than promised is fine

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
