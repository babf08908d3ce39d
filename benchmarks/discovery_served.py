"""Graphs whose trained head is not what is served: bandits, sampled losses, policies that explore, towers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from discovery_pieces import Known, cross_entropy, dense, floats, ids, known_to, train, v1, variable

SERVED: list[Known] = []


def served(*outputs: str, **answers: Any) -> Any:
    return known_to(SERVED, *outputs, **answers)


def setting(name: str, value: float) -> Any:
    return v1.placeholder_with_default(np.float32(value), [], name=name)


def explores(best: Any, count: int, name: str) -> Any:
    """With a chance, another arm than the best, as while data is collected."""
    chance, rows = setting("epsilon", 0.1), tf.shape(best)
    drawn = tf.random.uniform(rows, 0, count, tf.int64)
    return v1.where(tf.random.uniform(rows) < chance, drawn, best, name=name)


@served("act/bound", "act/arm", inputs=["context", "shown", "alpha"])
def bandit_with_arms_that_may_be_shown() -> None:
    context, shown, alpha = floats("context", 5), v1.placeholder(tf.bool, [None, 4], name="shown"), setting("alpha", 1)
    pulled, reward = ids("pulled"), floats("reward")
    h = dense(context, 6, "features", tf.tanh)
    inverse, sums = variable("inverse", [4, 6, 6], is_trained=False), variable("sums", [4, 6], is_trained=False)
    with v1.name_scope("act"):
        expected = tf.matmul(h, tf.squeeze(tf.matmul(inverse, sums[..., None]), -1), transpose_b=True, name="expected")
        spread = tf.sqrt(tf.maximum(tf.einsum("nd,ade,ne->na", h, inverse, h), 1e-9), name="spread")
        bound = expected + alpha * spread
        bound = v1.where(shown, bound, tf.fill(tf.shape(bound), np.float32(-1e9)), name="bound")
        explores(tf.argmax(bound, 1, name="arm"), 4, "explored_arm")
    guess = tf.reduce_sum(dense(h, 4, "pretrained") * tf.one_hot(pulled, 4), 1)
    train(v1.losses.huber_loss(reward, guess))


@served("best", inputs=["x", "allowed"])
def ranker_behind_a_pretrained_net() -> None:
    x, allowed, y, seen = floats("x", 5), floats("allowed", 4), floats("y", 3), floats("seen", 4)
    h = dense(x, 6, "net", tf.tanh)
    train(tf.reduce_mean(tf.square(dense(h, 3, "pretrained") - y)))
    means = variable("means", [6, 4], is_trained=False)
    v1.assign_add(means, tf.matmul(h, seen, transpose_a=True))
    scores = tf.matmul(h, means) * allowed
    tf.argmax(scores, 1, name="best")
    tf.argmax(scores + tf.random.normal(tf.shape(scores)), 1, name="noisy")


@served("scores", "songs", inputs=["playlist", "k"])
def playlists_by_noise_contrast() -> None:
    center, context, playlist = ids("center"), ids("context", 1), ids("playlist", None)
    count, table = v1.placeholder_with_default(5, [], name="k"), variable("table", [50, 8])
    found = tf.nn.embedding_lookup(table, center)
    train(tf.reduce_mean(tf.nn.nce_loss(variable("w", [50, 8]), variable("b", [50]), context, found, 4, 50)))
    unit = table / tf.sqrt(tf.reduce_sum(tf.square(table), 1, keepdims=True))
    known = tf.cast(playlist >= 0, tf.float32)
    taste = tf.reduce_sum(tf.gather(unit, tf.maximum(playlist, 0)) * known[..., None], 1)
    near = tf.matmul(taste, unit, transpose_b=True) - 10.0 * tf.reduce_max(tf.one_hot(playlist, 50), 1)
    scores, songs = tf.nn.top_k(near, count)
    tf.identity(scores, "scores"), tf.identity(songs, "songs")


@served("near", "near_ids", inputs=["word"])
def nearest_words_by_sampled_softmax() -> None:
    center, context, word = ids("center"), ids("context", 1), ids("word")
    table = variable("table", [50, 8])
    found = tf.nn.embedding_lookup(table, center)
    loss = tf.nn.sampled_softmax_loss(variable("w", [50, 8]), variable("b", [50]), context, found, 4, 50)
    train(tf.reduce_mean(loss), v1.train.AdamOptimizer(0.01))
    unit = tf.nn.l2_normalize(table, 1)
    near, near_ids = tf.nn.top_k(tf.matmul(tf.gather(unit, word), unit, transpose_b=True), 3)
    tf.identity(near, "near"), tf.identity(near_ids, "near_ids")


@served("top", "items", inputs=["history", "owned"])
def items_that_are_not_owned() -> None:
    history, later, owned = ids("history", 5), ids("later", 1), floats("owned", 30)
    h = dense(tf.reduce_mean(tf.gather(variable("table", [30, 8]), history), 1), 8, "user", tf.nn.relu)
    w, b = variable("w", [30, 8]), variable("b", [30])
    train(tf.reduce_mean(tf.nn.sampled_softmax_loss(w, b, later, h, 4, 30)))
    top, items = tf.nn.top_k(tf.matmul(h, w, transpose_b=True) + b - 1e9 * owned, 5)
    tf.identity(top, "top"), tf.identity(items, "items")


@served("greedy", beside=["values"], inputs=["x"])
def q_that_explores() -> None:
    x, action, reward, after = floats("x", 4), ids("action"), floats("reward"), floats("after", 4)
    values = tf.identity(dense(dense(x, 8, "h", tf.nn.relu), 3, "q"), "values")
    later = tf.reduce_max(dense(dense(after, 8, "copied_h", tf.nn.relu), 3, "copied_q"), 1)
    explores(tf.argmax(values, 1, name="greedy"), 3, "explored")
    taken = tf.reduce_sum(values * tf.one_hot(action, 3), 1)
    nets = [one for one in v1.trainable_variables() if not one.name.startswith("copied")]
    train(tf.reduce_mean(tf.square(taken - (reward + 0.9 * tf.stop_gradient(later)))), var_list=nets)


@served("mean", beside=["value"], inputs=["x"])
def action_with_noise_and_without() -> None:
    x, action, gain, goal = floats("x", 4), floats("action", 2), floats("gain"), floats("goal")
    h, spread = dense(x, 8, "h", tf.tanh), tf.exp(variable("log_spread", [2]))
    mean = tf.identity(dense(h, 2, "m"), "mean")
    value = tf.squeeze(dense(h, 1, "v"), 1, name="value")
    tf.clip_by_value(mean + spread * tf.random.normal(tf.shape(mean)), -1, 1, name="tried")
    tf.clip_by_value(mean, -1, 1, name="steady")
    likely = -tf.reduce_sum(0.5 * tf.square((action - mean) / spread) + tf.math.log(spread), 1)
    train(tf.reduce_mean(tf.square(value - goal)) - tf.reduce_mean(likely * gain))


@served("probabilities", inputs=["x", "temperature"])
def softmax_of_a_temperature() -> None:
    x, y, temperature = floats("x", 6), ids("y"), v1.placeholder(tf.float32, [], name="temperature")
    logits = dense(dense(x, 8, "h", tf.nn.relu), 3, "logits")
    train(cross_entropy(y, logits))
    tf.nn.softmax(logits / temperature, name="probabilities")


@served("probabilities", inputs=["x", "temperature"])
def softmax_of_a_temperature_with_a_default() -> None:
    x, y = floats("x", 6), ids("y")
    logits = dense(dense(x, 8, "h", tf.nn.relu), 3, "logits")
    train(cross_entropy(y, logits))
    tf.nn.softmax(logits / setting("temperature", 1), name="probabilities")


@served("probabilities", inputs=["x"])
def towers_of_two_devices() -> None:
    x, y = floats("x", 6), ids("y")
    weights, found, losses = variable("w", [6, 3]), [], []
    for start in range(2):
        with v1.name_scope(f"tower_{start}"):
            found.append(tf.matmul(x[start::2], weights))
            losses.append(cross_entropy(y[start::2], found[-1]))
    train(tf.add_n(losses) / 2)
    tf.nn.softmax(tf.concat(found, 0), name="probabilities")
