"""Compares two arrays of one output: measure, then judge. Telling is the report's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.signature import Array


@dataclass(frozen=True)
class Tolerance:
    """A candidate is within it where |candidate - reference| <= atol + rtol * |reference|; (0, 0) is exact."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Differences:
    """How far a candidate is from its reference, element by element.

    Args:
        absolute: float64 `[rows, elements]`, computed in a type that holds the difference; infinite
            where NaN meets a number or infinities differ, 0 where NaN meets NaN. For strings and
            bools 1 where they differ.
        relative: float64 `[rows, elements]`, absolute / |reference|; infinite where a zero was missed.
        ulp: float64 `[rows, elements]`, how many representable numbers lie between the two; None
            for what is not a float.
        magnitude: float64 `[rows, elements]`, |reference|, 0 where it is not a finite number.
    """

    absolute: Array
    relative: Array
    ulp: Array | None
    magnitude: Array


def disagreement(reference: Array, candidate: Array) -> str | None:
    """Why two arrays cannot be compared value by value, as a sentence; None if they can.

    Nothing is broadcast or converted: another dtype or shape is a difference in itself.
    """
    if _kind(reference) != _kind(candidate):
        return f"dtype {_kind(candidate)} instead of {_kind(reference)}"
    if reference.shape != candidate.shape:
        return f"shape {list(candidate.shape)} instead of {list(reference.shape)}"
    return None


def _kind(array: Array) -> str:
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def measure(reference: Array, candidate: Array) -> Differences:
    """Measures the differences of two arrays that can be compared.

    Args:
        reference: `[rows, ...]`.
        candidate: of the same dtype and shape.

    Raises:
        ValueError: dtype or shape differ.
    """
    problem = disagreement(reference, candidate)
    if problem is not None:
        raise ValueError(problem)
    a, b = by_row(reference), by_row(candidate)
    # ml_dtypes' bfloat16 is of kind V for NumPy.
    if a.dtype.kind in "fV":
        return _measure_floats(a, b)
    if a.dtype.kind in "iu":
        return _measured(_span(a, b).astype(np.float64), np.abs(a.astype(np.float64)), None)
    return _measured((a != b).astype(np.float64), np.zeros(a.shape), None)


def by_row(array: Array) -> Array:
    """The array as `[rows, elements]`; a complex number is two elements, its real and its imaginary part."""
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)  # [rows, ..., 2]
    return array.reshape(len(array), -1) if array.size else array.reshape(len(array), 0)


def is_finite(array: Array) -> Array:
    """Which elements are neither infinite nor NaN: bool `[rows, elements]`; what is no float never is."""
    flat = by_row(array)
    return np.isfinite(flat.astype(np.float64)) if flat.dtype.kind in "fV" else np.ones(flat.shape, bool)


def _measure_floats(a: Array, b: Array) -> Differences:
    with np.errstate(invalid="ignore", over="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        absolute = np.abs(wide_a - wide_b)
    absolute[(wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))] = 0.0
    # What is still NaN is NaN against a number; inf - inf was equal or is already infinite.
    absolute[np.isnan(absolute)] = np.inf
    ulp = _span(_ordinal(a), _ordinal(b)).astype(np.float64)
    ulp[absolute == 0] = 0.0
    return _measured(absolute, np.where(np.isfinite(wide_a), np.abs(wide_a), 0.0), ulp)


def _measured(absolute: Array, magnitude: Array, ulp: Array | None) -> Differences:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = np.where(absolute == 0, 0.0, absolute / magnitude)
    return Differences(absolute, relative, ulp, magnitude)


def _ordinal(array: Array) -> Array:
    """Integers in the order of the floats, so that neighbours differ by one (-0 and 0 by none)."""
    bits = array.view(f"i{array.dtype.itemsize}").astype(np.int64)
    lowest = np.int64(-(2 ** (8 * array.dtype.itemsize - 1)))
    return np.where(bits < 0, lowest - bits, bits)


def _span(a: Array, b: Array) -> Array:
    """|a - b| of integers as uint64: the subtraction wraps in int64, its bits as uint64 are right."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    with np.errstate(over="ignore"):
        return high.astype(np.uint64) - low.astype(np.uint64)


def judge(differences: Differences, tolerance: Tolerance) -> Array:
    """Which elements are within the tolerance: bool `[rows, elements]`; NaN is never within."""
    with np.errstate(over="ignore"):
        bound = tolerance.atol + tolerance.rtol * differences.magnitude
    # A bound may overflow; what is infinitely far is never within.
    return np.asarray(np.isfinite(differences.absolute) & (differences.absolute <= bound))


def worst_elements(differences: Differences, is_within: Array) -> Array:
    """The element to show of each row: one that failed before one that did not, then the farthest.

    Returns:
        Indices int64 `[rows]`, -1 for rows without elements.
    """
    rows, elements = differences.absolute.shape
    if elements == 0:
        return np.full(rows, -1)
    is_candidate = ~is_within | is_within.all(axis=1, keepdims=True)
    return np.asarray(np.argmax(np.where(is_candidate, differences.absolute, -1.0), axis=1))


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
            largest = _larger(largest, _measure_largest(a[where], b[where]))
    if not count:
        return None
    reference, candidate = (_plain(side[first]) for side in (ours, theirs))
    if str(reference) == str(candidate) and ours.dtype != object:
        reference, candidate = (f"{_plain(v[first])} (0x{v[first].tobytes()[::-1].hex()})" for v in (ours, theirs))
    index = ";".join(map(str, np.unravel_index(first, shape))) if shape else ""
    measured = _measure_largest(ours[first : first + 1], theirs[first : first + 1])
    return Difference(count, index, reference, candidate, measured, largest)


def _is_different(a: Array, b: Array) -> Array:
    if a.dtype == object:
        return np.asarray(a != b)
    if a.dtype.itemsize <= 8:
        bits = f"u{a.dtype.itemsize}"
        return np.asarray(a.view(bits) != b.view(bits))
    return np.asarray((a.view("u8") != b.view("u8")).reshape(len(a), -1).any(axis=1))


def _measure_largest(a: Array, b: Array) -> Measured:
    """The largest absolute, relative and ulp difference."""
    if a.dtype == object:
        return _NOTHING
    found = measure(a[:, None], b[:, None])
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
