"""A graph that is widened to float32 keeps the dtypes of its inputs, whichever tensors of a node they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.compat import v1

from pipeline.formats.half_precision import HALF, widen
from pipeline.signature import Signature, TensorSpec

LEFT, RIGHT = np.float16([[1.0, 2.0]]), np.float16([[0.5, 0.25]])


def _of_placeholders() -> tuple[Any, list[str]]:
    left, right = v1.placeholder(tf.float16, [None, 2], "left"), v1.placeholder(tf.float16, [None, 2], "right")
    tf.add(left * np.float16(3.0), right, name="y")
    return {left: LEFT, right: RIGHT}, ["left:0", "right:0"]


def _of_one_node() -> tuple[Any, list[str]]:
    """As freezing leaves two tensors of one node that are inputs: `parts:0` and `parts:1`."""
    given = [v1.placeholder(tf.float16, [None, 2], f"parts/{number}") for number in range(2)]
    parts = tf.raw_ops.IdentityN(input=given, name="parts")
    tf.add(parts[0] * np.float16(3.0), parts[1], name="y")
    return dict(zip(given, (LEFT, RIGHT), strict=True)), ["parts:0", "parts:1"]


def _of_a_later_tensor() -> tuple[Any, list[str]]:
    """Only `parts:1` and another node are inputs: freezing fills `parts:0`, which nothing reads."""
    left, given = v1.placeholder(tf.float16, [None, 2], "left"), v1.placeholder(tf.float16, [None, 2], "parts/1")
    parts = tf.raw_ops.IdentityN(input=[given, given], name="parts")
    tf.add(left * np.float16(3.0), parts[1], name="y")
    return {left: LEFT, given: RIGHT}, ["left:0", "parts:1"]


@pytest.mark.parametrize("build", [_of_placeholders, _of_one_node, _of_a_later_tensor])
def test_inputs_keep_their_dtype_and_what_reads_them_is_wide(build: Any) -> None:
    with tf.Graph().as_default() as graph:
        _, fed = build()
    inputs = tuple(TensorSpec(name, "float16", (None, 2), tensor) for name, tensor in zip("ab", fed, strict=True))
    signature = Signature(inputs, (TensorSpec("y", "float16", (None, 2), "y:0"),))
    widened, told = widen(graph.as_graph_def(), signature, HALF, "TFLite")
    assert {node.op: node.attr["T"].type for node in widened.node}["Mul"] == tf.float32.as_datatype_enum
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(widened, name="")
        own = [graph.get_tensor_by_name(tensor) for tensor in fed]
        assert [tensor.dtype for tensor in own] == [tf.float16, tf.float16]
        answer = session.run(told.outputs[0].tensor_name, dict(zip(own, (LEFT, RIGHT), strict=True)))
        given = [node for node in graph.as_graph_def().node if node.op == "Placeholder"]
        assert {node.attr["dtype"].type for node in given} == {tf.float16.as_datatype_enum}
    assert answer.dtype == np.float16
    np.testing.assert_array_equal(answer, LEFT * 3 + RIGHT)
