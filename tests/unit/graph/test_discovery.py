"""Inputs and outputs that nobody named: found in graphs as people build them, or told to be unclear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_graphs import control_flow

from pipeline.errors import FreezeError
from pipeline.graph.discovery import (
    Candidate,
    discover_outputs,
    find_together,
    rank_before_draws,
    rank_inputs,
    rank_outputs,
)
from pipeline.graph.discovery.names import is_named
from pipeline.graph.protos import GraphDef, MetaGraphDef, NodeDef
from pipeline.settings import GraphSettings
from pipeline.signature import Signature
from pipeline.training.graphs import build_graph
from pipeline.training.models.source import find_model

v1 = tf.compat.v1
MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"


@dataclass(frozen=True)
class Style:
    """A graph in somebody's style.

    Args:
        found: the outputs that are found; empty where it is unclear which they are.
        unclear: where it is, tensors that must be among the first candidates.
        inputs: what the outputs (or the first candidate) are computed from.
        modes: what is to be pinned, out of these.
        flow: whether control flow is built as functions (v2) or as nodes (v1).
    """

    name: str
    build: Callable[[], Any]
    found: Sequence[str]
    unclear: Sequence[str]
    inputs: Sequence[str]
    modes: Sequence[str]
    is_v2: bool


STYLES: list[Style] = []


def style(
    *found: str,
    unclear: Sequence[str] = (),
    inputs: Sequence[str] = ("x",),
    modes: Sequence[str] = (),
    flow: Sequence[bool] = (False,),
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        for is_v2 in flow:
            name = build.__name__ + (("_v1", "_v2")[is_v2] if len(flow) > 1 else "")
            STYLES.append(Style(name, build, found, unclear, inputs, modes, is_v2))
        return build

    return register


def graph_of(one: Style, has_shapes: bool) -> GraphDef:
    """The graph as a Saver writes it, with the saving and restoring ops in it; or without the shapes."""
    with control_flow(one.is_v2), tf.Graph().as_default() as graph:
        one.build()
        if v1.global_variables():
            v1.train.Saver()
        written = graph.as_graph_def(add_shapes=has_shapes)
    return GraphDef.FromString(written.SerializeToString())


# ------------------------------------------------------------------------------------------------- pieces of models


def images(size: int = 784) -> Any:
    return v1.placeholder(tf.float32, [None, size], name="x")


def classes(count: int = 10) -> Any:
    return v1.placeholder(tf.float32, [None, count], name="y_")


def dense(x: Any, size: int, name: str, activation: Any = None, is_resource: bool = False) -> Any:
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        w = v1.get_variable("w", [int(x.shape[-1]), size], use_resource=is_resource)
        b = v1.get_variable("b", [size], initializer=v1.zeros_initializer(), use_resource=is_resource)
        y = tf.nn.bias_add(tf.matmul(x, w), b)
        return y if activation is None else activation(y)


def conv(x: Any, size: int, name: str) -> Any:
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        w = v1.get_variable("w", [3, 3, int(x.shape[-1]), size], use_resource=False)
        b = v1.get_variable("b", [size], use_resource=False)
        h = tf.nn.relu(tf.nn.conv2d(x, w, 2, "SAME") + b)
        v1.summary.histogram(f"{name}/activations", h)
        v1.summary.scalar(f"{name}/sparsity", tf.math.zero_fraction(h))
        return h


def normalize(x: Any, is_training: Any, name: str) -> Any:
    """Batch normalization, written by hand as people did, with moving averages."""
    size = [int(x.shape[-1])]
    with v1.variable_scope(name):
        gamma = v1.get_variable("gamma", size, initializer=v1.ones_initializer())
        beta = v1.get_variable("beta", size, initializer=v1.zeros_initializer())
        mean = v1.get_variable("mean", size, initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("variance", size, initializer=v1.ones_initializer(), trainable=False)
        now, spread = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        for average, value in ((mean, now), (variance, spread)):
            update = v1.assign_sub(average, (average - value) * 0.1)
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        used = v1.cond(is_training, lambda: (now, spread), lambda: (mean.read_value(), variance.read_value()))
        return tf.nn.batch_normalization(x, *used, beta, gamma, 1e-3)


def softmax_loss(labels: Any, logits: Any) -> Any:
    return tf.reduce_mean(v1.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits))


def train(loss: Any, optimizer: Any = None, **options: Any) -> Any:
    return (optimizer or v1.train.AdamOptimizer(0.01)).minimize(loss, **options)


def accuracy(y: Any, labels: Any, name: str = "accuracy") -> Any:
    right = tf.equal(tf.argmax(y, 1), tf.argmax(labels, 1))
    mean = tf.reduce_mean(tf.cast(right, tf.float32), name=name)
    v1.summary.scalar(name, mean)
    return mean


class Cell:
    """A simple recurrent cell, which TensorFlow lacks under Keras 3."""

    state_size = output_size = 8

    def __init__(self, is_resource: bool = False) -> None:
        self.is_resource = is_resource

    def __call__(self, x: Any, state: Any, scope: Any = None) -> Any:
        new = dense(tf.concat([x, state], 1), 8, "cell", tf.tanh, self.is_resource)
        return new, new

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        return tf.zeros([batch, 8], dtype)

    def get_initial_state(self, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
        return self.zero_state(batch_size, dtype)


# --------------------------------------------------------------------------------------------- the classic tutorials


@style("y")
def mnist_for_beginners() -> None:
    x = images()
    w, b = v1.Variable(tf.zeros([784, 10]), use_resource=False), v1.Variable(tf.zeros([10]), use_resource=False)
    y = tf.nn.softmax(tf.matmul(x, w) + b, name="y")
    y_ = classes()
    loss = tf.reduce_mean(-tf.reduce_sum(y_ * tf.math.log(y), axis=[1]))
    train(loss, v1.train.GradientDescentOptimizer(0.5))
    accuracy(y, y_)


@style("y")
def mnist_with_a_clipped_logarithm() -> None:
    y, y_ = tf.identity(dense(images(), 10, "fc", tf.nn.softmax), "y"), classes()
    train(-tf.reduce_sum(y_ * tf.math.log(tf.clip_by_value(y, 1e-10, 1.0))))


@style("y_conv", inputs=["x"], modes=["keep_prob"])
def deep_mnist_with_dropout() -> None:
    x, y_ = images(), classes()
    h = conv(conv(tf.reshape(x, [-1, 28, 28, 1]), 4, "conv1"), 8, "conv2")
    h = dense(tf.reshape(h, [-1, 7 * 7 * 8]), 32, "fc1", tf.nn.relu)
    keep_prob = v1.placeholder(tf.float32, name="keep_prob")
    y = tf.identity(dense(v1.nn.dropout(h, keep_prob), 10, "fc2"), "y_conv")
    train(softmax_loss(y_, y))
    accuracy(y, y_)


@style("y_pred", inputs=["x"])
def a_softmax_beside_the_loss() -> None:
    x, y_ = images(), classes()
    logits = dense(dense(x, 32, "fc1", tf.nn.relu), 10, "fc2")
    y = tf.nn.softmax(logits, name="y_pred")
    train(softmax_loss(y_, logits), global_step=v1.train.get_or_create_global_step())
    accuracy(y, y_)


@style("fc2/BiasAdd")
def logits_that_only_the_loss_takes() -> None:
    logits = dense(dense(images(), 32, "fc1", tf.nn.relu), 10, "fc2")
    train(softmax_loss(classes(), logits))


@style("softmax_linear", inputs=["batch"])
def cifar10_with_queues_averages_and_decays() -> None:
    reader = v1.WholeFileReader()
    _, record = reader.read(v1.train.string_input_producer(["a.bin", "b.bin"]))
    raw = tf.io.decode_raw(record, tf.uint8)
    label = tf.reshape(tf.cast(tf.strided_slice(raw, [0], [1]), tf.int32), [])
    image = tf.cast(tf.reshape(tf.strided_slice(raw, [1], [1 + 24 * 24 * 3]), [24, 24, 3]), tf.float32)
    image = tf.image.per_image_standardization(tf.image.random_flip_left_right(image))
    image.set_shape([24, 24, 3])
    x, labels = v1.train.shuffle_batch([image, label], 16, 100, 50, name="batch")
    h = tf.nn.lrn(conv(tf.nn.lrn(conv(x, 8, "conv1"), 4), 8, "conv2"), 4)
    h = dense(tf.reshape(h, [16, 6 * 6 * 8]), 16, "local3", tf.nn.relu)
    logits = tf.add(dense(h, 10, "linear"), 0.0, name="softmax_linear")
    for variable in v1.trainable_variables():
        v1.add_to_collection("losses", tf.nn.l2_loss(variable) * 0.004)
    entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    v1.add_to_collection("losses", entropy)
    loss = tf.add_n(v1.get_collection("losses"), name="total_loss")
    step = v1.train.get_or_create_global_step()
    averages = v1.train.ExponentialMovingAverage(0.9, name="avg")
    averaged = averages.apply([*v1.get_collection("losses"), loss])
    v1.summary.scalar("average", averages.average(entropy))
    rate = v1.train.exponential_decay(0.1, step, 100, 0.1, staircase=True)
    v1.summary.scalar("rate", rate)
    with tf.control_dependencies([averaged]):
        optimizer = v1.train.GradientDescentOptimizer(rate)
        gradients = optimizer.compute_gradients(loss)
    for gradient, variable in gradients:
        v1.summary.histogram(f"{variable.op.name}/gradients", gradient)
    optimizer.apply_gradients(gradients, global_step=step)
    v1.train.ExponentialMovingAverage(0.99, step).apply(v1.trainable_variables())
    v1.summary.merge_all()


@style("output/scores", inputs=["input_x"], modes=["dropout_keep_prob"])
def text_cnn() -> None:
    x = v1.placeholder(tf.int32, [None, 20], name="input_x")
    y = v1.placeholder(tf.float32, [None, 2], name="input_y")
    keep = v1.placeholder(tf.float32, name="dropout_keep_prob")
    penalty = tf.constant(0.0)
    with tf.device("/cpu:0"), v1.name_scope("embedding"):
        table = v1.Variable(tf.random.uniform([50, 16], -1.0, 1.0), name="W", use_resource=False)
        h = tf.expand_dims(tf.nn.embedding_lookup(table, x), -1)
    pooled = []
    for size in (3, 4):
        with v1.name_scope(f"conv-maxpool-{size}"):
            w = v1.Variable(tf.random.truncated_normal([size, 16, 1, 4]), use_resource=False)
            b = v1.Variable(tf.constant(0.1, shape=[4]), use_resource=False)
            c = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(h, w, 1, "VALID"), b))
            pooled.append(tf.nn.max_pool2d(c, [1, 20 - size + 1, 1, 1], 1, "VALID"))
    h = v1.nn.dropout(tf.reshape(tf.concat(pooled, 3), [-1, 8]), keep)
    with v1.name_scope("output"):
        w = v1.get_variable("W", shape=[8, 2], use_resource=False)
        b = v1.Variable(tf.constant(0.1, shape=[2]), name="b", use_resource=False)
        penalty += tf.nn.l2_loss(w) + tf.nn.l2_loss(b)
        scores = v1.nn.xw_plus_b(h, w, b, name="scores")
        predictions = tf.argmax(scores, 1, name="predictions")
    with v1.name_scope("loss"):
        losses = v1.nn.softmax_cross_entropy_with_logits_v2(logits=scores, labels=y)
        loss = tf.reduce_mean(losses) + 0.1 * penalty
    with v1.name_scope("accuracy"):
        tf.reduce_mean(tf.cast(tf.equal(predictions, tf.argmax(y, 1)), "float"), name="accuracy")
    train(loss)


@style("logits/BiasAdd", inputs=["x", "lengths"], flow=(False, True))
def recurrent_classifier() -> None:
    x = v1.placeholder(tf.float32, [None, 5, 4], name="x")
    lengths = v1.placeholder(tf.int32, [None], name="lengths")
    outputs, _ = v1.nn.dynamic_rnn(Cell(), x, dtype=tf.float32, sequence_length=lengths)
    logits = dense(outputs[:, -1], 3, "logits")
    y_ = v1.placeholder(tf.int64, [None], name="labels")
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y_, logits=logits))
    train(loss)
    tf.reduce_mean(tf.cast(tf.math.in_top_k(y_, logits, 1), tf.float32))


@style("decoded", inputs=["x"])
def autoencoder() -> None:
    x = images(32)
    y = tf.identity(dense(dense(x, 8, "encoder", tf.nn.sigmoid), 32, "decoder", tf.nn.sigmoid), "decoded")
    train(tf.reduce_mean(tf.pow(x - y, 2)), v1.train.RMSPropOptimizer(0.01))


@style("decoder/BiasAdd", inputs=["x"])
def autoencoder_with_a_cross_entropy() -> None:
    x = images(32)
    y = dense(dense(x, 8, "encoder", tf.nn.sigmoid), 32, "decoder")
    train(tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=y)))


@style("decoder/Sigmoid", inputs=["x"])
def variational_autoencoder() -> None:
    x = images(32)
    h = dense(x, 8, "encoder", tf.nn.relu)
    mean, spread = dense(h, 2, "mean"), dense(h, 2, "spread")
    z = mean + tf.exp(spread / 2) * tf.random.normal(tf.shape(mean))
    with v1.name_scope("decoder"):
        y = tf.sigmoid(dense(z, 32, "decode"), name="Sigmoid")
    same = x * tf.math.log(1e-10 + y) + (1 - x) * tf.math.log(1e-10 + 1 - y)
    apart = -0.5 * tf.reduce_sum(1 + spread - tf.square(mean) - tf.exp(spread), 1)
    train(tf.reduce_mean(-tf.reduce_sum(same, 1) + apart))


@style("pred", inputs=["X"])
def linear_regression_of_scalars() -> None:
    x, y = v1.placeholder("float", name="X"), v1.placeholder("float", name="Y")
    w = v1.Variable(np.float32(0.3), name="weight", use_resource=False)
    b = v1.Variable(np.float32(0.1), name="bias", use_resource=False)
    pred = tf.add(tf.multiply(x, w), b, name="pred")
    train(tf.reduce_sum(tf.pow(pred - y, 2)) / (2 * 17), v1.train.GradientDescentOptimizer(0.01))


@style(unclear=["embedded"], inputs=["train_inputs"])
def word2vec_has_no_output() -> None:
    ids = v1.placeholder(tf.int32, [16], name="train_inputs")
    labels = v1.placeholder(tf.int32, [16, 1], name="train_labels")
    table = v1.Variable(tf.random.uniform([50, 8], -1.0, 1.0), use_resource=False)
    embedded = tf.identity(tf.nn.embedding_lookup(table, ids), "embedded")
    w = v1.Variable(tf.random.truncated_normal([50, 8]), use_resource=False)
    loss = tf.nn.nce_loss(w, v1.Variable(tf.zeros([50]), use_resource=False), labels, embedded, 4, 50)
    train(tf.reduce_mean(loss), v1.train.GradientDescentOptimizer(1.0))
    normalized = table / tf.sqrt(tf.reduce_sum(tf.square(table), 1, keepdims=True))
    tf.matmul(tf.nn.embedding_lookup(normalized, tf.constant([1, 2])), normalized, transpose_b=True)


def _generator(z: Any) -> Any:
    return dense(dense(z, 16, "g1", tf.nn.relu), 32, "g2", tf.nn.sigmoid)


@style(unclear=["fake"], inputs=["z"])
def generator_and_discriminator() -> None:
    x, z = images(32), v1.placeholder(tf.float32, [None, 8], name="z")
    fake = tf.identity(_generator(z), "fake")
    real, made = (dense(dense(one, 16, "d1", tf.nn.relu), 1, "d2") for one in (x, fake))
    with_logits = tf.nn.sigmoid_cross_entropy_with_logits
    judging = tf.reduce_mean(
        with_logits(logits=real, labels=tf.ones_like(real)) + with_logits(logits=made, labels=tf.zeros_like(made))
    )
    making = tf.reduce_mean(with_logits(logits=made, labels=tf.ones_like(made)))
    names = {variable.op.name: variable for variable in v1.trainable_variables()}
    train(judging, var_list=[variable for name, variable in names.items() if name.startswith("d")])
    train(making, var_list=[variable for name, variable in names.items() if name.startswith("g")])


@style("fake", inputs=["z"])
def generator_alone() -> None:
    tf.identity(_generator(v1.placeholder(tf.float32, [None, 8], name="z")), "fake")


@style("probabilities", inputs=["x"], flow=(True,))
def keras_layers_with_a_loss() -> None:
    x, y_ = images(8), v1.placeholder(tf.int32, [None], name="labels")
    h = tf.keras.layers.Dense(16, activation="relu")(x)
    y = tf.identity(tf.keras.layers.Dense(3, activation="softmax")(h), "probabilities")
    train(tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(y_, y)))


@style("Identity", inputs=["x"], flow=(True,))
def keras_lstm() -> None:
    x, y_ = v1.placeholder(tf.float32, [None, 5, 4], name="x"), classes(3)
    y = tf.identity(tf.keras.layers.Dense(3)(tf.keras.layers.LSTM(8)(x)))
    train(tf.reduce_mean(tf.square(y - y_)))


@style("age/BiasAdd", "gender/BiasAdd")
def two_heads_with_labels_of_their_own() -> None:
    h = dense(images(), 16, "trunk", tf.nn.relu)
    age, gender = dense(h, 1, "age"), dense(h, 2, "gender")
    years = v1.placeholder(tf.float32, [None, 1], name="years")
    loss = tf.reduce_mean(tf.square(age - years)) + softmax_loss(classes(2), gender)
    train(loss + 1e-4 * tf.add_n([tf.nn.l2_loss(v) for v in v1.trainable_variables()]))


@style("auxiliary/BiasAdd", "main/BiasAdd")
def an_auxiliary_head_with_the_same_labels() -> None:
    h, y_ = dense(images(), 16, "trunk", tf.nn.relu), classes()
    auxiliary = dense(h, 10, "auxiliary")
    main = dense(dense(h, 16, "more", tf.nn.relu), 10, "main")
    train(softmax_loss(y_, main) + 0.3 * softmax_loss(y_, auxiliary))


@style("scores", "boxes")
def two_heads_without_training() -> None:
    h = dense(images(), 16, "trunk", tf.nn.relu)
    tf.nn.softmax(dense(h, 3, "a"), name="scores")
    tf.identity(dense(h, 4, "b"), "boxes")


@style("probabilities", inputs=["IteratorGetNext"])
def estimator_in_training() -> None:
    rows = {"x": np.zeros([8, 4], np.float32)}, np.zeros([8], np.int64)
    features, labels = v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices(rows).batch(4)).get_next()
    logits = dense(dense(features["x"], 8, "h", tf.nn.relu), 3, "out")
    classes_, _ = tf.argmax(logits, 1), tf.nn.softmax(logits, name="probabilities")
    loss = v1.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)
    v1.metrics.accuracy(labels=labels, predictions=classes_)
    v1.summary.scalar("loss", loss)
    train(loss, v1.train.AdagradOptimizer(0.1), global_step=v1.train.get_or_create_global_step())


@style("classes", "probabilities", inputs=["serialized"])
def estimator_as_it_is_exported() -> None:
    serialized = v1.placeholder(tf.string, [None], name="serialized")
    features = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([4], tf.float32)})
    logits = dense(dense(features["x"], 8, "h", tf.nn.relu), 3, "out")
    tf.argmax(logits, 1, name="classes")
    tf.nn.softmax(logits, name="probabilities")


@style("out/BiasAdd", modes=["is_training"], flow=(False, True))
def batch_normalization_with_a_mode() -> None:
    x, y_ = images(16), classes()
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    h = normalize(dense(x, 8, "h"), is_training, "bn")
    h = v1.cond(is_training, lambda: v1.nn.dropout(h, 0.5), lambda: tf.identity(h))
    logits = dense(h, 10, "out")
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        train(softmax_loss(y_, logits))
    accuracy(logits, y_)


@style("bn/batchnorm/add_1", modes=["is_training"])
def batch_normalization_at_the_end() -> None:
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    y = normalize(dense(images(16), 10, "h"), is_training, "bn")
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        train(softmax_loss(classes(), y))


# ------------------------------------------------------------------------------------------------ what surrounds them


@style("out/BiasAdd")
def placeholders_for_rates_penalties_and_weights() -> None:
    logits, y_ = dense(dense(images(), 16, "h", tf.nn.relu), 10, "out"), classes()
    rate, penalty = v1.placeholder(tf.float32, [], name="rate"), v1.placeholder(tf.float32, [], name="penalty")
    weights = v1.placeholder(tf.float32, [None], name="sample_weights")
    losses = weights * v1.nn.softmax_cross_entropy_with_logits_v2(labels=y_, logits=logits)
    loss = tf.reduce_mean(losses) + penalty * tf.add_n([tf.nn.l2_loss(v) for v in v1.trainable_variables()])
    optimizer = v1.train.AdamOptimizer(rate)
    gradients, variables = zip(*optimizer.compute_gradients(loss), strict=True)
    clipped, _ = tf.clip_by_global_norm(gradients, 5.0)
    optimizer.apply_gradients(zip(clipped, variables, strict=True))


@style("probability")
def assertions_prints_and_metrics() -> None:
    x, y_ = images(16), v1.placeholder(tf.float32, [None, 1], name="y_")
    with tf.control_dependencies([v1.assert_greater(tf.reduce_max(x), 0.0)]):
        h = dense(tf.identity(x), 8, "h", tf.nn.relu)
    v1.assert_non_negative(h)
    logits = v1.Print(dense(h, 1, "out"), [h])
    y = tf.sigmoid(logits, name="probability")
    tf.print(tf.reduce_mean(y))
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y_, logits=logits))
    decision = tf.cast(y > 0.5, tf.float32)
    v1.metrics.auc(y_, y)
    v1.metrics.precision(y_, decision)
    tf.reduce_mean(tf.cast(tf.equal(tf.round(y), y_), tf.float32))
    train(loss)


@style("out/BiasAdd")
def a_sigmoid_cross_entropy_alone() -> None:
    y = dense(images(16), 1, "out")
    y_ = v1.placeholder(tf.float32, [None, 1], name="y_")
    train(tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y_, logits=y)))


@style("rate", inputs=["x"])
def a_logarithm_in_the_loss_of_an_exponential() -> None:
    y, y_ = tf.exp(dense(images(16), 1, "out"), name="rate"), v1.placeholder(tf.float32, [None, 1], name="y_")
    train(tf.reduce_mean(y - y_ * tf.math.log(y)))


@style("sub", inputs=["x"])
def a_residual_with_labels() -> None:
    x, clean = images(16), v1.placeholder(tf.float32, [None, 16], name="clean")
    y = tf.subtract(x, dense(dense(x, 8, "h", tf.nn.relu), 16, "out"), name="sub")
    train(tf.reduce_mean(tf.square(y - clean)))


@style("masked", inputs=["x", "mask"])
def a_mask_on_the_answer_is_no_label() -> None:
    mask = v1.placeholder(tf.float32, [None, 10], name="mask")
    tf.multiply(dense(images(), 10, "out", tf.nn.softmax), mask, name="masked")


@style("out/Softmax")
def an_evaluation_s_graph_without_gradients() -> None:
    x = images()
    with v1.name_scope("out"):
        y = tf.nn.softmax(dense(dense(x, 8, "h", tf.nn.relu), 10, "last"), name="Softmax")
    y_ = classes()
    accuracy(y, y_)
    tf.reduce_mean(-tf.reduce_sum(y_ * tf.math.log(y), 1), name="loss")


@style("deploy/Softmax", modes=[])
def a_second_use_of_the_same_weights_for_deployment() -> None:
    x, y_ = images(), classes()

    def network(is_training: bool) -> Any:
        h = dense(x, 16, "h", tf.nn.relu)
        return dense(v1.nn.dropout(h, 0.5) if is_training else h, 10, "out")

    train(softmax_loss(y_, network(True)))
    with v1.name_scope("deploy"):
        y = tf.nn.softmax(network(False), name="Softmax")
    accuracy(y, y_)


@style("y", inputs=["x"])
def a_frozen_graph() -> None:
    h = tf.nn.relu(tf.matmul(images(4), tf.constant(np.ones([4, 8], np.float32))))
    tf.nn.softmax(tf.matmul(h, tf.constant(np.ones([8, 3], np.float32))) + tf.constant([1.0, 2, 3]), name="y")


@style("out/BiasAdd")
def a_moving_average_of_labels() -> None:
    logits, y_ = dense(images(8), 3, "out"), classes(3)
    frequency = v1.get_variable("frequency", [3], trainable=False)
    frequency.assign_sub((frequency - tf.reduce_mean(y_, 0)) * 0.1)
    train(softmax_loss(y_, logits))


@style("y")
def a_variable_that_nothing_reads() -> None:
    v1.get_variable("unused", [3])
    tf.multiply(images(8), 2.0, name="y")


@style("y", flow=(False, True))
def a_loop_as_the_last_layer_and_its_unused_state() -> None:
    x = v1.placeholder(tf.float32, [None, 5, 4], name="x")
    outputs, _ = v1.nn.dynamic_rnn(Cell(), x, dtype=tf.float32)
    tf.identity(outputs[:, -1], name="y")


@style("imported/y_conv", inputs=["imported/x"], modes=["imported/keep_prob"])
def a_graph_imported_under_a_scope() -> None:
    with tf.Graph().as_default() as graph:
        deep_mnist_with_dropout()
        text = graph.as_graph_def()
    tf.import_graph_def(text, name="imported")


@style("probs", flow=(False, True))
def residual_blocks_with_fused_normalization() -> None:
    x, y_ = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), v1.placeholder(tf.int64, [None], name="labels")
    h = x
    for block in range(3):
        h = tf.nn.conv2d(h, v1.get_variable(f"w{block}", [3, 3, int(h.shape[-1]), 4]), 1, "SAME")
        names = ("gamma", "beta", "mean", "variance")
        gamma, beta, mean, variance = (v1.get_variable(f"{name}{block}", [4]) for name in names)
        new, now, spread = v1.nn.fused_batch_norm(h, gamma, beta)
        mean.assign_sub((mean - now) * 0.1)
        variance.assign_sub((variance - spread) * 0.1)
        h = tf.nn.relu(new) + (h if block else 0)
    logits = dense(tf.reduce_mean(h, [1, 2]), 5, "fc", is_resource=True)
    tf.nn.softmax(logits, name="probs")
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y_, logits=logits))
    loss += tf.add_n([1e-4 * tf.nn.l2_loss(variable) for variable in v1.trainable_variables()])
    train(loss, v1.train.MomentumOptimizer(0.1, 0.9))
    tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), y_), tf.float32))


def _by_hand() -> tuple[Any, Any]:
    x, y_ = images(8), v1.placeholder(tf.float32, [None, 1], name="y_")
    z = tf.matmul(x, v1.get_variable("w", [8, 1])) + v1.get_variable("b", [1])
    y = tf.divide(1.0, 1.0 + tf.exp(-z), name="hypothesis")
    train(-tf.reduce_mean(y_ * tf.math.log(y) + (1 - y_) * tf.math.log(1 - y)))
    return y, y_


@style("hypothesis")
def a_sigmoid_by_hand() -> None:
    _by_hand()


@style("hypothesis")
def a_sigmoid_by_hand_with_accuracy() -> None:
    y, y_ = _by_hand()
    tf.reduce_mean(tf.cast(tf.equal(tf.cast(y > 0.5, tf.float32), y_), tf.float32))


@style("predict")
def a_loss_that_adds_an_epsilon() -> None:
    y, y_ = tf.nn.softmax(dense(images(8), 3, "out"), name="predict"), classes(3)
    v1.losses.log_loss(y_, y)
    train(v1.losses.get_total_loss())


@style("Mean")
def logits_that_are_an_average_over_the_image() -> None:
    x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    h = tf.nn.conv2d(x, v1.get_variable("w", [3, 3, 3, 4]), 1, "SAME")
    train(softmax_loss(classes(4), tf.reduce_mean(h, [1, 2])))


@style("prob")
def a_dice_loss_of_segments() -> None:
    x, y_ = (v1.placeholder(tf.float32, [None, 8, 8, depth], name=name) for depth, name in ((3, "x"), (1, "y_")))
    y = tf.sigmoid(tf.nn.conv2d(x, v1.get_variable("w", [3, 3, 3, 1]), 1, "SAME"), name="prob")
    both = tf.reduce_sum(y * y_)
    train(1 - (2 * both + 1) / (tf.reduce_sum(y) + tf.reduce_sum(y_) + 1))


@style("reconstructed")
def a_variational_autoencoder_with_a_cross_entropy() -> None:
    x = images(32)
    h = dense(x, 8, "encoder", tf.nn.relu)
    mean, spread = dense(h, 2, "mean"), dense(h, 2, "spread")
    logits = dense(mean + tf.exp(spread) * tf.random.normal(tf.shape(mean)), 32, "decoder")
    tf.sigmoid(logits, name="reconstructed")
    same = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), 1)
    train(tf.reduce_mean(same - 0.5 * tf.reduce_sum(1 + spread - mean * mean - tf.exp(spread), 1)))


@style("out/BiasAdd", inputs=["IteratorGetNext:1"])
def an_iterator_that_gives_labels_first() -> None:
    rows = np.zeros([8], np.int64), np.zeros([8, 4], np.float32)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(4)
    labels, x = v1.data.make_initializable_iterator(batches).get_next()
    train(softmax_loss(tf.one_hot(labels, 3), dense(x, 3, "out")))


# ------------------------------------------------------------------------------------------------- what stays unclear


@style("logits", flow=(False, True))
def a_language_model_that_is_flattened_for_its_loss() -> None:
    x, y_ = (v1.placeholder(tf.int32, [4, 5], name=name) for name in ("x", "y_"))
    h = tf.nn.embedding_lookup(v1.get_variable("table", [30, 8], use_resource=False), x)
    h, _ = v1.nn.dynamic_rnn(Cell(), v1.nn.dropout(h, 0.5), dtype=tf.float32)
    logits = tf.reshape(dense(tf.reshape(h, [-1, 8]), 30, "softmax"), [4, 5, 30], name="logits")
    flat = tf.reshape(logits, [-1, 30]), tf.reshape(y_, [-1])
    cost = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=flat[0], labels=flat[1]))
    variables = v1.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(tf.gradients(cost, variables), 5.0)
    v1.train.GradientDescentOptimizer(1.0).apply_gradients(zip(gradients, variables, strict=True))


@style("tower_0/out/BiasAdd", inputs=["x0"])
def a_tower_for_each_device() -> None:
    for number in range(2):
        x, y_ = (v1.placeholder(tf.float32, [None, 3], name=f"{name}{number}") for name in "xy")
        with v1.name_scope(f"tower_{number}"):
            loss = softmax_loss(y_, dense(x, 3, "out"))
        train(loss, v1.train.GradientDescentOptimizer(0.1))


@style("prob", "class")
def segments_with_probabilities_and_classes() -> None:
    x, y_ = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), v1.placeholder(tf.int32, [None, 8, 8], name="y_")
    logits = tf.nn.conv2d(x, v1.get_variable("w", [3, 3, 3, 4]), 1, "SAME", name="logits")
    tf.argmax(logits, 3, name="class")
    tf.nn.softmax(logits, name="prob")
    train(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y_, logits=logits)))


@style("q_eval/BiasAdd", inputs=["s"])
def two_networks_of_a_q_learner() -> None:
    s, later = (v1.placeholder(tf.float32, [None, 4], name=name) for name in ("s", "s_"))
    action, reward = v1.placeholder(tf.int32, [None], name="a"), v1.placeholder(tf.float32, [None], name="r")
    now, then = dense(s, 2, "q_eval"), dense(later, 2, "q_next")
    target = tf.stop_gradient(reward + 0.9 * tf.reduce_max(then, 1))
    train(tf.reduce_mean(tf.square(tf.reduce_sum(now * tf.one_hot(action, 2), 1) - target)))


@style("policy", "value", inputs=["s"])
def an_actor_and_a_critic() -> None:
    s = v1.placeholder(tf.float32, [None, 4], name="s")
    action, reward = v1.placeholder(tf.int32, [None], name="a"), v1.placeholder(tf.float32, [None], name="r")
    h = dense(s, 8, "h", tf.nn.relu)
    policy, value = tf.nn.softmax(dense(h, 2, "pi"), name="policy"), tf.squeeze(dense(h, 1, "v"), 1, name="value")
    better = reward - value
    likely = tf.math.log(tf.reduce_sum(policy * tf.one_hot(action, 2), 1) + 1e-8)
    entropy = -tf.reduce_sum(policy * tf.math.log(policy + 1e-8), 1)
    losses = tf.reduce_mean(likely * tf.stop_gradient(better)), tf.reduce_mean(tf.square(better))
    train(losses[1] - losses[0] - 0.01 * tf.reduce_mean(entropy))


@style(unclear=["Sum"], inputs=["a", "b"])
def twins_with_a_distance() -> None:
    a, b = (v1.placeholder(tf.float32, [None, 8], name=name) for name in "ab")
    y_ = v1.placeholder(tf.float32, [None], name="y_")
    apart = tf.reduce_sum(tf.square(dense(a, 4, "out") - dense(b, 4, "out")), 1)
    train(tf.reduce_mean(y_ * apart + (1 - y_) * tf.square(tf.maximum(1 - tf.sqrt(apart + 1e-6), 0))))


@style("out", "prediction")
def a_support_vector_machine() -> None:
    x, y_ = images(8), v1.placeholder(tf.float32, [None, 1], name="y_")
    w = v1.get_variable("w", [8, 1])
    y = tf.subtract(tf.matmul(x, w), v1.get_variable("b", [1]), name="out")
    train(tf.reduce_mean(tf.maximum(0.0, 1 - y * y_)) + 0.01 * tf.reduce_sum(tf.square(w)))
    tf.sign(y, name="prediction")


@style("probability", "class")
def a_softmax_and_the_decision_on_it_that_nobody_takes() -> None:
    logits = dense(images(), 10, "out")
    y = tf.nn.softmax(logits, name="probability")
    tf.argmax(y, 1, name="class")
    train(softmax_loss(classes(), logits))


@style(unclear=["embedding", "logits/BiasAdd"])
def an_embedding_in_the_middle_that_nobody_takes() -> None:
    h = dense(images(), 16, "h")
    tf.nn.l2_normalize(h, 1, name="embedding")
    with v1.name_scope(""):
        logits = dense(h, 10, "logits")
    train(softmax_loss(classes(), logits))


@style(unclear=["out/BiasAdd", "Sub"])
def a_residual_without_labels() -> None:
    x = images(16)
    noisy = x + tf.random.normal(tf.shape(x))
    y = tf.subtract(noisy, dense(dense(noisy, 8, "h", tf.nn.relu), 16, "out"), name="Sub")
    train(tf.reduce_mean(tf.square(y - x)))


@style("out/BiasAdd", inputs=["anchor"])
def a_triplet_loss() -> None:
    a, p, n = (
        dense(v1.placeholder(tf.float32, [None, 16], name=name), 4, "out") for name in ("anchor", "same", "other")
    )
    apart = tf.reduce_sum(tf.square(a - p), 1) - tf.reduce_sum(tf.square(a - n), 1) + 0.2
    train(tf.reduce_mean(tf.maximum(apart, 0.0)))


# ------------------------------------------------------------------------------------------ draws, and constant rows


@style("logits", inputs=["s"])
def a_policy_that_draws_its_action() -> None:
    s, action = v1.placeholder(tf.float32, [None, 4], name="s"), v1.placeholder(tf.int32, [None], name="a")
    logits = tf.identity(dense(s, 3, "pi"), "logits")
    v1.multinomial(logits, 1, name="action")
    advantage = v1.placeholder(tf.float32, [None], name="advantage")
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=action, logits=logits)
    train(tf.reduce_mean(entropy * advantage))


@style("mean", inputs=["s"])
def a_policy_of_a_normal_distribution() -> None:
    mean = tf.tanh(dense(v1.placeholder(tf.float32, [None, 4], name="s"), 2, "pi"), name="mean")
    deviation = tf.exp(v1.get_variable("log_std", [2]))
    tf.clip_by_value(mean + deviation * tf.random.normal(tf.shape(mean)), -1.0, 1.0, name="action")


@style("price")
def a_metric_against_labels_that_are_a_constant() -> None:
    labels = tf.constant(np.linspace(1, 2, 50, dtype=np.float32))
    price = tf.squeeze(dense(images(8), 1, "linear"), 1, name="price")
    train(tf.nn.l2_loss(price - labels))
    tf.multiply((price - labels) / labels, 100.0, name="percent_off")


@style("y", inputs=["rows"])
def rows_and_labels_that_are_constants() -> None:
    draw = np.random.default_rng(0)
    x = tf.constant(draw.normal(size=(20, 4)).astype(np.float32), name="rows")
    labels = tf.constant(draw.normal(size=(20, 1)).astype(np.float32))
    y = tf.identity(dense(x, 1, "linear"), "y")
    train(tf.reduce_mean(tf.square(y - labels)))
    tf.abs(y - labels, name="off")


@style("y", modes=["keep_prob"])
def a_dropout_after_the_last_layer() -> None:
    keep_prob = v1.placeholder(tf.float32, [], name="keep_prob")
    tf.nn.softmax(v1.nn.dropout(dense(images(8), 3, "out"), keep_prob), name="y")


@style("distance", inputs=["a", "b"])
def twins_with_a_margin() -> None:
    a, b = (dense(v1.placeholder(tf.float32, [None, 8], name=name), 4, "out") for name in "ab")
    y_ = v1.placeholder(tf.float32, [None], name="y_")
    d = tf.sqrt(tf.reduce_sum(tf.square(a - b), 1) + 1e-6, name="distance")
    train(tf.reduce_mean(y_ * tf.square(d) + (1 - y_) * tf.square(tf.maximum(1.0 - d, 0.0))))


@style(unclear=["normalized"], inputs=[])
def word_vectors_that_nothing_takes() -> None:
    ids, labels = v1.placeholder(tf.int32, [16], name="ids"), v1.placeholder(tf.int32, [16, 1], name="context")
    table, weights = v1.get_variable("table", [50, 8]), v1.get_variable("nce", [50, 8])
    taken = tf.nn.embedding_lookup(table, ids)
    train(tf.reduce_mean(tf.nn.nce_loss(weights, v1.get_variable("bias", [50]), labels, taken, 4, 50)))
    tf.divide(table, tf.sqrt(tf.reduce_sum(tf.square(table), 1, keepdims=True)), name="normalized")


# ----------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("has_shapes", [True, False], ids=["shapes", "plain"])
@pytest.mark.parametrize("one", STYLES, ids=lambda one: one.name)
def test_outputs_are_found_or_said_to_be_unclear(one: Style, has_shapes: bool) -> None:
    graph = graph_of(one, has_shapes)
    ranked = rank_outputs(graph)
    if one.found:
        assert discover_outputs(graph) == sorted(one.found, key=[node.name for node in graph.node].index)
        assert {candidate.tensor for candidate in ranked[: len(one.found)]} == set(one.found)
    else:
        with pytest.raises(FreezeError, match=r"not clear which(.|\n)*--outputs") as caught:
            discover_outputs(graph)
        assert set(one.unclear) <= {candidate.tensor for candidate in ranked[: len(one.unclear) + 3]}
        assert all(f"{tensor}: " in str(caught.value) for tensor in one.unclear)
    inputs = rank_inputs(graph, one.found or [ranked[0].tensor] if not one.unclear else [one.unclear[0]])
    pinned = [candidate for candidate in inputs if any("--pin" in reason for reason in candidate.reasons)]
    assert {candidate.tensor for candidate in pinned} == set(one.modes)
    assert {candidate.tensor for candidate in inputs} - set(one.modes) == set(one.inputs)
    assert inputs[len(inputs) - len(pinned) :] == pinned


def strangers(name: str) -> GraphDef:
    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    content = path.read_bytes()
    return MetaGraphDef.FromString(content).graph_def if path.suffix == ".meta" else GraphDef.FromString(content)


@pytest.mark.parametrize(
    ("name", "outputs", "inputs"),
    [
        ("animal-classifier-v4/classifier-model-v4.meta", ["y_pred"], ["x"]),
        ("linear-regression/checkpoint/model.meta", ["pred"], ["X"]),
        ("linear-regression/graphdef/frozen.pb", ["pred"], ["X"]),
        ("old-variable-op/export.meta", ["Add"], ["Placeholder"]),
        ("batchnorm-in-cond/regular_model.meta", ["fc1/BiasAdd"], ["input", "is_training"]),
    ],
)
def test_outputs_of_strangers_graphs_are_found(name: str, outputs: list[str], inputs: list[str]) -> None:
    graph = strangers(name)
    assert discover_outputs(graph) == outputs
    assert [candidate.tensor for candidate in rank_inputs(graph, outputs)] == inputs


def test_a_face_detector_has_nine_outputs_and_fifteen_ends_before_its_author_froze_it() -> None:
    heads = {
        f"face_rpn_{head}"
        for stride in (8, 16, 32)
        for head in (f"cls_score_stride{stride}", f"bbox_pred_stride{stride}_rev", f"landmark_pred_stride{stride}_rev")
    }
    assert set(discover_outputs(strangers("retinaface-mnet/frozen_model_mnet.25-1080x1920.pb"))) == heads
    ends = discover_outputs(strangers("retinaface-mnet/mnet.25-1080x1920.meta"))
    assert len(ends) == 15
    assert {end for end in heads if "cls_score" not in end} <= set(ends)


@pytest.mark.parametrize(
    ("model", "file", "outputs"),
    [
        ("spam", "training.meta", ["probability"]),
        ("spam", "inference.meta", ["probability"]),
        ("spam", "evaluation.meta", ["probability"]),
        ("multiply_add", "inference.meta", ["op_to_store"]),
    ],
)
def test_outputs_and_inputs_of_the_bundled_models_are_found(
    model: str, file: str, outputs: list[str], tmp_path: Path
) -> None:
    build_graph(find_model(model), GraphSettings(moving_average=0.9), tmp_path)
    graph = MetaGraphDef.FromString((tmp_path / file).read_bytes()).graph_def
    assert discover_outputs(graph) == outputs
    signature = Signature.read(tmp_path / "signature.json")
    assert {one.tensor for one in rank_inputs(graph, outputs)} == {spec.name for spec in signature.inputs}


def test_the_score_on_graphs_that_were_not_tuned_on_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import discovery as benchmark
    from discovery_unseen import UNSEEN

    scores = {known.name: benchmark.score(known, GraphDef.FromString(known.graph())) for known in UNSEEN}
    assert all(one.needs for one in scores.values())
    assert {name for name, one in scores.items() if one.verdict != "right"} == {
        "gaussian_actor_with_log_probability",
        "ranking_of_pairs",
        "style_transfer_with_a_frozen_judge",
    }
    assert {one.verdict for one in scores.values()} == {"right", "asked"}


def test_what_scales_masks_or_weighs_the_model_is_never_taken_for_labels_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import discovery as benchmark
    from discovery_values import VALUES

    scores = {known.name: benchmark.score(known, GraphDef.FromString(known.graph())) for known in VALUES}
    assert all(one.needs for one in scores.values())
    assert {name for name, one in scores.items() if one.verdict != "right"} == {
        "lists_of_documents",
        "lists_of_documents_without_a_metric",
        "policy_over_legal_moves",
        "moves_that_are_masked_for_use_alone",
        "table_of_q",
    }
    assert {one.verdict for one in scores.values()} == {"right", "asked"}


def test_what_was_trained_is_never_dropped_for_what_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side outputs, decoders and their lengths, losses in loops, gradients with respect to inputs, everyday kinds."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import discovery as benchmark
    from discovery_beside import BESIDE

    scores = {known.name: benchmark.score(known, GraphDef.FromString(known.graph())) for known in BESIDE}
    assert all(one.needs for one in scores.values())
    assert {name for name, one in scores.items() if one.verdict != "right"} == {
        "boxes_and_classes",
        "loss_in_a_map_of_functions",
        "captions_beside_attention",
        "colours_beside_sums_of_a_hidden_layer",
        "gan_with_a_gradient_penalty",
        "variational_autoencoder",
        "words_with_noise_contrast",
    }
    assert {one.verdict for one in scores.values()} == {"right", "asked"}


def summed_losses(is_v2: bool) -> GraphDef:
    """A loop that gives losses and no predictions, or with functions also predictions."""

    def one(given: Any) -> Any:
        out = tf.matmul(given[0], w)
        loss = tf.reduce_mean(tf.square(out - given[1]))
        return (out, loss) if is_v2 else loss

    with control_flow(is_v2), tf.Graph().as_default() as graph:
        x, y = (v1.placeholder(tf.float32, [None, 5, 1], name=name) for name in ("x", "y"))
        w = v1.get_variable("w", [1, 1], use_resource=False)
        found = v1.map_fn(one, (x, y), dtype=(tf.float32, tf.float32) if is_v2 else tf.float32)
        losses = found[1] if is_v2 else found
        if is_v2:
            tf.identity(found[0], "out")
        train(tf.reduce_mean(losses))
        return GraphDef.FromString(graph.as_graph_def(add_shapes=True).SerializeToString())


def test_a_graph_that_gives_only_losses_lists_them_as_what_they_are() -> None:
    graph = summed_losses(is_v2=False)
    with pytest.raises(
        FreezeError, match="not clear which tensors are the outputs: no tensor ends the model"
    ) as caught:
        discover_outputs(graph)
    [candidate] = rank_outputs(graph)
    assert candidate.tensor in str(caught.value)
    assert "it is made of an input that may be labels" in candidate.reasons


def test_labels_that_only_the_loss_in_a_call_needs_are_not_demanded_in_silence() -> None:
    graph = summed_losses(is_v2=True)
    with pytest.raises(FreezeError, match="takes y, of which no output is made: the frozen graph asks for it too"):
        discover_outputs(graph)
    assert rank_outputs(graph)[0].tensor == "out"
    x, y = rank_inputs(graph, ["out"])
    assert (x.tensor, x.reasons) == ("x", ("weights are applied to it",))
    assert (y.tensor, y.is_mode) == ("y", False)
    assert "no output is made of it" in y.reasons[0]


def test_a_head_that_only_trains_is_never_taken_for_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bandits and policies that explore, sampled losses with the best of all beside them, towers, temperatures."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import discovery as benchmark
    from discovery_served import SERVED

    graphs = {known.name: GraphDef.FromString(known.graph()) for known in SERVED}
    scores = {known.name: benchmark.score(known, graphs[known.name]) for known in SERVED}
    assert all(one.needs for one in scores.values())
    assert {name for name, one in scores.items() if one.verdict != "right"} == {
        "action_with_noise_and_without",
        "bandit_with_arms_that_may_be_shown",
        "items_that_are_not_owned",
        "ranker_behind_a_pretrained_net",
        "softmax_of_a_temperature",
    }
    assert {one.verdict for one in scores.values()} == {"right", "asked"}
    together = [outputs for outputs, _ in find_together(graphs["bandit_with_arms_that_may_be_shown"])]
    assert together == [["act/bound", "act/arm"], ["act/expected", "act/spread", "act/bound", "act/arm"]]


def test_a_tensor_that_its_author_named_and_nothing_takes_is_found_or_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """States of loops, features beside a softmax, a rate beside its logarithm; the insides of loops are no outputs."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import discovery as benchmark
    from discovery_named import NAMED

    graphs = {known.name: GraphDef.FromString(known.graph()) for known in NAMED}
    scores = {known.name: benchmark.score(known, graphs[known.name]) for known in NAMED}
    assert all(one.needs for one in scores.values())
    assert {name for name, one in scores.items() if one.verdict != "right"} == {
        "simulation_whose_trained_output_has_the_loss",
        "rate_that_the_loss_takes_with_its_logarithm",
        "rate_that_a_poisson_loss_of_exposure_takes",
        "gaussian_with_its_deviation_in_the_loss",
        "value_and_width_that_a_choice_is_made_of",
        "best_path_that_loops_find",
    }
    assert {one.verdict for one in scores.values()} == {"right", "asked"}
    assert not any("while/" in tensor for one in scores.values() for tensor in one.found)
    together = {name: [outputs for outputs, _ in find_together(graph)] for name, graph in graphs.items()}
    assert together["best_path_that_loops_find"] == [["tags", "score"]]
    assert together["simulation_whose_trained_output_has_the_loss"] == [
        ["levels", "final_level", "overflows", "outflow"]
    ]


