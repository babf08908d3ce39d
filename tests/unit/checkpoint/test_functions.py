"""SavedModels as TF Hub and TensorFlow Serving keep them: functions without signatures, tags, numbered versions."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import pipeline
from pipeline.checkpoint.savedmodel import read_meta_graphs, read_signature
from pipeline.checkpoint.source import open_source
from pipeline.errors import CheckpointError, FreezeError
from pipeline.formats.external.detect import detect_format
from pipeline.formats.saved_functions import find_function
from pipeline.formats.savedmodel import FunctionRunner, open_saved_model
from pipeline.freezing.inspection import inspect

v1 = tf.compat.v1
W = np.arange(12, dtype="f").reshape(4, 3)
X = np.array([[1, 2, 3, 4], [5, 6, 7, 9]], "f")


class Embedding(tf.Module):
    """A module as TF Hub keeps them: called with `training` or not, and a function with a table and a constant."""

    def __init__(self) -> None:
        self.w = tf.Variable(W)
        words = tf.lookup.KeyValueTensorInitializer(["spam", "eggs"], tf.constant([1.0, 2.0]))
        self.table = tf.lookup.StaticHashTable(words, 0.0)
        self.shift = tf.constant([1.0, 2.0, 3.0])

    @tf.function
    def __call__(self, x: Any, training: bool = False) -> Any:
        return tf.nn.dropout(x @ self.w, 0.5) if training else x @ self.w

    @tf.function
    def score(self, x: Any, word: Any) -> dict[str, Any]:
        return {"logits": x @ self.w + self.shift, "by_word": (self.table.lookup(word), 2 * x)}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, one = tmp_path_factory.mktemp("hub") / "module", Embedding()
    rows = tf.TensorSpec([None, 4], tf.float32)
    for training in (True, False):
        one.__call__.get_concrete_function(rows, training=training)
    one.score.get_concrete_function(rows, tf.TensorSpec([None], tf.string))
    tf.saved_model.save(one, str(folder))
    return folder


def answers(done: pipeline.Frozen, feeds: dict[str, Any]) -> dict[str, Any]:
    assert done.signature is not None
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(done.path.read_bytes()), name="")
        fed = {spec.tensor_name: feeds[spec.name] for spec in done.signature.inputs}
        return dict(session.run({spec.name: spec.tensor_name for spec in done.signature.outputs}, fed))


def called(folder: Path, key: str, done: pipeline.Frozen, feeds: dict[str, Any]) -> dict[str, Any]:
    """What TensorFlow's own loader gives, called as validation calls it."""
    assert done.signature is not None
    loaded = tf.saved_model.load(str(folder))
    function = find_function(loaded, read_meta_graphs(folder)[1][0].rest, key)
    return dict(FunctionRunner(loaded, function, done.signature).run(feeds))


def test_the_call_of_a_module_without_signatures_is_frozen_as_for_use(module: Path, tmp_path: Path) -> None:
    done = pipeline.freeze(module, to=tmp_path)
    assert "its function __call__(x, training=False) is taken" in done.notes[0]
    assert np.array_equal(answers(done, {"x": X})["output_0"], X @ W)
    assert "--signature score" in done.notes[0]
    assert inspect(module).signature == "__call__"
    with pytest.raises(FreezeError, match="draws random numbers"):
        pipeline.freeze(module, to=tmp_path, signature="__call__/trace_0")


def test_every_function_can_be_named_and_tensorflow_calls_the_same_one(module: Path, tmp_path: Path) -> None:
    done = pipeline.freeze(module, to=tmp_path, signature="score")
    feeds = {"x": X, "word": np.array([b"eggs", b"ham"], object)}
    got = answers(done, feeds)
    wanted = {"logits": X @ W + [1, 2, 3], "by_word/0": [2.0, 0.0], "by_word/1": 2 * X}
    assert got.keys() == wanted.keys()
    assert done.signature is not None
    reference = called(module, "score", done, feeds)
    for name, value in wanted.items():
        assert np.array_equal(got[name], value)
        assert np.array_equal(reference[name], value)


def test_where_several_functions_could_be_meant_the_command_for_one_is_told(module: Path, tmp_path: Path) -> None:
    outer = tf.Module()
    outer.parts = [Embedding()]
    for part in outer.parts:
        part.score.get_concrete_function(tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.string))
        part.twice = tf.function(lambda x, y: x + y)
        part.twice.get_concrete_function(tf.TensorSpec([2], tf.float32), tf.TensorSpec([2], tf.float32))
    tf.saved_model.save(outer, str(tmp_path / "outer"))
    with pytest.raises(FreezeError, match=r"several functions \(got .*parts\.0\.score\(x, word\)") as caught:
        pipeline.freeze(tmp_path / "outer", to=tmp_path)
    keys = re.findall(r"--signature (\S+)", str(caught.value))
    assert keys
    for key in keys:
        done = pipeline.freeze(tmp_path / "outer", to=tmp_path, signature=key)
        assert done.signature is not None
        feeds: dict[str, Any] = {
            spec.name: np.ones(2, "f") if len(spec.shape or ()) == 1 else X for spec in done.signature.inputs
        }
        if "word" in feeds:
            feeds["word"] = np.array([b"spam", b"eggs"], object)
        reference = called(tmp_path / "outer", key, done, feeds)
        for name, value in answers(done, feeds).items():
            assert np.array_equal(reference[name], value)
    with pytest.raises(FreezeError, match=r"no such signature .*Did you mean 'parts\.0\.score'"):
        pipeline.freeze(tmp_path / "outer", to=tmp_path, signature="parts.0.scores")


