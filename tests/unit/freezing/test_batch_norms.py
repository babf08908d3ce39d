"""Batch norms that are built for training are switched to the averages that the training kept, if it kept some."""

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

import pipeline
from pipeline import cli
from pipeline.errors import FreezeError
from pipeline.formats.checkpoint import open_runner
from pipeline.graph.protos import GraphDef
from pipeline.signature import Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.tasks.chain.plan import Chain

v1 = tf.compat.v1
ROWS = np.random.default_rng(7).normal(2.0, 3.0, (5, 3)).astype(np.float32)


def updated(average: Any, now: Any, is_resource: bool) -> Any:
    """An average on its way to what it is now, as TensorFlow 1 moves it; or as people write it."""
    if is_resource:
        return tf.raw_ops.AssignSubVariableOp(resource=average.handle, value=(average - now) * 0.1)
    return v1.assign(average, average * 0.9 + now * 0.1)


def build(is_training: bool, is_resource: bool, has_averages: bool = True, keep: float = 0.8) -> None:
    """Two towers of shared weights, the second for the loss; each normalises twice."""
    for tower in range(2 if is_training else 1):
        with v1.variable_scope("net", reuse=tower > 0), v1.name_scope(f"tower_{tower}/"):
            x = v1.placeholder(tf.float32, [None, 3], name="x")
            h = tf.reshape(small_graphs.product(x), [-1, 1, 1, 2])
            for number in range(2):
                names = ("gamma", "beta", "mean", "variance")
                first = map(tf.constant, ([1.5, 0.5], [0.2, -0.1], [0.7, -1.0], [2.0, 4.0]))
                scale, offset, mean, variance = (
                    v1.get_variable(f"{name}{number}", initializer=value + number, use_resource=is_resource)
                    for name, value in zip(names, first, strict=True)
                )
                given = {} if is_training else {"mean": mean, "variance": variance}
                h, *now = v1.nn.fused_batch_norm(
                    h, scale, offset, **given, is_training=is_training, name=f"norm{number}"
                )
                for average, found in zip((mean, variance), now, strict=True) if is_training and has_averages else ():
                    v1.add_to_collection("updates", updated(average, found, is_resource))
            h = tf.reshape(h, [-1, 2])
            h = tf.nn.dropout(h, rate=1 - keep) if is_training and keep < 1 else h
            tf.nn.softmax(h @ v1.get_variable("last", [2, 2]), name="prob")


def save(prefix: Path, **how: Any) -> np.ndarray[Any, Any]:
    """Saves the graph for training; returns what the graph for inference gives for the same checkpoint."""
    with tf.Graph().as_default(), v1.Session() as session:
        build(True, **how)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
    with tf.Graph().as_default(), v1.Session() as session:
        build(False, how.get("is_resource", False))
        v1.train.Saver().restore(session, str(prefix))
        return np.asarray(session.run("tower_0/prob:0", {"tower_0/x:0": ROWS}))


@pytest.mark.parametrize("is_resource", [False, True], ids=["reference", "resource"])
def test_the_printed_command_takes_the_averages_and_switches_dropout_off(is_resource: bool, tmp_path: Path) -> None:
    wanted = save(tmp_path / "model.ckpt", is_resource=is_resource)
    pb = tmp_path / "model.pb"
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(tmp_path, ["tower_0/prob"], to=pb)
    assert "no command below changes that" not in str(caught.value)
    [command] = re.findall(r"The whole command: (.* --inference .*)", str(caught.value))
    assert cli.main([*shlex.split(command)[3:], "-o", str(pb)]) == 0
    given = small_graphs.answer(pb, {"tower_0/x:0": ROWS}, "tower_0/prob:0")
    assert np.allclose(given, wanted, rtol=1e-5, atol=1e-6)
    norms = [node for node in GraphDef.FromString(pb.read_bytes()).node if node.op.startswith("FusedBatchNorm")]
    assert [node.attr["is_training"].b for node in norms] == [False, False]


def test_the_artifact_has_the_switched_graph_which_tensorflow_itself_restores(tmp_path: Path) -> None:
    wanted = save(tmp_path / "model.ckpt", is_resource=False, keep=1.0)
    pins = {f"tower_0/norm{number}": "false" for number in range(2)}
    options = ("--pin", ",".join(f"{name}={value}" for name, value in pins.items()))
    job = jobs.imported_job(
        tmp_path / "out", tmp_path / "model.ckpt", outputs=("tower_0/prob",), pins=pins, options=options
    )
    Chain(job).build("checkpoint")
    folder = job.folder("checkpoint")
    runner = open_runner(folder, Signature.read(folder / SIGNATURE_FILE), 1)
    assert np.allclose(runner.run({"tower_0/x": ROWS})["tower_0/prob"], wanted, rtol=1e-5, atol=1e-6)
    Chain(job).build("frozen")
    given = small_graphs.answer(job.folder("frozen") / "model.pb", {"tower_0/x:0": ROWS}, "tower_0/prob:0")
    assert np.allclose(given, wanted, rtol=1e-5, atol=1e-6)


def other_averages(_: Any) -> None:
    """Both averages are moved by the same statistic, so that none is known to be the mean's."""
    x = tf.reshape(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")), [-1, 1, 1, 2])
    ones = [v1.get_variable(name, initializer=tf.ones([2])) for name in ("gamma", "beta", "one", "two")]
    h, mean, _ = v1.nn.fused_batch_norm(x, ones[0], ones[1], is_training=True, name="norm")
    for average in ones[2:]:
        v1.assign_sub(average, (average - mean) * 0.1)
    tf.reshape(h, [-1, 2], name="z")


@pytest.mark.parametrize(
    ("make", "value", "said"),
    [
        (lambda: build(True, False, has_averages=False, keep=1.0), "false", "keeps no averages of its statistics"),
        (lambda: other_averages(None), "false", "keeps no averages of its statistics"),
        (lambda: build(True, False, keep=1.0), "true", "can be pinned to one value"),
    ],
)
def test_what_is_no_average_of_a_batch_norm_is_not_taken_for_one(
    make: Callable[[], None], value: str, said: str, tmp_path: Path
) -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        make()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        [name, *_] = [node.name for node in graph.as_graph_def().node if node.op.startswith("FusedBatchNorm")]
    output = "z" if name == "norm" else "tower_0/prob"
    with pytest.raises(FreezeError, match=said):
        pipeline.freeze(tmp_path, [output], pins={name: value}, to=tmp_path / "model.pb")
