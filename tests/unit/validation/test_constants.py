"""Weights of a third-party graph: found by name or by value, and reported where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import candidates
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from candidates import frozen_graph, node, renamed, scoped, write_pb
from tensorflow.python.tools import optimize_for_inference_lib
from test_audit import job_for, verdict_of

from pipeline.formats.external import import_candidate
from pipeline.inputs import Candidate
from pipeline.validation.compare.constants import is_near
from pipeline.validation.compare.weights import VariableComparison, WeightsComparison, compare_weights

v1 = tf.compat.v1
SAID = {"x": "prod/x", "y": "prod/y"}
WORDS = np.array([b"a", b"\xff\0", b""], object)


def build(x: Any) -> Any:
    """`y`, of variables of several kinds, two of which are equal."""
    made = {"w": candidates.W, "zeros": np.zeros(4, np.float32), "more/zeros": np.zeros(4, np.float32)}
    made |= {"count": np.int64([3, 4, 5, 6]), "scale": np.float32(0.7)}
    variables = {name: v1.get_variable(name, initializer=tf.constant(value)) for name, value in made.items()}
    variables["words"] = v1.get_variable("words", initializer=tf.constant(WORDS), use_resource=True)
    with tf.control_dependencies([tf.identity(variable) for variable in variables.values()]):
        return tf.multiply(x @ variables["w"], variables["scale"], name="y")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return candidates.save(tmp_path_factory.mktemp("saved") / "model.ckpt", build)


@pytest.fixture(scope="module")
def checkpoint(prefix: Path) -> Path:
    return candidates.artifact(prefix, prefix.parent / "artifact", outputs=("y",))


@pytest.fixture
def graph(prefix: Path) -> Any:
    return scoped(frozen_graph(prefix, outputs=("y",)))


def set_value(graph: Any, name: str, value: Any) -> None:
    each = node(graph, name)
    each.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    each.attr["dtype"].type = tf.as_dtype(each.attr["value"].tensor.dtype).as_datatype_enum


def compare_candidate(
    graph: Any, checkpoint: Path, folder: Path, names: dict[str, str] | None = None
) -> WeightsComparison:
    (folder / "adopted").mkdir()
    candidate = Candidate(write_pb(graph, folder / "production.pb"), "frozen", SAID if names is None else names)
    import_candidate(candidate, checkpoint, "exact", folder / "adopted")
    return compare_weights(checkpoint, folder / "adopted")


def by_name(found: WeightsComparison) -> dict[str, VariableComparison]:
    assert found.problem is None
    return {weights.name: weights for weights in found.variables}


def test_every_variable_is_found_by_its_bits_under_another_name(graph: Any, checkpoint: Path, tmp_path: Path) -> None:
    found = compare_candidate(graph, checkpoint, tmp_path)
    assert not found.absent
    weights = by_name(found)
    assert set(weights) == {"w", "zeros", "more/zeros", "count", "scale", "words"}
    assert all(each.is_equal for each in weights.values())
    assert (weights["w"].constant, weights["words"].constant) == ("prod/w", "prod/words")


def test_equal_variables_may_share_a_constant(graph: Any, checkpoint: Path, tmp_path: Path) -> None:
    for each in graph.node:
        each.input[:] = [reference.replace("prod/more/zeros", "prod/zeros") for reference in each.input]
    graph.node.remove(node(graph, "prod/more/zeros"))
    found = compare_candidate(graph, checkpoint, tmp_path)
    assert not found.absent
    assert by_name(found)["more/zeros"].constant == "prod/zeros"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w", np.nextafter(candidates.W, np.float32(9))),
        ("w", candidates.W * np.float32(1.0005)),
        ("w", np.where(np.arange(6).reshape(3, 2) == 4, np.float32(50), candidates.W)),
        ("count", np.int64([3, 4, 5, 7])),
        ("scale", np.nextafter(np.float32(0.7), np.float32(1))),
        ("words", np.array([b"a", b"\xff\1", b""], object)),
    ],
)
def test_what_is_nearly_a_constant_is_that_one_changed(
    name: str, value: Any, graph: Any, checkpoint: Path, tmp_path: Path
) -> None:
    set_value(graph, f"prod/{name}", value)
    found = compare_candidate(graph, checkpoint, tmp_path)
    assert not found.absent
    [differing] = [each for each in found.variables if not each.is_equal]
    assert differing.name == name
    assert differing.sentence().startswith(f"{name} (nearly the constant prod/{name}) differs in ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w", candidates.W[::-1].copy()),
        ("w", candidates.W.T.copy().reshape(3, 2) * 2),
        ("w", candidates.W.astype(np.float64)),
        ("w", candidates.W.reshape(2, 3)),
        ("w", np.full((3, 2), np.nan, np.float32)),
        ("count", np.int64([30, 40, 50, 60])),
        ("scale", np.float32(0.8)),
    ],
)
def test_what_is_found_nowhere_is_told_by_name(
    name: str, value: Any, graph: Any, checkpoint: Path, tmp_path: Path
) -> None:
    set_value(graph, f"prod/{name}", value)
    found = compare_candidate(graph, checkpoint, tmp_path)
    assert found.absent == [name]
    assert name not in by_name(found)
    assert all(each.is_equal for each in found.variables)


def test_a_constant_of_the_variable_s_own_name_is_it_whatever_others_hold(
    prefix: Path, checkpoint: Path, tmp_path: Path
) -> None:
    graph = frozen_graph(prefix, outputs=("y",))
    extra = graph.node.add()
    extra.CopyFrom(node(graph, "w"))
    extra.name = "copy"
    set_value(graph, "w", candidates.W[::-1].copy())
    found = compare_candidate(graph, checkpoint, tmp_path, {})
    assert not found.absent
    assert [each.name for each in found.variables if not each.is_equal] == ["w"]


def test_a_constant_that_is_another_variable_is_not_taken_for_one_nearby(
    prefix: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Three of four elements of `near` are those of `zeros`, which has its own name."""
    graph = renamed(frozen_graph(prefix, outputs=("y",)), {"more/zeros": "near"})
    set_value(graph, "near", np.float32([7, 8, 9, 10]))
    found = compare_candidate(graph, checkpoint, tmp_path, {})
    assert by_name(found)["more/zeros"].constant == "zeros"
    assert not found.absent


