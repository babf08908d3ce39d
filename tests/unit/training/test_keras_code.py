"""A Keras file that needs code of the user's own is refused with the one command that takes it, and that works."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import CheckpointError, ModelError, PipelineError, UnsafeModel
from pipeline.settings import GraphSettings, Settings
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.chain.stages import stages_of
from pipeline.training.keras import export
from pipeline.training.keras.code import Code
from pipeline.training.keras.load import load_file
from pipeline.training.models.source import find_model, load_model

ROWS = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
OWN = """
import {library} as keras

@keras.saving.register_keras_serializable("own")
class Twice(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0

@keras.saving.register_keras_serializable("own")
class Net(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.noise, self.off = keras.layers.GaussianNoise(0.5), keras.layers.Dropout(0.5)
        self.hidden, self.last = keras.layers.Dense(4), keras.layers.Dense(2)

    def call(self, x, training=None):
        found = self.last(self.off(self.hidden(self.noise(x, training=training)), training=training))
        return {{"logits": found, "scores": found * 3.0}}
"""


def _saved(library: str, kind: str, path: Path) -> Any:
    """Writes the code and the file of a model, with layers that must be switched off; this process forgets its code."""
    folder = path.parent
    text = OWN.format(library=library)
    (folder / "own.py").write_text(text, encoding="utf-8")
    own, k = SimpleNamespace(), pytest.importorskip(library)
    exec(text, own.__dict__)
    layers, x = k.layers, k.Input((3,), name="x")
    if kind == "class":
        model = own.Net()
        model(ROWS)
    elif kind == "functions":
        inner = layers.Dropout(0.5)(own.Twice()(layers.GaussianNoise(0.5)(x)))
        model = k.Model(x, {"low": layers.Dense(1, name="a")(inner), "high": layers.Dense(1, name="b")(inner)})
    else:
        steps = [
            layers.GaussianNoise(0.5),
            own.Twice(),
            layers.Lambda(lambda one: one + tf.ones([]) * np.float32(2)),
            layers.Dropout(0.5),
        ]
        model = k.Sequential([x, *steps, layers.Dense(2, name="scores")])
    model.save(path)
    for name in ("own>Twice", "own>Net"):
        k.saving.get_custom_objects().pop(name)
    return model


def _refusal(path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> PipelineError:
    monkeypatch.setattr("sys.argv", shlex.split(command))
    with pytest.raises(PipelineError) as error:
        load_file(path)
    return error.value


def _job(command: str) -> Job:
    """Returns the job of a command that was printed."""
    words = iter(shlex.split(command)[4:])
    given = {word.removeprefix("--").replace("-", "_"): next(words) for word in words}
    return Job.from_parameters(Parameters(**given), Settings())


@pytest.mark.parametrize(
    ("library", "file", "kind", "names"),
    [
        ("keras", "net.keras", "layers", ["scores"]),
        ("keras", "net.h5", "layers", ["scores"]),
        ("keras", "net.keras", "functions", ["low", "high"]),
        ("keras", "net.keras", "class", ["logits", "scores"]),
        ("tf_keras", "net.h5", "layers", ["scores"]),
        ("tf_keras", "net.keras", "functions", ["low", "high"]),
        ("tf_keras", "net.keras", "class", ["logits", "scores"]),
    ],
)
def test_the_printed_command_takes_the_model_with_its_answers_and_names(
    library: str, file: str, kind: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command in place of an export by hand, for each kind of model and file: what only trains is off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    model = _saved(library, kind, tmp_path / file)
    start = f"luigi --module pipeline WriteReport --checkpoint {file} --output-root out"
    said = str(_refusal(tmp_path / file, start, monkeypatch))
    command = re.search(r"let it run: (luigi .*)$", said)
    assert command, said
    assert ("--allow-ops Lambda" in command[1]) == (kind == "layers")
    assert command[1].startswith(f"{start} --model own.py")
    job = _job(command[1])
    assert (job.paths.name, job.has_made_up_rows, stages_of(job)["checkpoint"].uses_model) == ("net", True, True)
    assert job.imported is not None
    found = load_file(tmp_path / file, Code.of(job.imported, job.source))
    answers = found.predict({"x": ROWS})
    wanted = model(ROWS, training=False)
    assert list(answers) == names
    for name, value in wanted.items() if isinstance(wanted, dict) else [(names[0], wanted)]:
        np.testing.assert_allclose(answers[name], value, rtol=1e-6)


def test_code_in_a_file_alone_is_allowed_by_its_name_and_stays_in_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = keras.layers.Lambda(lambda one: one * 2.0, name="twice")
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2), last])
    model.save(tmp_path / "net.keras")
    start = f"luigi --module pipeline ValidateModel --checkpoint {tmp_path}/net.keras --allow-ops=ReadFile --name mine"
    error = _refusal(tmp_path / "net.keras", start, monkeypatch)
    assert "a Lambda layer, which is not run" in str(error)
    assert str(error).endswith("--name mine --allow-ops ReadFile,Lambda")
    job = _job(str(error).split("let it run: ")[1])
    assert job.imported is not None
    assert stages_of(job)["checkpoint"].is_sandboxed
    answers = load_file(tmp_path / "net.keras", Code.of(job.imported, job.source)).predict({"x": ROWS})
    np.testing.assert_allclose(answers["twice"], model(ROWS), rtol=1e-6)


def test_a_class_that_is_nowhere_near_or_that_the_given_file_lacks_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    _saved("keras", "functions", tmp_path / "net.keras")
    (tmp_path / "own.py").write_text("class Twice: ...\nmodel.fit(1)\n", encoding="utf-8")  # it would train again
    start = "luigi --module pipeline WriteReport --checkpoint net.keras"
    said = str(_refusal(tmp_path / "net.keras", start, monkeypatch))
    assert said.endswith(
        f"Put Twice into a file my_layers.py, without the training, and then: {start} --model my_layers.py"
    )
    (tmp_path / "my_layers.py").write_text("import keras\n", encoding="utf-8")
    job = _job(f"{start} --model my_layers.py")
    assert job.imported is not None
    monkeypatch.setattr("sys.argv", shlex.split(f"{start} --model my_layers.py"))
    with pytest.raises(
        CheckpointError, match=rf"Import Twice in my_layers.py, and then: {start} --model my_layers.py$"
    ):
        load_file(tmp_path / "net.keras", Code.of(job.imported, job.source))


def test_the_users_classes_let_nothing_else_of_a_file_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of Keras 2 would import any module that a file names, also where its classes were given."""
    _saved("tf_keras", "functions", tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        named = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
        config["config"]["layers"][-1]["config"]["activation"] = named
        file.attrs["model_config"] = json.dumps(config)
    monkeypatch.setattr("sys.path", [*sys.path])
    job = _job(f"luigi --module pipeline WriteReport --checkpoint {tmp_path}/net.h5 --model {tmp_path}/own.py")
    assert job.imported is not None
    with pytest.raises(UnsafeModel, match="the module os: system"):
        load_file(tmp_path / "net.h5", Code.of(job.imported, job.source))


FILE = """
import keras

class Net:
    signature = None
    def build(self): ...

class Old:
    def __init__(self):
        self.signature = None
    def forward(self, inputs, training): ...

class Layer(keras.layers.Layer):
    def build(self, shape): ...

def make_net(): ...
"""


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("net.py:make_net", "a function is no model.*The models in it: --model net.py:Net, --model net.py:Old$"),
        ("net.py", "the class is missing.*The models in it: --model net.py:Net, --model net.py:Old$"),
        ("plain.py:build", r"it has build, show.*def build\(self\): return build\(\).*--model plain.py:CLASS"),
    ],
)
def test_what_is_no_model_is_answered_with_the_models_of_the_file(
    reference: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "plain.py").write_text("def show(): ...\ndef build(): ...\n", encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        find_model(reference)


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_keras_model_without_a_signature_is_not_offered_as_a_module(library: str, tmp_path: Path) -> None:
    """TensorFlow cannot save it before it was called, and nothing tells on what."""
    pytest.importorskip(library)
    (tmp_path / "own.py").write_text(OWN.format(library=library), encoding="utf-8")
    with pytest.raises(ModelError, match=r"(?s)has no signature.*whose build returns Net\(\)"):
        load_model(find_model(f"{tmp_path}/own.py:Net"))


def test_the_printed_class_takes_a_checkpoint_of_objects_without_a_reader_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The five lines that the message has need nothing but the user's shapes; the rows are made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(export, "make_deterministic", lambda: None)  # it is for a new process
    model = _saved("keras", "class", tmp_path / "net.keras")
    prefix = tf.train.Checkpoint(step=tf.Variable(1), net=model).save("run/ck")
    monkeypatch.setattr("sys.argv", shlex.split(f"luigi --module pipeline WriteReport --checkpoint {prefix}"))
    with pytest.raises(ModelError, match="has no signature") as error:
        load_model(find_model("own.py:Net"))
    text, command = str(error.value).split("your dtypes and shapes:\n")[1].split("\nand then: ")
    assert command == f"luigi --module pipeline WriteReport --checkpoint {prefix} --model served.py:Served"
    assert [name in text for name in ('"x"', '"logits"', '"scores"')] == [True] * 3
    fed, fetched = text.replace("[None, 1]", "[None, 3]", 1).split("], [")
    (tmp_path / "served.py").write_text(f"{fed}], [{fetched.replace('[None, 1]', '[None, 2]')}", encoding="utf-8")
    job = _job(command)
    assert job.has_made_up_rows
    (tmp_path / "made").mkdir()
    notes = export.import_model_weights(job.model, None, GraphSettings(), prefix, tmp_path / "made")
    assert notes["rows"] == 64
    with np.load("made/goldens.npz") as goldens:
        wanted = model(goldens["input/x"], training=False)
        np.testing.assert_allclose(goldens["output/scores"], wanted["scores"], rtol=1e-5)


def test_a_class_that_keras_cannot_make_again_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    _saved("keras", "class", tmp_path / "net.keras")
    text = (tmp_path / "own.py").read_text().replace("**options", "")
    (tmp_path / "own.py").write_text(text, encoding="utf-8")
    job = _job(f"luigi --module pipeline WriteReport --checkpoint {tmp_path}/net.keras --model {tmp_path}/own.py")
    assert job.imported is not None
    with pytest.raises(CheckpointError, match=r"cannot be made again.*Let its __init__ take \*\*options"):
        load_file(tmp_path / "net.keras", Code.of(job.imported, job.source))
