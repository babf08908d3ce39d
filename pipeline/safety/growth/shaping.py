"""Rules of the ops that make, cut, join and stretch tensors, and so compute the shapes of others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from .arithmetic import REDUCING, apply, numbers_along, reduce_dims, require_rank, slice_length
from .values import (
    MOST_NUMBERS,
    Dims,
    Number,
    Unknown,
    Value,
    add,
    axis_of,
    broadcast,
    dims_of,
    elements_of,
    rank_of,
    shape_from,
)


class Operator(Protocol):
    """A node, as the rules see it."""

    @property
    def op(self) -> str: ...

    def integer(self, name: str, default: int = 0) -> int: ...

    def integers(self, name: str) -> list[int]: ...

    def dims(self, name: str) -> Dims | None: ...

    def text(self, name: str) -> str: ...

    def is_integer(self, name: str) -> bool: ...

    def item(self, name: str) -> int: ...


Inputs: TypeAlias = Sequence[Value]
Result: TypeAlias = "Value | list[Value]"
Rule: TypeAlias = Callable[[Operator, Inputs], Result]


# Of a shape that is given.


def fill(op: Operator, given: Inputs) -> Value:
    made = Value(shape_from(given[0]), given[1].item)
    return made.with_numbers(list(given[1].numbers or ()) * elements_of(made.dims or ())) if is_few(made) else made


def is_few(value: Value) -> bool:
    """Returns True if all elements may be known."""
    return value.dims is not None and min(value.dims, default=0) >= 0 and elements_of(value.dims) <= MOST_NUMBERS


def broadcast_to(op: Operator, given: Inputs) -> Value:
    return given[0].shaped(shape_from(given[1]))


def reshape(op: Operator, given: Inputs) -> Value:
    value, asked = given[0], given[1].numbers
    if asked is None:
        raise Unknown
    known = [int(number) for number in asked if number is not None and number >= 0]
    open_places = [place for place, number in enumerate(asked) if number is None or number < 0]
    dims = [-1 if place in open_places else int(number or 0) for place, number in enumerate(asked)]
    if len(open_places) == 1 and value.dims is not None:
        rest = max(1, elements_of(value.dims) // max(1, math.prod(known)))
        dims[open_places[0]] = rest if min(value.dims, default=0) >= 0 else -rest
    return value.shaped(dims).with_numbers(value.numbers)


def shape_of(op: Operator, given: Inputs) -> Result:
    made = [_shape(value) for value in given]
    return made if op.op == "ShapeN" else made[0]


def _shape(value: Value) -> Value:
    dims = dims_of(value)
    return Value((len(dims),), 4).with_numbers([length if length >= 0 else None for length in dims])


def size_of(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    return Value((), 4).with_numbers([math.prod(dims) if min(dims, default=0) >= 0 else None])


def rank(op: Operator, given: Inputs) -> Value:
    return Value((), 4).with_numbers([rank_of(given[0])])


# Series.


def series(op: Operator, given: Inputs) -> Value:
    start, limit, delta = (one.number for one in given[:3])
    if start is None or limit is None or not delta:
        raise Unknown
    count = max(0, math.ceil((limit - start) / delta))
    numbers = [start + delta * place for place in range(count)] if count <= MOST_NUMBERS else None
    return Value((count,), max(4, given[0].item)).with_numbers(numbers)


def ragged_series(op: Operator, given: Inputs) -> list[Value]:
    total = 0
    rows = max(len(one.numbers or ()) for one in given[:3])
    columns = [one.numbers * rows if one.numbers and len(one.numbers) == 1 else one.numbers for one in given[:3]]
    for start, limit, delta in zip(*(column or () for column in columns), strict=True):
        if start is not None and limit is not None and delta:
            total += max(0, math.ceil((limit - start) / delta))
    return [Value((rows + 1,), 4), Value((total,), 4)]


# Larger.


def tile(op: Operator, given: Inputs) -> Value:
    times = shape_from(given[1])
    dims = (-1,) * len(times) if given[0].dims is None else given[0].dims
    if len(dims) != len(times):
        raise Unknown
    made = given[0].shaped(_product(*pair) for pair in zip(dims, times, strict=True))
    if len(times) == 1 and is_few(made) and given[0].numbers is not None:
        return made.with_numbers(given[0].numbers * times[0])
    return made


def _product(one: int, other: int) -> int:
    total = abs(one) * abs(other)
    return -total if one < 0 or other < 0 else total


def pad(op: Operator, given: Inputs) -> Value:
    numbers = given[1].numbers
    if numbers is None or len(numbers) % 2:
        raise Unknown
    dims = (-1,) * (len(numbers) // 2) if given[0].dims is None else given[0].dims
    require_rank(dims, len(numbers) // 2)
    sides = zip(numbers[::2], numbers[1::2], strict=True)
    return given[0].shaped(_padded(length, *two) for length, two in zip(dims, sides, strict=True))


def _padded(length: int, before: Number | None, after: Number | None) -> int:
    more = max(0, int(before or 0)) + max(0, int(after or 0))
    return add(length, -more if (before is None or after is None) and more else more) if more else length


def concat(op: Operator, given: Inputs) -> Value:
    *values, axis_value = [*given[1:], given[0]] if op.op == "Concat" else given
    parts = [value for value in values if value.dims is not None]
    if not parts:
        raise Unknown
    dims = list(parts[0].dims or ())
    axis = axis_of(axis_value.number, len(dims))
    length = 0
    for part in parts:
        length = add(length, require_rank(dims_of(part), len(dims))[axis])
    dims[axis] = length if len(parts) == len(values) else -max(1, abs(length))
    made = Value(tuple(dims), max(part.item for part in parts))
    return made.with_numbers([number for value in values for number in _numbers(value)]) if len(dims) == 1 else made


def _numbers(value: Value) -> Sequence[Number | None]:
    if value.numbers is not None:
        return value.numbers
    return [None] * elements_of(value.dims) if value.dims is not None and is_few(value) else ()


def pack(op: Operator, given: Inputs) -> Value:
    parts = [value for value in given if value.dims is not None]
    if not parts:
        raise Unknown
    dims = list(broadcast(*(dims_of(part) for part in parts)))
    dims.insert(axis_of(op.integer("axis"), len(dims) + 1), len(given))
    made = Value(tuple(dims), max(part.item for part in parts))
    return made.with_numbers([number for value in given for number in _numbers(value)]) if len(dims) <= 2 else made


# Parts.


def unpack(op: Operator, given: Inputs) -> list[Value]:
    dims, count = list(dims_of(given[0])), op.integer("num")
    axis = axis_of(op.integer("axis"), len(dims))
    if not 0 <= count <= MOST_NUMBERS:
        raise Unknown
    del dims[axis]
    parts = [given[0].shaped(dims) for _ in range(count)]
    if not dims and given[0].numbers is not None:
        parts = [part.with_numbers([number]) for part, number in zip(parts, given[0].numbers, strict=False)]
    return parts


def split(op: Operator, given: Inputs) -> list[Value]:
    values, axis_value = (given[1], given[0]) if op.op == "Split" else (given[0], given[2])
    dims, count = list(dims_of(values)), op.integer("num_split")
    axis = axis_of(axis_value.number, len(dims))
    if not 0 < count <= 10_000:
        raise Unknown
    lengths = [dims[axis] // count if dims[axis] >= 0 else -1] * count
    if op.op == "SplitV":
        asked = given[1].numbers or ()
        lengths = [int(one) if one is not None and one >= 0 else -1 for one in asked][:count]
    made, start = [], 0
    for length in lengths:
        part = values.shaped([*dims[:axis], length, *dims[axis + 1 :]])
        if len(dims) == 1 and length >= 0 and start >= 0:
            part = part.with_numbers(numbers_along(values, range(start, start + length)) if length <= 999 else None)
        made.append(part)
        start = start + length if length >= 0 and start >= 0 else -1
    return made


def cut(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    begins, sizes = ([*(one.numbers or [None] * len(dims))] for one in given[1:3])
    if len(begins) != len(dims) or len(sizes) != len(dims):
        raise Unknown
    lengths = []
    for length, begin, size in zip(dims, begins, sizes, strict=True):
        rest = length - int(begin) if length >= 0 and begin is not None else -1
        lengths.append(-1 if size is None else int(size) if size >= 0 else rest)
    made = given[0].shaped(lengths)
    if len(dims) == 1 and begins[0] is not None and is_few(made):
        return made.with_numbers(numbers_along(given[0], range(int(begins[0]), int(begins[0]) + lengths[0])))
    return made


def strided_slice(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    columns = [one.numbers for one in given[1:4]]
    spec = max((len(column) for column in columns if column is not None), default=0) or (given[1].dims or (0,))[0]
    rows = [[None] * spec if column is None else list(column) for column in columns]
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    open_begin, open_end, ellipsis, new_axis, shrink = (op.integer(name) for name in names)
    taken = sum(1 for place in range(spec) if not (ellipsis | new_axis) >> place & 1)
    lengths, at = list[int](), 0
    for place, (begin, end, step) in enumerate(zip(*rows, strict=True)):
        bit = 1 << place
        if ellipsis & bit:
            lengths += dims[at : at + len(dims) - taken]
            at += len(dims) - taken
        elif new_axis & bit:
            lengths.append(1)
        else:
            if at >= len(dims):
                raise Unknown
            if not shrink & bit:
                is_known = (begin is not None or open_begin & bit) and (end is not None or open_end & bit)
                ends = (None if open_begin & bit else begin, None if open_end & bit else end)
                lengths.append(slice_length(dims[at], *ends, step) if is_known else -1)
            at += 1
    made = given[0].shaped([*lengths, *dims[at:]])
    if len(dims) != 1 or spec != 1 or ellipsis or new_axis or given[0].numbers is None or rows[0][0] is None:
        return made
    begin, end, step = (rows[0][0], rows[1][0], rows[2][0])
    if shrink & 1:
        return made.with_numbers(numbers_along(given[0], [int(begin)]))
    if step is None or (end is None and not open_end & 1):
        return made
    part = slice(None if open_begin & 1 else int(begin), None if open_end & 1 or end is None else int(end), int(step))
    return made.with_numbers(given[0].numbers[part])


def gather(op: Operator, given: Inputs) -> Value:
    values, places = dims_of(given[0]), dims_of(given[1])
    axis = axis_of(given[2].number if len(given) > 2 else 0, len(values))
    batch = op.integer("batch_dims")
    made = given[0].shaped([*values[:axis], *places[max(0, batch) :], *values[axis + 1 :]])
    if len(values) == 1 and given[0].numbers is not None and given[1].numbers is not None:
        where = [-MOST_NUMBERS - 1 if place is None else int(place) for place in given[1].numbers]
        return made.with_numbers(numbers_along(given[0], where))
    return made


def gather_nd(op: Operator, given: Inputs) -> Value:
    values, places = dims_of(given[0]), dims_of(given[1])
    if not places or not 0 <= places[-1] <= len(values):
        raise Unknown
    made = given[0].shaped([*places[:-1], *values[places[-1] :]])
    if len(values) != 1 or places[-1] != 1 or given[1].numbers is None or None in given[1].numbers:
        return made
    return made.with_numbers(numbers_along(given[0], [int(place or 0) for place in given[1].numbers]))


def expand_dims(op: Operator, given: Inputs) -> Value:
    dims = list(dims_of(given[0]))
    dims.insert(axis_of(given[1].number, len(dims) + 1), 1)
    return given[0].shaped(dims).with_numbers(given[0].numbers)


def squeeze(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    axes = {axis % len(dims) for axis in op.integers("squeeze_dims")} if dims else set[int]()
    if not axes and min(dims, default=0) < 0:
        raise Unknown
    kept = [n for axis, n in enumerate(dims) if (axis not in axes if axes else n != 1)]
    return given[0].shaped(kept).with_numbers(given[0].numbers)


def transpose(op: Operator, given: Inputs) -> Value:
    dims, order = dims_of(given[0]), given[1].numbers
    if order is None or len(order) != len(dims):
        raise Unknown
    made = given[0].shaped(dims[axis_of(axis, len(dims))] for axis in order)
    return made.with_numbers(given[0].numbers) if len(dims) <= 1 else made


def reduce(op: Operator, given: Inputs) -> Value:
    dims, keeps = dims_of(given[0]), bool(op.integer("keep_dims"))
    axes = given[1].numbers if len(given) > 1 else None
    if axes is None:
        raise Unknown
    made = given[0].shaped(reduce_dims(dims, axes, keeps))
    if op.op in REDUCING and given[0].numbers and elements_of(dims) == len(given[0].numbers) and is_single(made):
        function = REDUCING[op.op]
        return made.with_numbers([apply(lambda *numbers: function(numbers), *given[0].numbers)])
    return made


def is_single(value: Value) -> bool:
    """Returns True for a tensor of one element."""
    return is_few(value) and elements_of(dims_of(value)) == 1


def argument_of_most(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    return Value(reduce_dims(dims, [given[1].number], keeps=False), 4)


# Products.


def matrix_product(op: Operator, given: Inputs) -> Value:
    one, other = dims_of(given[0]), dims_of(given[1])
    if min(len(one), len(other)) < 2:
        raise Unknown
    rows = one[-1 if op.integer("transpose_a") or op.integer("adj_x") else -2]
    columns = other[-2 if op.integer("transpose_b") or op.integer("adj_y") else -1]
    return Value((*broadcast(one[:-2], other[:-2]), rows, columns), max(given[0].item, given[1].item))


def einsum(op: Operator, given: Inputs) -> Value:
    equation = op.text("equation").replace(" ", "")
    if "..." in equation or not re.fullmatch(r"[A-Za-z,]*->[A-Za-z]*", equation):
        raise Unknown
    before, _, after = equation.partition("->")
    lengths: dict[str, int] = {}
    for labels, value in zip(before.split(","), given, strict=True):
        for label, length in zip(labels, dims_of(value), strict=True):
            lengths[label] = broadcast((lengths.get(label, 1),), (length,))[0]
    return given[0].shaped(lengths[label] for label in after)


def diagonal(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    return given[0].shaped(dims * 2)


def matrix_diagonal(op: Operator, given: Inputs) -> Value:
    dims = dims_of(given[0])
    bands = [int(number) for number in (given[1].numbers or (0,)) if number is not None] if len(given) > 1 else [0]
    batch = dims[:-2] if len(bands) == 2 and bands[0] != bands[1] else dims[:-1]
    asked = [one.number for one in given[2:4]]
    asked += [None] * (2 - len(asked))
    least = (add(dims[-1], max(0, -max(bands, default=0))), add(dims[-1], max(0, min(bands, default=0))))
    if all(one == -1 for one in asked) or len(given) < 4:  # square
        least = (max(least, key=abs),) * 2
    lengths = [int(one) if one is not None and one >= 0 else other for one, other in zip(asked, least, strict=True)]
    return given[0].shaped([*batch, *lengths])
