"""Rules of ops that cut tensors into parts, and join them."""

from __future__ import annotations

from collections.abc import Sequence

from .step import Made, Rules, Step
from .tensors import UNKNOWN, Dim, Open, Value, anything, product


def concat(step: Step) -> Value:
    is_old = step.node.op == "Concat"
    axis, parts = step.single(0 if is_old else -1), list(step.given[1:] if is_old else step.given[:-1])
    origins = tuple(origin for part in parts for origin in part.origins)
    if all(part.numbers is not None for part in parts):
        numbers = tuple(number for part in parts for number in part.numbers or ())
        return Value((len(numbers),), numbers=numbers, origins=origins)
    ranks = {len(part.dims) for part in parts if part.dims is not None}
    if axis is None or len(ranks) != 1:
        return Value(origins=origins)
    rank = ranks.pop()
    for number in range(len(parts)):
        step.rank(number + is_old, rank)
    if any(part.dims is None for part in parts):
        return Value(origins=origins)
    shapes = [part.dims or () for part in parts]
    at = axis % rank
    for other in range(rank):
        fixed = next((dims[other] for dims in shapes if isinstance(dims[other], int)), None)
        for dims in shapes if other != at and fixed is not None else ():
            step.facts.equal(dims[other], fixed)
    known = sum(dim for dims in shapes if isinstance(dim := dims[at], int))
    free = [dims[at] for dims in shapes if not isinstance(dims[at], int)]
    length: Dim = known if not free else anything()
    if len(free) == 1 and isinstance(free[0], Open):
        length = free[0].then("add", known) if known else free[0]
    first = next((dims for dims in shapes if any(isinstance(dim, int) for dim in dims)), shapes[0])
    return Value((*first[:at], length, *first[at + 1 :]), origins=origins)


def pack(step: Step) -> Value:
    parts, axis = step.given, step.number("axis")
    origins = tuple(origin for part in parts for origin in part.origins)
    if all(part.dims == () and axis == 0 for part in parts):
        numbers = tuple(part.numbers[0] if part.numbers else None for part in parts)
        return Value((len(parts),), numbers=numbers, origins=origins)
    dims = next((part.dims for part in parts if part.dims is not None), None)
    if dims is None:
        return Value(origins=origins)
    at = axis % (len(dims) + 1)
    return Value((*dims[:at], len(parts), *dims[at:]), origins=origins)


def unpack(step: Step) -> Made:
    value, count, axis = step.value(0), step.number("num"), step.number("axis")
    dims = step.rank_from(0, axis + 1) if axis >= 0 else value.dims
    if not dims:
        return [Value(origins=value.origins)] * count
    at = axis % len(dims)
    step.facts.require(dims[at], count)
    return [value.shaped((*dims[:at], *dims[at + 1 :]))] * count


