"""The reference is fed what only a branch reads that a pin switches off: the frozen graph does without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import v1

from pipeline.formats.checkpoint import open_runner
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.signature import Signature, TensorSpec

pytestmark = pytest.mark.tensorflow
SIGNATURE = Signature(
    [TensorSpec("x", "float32", [None, 3], "x:0")], [TensorSpec("out", "float32", [None, 2], "out:0")]
)


def rate_of_dropout(mode: Any, h: Any) -> Any:
    rate = v1.placeholder(tf.float32, [], "rate")
    return v1.cond(mode, lambda: tf.nn.dropout(h, rate=rate), lambda: tf.identity(h))


def rate_without_shape(mode: Any, h: Any) -> Any:
    keep = v1.placeholder(tf.float32, name="keep")
    return v1.cond(mode, lambda: v1.nn.dropout(h, keep_prob=keep), lambda: tf.identity(h))


def labels(mode: Any, h: Any) -> Any:
    y = v1.placeholder(tf.int32, [None], "labels")
    mixed = tf.one_hot(y, 2)
    return v1.cond(mode, lambda: h + mixed, lambda: tf.identity(h))


def words(mode: Any, h: Any) -> Any:
    text = v1.placeholder(tf.string, [None], "words")
    return v1.cond(mode, lambda: h + tf.cast(tf.size(text), tf.float32), lambda: tf.identity(h))


def two_modes(mode: Any, h: Any) -> Any:
    other = v1.placeholder(tf.bool, [], "augments")
    return v1.cond(mode, lambda: tf.where(other, -h, h), lambda: tf.identity(h))


HEADS = [rate_of_dropout, rate_without_shape, labels, words, two_modes]


@pytest.mark.parametrize("is_v2", [False, True], ids=["switches", "functions"])
@pytest.mark.parametrize("head", HEADS)
def test_a_placeholder_that_no_answer_needs_is_not_asked_for(
    tmp_path: Path, head: Callable[..., Any], is_v2: bool
) -> None:
    with small_graphs.control_flow(is_v2), tf.Graph().as_default(), v1.Session() as session:
        mode, x = v1.placeholder(tf.bool, [], "is_training"), v1.placeholder(tf.float32, [None, 3], "x")
        h = small_graphs.product(x)
        tf.identity(head(mode, h), "out")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        wanted = session.run(h, {x: small_graphs.X})
    SIGNATURE.write(tmp_path / "signature.json", origin={"pins": {"is_training": "false"}})
    answers = open_runner(tmp_path, SIGNATURE, threads=1).run({"x": small_graphs.X})
    assert np.array_equal(answers["out"], wanted)
    if is_v2:
        return  # the call in place of the branch still takes it: it is an input of the frozen graph
    (tmp_path / "frozen").mkdir()
    freeze_checkpoint(tmp_path, tmp_path / "frozen")
    pb = tmp_path / "frozen" / "model.pb"
    assert np.array_equal(small_graphs.answer(pb, {"x:0": small_graphs.X}, "out:0"), wanted)
