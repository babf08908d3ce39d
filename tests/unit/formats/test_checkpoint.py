"""The reference of every comparison restores what TensorFlow's own Saver restores, with its definition or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import RunnerError
from pipeline.formats.checkpoint import open_runner
from pipeline.signature import Signature, TensorSpec

v1 = tf.compat.v1
X = np.arange(8, dtype=np.float32).reshape(2, 4)
SIGNATURE = Signature((TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 2)),))


def partitioned(x: Any) -> v1.train.Saver:
    with v1.variable_scope("layer", partitioner=v1.fixed_size_partitioner(3)):
        w = v1.get_variable("w", initializer=tf.random.stateless_normal([4, 2], (1, 2)))
    tf.identity(x @ tf.convert_to_tensor(w), name="y")
    return v1.train.Saver(sharded=True)


def partitioned_resources(x: Any) -> v1.train.Saver:
    with v1.variable_scope("layer", partitioner=v1.fixed_size_partitioner(2, axis=1), use_resource=True):
        w = v1.get_variable("w", initializer=tf.random.stateless_normal([4, 2], (1, 2)))
    tf.identity(x @ tf.convert_to_tensor(w), name="y")
    return v1.train.Saver()


def renamed(x: Any) -> v1.train.Saver:
    w = v1.get_variable("w", initializer=tf.random.stateless_normal([4, 2], (1, 2)))
    tf.identity(x @ w, name="y")
    return v1.train.Saver({"old/name": w})


def with_a_metric(x: Any) -> v1.train.Saver:
    saver = renamed(x)
    v1.get_variable("total", initializer=0.0, collections=[v1.GraphKeys.LOCAL_VARIABLES])  # which no Saver saves
    return saver


def save(build: Any, folder: Path) -> Any:
    """Saves a model whose graph lost the Saver's definition; returns what it answered."""
    SIGNATURE.write(folder / "signature.json")
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = build(v1.placeholder(tf.float32, [None, 4], name="x"))
        session.run(v1.global_variables_initializer())
        saver.save(session, str(folder / "model.ckpt"))
        alone = v1.MetaGraphDef(graph_def=graph.as_graph_def())  # as graph.pbtxt beside the checkpoint
        (folder / "model.ckpt.meta").write_bytes(alone.SerializeToString())
        return session.run("y:0", {"x:0": X})


@pytest.mark.parametrize("build", [partitioned, partitioned_resources, renamed, with_a_metric])
def test_a_graph_without_its_saver_is_restored_as_the_saver_would(build: Any, tmp_path: Path) -> None:
    expected = save(build, tmp_path)
    np.testing.assert_array_equal(open_runner(tmp_path, SIGNATURE, 1).run({"x": X})["y"], expected)


def test_a_variable_without_a_value_is_told_as_one(tmp_path: Path) -> None:
    save(partitioned, tmp_path)
    with tf.Graph().as_default(), v1.Session() as session:
        other = v1.get_variable("other", initializer=0.0)
        session.run(other.initializer)
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    with pytest.raises(RunnerError, match="a variable or a table has no value"):
        open_runner(tmp_path, SIGNATURE, 1).run({"x": X})
