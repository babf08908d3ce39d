"""Rows between two rows of different answers, and the search for the edge where the answer changes.

The step from one row to the other is halved until the two sides of the edge are as close as their dtypes allow, as the
attacks do that have only a model's decisions (Chen, Jordan, Wainwright, HopSkipJumpAttack, 2020, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from pipeline.signature import Array, Batch

_HALVINGS = 26  # a float32 between two others has 24 bits
Classes = Callable[[Batch], Array]  # int or object `[rows]`


def mix_rows(one: Batch, other: Batch, shares: Array, fixed: Collection[str] = ()) -> dict[str, Array]:
    """Returns rows on the way from one to another.

    Floats are interpolated, and whole numbers that stand alone. Of several whole numbers, and of the words of a text,
    a share from the beginning is the other row's.

    Args:
        one, other: arrays `[rows, ...]` by input.
        shares: how far on the way each row is, float64 `[rows]`, from 0 to 1.
        fixed: inputs that keep the value of the first row.
    """
    made = {}
    for name, first in one.items():
        last, rows = other[name], len(shares)
        if name in fixed:
            made[name] = np.repeat(first[:1], rows, axis=0)
            continue
        share = shares.reshape(rows, *(1,) * (first.ndim - 1))
        if first.dtype == object:
            made[name] = np.empty_like(first)
            for place in np.ndindex(*first.shape):
                made[name][place] = _mix_texts(bytes(first[place]), bytes(last[place]), float(shares[place[0]]))
        elif first.dtype.kind in "fV":
            wide, target = first.astype(np.float64), last.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                mixed = wide * (1 - share) + target * share  # exact at both ends
            made[name] = np.asarray(mixed).astype(first.dtype)
        elif first.dtype.kind in "iu" and first[:1].size == 1:
            distance = last.astype(np.float64) - first.astype(np.float64)
            made[name] = (first + np.rint(distance * share).astype(first.dtype)).astype(first.dtype)
        else:
            size = max(1, first[:1].size)
            is_other = np.arange(size)[None] < np.rint(shares * size)[:, None]
            made[name] = np.where(is_other.reshape(first.shape), last, first)
    return made


def _mix_texts(one: bytes, other: bytes, share: float) -> bytes:
    if share in (0.0, 1.0):
        return other if share else one
    first, last = one.split(), other.split()
    return b" ".join(last[: round(len(last) * share)] + first[round(len(first) * share) :])


def find_edges(one: Batch, other: Batch, classes: Classes, fixed: Collection[str] = ()) -> tuple[Array, Array]:
    """Halves the way between pairs of rows of different classes.

    Args:
        one, other: `[pairs, ...]` by input.
        classes: gives the class of each row.

    Returns:
        How far on the way the last row of the first class is, and the first row of another one: float64 `[pairs]`.
    """
    pairs = len(next(iter(one.values())))
    low, high = np.zeros(pairs), np.ones(pairs)
    first = classes(mix_rows(one, other, low, fixed))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        mixed = mix_rows(one, other, middle, fixed)
        if (
            _is_same(mixed, mix_rows(one, other, low, fixed)) | _is_same(mixed, mix_rows(one, other, high, fixed))
        ).all():
            break
        is_first = classes(mixed) == first
        low, high = np.where(is_first, middle, low), np.where(is_first, high, middle)
    return low, high


def _is_same(rows: Batch, others: Batch) -> Array:
    """Compares rows: bool `[rows]`."""
    same = [
        ((values == others[name]) | ((values != values) & (others[name] != others[name]))).reshape(len(values), -1)
        for name, values in rows.items()
    ]
    return np.asarray(np.concatenate(same, axis=1).all(axis=1))


def pick_pairs(classes: Sequence[object], most: int, seed: int) -> list[tuple[int, int]]:
    """Returns pairs of rows of different classes, those of rare classes too.

    Args:
        classes: of each row.
    """
    by_class: dict[object, list[int]] = {}
    for row, value in enumerate(classes):
        by_class.setdefault(value, []).append(row)
    if len(by_class) < 2:
        return []
    draw, groups = np.random.default_rng(seed), list(by_class.values())
    pairs = []
    for number in range(most):
        group = number % len(groups)
        other = (group + 1 + int(draw.integers(0, len(groups) - 1))) % len(groups)
        pairs.append((int(draw.choice(groups[group])), int(draw.choice(groups[other]))))
    return list(dict.fromkeys(pairs))
