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


@case("Inputs", EQUAL, "a constant that is fed", feeds={"c:0": X})
def fed_constant(*_: Any) -> Any:
    return tf.constant(np.zeros([2, 3], np.float32), name="c") * weight("w", [3])


@case("Inputs", EQUAL, "a default that is an input itself", feeds={"d:0": X})
def fed_default(*_: Any) -> Any:
    return v1.placeholder_with_default(np.zeros([2, 3], np.float32), [None, 3], name="d") * weight("w", [3])


@case("Inputs", EQUAL, "a variable that is fed", feeds={"x": X, "v:0": X[0]})
def fed_variable(x: Any) -> Any:
    return x * tf.identity(weight("v", [3], False)._ref()) + weight("w", [3])


@case("Inputs", EQUAL, "an inner tensor and what stands before it", feeds={"x": X, "m:0": X + 9})
def fed_behind_another(x: Any) -> Any:
    return tf.identity(x * 2, name="m") * weight("w", [3]) + x


@case("Inputs", EQUAL, "an inner tensor behind the output", feeds={"x": X, "late:0": X})
def fed_behind_the_output(x: Any) -> Any:
    y = x * weight("w", [3])
    tf.identity(y, name="late")
    return y


@case("Inputs", EQUAL, "an input that is the output", feeds={"m:0": X}, has_weights=False)
def input_is_output(*_: Any) -> Any:
    return tf.identity(tf.ones([2, 3]) * weight("w", [3]), name="m")


@case("Inputs", EQUAL, "two of an iterator's outputs", feeds={"next:0": X, "next:1": X[0] + 9})
def fed_together(*_: Any) -> Any:
    rows = tf.data.Dataset.from_tensors((np.zeros([2, 3], np.float32), np.zeros(3, np.float32), 1))
    features, scale, _labels = v1.data.make_initializable_iterator(rows).get_next(name="next")
    return features * weight("w", [3]) + scale


@case("Inputs", EQUAL, "an output that is not the first", feeds={"next:1": X})
def fed_second(*_: Any) -> Any:
    rows = v1.data.make_initializable_iterator(tf.data.Dataset.from_tensors((1, np.zeros([2, 3], np.float32))))
    return rows.get_next(name="next")[1] * weight("w", [3])


@case("Inputs", EQUAL, "an output, where another of the same op is computed", feeds={"x": X, "parts:0": X[:1] + 5})
def fed_beside_computed(x: Any) -> Any:
    first, second = tf.split(x, 2, name="parts")
    return first * weight("w", [3]) + second


@case("Inputs", EQUAL, "an output, where one before it is computed", feeds={"x": X, "parts:1": X[:1] + 5})
def fed_behind_computed(x: Any) -> Any:
    first, second = tf.split(x, 2, name="parts")
    return first * weight("w", [3]) + second


@case(
    "Inputs",
    REFUSED,
    "one of an iterator's outputs, where another is read too",
    feeds={"next:1": X},
    mentions="iterator",
)
def fed_one_of_two(*_: Any) -> Any:
    rows = tf.data.Dataset.from_tensors((np.zeros(3, np.float32), np.zeros([2, 3], np.float32)))
    scale, features = v1.data.make_initializable_iterator(rows).get_next(name="next")
    return features * weight("w", [3]) + scale
