"""Faults that no usual row shows: wrong for some sizes of batch, for some numbers, for some words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.signature import Signature, TensorSpec

from . import models
from .cases import Home, Pair, fault, freeze, write_graph
from .models import v1

FLOATS = Signature((TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),))
WORDED = Signature((TensorSpec("words", "string", (None,)),), (TensorSpec("score", "float32", (None,)),))
VOCABULARY = [f"word{number}" for number in range(400)]


def scaled(x: Any) -> Any:
    """A dense layer."""
    return tf.tanh(x @ v1.get_variable("w", initializer=tf.constant(models.drawn(1)["dense1/kernel"])), name="act")


def off(folder: Path, is_wrong: Any) -> Pair:
    """The pair whose candidate is off by a hundredth where a condition on its input holds."""
    checkpoint = models.save_checkpoint(folder / "checkpoint", lambda x: {"y": scaled(x)}, FLOATS, has_goldens=False)
    candidate = freeze(checkpoint, folder / "candidate")
    build = lambda x: {"y": scaled(x) + 0.01 * tf.cast(is_wrong(x), tf.float32)}  # noqa: E731
    write_graph(models.frozen_by_tensorflow(build, FLOATS), candidate)
    return Pair(checkpoint, candidate)


@fault("batches of 65 to 255 rows are answered otherwise", "node_differs", "sizes")
def some_sizes_of_batch(home: Home, folder: Path) -> Pair:
    def is_wrong(x: Any) -> Any:
        rows = tf.shape(x)[0]
        return tf.logical_and(rows > 64, rows < 256)

    return off(folder, is_wrong)


@fault("rows with numbers from 8 to a thousand are answered otherwise", "node_differs", "ladders")
def numbers_beyond_eight(home: Home, folder: Path) -> Pair:
    def is_wrong(x: Any) -> Any:
        largest = tf.reduce_max(tf.abs(x), axis=1, keepdims=True)
        return tf.logical_and(largest > 8, largest < 1000)

    return off(folder, is_wrong)


@fault("two rare words of a vocabulary have each other's place", "node_differs", "ladders")
def two_rare_words_swapped(home: Home, folder: Path) -> Pair:
    def worded(words: Any, keys: list[str]) -> dict[str, Any]:
        filled = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.range(len(keys), dtype=tf.int64))
        table = tf.lookup.StaticHashTable(filled, len(keys), name="vocabulary")
        weights = v1.get_variable("weights", initializer=tf.sin(tf.range(len(keys) + 1, dtype=tf.float32)))
        return {"score": tf.gather(weights, table.lookup(words), name="weighed")}

    rows = {"words": np.array([b"word1", b"word2", b"word3", b"none"] * 6, object)}
    places = []
    for name, keys in (("checkpoint", VOCABULARY), ("other", [*VOCABULARY[:-2], *VOCABULARY[:-3:-1]])):
        build = lambda words, keys=keys: worded(words, keys)  # noqa: E731
        places.append(models.save_checkpoint(folder / name, build, WORDED, rows, has_goldens=False))
    return Pair(places[0], freeze(places[1], folder / "candidate"))
