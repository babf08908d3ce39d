"""Faults in the weights: others, rounded, turned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from . import models
from .cases import STEPS, Home, Pair, fault, freeze
from .graphs import ALL, node

EVERYTHING = f"weights {ALL} decisions"


def with_weights(change: Callable[[str, Any], Any]) -> Callable[[Any], None]:
    """A change of every constant that is a weight, by its name and its value."""

    def edit(graph: Any) -> None:
        for name in models.drawn(0):
            const = node(graph, name)
            value = tf.make_ndarray(const.attr["value"].tensor)
            const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.asarray(change(name, value), value.dtype)))

    return edit


def of_values(home: Home, folder: Path, values: models.Values) -> Pair:
    """The candidate is frozen from other values."""
    return home.planted(folder, with_weights(lambda name, value: values[name]))


@fault("one of 35 weights is its neighbour among the floats", "weights_differ", "weights", mentions="dense2/bias")
def one_weight_off_by_one_ULP(home: Home, folder: Path) -> Pair:
    def change(name: str, value: Any) -> Any:
        if name == "dense2/bias":
            value = value.copy()
            value[1] = np.nextafter(value[1], np.float32(9))
        return value

    return home.planted(folder, with_weights(change))


@fault("one weight has another sign", "weights_differ", f"weights {ALL}", mentions="dense2/kernel differs in 1 of 12")
def one_weight_of_another_sign(home: Home, folder: Path) -> Pair:
    def change(name: str, value: Any) -> Any:
        if name == "dense2/kernel":
            value = value.copy()
            value[0, 0] = -value[0, 0]
        return value

    return home.planted(folder, with_weights(change))


@fault("frozen from step 200 of a training whose step 300 is deployed", "wrong_step", EVERYTHING, mentions="step 200")
def wrong_step(home: Home, folder: Path) -> Pair:
    return of_values(home, folder, home.raw[200])


@fault(
    "the raw variables were frozen where the checkpoint deploys their moving averages",
    "averages_not_used",
    EVERYTHING,
    mentions="holds the raw variables",
)
def averages_left_out(home: Home, folder: Path) -> Pair:
    assert home.frozen  # the series of checkpoints is there
    shutil.copytree(home.folder / "training", folder / "training")
    averages = home.averaged[STEPS[-1]]
    checkpoint = models.save_checkpoint(folder / "checkpoint", lambda x: models.classifier(x, averages))
    return Pair(checkpoint, home.frozen)


@fault("a square kernel is transposed", "transposed_weights", EVERYTHING, mentions="dense1/kernel hold")
def transposed_kernel(home: Home, folder: Path) -> Pair:
    return home.planted(folder, with_weights(lambda name, value: value.T if name == "dense1/kernel" else value))


@fault("weights rounded to float16, in a file that is said to be exact", "half_precision", f"weights {ALL}")
def half_precision_sold_as_full(home: Home, folder: Path) -> Pair:
    return home.planted(folder, with_weights(lambda name, value: value.astype(np.float16)))


@fault("float16 behind Casts, in a file that is said to be exact", "half_precision", f"weights {ALL}")
def stored_as_float16_sold_as_full(home: Home, folder: Path) -> Pair:
    candidate = freeze(home.checkpoint, folder / "candidate", weights="float16")
    shutil.copy(home.frozen / "signature.json", candidate)
    return Pair(home.checkpoint, candidate)


@fault("weights rounded to bfloat16", "half_precision", f"weights {ALL}", mentions="bfloat16")
def bfloat16_sold_as_full(home: Home, folder: Path) -> Pair:
    return home.planted(folder, with_weights(lambda name, value: value.astype(ml_dtypes.bfloat16)))


@fault("the same graph, trained from another seed", "other_training", EVERYTHING, mentions="of another training")
def the_pb_of_another_training(home: Home, folder: Path) -> Pair:
    return of_values(home, folder, models.drawn(7))
