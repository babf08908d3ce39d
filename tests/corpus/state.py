"""What an output waits for, state that changes, and chance."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from .cases import BOTH, EQUAL, REFUSED, case, raw, v1, weight


@case("State", EQUAL, "waits for a check")
def waits_for_assert(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([v1.assert_greater(tf.size(x), 0), tf.debugging.Assert(tf.size(x) > 0, [x])]):
        return x * w


@case("State", EQUAL, "waits for something printed")
def waits_for_print(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([tf.print("", output_stream=sys.stderr, end="")]):
        return x * w


@case("State", EQUAL, "waits for a count of steps that it does not use", res=BOTH)
def waits_for_a_count(x: Any, res: bool) -> Any:
    step = v1.get_variable("step", initializer=np.int64(0), use_resource=res, trainable=False)
    w = weight("w", [3], res)
    with tf.control_dependencies([v1.assign_add(step, 1)]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for an assignment to a variable that is not read", res=BOTH)
def waits_for_unread(x: Any, res: bool) -> Any:
    w, other = weight("w", [3], res), weight("other", [3], res)
    with tf.control_dependencies([v1.assign(other, x[0])]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for its own value being copied elsewhere", res=BOTH)
def waits_for_copy(x: Any, res: bool) -> Any:
    w, other = weight("w", [3], res), weight("other", [3], res)
    with tf.control_dependencies([v1.assign(other, w.read_value())]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for a function that reads it and counts another")
def waits_for_reading_function(x: Any) -> Any:
    w, other = weight("w", [3]), weight("other", [3])
    with tf.control_dependencies([tf.function(lambda: other.assign_add(w))()]):
        return x * w.read_value()


@case("State", EQUAL, "waits for a summary")
def waits_for_summary(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([v1.summary.scalar("mean", tf.reduce_mean(x))]):
        return tf.identity(x * w)


@case("State", EQUAL, "a training step beside the output, slots in the checkpoint", res=BOTH)
def trained(x: Any, res: bool) -> Any:
    y = tf.matmul(x, weight("w", [3, 2], res), name="y")
    v1.train.AdamOptimizer().minimize(tf.reduce_sum(y**2), global_step=v1.train.get_or_create_global_step())
    return y


@case("State", REFUSED, "waits for an assignment to a variable that is read", res=BOTH, mentions="changes state")
def waits_for_read(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    with tf.control_dependencies([v1.assign_add(w, [1.0, 1, 1])]):
        return x * tf.identity(w)


@case("State", REFUSED, "waits for a function that assigns to a variable that is read", mentions="changes state")
def waits_for_function(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([tf.function(lambda: w.assign_add([1.0, 1, 1]))()]):
        return x * w.read_value()


@case(
    "State", REFUSED, "waits for a branch that assigns to a variable that is read", mentions="changes state", flow=BOTH
)
def waits_for_branch(x: Any) -> Any:
    w = weight("w", [3])
    count = tf.cond(tf.size(x) > 0, lambda: tf.identity(w.assign_add([1.0, 1, 1])), lambda: tf.zeros([3]))
    with tf.control_dependencies([count]):
        return x * w.read_value()


@case(
    "State", REFUSED, "waits for an assignment by another handle of a variable that is read", mentions="changes state"
)
def waits_for_another_handle(x: Any) -> Any:
    w = weight("w", [3])
    again = raw.VarHandleOp(dtype=tf.float32, shape=[3], shared_name="w", name="again")
    with tf.control_dependencies([raw.AssignAddVariableOp(resource=again, value=tf.ones([3]))]):
        return x * w.read_value()


@case("State", EQUAL, "waits for a function that counts what is not read")
def waits_for_counting_function(x: Any) -> Any:
    w, step = weight("w", [3]), v1.get_variable("step", initializer=0)
    with tf.control_dependencies([tf.function(lambda: step.assign_add(1))()]):
        return x * w.read_value()


@case("State", REFUSED, "an assignment's result", res=BOTH, mentions="changes state")
def assigned(x: Any, res: bool) -> Any:
    return x * v1.assign_add(weight("w", [3], res), [1.0, 1, 1])


@case("State", REFUSED, "an assignment in a branch", flow=BOTH, mentions="changes state")
def assigned_in_cond(x: Any) -> Any:
    w = weight("w", [3])
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * w.assign_add([1.0, 1, 1]), lambda: x * w)


@case("State", REFUSED, "an assignment in a function", mentions="changes state")
def assigned_in_function(x: Any) -> Any:
    w = weight("w", [3])
    return tf.function(lambda a: a * w.assign_add([1.0, 1, 1]))(x)


@case("State", REFUSED, "a scatter into a variable", res=BOTH, mentions="changes state")
def scattered(x: Any, res: bool) -> Any:
    return x * v1.scatter_update(weight("w", [3], res), [0], [1.0])


@case("State", REFUSED, "Python code", mentions="Python")
def py_function(x: Any) -> Any:
    return tf.py_function(lambda a: a, [x * weight("w", [3])], tf.float32)


@case("State", REFUSED, "Python code in a branch", mentions="Python", flow=BOTH)
def numpy_function_in_cond(x: Any) -> Any:
    w = weight("w", [3])
    return tf.cond(tf.size(x) > 0, lambda: tf.numpy_function(lambda a: a, [x * w], tf.float32), lambda: x)


@case("State", REFUSED, "random numbers without a seed", mentions="random")
def unseeded(x: Any) -> Any:
    return x * weight("w", [3]) + tf.random.normal([3])


@case("State", REFUSED, "a dropout that is on", mentions="random")
def dropout(x: Any) -> Any:
    return tf.nn.dropout(x * weight("w", [3]), 0.5)


@case("State", EQUAL, "a dropout of rate 0")
def dropout_of_rate_0(x: Any) -> Any:
    return tf.nn.dropout(x * weight("w", [3]), rate=0)


@case("State", EQUAL, "a dropout in a branch that a constant switches off", flow=BOTH)
def dropout_switched_off(x: Any) -> Any:
    y = x * weight("w", [3])
    return tf.cond(tf.constant(False, name="is_training"), lambda: tf.nn.dropout(y, 0.5), lambda: tf.identity(y))


@case("State", EQUAL, "random numbers by a fixed key")
def stateless_random(x: Any) -> Any:
    return x * weight("w", [3]) * tf.random.stateless_uniform([3], [1, 2])


@case("State", EQUAL, "random initializers are not in the way")
def random_initializer(x: Any) -> Any:
    return x * v1.get_variable("w", [3], initializer=v1.random_normal_initializer())


@case("State", REFUSED, "an assignment in a loop", flow=BOTH, mentions="changes state")
def assigned_in_loop(x: Any) -> Any:
    w = weight("w", [3])
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * w.assign_add([1.0, 1, 1])), [0, x])[1]


@case("State", REFUSED, "a count that goes on with each run", mentions="changes state")
def counted(x: Any) -> Any:
    count = v1.get_variable("count", initializer=0, use_resource=False)
    return x * weight("w", [3]) + tf.cast(v1.count_up_to(count, 99), tf.float32)


@case("State", REFUSED, "a metric that goes on with each run", mentions="changes state")
def metric(x: Any) -> Any:
    return v1.metrics.mean(x * weight("w", [3]))[1]


@case("State", REFUSED, "the variable's end is waited for", mentions="variable")
def destroyed(x: Any) -> Any:
    w = weight("w", [3])
    y = x * w.read_value()
    with tf.control_dependencies([y]):
        gone = raw.DestroyResourceOp(resource=w.handle)
    with tf.control_dependencies([gone]):
        return tf.identity(y)


@case("State", REFUSED, "the time of day", mentions="time", has_weights=False)
def timestamp(x: Any) -> Any:
    return tf.timestamp() + tf.cast(weight("w", []), tf.float64)


@case("State", REFUSED, "how many rows are waiting on a stage", mentions="rows")
def staged(x: Any) -> Any:
    return x * weight("w", [3]) + tf.cast(raw.StageSize(dtypes=[tf.float32]), tf.float32)


@case(
    "State", REFUSED, "with a seed each run draws the next numbers: the answer depends on past runs", mentions="random"
)
def seeded(x: Any) -> Any:
    return x * weight("w", [3]) + tf.random.normal([3], seed=1)


@case("State", REFUSED, "regions that are drawn at random", mentions="random")
def fractional_pool(x: Any) -> Any:
    image = tf.reshape(x * weight("w", [3]), [1, 2, 3, 1])
    return raw.FractionalMaxPool(value=image, pooling_ratio=[1.0, 1.0, 1.4, 1.0])[0]


def _counting(w: Any, count: Any) -> Any:
    @tf.function
    def run(a: Any) -> Any:
        count.assign_add(1)
        return a * w

    return run


@case("State", EQUAL, "functions in branches count their calls, and nobody reads the count", flow=BOTH)
def counted_calls(x: Any) -> Any:
    w = weight("w", [3])
    run = _counting(w, v1.get_variable("count", initializer=0))
    outer = tf.function(lambda a: tf.cond(tf.reduce_sum(a) > 0, lambda: run(a), lambda: a - w))
    return run(x) + outer(x) + outer(-x)


@case("State", EQUAL, "a function counts its calls from a loop in a function")
def counted_calls_in_loop(x: Any) -> Any:
    run = _counting(weight("w", [3]), v1.get_variable("count", initializer=0))
    turns = tf.function(lambda a: tf.while_loop(lambda i, b: i < 2, lambda i, b: (i + 1, run(b)), [0, a])[1])
    return turns(x)


@case("State", EQUAL, "a function counts its calls in a loop, and decides by its value on a branch", flow=BOTH)
def counted_calls_decide(x: Any) -> Any:
    run = _counting(weight("w", [3]), v1.get_variable("count", initializer=0))

    def turn(i: Any, a: Any) -> Any:
        a = run(a)
        return i + 1, tf.cond(tf.reduce_sum(a) > 0, lambda: a - 1.0, lambda: 1.0 - a)

    return tf.while_loop(lambda i, a: i < 3, turn, [0, x])[1]


@case("State", EQUAL, "gradients through a loop of calls that are counted", flow=(False,))
def counted_calls_gradient(x: Any) -> Any:
    run = _counting(weight("w", [3]), v1.get_variable("count", initializer=0))
    return tf.gradients(tf.map_fn(lambda row: tf.sin(run(tf.sin(row))), x), x)[0]


@case("State", REFUSED, "the count of a loop's calls is read behind the loop", mentions="changes state")
def counted_calls_in_loop_read(x: Any) -> Any:
    count = v1.get_variable("count", initializer=0)
    run = _counting(weight("w", [3]), count)

    @tf.function
    def turns(a: Any) -> Any:
        a = tf.while_loop(lambda i, b: i < 2, lambda i, b: (i + 1, run(b)), [0, a])[1]
        return a + tf.cast(count, tf.float32)

    return turns(x)


@case("State", REFUSED, "a function counts its calls, and another reads the count", mentions="changes state")
def counted_calls_read(x: Any) -> Any:
    count = v1.get_variable("count", initializer=0)
    run = _counting(weight("w", [3]), count)
    return tf.function(lambda a: a + tf.cast(count, tf.float32))(run(x))


@case("State", REFUSED, "a function counts its calls, read by another handle", mentions="changes state")
def counted_calls_read_by_another_handle(x: Any) -> Any:
    y = _counting(weight("w", [3]), v1.get_variable("count", initializer=0))(x)
    again = raw.VarHandleOp(dtype=tf.int32, shape=[], shared_name="count", name="again")
    with tf.control_dependencies([y]):
        return y + tf.cast(raw.ReadVariableOp(resource=again, dtype=tf.int32), tf.float32)


def _reading_and_counting(count: Any, give: Any) -> Any:
    """A call that reads the count, itself and by a function, and assigns the next one."""
    read = tf.function(lambda: tf.identity(count.read_value()))

    @tf.function
    def run(a: Any) -> Any:
        before = count.read_value()
        again = read()
        count.assign(before + again + 1.0)
        return give(a, before)

    return run


@case("State", EQUAL, "a function reads a count and assigns the next, and its result does not hang on them")
def read_and_assigned(x: Any) -> Any:
    w, count = weight("w", [3]), weight("count", [])
    return _reading_and_counting(count, lambda a, before: a * w)(x)


@case("State", EQUAL, "waits for the read and the assignment of a count that it does not use", res=BOTH)
def waits_for_a_read_count(x: Any, res: bool) -> Any:
    w, count = weight("w", [3], res), weight("count", [], res)
    before = count.read_value()
    with tf.control_dependencies([before, v1.assign(count, before + 1.0)]):
        return tf.identity(x * w)


@case("State", EQUAL, "a mask is drawn by a seed that goes on, and nothing uses the mask")
def mask_without_use(x: Any) -> Any:
    w, seed = weight("w", [3]), weight("seed", [2])

    @tf.function
    def run(a: Any) -> Any:
        now = seed.read_value()
        seed.assign(seed.read_value() + 1.0)
        tf.random.stateless_uniform([3], tf.cast(now, tf.int32))
        return tf.while_loop(lambda i, b: i < 2, lambda i, b: (i + 1, b * w), [0, a])[1]

    return run(x)


@case("State", REFUSED, "what a count was before it goes on", mentions="changes state")
def read_before_assigned(x: Any) -> Any:
    w, count = weight("w", [3]), weight("count", [])
    return _reading_and_counting(count, lambda a, before: a * w + before)(x)


@case("State", REFUSED, "what a count is after it went on", mentions="changes state")
def read_after_assigned(x: Any) -> Any:
    w, count = weight("w", [3]), weight("count", [])
    return _reading_and_counting(count, lambda a, before: a * w + count.read_value())(x)


@case("State", REFUSED, "a branch decides by a count that goes on", mentions="changes state")
def decides_by_a_count(x: Any) -> Any:
    w, count = weight("w", [3]), weight("count", [])
    return _reading_and_counting(count, lambda a, before: tf.cond(count > 1.0, lambda: a * w, lambda: a - w))(x)


def _two_results(use: Any) -> Any:
    w, count = weight("w", [3]), weight("count", [])

    @tf.function
    def inner(a: Any) -> Any:
        count.assign(count + 1.0)
        return a * count, a * w, tf.random.normal([3])

    return tf.function(lambda a: use(*inner(a)))


@case("State", EQUAL, "a call counts and draws for the results that are not asked for")
def counts_for_another_result(x: Any) -> Any:
    return _two_results(lambda counted, plain, drawn: (counted + drawn, plain))(x)[1]


@case("State", REFUSED, "two calls of one function: the one is for a result that counts", mentions="changes state")
def counts_for_another_call(x: Any) -> Any:
    run = _two_results(lambda counted, plain, drawn: (counted, plain))
    return run(x)[1] + run(x)[0]


@case("State", EQUAL, "Python code, a print and a check in a function, whose result does not hang on them")
def beside_the_result(x: Any) -> Any:
    w = weight("w", [3])

    @tf.function
    def run(a: Any) -> Any:
        tf.py_function(lambda b: None, [a], [])
        tf.print("", output_stream=sys.stderr, end="")
        tf.debugging.assert_greater(tf.reduce_max(tf.abs(a)), 0.0)
        return a * w

    return run(x)
