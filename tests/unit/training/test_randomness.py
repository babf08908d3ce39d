"""Random draws, checked in TensorFlow sessions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from pipeline.training.randomness import STEP, key_draws_by_step

v1 = tf.compat.v1

DRAWS: dict[str, Callable[[], tf.Tensor]] = {
    "uniform": lambda: tf.random.uniform([100_000], 2.0, 5.0),
    "normal": lambda: tf.random.normal([100_000], 3.0, 2.0),
    "truncated_normal": lambda: tf.random.truncated_normal([100_000], 3.0, 2.0),
    "int": lambda: tf.random.uniform([100_000], 3, 9, tf.int32),
    "categorical": lambda: tf.random.categorical(tf.math.log([[0.2, 0.3, 0.5]]), 100_000),
    "float16": lambda: tf.cast(tf.random.uniform([100_000], dtype=tf.float16), tf.float32),
    "dropout": lambda: tf.nn.dropout(tf.ones([100_000]), rate=0.25),
}
# Mean and variance as the definitions of the distributions give them; of the normal cut at two deviations,
# the variance is 0.774 of the whole one's.
MOMENTS = {
    "uniform": (3.5, 0.75),
    "normal": (3.0, 4.0),
    "truncated_normal": (3.0, 4.0 * 0.7737),
    "int": (5.5, 35 / 12),
    "categorical": (1.3, 0.61),
    "float16": (0.5, 1 / 12),
    "dropout": (1.0, 1 / 3),
}


def graph_of(build: Callable[[], tf.Tensor], seed: int = 7) -> v1.GraphDef:
    """Builds a graph with the step's placeholder and the output of `build` as `out`, with draws keyed by the step."""
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(seed)
        v1.placeholder(tf.int64, [], name=STEP)
        tf.identity(build(), name="out")
    graph_def = graph.as_graph_def()
    assert key_draws_by_step(graph_def, []) == []
    return graph_def


def drawn(graph_def: v1.GraphDef, *steps: int) -> list[np.ndarray]:
    """Draws at these steps, one after another, in a new session."""
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return [session.run("out:0", {f"{STEP}:0": step}) for step in steps]


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_depends_on_the_seed_and_the_step_alone(name: str) -> None:
    graph_def = graph_of(DRAWS[name])
    third, fourth, third_again = drawn(graph_def, 3, 4, 3)
    [resumed_at_fourth] = drawn(graph_of(DRAWS[name]), 4)
    [other_seed] = drawn(graph_of(DRAWS[name], seed=8), 3)
    assert np.array_equal(third, third_again)
    assert np.array_equal(fourth, resumed_at_fourth)
    assert (third != fourth).mean() > 0.1
    assert (third != other_seed).mean() > 0.1


@pytest.mark.parametrize("name", DRAWS)
def test_a_keyed_draw_has_the_distribution_that_was_asked_for(name: str) -> None:
    mean, variance = MOMENTS[name]
    draws = np.concatenate([values.ravel() for values in drawn(graph_of(DRAWS[name]), 1, 2, 3)]).astype(np.float64)
    assert draws.mean() == pytest.approx(mean, abs=0.02 * max(mean, variance**0.5))
    assert draws.var() == pytest.approx(variance, rel=0.02)
    if name == "int":
        assert set(draws) == {3, 4, 5, 6, 7, 8}
    if name == "truncated_normal":
        assert abs(draws - 3).max() <= 4.0


def test_two_ops_of_a_graph_draw_independently() -> None:
    def build() -> tf.Tensor:
        return tf.stack([tf.random.normal([20_000]) for _ in range(3)])

    first, second = drawn(graph_of(build), 1, 2)
    assert np.abs(np.corrcoef(np.concatenate([first, second])) - np.eye(6)).max() < 0.04


def test_initializers_draw_as_without_the_pipeline() -> None:
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        v1.placeholder(tf.int64, [], name=STEP)
        w = v1.get_variable("w", [50], initializer=v1.random_normal_initializer())
        tf.identity(w * tf.nn.dropout(tf.ones([50]), 0.5), name="out")
        with v1.Session() as session:
            session.run(w.initializer)
            expected = session.run(w)
        initializer, read = w.initializer.name, w.value().name
    graph_def = graph.as_graph_def()
    key_draws_by_step(graph_def, [initializer])
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        session.run(initializer)  # no step is fed: it needs none
        assert np.array_equal(session.run(read), expected)
    assert sorted(node.op for node in graph_def.node if "Random" in node.op) == [
        "RandomStandardNormal",
        "StatelessRandomUniform",
    ]


def test_draws_that_cannot_be_keyed_are_named() -> None:
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        v1.placeholder(tf.int64, [], name=STEP)
        tf.random.shuffle(tf.range(5), name="mixed_up")
        flag = v1.placeholder(tf.bool, [], name="flag")
        tf.cond(flag, lambda: tf.random.normal([2], name="inside"), lambda: tf.zeros([2]))
    unkeyed = key_draws_by_step(graph.as_graph_def(), [])
    assert "mixed_up" in unkeyed
    assert any("inside" in name and "cond_true" in name for name in unkeyed)
    assert len(unkeyed) == 2