def of_tensorflow_1(folder: Path, *tags: list[str]) -> Path:
    """A SavedModel with a graph for each set of tags; the n-th multiplies by n."""
    builder = v1.saved_model.Builder(str(folder))
    for number, names in enumerate(tags):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 4], name="x")
            y = tf.identity(x @ v1.get_variable("w", initializer=W) * (number + 1), name="y")
            session.run(v1.global_variables_initializer())
            ports = {"default": v1.saved_model.predict_signature_def({"rows": x}, {"default": y})}
            if number == 0:
                builder.add_meta_graph_and_variables(session, names, ports)
            else:
                builder.add_meta_graph(names, ports)
    builder.save()
    return folder


@pytest.mark.parametrize(
    ("tags", "factor"),
    [([["train"], []], 2), ([[], ["train"]], 1), ([[]], 1), ([["serve", "gpu"], ["serve"]], 2)],
)
def test_of_a_module_of_tensorflow_1_the_graph_for_use_is_taken(
    tmp_path: Path, tags: list[list[str]], factor: int
) -> None:
    folder = of_tensorflow_1(tmp_path / "hub", *tags)
    done = pipeline.freeze(folder, to=tmp_path)
    assert np.array_equal(answers(done, {"rows": X})["default"], X @ W * factor)
    assert ("none has the tag 'serve'" in done.notes[0]) == ("serve" not in tags[0])
    assert done.signature is not None


@pytest.mark.parametrize(("tags", "factor"), [([["b"], ["a"]], 2), ([["train"]], 1)])
def test_of_graphs_that_are_not_for_use_none_is_guessed_and_the_command_to_choose_one_works(
    tmp_path: Path, tags: list[list[str]], factor: int
) -> None:
    folder = of_tensorflow_1(tmp_path / "odd", *tags)
    with pytest.raises(CheckpointError, match=r"got tags b and a,|got tags train,") as caught:
        pipeline.freeze(folder, to=tmp_path)
    commands = sorted(line.strip() for line in str(caught.value.next_step).splitlines()[1:])
    assert [*commands] == sorted(f"python -m pipeline freeze {folder} --tags {','.join(each)}" for each in tags)
    done = pipeline.freeze(folder, to=tmp_path, tags=commands[0].partition(" --tags ")[2].split(","))
    assert np.array_equal(answers(done, {"rows": X})["default"], X @ W * factor)
    with pytest.raises(CheckpointError) as caught:  # of a candidate, for which no option tells the tags
        read_signature(folder)
    python, option, code = shlex.split(str(caught.value).partition("]: ")[2])
    assert (python, option) == ("python", "-c")
    exec(code, {})
    assert np.array_equal(answers(pipeline.freeze(folder, to=tmp_path), {"rows": X})["default"], X @ W * factor)


def test_of_numbered_versions_the_newest_is_taken_or_the_one_that_is_named(tmp_path: Path) -> None:
    made = of_tensorflow_1(tmp_path / "made", ["serve"], ["serve", "x"])
    for version in ("1", "9", "10", "temp-11"):
        shutil.copytree(made, tmp_path / "base" / version)
    source = open_source(tmp_path / "base")
    assert Path(source.path).name == "10"
    assert source.notes == (
        f"version 10 is taken, the newest of 1, 9, 10; another is given by its path: {tmp_path}/base/1",
    )
    assert Path(open_source(tmp_path / "base" / "9").path).name == "9"
    assert np.array_equal(answers(pipeline.freeze(tmp_path / "base", to=tmp_path), {"rows": X})["default"], X @ W)
    assert detect_format(tmp_path / "base").path == tmp_path / "base" / "10"


def test_a_signature_without_outputs_leaves_them_to_the_graph(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    builder = v1.saved_model.Builder(str(folder))
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        tf.matmul(x, v1.get_variable("w", initializer=W), name="y")
        session.run(v1.global_variables_initializer())
        ports = {"serving_default": v1.saved_model.predict_signature_def({"rows": x}, {"y": x})}
        ports["serving_default"].outputs.clear()
        builder.add_meta_graph_and_variables(session, ["serve"], ports)
    builder.save()
    done = pipeline.freeze(folder, to=tmp_path)
    assert "names no outputs" in done.notes[0]
    assert np.array_equal(answers(done, {"rows": X})["y"], X @ W)
    assert any("y: MatMul" in line for line in inspect(folder).outputs)
    assert done.signature is not None
    assert np.array_equal(open_saved_model(folder, None, done.signature, threads=1).run({"rows": X})["y"], X @ W)
