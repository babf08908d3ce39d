"""Functions, and what they are given."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function as legacy
from tensorflow.python.ops import functional_ops

from .cases import EQUAL, REFUSED, case, raw, weight


@case("Functions", EQUAL, "a function in a function")
def nested_function(x: Any) -> Any:
    w = weight("w", [3, 3])
    inner = tf.function(lambda a: tf.tanh(a @ w))
    return tf.function(lambda a: inner(inner(a)) + 1)(x)


@case("Functions", EQUAL, "a loop and a branch in a function")
def flow_in_function(x: Any) -> Any:
    w = weight("w", [3, 3])

    @tf.function
    def run(a: Any) -> Any:
        def body(i: Any, b: Any) -> Any:
            return i + 1, tf.cond(tf.reduce_sum(b) > 0, lambda: tf.tanh(b @ w), lambda: tf.sin(b @ w))

        return tf.while_loop(lambda i, b: i < 3, body, [0, a])[1]

    return run(x)


@case("Functions", EQUAL, "a ref variable read outside of a function")
def function_of_ref(x: Any) -> Any:
    w = weight("w", [3], False)
    return tf.function(lambda a, b: a * b)(x, w.value())


@case("Functions", EQUAL, "a function of the old kind, called by its name as an op")
def legacy_function(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32)
    def times(a: Any) -> Any:
        return a * w

    return times(x) + times(x + 1)


@case("Functions", EQUAL, "an old function that calls another")
def legacy_nested(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32)
    def times(a: Any) -> Any:
        return a * w

    @legacy.Defun(tf.float32)
    def twice(a: Any) -> Any:
        return times(times(a)) + w

    return twice(x)


@case("Functions", EQUAL, "an old function with a gradient of its own, which the library keeps beside it")
def legacy_gradient(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32, tf.float32)
    def slope(a: Any, dy: Any) -> Any:
        return dy * 7.0

    @legacy.Defun(tf.float32, grad_func=slope)
    def sine(a: Any) -> Any:
        return tf.sin(a)

    return tf.gradients(sine(x * w), x)[0]


def _shape_function() -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource)], autograph=False)
    def size(handle: Any) -> Any:
        return tf.cast(raw.VariableShape(input=handle), tf.float32)

    return size.get_concrete_function()


@case("Functions", EQUAL, "one function that is given variables of two dtypes")
def two_dtypes(x: Any) -> Any:
    w, u, size = weight("w", [3]), weight("u", [3], dtype=tf.float64), _shape_function()
    first, second = (raw.PartitionedCall(args=[v.handle], Tout=[tf.float32], f=size)[0] for v in (w, u))
    return x * w + tf.cast(u, tf.float32) + first + second


def _passing_function() -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource), tf.TensorSpec(None, tf.float32)], autograph=False)
    def pass_on(handle: Any, a: Any) -> Any:
        return tf.identity(handle), a * 2

    return pass_on.get_concrete_function()


@case("Functions", EQUAL, "a function that returns a handle, for variables of two dtypes")
def handle_from_function(x: Any) -> Any:
    w, u, pass_on = weight("w", [3]), weight("u", [3], dtype=tf.float64), _passing_function()
    first, a = raw.PartitionedCall(args=[w.handle, x], Tout=[tf.resource, tf.float32], f=pass_on)
    second, b = raw.PartitionedCall(args=[u.handle, x], Tout=[tf.resource, tf.float32], f=pass_on)
    read = raw.ReadVariableOp(resource=second, dtype=tf.float64)
    return a * raw.ReadVariableOp(resource=first, dtype=tf.float32) + b * tf.cast(read, tf.float32)


@case("Functions", EQUAL, "a function that returns the variable's value, and nothing else")
def value_from_function(x: Any) -> Any:
    w = weight("w", [3])
    return x * tf.function(lambda: w.read_value())()


@case("Functions", EQUAL, "an argument of a function returned as it came")
def argument_returned(x: Any) -> Any:
    w = weight("w", [3])
    a, b = tf.function(lambda a: (a, a * w))(x)
    return a + b


@case("Functions", EQUAL, "functions that nobody calls, one of them with what may not be in a .pb")
def unused_function(x: Any) -> Any:
    w = weight("w", [3])
    tf.function(lambda a: tf.random.uniform([3]) * w * a)(x)
    return x * w


@case("Functions", EQUAL, "devices on nodes and in the bodies of functions")
def devices(x: Any) -> Any:
    w = weight("w", [3])
    with tf.device("/device:GPU:0"):
        y = x * w
        return tf.cond(tf.reduce_sum(x) > 0, lambda: y * w, lambda: y)


@case("Functions", EQUAL, "a function with control inputs only between its stateless nodes")
def control_edges_in_function(x: Any) -> Any:
    w = weight("w", [3])

    @tf.function
    def run(a: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_greater(tf.size(a), 0)]):
            return a * w

    return run(x)


@case("Functions", EQUAL, "a custom gradient by a tf.function")
def custom_gradient(x: Any) -> Any:
    w = weight("w", [3])

    @tf.custom_gradient
    def half(a: Any) -> Any:
        return a * 2.0, lambda dy: dy * 0.5

    return tf.gradients(half(x) * w, x)[0] + x


@case("Functions", EQUAL, "a loop of the old kind that counts, by a function")
def counting_loop(x: Any) -> Any:
    @legacy.Defun(tf.int32, tf.float32, tf.float32)
    def body(i: Any, a: Any, b: Any) -> Any:
        return a * b, b

    return functional_ops.For(0, 3, 1, [x, weight("w", [3]) + tf.zeros([3])], body)[0]


@case("Functions", EQUAL, "a loop of the old kind whose functions take a variable")
def old_while(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.int32, tf.float32)
    def body(i: Any, a: Any) -> Any:
        return i + 1, a * w

    @legacy.Defun(tf.int32, tf.float32)
    def condition(i: Any, a: Any) -> Any:
        return i < 3

    return functional_ops.While([0, x], condition, body)[1]


@case("Functions", EQUAL, "a call of a function on a device that is given by name")
def remote_call(x: Any) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource), tf.TensorSpec(None, tf.float32)], autograph=False)
    def times(handle: Any, a: Any) -> Any:
        return a * raw.ReadVariableOp(resource=handle, dtype=tf.float32)

    place = "/job:localhost/replica:0/task:0/device:CPU:0"
    given = [weight("w", [3]).handle, x]
    return raw.RemoteCall(target=place, args=given, Tout=[tf.float32], f=times.get_concrete_function())[0]


@case("Functions", EQUAL, "a gradient that the session takes of an old function")
def symbolic_gradient(x: Any) -> Any:
    @legacy.Defun(tf.float32, tf.float32)
    def cube(a: Any, b: Any) -> Any:
        return a * b * a

    return tf.gradients(cube(x, weight("w", [3]) + 0 * x), x)[0]


@case("Functions", REFUSED, "such a gradient, of a function that calls one with a gradient of its own", mentions="own")
def symbolic_gradient_of_own(x: Any) -> Any:
    @legacy.Defun(tf.float32, tf.float32)
    def slope(a: Any, dy: Any) -> Any:
        return dy * 7.0

    @legacy.Defun(tf.float32, grad_func=slope)
    def sine(a: Any) -> Any:
        return tf.sin(a)

    @legacy.Defun(tf.float32)
    def outer(a: Any) -> Any:
        return sine(a) * 2.0

    return tf.gradients(outer(x * weight("w", [3])), x)[0]


@case("Functions", EQUAL, "autograph's loop with a branch and a break")
def autograph(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])

    @tf.function
    def run(a: Any) -> Any:
        for i in tf.range(3):
            a = a * w if tf.reduce_sum(a) > 0 else a - u
            if i > 1:
                break
        return a

    return run(x)


@case("Functions", EQUAL, "vectorized_map, and map_fn in a function")
def mapped(x: Any) -> Any:
    w = weight("w", [3])
    return tf.vectorized_map(lambda row: row * w, x) + tf.function(lambda a: tf.map_fn(lambda row: row * w, a))(x)


@case("Functions", EQUAL, "recompute_grad")
def recomputed(x: Any) -> Any:
    w = weight("w", [3, 3])
    return tf.gradients(tf.recompute_grad(lambda a: tf.tanh(a @ w))(x), x)[0]


@case("Functions", EQUAL, "the gradient of a function with a loop, and of one by its variable")
def gradient_of_function(x: Any) -> Any:
    w = weight("w", [3, 3])

    @tf.function
    def run(a: Any) -> Any:
        return tf.while_loop(lambda i, b: i < 3, lambda i, b: (i + 1, tf.tanh(b @ w)), [0, a], maximum_iterations=3)[1]

    return [tf.gradients(run(x), x)[0], tf.gradients(tf.function(lambda a: tf.tanh(a @ w))(x), w)[0]]
