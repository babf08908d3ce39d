"""Checkpoints of TensorFlow 2's objects: the code gives the graph, and the stored objects say which weight is which."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import jobs
import keras
import numpy as np
import pytest
import small_graphs
import tensorflow as tf

from pipeline.checkpoint.objects import keys_by_name
from pipeline.checkpoint.values import find_checkpoint
from pipeline.cli import main
from pipeline.errors import CheckpointError
from pipeline.inputs import ImportedCheckpoint
from pipeline.signature import Signature, TensorSpec
from pipeline.training.keras.adapter import NamedModel
from pipeline.training.keras.saved_model import serve, variables_of
from pipeline.training.keras.weights import load_weights, load_weights_file, require_loaded

NET = """
import keras
import tensorflow as tf

class Centre(tf.Module):
    def __init__(self):
        super().__init__()
        self.mean = tf.Variable(tf.zeros([4]), trainable=False)

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.centre, self.shift = Centre(), tf.Variable(0.0, trainable=False)
        self.net = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
        )

    def call(self, x, training=False):
        return self.net(x - self.centre.mean, training=training) + self.shift

class M:
    signature = Signature([TensorSpec("x", "float32", [None, 4])], [TensorSpec("y", "float32", [None, 2])])
    data = "rows.csv"

    def build(self):
        return Net()

    def examples(self, path):
        return Examples({"x": np.arange(40, dtype=np.float32).reshape(10, 4)})
