"""Where two arrays differ in their bits: NaN has a payload and zero a sign, which values do not show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .validation.compare import differences

Array = np.ndarray[Any, Any]
Measured = tuple[float | None, float | None, float | None]

_NOTHING: Measured = (None, None, None)
_BLOCK = 1 << 20  # elements that are measured at a time


@dataclass(frozen=True)
class Difference:
    """Where two arrays differ.

    Args:
        elements: how many do, by their bits.
        first: index of the first of them, its axes joined by `;`.
        reference: its value on the one side, a plain number or text; with its bits where they alone differ.
        candidate: its value on the other side.
        measured: absolute, relative and ulp difference of the first; None where there is none, as for strings.
        largest: the largest of each.
    """

    elements: int
    first: str
    reference: Any
    candidate: Any
    measured: Measured
    largest: Measured


def difference(ours: Array, theirs: Array, shape: tuple[int, ...]) -> Difference | None:
    """Where two flat arrays of one dtype and length differ in a bit; None where they do not.

    Args:
        shape: what they are in truth, for the index.
    """
    count, first, largest = 0, -1, _NOTHING
    for at in range(0, len(ours), _BLOCK):
        a, b = ours[at : at + _BLOCK], theirs[at : at + _BLOCK]
        where = np.flatnonzero(_is_different(a, b))
        if len(where):
            first = at + int(where[0]) if first < 0 else first
            count += len(where)
            largest = _larger(largest, _measured(a[where], b[where]))
    if not count:
        return None
    reference, candidate = (_plain(side[first]) for side in (ours, theirs))
    if str(reference) == str(candidate) and ours.dtype != object:
        reference, candidate = (f"{_plain(v[first])} (0x{v[first].tobytes()[::-1].hex()})" for v in (ours, theirs))
    index = ";".join(map(str, np.unravel_index(first, shape))) if shape else ""
    measured = _measured(ours[first : first + 1], theirs[first : first + 1])
    return Difference(count, index, reference, candidate, measured, largest)


def _is_different(a: Array, b: Array) -> Array:
    if a.dtype == object:
        return np.asarray(a != b)
    if a.dtype.itemsize <= 8:
        bits = f"u{a.dtype.itemsize}"
        return np.asarray(a.view(bits) != b.view(bits))
    return np.asarray((a.view("u8") != b.view("u8")).reshape(len(a), -1).any(axis=1))


def _measured(a: Array, b: Array) -> Measured:
    """The largest absolute, relative and ulp difference."""
    if a.dtype == object:
        return _NOTHING
    found = differences.measure(a[:, None], b[:, None])
    ulp = None if found.ulp is None else float(found.ulp.max())
    return float(found.absolute.max()), float(found.relative.max()), ulp


def _larger(one: Measured, other: Measured) -> Measured:
    a, b, c = (max((v for v in pair if v is not None), default=None) for pair in zip(one, other, strict=True))
    return a, b, c


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if not isinstance(value, np.generic):
        return value
    return value.item() if value.dtype.kind in "biufc" else float(value)
