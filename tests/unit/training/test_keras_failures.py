"""What Keras cannot load is refused with the whole cause, and each kind of cause with its own next step."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.errors import CheckpointError
from pipeline.training.keras.load import load_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keras3")
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="y")(x))
    model.save(made / "model.keras")
    model.save(made / "model.h5")
    return made


def _changed(origin: Path, target: Path, change: Callable[[Any, Any], None]) -> Path:
    with zipfile.ZipFile(origin) as old, zipfile.ZipFile(target, "w") as new:
        config, told = (json.loads(old.read(name)) for name in ("config.json", "metadata.json"))
        change(config["config"]["layers"][-1]["config"], told)
        parts = {"config.json": json.dumps(config), "metadata.json": json.dumps(told)}
        for name in old.namelist():
            new.writestr(name, parts.get(name, old.read(name)))
    return target


def _newer(layer: Any, told: Any) -> None:
    layer["sparkle"], told["keras_version"] = True, "3.99.0"


def _older(layer: Any, told: Any) -> None:
    layer["sparkle"], told["keras_version"] = True, "3.0.0"


def _own_function(layer: Any, _: Any) -> None:
    layer["activation"] = {"module": "builtins", "class_name": "function", "config": "my_swish"}


def _other_units(layer: Any, _: Any) -> None:
    layer["units"] = 5


@pytest.mark.parametrize(
    ("change", "said", "next_step"),
    [
        (_newer, "a layer has options that this Keras lacks .got .*sparkle", "pip install keras==3.99.0"),
        (_older, "a layer has options that this Keras lacks .got .*sparkle", ".export('exported')"),
        (_own_function, "a class that is not Keras's own .got my_swish", "Put my_swish into a file my_layers.py"),
        (_own_function, "a class that is not Keras's own", "WriteReport --model my_layers.py"),
        (_other_units, "the weights in the file are not those of its layers .got .*y", "model.save"),
    ],
)
def test_each_cause_has_its_own_next_step(
    folder: Path, tmp_path: Path, change: Callable[[Any, Any], None], said: str, next_step: str
) -> None:
    with pytest.raises(CheckpointError, match=said) as error:
        load_file(_changed(folder / "model.keras", tmp_path / "model.keras", change))
    assert next_step in str(error.value)
    assert "Copy the file again" not in str(error.value)


def test_an_operator_on_tensors_that_keras_cannot_read_back_is_no_class_of_ones_own(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Dense(1, name="y")(abs(x))).save(tmp_path / "model.h5")
    with pytest.raises(CheckpointError, match=r"its own operation Absolute from .h5.*model.save\('model.keras'\)"):
        load_file(tmp_path / "model.h5")
    keras.Model(x, keras.layers.Dense(1, name="y")(abs(x))).save(tmp_path / "model.keras")
    assert load_file(tmp_path / "model.keras").predict({"x": -np.eye(3, dtype=np.float32)})["y"].shape == (3, 1)


def test_a_file_is_what_its_content_is_and_not_its_name(folder: Path, tmp_path: Path) -> None:
    rows = np.eye(3, dtype=np.float32)
    wanted = load_file(folder / "model.keras").predict({"x": rows})["y"]
    for origin, name in (("model.keras", "model.h5"), ("model.h5", "model.keras"), ("model.h5", "model.hdf5")):
        shutil.copy(folder / origin, tmp_path / name)
        np.testing.assert_array_equal(load_file(tmp_path / name).predict({"x": rows})["y"], wanted)
