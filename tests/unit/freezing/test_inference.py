"""A graph that was built for training is rewritten: batch norm takes its moving averages, and dropout is off.

The oracle is the same model, built for inference and restored by TensorFlow.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from tensorflow.python.training import moving_averages

import pipeline
from pipeline import cli
from pipeline.errors import FreezeError
from pipeline.formats.checkpoint import open_runner
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.tasks.chain.plan import Chain

v1 = tf.compat.v1
ROWS = np.random.default_rng(5).normal(2.0, 3.0, (6, 4, 4, 3)).astype(np.float32)
AXES = [0, 1, 2]
EPSILON = 1e-3


def variable(name: str, size: int, value: float, *front: int) -> Any:
    return v1.get_variable(name, [*front, size], initializer=v1.constant_initializer(value))


def averages(size: int, *front: int) -> tuple[Any, Any]:
    return variable("mean", size, 0.0, *front), variable("variance", size, 1.0, *front)


def moved(average: Any, now: Any, **how: Any) -> Any:
    return moving_averages.assign_moving_average(average, now, 0.7, **{"zero_debias": False, **how})


def fused(x: Any, is_training: bool, zero_debias: bool = False) -> Any:
    """As tf.layers, Keras and slim compute it by default; the rows wait for the updates, as slim's do."""
    size = x.shape[-1]
    gamma, beta, (mean, variance) = variable("gamma", size, 1.2), variable("beta", size, 0.3), averages(size)
    if not is_training:
        return v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, EPSILON, is_training=False)[0]
    y, *now = v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPSILON, is_training=True)
    with tf.control_dependencies([moved(mean, now[0], zero_debias=zero_debias), moved(variance, now[1])]):
        return tf.identity(y)


def debiased(x: Any, is_training: bool) -> Any:
    return fused(x, is_training, zero_debias=True)


def moments(x: Any, is_training: bool) -> Any:
    """As tf.layers and slim compute what is not fused; without gamma."""
    size = x.shape[-1]
    beta, (mean, variance) = variable("beta", size, 0.3), averages(size)
    if is_training:
        now = tf.nn.moments(x, AXES)
        for average, value in zip((mean, variance), now, strict=True):
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, moved(average, value))
        mean, variance = now
    return tf.nn.batch_normalization(x, mean, variance, beta, None, EPSILON)


def by_hand(x: Any, is_training: bool) -> Any:
    """As people write it: the new average is assigned, and the rows wait for it."""
    size, decay = x.shape[-1], 0.7
    gamma, (mean, variance) = variable("gamma", size, 1.2), averages(size)
    if not is_training:
        return tf.nn.batch_normalization(x, mean, variance, None, gamma, EPSILON)
    now = tf.nn.moments(x, AXES, name="statistics")
    pairs = zip((mean, variance), now, strict=True)
    updates = [v1.assign(average, average * decay + value * (1 - decay)) for average, value in pairs]
    with tf.control_dependencies(updates):
        return tf.nn.batch_normalization(x, *now, None, gamma, EPSILON)


def of_moments(x: Any, is_training: bool) -> Any:
    """An ExponentialMovingAverage of the moments themselves."""
    now = tf.nn.moments(x, AXES, name="now")
    average = v1.train.ExponentialMovingAverage(0.7)
    update = average.apply(now)
    if not is_training:
        return tf.nn.batch_normalization(x, *map(average.average, now), None, None, EPSILON)
    with tf.control_dependencies([update]):
        return tf.nn.batch_normalization(x, *map(tf.identity, now), None, None, EPSILON)


def squares(x: Any, is_training: bool) -> Any:
    """The mean of the squares, with a decay that grows by the step, and axes that are kept."""
    size = x.shape[-1]
    mean, variance = averages(size, 1, 1, 1)
    step = v1.get_variable("step", [], initializer=v1.zeros_initializer())
    if is_training:
        now = tf.reduce_mean(x, AXES, keepdims=True)
        spread = tf.reduce_mean(x * x, AXES, keepdims=True) - now * now
        decay = tf.minimum(0.9, (1 + step) / (10 + step))
        count = tf.cast(tf.size(x) // size, tf.float32)  # by which Bessel corrects a variance
        corrected = spread * (count / (count - 1))
        for average, value in ((mean, now), (variance, corrected)):
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, v1.assign_add(average, (1 - decay) * (value - average)))
        mean, variance = now, spread
    return (x - mean) / tf.sqrt(variance + EPSILON)


def with_its_own_means(x: Any, is_training: bool) -> Any:
    """Batch renormalisation: with averages in place of the statistics it would be another function."""
    y = moments(x, is_training)
    now = tf.nn.moments(x, AXES)[0]
    v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, moved(variable("other", x.shape[-1], 0.0), now))
    return y + (now - variable("renormed", x.shape[-1], 0.1)) if is_training else y


