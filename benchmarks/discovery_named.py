"""Graphs with tensors that their authors named for use, beside those of a head: results of loops, features, rates."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from discovery_pieces import Cell, Known, cross_entropy, dense, floats, ids, known_to, train, v1, variable

NAMED: list[Known] = []


def named(*outputs: str, **answers: Any) -> Any:
    return known_to(NAMED, *outputs, **answers)


def squared(a: Any, b: Any) -> Any:
    return tf.reduce_mean(tf.square(a - b))


def simulate(area: Any) -> tuple[Any, Any]:
    """A tank: its level follows what flows in; what flows out is a net's answer, written down in each step."""
    inflow, level = floats("inflow", 6), floats("level")

    def step(at: Any, level: Any, flows: Any, levels: Any) -> Any:
        level = tf.clip_by_value(level + inflow[:, at] / area, 0.0, 9.0)
        given = tf.stack([level, inflow[:, at]], 1)
        flow = tf.squeeze(dense(dense(given, 5, "h", tf.tanh), 1, "flow"), 1)
        return at + 1, level, flows.write(at, flow), levels.write(at, level)

    start = 0, level, tf.TensorArray(tf.float32, 6), tf.TensorArray(tf.float32, 6)
    with v1.variable_scope("tank", reuse=v1.AUTO_REUSE):
        _, last, flows, levels = v1.while_loop(lambda at, *_: at < 6, step, start)
    tf.transpose(levels.stack(), name="levels")
    final = tf.identity(last, "final_level")
    tf.cast(final > 8.0, tf.int32, name="overflows")
    return tf.transpose(flows.stack()), floats("measured", 6)


_STATES = ["outflow", "levels", "final_level", "overflows"]


@named(*_STATES, inputs=["inflow", "level"])
def simulation_with_states_of_its_loop() -> None:
    flow, measured = simulate(tf.exp(tf.reduce_sum(variable("area", [2]))))
    tf.identity(flow, "outflow")
    train(squared(flow, measured))


@named(*_STATES, inputs=["inflow", "level"], is_v2=True)
def simulation_with_states_of_its_function() -> None:
    simulation_with_states_of_its_loop()


@named(*_STATES, inputs=["inflow", "level"])
def simulation_with_states_that_one_number_makes() -> None:
    flow, measured = simulate(tf.exp(variable("area", [])))
    tf.identity(flow, "outflow")
    train(squared(flow, measured))


@named(*_STATES, inputs=["inflow", "level"])
def simulation_whose_trained_output_has_the_loss() -> None:
    flow, measured = simulate(tf.exp(variable("area", [])))
    train(squared(tf.identity(flow, "outflow"), measured))


@named("tokens", "state", inputs=["x"])
def scores_of_steps_and_the_state_after_them() -> None:
    x, y = ids("x", 5), ids("y", 5)
    table = variable("table", [9, 4])
    h, (state, _) = v1.nn.dynamic_rnn(Cell(6), tf.gather(table, x), dtype=tf.float32)
    logits = dense(tf.reshape(h, [-1, 6]), 9, "last")
    tf.reshape(tf.nn.softmax(logits), [-1, 5, 9], name="tokens")
    tf.identity(state, "state")
    train(cross_entropy(tf.reshape(y, [-1]), logits))


@named("features", "probabilities")
def features_beside_a_softmax() -> None:
    x, y = floats("x", 4), ids("y")
    h = dense(dense(x, 8, "a", tf.nn.relu), 8, "b", tf.nn.relu)
    tf.identity(h, "features")
    logits = dense(h, 3, "c")
    tf.nn.softmax(logits, name="probabilities")
    train(cross_entropy(y, logits))


@named("embedding", "probabilities")
def unit_vectors_beside_a_softmax() -> None:
    x, y = floats("x", 4), ids("y")
    h = dense(x, 8, "a", tf.nn.relu)
    tf.divide(h, tf.norm(h, axis=1, keepdims=True), name="embedding")
    logits = dense(h, 3, "c")
    tf.nn.softmax(logits, name="probabilities")
    train(cross_entropy(y, logits))


@named("eval/probabilities", "eval/features", inputs=["served"])
def features_of_the_tower_for_use() -> None:
    def tower(x: Any, rate: float) -> Any:
        with v1.variable_scope("net", reuse=v1.AUTO_REUSE):
            h = dense(x, 8, "a", tf.nn.relu)
            h = tf.nn.dropout(h, rate=rate) if rate else h
            return tf.identity(h, "features"), dense(h, 3, "b")

    x, y, served = floats("x", 4), ids("y"), floats("served", 4)
    _, logits = tower(x, 0.5)
    with tf.name_scope("eval"):
        h, answer = tower(served, 0)
        tf.identity(h, "features")
        tf.nn.softmax(answer, name="probabilities")
    train(cross_entropy(y, logits))


