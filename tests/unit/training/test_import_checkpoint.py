"""Chains that start at a third-party checkpoint: the later stages work as for a trained model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import jobs
import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import control_flow

from pipeline.data.npz import load_arrays, save_arrays
from pipeline.errors import DataError, FreezeError, StoreError
from pipeline.inputs import Candidate, DataSource, ImportedCheckpoint
from pipeline.settings import SEARCHES, CostsSettings, Settings
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.training.import_checkpoint import import_checkpoint

v1 = tf.compat.v1
STAGES = {"checkpoint", "frozen", "validation", "costs", "report"}


def job_for(root: Path, place: Path | str, data: Path | None = None, **options: Any) -> Job:
    return Job(
        source=None,
        paths=ArtifactPaths(root, "foreign"),
        data=data,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(costs=CostsSettings(seconds=0)),
        imported=ImportedCheckpoint(str(place), **options),
    )


def verdict_of(job: Job) -> dict[str, Any]:
    jobs.run(job)
    return results.read_verdict(job)


def saved_model(folder: Path) -> Path:
    """Writes a SavedModel of TensorFlow 2 with a lookup table."""
    module = tf.Module()
    module.w = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    module.table = tf.lookup.StaticHashTable(initializer, -1)

    def answer(x: Any, words: Any) -> Any:
        return {"scores": x @ module.w, "ids": module.table.lookup(words)}

    specs = [tf.TensorSpec([None, 3], tf.float32, name="x"), tf.TensorSpec([None], tf.string, name="words")]
    tf.saved_model.save(module, str(folder), {"serving_default": tf.function(answer, specs)})
    return folder


def as_prefix(folder: Path) -> Path:
    small_graphs.save(folder / "model.ckpt-7")
    return folder / "model.ckpt-7"


def as_folder(folder: Path) -> Path:
    return as_prefix(folder).parent


def as_graph_def(folder: Path) -> Path:
    small_graphs.save(folder / "model.ckpt", write_meta_graph=False)
    with tf.Graph().as_default() as graph:
        small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        tf.io.write_graph(graph, str(folder), "graph.pb", as_text=False)
    return folder


def of_the_first_format(folder: Path) -> Path:
    with tf.Graph().as_default(), v1.Session() as session:
        small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        session.run(v1.global_variables_initializer())
        folder.mkdir()
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, str(folder / "old"))
    return folder / "old"


@pytest.mark.parametrize("make", [as_prefix, as_folder, as_graph_def, of_the_first_format, saved_model])
def test_the_whole_chain_proves_a_foreign_checkpoint_frozen_right(make: Any, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", make(tmp_path / "in"))
    assert set(Chain(job).examine("report")) == STAGES
    verdict = verdict_of(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert verdict["rows"]["validation"] == 64
    assert verdict["skipped"] == {
        "golden": "no outputs were recorded when the model was trained",
        "decisions": "no output decides",
        f"{', '.join(SEARCHES)} of frozen": "its graph is proved to be the checkpoint's function, for every input",
    }
    assert (job.folder("frozen") / "model.pb").is_file()
    assert "taken over from" in (job.folder("report") / "report.html").read_text()
    assert jobs.run(job) == set()


def with_vocabulary(folder: Path, words: Sequence[str]) -> Path:
    """Writes a SavedModel whose vocabulary is an asset."""
    listed = folder.parent / f"{folder.name}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    module = tf.Module()
    module.w = tf.Variable(2.0)
    places = (tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER)
    initializer = tf.lookup.TextFileInitializer(str(listed), tf.string, places[0], tf.int64, places[1])
    module.table = tf.lookup.StaticHashTable(initializer, -1)

    def answer(x: Any) -> Any:
        return {"y": tf.cast(module.table.lookup(x), tf.float32) * module.w}

    specs = [tf.TensorSpec([None], tf.string, name="x")]
    tf.saved_model.save(module, str(folder), {"serving_default": tf.function(answer, specs)})
    return folder


def test_generated_rows_have_the_words_of_the_tables_so_that_another_vocabulary_is_found(tmp_path: Path) -> None:
    words = [f"word {number}" for number in range(100)]
    right = with_vocabulary(tmp_path / "right", words)
    words[98:] = words[:97:-1]
    wrong = with_vocabulary(tmp_path / "wrong", words)
    honest = job_for(tmp_path / "out", right)
    verdict = verdict_of(replace(honest, candidate=Candidate(wrong, "savedmodel"), formats=("savedmodel",)))
    assert verdict["verdict"] == "failed"
    assert "equal of y: 2 of" in " ".join(verdict["reasons"])


@pytest.mark.parametrize("name", ["rows.csv", "rows.npz"])
def test_a_pipe_in_place_of_rows_is_refused_and_nobody_waits_for_it(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    job = job_for(tmp_path / "out", as_prefix(tmp_path / "in"), data=tmp_path / name)
    with pytest.raises((DataError, StoreError), match="a pipe, a device or a socket"):
        jobs.run(job)


def test_other_weights_in_the_same_place_redo_the_chain(tmp_path: Path) -> None:
    prefix = as_prefix(tmp_path / "in")
    job = job_for(tmp_path / "out", prefix)
    jobs.run(job)
    pb = (job.folder("frozen") / "model.pb").read_bytes()
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.ones((3, 2), np.float32))
        b = v1.get_variable("b", initializer=np.ones(2, np.float32))
        session.run(v1.global_variables_initializer())
        v1.train.Saver([w, b]).save(session, str(prefix), write_meta_graph=False)
    assert Chain(job).examine("checkpoint")["checkpoint"].status is ArtifactStatus.STALE
    assert jobs.run(job) == STAGES
    assert (job.folder("frozen") / "model.pb").read_bytes() != pb


def test_named_outputs_inner_inputs_and_pins_reach_the_end(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        is_training = v1.placeholder(tf.bool, [], name="is_training")
        inner = tf.multiply(x, 2.0, name="inner")
        w = v1.get_variable("w", initializer=tf.constant([1.0, 2, 3]))
        mode = tf.cond(is_training, lambda: tf.nn.dropout(inner * w, 0.5), lambda: tf.tanh(inner * w))
        tf.identity(mode, name="y")

    with control_flow(True):
        small_graphs.save(tmp_path / "in" / "model.ckpt", build, {"is_training:0": False})
    named = {"inputs": ("inner",), "outputs": ("y",)}
    job = job_for(tmp_path / "out", tmp_path / "in", pins={"is_training": "false"}, **named)
    verdict = verdict_of(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    signature = json.loads((job.folder("frozen") / "signature.json").read_text())
    assert [spec["name"] for spec in signature["inputs"]] == ["inner"]
    assert signature["origin"]["pins"] == {"is_training": "false"}
    unpinned = job_for(tmp_path / "other", tmp_path / "in", **named)
    with pytest.raises(FreezeError, match="RandomUniform draws"):
        jobs.run(unpinned)


def test_a_batch_of_a_fixed_size_is_validated_in_that_size(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [3, 2], name="x")
        tf.identity(tf.reshape(x, [6]) * v1.get_variable("w", initializer=np.float32(2)), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "in" / "model.ckpt"))
    job = job_for(tmp_path / "out", tmp_path / "in")
    verdict = verdict_of(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert verdict["rows"]["validation"] % 3 == 0


def test_rows_of_one_s_own_are_validated(tmp_path: Path) -> None:
    prefix = as_prefix(tmp_path / "in")
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    save_arrays(tmp_path / "rows.npz", {"x": rows})
    job = job_for(tmp_path / "out", prefix, data=tmp_path / "rows.npz")
    assert verdict_of(job)["rows"]["validation"] == 5
    assert np.array_equal(load_arrays(job.folder("checkpoint") / "validation.npz")["input/x"], rows)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X": np.zeros((2, 3), np.float32)}, "an input is missing in the data .got no x"),
        ({"x": np.zeros((2, 3))}, "wrong dtype .got float64, wanted x float32"),
        ({"x": np.zeros((2, 3), np.float32), "z": np.zeros(2)}, "arrays that are not inputs"),
        ({"x": np.zeros((2, 3), np.float32), "labels": np.zeros(3)}, "different numbers of rows"),
    ],
)
def test_rows_that_are_not_the_inputs_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    save_arrays(tmp_path / "rows.npz", arrays)
    with pytest.raises(DataError, match=said):
        jobs.run(job_for(tmp_path / "out", as_prefix(tmp_path / "in"), data=tmp_path / "rows.npz"))


def net(x: Any, size: int, name: str) -> Any:
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        return tf.matmul(x, v1.get_variable("w", [x.shape[-1], size]))


def pairs() -> None:
    """Distances of pairs are trained; whoever has one of each pair wants its embedding."""
    a, b = (v1.placeholder(tf.float32, [None, 3], name) for name in "ab")
    same = v1.placeholder(tf.float32, [None], "same")
    embedding = tf.identity(net(a, 2, "net"), "embedding")
    distance = tf.sqrt(tf.reduce_sum(tf.square(embedding - net(b, 2, "net")), 1) + 1e-9, name="distance")
    loss = tf.reduce_mean(same * tf.square(distance) + (1 - same) * tf.square(tf.maximum(1 - distance, 0)))
    v1.train.GradientDescentOptimizer(0.1).minimize(loss)


def ranker() -> None:
    """A ranking of what is allowed, behind a net that was trained for another head."""
    sizes = {"a": 3, "allowed": 4, "y": 2}
    a, allowed, y = (v1.placeholder(tf.float32, [None, size], name) for name, size in sizes.items())
    hidden = tf.tanh(net(a, 5, "hidden"))
    v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.square(net(hidden, 2, "trained") - y)))
    means = v1.get_variable("means", [5, 4], trainable=False)
    tf.argmax(tf.multiply(tf.matmul(hidden, means), allowed, name="scores"), 1, name="best")


def two_towers() -> None:
    """The evaluation tower is found; the training tower has an input of its own."""
    a, x, y = (v1.placeholder(tf.float32, [None, size], name) for name, size in (("a", 3), ("x", 3), ("y", 2)))
    loss = tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=net(a, 2, "net"))
    v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))
    tf.nn.softmax(net(x, 2, "net"), name="answer")


@pytest.mark.parametrize(
    ("build", "names", "outputs", "said"),
    [
        (pairs, {"a": 3}, ["embedding"], "the outputs that were found need more inputs than the data has"),
        (ranker, {"a": 3, "allowed": 4}, ["scores", "best"], "it is not clear which tensors are the outputs: allowed"),
        (
            two_towers,
            {"a": 3},
            ["net/MatMul"],
            "a is a placeholder of this graph that the outputs which were found",
        ),
    ],
)
def test_the_names_of_the_rows_tell_which_outputs_need_them(
    tmp_path: Path, build: Any, names: dict[str, int], outputs: list[str], said: str
) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    save_arrays(tmp_path / "rows.npz", {name: np.ones((2, size), np.float32) for name, size in names.items()})
    place, data = str(tmp_path / "model.ckpt"), DataSource(tmp_path / "rows.npz")
    with pytest.raises((DataError, FreezeError)) as refused:
        import_checkpoint(ImportedCheckpoint(place), data, 0, tmp_path / "out")
    assert refused.value.what.startswith(said)
    assert f"The outputs that need what the data has are {', '.join(outputs)}: luigi" in (refused.value.next_step or "")
    assert f"--outputs {','.join(outputs)}" in (refused.value.next_step or "")
    (tmp_path / "done").mkdir()
    done = import_checkpoint(ImportedCheckpoint(place, outputs=tuple(outputs)), data, 0, tmp_path / "done")
    assert done["rows"] == 2


FILLED = """
class M:
    signature = Signature([TensorSpec("x", "float32", [None, 3])], [TensorSpec("y", "float32", [None, 2])])
    data = "rows.csv"
    def forward(self, inputs, training):
        w = tf.compat.v1.get_variable("w", [3, 2])
        b = tf.compat.v1.get_variable("b", [2])
        return {"y": tf.tanh(inputs["x"] @ w + b)}
    def examples(self, path):
        return Examples({"x": np.arange(12, dtype=np.float32).reshape(4, 3)})
