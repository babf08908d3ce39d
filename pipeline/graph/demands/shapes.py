"""Rules of ops that change or demand a shape: kernels, reshapes, slices, reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .step import Made, Rules, Step
from .tensors import UNKNOWN, Area, Dim, Dims, Open, Size, Value, anything, product

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
            step.rank_from(one, max(2, len(fixed)))
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
    if is_by_row and value.dims and len(value.dims) == 1 and isinstance(value.dims[0], Area):
        _require_share(step, value.dims[0], width)
    elif is_by_row and value.dims:
        _require_elements(step, value.dims[1:], width)
    elif value.dims and all(isinstance(each, int) and each >= 0 for each in target):
        step.facts.require(product(value.dims), math.prod(each for each in target if isinstance(each, int)))
    made = value.shaped(tuple(_reshaped(value.dims, target, is_by_row)))
    return replace(made, numbers=value.numbers) if value.numbers is not None else made


def _require_share(step: Step, whole: Area, width: int) -> None:
    """Demands that what all rows have together is so many elements for each."""
    sides = [side for side in whole.sides if not side.size.is_batch]
    if len(sides) < len(whole.sides) and width > 1:
        step.facts.require(product((*sides, whole.factor)), width)


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
    leaf = step.sole_origin(0) if step.node.op == "Max" and not step.flag("keep_dims") else None
    if leaf is not None and "int" in leaf.dtype and step.dims(0) is not None and len(axes) == len(step.dims(0) or ()):
        return Value((), numbers=(Open(Size(largest=leaf)),))
    needed = max((axis + 1 if axis >= 0 else -axis for axis in axes), default=0)
    shape = step.rank_from(0, max(2, needed)) if needed else step.dims(0)
    if shape is None:
        return UNKNOWN
    chosen = {axis % len(shape) for axis in axes}
    if step.flag("keep_dims"):
        return Value(tuple(1 if at in chosen else dim for at, dim in enumerate(shape)))
    return Value(tuple(dim for at, dim in enumerate(shape) if at not in chosen))


def shape(step: Step) -> Value:
    dims = step.dims(0)
    return UNKNOWN if dims is None else Value((len(dims),), numbers=tuple(dims))


def size(step: Step) -> Value:
    dims = step.dims(0)
    return Value(()) if dims is None else Value((), numbers=(product(dims),))


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


RULES: Rules = {
    **dict.fromkeys(_KEEPING.split(), keep),
    **dict.fromkeys(_BINARY.split(), broadcast),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), matmul),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), convolve),
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), pool),
    **dict.fromkeys(("BiasAdd", "BiasAddV1"), bias),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), batch_norm),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"), resize),
    "Reshape": reshape,
    "ExpandDims": expand,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Shape": shape,
    "Size": size,
    "Einsum": einsum,
    "EnsureShape": ensure_shape,
    "Fill": fill,
}
