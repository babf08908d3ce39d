"""One node that the walk looks at, with what is known of its inputs, and what a rule may demand of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..nodes import dims_of
from ..ops import dtype_name
from ..protos import AttrValue, NodeDef
from .tensors import UNKNOWN, Area, Dim, Dims, Leaf, Open, Origin, Size, Value, anything, root

_LENGTH = 8  # of rows that are as long as the largest number of an input says, where nothing else decides it

Made: TypeAlias = "Value | Sequence[Value] | Mapping[str, Sequence[Value]]"


class Facts:
    """What holds for the whole walk.

    Attributes:
        batch: the number of rows.
        has_changed: something was found out, so that the graph has to be looked at again.
        groups: by the leaves of indices, values and shape (of values and row splits; of numbers of rows), what kind of
            one value they are, and its shape.
        slices: leaves of which all but the first or the last element are taken.
        dense: tables that refuse the keys by which they mark what is empty.
        keys: returns the keys of a table, by the name of its node.
        guesses: lengths that would do, for when nothing demands them.
        least_ranks: by leaf the least rank that would do, for when nothing demands one.
    """

    def __init__(self, keys: Callable[[str], Sequence[Any]]) -> None:
        self.batch, self.has_changed, self.keys = Size(is_batch=True), False, keys
        self.guesses: list[tuple[Dim, int]] = []
        self.least_ranks: dict[Leaf, int] = {}
        self.slices: set[tuple[Leaf, str]] = set()
        self.dense = set[str]()
        self.groups: dict[tuple[Leaf, ...], tuple[str, Dims]] = {}

    def require(self, dim: Dim | None, length: int) -> None:
        """Demands that a length is this one, if it is open; the largest value of a leaf is that of each of its rows."""
        if isinstance(dim, Open) and dim.size.largest is not None:
            if not dim.changes:
                dim.size.largest.at_least(length)
                dim.size.largest.at_most(length)
        elif isinstance(dim, Area):
            sides = [side for side in dim.sides if not side.size.is_batch]
            side = root(length // dim.factor, len(sides)) if dim.factor and length % dim.factor == 0 else None
            if len(sides) < len(dim.sides) or not dim.factor or length % dim.factor:
                return
            for each in sides if side is not None else ():
                self.require(each, side or 1)
            if side is None:
                self.guesses += [(each, 1) for each in sides[:-1]]
        elif isinstance(dim, Open) and not dim.size.is_batch and dim.size.value is None:
            found = dim.before(length)
            if found:
                dim.size.value, self.has_changed = found, True

    def set_rank(self, leaf: Leaf, rank: int) -> None:
        """Demands a rank of a leaf that has none yet."""
        if leaf.dims is None and rank > 0:
            leaf.dims = (Open(self.batch), *(anything() for _ in range(rank - 1)))
            self.has_changed = True

    def equal(self, one: Dim | None, other: Dim | None) -> None:
        """Demands that two lengths are the same."""
        if isinstance(one, int):
            self.require(other, one)
        elif isinstance(other, int):
            self.require(one, other)
        elif isinstance(one, Open) and isinstance(other, Open):
            for length, largest in ((one, other), (other, one)):
                if largest.size.largest is not None and length.size.largest is None:
                    self.guesses.append((length, _LENGTH))

    def at_least(self, dim: Dim | None, length: int) -> None:
        """Demands that a length is not below this one."""
        if isinstance(dim, Open) and not dim.size.is_batch:
            dim.size.least = max(dim.size.least, dim.before(length) or 1)


class Step:
    """A node, and what is known of its inputs."""

    def __init__(self, node: NodeDef, given: Sequence[Value], facts: Facts) -> None:
        self.node, self.given, self.facts = node, given, facts

    def value(self, number: int) -> Value:
        return self.given[number] if -len(self.given) <= number < len(self.given) else UNKNOWN

    def dims(self, number: int) -> Dims | None:
        return self.value(number).dims

    # Attributes.

    def attribute(self, name: str) -> AttrValue | None:
        return self.node.attr.get(name)

    def number(self, name: str, default: int = 0) -> int:
        found = self.attribute(name)
        return default if found is None else int(found.i)

    def flag(self, *names: str) -> bool:
        return any(found.b for name in names if (found := self.attribute(name)) is not None)

    def text(self, name: str, default: str = "") -> str:
        found = self.attribute(name)
        return default if found is None else found.s.decode()

    def integers(self, name: str) -> list[int]:
        found = self.attribute(name)
        return [] if found is None else list(found.list.i)

    def dtype(self, name: str, default: str = "float32") -> str:
        found = self.attribute(name)
        return default if found is None else dtype_name(found.type)

    def dtypes(self, name: str) -> list[str]:
        found = self.attribute(name)
        return [] if found is None else [dtype_name(dtype) for dtype in found.list.type]

    def shapes(self, name: str) -> list[tuple[int | None, ...] | None]:
        found = self.attribute(name)
        return [] if found is None else [dims_of(shape) for shape in found.list.shape]

    # Constants among the inputs.

    def whole_numbers(self, number: int) -> list[int] | None:
        """Returns an input's elements, if all are known."""
        found = self.value(number).numbers
        if found is None or any(isinstance(each, Open | Area) or each is None for each in found):
            return None
        return [int(each) for each in found]  # type: ignore[arg-type]  # the others are excluded

    def single(self, number: int) -> int | None:
        found = self.whole_numbers(number)
        return found[0] if found is not None and len(found) == 1 else None

    # Demands.

    def rank(self, number: int, rank: int) -> Dims | None:
        """Demands a rank of an input; returns its shape, None if it is unknown or of another rank."""
        value = self.value(number)
        if value.dims is None and value.rank_of is not None:
            leaf, added = value.rank_of
            self.facts.set_rank(leaf, rank - added)
        return value.dims if value.dims is not None and len(value.dims) == rank else None

    def rank_from(self, number: int, rank: int) -> Dims | None:
        """Demands a rank of at least this one; returns the shape."""
        value = self.value(number)
        if value.dims is None and value.rank_of is not None:  # a kernel behind this may demand more
            leaf, added = value.rank_of
            self.facts.least_ranks[leaf] = max(rank - added, self.facts.least_ranks.get(leaf, 0))
        return value.dims if value.dims is not None and len(value.dims) >= rank else None

    def within(self, number: int, low: float | None = None, high: float | None = None) -> None:
        """Demands that an input's values are not below or above a number."""
        for leaf, factor, least, most in self.value(number).origins:
            if not factor:
                continue
            bounds = [
                None if low is None else (low - least) / factor,
                None if high is None else (high - most) / factor,
            ]
            lower, upper = bounds if factor > 0 else bounds[::-1]
            is_whole = "int" in leaf.dtype
            if lower is not None:
                leaf.at_least(math.ceil(lower - 1e-9) if is_whole else lower)
            if upper is not None:
                leaf.at_most(math.floor(upper + 1e-9) if is_whole else upper)

    def index(self, number: int, size: Dim | None) -> None:
        """Demands that an input's values are indices below a size."""
        is_open = isinstance(size, Open) and size.size.is_batch
        self.within(number, 0, size - 1 if isinstance(size, int) else None if is_open else 0)
        for leaf, default in self.value(number).looked:
            if default is not None and isinstance(size, int) and not 0 <= default < size:
                leaf.is_known = True

    def row_numbers(self, number: int, is_rising: bool = False) -> None:
        """Notes that an input's values are numbers of rows, so that the rows of all inputs are one value."""
        leaf = self.sole_origin(number)
        if leaf is not None and "int" in leaf.dtype and (is_rising or (leaf,) not in self.facts.groups):
            self.facts.groups[leaf,] = ("rising" if is_rising else "numbers", ())

    def hint(self, number: int, low: float, high: float) -> None:
        """Says that an input's values are meant to be in a range."""
        for leaf, factor, least, most in self.value(number).origins:
            ends = sorted(((low - least) / factor, (high - most) / factor)) if factor else []
            if ends:
                leaf.hints.append((ends[0], ends[1]))

    def sole_origin(self, number: int) -> Leaf | None:
        """Returns the leaf that an input's bytes come from, if it is one, unchanged."""
        origins = self.value(number).origins
        return origins[0].leaf if len(origins) == 1 and origins[0][1:] == (1.0, 0.0, 0.0) else None


def shifted(value: Value, low: float, high: float) -> Value:
    """Returns a value with numbers between two bounds added."""
    origins = tuple(Origin(o.leaf, o.factor, o.low + low, o.high + high) for o in value.origins)
    looked = tuple(each._replace(default=None if each.default is None else each.default + low) for each in value.looked)
    return Value(value.dims, value.rank_of, origins=origins, looked=looked if low == high else ())


def scaled(value: Value, factor: float) -> Value:
    """Returns a value multiplied by a number."""
    origins = []
    for leaf, before, low, high in value.origins:
        ends = sorted((low * factor, high * factor))
        origins.append(Origin(leaf, before * factor, ends[0], ends[1]))
    return Value(value.dims, value.rank_of, origins=tuple(origins))


Rule: TypeAlias = Callable[[Step], Made]
Rules: TypeAlias = "dict[str, Rule]"
