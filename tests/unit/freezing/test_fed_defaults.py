"""A placeholder whose default is made of rows is fed: it becomes an input untold, and every command names it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import tensorflow as tf

import pipeline
from pipeline.errors import FreezeError
from pipeline.freezing.inspection import inspect

pytestmark = pytest.mark.tensorflow
v1 = tf.compat.v1


def from_queue() -> tuple[Any, Any]:
    queue = v1.FIFOQueue(8, [tf.float32, tf.float32], [[3], [2]])
    return tuple(queue.dequeue_many(4, name="batch"))


def from_iterator() -> tuple[Any, Any]:
    rows = v1.data.Dataset.from_tensor_slices((np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)))
    return v1.data.make_one_shot_iterator(rows.repeat().batch(4)).get_next()


def augmented() -> tuple[Any, Any]:
    x, y = from_iterator()
    return x + v1.random_normal(tf.shape(x)), y


def from_python() -> tuple[Any, Any]:
    x = v1.py_func(lambda: np.ones((4, 3), np.float32), [], tf.float32)
    return tf.ensure_shape(x, [None, 3]), v1.placeholder(tf.float32, [None, 2], "labels")


def save(folder: Path, rows: Callable[[], tuple[Any, Any]]) -> Any:
    """Saves a model of `x` and `scale`, both placeholders on top of rows; returns what the session gives for them."""
    with tf.Graph().as_default(), v1.Session() as session:
        given, labels = rows()
        x = v1.placeholder_with_default(given, [None, 3], name="x")
        scale = v1.placeholder_with_default(given[:, :1], [None, 1], name="scale")
        y = tf.nn.softmax(small_graphs.product(x + scale), name="prob")
        loss = -tf.reduce_mean(labels * tf.math.log(y))
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
        return session.run(y, {x: small_graphs.X, scale: small_graphs.X[:, :1]})


@pytest.mark.parametrize("rows", [from_queue, from_iterator, augmented, from_python])
@pytest.mark.parametrize("given", [{}, {"inputs": ["scale"]}, {"outputs": ["prob"]}], ids=str)
def test_a_placeholder_on_top_of_rows_is_an_input(
    rows: Callable[[], Any], given: dict[str, list[str]], tmp_path: Path
) -> None:
    wanted = save(tmp_path, rows)
    allowed = ["PyFunc"] if rows is from_python else []
    done = pipeline.freeze(tmp_path, **given, to=tmp_path / "model.pb", allow_ops=allowed)
    assert done.signature is not None
    assert sorted(spec.name for spec in done.signature.inputs) == ["scale", "x"]
    feeds = {"x:0": small_graphs.X, "scale:0": small_graphs.X[:, :1]}
    assert np.array_equal(small_graphs.answer(done.path, feeds, "prob:0"), wanted)


def test_the_command_of_inspect_names_the_placeholders_on_top_of_rows(tmp_path: Path) -> None:
    save(tmp_path, from_queue)
    (command,) = inspect(tmp_path).commands
    assert shlex.split(command)[-4:] == ["--outputs", "prob", "--inputs", "x,scale"]


def test_rows_that_no_placeholder_stands_for_are_asked_for_together_with_those_that_one_does(tmp_path: Path) -> None:
    """The refusal names what is read from the queue, and never the queue itself."""

    def build(_: Any) -> None:
        given, bias = from_queue()
        x = v1.placeholder_with_default(given, [None, 3], name="x")
        tf.add(small_graphs.product(x), bias, name="z")

    with tf.Graph().as_default(), v1.Session() as session:
        build(None)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with pytest.raises(FreezeError, match=r"--outputs z --inputs x,batch:1$") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    assert "fifo_queue" not in str(caught.value).partition("Add ")[2]
    done = pipeline.freeze(tmp_path, ["z"], ["x", "batch:1"], to=tmp_path / "model.pb")
    assert done.signature is not None
    assert [spec.name for spec in done.signature.inputs] == ["x", "batch:1"]


def test_noise_that_a_placeholder_stands_for_is_not_taken_untold(tmp_path: Path) -> None:
    """A draw may be the model's own: whoever freezes it says so."""

    def build(x: Any) -> Any:
        noise = v1.placeholder_with_default(v1.random_normal([2]), [2], name="noise")
        return tf.add(x[:, :2], small_graphs.product(x) * noise, name="z")

    small_graphs.save(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match="draws random numbers"):
        pipeline.freeze(tmp_path, ["z"], to=tmp_path / "model.pb")
