"""Attributes that older TensorFlows do not know are left out where they have their default, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from pipeline.freezing.passes.newer_attributes import NEWER
from pipeline.freezing.run_passes import freeze_checkpoint_files
from pipeline.freezing.write.pb import write_pb

v1 = tf.compat.v1


@pytest.mark.parametrize("op", sorted(NEWER))
def test_the_defaults_are_tensorflow_s_own(op: str) -> None:
    definition = op_def_registry.get(op)
    assert definition is not None
    defaults = {attribute.name: attribute.default_value.SerializeToString() for attribute in definition.attr}
    assert {name: value.SerializeToString() for name, value in NEWER[op].items()} == {
        name: defaults[name] for name in NEWER[op]
    }


def test_a_pb_has_none_that_has_its_default_and_gives_the_same(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        given = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=np.eye(3, dtype=np.float32) * 2)
        product = tf.matmul(given, w, name="product")
        best = tf.nn.top_k(product, 2, name="best").values
        one = tf.gather_nd(best, [[0, 1], [1, 0]])
        rows = tf.map_fn(lambda row: tf.matmul(row[None], w)[0], given)
        tf.identity(tf.reduce_sum(one) + rows, name="y")
        session.run(v1.global_variables_initializer())
        wanted = session.run("y:0", {given: x})
        prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    graph_def = graph.as_graph_def()
    assert any("grad_a" in node.attr for node in graph_def.node if node.op == "MatMul")  # so there is what to leave out
    write_pb(*freeze_checkpoint_files(prefix, ["y:0", "product:0"], ["x:0"]), tmp_path / "model.pb")
    pb = v1.GraphDef.FromString((tmp_path / "model.pb").read_bytes())
    nodes = [*pb.node, *(node for function in pb.library.function for node in function.node_def)]
    assert {node.op for node in nodes} >= {"MatMul", "TopKV2", "GatherNd"}
    assert [(node.op, name) for node in nodes for name in NEWER.get(node.op, ()) if name in node.attr] == []
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(pb, name="")
        assert graph.get_operation_by_name("product").get_attr("grad_a") is False
        assert np.array_equal(session.run("y:0", {"x:0": x}), wanted)


def test_one_that_has_another_value_stays(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=np.ones((3, 1), np.float32))
        tf.raw_ops.MatMul(a=x, b=w, grad_a=True, name="y")
        indices = v1.placeholder(tf.int32, [None, 1], name="i")
        tf.raw_ops.GatherNd(params=w, indices=indices, bad_indices_policy="IGNORE", name="z")
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    write_pb(*freeze_checkpoint_files(prefix, ["y:0", "z:0"], ["x:0", "i:0"]), tmp_path / "model.pb")
    nodes = {node.name: node for node in v1.GraphDef.FromString((tmp_path / "model.pb").read_bytes()).node}
    assert nodes["y"].attr["grad_a"].b
    assert "grad_b" not in nodes["y"].attr
    assert nodes["z"].attr["bad_indices_policy"].s == b"IGNORE"