@named("rate")
def rate_that_the_loss_takes_with_its_logarithm() -> None:
    x, y = floats("x", 4), floats("y", 1)
    log_rate = dense(dense(x, 8, "h", tf.nn.relu), 1, "last")
    rate = tf.exp(log_rate, name="rate")
    train(tf.reduce_mean(rate - y * log_rate))


@named("rate")
def rate_beside_a_poisson_loss_that_a_metric_takes() -> None:
    x, y = floats("x", 4), floats("y", 1)
    log_rate = dense(dense(x, 8, "h", tf.nn.relu), 1, "last")
    rate = tf.exp(log_rate, name="rate")
    v1.summary.scalar("off", tf.reduce_mean(tf.abs(rate - y)))
    train(tf.reduce_mean(tf.nn.log_poisson_loss(y, log_rate)))


@named("rate")
def rate_beside_a_poisson_loss() -> None:
    x, y = floats("x", 4), floats("y", 1)
    log_rate = dense(dense(x, 8, "h", tf.nn.relu), 1, "last")
    tf.exp(log_rate, name="rate")
    train(tf.reduce_mean(tf.nn.log_poisson_loss(y, log_rate, compute_full_loss=True)))


@named("rate")
def rate_that_a_poisson_loss_of_exposure_takes() -> None:
    x, y = floats("x", 4), floats("y")
    log_rate = tf.squeeze(dense(dense(x, 8, "h", tf.nn.relu), 1, "last"), 1)
    rate = tf.exp(tf.clip_by_value(log_rate, -9.0, 9.0), name="rate")
    train(tf.reduce_mean(rate - y * log_rate) + 0.1 * tf.add_n([tf.nn.l2_loss(v) for v in v1.trainable_variables()]))


@named("deviation", "mean", beside=["log_variance"])
def gaussian_with_its_deviation_in_the_loss() -> None:
    x, y = floats("x", 4), floats("y", 1)
    h = dense(x, 8, "h", tf.nn.relu)
    mean = tf.identity(dense(h, 1, "m"), "mean")
    log_variance = dense(h, 1, "v")
    deviation = tf.exp(0.5 * log_variance, name="deviation")
    train(tf.reduce_mean(log_variance + tf.square((y - mean) / deviation)))


@named("bounds/value", "bounds/width", "bounds/bound", "bounds/best", inputs=["x", "allowed"])
def value_and_width_that_a_choice_is_made_of() -> None:
    x, allowed, arm, reward = (
        floats("x", 5),
        v1.placeholder(tf.bool, [None, 4], "allowed"),
        ids("arm"),
        floats("reward"),
    )
    h = dense(x, 6, "net", tf.tanh)
    with tf.name_scope("bounds"):
        value = tf.matmul(h, variable("theta", [6, 4]), name="value")
        spread = tf.reduce_sum(tf.square(tf.tensordot(h, variable("a", [6, 6, 4]), 1)), 1)
        width = tf.sqrt(tf.maximum(spread, 1e-9), name="width")
        bound = value + 0.5 * width
        bound = tf.where(allowed, bound, tf.fill(tf.shape(bound), -1e9), name="bound")
        best = tf.argmax(bound, 1, name="best")
    v1.summary.histogram("chosen", best)
    v1.summary.histogram("value", value)
    v1.summary.histogram("width", width)
    taken = tf.reduce_sum(dense(h, 4, "head") * tf.one_hot(arm, 4), 1)
    train(tf.reduce_mean(tf.square(taken - reward)))


@named("tags", "score", inputs=["x", "mask"], is_v2=True)
def best_path_that_loops_find() -> None:
    x, mask, y = floats("x", 6, 4), floats("mask", 6), ids("y", 6)
    logits = dense(x, 3, "last")
    moves = variable("moves", [3, 3])

    def forward(before: Any, now: Any) -> Any:
        options = before[0][:, :, None] + moves
        return tf.reduce_max(options, 1) + now, tf.argmax(options, 1, output_type=tf.int32)

    steps = tf.transpose(logits, [1, 0, 2])
    start = steps[0], tf.zeros_like(steps[0], tf.int32)
    scores, back = tf.scan(forward, steps[1:], start)
    last = scores[-1]
    best = tf.argmax(last, 1, output_type=tf.int32)
    walked = tf.scan(lambda at, moved: tf.gather(moved, at, batch_dims=1), back, best, reverse=True)
    path = tf.concat([tf.transpose(walked), best[:, None]], 1)
    tf.multiply(path, tf.cast(mask, tf.int32), name="tags")
    tf.reduce_max(last, 1, name="score")
    train(tf.reduce_mean(mask * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)))
