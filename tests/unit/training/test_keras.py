"""Keras files and SavedModels through the whole chain; the deployed model gives Keras's own outputs."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import commands
import jobs
import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.npz import load_arrays, of_kind, save_arrays
from pipeline.errors import CheckpointError, DataError, SettingError
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.inputs import ImportedCheckpoint
from pipeline.settings import CostsSettings, Settings
from pipeline.signature import Signature
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus, Manifest
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.training.keras.adapter import NamedModel
from pipeline.training.keras.saved_model import write_checkpoint

v1 = tf.compat.v1
STAGES = {"checkpoint", "frozen", "validation", "costs", "report"}


def job_for(root: Path, place: Path, data: Path | None = None, **options: Any) -> Job:
    """Makes a job that starts at a Keras file or folder."""
    return Job(
        source=None,
        paths=ArtifactPaths(root, "theirs"),
        data=data,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(costs=CostsSettings(seconds=0)),
        imported=ImportedCheckpoint(str(place), **options),
    )


def answers(pb: Path, signature: Path, rows: dict[str, Any]) -> dict[str, Any]:
    """Runs a .pb; returns its outputs by the names in signature.json."""
    told = json.loads(signature.read_text())
    names = {
        side: {spec["name"]: spec.get("tensor", f"{spec['name']}:0") for spec in told[side]}
        for side in ("inputs", "outputs")
    }
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb.read_bytes()), name="")
        return dict(session.run(names["outputs"], {names["inputs"][name]: values for name, values in rows.items()}))


# Files.


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("images", ["image"], ["probabilities"]),
        ("sequences", ["ids"], ["probability"]),
        ("pairs", ["second", "first"], ["z", "a"]),
        ("dicts", ["left", "right"], ["sum", "pair"]),
        ("halves", ["x"], ["y"]),
        ("words", ["text"], ["score"]),
    ],
)
def test_a_keras_file_goes_the_whole_chain_by_its_own_names(
    tmp_path: Path, name: str, inputs: list[str], outputs: list[str]
) -> None:
    keras_models.write(name, tmp_path / "model.keras")
    # A recurrent net is a loop with lists, in a function: each converter needs them in a form of its own.
    more = ("onnx", "tflite") if name == "sequences" else ()
    job = dataclasses.replace(job_for(tmp_path / "out", tmp_path / "model.keras"), formats=("frozen", *more))
    assert jobs.run(job) == STAGES | {*more}
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert "golden" not in verdict["skipped"]
    frozen = job.folder("frozen")
    told = json.loads((frozen / "signature.json").read_text())
    assert [[spec["name"] for spec in told[side]] for side in ("inputs", "outputs")] == [inputs, outputs]
    rows = of_kind("input", load_arrays(job.folder("checkpoint") / "validation.npz"))
    model = keras_models.made(name)
    given = [tf.constant(rows[name]) for name in inputs]
    fed = dict(zip(inputs, given, strict=True)) if name == "dicts" else given if len(given) > 1 else given[0]
    wanted = model(fed, training=False)
    named = wanted if isinstance(wanted, dict) else dict(zip(outputs, keras.tree.flatten(wanted), strict=True))
    found = answers(frozen / "model.pb", frozen / "signature.json", rows)
    for output in outputs:
        assert np.allclose(found[output], named[output], rtol=1e-3 if name == "halves" else 1e-5, atol=1e-6)


def test_a_batch_of_a_fixed_size_is_answered_in_that_size(tmp_path: Path) -> None:
    x = keras.Input(batch_shape=(3, 2), name="x")
    keras.Model(x, keras.layers.Dense(1, name="y")(keras.layers.Reshape((2,))(x))).save(tmp_path / "model.keras")
    job = job_for(tmp_path / "out", tmp_path / "model.keras")
    jobs.run(job)
    verdict = results.read_verdict(job)
    assert (verdict["verdict"], "golden" in verdict["skipped"]) == ("passed", False), verdict["reasons"]
    assert len(load_arrays(job.folder("checkpoint") / "goldens.npz")["output/y"]) == 63


def test_a_net_on_graphs_is_compared_whole_with_rows_of_its_own_and_made_up_ones(tmp_path: Path) -> None:
    nodes, edges = keras.Input((3,), name="nodes"), keras.Input(batch_shape=(2, None), dtype="int32", name="edges")
    hidden = keras.layers.Dense(4)(nodes)
    pairs = keras.ops.take(hidden, edges[0], axis=0) * keras.ops.take(hidden, edges[1], axis=0)
    keras.Model([nodes, edges], keras.layers.Dense(1, name="y")(pairs)).save(tmp_path / "model.keras")
    own = tmp_path / "rows.npz"
    np.savez(own, nodes=np.eye(5, 3, dtype=np.float32), edges=np.array([[0, 1, 4, 4], [2, 4, 3, 0]], np.int32))
    for data in (None, own):
        job = job_for(tmp_path / "out", tmp_path / "model.keras", data)
        jobs.run(job)
        verdict = results.read_verdict(job)
        assert (verdict["verdict"], "golden" in verdict["skipped"]) == ("passed", False), verdict["reasons"]
        assert json.loads((job.folder("frozen") / "signature.json").read_text())["is_whole"]
    assert load_arrays(job.folder("checkpoint") / "goldens.npz")["output/y"].shape == (1, 4, 1)


def test_the_older_form_of_a_keras_file_is_taken_too(tmp_path: Path) -> None:
    keras_models.write("images", tmp_path / "model.h5")
    job = job_for(tmp_path / "out", tmp_path / "model.h5")
    jobs.run(job)
    assert results.read_verdict(job)["verdict"] == "passed"


def test_the_same_file_gives_the_same_bytes_and_a_second_run_makes_nothing(tmp_path: Path) -> None:
    keras_models.write("words", tmp_path / "model.keras")
    digests = []
    for place in ("one", "two"):
        job = job_for(tmp_path / place, tmp_path / "model.keras")
        jobs.run(job, "frozen")
        assert jobs.run(job, "frozen") == set()
        digests.append([Manifest.read(job.folder(stage)).content_digest for stage in ("checkpoint", "frozen")])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["images", "pairs"])
def test_a_model_has_the_same_bytes_whatever_its_process_did_before(tmp_path: Path, name: str) -> None:
    # Loops and tables have numbers of their process in their names; but each export has a process of its own.
    named, pbs = NamedModel.from_own_names(keras_models.made(name)), []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_checkpoint(named, folder)
        freeze_checkpoint(folder, folder)
        pbs.append((folder / "model.pb").read_bytes())
    assert pbs[0] == pbs[1]


def test_other_weights_in_the_same_file_redo_the_chain(tmp_path: Path) -> None:
    keras_models.write("images", tmp_path / "model.keras")
    job = job_for(tmp_path / "out", tmp_path / "model.keras")
    jobs.run(job, "frozen")
    before = (job.folder("frozen") / "model.pb").read_bytes()
    model = keras_models.made("images")
    model.set_weights([value * 1.5 for value in model.get_weights()])
    model.save(tmp_path / "model.keras")
    assert Chain(job).examine("checkpoint")["checkpoint"].status is ArtifactStatus.STALE
    assert jobs.run(job, "frozen") == {"checkpoint", "frozen"}
    assert (job.folder("frozen") / "model.pb").read_bytes() != before


def test_rows_of_one_s_own_are_validated_and_wrong_ones_refused(tmp_path: Path) -> None:
    keras_models.write("sequences", tmp_path / "model.keras")
    rows = np.random.default_rng(0).integers(0, 8, (70, 5)).astype(np.int32)
    save_arrays(tmp_path / "rows.npz", {"ids": rows})
    job = job_for(tmp_path / "out", tmp_path / "model.keras", tmp_path / "rows.npz")
    jobs.run(job, "checkpoint")
    assert np.array_equal(load_arrays(job.folder("checkpoint") / "validation.npz")["input/ids"], rows)
    assert len(load_arrays(job.folder("checkpoint") / "goldens.npz")["output/probability"]) == 64
    save_arrays(tmp_path / "rows.npz", {"ids": rows.astype(np.int64)})
    with pytest.raises(DataError, match=r"wrong dtype .got int64"):
        jobs.run(job, "checkpoint")


@pytest.mark.parametrize(
    "named",
    [
        {"inputs": ("conv2d",)},
        {"outputs": ("probabilities",)},
        {"pins": {"training": "false"}},
        {"graph": Path("graph.pb")},
        {"signature": "serve"},
    ],
)
def test_names_of_tensors_are_refused_with_a_way_out(tmp_path: Path, named: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"a Keras model has its own inputs and outputs.*keras\.Model"):
        jobs.run(job_for(tmp_path / "out", tmp_path / "model.keras", **named))


# What is no such file.


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def cut_off_early(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"model.weights.h5") + 700] ^= 1
    path.write_bytes(content)


def without_weights(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)


def without_config(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", weights)


def nonsense(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b'{"class_name": 7}' if name == "config.json" else content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_off, "the file is cut off"),
        (cut_off_early, "the file is cut off"),
        (flipped, "the archive is damaged .got wrong bytes in model.weights.h5"),
        (without_weights, "not a Keras model's archive .got no model.weights.h5"),
        (without_config, "not a Keras model's archive .got no config.json"),
        (nonsense, "Keras cannot load the file"),
        (lambda path: path.write_bytes(b""), "an empty file in place of"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "an HTML page in place of"),
        (lambda path: path.write_bytes(b"\x07" * 5000), "not a Keras file, or a damaged one"),
        (lambda path: path.unlink(), "a file of the checkpoint is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "the file cannot be read"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path: Path, spoil: Any, said: str) -> None:
    keras_models.write("images", tmp_path / "model.keras")
    spoil(tmp_path / "model.keras")
    job = job_for(tmp_path / "out", tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match=said):
        jobs.run(job)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".locks" not in path.parts] == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(cut_off, "the file is damaged or cut off"), (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "damaged")],
)
def test_an_hdf5_file_that_is_not_whole_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    keras_models.write("images", tmp_path / "model.h5")
    spoil(tmp_path / "model.h5")
    with pytest.raises(CheckpointError, match=said):
        jobs.run(job_for(tmp_path / "out", tmp_path / "model.h5"))


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    keras_models.write("images", tmp_path / "m.weights.h5", "save_weights")
    with pytest.raises(CheckpointError, match=r"has only weights, and no model.*--model"):
        jobs.run(job_for(tmp_path / "out", tmp_path / "m.weights.h5"))


class Twice(keras.layers.Layer):
    """A layer that only this process knows."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


