"""The order of a training's rows: it depends on the seed and the step alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def row_order(rows: int, batch_size: int, seed: int, done: int) -> Iterator[Array]:
    """The rows of each step, after the steps already done: shuffled anew for every pass over the data.

    Yields:
        Indices int64 `[batch]`; the last batch of a pass is shorter where the rows do not divide.
    """
    per_pass = math.ceil(rows / batch_size)
    for step in itertools.count(done):
        number, position = divmod(step, per_pass)
        if position == 0 or step == done:
            shuffled = np.random.default_rng((seed, number)).permutation(rows)
        yield shuffled[position * batch_size : (position + 1) * batch_size]
