"""Graphs that discovery was not tuned on: built, and their answers written down, after it was finished."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from discovery_pieces import (
    Cell,
    Known,
    accuracy,
    batch_norm,
    conv,
    cross_entropy,
    dense,
    embed,
    floats,
    ids,
    known_to,
    layers_dropout,
    train,
    v1,
    variable,
)

UNSEEN: list[Known] = []


def unseen(*outputs: str, **answers: Any) -> Any:
    return known_to(UNSEEN, *outputs, **answers)


@unseen("Softmax", beside=["logits"], inputs=["images"], pins={"phase_train": "false"})
def cifar_with_a_phase() -> None:
    x, y = floats("images", 16, 16, 3), ids("labels")
    phase = v1.placeholder(tf.bool, name="phase_train")
    h = tf.nn.relu(batch_norm(conv(x, 8, "c1", activation=None), phase, "b1"))
    h = tf.nn.max_pool2d(h, 2, 2, "SAME")
    h = tf.reshape(h, [-1, 4 * 4 * 8])
    logits = tf.identity(dense(h, 10, "fc"), name="logits")
    tf.nn.softmax(logits, name="Softmax")
    loss = cross_entropy(y, logits) + 1e-4 * tf.add_n([tf.nn.l2_loss(v) for v in v1.trainable_variables()])
    in_top = tf.cast(tf.nn.in_top_k(y, logits, 5), tf.float32)
    v1.summary.scalar("top5", tf.reduce_mean(in_top))
    train(loss, v1.train.MomentumOptimizer(0.1, 0.9))


@unseen("segmentation", beside=["softmax"], inputs=["batch"], pins={"drop_rate": "0"})
def u_net_from_a_queue() -> None:
    image, mask = tf.zeros([16, 16, 1]), tf.zeros([16, 16], tf.int32)
    x, y = v1.train.batch([tf.identity(image), tf.identity(mask)], 4)
    rate = v1.placeholder(tf.float32, [], name="drop_rate")
    down = conv(x, 4, "down")
    middle = tf.nn.dropout(conv(down, 8, "middle", 1), rate=rate)
    up = v1.image.resize_nearest_neighbor(tf.concat([down, middle], 3), [16, 16])
    logits = conv(up, 2, "last", 1, None)
    tf.nn.softmax(logits, name="softmax")
    tf.argmax(logits, 3, name="segmentation")
    train(cross_entropy(y, logits))


@unseen("q/BiasAdd", beside=["greedy"], inputs=["observation"])
def dueling_dqn_with_idle_greedy_action() -> None:
    obs, action, target = floats("observation", 4), ids("action"), floats("target")
    q = dense(dense(obs, 16, "h", tf.nn.relu), 3, "q")
    tf.argmax(q, 1, name="greedy")
    chosen = tf.reduce_sum(q * tf.one_hot(action, 3), 1)
    error = tf.abs(target - chosen, name="td_error")
    train(tf.reduce_mean(tf.square(error)))


@unseen("mu", beside=["sigma"], inputs=["state"])
def gaussian_actor_with_log_probability() -> None:
    state, action, advantage = floats("state", 3), floats("action", 1), floats("advantage")
    h = dense(state, 8, "h", tf.nn.relu)
    mu = tf.multiply(2.0, dense(h, 1, "mu_dense", tf.tanh), name="mu")
    sigma = tf.add(tf.nn.softplus(dense(h, 1, "sigma_dense")), 1e-4, name="sigma")
    tf.clip_by_value(mu + sigma * tf.random.normal(tf.shape(mu)), -2.0, 2.0, name="sampled")
    log_p = -0.5 * tf.square((action - mu) / sigma) - tf.math.log(sigma)
    train(-tf.reduce_mean(log_p[:, 0] * advantage))


@unseen("tags", beside=["logits", "transitions"], inputs=["words", "lengths"], pins={"dropout": "1"})
def tagger_of_words() -> None:
    words, lengths, labels = ids("words", 6), ids("lengths"), ids("labels", 6)
    keep = v1.placeholder(tf.float32, [], name="dropout")
    h, _ = v1.nn.dynamic_rnn(Cell(), embed(words, 30, 8), sequence_length=lengths, dtype=tf.float32)
    flat = dense(tf.reshape(v1.nn.dropout(h, keep), [-1, 8]), 5, "proj")
    logits = tf.reshape(flat, [-1, 6, 5], name="logits")
    tf.cast(tf.argmax(logits, -1), tf.int32, name="tags")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
    train(tf.reduce_mean(tf.boolean_mask(losses, tf.sequence_mask(lengths, 6))))


@unseen("similarity", inputs=["query", "document"])
def ranking_of_pairs() -> None:
    query, document, y = ids("query", 4), ids("document", 5), floats("y")
    table = variable("embedding", [30, 8])
    a, b = (
        dense(tf.reduce_mean(tf.nn.embedding_lookup(table, one), 1), 4, name)
        for one, name in ((query, "q"), (document, "d"))
    )
    cos = tf.reduce_sum(tf.nn.l2_normalize(a, 1) * tf.nn.l2_normalize(b, 1), 1, name="similarity")
    train(tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=cos)))


@unseen("denoised", inputs=["noisy"])
def denoiser_with_psnr() -> None:
    noisy, clean = floats("noisy", 8, 8, 1), floats("clean", 8, 8, 1)
    out = tf.subtract(noisy, conv(conv(noisy, 4, "c1", 1), 1, "c2", 1, None), name="denoised")
    loss = tf.nn.l2_loss(clean - out) / 8
    psnr = tf.image.psnr(out, clean, 1.0)
    v1.summary.scalar("psnr", tf.reduce_mean(psnr))
    train(loss)


@unseen("style", inputs=["content"])
def style_transfer_with_a_frozen_judge() -> None:
    content = floats("content", 8, 8, 3)
    out = tf.tanh(conv(conv(content, 4, "t1", 1), 3, "t2", 1, None), name="style")
    judge = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32))
    a, b = (tf.nn.relu(tf.nn.conv2d(one, judge, 1, "SAME")) for one in (out, content))
    train(tf.reduce_mean(tf.square(a - b)))


@unseen("top_values", "top_values:1", inputs=["image_bytes"])
def classifier_of_jpegs_with_top_k() -> None:
    content = v1.placeholder(tf.string, [None], name="image_bytes")

    def read(one: Any) -> Any:
        return v1.image.resize_images(tf.image.decode_jpeg(one, 3), [8, 8])

    images = tf.map_fn(read, content, fn_output_signature=tf.float32)
    images = tf.ensure_shape(images, [None, 8, 8, 3])
    probability = tf.nn.softmax(dense(tf.reduce_mean(conv(images, 4, "c"), [1, 2]), 10, "fc"))
    tf.nn.top_k(probability, 3, name="top_values")


@unseen("forecast", inputs=["history"])
def forecast_with_errors() -> None:
    history, future = floats("history", 6, 2), floats("future", 2)
    _, (_, last) = v1.nn.dynamic_rnn(Cell(), history, dtype=tf.float32)
    out = tf.add(tf.matmul(last, variable("w", [8, 2])), variable("b", [2], 0.0), name="forecast")
    rmse = tf.sqrt(tf.reduce_mean(tf.square(out - future)), name="rmse")
    tf.reduce_mean(tf.abs((future - out) / future), name="mape")
    train(rmse)


@unseen("anomaly", beside=["rebuilt"], inputs=["x"])
def autoencoder_with_a_score() -> None:
    x = floats("x", 16)
    rebuilt = tf.identity(dense(dense(x, 4, "enc", tf.nn.relu), 16, "dec"), "rebuilt")
    apart = tf.square(x - rebuilt)
    tf.reduce_mean(apart, 1, name="anomaly")
    train(tf.reduce_mean(apart))


@unseen("generator/image", inputs=["z", "label"])
def conditional_generator_for_sampling() -> None:
    z, label = floats("z", 4), ids("label")
    with v1.name_scope("generator"):
        h = dense(tf.concat([z, tf.one_hot(label, 3)], 1), 16, "g1", tf.nn.relu)
        tf.nn.sigmoid(dense(h, 64, "g2"), name="image")


@unseen("head_a/Softmax", "head_b/Softmax", inputs=["x"], pins={"training": "false"})
def two_tasks_with_probabilities() -> None:
    x, a, b = floats("x", 8), ids("label_a"), ids("label_b")
    training = v1.placeholder_with_default(False, [], name="training")
    h = layers_dropout(dense(x, 16, "trunk", tf.nn.relu), training)
    losses = []
    for name, labels, size in (("head_a", a, 3), ("head_b", b, 4)):
        logits = dense(h, size, name)
        tf.nn.softmax(logits, name=f"{name}/Softmax")
        losses.append(cross_entropy(labels, logits))
        accuracy(logits, labels, f"accuracy_{name}")
    train(tf.add_n(losses))


@unseen("linear/predictions", inputs=["features"])
def linear_model_in_memory() -> None:
    features = tf.constant(np.arange(40, dtype=np.float32).reshape(10, 4), name="features")
    prices = tf.constant(np.arange(10, dtype=np.float32)[:, None] ** 2)
    with v1.name_scope("linear"):
        out = tf.add(tf.matmul(features, variable("w", [4, 1])), variable("b", [1], 0.0), name="predictions")
    loss = tf.reduce_mean(tf.square(out - prices))
    tf.abs(out - prices, name="off")
    train(loss)


@unseen("scores", inputs=["features"])
def ranker_with_a_hinge() -> None:
    x, y = floats("features", 6), floats("relevance", 1)
    scores = dense(dense(x, 8, "h", tf.nn.relu), 1, "s")
    scores = tf.identity(scores, "scores")
    train(tf.reduce_mean(tf.maximum(0.0, 1.0 - y * scores)) + 0.01 * tf.nn.l2_loss(scores))


@unseen("output_node", inputs=["x"])
def wide_and_deep() -> None:
    x, y = floats("x", 6), floats("y", 1)
    wide = tf.matmul(x, variable("wide", [6, 1]))
    deep = dense(dense(x, 8, "deep1", tf.nn.relu), 1, "deep2")
    logit = wide + deep + variable("bias", [1], 0.0)
    tf.sigmoid(logit, name="output_node")
    v1.losses.sigmoid_cross_entropy(y, logit)
    total = v1.losses.get_total_loss()
    v1.metrics.auc(y, tf.sigmoid(logit))
    train(total)