def ended(last: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2), last])


@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
def test_python_code_in_a_file_is_not_run(tmp_path: Path, file: str) -> None:
    mark = tmp_path / "ran"

    lambda_layer = keras.layers.Lambda(eval(f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"))
    ended(lambda_layer).save(tmp_path / file)
    mark.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="Python code, a Lambda layer, which is not run"):
        jobs.run(job_for(tmp_path / "out", tmp_path / file))
    assert not mark.exists()


def test_a_class_that_keras_does_not_know_is_refused_with_a_way_out(tmp_path: Path) -> None:
    ended(Twice()).save(tmp_path / "model.keras")
    with pytest.raises(
        CheckpointError, match=r"a class that is not Keras's own .got Twice.*Put Twice into a file my_layers.py"
    ):
        jobs.run(job_for(tmp_path / "out", tmp_path / "model.keras"))


def test_a_model_without_weights_has_nothing_to_freeze(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,), name="x"), keras.layers.Rescaling(2.0)]).save(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match="nothing to freeze: the model has no weights"):
        jobs.run(job_for(tmp_path / "out", tmp_path / "model.keras"))


def test_the_outputs_of_one_layer_are_numbered_and_a_shape_that_keras_infers_wrongly_is_the_graphs(
    tmp_path: Path,
) -> None:
    text, x = keras.Input((1,), dtype="string", name="text"), keras.Input((4, 2), name="x")
    words = keras.layers.TextVectorization(ngrams=2, output_mode="count", vocabulary=["a", "b", "a b"])
    states = keras.layers.LSTM(3, return_state=True, name="lstm")(x)
    scores = keras.layers.Dense(2, name="lstm_1")(words(text))  # [?, 1, 2] for Keras, [?, 2] in fact
    model = keras.Model([text, x], [*states, scores])
    model.save(tmp_path / "model.keras")
    job = job_for(tmp_path / "out", tmp_path / "model.keras")
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert (verdict["verdict"], "golden" in verdict["skipped"]) == ("passed", False), verdict["reasons"]
    told = Signature.read(job.folder("frozen") / "signature.json")
    assert [(spec.name, spec.shape) for spec in told.outputs] == [
        *((name, (None, 3)) for name in ("lstm", "lstm_2", "lstm_3")),
        ("lstm_1", (None, 2)),
    ]
    rows = {"text": np.array([[b"a b a"], [b"b"]], object), "x": np.ones((2, 4, 2), np.float32)}
    wanted = model([tf.constant(rows["text"]), tf.constant(rows["x"])])
    found = answers(job.folder("frozen") / "model.pb", job.folder("frozen") / "signature.json", rows)
    for spec, value in zip(told.outputs, wanted, strict=True):
        np.testing.assert_allclose(found[spec.name], value, rtol=1e-5, atol=1e-6)


