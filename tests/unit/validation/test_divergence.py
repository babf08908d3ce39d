"""First node that differs: found in graphs with planted faults, and not in equal ones."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import control_flow

import pipeline
from pipeline.errors import RunnerError
from pipeline.signature import Signature
from pipeline.validation.compare.tolerance import Tolerance
from pipeline.validation.diagnosis.divergence import find_divergence
from pipeline.validation.diagnosis.node_findings import Divergence

v1 = tf.compat.v1
FLOATS = {"float32": Tolerance(1e-5, 1e-6), "float64": Tolerance(1e-12, 1e-12)}


def layers(x: Any) -> None:
    """Builds three layers, the second with a batch norm."""
    draw = np.random.default_rng(1)
    for number in range(3):
        w = v1.get_variable(f"w{number}", initializer=draw.normal(size=(3, 3)).astype(np.float32))
        x = tf.tanh(tf.matmul(x, w, name=f"product{number}"), name=f"layer{number}")
        if number == 1:
            four = tf.reshape(x, [-1, 1, 1, 3])
            ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
            normed = v1.nn.fused_batch_norm(four, ones, zeros, zeros + 0.5, ones * 2, is_training=False, name="norm")[0]
            x = tf.reshape(normed, [-1, 3])
    tf.identity(x, name="y")


def found(
    folder: Path, change: Callable[[Any], None] | None = None, build: Any = layers, outputs: tuple[str, ...] = ("y",)
) -> Divergence | None:
    """Searches a checkpoint and its changed .pb; returns None if all tensors agree."""
    small_graphs.save(folder / "model.ckpt", build)
    done = pipeline.freeze(folder, outputs, to=folder / "model.pb")
    if change is not None:
        graph = v1.GraphDef.FromString(done.path.read_bytes())
        change(graph)
        done.path.write_bytes(graph.SerializeToString())
    signature = Signature.read(folder / "signature.json")
    difference = find_divergence(folder, folder, signature, {"x": small_graphs.X}, FLOATS, 1)
    assert isinstance(difference, Divergence) or difference.compared > 3
    return difference if isinstance(difference, Divergence) else None


def node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def set_weight(name: str, index: int, value: float) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        tensor = node(graph, name).attr["value"].tensor
        values = np.frombuffer(tensor.tensor_content, np.float32).copy()
        values[index] = value
        tensor.tensor_content = values.tobytes()

    return change


def test_nothing_is_found_where_nothing_differs(tmp_path: Path) -> None:
    assert found(tmp_path) is None


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_weight_is_named_with_its_element_and_values(tmp_path: Path, number: int) -> None:
    difference = found(tmp_path, set_weight(f"w{number}", 5, 9.5))
    assert difference is not None
    assert difference.variables == (f"w{number}",)
    assert difference.element == (1, 2)
    assert difference.candidate == "9.5"
    value = tf.train.load_checkpoint(str(tmp_path / "model.ckpt")).get_tensor(f"w{number}")[1, 2]
    assert difference.reference == str(value)
    assert difference.cause == f"the weights differ: variable w{number}"
    assert f"variable w{number}" in difference.sentence()


def test_an_op_that_was_exchanged_is_named(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        node(graph, "layer1").op = "Sigmoid"

    difference = found(tmp_path, change)
    assert difference is not None
    assert (difference.tensor, difference.op, difference.candidate_op) == ("layer1:0", "Tanh", "Sigmoid")
    assert difference.inputs == ("product1:0",)
    assert "a Sigmoid stands where the checkpoint has a Tanh" in difference.sentence()


def test_a_batch_norm_left_in_training_mode_is_said_so(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        norm = next(node for node in graph.node if node.op.startswith("FusedBatchNorm"))
        norm.attr["is_training"].b = True
        empty = graph.node.add(name="empty", op="Const")
        empty.attr["dtype"].type = 1
        empty.attr["value"].tensor.dtype = 1
        empty.attr["value"].tensor.tensor_shape.dim.add(size=0)
        norm.input[3:5] = ["empty", "empty"]

    difference = found(tmp_path, change)
    assert difference is not None
    assert difference.op.startswith("FusedBatchNorm")
    assert "in training mode on one side" in difference.cause


def test_a_graph_that_does_not_import_is_no_candidate(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        node(graph, "layer1").op = "NoSuchOp"

    with pytest.raises(RunnerError, match=r"not a frozen graph .*NoSuchOp"):
        found(tmp_path, change)


def flow(x: Any) -> None:
    """Builds a loop and a branch, followed by a weight."""
    w, u = (v1.get_variable(name, initializer=np.eye(3, dtype=np.float32) * 0.5) for name in "wu")
    looped = tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]
    branched = tf.cond(tf.reduce_sum(looped) > 99, lambda: looped * 2, lambda: looped + 1)
    tf.identity(branched @ u, name="y")


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_loops_and_branches_are_passed_over_and_what_follows_is_found(tmp_path: Path, is_v2: bool) -> None:
    with control_flow(is_v2):
        assert found(tmp_path / "same", None, flow) is None
        difference = found(tmp_path / "other", set_weight("u", 4, 7.0), flow)
    assert difference is not None
    assert difference.variables == ("u",)


def test_a_deep_graph_is_searched_to_its_end(tmp_path: Path) -> None:
    def deep(x: Any) -> None:
        w = v1.get_variable("w", initializer=np.float32(0.999))
        for _ in range(1000):
            x = tf.tanh(x * w)
        tf.identity(tf.sin(x, name="last"), name="y")

    def change(graph: Any) -> None:
        node(graph, "last").op = "Cos"

    difference = found(tmp_path, change, deep)
    assert difference is not None
    assert difference.tensor == "last:0"
    assert difference.compared >= 2000


def test_a_graph_of_two_thousand_products_is_searched_in_little_memory(tmp_path: Path) -> None:
    def long(x: Any) -> None:
        ws = [v1.get_variable(f"w{number}", initializer=np.eye(3, dtype=np.float32)) for number in range(250)]
        for number in range(2000):
            x = tf.tanh(tf.matmul(x, ws[number % 250], name=f"product{number}"))
        tf.identity(x, name="y")

    def change(graph: Any) -> None:
        node(graph, "product1900").attr["transpose_a"].b = True
        node(graph, "product1900").op = "MatMul"

    small_graphs.save(tmp_path / "model.ckpt", long, x=small_graphs.X[:1].repeat(3, 0))
    done = pipeline.freeze(tmp_path, ["y"], to=tmp_path / "model.pb")
    graph = v1.GraphDef.FromString(done.path.read_bytes())
    change(graph)
    done.path.write_bytes(graph.SerializeToString())
    signature = Signature.read(tmp_path / "signature.json")
    fed = {"x": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32) / 9}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    difference = find_divergence(tmp_path, tmp_path, signature, fed, FLOATS, 1)
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\n{len(graph.node)} nodes: {seconds:.1f} s, {(peak - before) / 1024:.0f} MB more")
    assert isinstance(difference, Divergence)
    assert difference.tensor == "product1900:0"
    assert difference.attributes == ("transpose_a is true, in the checkpoint false",)
    assert "product1900:0" in difference.sentence()
    assert difference.inputs[0] in difference.sentence()
    assert peak - before < 500 * 1024
