"""Pieces of graphs as people write them with TensorFlow 1, and the register of graphs whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.logging.set_verbosity(v1.logging.ERROR)


@dataclass(frozen=True)
class Known:
    """A graph with the answers, written down by whoever built it.

    Args:
        outputs: what a user would name; found at all, they are right.
        beside: what may be found beside them without harm, such as the class beside its probability.
        inputs: what the outputs are computed from, without modes.
        pins: values of modes without which the answer would not be the one that the model gives when it is used.
        is_v2: whether control flow is built as functions.
    """

    name: str
    build: Callable[[], Any]
    outputs: Sequence[str]
    beside: Sequence[str] = ()
    inputs: Sequence[str] = ("x",)
    pins: Mapping[str, str] = field(default_factory=dict)
    is_v2: bool = False

    def graph(self) -> bytes:
        """Returns the GraphDef as a Saver writes it, with the saving and restoring ops in it."""
        (v1.enable_control_flow_v2 if self.is_v2 else v1.disable_control_flow_v2)()
        try:
            with tf.Graph().as_default() as graph:
                v1.set_random_seed(1)
                self.build()
                if v1.global_variables():
                    v1.train.Saver()
                return bytes(graph.as_graph_def(add_shapes=True).SerializeToString())
        finally:
            v1.enable_control_flow_v2()


Build = Callable[[], Any]


def known_to(register: list[Known], *outputs: str, **answers: Any) -> Callable[[Build], Build]:
    """Adds a graph to a register."""

    def add(build: Build) -> Build:
        register.append(Known(build.__name__, build, outputs, **answers))
        return build

    return add


# Inputs.


def floats(name: str, *sizes: int | None) -> Any:
    return v1.placeholder(tf.float32, [None, *sizes], name=name)


def ids(name: str, *sizes: int | None) -> Any:
    return v1.placeholder(tf.int32, [None, *sizes], name=name)


def rows(size: int = 4, batch: int = 8) -> tuple[Any, Any]:
    """Features and labels from an iterator."""
    data = np.zeros([32, size], np.float32), np.zeros([32], np.int64)
    return v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices(data).batch(batch)).get_next()


# Layers.


def variable(name: str, shape: Sequence[int], value: float | None = None, is_trained: bool = True) -> Any:
    init = None if value is None else v1.constant_initializer(value)
    return v1.get_variable(name, shape, initializer=init, use_resource=False, trainable=is_trained)


def dense(x: Any, size: int, name: str, activation: Any = None) -> Any:
    """As tf.layers.dense names it: `name/BiasAdd`, or the activation's op."""
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        weights, bias = variable("kernel", [int(x.shape[-1]), size]), variable("bias", [size], 0.0)
        y = tf.nn.bias_add(tf.matmul(x, weights), bias, name="BiasAdd")
        return y if activation is None else activation(y)


def conv(x: Any, size: int, name: str, stride: int = 2, activation: Any = tf.nn.relu) -> Any:
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        y = tf.nn.conv2d(x, variable("weights", [3, 3, int(x.shape[-1]), size]), stride, "SAME")
        y = tf.nn.bias_add(y, variable("biases", [size], 0.0), name="BiasAdd")
        return y if activation is None else activation(y)


def batch_norm(x: Any, is_training: Any, name: str) -> Any:
    """As tf.layers.batch_normalization builds it: fused, a branch for training, moving averages."""
    size = int(x.shape[-1])
    with v1.variable_scope(name):
        gamma, beta = variable("gamma", [size], 1.0), variable("beta", [size], 0.0)
        mean, spread = variable("moving_mean", [size], 0.0, False), variable("moving_variance", [size], 1.0, False)

        def trained() -> Any:
            return v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)

        def used() -> Any:
            return v1.nn.fused_batch_norm(x, gamma, beta, mean, spread, epsilon=1e-3, is_training=False)

        if isinstance(is_training, bool):
            y, now, now_spread = trained() if is_training else used()
            if not is_training:
                return y
        else:
            y, now, now_spread = v1.cond(is_training, trained, used)
        for average, value in ((mean, now), (spread, now_spread)):
            update = v1.assign_sub(average, (average - value) * 0.01)
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        return y


def layers_dropout(x: Any, is_training: Any, name: str = "dropout") -> Any:
    """As tf.layers.dropout builds it for a tensor: a branch."""
    return v1.cond(is_training, lambda: tf.nn.dropout(x, 0.5), lambda: tf.identity(x), name=name)


class Cell:
    """A recurrent cell with an LSTM's two states."""

    def __init__(self, size: int = 8, name: str = "lstm_cell") -> None:
        self.size, self.name = size, name
        self.state_size, self.output_size = (size, size), size

    def __call__(self, x: Any, state: Any, scope: Any = None) -> Any:
        carried, last = state
        gates = dense(tf.concat([x, last], 1), 4 * self.size, self.name)
        i, j, f, o = tf.split(gates, 4, 1)
        carried = carried * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        last = tf.tanh(carried) * tf.sigmoid(o)
        return last, (carried, last)

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        return tf.zeros([batch, self.size], dtype), tf.zeros([batch, self.size], dtype)

    def get_initial_state(self, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
        return self.zero_state(batch_size, dtype)


def embed(x: Any, words: int, size: int) -> Any:
    return tf.nn.embedding_lookup(variable("embedding", [words, size]), x)


# Losses and training.


def cross_entropy(labels: Any, logits: Any) -> Any:
    if labels.dtype.is_integer:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    return tf.reduce_mean(v1.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits))


def train(loss: Any, optimizer: Any = None, **options: Any) -> Any:
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        return (optimizer or v1.train.AdamOptimizer(0.001)).minimize(loss, **options)


def accuracy(scores: Any, labels: Any, name: str = "accuracy") -> Any:
    target = labels if labels.dtype.is_integer else tf.argmax(labels, 1)
    right = tf.equal(tf.argmax(scores, 1), tf.cast(target, tf.int64))
    mean = tf.reduce_mean(tf.cast(right, tf.float32), name=name)
    v1.summary.scalar(name, mean)
    return mean
