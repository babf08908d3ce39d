"""Branches and loops, as functions and as nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, FLOW, REFUSED, case, raw, weight


@case("Control flow", EQUAL, "variables in the branches", **FLOW)
def cond(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 2], res), weight("u", [3, 2], res)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: tf.sin(x @ u))


@case("Control flow", EQUAL, "variables in the body", **FLOW)
def loop(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]


@case("Control flow", EQUAL, "a variable in the condition", **FLOW)
def loop_condition(x: Any, res: bool) -> Any:
    w, u = weight("w", [], res), weight("u", [3], res)
    return tf.while_loop(lambda a: tf.reduce_max(a) < 100 + w, lambda a: tf.abs(a) * 2 + tf.abs(u) + 1, [x])


@case("Control flow", EQUAL, "a branch in a loop", **FLOW)
def cond_in_loop(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 3], res), weight("u", [3, 3], res)

    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(a) > 0, lambda: tf.tanh(a @ w), lambda: tf.sin(a @ u))

    return tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]


@case("Control flow", EQUAL, "a loop in a loop", **FLOW)
def loop_in_loop(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)

    def inner(a: Any) -> Any:
        return tf.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, tf.tanh(b @ w)), [0, a])[1]

    return tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, inner(a) * 2), [0, x])[1]


@case("Control flow", EQUAL, "a loop in a branch", **FLOW)
def loop_in_cond(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)

    def many() -> Any:
        return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]

    return tf.cond(tf.reduce_sum(x) > -9, many, lambda: x)


@case("Control flow", EQUAL, "a branch is the variable itself", **FLOW)
def variable_as_result(x: Any, res: bool) -> Any:
    w, u = weight("w", [3], res), weight("u", [3], res)
    return x * tf.cond(tf.reduce_sum(x) > 0, lambda: w, lambda: u)


@case("Control flow", EQUAL, "the first value of a loop is a variable", **FLOW)
def variable_as_loop_start(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return x * tf.while_loop(lambda a: tf.reduce_sum(a) < 50, lambda a: tf.abs(a) + 1, [w])


@case("Control flow", EQUAL, "one branch of several by an index", res=BOTH, flow=BOTH)
def switch_case(x: Any, res: bool) -> Any:
    ws = [weight(f"w{i}", [3], res) for i in range(3)]
    chosen = tf.cast(tf.reduce_sum(x), tf.int32) % 3
    return tf.switch_case(chosen, [lambda w=w: x * w + tf.reduce_sum(ws[0]) for w in ws])


@case("Control flow", EQUAL, "the first branch whose condition holds", flow=BOTH)
def tf_case(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])
    return tf.case([(tf.reduce_sum(x) > 99, lambda: x * w), (tf.reduce_sum(x) > 0, lambda: x * u)], lambda: x + w)


@case("Control flow", EQUAL, "handles joined behind a branch", flow=BOTH)
def handle_as_result(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])
    chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.identity(w.handle), lambda: tf.identity(u.handle))
    return x * raw.ReadVariableOp(resource=chosen, dtype=tf.float32)


@case("Control flow", EQUAL, "map_fn", flow=BOTH)
def map_fn(x: Any) -> Any:
    w = weight("w", [3])
    return tf.map_fn(lambda row: row * w, x)


@case("Control flow", EQUAL, "scan", flow=BOTH)
def scan(x: Any) -> Any:
    w = weight("w", [3])
    return tf.scan(lambda a, row: tf.tanh(a * w + row), x, initializer=tf.zeros([3]))


@case("Control flow", EQUAL, "a recurrent net by TensorArray", flow=BOTH)
def recurrent(x: Any) -> Any:
    w, u = weight("w", [3, 3]), weight("u", [3, 3])
    rows = tf.TensorArray(tf.float32, 2).unstack(x)

    def step(i: Any, state: Any, out: Any) -> Any:
        state = tf.tanh(rows.read(i)[None] @ w + state @ u)
        return i + 1, state, out.write(i, state)

    start = (0, tf.zeros([1, 3]), tf.TensorArray(tf.float32, 2))
    return tf.while_loop(lambda i, *_: i < 2, step, start)[2].concat()


@case("Control flow", EQUAL, "gradients through a loop", flow=BOTH)
def gradient(x: Any) -> Any:
    w = weight("w", [3, 3])
    end = tf.while_loop(lambda i, a: i < 3, lambda i, a: [i + 1, tf.tanh(a @ w)], [0, x], maximum_iterations=3)[1]
    return tf.gradients(tf.reduce_sum(end), x)[0]


@case("Control flow", EQUAL, "foldl and foldr, one in a branch", **FLOW)
def folds(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    first = tf.foldl(lambda a, row: a * w + row, x)
    return tf.cond(tf.reduce_sum(x) < 9, lambda: first + tf.foldr(lambda a, row: a * w - row, x), lambda: w + 0)


@case("Control flow", EQUAL, "conds in conds in a loop, with a loop in a branch", flow=BOTH)
def deeply_nested(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])

    def many(a: Any) -> Any:
        return tf.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, b * u), [0, a])[1]

    def body(i: Any, a: Any) -> Any:
        def even() -> Any:
            return tf.cond(tf.reduce_sum(a) > 0, lambda: a * w, lambda: many(a))

        return i + 1, tf.cond(tf.equal(i % 2, 0), even, lambda: a + u)

    return tf.while_loop(lambda i, a: i < 4, body, [0, x])[1]


def _turns(handles: list[Any], a: Any, turn: Callable[..., Any]) -> Any:
    shapes = [tf.TensorShape([]), *(tf.TensorShape([]) for _ in handles), tf.TensorShape(None)]
    return tf.while_loop(lambda i, *_: i < 3, turn, [0, *handles, a], shape_invariants=shapes)[-1]


@case("Control flow", EQUAL, "a handle among a loop's variables", flow=BOTH)
def handle_as_loop_variable(x: Any) -> Any:
    def turn(i: Any, handle: Any, a: Any) -> Any:
        return i + 1, handle, a * raw.ReadVariableOp(resource=handle, dtype=tf.float32)

    return _turns([weight("w", [3]).handle], x, turn)


def _change_places(x: Any) -> Any:
    def turn(i: Any, one: Any, other: Any, a: Any) -> Any:
        return i + 1, other, one, a * raw.ReadVariableOp(resource=one, dtype=tf.float32)

    return _turns([weight("w", [3]).handle, weight("u", [3]).handle], x, turn)


case("Control flow", EQUAL, "two handles that change places in each turn", name="handles by turns", flow=(False,))(
    _change_places
)
case(
    "Control flow",
    REFUSED,
    "TensorFlow takes a handle for the same in every turn, also where the body gives it another",
    name="handles by turns in a function",
    mentions="handle",
)(_change_places)


@case("Control flow", REFUSED, "the branches' variables are of two dtypes", flow=BOTH, mentions="dtype")
def handles_of_two_dtypes(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3], dtype=tf.float64)
    chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.identity(w.handle), lambda: tf.identity(u.handle))
    return x * w + tf.cast(raw.VariableShape(input=chosen), tf.float32)