"""
DENSE, NORM = ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")
SHAPES = [{"kernel": (4, 3), "bias": (3,)}, dict.fromkeys(NORM, (3,)), {"kernel": (3, 2), "bias": (2,)}]


def net() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(2)]
    )


def holder(**held: Any) -> tf.Module:
    module = tf.Module()
    for name, value in held.items():
        setattr(module, name, value)
    return module


def of_keras_2(
    shapes: list[dict[str, tuple[int, ...]]], names: list[str], seed: int = 1
) -> tuple[tf.Module, list[Any]]:
    """The objects of a model as Keras 2 stores them, and its weights in their order."""
    random, weights = np.random.default_rng(seed), []
    model = tf.Module()
    for number, (layer, name) in enumerate(zip(shapes, names, strict=True)):
        held = {}
        for kind, shape in layer.items():
            weights.append(random.uniform(0.5, 1.5, shape).astype("f"))
            held[kind] = tf.Variable(weights[-1], name=f"{name}/{kind}")
        setattr(model, f"layer_with_weights-{number}", holder(**held))
    return model, weights


def optimizer(weights: list[Any]) -> tf.Module:
    """An optimizer, whose slots have the shapes of the weights."""
    slots = [tf.Variable(weight * 0, name=f"Adam/m/{number}") for number, weight in enumerate(weights)]
    return holder(_iterations=tf.Variable(3), _variables=slots)


LAYERS = ["dense_6", "batch_normalization_2", "dense_7"]


@pytest.mark.parametrize("kind", ["save_weights", "Checkpoint", "other attribute"])
def test_the_weights_of_keras_2_are_found_layer_by_layer(tmp_path: Path, kind: str) -> None:
    saved, wanted = of_keras_2(SHAPES, LAYERS)
    prefix = str(tmp_path / "ck")
    if kind == "save_weights":
        saved.optimizer = optimizer(wanted)
        tf.train.Checkpoint(saved).write(prefix)
    else:
        held = {"model" if kind == "Checkpoint" else "spam_net": saved, "optimizer": optimizer(wanted)}
        prefix = tf.train.Checkpoint(**held, step=tf.Variable(7)).save(prefix)
    model = net()
    load_weights(model, find_checkpoint(prefix))
    for own, value in zip(model.get_weights(), wanted, strict=True):
        assert np.array_equal(own, value)


def test_the_objects_of_keras_3_are_found_too(tmp_path: Path) -> None:
    theirs, ours = net(), net()
    theirs.set_weights([np.random.default_rng(3).uniform(size=value.shape) for value in theirs.get_weights()])
    load_weights(ours, find_checkpoint(tf.train.Checkpoint(step=tf.Variable(1), net=theirs).save(tmp_path / "ck")))
    for own, value in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert np.array_equal(own, value)


def refused(saved: Any, tmp_path: Path) -> str:
    prefix = tf.train.Checkpoint(**saved).save(tmp_path / "ck")
    with pytest.raises(CheckpointError) as caught:
        load_weights(net(), find_checkpoint(prefix))
    return str(caught.value)


def test_what_does_not_fit_is_a_sentence_with_both_lists(tmp_path: Path) -> None:
    wider, _ = of_keras_2([{"kernel": (4, 9), "bias": (9,)}, dict.fromkeys(NORM, (9,)), SHAPES[2]], LAYERS)
    said = refused({"model": wider}, tmp_path)
    assert "the checkpoint's objects are not those of the model (got " in said
    assert "model/layer_with_weights-0/kernel [4, 9]" in said
    assert "/kernel [4, 3]" in said.partition("wanted")[2]
    longer, _ = of_keras_2([*SHAPES, {"kernel": (2, 2), "bias": (2,)}], [*LAYERS, "dense_8"])
    assert "has weights that the code lacks: model/layer_with_weights-3/bias" in refused({"model": longer}, tmp_path)


def test_of_two_objects_that_fit_none_is_guessed(tmp_path: Path) -> None:
    first, second = of_keras_2(SHAPES, LAYERS)[0], of_keras_2(SHAPES, LAYERS, seed=2)[0]
    said = refused({"net": first, "ema": second}, tmp_path)
    assert "several objects of the checkpoint could be the model (got ema, net)" in said


def test_names_that_contradict_the_order_of_the_layers_are_an_error(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="key"), keras.layers.Dense(2, name="query")]
    )
    square = {"kernel": (2, 2), "bias": (2,)}
    for names in (["key", "query"], ["dense_4", "dense_5"]):
        saved, wanted = of_keras_2([square, square], names)
        load_weights(model, find_checkpoint(tf.train.Checkpoint(model=saved).save(tmp_path / "ck")))
        assert np.array_equal(model.get_weights()[2], wanted[2])
    saved, _ = of_keras_2([square, square], ["query", "key"])
    with pytest.raises(CheckpointError, match=r"names of others: (key|query)/\w+ is where .*/(query|key)/\w+ should"):
        load_weights(model, find_checkpoint(tf.train.Checkpoint(model=saved).save(tmp_path / "ck")))


def test_a_graph_of_one_s_own_takes_them_by_the_names_or_paths_of_the_variables(tmp_path: Path) -> None:
    held = holder(w=tf.Variable([1.0, 2.0], name="dense/w"), b=tf.Variable(3.0, name="b"))
    held.other = holder(b=tf.Variable([4.0], name="b"))
    slots = holder(iter=tf.Variable(1), m=tf.Variable([0.0, 0.0], name="dense/w"))
    bundle = find_checkpoint(tf.train.Checkpoint(net=held, adam=slots).save(tmp_path / "ck"))
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert keys_by_name(bundle, {"dense/w": (2,), "b": ()}) == {"dense/w": f"net/w{value}", "b": f"net/b{value}"}
    assert keys_by_name(bundle, {"w": (2,)}) == {"w": f"net/w{value}"}
    assert keys_by_name(bundle, {"scope/dense/w": (2,), "other/b": (1,)}).keys() == {"scope/dense/w", "other/b"}
    assert keys_by_name(bundle, {"dense/w": (3,), "gone": ()}) == {}


class Centred(keras.Model):
    """A model with state that Keras does not list: in a tf.Module, in a list, and bare."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.centre, self.shift = holder(mean=tf.Variable([0.0, 0.0])), tf.Variable(0.0)
        self.parts: list[Any] = []
        self.unused = tf.Variable([0.0])
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x: Any, training: bool = False) -> Any:
        scale = self.parts[0].scale if self.parts else 1.0
        return (self.drop(self.dense(x - self.centre.mean), training=training) + self.shift) * scale


