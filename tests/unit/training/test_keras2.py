"""Files of Keras 2 give Keras 2's answers, and those that would run code are refused before any of it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import numpy as np
import pytest

from pipeline.errors import CheckpointError, ModelError, PipelineError, UnsafeModel
from pipeline.hashing import extra_versions
from pipeline.inputs import DataSource, ImportedCheckpoint
from pipeline.safety.own_classes import export_module_commands
from pipeline.settings import GraphSettings, Settings
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.chain.stages import stages_of
from pipeline.training.keras import export, keras2
from pipeline.training.keras.graphs import build_model
from pipeline.training.keras.load import load_file
from pipeline.training.models import KerasModel

Array = np.ndarray[Any, Any]
IDS = np.random.default_rng(1).integers(1, 9, (4, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def k2() -> Any:
    return pytest.importorskip("tf_keras")


@pytest.fixture(scope="module")
def written(k2: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A recurrent net of Keras 2, as model.h5 and model.keras, and its answers."""
    folder, layers = tmp_path_factory.mktemp("keras2"), k2.layers
    k2.utils.set_random_seed(4)
    model = k2.Sequential(
        [
            layers.Embedding(9, 4, input_length=5, mask_zero=True),
            layers.Bidirectional(layers.LSTM(3)),
            layers.Dense(2, activation="softmax", name="scores"),
        ]
    )
    model.build((None, 5))
    model.set_weights([np.random.default_rng(2).normal(size=one.shape) for one in model.get_weights()])
    model.save(folder / "model.h5")
    model.save(folder / "model.keras")
    return folder, model(IDS).numpy()


@pytest.mark.parametrize("file", ["model.h5", "model.keras"])
@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_file_of_keras_2_answers_as_there_whatever_its_name(
    written: tuple[Path, Array], tmp_path: Path, file: str, is_renamed: bool
) -> None:
    """Keras tells its formats apart by the name of the file, and people rename files."""
    folder, wanted = written
    path = folder / file
    if is_renamed:
        path = Path(shutil.copy(path, tmp_path / ("model.keras" if file.endswith(".h5") else "model.h5")))
    model = load_file(path)
    [fed] = model.signature.inputs
    np.testing.assert_allclose(model.predict({fed.name: IDS})["scores"], wanted, rtol=1e-6)


