"""Rules of ops that change or demand a shape: kernels, reshapes, slices, reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .step import Made, Rules, Step
from .tensors import UNKNOWN, Dim, Dims, Open, Value, anything, product

_KEEPING = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Digamma Elu Erf Erfc Exp Expm1 Floor Inv Invert
    IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p LogSoftmax LogicalNot Neg NextAfter OnesLike Reciprocal Relu Relu6
    Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Square Tan Tanh ZerosLike LRN L2Normalize
    StringLength StringToHashBucketFast
    StringToHashBucketStrong StringToHashBucket AsString StaticRegexFullMatch RegexFullMatch Bucketize Cumsum Cumprod
    LookupTableFind LookupTableFindV2 ClipByValue"""
_BINARY = """Add AddV2 Sub Mul RealDiv Div FloorDiv DivNoNan TruncateDiv Maximum Minimum Pow SquaredDifference FloorMod
    Mod Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr Xdivy Xlogy MulNoNan Atan2 Zeta"""
_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "ArgMax", "ArgMin", "EuclideanNorm")


def broadcast(step: Step) -> Value:
    """Two inputs are stretched to a common shape."""
    for one, other in ((0, 1), (1, 0)):
        fixed = step.dims(other)
        if step.dims(one) is None and fixed and any(isinstance(dim, int) and dim > 1 for dim in fixed):
            step.rank(one, max(2, len(fixed)))
    left, right = step.dims(0), step.dims(1)
    if left is None or right is None:
        rest = step.value(0 if left is None else 1)
        is_single = (right if left is None else left) == ()
        return rest.bare() if is_single or rest.rank_of else UNKNOWN
    longest = max(len(left), len(right))
    padded = [(1,) * (longest - len(side)) + side for side in (left, right)]
    dims: list[Dim] = []
    for a, b in zip(*padded, strict=True):
        if a == 1 or b == 1:
            dims.append(b if a == 1 else a)
            continue
        step.facts.equal(a, b)
        dims.append(b if isinstance(b, int) else a)
    return Value(tuple(dims))


def keep(step: Step) -> Value:
    return step.value(0).bare()


def matmul(step: Step) -> Value:
    names = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))
    kernel, other = step.dims(1), step.dims(0)
    left = step.rank(0, 2) if step.node.op == "MatMul" else step.rank_from(0, len(other or kernel or (1, 1)))
    right = step.rank(1, 2) if step.node.op == "MatMul" else step.rank_from(1, 2)
    if left is None or right is None:
        return UNKNOWN
    sides = [
        (*dims[:-2], dims[-1], dims[-2]) if step.flag(*flags) else dims
        for dims, flags in zip((left, right), names, strict=True)
    ]
    step.facts.equal(sides[0][-1], sides[1][-2])
    return Value((*sides[0][:-1], sides[1][-1]))


def _channels(step: Step, rank: int) -> int:
    return 1 if step.text("data_format", "NHWC").startswith("NC") else rank - 1


def convolve(step: Step) -> Value:
    kernel = step.dims(1)
    if kernel is None or len(kernel) < 3:
        return UNKNOWN
    dims = step.rank(0, len(kernel))
    if dims is None:
        return UNKNOWN
    at, is_deep = _channels(step, len(dims)), "Depthwise" in step.node.op
    if not isinstance(dims[at], int):
        step.facts.equal(dims[at], kernel[-2])
    out: Dim = product(kernel[-2:]) if is_deep else kernel[-1]
    rates = step.integers("dilations") or [1] * len(dims)
    return Value(_windows(step, dims, at, out, [dim if isinstance(dim, int) else 1 for dim in kernel[:-2]], rates))


def pool(step: Step) -> Value:
    sizes = step.integers("ksize")
    dims = step.rank(0, len(sizes)) if sizes else None
    if dims is None:
        return UNKNOWN
    at = _channels(step, len(dims))
    kernel = [size for axis, size in enumerate(sizes) if axis not in (0, at)]
    return Value(_windows(step, dims, at, dims[at], kernel, [1] * len(dims)))