def centred(value: float = 0.0) -> tuple[NamedModel, list[tf.Variable]]:
    """A model with that value everywhere, and the variables that its outputs need."""
    model = Centred()
    if value < 0:
        model.parts = [holder(scale=tf.Variable(1.0, name="scale"))]
    named = NamedModel(model, Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32"),)))
    needed = variables_of(serve(named))
    for variable in needed:
        variable.assign(tf.fill(variable.shape, abs(value)))
    return named, needed


def test_all_that_the_outputs_need_is_loaded_and_what_the_code_lacks_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, ours = centred(3.0)[0].model, centred()
    del theirs.unused
    theirs.more = holder(w=tf.Variable([[1.0, 2.0]]), b=tf.Variable(1.0))
    prefix = tf.train.Checkpoint(model=theirs, twin=centred(4.0)[0].model.dense).save(tmp_path / "ck")
    with caplog.at_level("INFO"):
        taken = load_weights(ours[0].model, find_checkpoint(prefix), ours[1])
    assert [float(tf.reduce_max(one)) for one in ours[1]] == [3.0, 3.0, 3.0, 3.0]
    assert {"centre/mean", "shift"} < taken.keys.keys()
    assert "unused" not in taken.keys
    assert taken.left_out == ("model/more/ (2 variables)",)
    assert "left out, as the code has nothing of these names: model/more/ (2 variables)" in caplog.text


def test_a_second_model_beside_the_one_of_the_code_is_left_out(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(ema=centred(3.0)[0].model, net=centred(4.0)[0].model).save(tmp_path / "ck")
    bundle = find_checkpoint(prefix)
    (inner, needed), holding = centred(), keras.Model()
    holding.ema = inner.model
    load_weights(holding, bundle, needed)
    assert [float(tf.reduce_max(one)) for one in needed] == [3.0, 3.0, 3.0, 3.0]
    with pytest.raises(CheckpointError, match=r"could be the model \(got ema, net\).*holds it by that name \(self.ema"):
        load_weights(centred()[0].model, bundle, None)


def test_what_no_attribute_leads_to_is_refused_by_its_name(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(model=centred(-3.0)[0].model).save(tmp_path / "ck")
    named, needed = centred(-1.0)
    with pytest.raises(CheckpointError, match="the checkpoint lacks variables that the outputs need: scale"):
        load_weights(named.model, find_checkpoint(prefix), needed)


def test_a_keras_file_is_refused_for_the_variables_that_it_cannot_hold(tmp_path: Path) -> None:
    theirs, (ours, needed) = centred(3.0)[0].model, centred()
    theirs.save_weights(path := tmp_path / "w.weights.h5")
    load_weights_file(ours.model, path)
    with pytest.raises(CheckpointError, match=r"that a Keras file does not hold.*got no centre/mean, shift\)"):
        require_loaded(ours.model, needed, set(), path)
    require_loaded(ours.model, needed, {"centre/mean", "shift"}, path)


def test_the_chain_takes_them_and_without_code_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, wanted = of_keras_2(SHAPES, LAYERS)
    centre = holder(mean=tf.Variable([1.0, 2.0, 3.0, 4.0]))
    held = {"net": saved, "centre": centre, "shift": tf.Variable(100.0), "optimizer": optimizer(wanted)}
    prefix = tf.train.Checkpoint(**held).save(tmp_path / "run" / "ck")
    for command in ("freeze", "inspect"):
        assert main([command, prefix]) == 3
    said = capsys.readouterr().err
    assert (
        said.count("a checkpoint of TensorFlow 2's objects, which holds no graph (got centre/mean [4], net/layer_") == 2
    )
    assert "optimizer" not in said  # whose attributes lead to the same variables, and come before
    [options] = {options for line in said.splitlines() if (options := line.partition("--model FILE.py:CLASS ")[2])}
    assert shlex.split(options) == ["--checkpoint", prefix]
    job = jobs.job_for(tmp_path / "out", jobs.model_file(tmp_path, NET))
    job = dataclasses.replace(job, imported=ImportedCheckpoint(str(tmp_path / "run")))
    jobs.run(job, "frozen")
    kernel, bias, gamma, beta, mean, variance, last, end = wanted
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    hidden = ((rows - [1, 2, 3, 4]) @ kernel + bias - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    signature = Signature.read(job.folder("frozen") / "signature.json")
    [fed], [fetched] = ([spec.tensor_name for spec in side] for side in (signature.inputs, signature.outputs))
    answered = small_graphs.answer(job.folder("frozen") / "model.pb", {fed: rows}, fetched)
    assert np.allclose(answered, hidden @ last + end + 100, rtol=1e-5)
