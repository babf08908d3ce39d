"""Values of inputs that have one value for all rows of a batch, such as `temperature` or `training`."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pipeline.signature import Array, Batch


def hold_still(rows: Batch, whole: Collection[str]) -> dict[str, Array]:
    """Returns made-up rows in which the inputs that have one value for all rows have it: that of the first row.

    Args:
        rows: an array `[rows, ...]` by input name.
        whole: the names of these inputs.
    """
    if len(whole) == len(rows):  # each row is a run, with values of its own
        return dict(rows)
    return {
        name: np.repeat(values[:1], len(values), axis=0) if name in whole else values for name, values in rows.items()
    }


def sensible_values(rows: Batch, whole: Collection[str], known: Collection[str] = ()) -> dict[str, Array]:
    """Returns made-up rows in which scalars beside rows have a value that is mostly harmless: 1, or False.

    A scalar float is mostly a factor or a probability, a bool a mode such as `training`, an integer a number of things.

    Args:
        known: inputs whose values the graph demands.
    """
    held = hold_still(rows, whole)
    if len(whole) == len(rows):
        return held
    for name in whole:
        if name not in known and held[name].ndim == 1 and held[name].dtype != object:
            held[name] = np.full_like(held[name], held[name].dtype.kind != "b")
    return held


def keep_beside_rows(batch: Batch, first: Batch, whole: Collection[str]) -> dict[str, Array]:
    """Returns a batch of an edge case in which numbers beside rows keep their values of the first row.

    An edge case is one of the rows: with a temperature of 1e-40 or of infinity, all rows alike are divided by it, and
    with a length or a count of 2^31 - 1 there is no memory.
    """
    kept = {name for name in whole if len(whole) < len(batch) and batch[name].dtype.kind not in "b"}
    return {
        name: np.repeat(first[name][:1], len(values), axis=0) if name in kept else values
        for name, values in batch.items()
    }