def without_averages(x: Any, _: bool) -> Any:
    return tf.nn.batch_normalization(x, *tf.nn.moments(x, AXES), None, None, EPSILON)


def net(x: Any, norm: Callable[[Any, bool], Any], is_training: bool) -> Any:
    for number in range(2):
        with v1.variable_scope(f"layer{number}", reuse=v1.AUTO_REUSE):
            kernel = v1.get_variable("w", [3, 3, 3, 3], initializer=v1.random_normal_initializer(seed=number))
            x = tf.nn.relu(norm(tf.nn.conv2d(x, kernel, 1, "SAME"), is_training))
            x = tf.nn.dropout(x, rate=0.4) if is_training else x
    return tf.nn.softmax(tf.reduce_mean(x, [1, 2]), name="prob")


def save(folder: Path, norm: Callable[[Any, bool], Any], is_resource: bool) -> np.ndarray[Any, Any]:
    """Trains and saves; returns what the graph for inference gives for the same checkpoint."""
    prefix = str(folder / "model.ckpt")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable_scope().set_use_resource(is_resource)
        prob = net(v1.placeholder(tf.float32, [None, 4, 4, 3], name="image"), norm, True)
        loss = -tf.reduce_mean(tf.math.log(prob[:, 0]))
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        session.run(v1.global_variables_initializer())
        for _ in range(3):
            session.run(train, {"image:0": ROWS})
        v1.train.Saver().save(session, prefix)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable_scope().set_use_resource(is_resource)
        net(v1.placeholder(tf.float32, [None, 4, 4, 3], name="image"), norm, False)
        v1.train.Saver().restore(session, prefix)
        return np.asarray(session.run("prob:0", {"image:0": ROWS}))


FORMS = (fused, debiased, moments, by_hand, of_moments, squares)


@pytest.mark.parametrize("is_resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("norm", FORMS, ids=lambda norm: norm.__name__)
def test_the_printed_command_gives_what_the_graph_for_inference_gives(
    norm: Callable[[Any, bool], Any], is_resource: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, pb = save(tmp_path, norm, is_resource), tmp_path / "model.pb"
    with pytest.raises(FreezeError) as caught:
        pipeline.freeze(tmp_path, ["prob"], to=pb)
    [command] = re.findall(r"The whole command: (.* --inference .*)", str(caught.value))
    assert cli.main([*shlex.split(command)[3:], "-o", str(pb)]) == 0
    assert "2 batch norms take their moving averages and 2 dropouts pass on all" in capsys.readouterr().out
    given = small_graphs.answer(pb, {"image:0": ROWS}, "prob:0")
    assert np.allclose(given, wanted, rtol=1e-4, atol=1e-6)


def test_the_reference_is_the_same_graph_and_the_signature_tells_what_was_rewritten(tmp_path: Path) -> None:
    wanted = save(tmp_path, by_hand, is_resource=True)
    job = jobs.imported_job(tmp_path / "out", tmp_path / "model.ckpt", outputs=("prob",), inference=True)
    Chain(job).build("checkpoint")
    folder = job.folder("checkpoint")
    assert read_origin(folder / SIGNATURE_FILE)["inference"] == {"batch_norms": 2, "dropouts": 2}
    runner = open_runner(folder, Signature.read(folder / SIGNATURE_FILE), 1)
    for rows in (ROWS, ROWS[:1]):  # twice: what an update would change is not changed
        given = runner.run({"image": rows})["prob"]
        assert np.allclose(given, wanted[: len(rows)], rtol=1e-4, atol=1e-6)
    Chain(job).build("frozen")
    given = small_graphs.answer(job.folder("frozen") / "model.pb", {"image:0": ROWS}, "prob:0")
    assert np.allclose(given, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", [with_its_own_means, without_averages], ids=lambda norm: norm.__name__)
def test_a_batch_norm_whose_statistics_are_used_otherwise_is_refused(
    norm: Callable[[Any, bool], Any], tmp_path: Path
) -> None:
    save(tmp_path, norm, is_resource=False)
    with pytest.raises(FreezeError) as caught:
        pipeline.freeze(tmp_path, ["prob"], to=tmp_path / "model.pb")
    assert "--inference" not in str(caught.value)
    with pytest.raises(FreezeError, match="takes the batch's own statistics"):
        pipeline.freeze(tmp_path, ["prob"], to=tmp_path / "model.pb", inference=True)


def test_a_graph_that_is_not_in_training_mode_has_nothing_to_rewrite(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    with pytest.raises(FreezeError, match="Leave --inference out"):
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb", inference=True)


def test_a_batch_norm_in_training_mode_that_freezes_is_noted_with_the_command(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.reshape(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")), [-1, 1, 1, 2])
        tf.reshape(moments(x, True), [-1, 2], name="z")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    notes = pipeline.freeze(tmp_path, ["z"], to=tmp_path / "model.pb").notes
    [note] = [one for one in notes if "batch norm is in training mode" in one]
    assert "--inference --outputs z" in note