def split(step: Step) -> Made:
    is_sized = step.node.op == "SplitV"
    value, axis = step.value(0 if is_sized else 1), step.single(2 if is_sized else 0)
    count, sizes = step.number("num_split", 1), step.whole_numbers(1) if is_sized else None
    if value.dims is None or axis is None:
        return [Value(origins=value.origins)] * count
    at = axis % len(value.dims)
    dim = value.dims[at]
    if sizes is not None and -1 not in sizes:
        step.facts.require(dim, sum(sizes))
    parts: list[Dim] = [dim // count if isinstance(dim, int) else anything()] * count
    for number, size in enumerate(sizes or ()):
        parts[number] = size if size >= 0 else anything()
    if value.numbers is not None and sizes is not None and len(value.dims) == 1 and min(sizes, default=0) >= 0:
        starts = [sum(sizes[:number]) for number in range(count)]
        cut = [value.numbers[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        return [Value((len(numbers),), numbers=numbers) for numbers in cut]
    return [value.shaped((*value.dims[:at], part, *value.dims[at + 1 :])) for part in parts]


def strided_slice(step: Step) -> Value:
    value = step.value(0)
    begins, ends, strides = (step.whole_numbers(number) for number in (1, 2, 3))
    _note_splits(step, begins, ends)
    if begins is None or ends is None or strides is None:
        return Value(origins=value.origins)
    if value.numbers is not None and len(begins) == 1:
        return _slice_numbers(step, value, begins[0], ends[0], strides[0])
    masks = {name: step.number(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    added = [axis for axis in range(len(begins)) if masks["new_axis"] & 1 << axis]
    dims = step.rank_from(0, max(1, len(begins) - len(added))) if not masks["ellipsis"] else None
    if dims is None:
        return Value(origins=value.origins)
    made: list[Dim] = []
    rest = list(dims)
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        bit = 1 << axis
        if axis in added:
            made.append(1)
            continue
        dim = rest.pop(0)
        if masks["shrink_axis"] & bit:
            step.facts.at_least(dim, begin + 1 if begin >= 0 else -begin)
            continue
        is_whole = bool(masks["begin"] & bit) and bool(masks["end"] & bit)
        made.append(dim if is_whole and stride == 1 else _sliced(step, dim, begin, end, stride, masks, bit))
    return value.shaped((*made, *rest))


def _note_splits(step: Step, begins: Sequence[int] | None, ends: Sequence[int] | None) -> None:
    """Notes `x[1:]` and `x[:-1]` of an input of one dimension: their difference is the lengths of ragged rows."""
    leaf = step.sole_origin(0)
    if leaf is not None and leaf.dims is not None and len(leaf.dims) == 1 and begins and ends:
        is_from, is_until = not step.number("begin_mask"), not step.number("end_mask")
        if is_from and not is_until and begins == [1]:
            step.facts.slices.add((leaf, "behind"))
        if is_until and ends == [-1]:
            step.facts.slices.add((leaf, "before"))


def _sliced(step: Step, dim: Dim, begin: int, end: int, stride: int, masks: dict[str, int], bit: int) -> Dim:
    start, stop = None if masks["begin"] & bit else begin, None if masks["end"] & bit else end
    if isinstance(dim, int):
        return len(range(*slice(start, stop, stride).indices(dim)))
    if stop is not None and stop > 0:
        step.facts.at_least(dim, stop)
        return len(range(*slice(start, stop, stride).indices(stop))) if (start or 0) >= 0 else anything()
    step.facts.at_least(dim, (start or 0) + 1)
    if stride == 1 and isinstance(dim, Open) and (start or 0) >= 0:
        removed = (start or 0) - (stop or 0)
        return dim.then("add", -removed) if removed else dim
    return anything()


def _slice_numbers(step: Step, value: Value, begin: int, end: int, stride: int) -> Value:
    numbers = value.numbers or ()
    if step.number("shrink_axis_mask"):
        return Value((), numbers=(numbers[begin],))
    start, stop = None if step.number("begin_mask") else begin, None if step.number("end_mask") else end
    chosen = numbers[start:stop:stride]
    return Value((len(chosen),), numbers=chosen)


def slice_(step: Step) -> Value:
    value, begins, sizes = step.value(0), step.whole_numbers(1), step.whole_numbers(2)
    dims = step.rank(0, len(begins)) if begins else None
    if begins is None or sizes is None or dims is None:
        return Value(origins=value.origins)
    made: list[Dim] = []
    for dim, begin, length in zip(dims, begins, sizes, strict=True):
        if length >= 0:
            step.facts.at_least(dim, begin + length)
            made.append(length)
        elif isinstance(dim, int):
            made.append(dim - begin)
        else:
            made.append(dim if begin == 0 else dim.then("add", -begin) if isinstance(dim, Open) else anything())
    return value.shaped(tuple(made))


def pad(step: Step) -> Value:
    value, amounts = step.value(0), step.whole_numbers(1)
    dims = step.rank(0, len(amounts) // 2) if amounts else None
    if dims is None or amounts is None:
        return UNKNOWN
    made: list[Dim] = []
    for axis, dim in enumerate(dims):
        added = amounts[2 * axis] + amounts[2 * axis + 1]
        is_open = isinstance(dim, Open)
        made.append(dim + added if isinstance(dim, int) else dim.then("add", added) if is_open and added else dim)  # type: ignore[union-attr]
    return Value(tuple(made), origins=value.origins)


def tile(step: Step) -> Value:
    value, counts = step.value(0), step.whole_numbers(1)
    dims = step.rank(0, len(counts)) if counts else None
    if dims is None or counts is None:
        return Value(origins=value.origins)
    pairs = zip(dims, counts, strict=True)
    return value.shaped(tuple(product((dim, count)) if count != 1 else dim for dim, count in pairs))


RULES: Rules = {
    **dict.fromkeys(("Concat", "ConcatV2"), concat),
    **dict.fromkeys(("Split", "SplitV"), split),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), pad),
    "Pack": pack,
    "Unpack": unpack,
    "StridedSlice": strided_slice,
    "Slice": slice_,
    "Tile": tile,
}
