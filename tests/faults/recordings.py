"""Faults that equality cannot show: checkpoint and candidate agree, and are not what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data.npz import add_kind, load_arrays, of_kind, save_arrays
from pipeline.formats.registry import FORMATS
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.diagnosis.onednn import run_with

from . import models
from .cases import Home, Pair, fault, freeze
from .models import v1


def recorded_by(home: Home, folder: Path, values: models.Values) -> Pair:
    """The pair of the last step with the recordings of other values."""
    assert home.frozen
    shutil.copytree(home.folder / "training", folder / "training")
    shutil.copytree(home.checkpoint, folder / "checkpoint")
    other = models.save_checkpoint(folder / "other", lambda x: models.classifier(x, values))
    shutil.copy(other / "goldens.npz", folder / "checkpoint")
    shutil.rmtree(other)
    return Pair(folder / "checkpoint", home.frozen)


@fault(
    "step 300 was exported and frozen, and step 200 was meant",
    "wrong_step",
    "golden",
    mentions="step 200",
    cause_of="checkpoint",
)
def wrong_step_exported(home: Home, folder: Path) -> Pair:
    return recorded_by(home, folder, home.raw[200])


@fault(
    "the raw variables were exported and frozen, and their averages were meant",
    "averages_not_used",
    "golden",
    mentions="the moving averages of step 300",
    cause_of="checkpoint",
)
def averages_not_exported(home: Home, folder: Path) -> Pair:
    return recorded_by(home, folder, home.averaged[300])


PICTURES = Signature((TensorSpec("x", "float32", (None, 6, 6, 3)),), (TensorSpec("y", "float32", (None, 6, 6, 8)),))


def normed(x: Any) -> dict[str, Any]:
    """A batch norm in inference, which oneDNN's kernel rounds otherwise than TensorFlow's own."""
    draw = np.random.default_rng(4)
    kernel, scale = (
        v1.get_variable(name, initializer=draw.normal(size=size).astype(np.float32))
        for name, size in (("kernel", (3, 3, 3, 8)), ("scale", (8,)))
    )
    y = tf.nn.conv2d(x, kernel, 1, "SAME")
    norm = tf.raw_ops.FusedBatchNormV3
    return {"y": norm(x=y, scale=scale, offset=scale, mean=scale, variance=scale * scale, is_training=False).y}


@fault(
    "outputs were recorded with oneDNN's kernels, and the bound is 0",
    "onednn_on_one_side",
    "golden",
    mentions="TF_ENABLE_ONEDNN_OPTS=1",
    cause_of="checkpoint",
    settings=ValidationSettings(checks="weights,equal,golden", float32_rtol=0.0, float32_atol=0.0),
)
def oneDNN_on_one_side(home: Home, folder: Path) -> Pair:
    rows = {"x": np.random.default_rng(6).normal(size=(models.ROWS, 6, 6, 3)).astype(np.float32)}
    checkpoint = models.save_checkpoint(folder / "checkpoint", normed, PICTURES, rows)
    inputs = of_kind("input", load_arrays(checkpoint / "goldens.npz"))
    recorded = run_with(True, FORMATS["checkpoint"].opener, checkpoint, inputs, 1)
    save_arrays(checkpoint / "goldens.npz", add_kind("input", inputs) | add_kind("output", recorded))
    return Pair(checkpoint, freeze(checkpoint, folder / "candidate"))
