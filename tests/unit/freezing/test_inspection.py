"""Looking into files: what they hold, without running or loading anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import small_graphs
import tensorflow as tf

import pipeline
from pipeline.checkpoint.source import open_source
from pipeline.errors import CheckpointError, FreezeError
from pipeline.freezing.freeze import prepare
from pipeline.freezing.inspection import summarise

v1 = tf.compat.v1


def trained(x: Any) -> None:
    """A model with what training leaves in a graph."""
    y = small_graphs.product(x)
    labels = v1.placeholder(tf.float32, [None, 2], name="labels")
    loss = tf.reduce_mean(v1.losses.mean_squared_error(labels, y))
    v1.train.AdamOptimizer().minimize(loss)


def test_a_checkpoint_is_told_by_its_tensors_and_its_likely_ends(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt", trained)
    found = pipeline.inspect(tmp_path)
    reader = tf.train.load_checkpoint(str(tmp_path / "model.ckpt"))
    assert {tensor.key: list(tensor.shape) for tensor in found.tensors} == reader.get_variable_to_shape_map()
    assert [tensor.size_bytes for tensor in found.tensors] == sorted(
        (t.size_bytes for t in found.tensors), reverse=True
    )
    assert found.kind == "checkpoint"
    assert found.missing == ()
    assert found.outputs[0].startswith("y: AddV2, float32 [?, 2]; feeds nothing but the loss")
    assert [sentence.split(":")[0] for sentence in found.inputs] == ["x"]
    assert found.ops["VarHandleOp"] == len(found.tensors)
    assert found.unfreezable == {}


def test_what_a_pb_cannot_hold_is_told_if_an_output_needs_it(tmp_path: Path) -> None:
    small_graphs.save(
        tmp_path / "model.ckpt", lambda x: tf.identity(small_graphs.product(tf.nn.dropout(x, 0.5)), name="out")
    )
    assert pipeline.inspect(tmp_path).unfreezable == {"RandomUniform": "draws random numbers on the way to an output"}


def test_a_variable_that_the_checkpoint_lacks_is_told(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "whole" / "model.ckpt")
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", [3, 2])
        session.run(w.initializer)
        v1.train.Saver([w]).save(session, str(tmp_path / "part" / "model.ckpt"), write_meta_graph=False)
    found = pipeline.inspect(tmp_path / "part", graph=tmp_path / "whole" / "model.ckpt.meta")
    assert found.missing == ("b",)
    assert "b is a variable of the graph" in "\n".join(found.lines())


def test_a_pb_has_no_tensors_and_a_saved_model_its_signature(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    done = pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    found = pipeline.inspect(done.path)
    assert (found.kind, found.tensors) == ("GraphDef", ())
    assert sum(constant.size_bytes for constant in found.constants) > 0
    assert not any(line.startswith("tensors") for line in found.lines())
    assert any(line.startswith(f"constants    {len(found.constants)}, ") for line in found.lines())
    assert [sentence.split(":")[0] for sentence in found.outputs] == ["y"]
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0])
    module.call = tf.function(lambda x: {"doubled": x * module.w}, [tf.TensorSpec([None, 2], tf.float32, name="x")])
    signatures = {"serving_default": module.call, "other": module.call}
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures)
    found = pipeline.inspect(tmp_path / "saved")
    assert (found.kind, found.signature) == ("SavedModel", "serving_default")
    assert found.outputs[0].startswith("doubled float32 [?, 2], tensor ")
    assert found.signatures == ("other", "serving_default")
    assert "signatures   other, serving_default" in list(found.lines())
    assert pipeline.inspect(tmp_path / "saved", signature="other").signature == "other"
    [note] = [note for note in prepare(open_source(tmp_path / "saved"), (), (), {}).notes if "signature" in note]
    assert note.endswith("the signature serving_default; there are others: other (--signature other)")
    tf.saved_model.save(module, str(tmp_path / "none obvious"), {"first": module.call, "second": module.call})
    found = pipeline.inspect(tmp_path / "none obvious")
    assert (found.signature, found.signatures) == (None, ("first", "second"))
    with pytest.raises(FreezeError, match="no such signature"):
        pipeline.inspect(tmp_path / "saved", signature="othre")


def test_long_lists_are_cut_unless_all_is_asked_for(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        small_graphs.product(x)
        for number in range(40):
            v1.get_variable(f"spare_{number}", [1])

    small_graphs.save(tmp_path / "model.ckpt", build)
    found = pipeline.inspect(tmp_path)
    assert any(line == "  and 30 more (--all)" for line in found.lines())
    whole = list(found.lines(is_whole=True))
    assert all(any(f"spare_{number}:" in line for line in whole) for number in range(40))


def test_the_command_prints_it_for_people_and_as_json(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    for_people = commands.pipeline("inspect", str(tmp_path))
    assert for_people.returncode == 0
    assert "y: AddV2, float32 [?, 2]; feeds nothing" in for_people.stdout
    for_programs = commands.pipeline("inspect", str(tmp_path), "--json")
    assert json.loads(for_programs.stdout) == json.loads(json.dumps(pipeline.inspect(tmp_path).to_dict()))
    absent = commands.pipeline("inspect", str(tmp_path / "absent"))
    assert absent.returncode == 3
    assert "no such checkpoint" in absent.stderr


def test_a_foreign_file_is_said_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(CheckpointError, match="an HTML page in place"):
        pipeline.inspect(tmp_path / "model.pb")


@pytest.mark.parametrize("kind", ["checkpoint", "SavedModel"])
def test_a_graph_is_summarised_by_its_nodes_ops_and_parameters(tmp_path: Path, kind: str) -> None:
    if kind == "checkpoint":
        small_graphs.save(tmp_path / "model.ckpt")
        sizes = tf.train.load_checkpoint(str(tmp_path / "model.ckpt")).get_variable_to_shape_map()
        expected = sum(int(np.prod(shape)) for shape in sizes.values())
    else:
        module = tf.Module()
        module.w = tf.Variable(tf.ones([3, 5]))
        module.f = tf.function(lambda x: {"y": x @ module.w}, input_signature=[tf.TensorSpec([None, 3], tf.float32)])
        tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.f.get_concrete_function()})
        expected = 15
    found = summarise(tmp_path)
    assert (found["parameters"], found["parameter_bytes"]) == (expected, 4 * expected)
    assert found["nodes"] == sum(found["ops"].values()) > 3
    assert list(found["ops"].values()) == sorted(found["ops"].values(), reverse=True)


def dense_layer_without_shapes(folder: Path) -> Path:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        hidden = tf.nn.bias_add(tf.matmul(x, np.ones((3, 5), np.float32)), np.ones(5, np.float32))
        tf.nn.softmax(hidden, name="p")
        tf.add(tf.matmul(x, np.ones((1, 3), np.float32), transpose_b=True), np.ones(4, np.float32), name="stretched")
        tf.reduce_sum(hidden, name="unknown")
    (folder / "model.ckpt.meta").write_bytes(v1.MetaGraphDef(graph_def=graph.as_graph_def()).SerializeToString())
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "model.pb"


def test_a_graph_without_variables_has_a_summary_as_an_artifact_of_the_chain_too(tmp_path: Path) -> None:
    dense_layer_without_shapes(tmp_path)
    (tmp_path / "model.pb").unlink()
    found = summarise(tmp_path)
    assert (found["ops"]["MatMul"], found["parameters"]) == (2, 0)


def test_what_a_dense_layer_ends_with_has_its_width_where_the_graph_tells_no_shapes(tmp_path: Path) -> None:
    source = open_source(dense_layer_without_shapes(tmp_path))
    model = prepare(source, ["p", "stretched", "unknown"], [], {})
    assert [spec.shape for spec in model.signature.outputs] == [(None, 5), (None, 4), None]


def test_what_holds_no_graph_has_no_summary(tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"model\.pb"):
        summarise(tmp_path / "model.pb")