"""


def test_a_graph_of_one_s_own_takes_somebody_else_s_weights(tmp_path: Path) -> None:
    wanted = small_graphs.save(tmp_path / "in" / "model.ckpt")
    model = jobs.model_file(tmp_path, FILLED)
    root = tmp_path / "out"
    done = commands.luigi(
        *("WriteReport", "--model", model, "--checkpoint", str(tmp_path / "in"), "--output-root", str(root)),
        *("--costs-seconds", "0"),
    )
    assert done.returncode == 0, done.stderr
    assert "verdict      passed" in done.stdout
    [folder] = [path for path in root.iterdir() if path.is_dir()]
    assert np.allclose(small_graphs.answer(folder / "frozen" / "model.pb"), np.tanh(wanted), atol=1e-6)
    (tmp_path / "other").mkdir()
    other = jobs.model_file(tmp_path / "other", FILLED.replace('"b", [2]', '"c", [2]'))
    refused = commands.luigi(
        *("FreezeModel", "--model", other, "--checkpoint", str(tmp_path / "in"), "--output-root", str(root))
    )
    assert refused.returncode == 30
    assert "the checkpoint lacks a variable of the graph" in refused.stdout


def test_luigi_takes_a_checkpoint_and_says_what_it_is_not_for(tmp_path: Path) -> None:
    prefix, root = as_prefix(tmp_path / "in"), ["--output-root", str(tmp_path / "out")]
    done = commands.luigi("FreezeModel", "--checkpoint", str(prefix), "--outputs", "y", *root)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.ckpt-7" / "frozen" / "model.pb").is_file()
    for arguments, code, said in [
        (["TrainModel", "--checkpoint", str(prefix)], 40, "has no TrainModel"),
        (["FreezeModel", "--outputs", "y"], 40, "--outputs: this is for a chain that starts at a checkpoint"),
        (["FreezeModel", "--checkpoint", str(prefix), "--warm-start", str(prefix)], 40, "nothing is trained"),
        (["FreezeModel", "--checkpoint", str(tmp_path / "absent")], 20, "no such checkpoint"),
        (["FreezeModel", "--checkpoint", str(prefix), "--outputs", "z"], 30, "z: no such tensor in the graph"),
    ]:
        refused = commands.luigi(*arguments, *root)
        assert (refused.returncode, said in refused.stdout + refused.stderr) == (code, True), refused.stdout


def test_a_checkpoint_is_named_by_its_folder_or_its_prefix_less_a_mere_version(tmp_path: Path) -> None:
    place = saved_model(tmp_path / "clicks" / "3")
    done = commands.luigi("FreezeModel", "--checkpoint", str(place), "--output-root", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "out" / "clicks" / "frozen" / "model.pb").is_file()
