"""Differences of two arrays of one output, element by element and bit by bit; `tolerance` judges them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.signature import Array, Batch


@dataclass(frozen=True)
class Differences:
    """Distances between a candidate and its reference, element by element.

    Args:
        absolute: float64 `[rows, elements]`, computed in a type that holds the difference; infinite where only one side
            is NaN or infinities differ, 0 where both are NaN. For strings and bools 1 where they differ.
        relative: float64 `[rows, elements]`, absolute / |reference|; infinite where only the reference is 0.
        ulp: float64 `[rows, elements]`, number of representable steps between the two; None for other dtypes than
            floats.
        magnitude: float64 `[rows, elements]`, |reference|; 0 where it is not finite.
    """

    absolute: Array
    relative: Array
    ulp: Array | None
    magnitude: Array


def is_identical(reference: Array, candidate: Array) -> bool:
    """Returns True if two numeric arrays have the same dtype, shape and bits; their measured differences are all 0."""
    if reference.dtype != candidate.dtype or reference.shape != candidate.shape or reference.dtype.kind in "OSU":
        return False
    one, other = (np.ascontiguousarray(side).reshape(-1).view(np.uint8) for side in (reference, candidate))
    return bool(np.array_equal(one, other))


def row_blocks(values: Array) -> list[slice]:
    """Divides rows into blocks that can be measured at a time, which takes ten times their memory; at least one."""
    rows = max(1, _BLOCK * 4 * max(1, len(values)) // max(1, values.size))
    return [slice(start, start + rows) for start in range(0, max(1, len(values)), rows)]


def disagreement(reference: Array, candidate: Array) -> str | None:
    """Explains why two arrays cannot be compared value by value; None if they can.

    Nothing is broadcast or converted: a different dtype or shape is itself a difference.
    """
    if _dtype_name(reference) != _dtype_name(candidate):
        return f"dtype {_dtype_name(candidate)} instead of {_dtype_name(reference)}"
    if reference.shape != candidate.shape:
        return f"shape {list(candidate.shape)} instead of {list(reference.shape)}"
    return None


def _dtype_name(array: Array) -> str:
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def measure(reference: Array, candidate: Array) -> Differences:
    """Measures the differences of two arrays of one dtype and shape.

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
        return _to_differences(_integer_distance(a, b).astype(np.float64), np.abs(a.astype(np.float64)), None)
    return _to_differences((a != b).astype(np.float64), np.zeros(a.shape), None)


def by_row(array: Array) -> Array:
    """Reshapes to `[rows, elements]`; a complex number becomes two elements, its real and its imaginary part."""
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)  # [rows, ..., 2]
    return array.reshape(len(array), -1) if array.size else array.reshape(len(array), 0)


def is_finite(array: Array) -> Array:
    """Marks elements that are neither infinite nor NaN: bool `[rows, elements]`; all where the dtype is no float."""
    flat = by_row(array)
    return np.isfinite(flat.astype(np.float64)) if flat.dtype.kind in "fV" else np.ones(flat.shape, bool)


def has_numbers(values: Batch, rows: int) -> Array:
    """Finds the rows without a NaN or an infinity: bool `[rows]`."""
    found = np.ones(rows, bool)
    for one in values.values():
        if one.shape[:1] == (rows,):
            found &= is_finite(one).all(axis=1)
    return found


def _measure_floats(a: Array, b: Array) -> Differences:
    with np.errstate(invalid="ignore", over="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        absolute = np.abs(wide_a - wide_b)
    absolute[(wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))] = 0.0
    # Where it is still NaN, only one side is NaN: inf - inf was set to 0 above or is already infinite.
    absolute[np.isnan(absolute)] = np.inf
    ulp = _integer_distance(_ordinal(a), _ordinal(b)).astype(np.float64)
    ulp[absolute == 0] = 0.0
    return _to_differences(absolute, np.where(np.isfinite(wide_a), np.abs(wide_a), 0.0), ulp)


def _to_differences(absolute: Array, magnitude: Array, ulp: Array | None) -> Differences:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = np.where(absolute == 0, 0.0, absolute / magnitude)
    return Differences(absolute, relative, ulp, magnitude)


