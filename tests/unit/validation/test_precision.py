"""Precision: the bounds of an output follow what it is computed in, and a wrong candidate is still wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from faults.cases import freeze, read_graph, write_graph
from faults.models import save_checkpoint

from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.compare.precision import Precision, find_precisions, with_scales
from pipeline.validation.compare.tolerance import Tolerance, widen
from pipeline.validation.validate import validate

v1 = tf.compat.v1
SIGNATURE = Signature((TensorSpec("x", "float32", (None, 40)),), (TensorSpec("y", "float32", (None, 5)),))
ROWS = {"x": np.random.default_rng(4).normal(size=(50, 40)).astype(np.float32)}


def variable(name: str, *shape: int) -> Any:
    draw = np.random.default_rng(len(name))
    return v1.get_variable(name, initializer=(draw.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))


def dense(x: Any, dtype: Any) -> Any:
    hidden = tf.nn.relu(tf.cast(x, dtype) @ tf.cast(variable("kernel", 40, 30), dtype))
    return tf.cast(hidden @ tf.cast(variable("logits", 30, 5), dtype), tf.float32)


def in_a_function(x: Any) -> Any:
    kernel = variable("kernel", 40, 5)
    inner = tf.function(
        lambda given, weights: tf.cast(tf.cast(given, tf.float16) @ tf.cast(weights, tf.float16), "float32")
    )
    return inner(x, kernel)


def stored_in_half(x: Any) -> Any:
    return x @ tf.cast(v1.get_variable("kernel", initializer=tf.ones((40, 5), tf.float16)), tf.float32)


def beside_the_way(x: Any) -> Any:
    tf.cast(x, tf.float16) @ tf.ones((40, 5), tf.float16)
    return x @ variable("kernel", 40, 5)


@pytest.mark.parametrize(
    ("build", "dtype", "roundings"),
    [
        (lambda x: dense(x, tf.float16), "float16", 3),
        (lambda x: dense(x, tf.bfloat16), "bfloat16", 3),
        (in_a_function, "float16", 3),
        (lambda x: tf.cast(tf.cast(x[:, :5] * 2.0, tf.float16), tf.float32), "float16", 1),
        (lambda x: dense(x, tf.float32), "", 0),
        (stored_in_half, "", 0),
        (beside_the_way, "", 0),
    ],
)
def test_the_graph_says_what_an_output_is_computed_in(
    build: Callable[[Any], Any], dtype: str, roundings: int, tmp_path: Path
) -> None:
    def built(x: Any) -> dict[str, Any]:
        v1.get_variable("unused", initializer=1.0)
        return {"y": build(x)}

    checkpoint = save_checkpoint(tmp_path / "checkpoint", built, SIGNATURE, ROWS)
    found = find_precisions(checkpoint, SIGNATURE)
    assert {name: (one.dtype, one.roundings) for name, one in found.items()} == (
        {"y": (dtype, roundings)} if dtype else {}
    )


def test_a_bound_grows_with_the_root_of_the_roundings_and_with_the_output() -> None:
    half = with_scales({"y": Precision("float16", 4, "n", "MatMul")}, {"y": np.array([3.0, -3.0, np.inf], np.float32)})
    settings, bounds = ValidationSettings(tolerances="z 0 0"), Tolerance(1e-5, 1e-6)
    widened = widen(settings, bounds, "float32", "y", half["y"])
    assert (widened.rtol, widened.atol) == pytest.approx((2e-3, 6e-3))
    for dtype, output, precision in [("float32", "y", None), ("int64", "y", half["y"]), ("float32", "z", half["y"])]:
        assert widen(settings, bounds, dtype, output, precision) == bounds
    assert widen(settings, Tolerance(1.0, 1.0), "float32", "y", half["y"]) == Tolerance(1.0, 1.0)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "passed"), (1.001, "passed"), (1.05, "failed")])
def test_one_channel_off_by_a_twentieth_is_wrong_in_float16_too(factor: float, verdict: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", lambda x: {"y": dense(x, tf.float16)}, SIGNATURE, ROWS)
    candidate = freeze(checkpoint, tmp_path / "frozen")
    graph = read_graph(candidate)
    const = next(node for node in graph.node if node.name == "logits").attr["value"].tensor
    kernel = tf.make_ndarray(const).copy()
    kernel[:, 2] *= factor
    const.CopyFrom(tf.make_tensor_proto(kernel))
    write_graph(graph, candidate)
    (tmp_path / "validation").mkdir()
    settings = ValidationSettings(checks="equal,generated,stable,golden")
    found = validate("m", checkpoint, {"frozen": candidate}, settings, 1, tmp_path / "validation")
    assert found["verdict"] == verdict, found["reasons"]
    assert "y is computed in float16: from the node Cast (Cast) on" in found["notes"]["frozen"][0]
    (equal,) = [check for check in found["checks"] if check["check"] == "equal"]
    assert 1e-3 < equal["rtol"] < 2e-3