def _windows(
    step: Step, dims: Dims, channels: int, out: Dim, kernel: Sequence[int], rates: Sequence[int]
) -> tuple[Dim, ...]:
    strides, is_covered = step.integers("strides") or [1] * len(dims), step.text("padding") != "VALID"
    made: list[Dim] = []
    spatial = iter(kernel)
    for axis, dim in enumerate(dims):
        if axis in (0, channels):
            made.append(dim if axis == 0 else out)
            continue
        size, stride = (next(spatial) - 1) * rates[axis] + 1, strides[axis]
        if isinstance(dim, int):
            made.append(max(0, -(-(dim if is_covered else dim - size + 1) // stride)))
        elif isinstance(dim, Open):
            made.append(dim.then("cover" if is_covered else "window", size, stride))
            step.facts.at_least(made[-1], 1)
        else:
            made.append(anything())
    return tuple(made)


def bias(step: Step) -> Value:
    added = step.dims(1)
    dims = step.rank_from(0, 2)
    if dims is not None and added:
        step.facts.equal(dims[_channels(step, len(dims))], added[0])
    return step.value(0).bare()


def batch_norm(step: Step) -> Made:
    dims, scale = step.rank(0, 4), step.dims(1)
    if dims is not None and scale:
        step.facts.equal(dims[_channels(step, 4)], scale[0])
    return [step.value(0).bare(), *[UNKNOWN] * 5]


def reshape(step: Step) -> Value:
    value, wanted = step.value(0), step.value(1).numbers
    if wanted is None:
        length = (step.dims(1) or (None,))[0]
        return value.shaped(tuple(anything() for _ in range(length)) if isinstance(length, int) else None)
    target = [each if isinstance(each, int | tuple) else anything() for each in wanted]
    fixed = [each for each in target[1:] if isinstance(each, int)]
    is_by_row = bool(target) and len(fixed) == len(target) - 1 and -1 not in fixed
    is_by_row = is_by_row and not (isinstance(target[0], int) and target[0] >= 0)
    width = math.prod(fixed)
    if value.dims is None and is_by_row and width > 1:
        dims = step.rank(0, 2)
        if dims is not None:
            step.facts.require(dims[1], width)
    if is_by_row and value.dims:
        _require_elements(step, value.dims[1:], width)
    elif value.dims and all(isinstance(each, int) and each >= 0 for each in target):
        step.facts.require(product(value.dims), math.prod(each for each in target if isinstance(each, int)))
    return value.shaped(tuple(_reshaped(value.dims, target, is_by_row)))


def _require_elements(step: Step, dims: Dims, width: int) -> None:
    """Demands that a row has so many elements, or a part of it."""
    known = math.prod(dim for dim in dims if isinstance(dim, int))
    sides = [dim for dim in dims if isinstance(dim, Open)]
    if not known or width % known or width == known:
        return
    if sides:
        step.facts.require(product((*sides, known)), width)


def _reshaped(dims: Dims | None, target: Sequence[Dim | int], is_by_row: bool) -> list[Dim]:
    whole = product(dims) if dims is not None else None
    rest: Dim = anything()
    known = [dim for dim in target if dim != -1]
    if dims:
        row, first = product(dims[1:]), dims[0]
        if is_by_row and isinstance(row, int) and row == math.prod(dim for dim in target[1:] if isinstance(dim, int)):
            rest = first
        elif known and known[0] == first and isinstance(product(known[1:]), int):
            part = product(known[1:])
            assert isinstance(part, int)
            if part == 1:
                rest = row
            elif isinstance(row, int) and part:
                rest = row // part
    if isinstance(whole, int) and all(isinstance(dim, int) for dim in known):
        rest = whole // max(1, math.prod(dim for dim in known if isinstance(dim, int)))
    return [rest if dim == -1 else dim for dim in target]


def expand(step: Step) -> Value:
    value, axis = step.value(0), step.single(1)
    if value.dims is None or axis is None:
        leaf = value.rank_of
        moved = Value(None, (leaf[0], leaf[1] + 1) if leaf else None)
        return Value(None, moved.rank_of, origins=value.origins, looked=value.looked)
    at = axis if axis >= 0 else len(value.dims) + 1 + axis
    return value.shaped((*value.dims[:at], 1, *value.dims[at:]))


def squeeze(step: Step) -> Value:
    value, axes = step.value(0), step.integers("squeeze_dims")
    if value.dims is None:
        leaf = value.rank_of
        rank_of = (leaf[0], leaf[1] - len(axes)) if leaf and axes else None
        return Value(None, rank_of, origins=value.origins, looked=value.looked)
    chosen = {axis % len(value.dims) for axis in axes} or {at for at, dim in enumerate(value.dims) if dim == 1}
    for axis in chosen:
        step.facts.require(value.dims[axis], 1)
    return value.shaped(tuple(dim for at, dim in enumerate(value.dims) if at not in chosen))


def transpose(step: Step) -> Value:
    order = step.whole_numbers(1)
    dims = step.rank(0, len(order)) if order else None
    return step.value(0).shaped(tuple(dims[axis] for axis in order) if dims and order else None)


def reduce(step: Step) -> Value:
    axes = step.whole_numbers(1)
    if axes is None:
        return UNKNOWN
    if step.node.op in ("Prod",) and step.value(0).numbers is not None:
        dims = [each for each in step.value(0).numbers or () if isinstance(each, int | tuple)]
        return Value((), numbers=(product(dims),)) if len(dims) == len(step.value(0).numbers or ()) else Value(())
    needed = max((axis + 1 if axis >= 0 else -axis for axis in axes), default=0)
    shape = step.rank_from(0, max(2, needed)) if needed else step.dims(0)
    if shape is None:
        return UNKNOWN
    chosen = {axis % len(shape) for axis in axes}
    if step.flag("keep_dims"):
        return Value(tuple(1 if at in chosen else dim for at, dim in enumerate(shape)))
    return Value(tuple(dim for at, dim in enumerate(shape) if at not in chosen))


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
    return [value.shaped((*value.dims[:at], part, *value.dims[at + 1 :])) for part in parts]


def shape(step: Step) -> Value:
    dims = step.dims(0)
    return UNKNOWN if dims is None else Value((len(dims),), numbers=tuple(dims))


def size(step: Step) -> Value:
    dims = step.dims(0)
    return Value(()) if dims is None else Value((), numbers=(product(dims),))


def strided_slice(step: Step) -> Value:
    value = step.value(0)
    begins, ends, strides = (step.whole_numbers(number) for number in (1, 2, 3))
    _note_splits(step, begins, ends)
    if begins is None or ends is None or strides is None:
        return Value(origins=value.origins)
    if value.numbers is not None and len(begins) == 1:
        return _slice_numbers(step, value, begins[0], ends[0], strides[0])
    masks = {name: step.number(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if masks["ellipsis"] or masks["new_axis"]:
        return Value(origins=value.origins)
    dims = step.rank_from(0, len(begins))
    if dims is None:
        return Value(origins=value.origins)
    made: list[Dim] = []
    for axis, dim in enumerate(dims):
        if axis >= len(begins):
            made.append(dim)
            continue
        bit = 1 << axis
        begin, end, stride = begins[axis], ends[axis], strides[axis]
        if masks["shrink_axis"] & bit:
            step.facts.at_least(dim, begin + 1 if begin >= 0 else -begin)
            continue
        is_whole = bool(masks["begin"] & bit) and bool(masks["end"] & bit)
        made.append(dim if is_whole and stride == 1 else _sliced(step, dim, begin, end, stride, masks, bit))
    return value.shaped(tuple(made))


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


def resize(step: Step) -> Value:
    dims, sizes = step.rank(0, 4), step.whole_numbers(1)
    if dims is None:
        return UNKNOWN
    height, width = sizes if sizes is not None and len(sizes) == 2 else (anything(), anything())
    return Value((dims[0], height, width, dims[3]))


def einsum(step: Step) -> Value:
    left, arrow, right = step.text("equation").replace(" ", "").partition("->")
    if not arrow or "." in left + right:
        return UNKNOWN
    known: dict[str, Dim] = {}
    for number, letters in enumerate(left.split(",")):
        dims = step.rank(number, len(letters))
        for letter, dim in zip(letters, dims or (), strict=False):
            if letter in known:
                step.facts.equal(known[letter], dim)
            if not isinstance(known.get(letter), int):
                known[letter] = dim
    return Value(tuple(known.get(letter, anything()) for letter in right))


def ensure_shape(step: Step) -> Value:
    value, found = step.value(0), step.attribute("shape")
    if found is None or found.shape.unknown_rank:
        return value
    wanted = [dim.size for dim in found.shape.dim]
    dims = step.rank(0, len(wanted))
    for dim, length in zip(dims or (), wanted, strict=False):
        if length >= 0:
            step.facts.require(dim, length)
    return value


def fill(step: Step) -> Value:
    wanted = step.value(0).numbers
    return UNKNOWN if wanted is None else Value(tuple(d if isinstance(d, int | tuple) else anything() for d in wanted))


def tile(step: Step) -> Value:
    value, counts = step.value(0), step.whole_numbers(1)
    dims = step.rank(0, len(counts)) if counts else None
    if dims is None or counts is None:
        return Value(origins=value.origins)
    pairs = zip(dims, counts, strict=True)
    return value.shaped(tuple(product((dim, count)) if count != 1 else dim for dim, count in pairs))


RULES: Rules = {
    **dict.fromkeys(_KEEPING.split(), keep),
    **dict.fromkeys(_BINARY.split(), broadcast),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), matmul),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), convolve),
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), pool),
    **dict.fromkeys(("BiasAdd", "BiasAddV1"), bias),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), batch_norm),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("Concat", "ConcatV2"), concat),
    **dict.fromkeys(("Split", "SplitV"), split),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), pad),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"), resize),
    "Reshape": reshape,
    "ExpandDims": expand,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Pack": pack,
    "Unpack": unpack,
    "Shape": shape,
    "Size": size,
    "StridedSlice": strided_slice,
    "Slice": slice_,
    "Einsum": einsum,
    "EnsureShape": ensure_shape,
    "Fill": fill,
    "Tile": tile,
}
