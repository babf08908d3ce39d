"""Pairs that are right, and must pass; and one whose kernels round beyond a bound of 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec

from . import models
from .cases import Home, Pair, fault, freeze
from .models import v1

PICTURES = Signature((TensorSpec("x", "float32", (None, 6, 6, 3)),), (TensorSpec("y", "float32", (None, 6, 6, 8)),))
ROOTS = Signature((TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None,)),))


@fault("nothing")
def a_right_pair(home: Home, folder: Path) -> Pair:
    return Pair(home.checkpoint, home.frozen)


def scaled(x: Any) -> dict[str, Any]:
    """A convolution and a scale, which TensorFlow's optimizer multiplies where both are constants."""
    draw = np.random.default_rng(8)
    kernel = v1.get_variable("kernel", initializer=(0.05 * draw.normal(size=(3, 3, 3, 8))).astype(np.float32))
    scale = v1.get_variable("scale", initializer=draw.normal(size=8).astype(np.float32))
    return {"y": tf.nn.conv2d(x, kernel, 1, "SAME") * scale}


def pictures(folder: Path) -> Pair:
    """A pair whose frozen graph is computed in another order."""
    rows = {"x": np.random.default_rng(9).normal(size=(models.ROWS, 6, 6, 3)).astype(np.float32)}
    checkpoint = models.save_checkpoint(folder / "checkpoint", scaled, PICTURES, rows)
    return Pair(checkpoint, freeze(checkpoint, folder / "candidate"))


@fault("nothing: the optimizer folds a scale into a kernel of the .pb, and last bits differ")
def kernel_rounding_within_its_bound(home: Home, folder: Path) -> Pair:
    return pictures(folder)


@fault(
    "a scale is folded into a kernel, and last bits are held to a bound of 0",
    "kernel_rounding",
    "equal",
    mentions="with TensorFlow's optimizer off",
    settings=ValidationSettings(checks="weights,equal", float32_rtol=0.0, float32_atol=0.0),
)
def kernel_rounding_beyond_its_bound(home: Home, folder: Path) -> Pair:
    return pictures(folder)


WIDE = Signature((TensorSpec("x", "float32", (None, 784)),), (TensorSpec("y", "float32", (None, 10)),))


@fault("nothing: a sum of 784 terms is added in another order in another size of batch, and its result is near 0")
def rounding_by_the_size_of_the_batch(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        kernel = np.random.default_rng(12).normal(size=(784, 10)).astype(np.float32)
        return {"y": x @ v1.get_variable("kernel", initializer=kernel)}

    rows = {"x": np.random.default_rng(13).normal(size=(150, 784)).astype(np.float32)}
    checkpoint = models.save_checkpoint(folder / "checkpoint", build, WIDE, rows, has_goldens=False)
    return Pair(checkpoint, freeze(checkpoint, folder / "candidate"))


@fault("nothing: both sides give NaN in the same places")
def NaN_on_both_sides(home: Home, folder: Path) -> Pair:
    def build(x: Any) -> dict[str, Any]:
        w = v1.get_variable("w", initializer=tf.constant([1.0, 2.0, 0.5, 1.5]))
        return {"y": tf.sqrt(x[:, 0] * w[1])}

    checkpoint = models.save_checkpoint(folder / "checkpoint", build, ROOTS)
    return Pair(checkpoint, freeze(checkpoint, folder / "candidate"))
