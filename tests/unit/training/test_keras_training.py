"""Keras model classes, trained by `fit`: artifacts, resuming, settings, third-party weights."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import commands
import jobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from jobs import ALL_STAGES, job_for, model_file, run

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.data.npz import load_arrays
from pipeline.errors import CheckpointError, DataError, ModelError, PipelineError, SettingError
from pipeline.formats.registry import CANDIDATES
from pipeline.formats.runner import SubprocessRunner
from pipeline.inputs import ImportedCheckpoint, WarmStart
from pipeline.signature import Signature
from pipeline.store.artifact import ArtifactStatus, Manifest
from pipeline.tasks.chain import results
from pipeline.tasks.chain.plan import Chain
from pipeline.training.models.source import find_model

DIGITS = f"{jobs.PROJECT / 'examples' / 'digits.py'}:Digits"

# Dropout draws, batch norm keeps moving statistics, Adam keeps slots: all of it must come back when it is resumed.
SMALL = """
import keras
class M:
    signature = Signature([TensorSpec("x", "float32", [None, 4])], [TensorSpec("y", "float32", [None, 3])],
                          Decision("y"))
    data = "rows.csv"
    def build(self):
        model = keras.Sequential([
            keras.Input((4,), name="x"), keras.layers.Dense(8, activation="relu"), keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3), keras.layers.Dense(3, activation="softmax", name="y")])
        model.compile(OPTIMIZER, "sparse_categorical_crossentropy")
        return model
    def examples(self, path):
        draw = np.random.default_rng(1)
        x = draw.normal(size=(120, 4)).astype(np.float32)
        return Examples({"x": x}, (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1))
"""
AVERAGED = "keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9)"
ADAM = SMALL.replace("OPTIMIZER", "'adam'")
NOT_COMPILED = re.sub(r"\n.*model\.compile.*", "", SMALL)


def weights_of(job: Any, place: str) -> dict[str, Any]:
    """Reads all tensors of a checkpoint in the training's artifact."""
    bundle = open_checkpoint(str(job.folder("training") / place))
    return {key: bundle.read(key) for key in bundle.tensors}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)


# What comes out.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trained")
    job = job_for(folder / "out", model_file(folder, ADAM), formats=("frozen", "mmap", "savedmodel"))
    assert run(job) == ALL_STAGES | {"mmap", "savedmodel"}
    return job


def test_a_keras_model_of_one_s_own_goes_the_whole_chain(trained: Any) -> None:
    verdict = results.read_verdict(trained)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert "golden" not in verdict["skipped"]
    assert verdict["metrics"]["frozen"] == verdict["metrics"]["checkpoint"]
    assert run(trained) == set()


def test_the_graph_tells_the_architecture_as_keras_does(trained: Any) -> None:
    told = json.loads((trained.folder("graph") / "model.json").read_text())
    layers = [layer["config"]["name"] for layer in told["config"]["layers"]]
    assert [layers[0], layers[-1]] == ["x", "y"]
    assert told["compile_config"]["loss"] == "sparse_categorical_crossentropy"
    assert Manifest.read(trained.folder("graph")).notes["parameters"] == 4 * 8 + 8 + 4 * 8 + 8 * 3 + 3