def in_a_graph(build: Callable[[], Any]) -> GraphDef:
    with tf.Graph().as_default() as graph:
        build()
        return GraphDef.FromString(graph.as_graph_def(add_shapes=True).SerializeToString())


def price_with_a_bound(scope: str = "predict", is_named: bool = True, is_built_twice: bool = True) -> GraphDef:
    """A mean and a deviation in the labels' units, with an interval and a draw; the loss has a net of its own."""

    def net(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with v1.variable_scope("net", reuse=v1.AUTO_REUSE):
            hidden = tf.tanh(x @ v1.get_variable("w", [4, 8]))
            return hidden @ v1.get_variable("m", [8, 1]), tf.nn.softplus(hidden @ v1.get_variable("s", [8, 1]))

    def build() -> None:
        x, y = v1.placeholder(tf.float32, [None, 4], "x"), v1.placeholder(tf.float32, [None, 1], "y")
        centre, scale = (v1.get_variable(name, initializer=2.0, trainable=False) for name in ("centre", "scale"))
        with tf.name_scope("bound"):
            mean, spread = net(x)
            loss = tf.reduce_mean(tf.math.log(spread) + tf.square((y - centre) / scale - mean) / spread)
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        with tf.name_scope(scope):
            mean, spread = net(x) if is_built_twice else (mean, spread)
            price = tf.add(mean * scale, centre, name="price" if is_named else None)
            deviation = tf.multiply(spread, scale, name="deviation" if is_named else None)
            tf.concat([price - 2 * deviation, price + 2 * deviation], 1, name="interval")
            tf.add(price, deviation * tf.random.normal(tf.shape(price)), name="draw")

    return in_a_graph(build)


@pytest.mark.parametrize("is_built_twice", [True, False])
@pytest.mark.parametrize("scope", ["predict", ""])
def test_named_tensors_stand_for_the_unnamed_ones_that_a_loss_takes(scope: str, is_built_twice: bool) -> None:
    """They are the same weights of the same inputs, in the units that the author wanted."""
    graph = price_with_a_bound(scope, is_built_twice=is_built_twice)
    place = f"{scope}/" if scope else ""
    assert discover_outputs(graph) == [f"{place}{name}" for name in ("price", "deviation", "interval")]
    mean, deviation = rank_before_draws(graph, [f"{place}draw"])  # the mean of what has noise comes first
    assert (mean.tensor, deviation.tensor) == (f"{place}price", f"{place}deviation")


def test_an_unnamed_tensor_that_only_a_loss_takes_is_asked_about() -> None:
    graph = price_with_a_bound(is_named=False)
    with pytest.raises(FreezeError, match=r"nothing else .* uses predict/interval, .* the loss is computed from other"):
        discover_outputs(graph)
    [[together, what]] = find_together(graph)
    assert together == ["bound/net/matmul_1", "bound/net/Softplus", "predict/interval"]
    assert what == "what nothing else uses, and what the loss is computed from"


def test_what_is_named_in_the_scope_of_ends_is_offered_with_them() -> None:
    """Digits that a metric and the number made of them take."""

    def build() -> None:
        x, y = v1.placeholder(tf.float32, [None, 4], "x"), v1.placeholder(tf.int64, [None, 5], "y")
        hidden = tf.tanh(x @ v1.get_variable("w", [4, 8]))
        heads = [hidden @ v1.get_variable(f"v{at}", [8, 10]) + v1.get_variable(f"b{at}", [10]) for at in range(5)]
        losses = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y[:, at], logits=logits)
            for at, logits in enumerate(heads)
        ]
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.add_n(losses)))
        with tf.name_scope("meter"):
            probabilities = tf.nn.softmax(tf.stack(heads, 1))
            digits = tf.argmax(probabilities, 2, name="digits")
            tf.reduce_sum(digits * tf.constant([10000, 1000, 100, 10, 1], tf.int64), 1, name="reading")
            tf.reduce_min(tf.reduce_max(probabilities, 2), 1, name="confidence")
        tf.reduce_mean(tf.cast(tf.equal(digits, y), tf.float32), name="accuracy")

    graph = in_a_graph(build)
    with pytest.raises(FreezeError, match=r"the loss is computed from other tensors .* and 4 more"):
        discover_outputs(graph)
    [[together, what]] = find_together(graph)
    assert together == ["meter/digits", "meter/reading", "meter/confidence"]
    assert what == "what nothing else uses, with what is named in its scope"
    shown = {one.tensor: one.reasons for one in rank_outputs(graph)}
    assert "named in the scope of meter/confidence" in shown["meter/digits"]


