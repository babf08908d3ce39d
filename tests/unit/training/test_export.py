"""Checkpoints: the one that is exported, and the ones that a training starts from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from jobs import FRUIT, PROJECT, job_for, model_file, run

from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import CheckpointError, ModelError
from pipeline.inputs import WarmStart
from pipeline.tasks.chain.job import Job
from pipeline.training.export import export_keys

v1 = tf.compat.v1
MODEL = f"{FRUIT}:Fruit"
FRUIT_VARIABLES = ["hidden/bias", "hidden/kernel", "logits/bias", "logits/kernel"]
DATA = "model.ckpt.data-00000-of-00001"

# A learning rate so small that no weight moves: what is deployed is what the training started from.
STILL = """
class M:
    signature = Signature([TensorSpec("x", "float32", [None, 2])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    labels = TensorSpec("labels", "float32", [None])

    def forward(self, inputs, training):
        w = tf.compat.v1.get_variable("w", [2], initializer=tf.ones_initializer())
        b = tf.compat.v1.get_variable("b", [], initializer=tf.ones_initializer())
        return {"y": tf.reduce_sum(inputs["x"] * w, axis=1) + b}

    def loss(self, outputs, labels):
        return tf.reduce_mean((outputs["y"] - labels) ** 2)

    def optimizer(self):
        return tf.compat.v1.train.GradientDescentOptimizer(1e-30)

    def examples(self, path):
        x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
        return Examples({"x": x}, (x @ [1.0, 2.0]).astype(np.float32))
"""


def save_variables(folder: Path, **values: Any) -> Path:
    """A checkpoint of TensorFlow's own making; `__` in a name stands for a slash."""
    folder.mkdir(exist_ok=True)
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in values.items():
            v1.get_variable(name.replace("__", "/"), initializer=tf.constant(value))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder / "model.ckpt"


def still(root: Path, prefix: Path, keys: dict[str, str] | None = None, body: str = STILL, **sections: Any) -> Job:
    """A job that starts from a checkpoint and stays there."""
    return job_for(
        root / "output",
        model_file(root, body),
        warm_start=WarmStart(prefix, keys or {}),
        **{"training": {"steps": 1}, **sections},
    )


def x_and_y(job: Job) -> tuple[np.ndarray, np.ndarray]:
    arrays = load_arrays(job.folder("training") / "deploy" / "last" / "goldens.npz")
    return of_kind("input", arrays)["x"].astype(np.float64), of_kind("output", arrays)["y"]


def notes_of(job: Job, stage: str) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads((job.folder(stage) / "manifest.json").read_text())["notes"]
    return notes


# --- the exported checkpoint ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    """A job on the fruit model, as far as its exported checkpoint; the training is shared."""
    root = tmp_path_factory.mktemp("fruit")

    def exported(last: str = "checkpoint", **export: str) -> Job:
        job = job_for(root, MODEL, export=export)
        run(job, last)
        return job

    return exported


def restored(folder: Path) -> np.ndarray:
    """What a fresh session answers on the goldens' inputs, from the checkpoint and its meta graph alone."""
    inputs = of_kind("input", load_arrays(folder / "goldens.npz"))
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(folder / "model.ckpt.meta")).restore(session, str(folder / "model.ckpt"))
        return session.run("probabilities:0", {"features:0": inputs["features"]})


def test_the_exported_checkpoint_is_the_four_files_of_a_saver(fruit: Callable[..., Job], tmp_path: Path) -> None:
    folder = fruit().folder("checkpoint")
    files = {"checkpoint", "model.ckpt.index", DATA, "model.ckpt.meta"}
    beside = {"manifest.json", "signature.json", "goldens.npz", "validation.npz"}
    assert {path.name for path in folder.iterdir()} == files | beside
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert tf.train.latest_checkpoint(str(moved)) == str(moved / "model.ckpt")
    recorded = load_arrays(folder / "goldens.npz")["output/probabilities"]
    assert np.allclose(restored(moved), recorded, rtol=1e-5, atol=1e-6)  # this process may use other kernels


def test_the_exported_checkpoint_holds_the_variables_of_inference_alone(fruit: Callable[..., Job]) -> None:
    folder = fruit().folder("checkpoint")
    assert [name for name, _ in tf.train.list_variables(str(folder / "model.ckpt"))] == FRUIT_VARIABLES
    for name in FRUIT_VARIABLES:
        last = tf.train.load_variable(str(fruit().folder("training") / "checkpoints" / "model.ckpt-40"), name)
        assert np.array_equal(tf.train.load_variable(str(folder / "model.ckpt"), name), last)
    meta = v1.MetaGraphDef()
    meta.ParseFromString((folder / "model.ckpt.meta").read_bytes())
    assert [node.name for node in meta.graph_def.node if node.op == "Placeholder"] == ["features"]
    traces = ("gradients", "Adam", "dropout", "label", "training", "global_step", "pipeline/", "Average", "loss")
    names = [*(node.name for node in meta.graph_def.node), *meta.collection_def]
    assert [name for name in names if any(trace.lower() in name.lower() for trace in traces)] == []
    assert [node.name for node in meta.graph_def.node if "Random" in node.op and "Initializer" not in node.name] == []


def test_variables_can_be_renamed_in_the_exported_checkpoint(fruit: Callable[..., Job]) -> None:
    plain = restored(fruit().folder("checkpoint"))
    before = fruit_values(fruit().folder("checkpoint"))
    job = fruit("validation", variables="hidden/kernel=logits/bias, logits/bias=hidden/kernel, logits/kernel=k,hid*s")
    folder = job.folder("checkpoint")
    after = fruit_values(folder)
    assert sorted(after) == ["hidden/bias", "hidden/kernel", "k", "logits/bias"]
    for old, new in (("hidden/kernel", "logits/bias"), ("logits/bias", "hidden/kernel"), ("logits/kernel", "k")):
        assert np.array_equal(before[old], after[new])
    assert np.array_equal(restored(folder), plain)
    assert json.loads((job.folder("validation") / "verdict.json").read_text())["verdict"] == "passed"


def fruit_values(folder: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_patterns_choose_the_exported_variables(fruit: Callable[..., Job]) -> None:
    plain = restored(fruit().folder("checkpoint"))
    folder = fruit(variables="hidden/*, *s/kernel, logits/bias").folder("checkpoint")
    assert sorted(fruit_values(folder)) == FRUIT_VARIABLES
    assert np.array_equal(restored(folder), plain)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("hiden/kernel=k,*", ["got hiden/kernel", "'hidden/kernel'"]),
        ("*,logit/*", ["got logit/*", "'logits/"]),
        ("hidden/*,logits/bias=hidden/bias,logits/kernel", ["same key", "logits/bias=hidden/bias"]),
        ("hidden/*,logits/bias", ["logits/kernel"]),
    ],
    ids=["unknown name", "unknown pattern", "a key twice", "one left out"],
)
def test_an_export_that_cannot_be_whole_is_refused(fruit: Callable[..., Job], variables: str, words: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        fruit(variables=variables)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_all_exports_every_variable_under_its_own_name() -> None:
    assert export_keys("all", ["b", "a/c"]) == {"a/c": "a/c", "b": "b"}
    assert export_keys("*, a/c=d", ["b", "a/c"]) == {"a/c": "d", "b": "b"}


# --- the checkpoint that a training starts from --------------------------------------------------------------------


def test_a_warm_start_starts_from_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    outputs = []
    for number, w in enumerate(([3.0, -2.0], [3.0, -2.5])):
        prefix = save_variables(tmp_path / str(number), w=w, b=0.25, other=[1, 2])
        job = still(tmp_path, prefix)
        run(job, "training")
        x, y = x_and_y(job)
        assert np.allclose(y, x @ w + 0.25, atol=1e-5)
        assert notes_of(job, "training")["warm_start"] == {"taken": ["b", "w"], "initialized": []}
        outputs.append(y)
    assert not np.allclose(*outputs)


def test_a_warm_start_says_what_it_took_and_what_it_initialized(tmp_path: Path) -> None:
    job = still(tmp_path, save_variables(tmp_path / "a", w=[3.0, -2.0]))
    run(job, "training")
    x, y = x_and_y(job)
    assert np.allclose(y, x @ [3.0, -2.0] + 1, atol=1e-5)
    assert notes_of(job, "training")["warm_start"] == {"taken": ["w"], "initialized": ["b"]}


def test_a_warm_start_maps_names(tmp_path: Path) -> None:
    prefix = save_variables(tmp_path / "a", old__w=[3.0, -2.0], w=[9.0, 9.0], b=0.5)
    job = still(tmp_path, prefix, {"w": "old/w"})
    run(job, "training")
    x, y = x_and_y(job)
    assert np.allclose(y, x @ [3.0, -2.0] + 0.5, atol=1e-5)


def test_a_warm_start_begins_the_moving_averages_too(tmp_path: Path) -> None:
    prefix = save_variables(tmp_path / "a", w=[3.0, -2.0], b=0.5)
    job = still(tmp_path, prefix, graph={"moving_average": 0.99})
    run(job, "training")
    x, y = x_and_y(job)
    assert np.allclose(y, x @ [3.0, -2.0] + 0.5, atol=1e-5)


def test_a_pipeline_s_own_export_is_a_warm_start(fruit: Callable[..., Job], tmp_path: Path) -> None:
    started = fruit()
    folder = started.folder("checkpoint")
    job = job_for(tmp_path, MODEL, warm_start=WarmStart(folder, {}), training={"steps": 1, "batch_size": 1000})
    run(job, "training")
    assert notes_of(job, "training")["warm_start"]["taken"] == FRUIT_VARIABLES
    before, after = fruit_values(folder), tf.train.load_checkpoint(str(job.folder("training") / "deploy" / "last"))
    for name in FRUIT_VARIABLES:  # one step of Adam moves a weight by its learning rate at most
        assert np.abs(before[name] - after.get_tensor(name)).max() <= 0.0201


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte": (lambda f: flip(f / DATA, 3), "model.ckpt"),
    "data cut off": (lambda f: cut(f / DATA, 5), "model.ckpt"),
    "data empty": (lambda f: cut(f / DATA, 0), "model.ckpt"),
    "a missing shard": (
        lambda f: (f / DATA).rename(f / "model.ckpt.data-00000-of-00002"),
        "model.ckpt.data-00001-of-00002",
    ),
    "no data": (lambda f: (f / DATA).unlink(), DATA),
    "a Git LFS pointer": (
        lambda f: (f / DATA).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"),
        DATA,
    ),
    "a foreign index": (lambda f: (f / "model.ckpt.index").write_bytes(b"\x89PNG\r\n\x1a\n" * 40), "model.ckpt"),
    "an index cut off": (lambda f: cut(f / "model.ckpt.index", 60), "model.ckpt"),
    "an empty index": (lambda f: cut(f / "model.ckpt.index", 0), "model.ckpt"),
    "no index": (lambda f: (f / "model.ckpt.index").unlink(), "model.ckpt.index"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    damage, file = DAMAGES[name]
    prefix = save_variables(tmp_path / "given", w=[3.0, -2.0], b=0.25)
    damage(prefix.parent)
    job = still(tmp_path, prefix)
    with pytest.raises(CheckpointError) as caught:
        run(job, "training")
    assert str(prefix.parent / file) in str(caught.value)
    assert not job.folder("training").exists()


@pytest.mark.parametrize(
    ("values", "keys", "words"),
    [
        ({"v": [1.0, 2.0]}, {}, ["matches no variable", "given/model.ckpt", "got v", "wanted b, w"]),
        ({"w": [1.0, 2.0, 3.0]}, {}, ["given/model.ckpt, w", "float32 [3]", "float32 (2,)"]),
        ({"w": [[1.0], [2.0]]}, {}, ["given/model.ckpt, w", "float32 [2, 1]", "float32 (2,)"]),
        ({"w": [1, 2]}, {}, ["given/model.ckpt, w", "int32 [2]", "float32 (2,)"]),
        ({"b": 1.0}, {"w": "ww"}, ["lacks ww", "given/model.ckpt"]),
        ({"b": 1.0}, {"bb": "b"}, ["got bb", "mean 'b'?"]),
    ],
    ids=["nothing matches", "other size", "other rank", "other dtype", "no such key", "no such variable"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, values: dict[str, Any], keys: dict[str, str], words: list[str]
) -> None:
    job = still(tmp_path, save_variables(tmp_path / "given", **values), keys)
    with pytest.raises(CheckpointError) as caught:
        run(job, "training")
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_model_without_a_loss_refuses_a_warm_start(tmp_path: Path) -> None:
    prefix = save_variables(tmp_path / "given", b=7)
    job = job_for(
        tmp_path, "multiply_add", data=PROJECT / "data" / "multiply_add.csv", warm_start=WarmStart(prefix, {})
    )
    with pytest.raises(ModelError, match="without a loss"):
        run(job, "training")
