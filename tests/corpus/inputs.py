"""Inputs: inner tensors, defaults, queues."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .cases import EQUAL, REFUSED, X, case, v1, weight


@case("Inputs", EQUAL, "an inner tensor, with a queue in front of it", feeds={"batch:0": X})
def queue(*_: Any) -> Any:
    rows = tf.queue.FIFOQueue(9, tf.float32, [3])
    rows.enqueue(tf.zeros([3]))
    return tf.identity(rows.dequeue_many(2), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "an inner tensor, with a data set's iterator in front of it", feeds={"batch:0": X})
def iterator(*_: Any) -> Any:
    rows = v1.data.make_initializable_iterator(tf.data.Dataset.from_tensors(np.zeros([2, 3], np.float32)))
    return tf.identity(rows.get_next(), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "an inner tensor behind random augmentation", feeds={"batch:0": X})
def augmented(*_: Any) -> Any:
    return tf.add(tf.zeros([2, 3]), tf.random.normal([2, 3]), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "a placeholder that no output uses", feeds={"x": X, "unused": X})
def unused_input(x: Any, unused: Any) -> Any:
    return x * weight("w", [3])


@case("Inputs", EQUAL, "a default that is fed over")
def default_input(x: Any) -> Any:
    return x * weight("w", [3]) + v1.placeholder_with_default([1.0, 2, 3], [3])


@case("Inputs", REFUSED, "a queue in the way", mentions="queue")
def queue_in_the_way(x: Any) -> Any:
    return x * weight("w", [3]) + tf.cast(tf.queue.FIFOQueue(9, tf.float32, [3], name="queue").size(), tf.float32)
