"""What a loss makes of an output that it also takes itself is a step of the loss, and the output is what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tensorflow as tf

from pipeline.errors import FreezeError
from pipeline.graph.discovery import discover_outputs, find_outputs_of, find_together, rank_inputs, rank_outputs
from pipeline.graph.protos import GraphDef

v1 = tf.compat.v1


def built(build: Callable[[], Any]) -> GraphDef:
    with tf.Graph().as_default() as graph:
        v1.train.GradientDescentOptimizer(0.1).minimize(build())
        return GraphDef.FromString(graph.as_graph_def(add_shapes=True).SerializeToString())


def rows(width: int, name: str) -> Any:
    return v1.placeholder(tf.float32, [None, width], name=name)


def dense(x: Any, width: int) -> Any:
    return tf.matmul(x, v1.get_variable(f"w{width}", [x.shape[-1], width]))


def portfolio(
    name: str | None = "shares", cost: str | None = None, has_last: bool = False, is_seen: bool = False
) -> Any:
    """The return of shares, less what it costs to come from the last ones to these."""
    x, last, prices = rows(3, "x"), rows(2, "last"), rows(3, "prices")
    shares = tf.nn.softmax(dense(tf.concat([x, last], 1) if has_last else x, 3), name=name)
    change = shares[:, 1:] - last
    if is_seen:
        v1.summary.histogram("change", change)
    moved = tf.reduce_sum(tf.abs(change), 1, name=cost)
    return -tf.reduce_mean(tf.math.log(tf.reduce_sum(shares * prices, 1) * (1 - 0.01 * moved)))


def curve() -> Any:
    x, last, later = rows(4, "x"), rows(6, "last"), rows(6, "later")
    found = tf.identity(dense(tf.concat([x, last], 1), 6), name="forecast")
    return tf.reduce_mean(tf.square(found - later)) + tf.reduce_mean(tf.square(found - last) * tf.abs(later))


def value(form: Callable[[Any], Any]) -> Any:
    return tf.reduce_mean(tf.square(form(tf.tanh(dense(rows(4, "x"), 1), name="value")) - v1.placeholder(tf.float32)))


def pixels() -> Any:
    x, kinds = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), v1.placeholder(tf.int32, [None, 8, 8])
    scores = tf.nn.conv2d(x, v1.get_variable("w", [1, 1, 3, 4]), 1, "SAME", name="score_map")
    flat = tf.reshape(scores, [-1, 4])
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.reshape(kinds, [-1]), logits=flat))


def boxes() -> Any:
    found, right = tf.identity(dense(rows(4, "x"), 6), name="boxes"), rows(6, "right")
    sizes = tf.nn.sigmoid_cross_entropy_with_logits(labels=right[:, 2:], logits=found[:, 2:])
    return tf.reduce_mean(tf.square(found[:, :2] - right[:, :2])) + tf.reduce_mean(sizes)


@pytest.mark.parametrize(
    ("build", "outputs", "inputs"),
    [
        (portfolio, ["shares"], ["x"]),
        (lambda: portfolio(None), ["Softmax"], ["x"]),
        (lambda: portfolio(has_last=True), ["shares"], ["x", "last"]),
        (lambda: portfolio(has_last=True, is_seen=True), ["shares"], ["x", "last"]),
        (lambda: portfolio(cost="moved", has_last=True), ["shares", "moved"], ["x", "last"]),
        (curve, ["forecast"], ["x", "last"]),
        (lambda: value(lambda one: tf.reshape(one, [-1])), ["value"], ["x"]),
        (lambda: value(lambda one: tf.squeeze(one, 1)), ["value"], ["x"]),
        (lambda: value(lambda one: one[:, 0]), ["value"], ["x"]),
        (pixels, ["score_map"], ["x"]),
        (boxes, ["boxes"], ["x"]),
    ],
)
def test_what_a_loss_makes_of_an_output_is_not_taken_for_it(
    build: Callable[[], Any], outputs: Sequence[str], inputs: Sequence[str]
) -> None:
    graph = built(build)
    assert discover_outputs(graph) == outputs
    assert {one.tensor for one in rank_inputs(graph, outputs)} == set(inputs)


def test_an_answer_in_other_units_that_the_loss_takes_beside_the_first_is_asked_about() -> None:
    def prices() -> Any:
        found, right = dense(rows(4, "x"), 1), rows(1, "right")
        price = tf.add(found * 3.0, 2.0, name="price")
        return tf.reduce_mean(tf.square(price - right)) + tf.reduce_mean(tf.abs(found - (right - 2.0) / 3.0))

    graph = built(prices)
    with pytest.raises(FreezeError, match="the loss also takes price"):
        discover_outputs(graph)
    assert [one.tensor for one in rank_outputs(graph)] == ["price", "MatMul"]


def test_a_named_step_is_not_taken_in_place_of_an_unnamed_answer() -> None:
    graph = built(lambda: portfolio(None, "moved", has_last=True))
    with pytest.raises(FreezeError, match="the loss also takes Softmax"):
        discover_outputs(graph)
    assert [one.tensor for one in rank_outputs(graph)] == ["Softmax", "moved"]


def test_what_the_author_named_in_all_branches_comes_first_and_without_the_unnamed_critic() -> None:
    """A picture and its bytes are made of noise and a kind; an unnamed critic judges real ones and these."""

    def critic() -> Any:
        noise, kind, real = rows(4, "noise"), rows(2, "kind"), rows(6, "real")
        weights = v1.get_variable("weights", [6, 6])
        made, sampled = (tf.tanh(tf.concat([noise, kind], 1) @ weights) for _ in range(2))
        judge = v1.get_variable("judge", [6, 1])
        logits = [tf.matmul(one, judge) for one in (real, made)]
        for one in logits:
            tf.sigmoid(one)
        with tf.name_scope("sample"):
            picture = tf.identity(sampled, name="picture")
            tf.cast(tf.round(picture * 255.0), tf.uint8, name="bytes")
            tf.reduce_sum(kind @ v1.get_variable("names", [2, 3]), 1, name="shade")
        pairs = zip((tf.ones_like, tf.zeros_like), logits, strict=True)
        return tf.add_n(
            [
                tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=like(one), logits=one))
                for like, one in pairs
            ]
        )

    graph = built(critic)
    named = ["sample/picture", "sample/bytes", "sample/shade"]
    assert find_together(graph)[0] == (named, "what the author named in all branches")
    assert find_outputs_of(graph, ["noise", "kind"]) == named