def test_it_becomes_a_checkpoint_with_its_answers_as_goldens(
    written: tuple[Path, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "make_deterministic", lambda: None)  # it is for a new process
    folder, wanted = written
    np.savez(tmp_path / "rows.npz", embedding_input=IDS)
    (tmp_path / "made").mkdir()
    notes = export.import_file(
        ImportedCheckpoint(str(folder / "model.h5")), DataSource(tmp_path / "rows.npz"), 0, tmp_path / "made"
    )
    assert notes["found"] == ["inputs and outputs are those of the Keras model, read with tf_keras"]
    with np.load(tmp_path / "made" / "goldens.npz") as goldens:
        np.testing.assert_allclose(goldens["output/scores"], wanted, rtol=1e-6)


def test_the_version_of_what_reads_the_file_decides_its_checkpoint(tmp_path: Path) -> None:
    given = Parameters(checkpoint=str(tmp_path / "model.h5"), output_root=str(tmp_path / "out"))
    stage = stages_of(Job.from_parameters(given, Settings()))["checkpoint"]
    assert {"keras", "tf_keras"} <= set(extra_versions(stage.extras))
    assert set(extra_versions(("keras", "not_installed"))) == {"keras"}


def test_without_tf_keras_the_refusal_says_what_to_install(
    written: tuple[Path, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras2, "is_installed", lambda: False)
    with pytest.raises(CheckpointError) as error:
        load_file(written[0] / "model.h5")
    said = str(error.value)
    assert "Keras 3 cannot load this file of Keras 2." in said
    assert "time_major" in said
    assert "pip install 'freeze-pipeline[keras2]'" in said


def _changed(path: Path, target: Path, change: Any) -> Path:
    """Copies a file with another description of its model."""
    if path.suffix == ".h5":
        shutil.copy(path, target)
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return target
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target


def _layers(config: Any) -> list[Any]:
    found: list[Any] = config["config"]["layers"]
    return found


def _put_lambda(config: Any) -> None:
    _layers(config).append({"class_name": "Lambda", "config": {"name": "l", "function": ["4wAA", None, None]}})


def _wrap_lambda(config: Any) -> None:
    inner = {"class_name": "Lambda", "config": {"name": "l", "function": ["4wAA", None, None]}}
    _layers(config)[2]["config"]["layer"] = {"class_name": "TimeDistributed", "config": {"name": "t", "layer": inner}}


def _from_module(config: Any) -> None:
    _layers(config)[-1] |= {"module": "os", "class_name": "Dense"}


def _function_of_module(config: Any) -> None:
    _layers(config)[-1]["config"]["activation"] = {"module": "os", "class_name": "function", "config": "system"}


def _op(config: Any) -> None:
    _layers(config).append({"class_name": "TFOpLambda", "config": {"name": "o", "function": "io.read_file"}})


def _own_class(config: Any) -> None:
    _layers(config)[-1] |= {"module": None, "class_name": "Twice", "registered_name": "my>Twice"}


@pytest.mark.parametrize("file", ["model.h5", "model.keras"])
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (_put_lambda, UnsafeModel, "holds Python code, a Lambda layer.* --allow-ops Lambda$"),
        (_wrap_lambda, UnsafeModel, "holds Python code, a Lambda layer.* --allow-ops Lambda$"),
        (_from_module, UnsafeModel, "could run code of the module os: Dense. Put Dense into a file my_layers.py"),
        (_function_of_module, UnsafeModel, "could run code of the module os: system.* --model my_layers.py$"),
        (_op, UnsafeModel, "calls tf.io.read_file.* --allow-ops TFOpLambda$"),
        (_own_class, CheckpointError, "a class that is not Keras's own .got Twice.* --model my_layers.py$"),
    ],
)
def test_what_could_run_code_is_refused_before_it_is_read(
    written: tuple[Path, Array], tmp_path: Path, file: str, change: Any, kind: type[PipelineError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        load_file(_changed(written[0] / file, tmp_path / file, change))


def test_a_class_that_builds_a_model_of_keras_2_is_told_what_to_do(
    k2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed code is run: what is exported has the checkpoint's weights, and not new ones."""

    class Net:
        def build(self) -> Any:
            return k2.Sequential([k2.layers.Dense(1, input_shape=(2,)), k2.layers.Dropout(0.5)])

    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setitem(sys.modules, "test_keras2", SimpleNamespace(Net=Net, __file__=__file__))
    trained, x = Net().build(), np.ones((3, 2), np.float32)
    trained.compile("adam", "mse")
    trained.fit(x, x[:, :1], verbose=0)
    trained.save_weights("w/ckpt")
    tf.train.Checkpoint(step=tf.Variable(1), net=trained, optimizer=trained.optimizer).save("o/ckpt")
    trained.save_weights("net.weights.h5")
    for checkpoint in ("w/ckpt", "o/ckpt-1", "net.weights.h5"):
        start = f"luigi --module pipeline WriteReport --checkpoint {checkpoint} --model net.py:Net"
        monkeypatch.setattr("sys.argv", shlex.split(start))
        with pytest.raises(ModelError, match=r"a Keras 2 model \(tf_keras\)") as error:
            build_model(cast(KerasModel, Net()), GraphSettings())
        first, second = str(error.value).split("write a SavedModel: ")[1].split("\n")
        assert second == "luigi --module pipeline WriteReport --checkpoint test_keras2_export"
        exec(shlex.split(first)[2], {})
        loaded = tf.saved_model.load("test_keras2_export")
        np.testing.assert_allclose(loaded.serve(x), trained(x), rtol=1e-6)
        shutil.rmtree("test_keras2_export")
    monkeypatch.setattr(
        "sys.argv", shlex.split("luigi --module pipeline WriteReport --checkpoint a.h5 --model n.py:Net")
    )
    with pytest.raises(ModelError, match=r"leave the class out: luigi .* --checkpoint a.h5 --model \S*test_keras2.py$"):
        build_model(cast(KerasModel, Net()), GraphSettings())


def test_an_ellipsis_in_a_slice_is_no_class_of_anybody(k2: Any, tmp_path: Path) -> None:
    """`x[..., 0]` is stored as an object of the class `__ellipsis__`, which is the reader's own spelling."""
    inputs = k2.Input((3, 2), name="visits")
    model = k2.Model(inputs, k2.layers.Dense(1, name="risk")(inputs[..., 0]))
    model.save(tmp_path / "model.h5")
    assert b"__ellipsis__" in (tmp_path / "model.h5").read_bytes()
    given = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_allclose(
        load_file(tmp_path / "model.h5").predict({"visits": given})["risk"], model(given), rtol=1e-6
    )


def test_a_module_is_restored_from_the_newest_checkpoint_of_a_folder_under_the_name_that_it_has_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed code is run."""
    import tensorflow as tf

    (tmp_path / "net.py").write_text(
        "import tensorflow as tf\n\nclass Net(tf.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.w = tf.Variable([0.0])\n\n    @tf.function(input_signature=[tf.TensorSpec([None])])\n"
        "    def __call__(self, x):\n        return x * self.w\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "net", raising=False)
    trained = __import__("net").Net()
    saved = tf.train.Checkpoint(agent=trained, step=tf.Variable(1))
    for weight in (1.0, 3.0):
        trained.w.assign([weight])
        saved.save("runs/ckpt")
    monkeypatch.setattr(
        "sys.argv", shlex.split("luigi --module pipeline WriteReport --checkpoint runs --model net.py:Net")
    )
    first, second = export_module_commands(tmp_path / "net.py", "Net").split("python -c ")[1].split("\n")
    assert second == "luigi --module pipeline WriteReport --checkpoint net_export"
    exec(shlex.split(first)[0], {})
    np.testing.assert_array_equal(tf.saved_model.load("net_export")(tf.constant([2.0])), [6.0])