def test_an_unreadable_constant_is_passed_over(graph: Any, checkpoint: Path, tmp_path: Path) -> None:
    broken = graph.node.add()
    broken.CopyFrom(node(graph, "prod/w"))
    broken.name = "broken"
    broken.attr["value"].tensor.tensor_content = b"123"
    graph.node.remove(node(graph, "broken"))
    graph.node.insert(0, broken)
    found = compare_candidate(graph, checkpoint, tmp_path)
    assert by_name(found)["w"].constant == "prod/w"


def convolution(x: Any) -> None:
    draw = np.random.default_rng(2)
    image = tf.reshape(x, [-1, 3, 1, 1])
    kernel = v1.get_variable("kernel", initializer=tf.constant(draw.normal(size=(1, 1, 1, 4)).astype(np.float32)))
    names = ("gamma", "beta", "mean", "variance")
    made = [v1.get_variable(n, initializer=tf.constant(draw.uniform(0.2, 2, 4).astype(np.float32))) for n in names]
    normal, *_ = v1.nn.fused_batch_norm(tf.nn.conv2d(image, kernel, 1, "VALID"), *made, is_training=False)
    tf.reduce_sum(normal, [1, 2], name="y")


def folded_graph(prefix: Path) -> Any:
    """Prepares the frozen graph for production as other tools do: multiplies the batch norm into the kernel."""
    graph, dtype = frozen_graph(prefix, outputs=("y",)), tf.float32.as_datatype_enum
    return optimize_for_inference_lib.optimize_for_inference(graph, ["x"], ["y"], dtype)


def test_a_folded_batch_norm_is_told_and_its_outputs_decide(tmp_path: Path) -> None:
    prefix = candidates.save(tmp_path / "in" / "model.ckpt", convolution)
    place = write_pb(folded_graph(prefix), tmp_path / "production.pb")
    found = compare_candidate(folded_graph(prefix), candidates.artifact(prefix, tmp_path / "artifact"), tmp_path, {})
    assert set(found.absent) == {"kernel", "gamma", "beta", "mean", "variance"}
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "all"))
    assert verdict["verdict"] == "passed", verdict["reasons"]
    [(title, reason)] = [item for item in verdict["skipped"].items() if item[0].startswith("weights")]
    assert title == "weights of kernel, gamma, beta and 2 more"
    assert "folded into others" in reason
    asked = verdict_of(job_for(tmp_path / "out", prefix, place, "weights,equal"))
    assert asked["verdict"] == "failed"
    assert "weights was asked for" in asked["reasons"][0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "bfloat16"])
def test_nearness_is_relative_and_known_of_every_float(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    value = np.array([1e-3, 2, -3, 0.5, 7]).astype(kind)
    assert is_near(value, value + np.array([0, 0, 0, 0, 1]).astype(kind))  # most of them are the same
    assert not is_near(value, (value * kind.type(2)).astype(kind))
    assert not is_near(np.zeros(3, kind), np.ones(3, kind))
    assert not is_near(value, np.full(5, np.nan).astype(kind))
    if dtype in ("float32", "float64"):
        assert is_near(value, value * kind.type(1 + 5e-4))
        assert not is_near(value, value * kind.type(1 + 5e-3))