def test_the_training_keeps_what_it_would_go_on_with_and_what_is_deployed(trained: Any) -> None:
    folder = trained.folder("training")
    assert {path.name for path in (folder / "checkpoints").glob("*.index")} == {
        *("model.ckpt-20.index", "model.ckpt-40.index")
    }
    state, deployed = weights_of(trained, "checkpoints/model.ckpt-40"), weights_of(trained, "deploy/last/model.ckpt-40")
    assert state["adam/iteration"] == 40
    assert any("seed_generator" in key for key in state)
    assert {key.rpartition("/")[2] for key in deployed} == {
        *("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    }
    assert all(np.array_equal(state[key], value) for key, value in deployed.items())
    history = np.loadtxt(folder / "history.csv", delimiter=",", skiprows=1)
    assert history[:, 0].tolist() == [10, 20, 30, 40]
    assert history[-1, 1] < history[0, 1]
    assert list((folder / "tensorboard").glob("events.*"))


def test_the_checkpoint_answers_what_keras_recorded(trained: Any) -> None:
    folder = trained.folder("checkpoint")
    goldens = load_arrays(folder / "goldens.npz")
    with SubprocessRunner("checkpoint", folder, 2) as runner:
        answers = runner.run({"x": goldens["input/x"]})
    assert np.allclose(answers["y"], goldens["output/y"], rtol=1e-5, atol=1e-6)
    assert len(goldens["input/x"]) == 8
    # The names of the file are those of the promise, and the decision is told on.
    assert Signature.read(folder / "signature.json").decision is not None


def test_the_loss_of_each_step_is_its_own_and_not_the_mean_of_all_before(tmp_path: Path) -> None:
    # With a rate of 0 and no dropout a step's loss depends on its rows alone, and each pass has the same mean.
    still = ADAM.replace("'adam'", "keras.optimizers.SGD(0.0)").replace("Dropout(0.3)", "Dropout(0.0)")
    still = still.replace("keras.layers.BatchNormalization(),", "")
    settings = {"steps": 6, "batch_size": 200, "evaluate_every_steps": 3, "save_every_steps": 0}
    job = job_for(tmp_path / "out", model_file(tmp_path, still), training=settings)
    run(job, "training")
    losses = load_arrays(job.folder("training") / "losses.npz")["losses"]
    assert len(losses) == 6
    assert np.allclose(losses, losses[0], rtol=1e-6)
    halves = job_for(tmp_path / "two", model_file(tmp_path, still), training={**settings, "batch_size": 50})
    run(halves, "training")
    parts = load_arrays(halves.folder("training") / "losses.npz")["losses"]
    assert not np.allclose(parts[0], parts[1], rtol=1e-4)
    rows = Manifest.read(halves.folder("training")).notes["training_rows"]
    assert np.isclose((parts[0] * 50 + parts[1] * (rows - 50)) / rows, losses[0], rtol=1e-5)


# Resuming.


@pytest.fixture(scope="module")
def undisturbed_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Trains and freezes the model of SMALL, once with each optimizer."""

    @cache
    def made(optimizer: str) -> Any:
        folder = tmp_path_factory.mktemp("undisturbed")
        job = job_for(folder / "out", model_file(folder, SMALL.replace("OPTIMIZER", optimizer)))
        run(job, "frozen")
        return job

    return made


@pytest.mark.parametrize(
    ("optimizer", "stop"),
    [
        ("'adam'", 31),
        (AVERAGED, 40),  # the last is saved, and nothing deployed yet
        pytest.param("'adam'", 12, marks=pytest.mark.stress),
        pytest.param(AVERAGED, 31, marks=pytest.mark.stress),
    ],
)
def test_a_training_that_was_stopped_ends_with_the_same_weights_bit_for_bit(
    undisturbed_by: Callable[[str], Any], tmp_path: Path, optimizer: str, stop: int
) -> None:
    undisturbed, whole = undisturbed_by(optimizer), SMALL.replace("OPTIMIZER", optimizer)
    # The same code, which ends its process at a step for as long as a file is there.
    mark = tmp_path / "stop"
    mark.touch()
    ending = whole.replace(
        "        return model\n",
        f"""        import os
        class Ending(type(model.optimizer)):
            def apply(self, *args, **kwargs):
                is_due = lambda step: step == {stop} < 40 and os.path.exists({str(mark)!r})
                tf.py_function(lambda step: os._exit(9) if is_due(step) else [],
                               [self.iterations.value], [])
                return super().apply(*args, **kwargs)
            def finalize_variable_values(self, *args):
                if {stop} == 40 and os.path.exists({str(mark)!r}):
                    os._exit(9)
                super().finalize_variable_values(*args)
        model.optimizer.__class__ = Ending
        return model
""",
    )
    stopped = job_for(tmp_path / "two", model_file(tmp_path, ending))
    with pytest.raises(PipelineError, match="ended without an answer"):
        run(stopped, "training")
    [work] = (stopped.paths.work("training")).iterdir()
    assert (work / "checkpoints" / "model.ckpt-20.index").exists() is (stop > 20)
    mark.unlink()
    run(stopped, "frozen")
    for place in ("checkpoints/model.ckpt-40", "deploy/last/model.ckpt-40"):
        assert same(weights_of(undisturbed, place), weights_of(stopped, place))
    for file in ("losses.npz", "history.csv"):
        assert (undisturbed.folder("training") / file).read_bytes() == (stopped.folder("training") / file).read_bytes()
    pbs = [(job.folder("frozen") / "model.pb").read_bytes() for job in (undisturbed, stopped)]
    assert pbs[0] == pbs[1]


def test_more_steps_than_a_finished_training_had_begin_anew(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, ADAM))
    run(job, "training")
    longer = job_for(tmp_path / "out", model_file(tmp_path, ADAM), training={"steps": 50})
    assert run(longer, "training") == {"training"}
    assert weights_of(longer, "checkpoints/model.ckpt-50")["adam/iteration"] == 50


def test_averages_of_the_optimizer_are_what_is_deployed(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, SMALL.replace("OPTIMIZER", AVERAGED)))
    run(job)
    state = weights_of(job, "checkpoints/model.ckpt-40")
    deployed = weights_of(job, "deploy/last/model.ckpt-40")
    [average] = (key for key in state if "y_kernel" in key and "average" in key)
    [kernel] = (key for key in deployed if key.endswith("y/kernel"))
    assert np.array_equal(deployed[kernel], state[average])
    assert not np.array_equal(deployed[kernel], state[kernel])
    assert results.read_verdict(job)["verdict"] == "passed"


# Settings.


@pytest.mark.parametrize(
    ("section", "value", "stale"),
    [
        ("graph", {"seed": 8}, {"graph", "training", "checkpoint"}),
        ("split", {"seed": 8}, {"training"}),
        ("training", {"steps": 41}, {"training"}),
        ("export", {"step": "best"}, {"checkpoint"}),
        ("freezing", {"weights": "float16"}, {"frozen", "mmap"}),
    ],
)
def test_a_changed_setting_decides_the_stages_that_it_is_for(
    trained: Any, section: str, value: dict[str, Any], stale: set[str]
) -> None:
    changed = dataclasses.replace(getattr(trained.settings, section), **value)
    job = dataclasses.replace(trained, settings=dataclasses.replace(trained.settings, **{section: changed}))
    states = {name: state for last in ("frozen", "mmap") for name, state in Chain(job).examine(last).items()}
    assert {name for name, state in states.items() if state.status is ArtifactStatus.STALE} == stale


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"graph": {"moving_average": 0.9}}, r"\[graph\] moving_average.*use_ema=True"),
        ({"export": {"variables": "dense*"}}, r"\[export\] variables: a Keras model is exported whole"),
    ],
)
def test_a_setting_for_other_models_is_refused_at_once(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        run(job_for(tmp_path / "out", model_file(tmp_path, ADAM), **sections), "graph")


def test_a_setting_that_a_finished_training_cannot_have_is_refused_too(trained: Any) -> None:
    settings = dataclasses.replace(
        trained.settings, export=dataclasses.replace(trained.settings.export, variables="dense*")
    )
    with pytest.raises(SettingError, match="exported whole"):
        Chain(dataclasses.replace(trained, settings=settings)).build("checkpoint")


def test_a_model_that_is_not_compiled_is_trained_with_its_loss_at_the_learning_rate_of_the_settings(
    tmp_path: Path,
) -> None:
    model = model_file(tmp_path, NOT_COMPILED + '    loss = "sparse_categorical_crossentropy"\n')
    rates = []
    for rate in (0.25, 0.001):
        job = job_for(tmp_path / str(rate), model, graph={"learning_rate": rate})
        run(job, "training")
        rates.append(weights_of(job, "checkpoints/model.ckpt-40")["adam/learning_rate"])
    assert np.allclose(rates, [0.25, 0.001])


def test_a_model_without_a_loss_is_frozen_with_its_initial_values(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, NOT_COMPILED))
    run(job)
    assert results.read_verdict(job)["verdict"] == "passed"
    assert Manifest.read(job.folder("training")).notes["steps"] == 0


# What the contract asks for.


def changed(old: str, new: str) -> str:
    assert old in ADAM
    return ADAM.replace(old, new)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (changed("return model", "return 3"), "the method build returns no Keras model .got int"),
        (changed('name="y")])', 'name="y")]); model.nothing'), "has no attribute 'nothing'"),
        (
            changed('"float32", [None, 3]', '"float32", [None, 4]'),
            r"does not match its signature .got y .*3.*wanted.*4",
        ),
        (changed('"float32", [None, 4]', '"float32", [None, 5]'), "cannot be called on its signature's inputs"),
        (changed('"float32", [None, 3]', '"int64", [None, 3]'), "does not match its signature"),
        (changed("keras.layers.Dense(8", 'keras.layers.Dense(__import__("os").getpid() % 5000 + 3'), "same model"),
        (changed("def build", "def construct"), "the model has no method forward"),
    ],
)
def test_a_model_that_does_not_keep_its_contract_is_refused(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        run(job_for(tmp_path / "out", model_file(tmp_path, body), training={"steps": 1}), "checkpoint")


TWO = """
import keras
class M:
    signature = Signature([TensorSpec("b", "float32", [None, 2]), TensorSpec("a", "string", [None])],
                          [TensorSpec("p", "float32", [None, 2]), TensorSpec("q", "float32", [None, 1])], Decision("p"))
    data = "rows.csv"
    def build(self):
        text, numbers = keras.Input((), dtype="string", name="a"), keras.Input((2,), name="b")
        words = keras.layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")(text)
        hidden = keras.layers.Concatenate()([words, numbers])
        outputs = {"q": keras.layers.Dense(1)(hidden), "p": keras.layers.Dense(2, "softmax")(hidden)}
        model = keras.Model([text, numbers], outputs)
        model.compile("adam", {"p": "sparse_categorical_crossentropy"})
        return model
    def examples(self, path):
        words = np.array([b"x", b"y", b"z"] * 20, object)
        numbers = np.arange(120, dtype=np.float32).reshape(60, 2) % 7
        return Examples({"a": words, "b": numbers}, np.arange(60) % 2)
"""


def test_several_inputs_and_outputs_pair_by_name_and_the_labels_belong_to_the_one_that_decides(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, TWO))
    run(job)
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    (tmp_path / "other").mkdir()
    renamed = model_file(tmp_path / "other", TWO.replace('{"q": ', '{"r": '))
    with pytest.raises(
        ModelError, match=r"the outputs of the model are not those of its signature .got p, r, wanted p, q"
    ):
        run(job_for(tmp_path / "out", renamed), "graph")


SUBCLASSED = """
import keras
class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(5), keras.layers.Dense(1)
    def call(self, inputs, training=False):
        return {"y": self.second(self.first(inputs["a"]) * inputs["b"])}
class M:
    signature = Signature([TensorSpec("a", "float32", [None, 3]), TensorSpec("b", "float32", [None, 1])],
                          [TensorSpec("y", "float32", [None, 1])])
    data = "rows.csv"
    def build(self):
        model = Own()
        model.compile("sgd", "mse")
        return model
    def examples(self, path):
        a = np.arange(90, dtype=np.float32).reshape(30, 3) / 90
        return Examples({"a": a, "b": a[:, :1]}, a[:, 0])
"""


def test_a_class_of_one_s_own_takes_and_gives_dicts(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, SUBCLASSED))
    run(job)
    assert results.read_verdict(job)["verdict"] == "passed", results.read_verdict(job)["reasons"]


def test_a_loss_that_is_no_number_ends_the_training_with_a_sentence(tmp_path: Path) -> None:
    wild = SMALL.replace("OPTIMIZER", "keras.optimizers.SGD(1e30)")
    with pytest.raises(ModelError, match=r"the training diverged .got (validation )?loss (nan|inf)"):
        run(job_for(tmp_path / "out", model_file(tmp_path, wild)), "training")


def test_what_keras_says_of_rows_that_it_cannot_train_on_is_told(tmp_path: Path) -> None:
    beyond = ADAM.replace("(x[:, 2] > 1))", "2 * (x[:, 2] > 1))")
    with pytest.raises(ModelError, match=r"cannot train the model on these rows and labels .*is not in"):
        run(job_for(tmp_path / "out", model_file(tmp_path, beyond)), "training")


def test_data_without_labels_cannot_be_trained_on(tmp_path: Path) -> None:
    unlabelled = re.sub(r'Examples\(\{"x": x\}.*\)', 'Examples({"x": x})', ADAM)
    with pytest.raises(DataError, match="no labels to train on"):
        run(job_for(tmp_path / "out", model_file(tmp_path, unlabelled)), "training")


def test_whether_a_model_is_one_of_keras_is_known_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "never.py").write_text("raise SystemExit\nclass M:\n    def build(self): ...\n")
    assert find_model(f"{tmp_path / 'never.py'}:M").is_keras
    assert not find_model("spam").is_keras
    (tmp_path / "graph.py").write_text("class M:\n    def forward(self): ...\n    def build(self): ...\n")
    assert not find_model(f"{tmp_path / 'graph.py'}:M").is_keras
    (tmp_path / "inherited.py").write_text(
        "from pipeline.signature import Signature, TensorSpec\n"
        "class Base:\n    def build(self): ...\n"
        "class M(Base):\n    signature = Signature([TensorSpec('x', 'float32')], [TensorSpec('y', 'float32')])\n"
    )
    with pytest.raises(ModelError, match=r"no method forward.*Define build in the class itself"):
        run(job_for(tmp_path / "out", f"{tmp_path / 'inherited.py'}:M"), "graph")


# Weights from elsewhere.


def filled(folder: Path, model: str, place: Path) -> Any:
    job = job_for(folder, model)
    return dataclasses.replace(job, imported=ImportedCheckpoint(str(place)))


def small_model(folder: Path, scale: float) -> keras.Model:
    """Builds the model of SMALL with distinguishable weights."""
    space: dict[str, Any] = {}
    exec(
        "import numpy as np\nfrom pipeline.data import Examples\n"
        "from pipeline.signature import Decision, Signature, TensorSpec" + ADAM,
        space,
    )
    model = space["M"]().build()
    model.set_weights([np.full_like(value, scale) for value in model.get_weights()])
    return model


@pytest.mark.parametrize("file", ["w.weights.h5", "w.keras"])
def test_a_model_of_one_s_own_takes_the_weights_of_a_keras_file(tmp_path: Path, file: str) -> None:
    theirs = small_model(tmp_path, 0.25)
    (theirs.save_weights if file == "w.weights.h5" else theirs.save)(tmp_path / file)
    job = filled(tmp_path / "out", model_file(tmp_path, ADAM), tmp_path / file)
    assert run(job) == ALL_STAGES - {"training"}
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert "golden" not in verdict["skipped"]
    goldens = load_arrays(job.folder("checkpoint") / "goldens.npz")
    wanted = theirs(tf.constant(goldens["input/x"]), training=False)
    assert np.allclose(goldens["output/y"], wanted, atol=1e-6)
    small_model(tmp_path, 0.75).save_weights(tmp_path / "w.weights.h5")
    if file == "w.weights.h5":
        assert Chain(job).examine("checkpoint")["checkpoint"].status is ArtifactStatus.STALE


def test_a_model_of_one_s_own_takes_the_weights_of_its_training(trained: Any, tmp_path: Path) -> None:
    place = trained.folder("training") / "deploy" / "last"
    job = filled(tmp_path / "out", model_file(tmp_path, ADAM), place)
    run(job)
    assert results.read_verdict(job)["verdict"] == "passed"
    pbs = [(j.folder("frozen") / "model.pb").read_bytes() for j in (job, trained)]
    assert pbs[0] == pbs[1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "damaged or cut off"),
        (lambda path: path.write_text("<html>"), "an HTML page"),
        (lambda path: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path), "not those of"),
    ],
)
def test_weights_that_are_not_the_model_s_are_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    small_model(tmp_path, 0.25).save_weights(tmp_path / "w.weights.h5")
    spoil(tmp_path / "w.weights.h5")
    with pytest.raises(CheckpointError, match=said):
        run(filled(tmp_path / "out", model_file(tmp_path, ADAM), tmp_path / "w.weights.h5"), "checkpoint")


@pytest.mark.parametrize("place", ["w.keras", "training"])
def test_a_training_starts_from_other_weights(trained: Any, tmp_path: Path, place: str) -> None:
    small_model(tmp_path, 0.25).save(tmp_path / "w.keras")
    prefix = tmp_path / "w.keras" if place == "w.keras" else trained.folder("training") / "deploy" / "last"
    frozen_in = ADAM.replace("'adam'", "keras.optimizers.SGD(0.0)")
    model = model_file(tmp_path, frozen_in)
    job = job_for(tmp_path / "out", model, warm_start=WarmStart(prefix, {}), training={"steps": 1})
    run(job, "training")
    warm = weights_of(job, "deploy/last/model.ckpt-1")
    wanted = weights_of(trained, "deploy/last/model.ckpt-40") if place == "training" else None
    for key, value in warm.items():
        if "moving" not in key:
            assert np.array_equal(value, wanted[key] if wanted else np.full_like(value, 0.25))
    assert Manifest.read(job.folder("training")).notes["warm_start"]["taken"] == sorted(warm)


# The example.


def test_the_example_passes_every_format(tmp_path: Path) -> None:
    steps = ["--training-steps", "150", "--training-evaluate-every-steps", "150"]
    done = commands.luigi(
        *("ValidateModel", "--model", DIGITS, "--formats", ",".join(CANDIDATES), *steps),
        *("--output-root", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stdout
    [verdict] = (tmp_path / "out").glob("*/validation/verdict.json")
    metrics = json.loads(verdict.read_text())["metrics"]
    assert metrics.keys() == {"checkpoint", *CANDIDATES}
    assert all(figures["accuracy"] > 0.95 for figures in metrics.values())
