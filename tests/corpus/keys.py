"""Savers: the keys of a checkpoint, and its parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, v1, weight


def _variables() -> dict[str, Any]:
    return {variable.op.name: variable for variable in v1.global_variables()}


def _swapped() -> Any:
    found = _variables()
    return v1.train.Saver({"w": found["u"], "u": found["w"]})


def _two_savers(renamed_last: bool) -> Any:
    first = v1.train.Saver({f"old/{name}": variable for name, variable in _variables().items()})
    second = v1.train.Saver()
    return first if not renamed_last else second


@case(
    "Keys",
    EQUAL,
    "other keys than names",
    res=BOTH,
    saver=lambda: v1.train.Saver({f"layer/{name}": variable for name, variable in _variables().items()}),
)
def renamed(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


@case("Keys", EQUAL, "each variable under the other's name", res=BOTH, saver=_swapped)
def swapped(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


def _averages() -> Any:
    return v1.train.Saver(_AVERAGES[-1].variables_to_restore(moving_avg_variables=v1.trainable_variables()))


_AVERAGES: list[Any] = []


@case("Keys", EQUAL, "the variables restored from their moving averages", res=BOTH, saver=_averages)
def averaged(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    _AVERAGES[:] = [tf.train.ExponentialMovingAverage(0.5)]
    return x * w


@case("Keys", EQUAL, "averages beside the variables, by a Saver of all", res=BOTH, flow=(False,))
def averages_beside(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    average = tf.train.ExponentialMovingAverage(0.5)
    average.apply([w])
    return x * average.average(w)


@case("Keys", EQUAL, "two Savers, of which the first saved", saver=lambda: _two_savers(False))
def first_saver(x: Any) -> Any:
    return x * weight("w", [3])


@case("Keys", EQUAL, "two Savers, of which the second saved", saver=lambda: _two_savers(True))
def second_saver(x: Any) -> Any:
    return x * weight("w", [3])


def _cross_savers() -> Any:
    kept = v1.train.Saver()
    _swapped()
    return kept


@case("Keys", EQUAL, "a later Saver that only reads swaps the keys; the one that saved does not", saver=_cross_savers)
def swapping_saver_beside(x: Any) -> Any:
    return x * weight("w", [3]) + weight("u", [3])


@case("Keys", EQUAL, "a Saver that writes shards", res=BOTH, saver=lambda: v1.train.Saver(sharded=True))
def sharded(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Keys", EQUAL, "a Saver that reshapes", res=BOTH, saver=lambda: v1.train.Saver(reshape=True))
def reshaping(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Keys", EQUAL, "the V1 format", res=BOTH, saver=lambda: v1.train.Saver(write_version=v1.train.SaverDef.V1))
def v1_format(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("s", [], res)


def _partitioned(x: Any, res: bool, axis: int) -> Any:
    parts = weight("w", [3, 4], res, partitioner=v1.fixed_size_partitioner(2, axis=axis))
    return x @ tf.convert_to_tensor(parts)


case("Keys", EQUAL, "parts along axis 0", name="partitioned by rows", res=BOTH)(partial(_partitioned, axis=0))
case("Keys", EQUAL, "parts along axis 1", name="partitioned by columns", res=BOTH)(partial(_partitioned, axis=1))
case(
    "Keys",
    EQUAL,
    "parts in the V1 format",
    name="partitioned in the V1 format",
    res=BOTH,
    saver=lambda: v1.train.Saver(write_version=v1.train.SaverDef.V1),
)(partial(_partitioned, axis=1))


@case("Keys", EQUAL, "one part of a partitioned variable", res=BOTH)
def one_part(x: Any, res: bool) -> Any:
    parts = weight("w", [6], res, partitioner=v1.fixed_size_partitioner(2))
    return x * list(parts)[1]


@case("Keys", EQUAL, "lookup in a partitioned variable", res=BOTH, feeds={"i": np.array([0, 3, 1, 2, 4], np.int32)})
def partitioned_lookup(i: Any, res: bool) -> Any:
    parts = weight("w", [5, 2], res, partitioner=v1.fixed_size_partitioner(2))
    return v1.nn.embedding_lookup(parts, i, partition_strategy="div")


@case("Keys", EQUAL, "a partitioned variable of strings")
def partitioned_strings(t: Any) -> Any:
    value = tf.constant([b"a", b"", b"ccc", b"\xff"])
    parts = v1.get_variable("w", initializer=value, partitioner=v1.fixed_size_partitioner(2))
    return tf.strings.join([t, tf.convert_to_tensor(parts)])


@case("Keys", EQUAL, "a partitioned variable under another key", saver=lambda: v1.train.Saver({"other": _PARTS[-1]}))
def partitioned_renamed(x: Any) -> Any:
    _PARTS[:] = [weight("w", [3], True, partitioner=v1.fixed_size_partitioner(3))]
    return x * tf.convert_to_tensor(_PARTS[0])


_PARTS: list[Any] = []


def _turned() -> Any:
    found = _variables()
    return v1.train.Saver({"w": found["u"], "u": found["v"], "v": found["w"]})


@case("Keys", EQUAL, "three variables, each under the next one's name", saver=_turned)
def turned(x: Any) -> Any:
    return x * weight("w", [3]) + weight("u", [3]) * tf.sin(weight("v", [3]))


@case(
    "Keys",
    EQUAL,
    "keys that are no names of nodes",
    saver=lambda: v1.train.Saver({"a b/é\n*": _variables()["w"], "^:0": _variables()["u"]}),
)
def odd_keys(x: Any) -> Any:
    return x * weight("w", [3]) + weight("u", [3])


def _scoped() -> Any:
    with v1.name_scope("scope"):
        return v1.train.Saver(sharded=True, reshape=True)


@case("Keys", EQUAL, "a Saver in a name scope, with shards of two devices, that reshapes", res=BOTH, saver=_scoped)
def scoped_saver(x: Any, res: bool) -> Any:
    with tf.device("/cpu:0"):
        w = weight("w", [3], res)
    with tf.device("/job:localhost/task:0/cpu:0"):
        return x * w + weight("u", [3], res)


@case("Keys", EQUAL, "uneven parts of three dimensions, and their gradients", res=BOTH)
def partitioned_gradient(x: Any, res: bool) -> Any:
    parts = weight("w", [2, 5, 3], res, partitioner=lambda shape, dtype: [1, 3, 1])
    y = tf.sin(tf.reduce_sum(tf.convert_to_tensor(parts), [0, 1]) * x)
    return [y, *tf.gradients(y, list(parts))]


@case("Keys", EQUAL, "a partitioned variable in a loop", res=BOTH, flow=BOTH)
def partitioned_in_loop(x: Any, res: bool) -> Any:
    parts = weight("w", [3, 3], res, partitioner=v1.fixed_size_partitioner(3))
    return tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, a @ tf.convert_to_tensor(parts)), [0, x])[1]


@case(
    "Keys",
    REFUSED,
    "the Saver left out what the output needs",
    mentions="lacks",
    saver=lambda: v1.train.Saver(_first()),
)
def unsaved(x: Any) -> Any:
    return x * weight("w", [3]) + weight("u", [3])


def _first() -> list[Any]:
    return [_variables()["w"]]