def test_luigi_takes_a_keras_file_and_says_what_is_wrong_with_one(tmp_path: Path) -> None:
    keras_models.write("images", tmp_path / "clicks.keras")
    root = ["--output-root", str(tmp_path / "out"), "--costs-seconds", "0"]
    done = commands.luigi("ValidateModel", "--checkpoint", str(tmp_path / "clicks.keras"), *root)
    assert done.returncode == 0, done.stdout
    assert "verdict      passed" in done.stdout
    assert (tmp_path / "out" / "clicks" / "frozen" / "model.pb").is_file()
    cut_off(tmp_path / "clicks.keras")
    refused = commands.luigi("ValidateModel", "--checkpoint", str(tmp_path / "clicks.keras"), *root)
    assert (refused.returncode, "the file is cut off" in refused.stdout) == (30, True)


# SavedModels.


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "export") for name in keras_models.MODELS] + [("images", "saved_model"), ("words", "saved_model")],
)
def test_a_saved_model_of_a_keras_model_goes_the_whole_chain(tmp_path: Path, name: str, how: str) -> None:
    keras_models.write(name, tmp_path / "model", how)
    job = job_for(tmp_path / "out", tmp_path / "model")
    assert jobs.run(job) == STAGES
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert {check["check"] for check in verdict["checks"]} >= {"weights", "equal", "edge", "generated", "stable"}


def test_a_keras_file_passes_every_format_that_needs_nothing_more(tmp_path: Path) -> None:
    keras_models.write("images", tmp_path / "model.keras")
    job = dataclasses.replace(
        job_for(tmp_path / "out", tmp_path / "model.keras"), formats=("frozen", "mmap", "savedmodel")
    )
    jobs.run(job)
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert {check["format"] for check in verdict["checks"]} >= {*job.formats}
