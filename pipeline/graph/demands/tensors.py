"""What is known of a tensor before anything is computed: its shape, and the inputs that its values come from.

An open length is a `Size`, which is found out as the walk goes on: a matrix product says how wide the row in front of
it is, through all that was cut off, padded and laid side by side on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from .demand import Content


class Size:
    """A length that the graph leaves open.

    Attributes:
        value: the length that was found; None as long as none was.
        least: the smallest length that the graph can compute with.
        is_batch: it is the number of rows, which stays open.
        largest: the leaf whose largest value it is, as the longest of the rows of a mask; None for all others.
    """

    __slots__ = ("is_batch", "largest", "least", "value")

    def __init__(self, is_batch: bool = False, largest: Leaf | None = None) -> None:
        self.value: int | None = None
        self.least, self.is_batch, self.largest = 1, is_batch, largest


class Change(NamedTuple):
    """One thing that was done to a length.

    Args:
        kind: `add` or `multiply` by a number; `divide`, without a rest; `window`, a kernel of `number` elements;
            `cover`, a kernel that pads.
        stride: of the kernel.
    """

    kind: str
    number: int
    stride: int = 1


class Open(NamedTuple):
    """An open length, after what was done to it."""

    size: Size
    changes: tuple[Change, ...] = ()

    def then(self, kind: str, number: int, stride: int = 1) -> Open:
        return Open(self.size, (*self.changes, Change(kind, number, stride)))

    def before(self, length: int) -> int | None:
        """Returns the smallest size that gives this length; None if none does."""
        for kind, number, stride in reversed(self.changes):
            if kind == "add":
                length -= number
            elif kind == "divide":
                length *= number
            elif kind == "multiply":
                if not number or length % number:
                    return None
                length //= number
            else:
                length = (length - 1) * stride + (number if kind == "window" else 1)
        return length if length >= 0 else None


class Area(NamedTuple):
    """The product of several open lengths and a number."""

    sides: tuple[Open, ...]
    factor: int


Dim: TypeAlias = "int | Open | Area"
Dims: TypeAlias = "tuple[Dim, ...]"


@dataclass(eq=False)
class Leaf:
    """An input of the graph, or a value that the graph parses out of one; it gathers what is demanded of it.

    Attributes:
        dims: its shape; None as long as the rank is unknown.
        places: of the values of a sparse tensor that are parsed, the parts that say where each of them is.
    """

    name: str
    dtype: str
    dims: Dims | None = None
    low: float | None = None
    high: float | None = None
    hints: list[tuple[float, float]] = field(default_factory=list)
    keys: dict[Any, None] = field(default_factory=dict)
    is_known: bool = False
    content: Content | None = None
    parts: dict[str, Leaf] = field(default_factory=dict)
    places: tuple[Leaf, ...] = ()

    def at_least(self, low: float) -> None:
        self.low = low if self.low is None else max(self.low, low)

    def at_most(self, high: float) -> None:
        self.high = high if self.high is None else min(self.high, high)


class Origin(NamedTuple):
    """Where the values of a tensor come from: `factor * x + shift`, with a shift between two bounds."""

    leaf: Leaf
    factor: float = 1.0
    low: float = 0.0
    high: float = 0.0


class Looked(NamedTuple):
    """A tensor's values are what a table answers to the keys in a leaf.

    Args:
        default: the answer to what is no key; None if it is unknown.
    """

    leaf: Leaf
    default: float | None


@dataclass(frozen=True)
class Value:
    """What is known of a tensor.

    Args:
        dims: its shape; None if the rank is unknown.
        rank_of: where the rank is unknown: the leaf that decides it, and how many dimensions were added to it.
        numbers: the elements of a small tensor, lengths among them; None for an unknown one.
        texts: the elements of a small tensor of strings.
        origins: where the values come from.
        looked: what the values were looked up for.
        items: of a list of tensors, what is known of each.
        table: the keys and the default of a table that it is the handle of.
        rows: of numbers that count the rows, what they are multiplied by; 0 if that is unknown, None for all others.
    """

    dims: Dims | None = None
    rank_of: tuple[Leaf, int] | None = None
    numbers: tuple[Dim | float | None, ...] | None = None
    texts: tuple[bytes, ...] | None = None
    origins: tuple[Origin, ...] = ()
    looked: tuple[Looked, ...] = ()
    items: Value | None = None
    table: str = ""
    rows: int | None = None

    def shaped(self, dims: Dims | None) -> Value:
        """Returns the same values in another shape."""
        return replace(self, dims=dims, rank_of=None, numbers=None)

    def bare(self) -> Value:
        """Returns a tensor of this shape with other values."""
        return Value(self.dims, self.rank_of)


UNKNOWN = Value()


def anything() -> Open:
    """Returns a length of which nothing is known."""
    return Open(Size())


def product(dims: Iterable[Dim]) -> Dim:
    """Returns the number of elements of a shape."""
    factor, sides = 1, list[Open]()
    for dim in dims:
        if isinstance(dim, int):
            factor *= dim
        elif isinstance(dim, Open):
            sides.append(dim)
        else:
            factor, sides = factor * dim.factor, [*sides, *dim.sides]
    if not sides:
        return factor
    if len(sides) == 1:
        return sides[0] if factor == 1 else sides[0].then("multiply", factor)
    return Area(tuple(sides), factor)


def root(number: int, degree: int) -> int | None:
    """Returns the whole root of a number; None if it has none."""
    near = round(number ** (1 / degree)) if number > 0 else 0
    return near if near > 0 and math.prod([near] * degree) == number else None
