"""What is known of a tensor before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

Number: TypeAlias = "int | float"
# Lengths of the dimensions; -n for an unknown length of at least n.
Dims: TypeAlias = "tuple[int, ...]"

MOST_NUMBERS = 1024  # elements of a tensor whose numbers are known
STRING_BYTES = 24  # of an empty string in memory
_MOST_LENGTH = 1 << 80  # longer than any
_MOST_RANK = 254  # tensorflow/core/framework/tensor_shape.h


class Value(NamedTuple):
    """What is known of a tensor, or of what a handle leads to.

    Args:
        dims: its shape; None if even the rank is unknown.
        item: bytes of an element, at least.
        numbers: its elements, row by row, if they are few; None for an unknown one.
        text: the content of a single string.
    """

    dims: Dims | None = None
    item: int = 1
    numbers: tuple[Number | None, ...] | None = None
    text: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """The memory that it takes at least."""
        return 0 if self.dims is None else elements_of(self.dims) * self.item

    @property
    def number(self) -> Number | None:
        """The only number of it; None if it is unknown."""
        return self.numbers[0] if self.numbers is not None and len(self.numbers) == 1 else None

    def shaped(self, dims: Iterable[int] | None, item: int | None = None) -> Value:
        """Returns a value of another shape, whose numbers are unknown."""
        return Value(None if dims is None else checked(dims), self.item if item is None else item)

    def with_numbers(self, numbers: Sequence[Number | None] | None) -> Value:
        """Returns this value with its numbers, if they are as many as its elements, and few."""
        if numbers is None or self.dims is None or len(numbers) > MOST_NUMBERS or len(numbers) != math.prod(self.dims):
            return self
        if self.dims and min(self.dims) < 0:
            return self
        return Value(self.dims, self.item, tuple(numbers), self.text)


UNKNOWN = Value()


class Unknown(Exception):
    """A shape cannot be told: what it depends on is unknown, or is no shape at all."""


def checked(dims: Iterable[int]) -> Dims:
    """Returns lengths that a shape may have.

    Raises:
        Unknown: it has too many, or a length that nobody can count.
    """
    lengths = tuple(dims)
    if lengths and (len(lengths) > _MOST_RANK or max(lengths) > _MOST_LENGTH or min(lengths) < -_MOST_LENGTH):
        raise Unknown
    return lengths


def elements_of(dims: Dims) -> int:
    """Returns how many elements a shape has at least."""
    return abs(math.prod(dims))


def rank_of(value: Value) -> int:
    """Returns the rank.

    Raises:
        Unknown: it is.
    """
    return len(dims_of(value))


def dims_of(value: Value) -> Dims:
    """Returns the lengths; Raises Unknown if not even the rank is known."""
    if value.dims is None:
        raise Unknown
    return value.dims


def axis_of(axis: Number | None, rank: int) -> int:
    """Returns an axis counted from the front; Raises Unknown if it is none."""
    if axis is None or not -rank <= axis < rank:
        raise Unknown
    return int(axis) % rank


def shape_from(value: Value) -> Dims:
    """Returns the shape that the numbers of a tensor ask for; an unknown number is an unknown length.

    Raises:
        Unknown: not even how many there are is known.
    """
    if value.numbers is None:
        if value.dims is not None and len(value.dims) == 1 and 0 <= value.dims[0] <= _MOST_RANK:
            return (-1,) * value.dims[0]
        raise Unknown
    return checked(-1 if number is None or number < 0 else int(number) for number in value.numbers)


def add(one: int, other: int) -> int:
    """Adds lengths; an unknown one stays unknown."""
    total = abs(one) + abs(other)
    return -total if one < 0 or other < 0 else total


def broadcast(*shapes: Dims) -> Dims:
    """Returns the shape that shapes are stretched to (numpy.org/doc/stable/user/basics.broadcasting.html)."""
    different = {shape for shape in shapes if shape}
    if len(different) <= 1:
        return next(iter(different), ())
    rank = max(map(len, shapes), default=0)
    rows = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_common(lengths) for lengths in zip(*rows, strict=True))


def _common(lengths: Sequence[int]) -> int:
    known = [length for length in lengths if length >= 0 and length != 1]
    if known:  # an unknown length is the same, or one
        return known[0]
    unknown = min(lengths)
    return unknown if unknown < 0 else 1
