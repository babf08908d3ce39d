"""Random numbers that make no difference: dropouts that a constant switches off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, raw, v1, weight


def _of_first_years(y: Any, keep: Any) -> Any:
    """The dropout of TensorFlow 1.0 to 1.12."""
    return tf.math.divide(y, keep) * tf.floor(keep + tf.random.uniform(tf.shape(y), dtype=y.dtype))


def _weighted(x: Any, dtype: str) -> Any:
    return tf.cast(x, dtype) * weight("w", [3], dtype=dtype)


def _floors(x: Any, dtype: str) -> Any:
    return _of_first_years(_weighted(x, dtype), tf.constant(1.0, dtype))


def _keeps(x: Any, dtype: str) -> Any:
    return v1.nn.dropout(_weighted(x, dtype), keep_prob=tf.constant(1.0, dtype))


def _rates(x: Any, dtype: str) -> Any:
    return tf.nn.dropout(_weighted(x, dtype), rate=tf.constant(0.0, dtype), noise_shape=[1, 3])


def _compares(x: Any, dtype: str) -> Any:
    y = _weighted(x, dtype)
    below = tf.random.uniform([2, 3], dtype=dtype) < tf.constant(1.0, dtype)
    above = tf.random.uniform([2, 3], dtype=dtype) > tf.constant(1.0, dtype)
    none = tf.zeros_like(y)
    return (
        tf.where(below, y, none)
        + tf.where(above, none, y)
        + tf.random.uniform([3], dtype=dtype) * tf.constant(0, dtype)
    )


def _almost(x: Any, dtype: str) -> Any:
    """One step below 1: of the largest draws the floor is 1, of 0 it is 0."""
    steps = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
    return _of_first_years(_weighted(x, dtype), tf.constant(1 - 2.0 ** -steps[dtype], dtype))


def _above(x: Any, dtype: str) -> Any:
    """One step above 1: with the largest draw the sum is 2."""
    steps = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
    return _of_first_years(_weighted(x, dtype), tf.constant(1 + 2.0 ** -steps[dtype], dtype))


for _dtype in ("float16", "bfloat16", "float32", "float64"):
    for _name, _must, _why, _build in (
        ("keep_prob 1 of TensorFlow 1.0", EQUAL, "floor(1 + u) is 1 for every u", _floors),
        ("keep_prob 1", EQUAL, "u >= 1 - 1 for every u", _keeps),
        ("rate 0", EQUAL, "u >= 0 for every u", _rates),
        ("comparisons that are settled", EQUAL, "u < 1, u > 1, and u * 0", _compares),
        ("keep_prob almost 1", REFUSED, "floor(keep_prob + u) is 0 for the smallest u", _almost),
        ("keep_prob just above 1", REFUSED, "floor(keep_prob + u) is 2 for the largest u", _above),
    ):
        case("Draws", _must, _why, name=f"{_name}, {_dtype}")(partial(_build, dtype=_dtype))


@case("Draws", EQUAL, "switched off by a constant outside of the branch", flow=BOTH)
def dropouts_in_cond(x: Any) -> Any:
    y, keep = x * weight("w", [3]), tf.constant(1.0)
    one = tf.cond(tf.reduce_sum(x) > -99, lambda: v1.nn.dropout(y, keep_prob=keep), lambda: y)
    return one + tf.cond(tf.reduce_sum(x) < -99, lambda: _of_first_years(y, keep), lambda: y)


@case("Draws", EQUAL, "switched off by a constant outside of the loop, of a shape that is constant", flow=BOTH)
def dropout_in_loop(x: Any) -> Any:
    w, keep = weight("w", [3]), tf.constant(1.0)

    def turn(i: Any, a: Any) -> Any:
        return i + 1, tf.ensure_shape(a * w * tf.floor(keep + tf.random.uniform([2, 3])), [None, 3])

    return tf.while_loop(lambda i, a: i < 3, turn, [0, x])[1]


@case("Draws", REFUSED, "another rate in each turn of a loop", flow=BOTH, mentions="random")
def dropout_by_turns(x: Any) -> Any:
    w = weight("w", [3])

    def turn(i: Any, keep: Any, a: Any) -> Any:
        return i + 1, keep * 0.5, _of_first_years(a * w, keep)

    return tf.while_loop(lambda i, *_: i < 3, turn, [0, tf.constant(1.0), x])[2]


@case("Draws", EQUAL, "in a function in a function, one of them in a branch that is never taken", flow=BOTH)
def dropout_in_functions(x: Any) -> Any:
    w, keep, is_training = weight("w", [3]), tf.constant(1.0), tf.constant(False)
    kept = tf.function(lambda a: _of_first_years(a, keep))

    @tf.function
    def run(a: Any) -> Any:
        return tf.cond(is_training, lambda: tf.nn.dropout(a, 0.5), lambda: kept(a * w))

    return run(x)


@case("Draws", REFUSED, "a function that two calls give other rates", mentions="random")
def dropout_of_two_rates(x: Any) -> Any:
    w = weight("w", [3])

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32), tf.TensorSpec([], tf.float32)])
    def run(a: Any, keep: Any) -> Any:
        return v1.nn.dropout(a * w, keep_prob=keep)

    return run(x, tf.constant(1.0)) + run(x, tf.constant(0.5))


@case("Draws", EQUAL, "a branch that the opposite of a constant never takes", flow=BOTH)
def dropout_behind_a_not(x: Any) -> Any:
    y = x * weight("w", [3])
    return tf.cond(tf.logical_not(tf.constant(True)), lambda: tf.nn.dropout(y, 0.5), lambda: tf.identity(y))


@case("Draws", REFUSED, "the draw itself is used, too", mentions="random")
def draw_used_elsewhere(x: Any) -> Any:
    drawn = tf.random.uniform([2, 3])
    return x * weight("w", [3]) * tf.floor(1.0 + drawn) + drawn


@case("Draws", REFUSED, "the sum of two draws", mentions="random")
def two_draws(x: Any) -> Any:
    return x * weight("w", [3]) * tf.floor(tf.random.uniform([2, 3]) + tf.random.uniform([2, 3]))


@case("Draws", EQUAL, "a draw of a shape of 64 bits, and one from another range")
def draws_of_other_kinds(x: Any) -> Any:
    y = x * weight("w", [3])
    wide = raw.RandomUniform(shape=tf.shape(y, out_type=tf.int64), dtype=tf.float32)
    return y * tf.floor(1 + wide) * tf.cast(tf.random.uniform([3], -1.0, 0.5) < tf.constant(0.75), tf.float32)


@case("Draws", EQUAL, "gradients through a dropout that is switched off")
def dropout_gradient(x: Any) -> Any:
    return tf.gradients(v1.nn.dropout(tf.sin(x * weight("w", [3])), keep_prob=tf.constant(1.0)), x)[0]


@case("Draws", EQUAL, "drawn in a function whose result does not hang on it")
def draw_unused_in_function(x: Any) -> Any:
    w = weight("w", [3])
    return tf.function(lambda a: (tf.random.uniform([3]), a * w)[1])(x)


@case("Draws", EQUAL, "a node has the name of what stands in for the draw")
def settled_name_taken(x: Any) -> Any:
    taken = tf.constant(9.0, name="drop/settled")
    return x * weight("w", [3]) * tf.floor(1.0 + tf.random.uniform([2, 3]), name="drop") + taken


@case("Draws", REFUSED, "switched off by a default that somebody may feed over", mentions="random")
def dropout_by_default(x: Any) -> Any:
    return v1.nn.dropout(x * weight("w", [3]), keep_prob=v1.placeholder_with_default(1.0, []))


@case("Draws", EQUAL, "gradients through a loop with a branch that a constant never takes", flow=BOTH)
def dropout_in_loop_gradient(x: Any) -> Any:
    w, is_training = weight("w", [3]), tf.constant(False)

    def turn(i: Any, a: Any) -> Any:
        a = tf.cond(is_training, lambda: tf.nn.dropout(tf.sin(a), 0.5), lambda: tf.tanh(a * w))
        return [i + 1, tf.ensure_shape(a, [None, 3])]

    end = tf.while_loop(lambda i, a: i < 2, turn, [0, x], maximum_iterations=2)[1]
    return [end, tf.gradients(end, x)[0]]


def _gradient_of_turns(x: Any, factor: Callable[[], Any]) -> Any:
    w = weight("w", [3])

    def turn(i: Any, a: Any) -> Any:
        return [i + 1, tf.ensure_shape(tf.sin(a * w) * factor(), [None, 3])]

    return tf.gradients(tf.while_loop(lambda i, a: i < 2, turn, [0, x], maximum_iterations=2)[1], x)[0]


@case("Draws", REFUSED, "only gradients are asked for, and a loop's draws come to them by a stack", flow=BOTH)
def draws_on_a_stack(x: Any) -> Any:
    return _gradient_of_turns(x, lambda: tf.random.uniform([2, 3]))


@case("Draws", EQUAL, "such draws, where a constant decides them", flow=BOTH)
def settled_draws_on_a_stack(x: Any) -> Any:
    return _gradient_of_turns(x, lambda: tf.floor(1.0 + tf.random.uniform([2, 3])))
