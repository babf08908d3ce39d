"""Batch norms that a tool folded into kernels: proved up to a bound that is said, by TensorFlow's own tool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from proof_graphs import model
from tensorflow.python.tools import optimize_for_inference_lib

from pipeline.graph.protos import GraphDef, NodeDef
from pipeline.report import gist
from pipeline.validation.proof.folded_values import compute
from pipeline.validation.proof.prove import Proof, compare_models
from pipeline.validation.results.proofs import proofs_of

v1 = tf.compat.v1
DICE = np.random.default_rng(5)
X = DICE.normal(size=(2, 5, 5, 3)).astype(np.float32)


def network(kind: str, is_training: bool = False, with_bias: bool = False) -> Any:
    """A convolution, perhaps with a bias, and a batch norm, as a GraphDef."""
    kernel = DICE.normal(size=(3, 3, 3, 4 if kind == "conv2d" else 2)).astype(np.float32)
    channels = 4 if kind == "conv2d" else 6
    scale, offset, mean = (DICE.normal(size=channels).astype(np.float32) for _ in range(3))
    variance = DICE.uniform(0.1, 2, channels).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 5, 5, 3], name="x")
        convolve = tf.nn.conv2d if kind == "conv2d" else tf.nn.depthwise_conv2d
        found = convolve(x, kernel, [1, 1, 1, 1], "SAME")
        found = tf.nn.bias_add(found, DICE.normal(size=channels).astype(np.float32)) if with_bias else found
        given = (mean, variance) if not is_training else (None, None)
        norm = v1.nn.fused_batch_norm(found, scale, offset, *given, is_training=is_training)[0]
        tf.nn.relu(norm, name="y")
        return graph.as_graph_def()


def folded(graph: Any) -> Any:
    copy = v1.GraphDef.FromString(graph.SerializeToString())
    return optimize_for_inference_lib.fold_batch_norms(copy)


def nodes_of(graph: Any) -> list[NodeDef]:
    return list(GraphDef.FromString(graph.SerializeToString()).node)


def proof(one: Any, other: Any) -> Proof:
    return compare_models(model("checkpoint", nodes_of(one)), model("candidate", nodes_of(other)), compute)


def answer(graph_def: Any) -> Any:
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        return session.run("y:0", {"x:0": X})


@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("kind", ["conv2d", "depthwise"])
def test_a_folded_batch_norm_is_proved_up_to_a_bound_that_is_said(kind: str, with_bias: bool) -> None:
    graph = network(kind, with_bias=with_bias)
    other = folded(graph)
    assert not [node for node in other.node if "BatchNorm" in node.op]
    found = proof(graph, other)
    assert found.word == "proved", found.reasons
    assert found.within.startswith("up to rounding: batch norms are folded into kernels")
    np.testing.assert_allclose(answer(graph), answer(other), rtol=1e-4, atol=1e-5)
    assert proof(graph, graph).within == ""


def test_the_verdict_and_the_report_say_the_bound() -> None:
    graph = network("conv2d")
    found = proof(graph, folded(graph))
    words = proofs_of({"frozen": found}, ["frozen"], [], 0)
    assert words["frozen"] == {"word": "proved", "outputs": {"y": "proved"}, "reasons": [], "within": found.within}
    [sentence] = gist.proofs({"proofs": words})
    assert sentence.endswith(f"as the checkpoint's, {found.within}")


@pytest.mark.parametrize("name", ["_weights", "_bn_offset"])
def test_a_constant_that_roundings_do_not_explain_is_not_proved(name: str) -> None:
    graph = network("conv2d")
    other = folded(graph)
    [node] = [node for node in other.node if node.name.endswith(name)]
    values = tf.make_ndarray(node.attr["value"].tensor).copy()
    values.reshape(-1)[1] *= 1 + 2.0**-19
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    assert proof(graph, other).word == "tested"


def test_a_batch_norm_in_training_is_never_folded() -> None:
    graph = network("conv2d", is_training=True)
    frozen = v1.GraphDef.FromString(graph.SerializeToString())
    [norm] = [node for node in frozen.node if "BatchNorm" in node.op]
    assert norm.attr["is_training"].b
    one = network("conv2d")
    other = folded(one)
    [norm] = [node for node in one.node if "BatchNorm" in node.op]
    norm.attr["is_training"].b = True
    assert proof(one, other).word == "tested"
