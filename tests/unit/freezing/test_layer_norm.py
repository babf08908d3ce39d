"""The epsilon of a layer norm survives TensorFlow's optimizer as it starts by default, with oneDNN."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pytest
import tensorflow as tf

from pipeline.checkpoint.source import open_source
from pipeline.freezing.run_passes import freeze_checkpoint_files
from pipeline.freezing.write.pb import write_pb
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.proof.model import model_of_files
from pipeline.validation.proof.prove import compare_models
from pipeline.validation.runtimes.client import Runtime
from pipeline.validation.runtimes.requests import OpenRequest
from pipeline.workers.child import Limits

v1 = tf.compat.v1
Norm = Callable[[Any, Any, Any], Any]
X = (np.random.default_rng(3).normal(size=(4, 5, 8)) * 0.03).astype(np.float32)  # of a small variance
CONFIG = v1.ConfigProto()
CONFIG.graph_options.rewrite_options.disable_meta_optimizer = True


def moments(x: Any, scale: Any, offset: Any, epsilon: float = 1e-6, axis: int = 2) -> Any:
    """As Keras 2 and 3, tf.contrib and slim write a layer norm."""
    mean, variance = tf.nn.moments(x, [axis], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, epsilon)


def by_hand(x: Any, scale: Any, offset: Any) -> Any:
    mean = tf.reduce_mean(x, [-1], keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), [-1], keepdims=True)
    factor = tf.math.rsqrt(1e-12 + variance) * scale
    return x * factor + (offset - mean * factor)


def in_loop(x: Any, scale: Any, offset: Any) -> Any:
    def body(turn: Any, value: Any) -> Any:
        return turn + 1, moments(value, scale, offset) + x

    return v1.while_loop(lambda turn, _: turn < 3, body, [0, x])[1]


def in_function(x: Any, scale: Any, offset: Any) -> Any:
    function = tf.function(lambda *given: moments(*given, epsilon=1e-5), autograph=False)
    return function(x, scale, offset)


def as_fused(x: Any, scale: Any, offset: Any) -> Any:
    """With the optimizer's own epsilon there is nothing to keep."""
    return moments(x, scale, offset, 1e-3)


NORMS: dict[str, Norm] = {one.__name__: one for one in (moments, by_hand, in_loop, in_function, as_fused)}


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """This Python as it starts by default, whatever this process has set."""
    with Runtime(sys.executable, Limits(120)) as one:
        yield one


@pytest.mark.parametrize("name", NORMS)
def test_a_layer_norm_answers_as_its_checkpoint_does(name: str, runtime: Runtime, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session(config=CONFIG) as session:
        x = v1.placeholder(tf.float32, [None, 5, 8], name="x")
        rng = np.random.default_rng(1)
        scale, offset = (v1.get_variable(one, initializer=rng.normal(size=8).astype(np.float32)) for one in "so")
        tf.identity(NORMS[name](x, scale, offset), name="y")
        session.run(v1.global_variables_initializer())
        wanted = session.run("y:0", {x: X})
        prefix = Path(v1.train.Saver().save(session, str(tmp_path / "model.ckpt")))
    folder = tmp_path / "frozen"
    folder.mkdir()
    write_pb(*freeze_checkpoint_files(prefix, ["y:0"], ["x:0"]), folder / "model.pb")
    pb = (folder / "model.pb").read_bytes()
    assert corpus.is_same(corpus.answers_of(pb, ["y:0"], {"x:0": X}), [wanted])  # unoptimized, to the bit
    assert (b"without_dims" in pb) == (name != "as_fused")
    specs = [TensorSpec("x", "float32", [None, 5, 8])], [TensorSpec("y", "float32", [None, 5, 8])]
    Signature(*specs).write(folder / "signature.json")
    runner = runtime.open(OpenRequest.of_artifact("frozen", folder, 1), Signature.read(folder / "signature.json"))
    np.testing.assert_allclose(runner.run({"x": X})["y"], wanted, rtol=1e-4, atol=1e-4)
    sides = {"checkpoint": open_source(prefix), "candidate": open_source(folder / "model.pb")}
    models = (model_of_files(side, source, ["x:0"], ["y:0"]) for side, source in sides.items())
    assert compare_models(*models).word == "proved"
