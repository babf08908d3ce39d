"""Graphs in which something beside the weights meets the model: values of features, masks, lengths, weights of rows."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from discovery_pieces import Known, dense, floats, ids, known_to, train, v1, variable

VALUES: list[Known] = []


def values(*outputs: str, **answers: Any) -> Any:
    return known_to(VALUES, *outputs, **answers)


def scored(x: Any) -> Any:
    """A document's score; the weights are shared."""
    with v1.variable_scope("scorer", reuse=v1.AUTO_REUSE):
        h = tf.nn.relu(tf.matmul(x, v1.get_variable("w", [6, 8])))
        return tf.squeeze(tf.matmul(h, v1.get_variable("v", [8, 1])), 1)


def bce(labels: Any, logits: Any) -> Any:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


def factorized(x: Any, feature: Any) -> Any:
    rows = tf.nn.embedding_lookup(variable("v", [50, 4]), feature) * x
    linear = tf.reduce_sum(tf.nn.embedding_lookup(variable("w", [50, 1]), feature) * x, [1, 2])
    return linear + 0.5 * tf.reduce_sum(tf.square(tf.reduce_sum(rows, 1)) - tf.reduce_sum(tf.square(rows), 1), 1)


@values("pctr", inputs=["feat_index", "feat_value"])
def factorization_machine() -> None:
    y, x = floats("click"), floats("feat_value", 5)
    logit = factorized(x[:, :, None], ids("feat_index", 5))
    tf.sigmoid(logit, name="pctr")
    train(tf.reduce_mean(bce(y, logit)))


@values("rating_hat", inputs=["feat_index", "feat_value"])
def factorization_machine_for_ratings() -> None:
    y, x = floats("rating"), floats("feat_value", 5, 1)
    predicted = tf.identity(factorized(x, ids("feat_index", 5)) + variable("bias", []), "rating_hat")
    train(tf.reduce_mean(tf.square(y - predicted)))


@values("pctr", inputs=["ids/indices", "ids/values", "vals/values"])
def sparse_logistic_regression() -> None:
    y = floats("click")
    feature = v1.sparse_placeholder(tf.int64, [None, None], "ids")
    x = v1.sparse_placeholder(tf.float32, [None, None], "vals")
    logit = tf.squeeze(tf.nn.embedding_lookup_sparse(variable("w", [50, 1]), feature, x, combiner="sum"), 1)
    logit += variable("b", [])
    tf.sigmoid(logit, name="pctr")
    train(tf.reduce_mean(bce(y, logit)))


@values("score_hi", beside=["score_lo"], inputs=["doc_hi"])
def pairs_weighted_by_their_gain() -> None:
    a, b, gain = floats("doc_hi", 6), floats("doc_lo", 6), floats("delta_ndcg")
    hi, lo = tf.identity(scored(a), "score_hi"), tf.identity(scored(b), "score_lo")
    train(tf.reduce_mean(gain * tf.nn.softplus(-(hi - lo))))


@values("score_hi", beside=["score_lo"], inputs=["doc_hi"])
def pairs_with_a_weighted_hinge() -> None:
    a, b, gain = floats("doc_hi", 6), floats("doc_lo", 6), floats("weight")
    hi, lo = tf.identity(scored(a), "score_hi"), tf.identity(scored(b), "score_lo")
    train(tf.reduce_sum(tf.maximum(0.0, 1.0 - (hi - lo)) * gain))


@values("score_hi", beside=["score_lo"], inputs=["doc_hi"])
def pairs_with_a_weighted_cross_entropy() -> None:
    a, b, gain = floats("doc_hi", 6), floats("doc_lo", 6), floats("weight")
    hi, lo = tf.identity(scored(a), "score_hi"), tf.identity(scored(b), "score_lo")
    train(tf.reduce_mean(bce(tf.ones_like(hi), hi - lo) * gain))


def listwise(name: str, is_ranked: bool) -> Any:
    docs, count, relevance = floats("docs", None, 6), ids("num_docs"), floats("relevance", None)
    h = tf.nn.relu(tf.tensordot(docs, variable("w1", [6, 10]), 1))
    scores = tf.squeeze(tf.tensordot(h, variable("w2", [10, 1]), 1), 2)
    mask = tf.sequence_mask(count, tf.shape(docs)[1])
    scores = tf.where(mask, scores, -1e9 * tf.ones_like(scores), name=name)
    if is_ranked:
        order = tf.argsort(scores, direction="DESCENDING", name="ranking")
        first = tf.cast(tf.argmax(tf.gather(relevance, order, batch_dims=1), 1), tf.float32)
        v1.summary.scalar("mrr", tf.reduce_mean(1.0 / (1.0 + first)))
    train(tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=relevance, logits=scores)))


@values("scores", beside=["ranking/TopKV2:1"], inputs=["docs", "num_docs"])
def lists_of_documents() -> None:
    listwise("scores", True)


@values("scores", inputs=["docs", "num_docs"])
def lists_of_documents_without_a_metric() -> None:
    listwise("scores", False)


@values("masked", inputs=["state", "legal"])
def policy_over_legal_moves() -> None:
    state, legal, move = floats("state", 6), floats("legal", 9), ids("move")
    logits = dense(dense(state, 8, "h", tf.nn.relu), 9, "moves")
    masked = tf.subtract(logits, (1.0 - legal) * 1e9, name="masked")
    train(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=move, logits=masked)))


@values("legal_moves", inputs=["state", "legal"])
def moves_that_are_masked_for_use_alone() -> None:
    state, legal, move = floats("state", 6), floats("legal", 9), ids("move")
    logits = dense(dense(state, 8, "h", tf.nn.relu), 9, "moves")
    tf.multiply(tf.nn.softmax(logits), legal, name="legal_moves")
    train(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=move, logits=logits)))


@values("q/BiasAdd", inputs=["state"])
def q_of_the_chosen_action() -> None:
    state, action, target = floats("state", 6), ids("action"), floats("target")
    q = dense(state, 4, "q")
    train(tf.reduce_mean(tf.square(target - tf.reduce_sum(q * tf.one_hot(action, 4), 1))))


@values("GatherV2", inputs=["state"])
def table_of_q() -> None:
    state, action, target = ids("state"), ids("action"), floats("target")
    q = tf.gather(variable("table", [16, 4]), state)
    train(tf.reduce_mean(tf.square(target - tf.reduce_sum(q * tf.one_hot(action, 4), 1))))


@values("prob", inputs=["x"])
def rows_with_weights_of_their_own() -> None:
    x, y, w = floats("x", 6), ids("y"), floats("row_weight")
    logits = dense(x, 3, "logits")
    tf.nn.softmax(logits, name="prob")
    off = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    tf.equal(tf.argmax(logits, 1, output_type=tf.int32), y, name="is_right")
    train(tf.reduce_mean(off * w))
