"""A TFLite candidate that computes in integers is compared through its scales and zero points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from candidates import artifact, frozen_graph, save, write_saved_model

from pipeline.formats.external import import_candidate
from pipeline.formats.external.tensors import read_tflite
from pipeline.formats.tflite import open_runner
from pipeline.inputs import Candidate
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature
from pipeline.validation.compare.tolerance import tolerance_class_of
from pipeline.validation.validate import validate

KINDS = {"int8": tf.int8, "uint8": tf.uint8, "float32": tf.float32}
ROWS = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's artifact, and a file with integers for each kind of input and output, right and wrong."""
    folder = tmp_path_factory.mktemp("integers")
    prefix = save(folder / "model.ckpt")
    artifact(prefix, folder / "reference", outputs="p")

    def turn(values: dict[str, Any]) -> None:
        values["layer/w"][:, 1] *= -1

    for name, change in {"right": None, "turned": turn}.items():
        write_saved_model(frozen_graph(prefix, change), folder / name, {"p": "p:0"})
        for kind in ("int8", "uint8", "float32") if change is None else ("int8",):
            (folder / f"{name}_{kind}.tflite").write_bytes(_convert(folder / name, KINDS[kind]))
    return folder


def _convert(saved_model: Path, kind: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in ROWS)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = kind
    return bytes(converter.convert())


def adopt(home: Path, name: str, folder: Path) -> Path:
    folder.mkdir()
    import_candidate(Candidate(home / f"{name}.tflite", "tflite"), home / "reference", "exact", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_fed_and_read_by_scale_and_zero_point(kind: str, home: Path, tmp_path: Path) -> None:
    candidate = adopt(home, f"right_{kind}", tmp_path / "candidate")
    signature = Signature.read(candidate / "signature.json")
    assert [spec.dtype for spec in (*signature.inputs, *signature.outputs)] == ["float32", "float32"]
    assert tolerance_class_of("tflite", candidate) == "int8"
    interpreter = tf.lite.Interpreter(str(candidate / "model.tflite"))
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    row = np.array([[0.5, -0.25, 100.0]], np.float32)  # the last is beyond the range, and becomes its end
    if kind != "float32":
        scale, zero = given["quantization"]
        limits = np.iinfo(kind)
        interpreter.set_tensor(
            given["index"], np.clip(np.round(row / scale) + zero, limits.min, limits.max).astype(kind)
        )
    else:
        interpreter.set_tensor(given["index"], row)
    interpreter.invoke()
    answer = interpreter.get_tensor(wanted["index"])
    if kind != "float32":
        scale, zero = wanted["quantization"]
        answer = (answer.astype(np.float64) - zero) * scale
    found = open_runner(candidate, signature, 1).run({"x": row})["p"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, answer.astype(np.float32))


@pytest.mark.parametrize(("name", "verdict"), [("right_int8", "passed"), ("turned_int8", "failed")])
def test_integers_are_within_their_bounds_and_a_turned_column_is_not(
    name: str, verdict: str, home: Path, tmp_path: Path
) -> None:
    candidate = adopt(home, name, tmp_path / "candidate")
    (tmp_path / "validation").mkdir()
    settings = ValidationSettings(checks="equal")
    found = validate("m", home / "reference", {"tflite": candidate}, settings, 1, tmp_path / "validation")
    assert found["verdict"] == verdict, found["reasons"]
    assert "x is int8 of scale 0.0" in found["notes"]["tflite"][0]
    if verdict == "failed":
        assert found["causes"]["tflite"]["kind"] == "unknown"
        assert "of the largest value" in found["causes"]["tflite"]["sentence"]
        assert "no cause" not in found["causes"]["tflite"]["sentence"]


def test_weights_alone_that_are_stored_as_integers_are_said_by_the_user(home: Path) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(home / "right"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = home / "stored.tflite"
    path.write_bytes(converter.convert())
    assert read_tflite(path, None).integers == 0
    assert read_tflite(home / "right_float32.tflite", None).integers > 0
