"""The models that faults are planted in: their checkpoints, as the stage `checkpoint` leaves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data.npz import add_kind, save_arrays
from pipeline.signature import Decision, Signature, TensorSpec

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
Values = dict[str, Array]
Build = Callable[[Any], dict[str, Any]]

AVERAGE = "/ExponentialMovingAverage"
ROWS, GOLDENS = 24, 8
X = np.random.default_rng(5).normal(size=(ROWS, 4)).astype(np.float32) * 2
WORDS = np.array([b"free", b"hello", b"now", b"free", b"never seen", b"hello", b"now", b"call"], object)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (None, 4)),),
    (
        TensorSpec("probabilities", "float32", (None, 3)),
        TensorSpec("margin", "float32", (None,)),
        TensorSpec("spread", "float32", (None,)),
        TensorSpec("total", "int32", (None,)),
    ),
    Decision("probabilities", labels=("a", "b", "c")),
)


def drawn(seed: int) -> Values:
    """The classifier's weights."""
    draw = np.random.default_rng(seed)
    sizes = {"dense1/kernel": (4, 4), "dense1/bias": (4,), "dense2/kernel": (4, 3), "dense2/bias": (3,)}
    return {name: draw.normal(size=size).astype(np.float32) for name, size in sizes.items()}


def variable(name: str, values: Mapping[str, Array]) -> Any:
    """A variable with its value."""
    return v1.get_variable(name, initializer=tf.constant(values[name]))


def classifier(
    x: Any, values: Values, inside: Callable[[Any], Any] = lambda hidden: hidden, act: Any = tf.tanh
) -> dict[str, Any]:
    """Two dense layers; its outputs by name.

    Args:
        inside: what stands between the layers.
    """
    hidden = act(tf.add(x @ variable("dense1/kernel", values), variable("dense1/bias", values), name="dense1"))
    hidden = inside(tf.identity(hidden, name="hidden"))
    logits = tf.add(hidden @ variable("dense2/kernel", values), variable("dense2/bias", values), name="logits")
    whole = tf.clip_by_value(tf.where(tf.equal(x, x), x, tf.zeros_like(x)), -9.0, 9.0)
    return {
        "probabilities": tf.nn.softmax(logits, name="softmax"),
        "margin": tf.abs(logits[:, 0] - logits[:, 1], name="gap"),
        "spread": tf.reduce_max(hidden, 1) - tf.reduce_min(hidden, 1),
        "total": tf.cast(tf.reduce_sum(tf.abs(whole), 1) * 200.0, tf.int32, name="whole"),
    }


def save_checkpoint(
    folder: Path,
    build: Build,
    signature: Signature = SIGNATURE,
    rows: Mapping[str, Array] | None = None,
    has_goldens: bool = True,
) -> Path:
    """Writes an artifact with the graph, the weights, the rows, and the outputs recorded now.

    Args:
        build: gives the outputs by name for the one input.
    """
    folder.mkdir(parents=True)
    fed = rows or {"x": X}
    with tf.Graph().as_default(), v1.Session() as session:
        (spec,) = signature.inputs
        outputs = build(v1.placeholder(tf.as_dtype(spec.dtype), spec.shape, name=spec.name))
        fetched = {name: tf.identity(tensor, name=name) for name, tensor in outputs.items()}
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
        given = {name: values[:GOLDENS] for name, values in fed.items()}
        answers = session.run(fetched, {f"{name}:0": values for name, values in given.items()})
    signature.write(folder / "signature.json")
    save_arrays(folder / "validation.npz", add_kind("input", dict(fed)))
    if has_goldens:
        recorded = {name: np.asarray(values) for name, values in answers.items()}
        save_arrays(folder / "goldens.npz", add_kind("input", given) | add_kind("output", recorded))
    return folder


def save_step(folder: Path, step: int, raw: Values, averaged: Values) -> None:
    """Writes a checkpoint of a training, with the moving averages beside the variables."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**raw, **{name + AVERAGE: value for name, value in averaged.items()}}
    with tf.Graph().as_default(), v1.Session() as session:
        for name in values:
            variable(name, values)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"), step, write_meta_graph=False)


def frozen_by_tensorflow(build: Build, signature: Signature = SIGNATURE) -> Any:
    """A GraphDef as TensorFlow's own tools freeze a graph, whatever is in it."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        (spec,) = signature.inputs
        outputs = build(v1.placeholder(tf.as_dtype(spec.dtype), spec.shape, name=spec.name))
        for name, tensor in outputs.items():
            tf.identity(tensor, name=name)
        session.run(v1.global_variables_initializer())
        return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(outputs))