@pytest.mark.parametrize(
    ("name", "op", "is_own"),
    [
        ("rnn/state", "Identity", True),
        ("features", "Relu", True),
        ("mean", "AddV2", True),
        ("Mean_1", "Mean", False),
        ("top_scores_1", "TopKV2", True),
        ("rnn/transpose_1", "Transpose", False),
        ("while/Exit_3", "Exit", False),
        ("rnn/while/Identity_10", "Identity", False),
        ("sub_2", "Sub", False),
        ("truediv", "RealDiv", False),
        ("group/control_dependency", "Identity", False),
        ("x/TopKV2", "TopKV2", False),
    ],
)
def test_names_that_authors_give_are_told_from_tensorflows(name: str, op: str, is_own: bool) -> None:
    assert is_named(NodeDef(name=name, op=op)) is is_own


def test_a_candidate_tells_what_it_is_and_why() -> None:
    with tf.Graph().as_default() as graph:
        mnist_for_beginners()
        text = graph.as_graph_def(add_shapes=True).SerializeToString()
    [first] = rank_outputs(GraphDef.FromString(text))
    assert str(first) == "y: Softmax, float32 [?, 10]; feeds nothing but the loss"
    whole = Candidate("split:1", "Split", "float32", None, 0.5, ("feeds nothing", "named like an output"))
    assert str(whole) == "split:1: Split, float32; feeds nothing, named like an output"


