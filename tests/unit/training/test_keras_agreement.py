"""What a Keras file holds beside its weights is in the deployed model, or the run is refused: vocabularies, options."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import CheckpointError
from pipeline.inputs import DataSource
from pipeline.settings import GraphSettings
from pipeline.training.keras.agreement import take_assets
from pipeline.training.keras.export import import_model_weights
from pipeline.training.keras.weights import load_weights_file
from pipeline.training.models.source import find_model

_CODE = """
import keras, numpy as np
from pipeline import Examples, Signature, TensorSpec


def make(words):
    towns = keras.layers.StringLookup(name="towns")
    towns.adapt(np.array(words))
    x = keras.Input((1,), name="town", dtype="string")
    y = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(towns(x)))
    return keras.Model(x, keras.layers.Dense(1, name="rent")(y))


class Rent:
    signature = Signature(
        inputs=[TensorSpec("town", "string", [None, 1])], outputs=[TensorSpec("rent", "float32", [None, 1])]
    )

    def build(self):
        return make(["Ulm", "Bonn", "Bonn", "Kiel", "Kiel", "Kiel"])

    def examples(self, path):
        return Examples({"town": np.array([[b"Ulm"], [b"Bonn"], [b"Kiel"], [b"Rom"]], object)})
"""


def test_a_files_vocabulary_is_deployed_and_not_that_of_the_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.training.keras.export.make_deterministic", lambda: None
    )  # only before TensorFlow runs
    (tmp_path / "rent.py").write_text(_CODE, encoding="utf-8")
    (tmp_path / "rows.csv").write_text("town\nUlm\n", encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(_CODE, "rent.py", "exec"), names)
    trained = names["make"](["Ulm", "Ulm", "Ulm", "Bonn", "Bonn", "Kiel", "Rom"])
    trained.save(tmp_path / "rent.keras")
    rows = np.array([[b"Ulm"], [b"Bonn"], [b"Kiel"], [b"Rom"]], object)
    out = tmp_path / "out"
    out.mkdir()
    source = find_model(f"{tmp_path}/rent.py:Rent")
    with caplog.at_level("INFO"):
        notes = import_model_weights(
            source, DataSource(tmp_path / "rows.csv"), GraphSettings(), str(tmp_path / "rent.keras"), out
        )
    wanted = "layer towns: the file's vocabulary is [UNK], Ulm, Bonn, Rom, Kiel, your code's is [UNK], Kiel, Bonn, Ulm"
    assert [note.startswith(wanted) for note in notes["found"]] == [True], notes["found"]
    assert wanted in caplog.text
    deployed = tf.saved_model.load(str(out / "saved_model")).signatures["serving_default"]
    found = next(iter(deployed(town=tf.constant(rows)).values()))
    np.testing.assert_array_equal(found, trained(tf.constant(rows)))
    assert len(np.unique(found)) == 4


def _model(*middle: Any, names: tuple[str, str] = ("price", "risk")) -> keras.Model:
    x = keras.Input((3,), name="x")
    y = x
    for layer in middle or (keras.layers.Dense(3, activation="relu", name="hidden"),):
        y = layer(y)
    return keras.Model(x, [keras.layers.Dense(2, name=name)(y) for name in names])


def _words(words: list[str], **options: Any) -> keras.Model:
    x = keras.Input((1,), name="x", dtype="string")
    lookup = keras.layers.StringLookup(name="words", **options)
    if "vocabulary" not in options:
        lookup.adapt(np.array(words))
    y = lookup(x) if options.get("output_mode") else keras.layers.Embedding(9, 2)(lookup(x))
    return keras.Model(x, keras.layers.Dense(1)(y))


def _numbers(edges: list[float]) -> keras.Model:
    x = keras.Input((1,), name="x")
    y = keras.layers.Embedding(4, 2)(keras.layers.Discretization(edges, name="bins")(x))
    return keras.Model(x, keras.layers.Dense(1)(y))


def _dense(**options: Any) -> keras.layers.Layer:
    return keras.layers.Dense(3, name="hidden", **options)


def _sum(swapped: bool) -> keras.Model:
    ins = [keras.Input((2,), name=name) for name in "ab"]
    joined = keras.layers.Concatenate()(ins[::-1] if swapped else ins)
    return keras.Model(ins, keras.layers.Dense(1)(joined))


_CASES: dict[str, tuple[Callable[[], keras.Model], Callable[[], keras.Model], str]] = {
    "activation": (
        _model,
        lambda: _model(_dense(activation="tanh")),
        "layer hidden: activation is relu in the file, tanh",
    ),
    "epsilon within a wrapper": (
        lambda: _model(
            keras.layers.Reshape((1, 3)), keras.layers.Bidirectional(keras.layers.GRU(2, reset_after=False))
        ),
        lambda: _model(
            keras.layers.Reshape((1, 3)),
            keras.layers.Bidirectional(keras.layers.GRU(2, reset_after=False, activation="relu")),
        ),
        "activation is tanh in the file, relu in your code",
    ),
    "a layer without weights": (
        lambda: _model(keras.layers.Rescaling(0.1), _dense()),
        lambda: _model(_dense()),
        "the number of layers Rescaling is 1 in the file, 0 in your code",
    ),
    "heads in another order": (
        _model,
        lambda: _model(names=("risk", "price")),
        "the order of layers Dense is hidden, price, risk in the file, hidden, risk, price",
    ),
    "swapped inputs": (lambda: _sum(False), lambda: _sum(True), "what it takes is a, b in the file, b, a"),
    "boundaries": (
        lambda: _numbers([0.0, 1.0]),
        lambda: _numbers([0.0, 2.0]),
        "layer bins: bin_boundaries is 0.0, 1.0 in the file, 0.0, 2.0 in your code",
    ),
    "words given in both": (
        lambda: _words([], vocabulary=["a", "b"]),
        lambda: _words([], vocabulary=["b", "a"]),
        "layer words: vocabulary is a, b in the file, b, a in your code",
    ),
    "words given in the code": (
        lambda: _words(["a", "a", "b"]),
        lambda: _words([], vocabulary=["b", "a"]),
        "layer words: the file's vocabulary is .UNK., a, b, your code's is .UNK., b, a.*Leave out the argument",
    ),
    "words given in the file": (
        lambda: _words([], vocabulary=["a", "b"]),
        lambda: _words(["b", "b", "a"]),
        "layer words: vocabulary is a, b in the file, b, a in your code",
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_what_the_code_makes_otherwise_is_refused(case: str, tmp_path: Path) -> None:
    theirs, ours, said = _CASES[case]
    theirs().save(tmp_path / "model.keras")
    built = ours()
    load_weights_file(built, tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match=said):
        take_assets(built, tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (_model, _model),
        (lambda: _model(_dense(), keras.layers.Dropout(0.5)), lambda: _model(_dense(), keras.layers.Dropout(0.1))),
        (lambda: _model(_dense(), keras.layers.Dropout(0.5)), lambda: _model(_dense())),
        (lambda: _model(_dense(kernel_regularizer="l2")), lambda: _model(_dense(kernel_initializer="zeros"))),
        (lambda: _words(["a", "a", "b"]), lambda: _words([], vocabulary=["a", "b"])),
        (lambda: _words([], vocabulary=["a", "b"]), lambda: _words(["a", "a", "b"])),
    ],
)
def test_what_says_nothing_of_the_answers_may_differ(
    theirs: Callable[[], keras.Model], ours: Callable[[], keras.Model], tmp_path: Path
) -> None:
    theirs().save(tmp_path / "model.keras")
    built = ours()
    load_weights_file(built, tmp_path / "model.keras")
    assert take_assets(built, tmp_path / "model.keras") == []


def test_a_vocabulary_of_the_same_size_is_taken_by_a_layer_that_counts_its_words(tmp_path: Path) -> None:
    _words(["a", "a", "b"], output_mode="multi_hot").save(tmp_path / "model.keras")
    built = _words(["b", "b", "a"], output_mode="multi_hot")
    load_weights_file(built, tmp_path / "model.keras")
    assert "the file's is taken" in take_assets(built, tmp_path / "model.keras")[0]
    text = tf.constant([["b"]])
    wanted = keras.models.load_model(tmp_path / "model.keras")(text)
    np.testing.assert_array_equal(built(text), wanted)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_difference_that_is_meant_takes_the_weights_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, built = _model(), _model(_dense(activation="tanh"))
    theirs.save(tmp_path / name)
    with pytest.raises(CheckpointError, match="activation is relu") as refused:
        take_assets(built, Path(name))
    command, copy = (
        str(refused.value).split("If it is meant so: ")[1].split("; then the same command with --checkpoint ")
    )
    subprocess.run(shlex.split(command), check=True)
    load_weights_file(built, tmp_path / copy)
    assert take_assets(built, tmp_path / copy) == []
    for own, other in zip(built.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_vocabulary_that_a_built_layer_cannot_take_is_refused(tmp_path: Path) -> None:
    _words(["a", "a", "b"], output_mode="multi_hot").save(tmp_path / "model.keras")
    built = _words(["a", "b", "c"], output_mode="multi_hot")
    said = "layer words: the file's vocabulary is .UNK., a, b, your code's is .UNK., c, b, a, and it takes no other"
    with pytest.raises(CheckpointError, match=said):
        take_assets(built, tmp_path / "model.keras")


def test_weights_that_no_built_layer_takes_are_named(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("agreement")
    class Own(keras.Model):
        def __init__(self, more: bool = True, **options: Any) -> None:
            super().__init__(**options)
            self.first = keras.layers.Dense(2)
            self.second = keras.layers.Dense(2) if more else None

        def call(self, x: Any) -> Any:
            y = self.first(x)
            return y if self.second is None else self.second(y)

    models = [Own(), Own(more=False)]
    for model in models:
        model(np.ones((1, 2), np.float32))
    models[0].save(tmp_path / "model.keras")
    load_weights_file(models[1], tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match="the file has weights that your code lacks: layers/dense_1/vars/0"):
        take_assets(models[1], tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5"])
def test_a_file_without_vocabularies_says_whose_are_deployed(name: str, tmp_path: Path) -> None:
    x = keras.Input((1,), name="x", dtype="string")
    texts = keras.layers.TextVectorization(output_mode="multi_hot", name="texts")
    texts.adapt(np.array(["a b", "b"]))
    model = keras.Model(x, keras.layers.Dense(1)(texts(x)))
    (model.save_weights if ".weights" in name else model.save)(tmp_path / name)
    [note] = take_assets(model, tmp_path / name)
    assert note == f"layer texts: its vocabulary is your code's, because {name} holds none"