def _ordinal(array: Array) -> Array:
    """Maps floats to integers in the same order, so that neighbours differ by one (-0 and 0 by none)."""
    bits = array.view(f"i{array.dtype.itemsize}").astype(np.int64)
    lowest = np.int64(-(2 ** (8 * array.dtype.itemsize - 1)))
    return np.where(bits < 0, lowest - bits, bits)


def _integer_distance(a: Array, b: Array) -> Array:
    """Computes |a - b| of integers as uint64: int64 would overflow."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    with np.errstate(over="ignore"):
        return high.astype(np.uint64) - low.astype(np.uint64)


def worst_elements(differences: Differences, is_within: Array) -> Array:
    """Chooses the element to show of each row: the farthest of those that failed, or of all if none did.

    Returns:
        Indices int64 `[rows]`, -1 for rows without elements.
    """
    rows, elements = differences.absolute.shape
    if elements == 0:
        return np.full(rows, -1)
    is_eligible = ~is_within | is_within.all(axis=1, keepdims=True)
    return np.asarray(np.argmax(np.where(is_eligible, differences.absolute, -1.0), axis=1))


Figures = tuple[float | None, float | None, float | None]
_NO_FIGURES: Figures = (None, None, None)
_BLOCK = 1 << 20  # elements measured at a time


@dataclass(frozen=True)
class BitDifference:
    """Elements of two arrays that differ in at least one bit.

    Args:
        elements: their number.
        first: index of the first one, its axes joined by `;`.
        reference, candidate: its values, numbers or text; with their bits if both print alike.
        figures: its absolute, relative and ulp difference; None where undefined, as for strings.
        largest: the largest of each figure over all elements.
    """

    elements: int
    first: str
    reference: Any
    candidate: Any
    figures: Figures
    largest: Figures


def find_bit_difference(reference: Array, candidate: Array, shape: tuple[int, ...]) -> BitDifference | None:
    """Finds the bits in which two flat arrays of one dtype and length differ; None if they are identical.

    Args:
        shape: the shape before flattening, for the index.
    """
    count, first, largest = 0, -1, _NO_FIGURES
    for at in range(0, len(reference), _BLOCK):
        a, b = reference[at : at + _BLOCK], candidate[at : at + _BLOCK]
        where = np.flatnonzero(_differ_in_bits(a, b))
        if len(where):
            first = at + int(where[0]) if first < 0 else first
            count += len(where)
            largest = _larger_figures(largest, _largest_figures(a[where], b[where]))
    if not count:
        return None
    sides = [side[first : first + 1] for side in (reference, candidate)]
    one, other = (_python_value(side[0]) for side in sides)
    if str(one) == str(other) and reference.dtype != object:
        one, other = (f"{_python_value(side[0])} (0x{side.tobytes()[::-1].hex()})" for side in sides)
    index = ";".join(map(str, np.unravel_index(first, shape))) if shape else ""
    return BitDifference(count, index, one, other, _largest_figures(sides[0], sides[1]), largest)


def _differ_in_bits(a: Array, b: Array) -> Array:
    if a.dtype == object:
        return np.asarray(a != b)
    if a.dtype.itemsize <= 8:
        bits = f"u{a.dtype.itemsize}"
        return np.asarray(a.view(bits) != b.view(bits))
    return np.asarray((a.view("u8") != b.view("u8")).reshape(len(a), -1).any(axis=1))


def _largest_figures(a: Array, b: Array) -> Figures:
    """Finds the largest absolute, relative and ulp difference."""
    if a.dtype == object:
        return _NO_FIGURES
    found = measure(a[:, None], b[:, None])
    ulp = None if found.ulp is None else float(found.ulp.max())
    return float(found.absolute.max()), float(found.relative.max()), ulp


def _larger_figures(one: Figures, other: Figures) -> Figures:
    a, b, c = (max((v for v in pair if v is not None), default=None) for pair in zip(one, other, strict=True))
    return a, b, c


def _python_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if not isinstance(value, np.generic):
        return value
    return value.item() if value.dtype.kind in "biufc" else float(value)