def test_an_output_that_is_not_there_is_refused() -> None:
    with pytest.raises(FreezeError, match="no such tensor"):
        rank_inputs(GraphDef(), ["y"])


def test_a_graph_without_a_model_has_no_outputs() -> None:
    with pytest.raises(FreezeError, match="no tensor of the graph looks like an output"):
        discover_outputs(GraphDef())


def test_the_graph_stays_as_it_is() -> None:
    with tf.Graph().as_default() as graph:
        deep_mnist_with_dropout()
        text = graph.as_graph_def().SerializeToString()
    given = GraphDef.FromString(text)
    before = given.SerializeToString(deterministic=True)
    rank_inputs(given, discover_outputs(given))
    assert given.SerializeToString(deterministic=True) == before


def chain(layers: int) -> GraphDef:
    """A deep model of three nodes and three of weights for each layer."""
    nodes = [text_node("x", "Placeholder", [])]
    for number in range(layers):
        last = nodes[-1].name
        nodes.append(text_node(f"w{number}", "VariableV2", [], 2))
        nodes.append(text_node(f"w{number}/read", "Identity", [f"w{number}"]))
        nodes.append(text_node(f"h{number}", "MatMul", [last, f"w{number}/read"]))
        nodes.append(text_node(f"r{number}", "Relu", [f"h{number}"]))
    return GraphDef(node=nodes)


def text_node(name: str, op: str, inputs: list[str], rank: int = 0) -> NodeDef:
    node = NodeDef(name=name, op=op, input=inputs)
    node.attr["dtype" if op in ("Placeholder", "VariableV2") else "T"].type = 1
    for _ in range(rank):
        node.attr["shape"].shape.dim.add(size=4)
    return node


def test_deep_graphs_are_walked_without_recursion() -> None:
    assert discover_outputs(chain(9_000)) == ["r8999"]


def test_what_goes_round_in_a_damaged_graph_ends() -> None:
    graph = chain(2)
    graph.node[3].input[0] = "r1"
    with pytest.raises(FreezeError):
        discover_outputs(graph)
