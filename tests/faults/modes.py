"""Faults of mode: what belongs to training is on, or rows see each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.signature import Signature, TensorSpec

from . import models
from .cases import STEPS, Home, Pair, fault, freeze
from .graphs import ALL
from .models import v1

NORMED = Signature((TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),))


def fused(x: Any, is_training: bool) -> Any:
    """A fused batch norm."""
    four = x[:, None, None, :]
    one, zero = [1.0] * 4, [0.0] * 4
    given = ([], []) if is_training else (zero, one)
    return tf.raw_ops.FusedBatchNormV3(
        x=four, scale=one, offset=zero, mean=given[0], variance=given[1], is_training=is_training, name="norm"
    ).y[:, 0, 0, :]


def product(x: Any) -> Any:
    """A dense layer."""
    return x @ v1.get_variable("w", initializer=tf.constant(models.drawn(1)["dense1/kernel"]))


def frozen_pair(folder: Path, build: models.Build, signature: Signature = NORMED) -> Pair:
    """A checkpoint and what it freezes to: the same graph on both sides."""
    checkpoint = models.save_checkpoint(folder / "checkpoint", build, signature, has_goldens=False)
    return Pair(checkpoint, freeze(checkpoint, folder / "candidate"))


@fault("batch norm by the batch's own statistics, on both sides", "batch_norm_in_training", "stable", mentions="norm")
def batch_norm_in_training_mode(home: Home, folder: Path) -> Pair:
    return frozen_pair(folder, lambda x: {"y": fused(product(x), is_training=True)})


@fault("the same, spelt out with the mean and the variance of the batch", "batch_norm_in_training", "stable")
def batch_norm_by_moments(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        y = product(x)
        mean, variance = tf.nn.moments(y, [0])
        return {"y": tf.nn.batch_normalization(y, mean, variance, None, None, 1e-3)}

    return frozen_pair(folder, build)


@fault(
    "batch norm in training mode in the candidate alone",
    "batch_norm_in_training",
    "equal edge generated stable",
    mentions="is_training is true",
)
def batch_norm_in_training_mode_in_the_candidate(home: Home, folder: Path) -> Pair:
    pair = frozen_pair(folder, lambda x: {"y": fused(product(x), is_training=False)})
    graph = models.frozen_by_tensorflow(lambda x: {"y": fused(product(x), is_training=True)}, NORMED)
    (pair.candidate / "model.pb").write_bytes(graph.SerializeToString(deterministic=True))
    return pair


@fault("dropout was frozen with the graph", "dropout_on", f"{ALL} stable decisions", mentions="RandomUniform")
def dropout_on(home: Home, folder: Path) -> Pair:
    values = home.raw[STEPS[-1]]
    return home.built(
        folder,
        models.frozen_by_tensorflow(
            lambda x: models.classifier(x, values, lambda hidden: tf.nn.dropout(hidden, rate=0.5, seed=3))
        ),
    )


@fault("a softmax over the rows instead of the classes, on both sides", "softmax_over_batch", "stable")
def softmax_over_the_wrong_axis(home: Home, folder: Path) -> Pair:
    return frozen_pair(folder, lambda x: {"y": tf.nn.softmax(product(x), axis=0)})


@fault("the same, spelt out", "softmax_over_batch", "stable", mentions="Sum")
def softmax_over_the_wrong_axis_spelt_out(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        y = tf.exp(tf.clip_by_value(product(x), -9.0, 9.0))
        return {"y": y / tf.reduce_sum(y, axis=0, keepdims=True)}

    return frozen_pair(folder, build)


@fault("each row is given the answer of the row before it, on both sides", "neighbours", "stable", mentions="Roll")
def rows_out_of_place(home: Home, folder: Path) -> Pair:
    return frozen_pair(folder, lambda x: {"y": tf.roll(product(x), 1, axis=0)})


@fault("a thousandth of the batch's mean is added to each row, on both sides", "batch_norm_in_training", "stable")
def a_thousandth_of_the_mean(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        y = product(x)
        return {"y": y + 1e-3 * tf.reduce_mean(y, axis=0)}

    return frozen_pair(folder, build)


@fault(
    "a millionth of the row before is added to each row, on both sides, beside values a thousand times as large",
    "neighbours",
    "stable",
    mentions="Roll",
)
def a_millionth_of_the_row_before(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        y = product(x) * [1.0, 10.0, 100.0, 1000.0]
        return {"y": y + 1e-6 * tf.roll(y[:, ::-1], 1, axis=0)}

    return frozen_pair(folder, build)


@fault("each row is divided by the number of rows, on both sides", "batch_size", "stable", mentions="number of rows")
def divided_by_the_number_of_rows(home: Home, folder: Path) -> Pair:
    return frozen_pair(folder, lambda x: {"y": product(x) / tf.cast(tf.shape(x)[0], tf.float32)})
