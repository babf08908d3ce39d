"""Nodes of ONNX under the names of TensorFlow's ops: github.com/onnx/onnx/blob/main/docs/Operators.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .arithmetic import BINARY, COMPARING, UNARY, combine, numbers_along, slice_length
from .others import Step, number, outputs_of_step, vector
from .shaping import Inputs, is_few
from .values import UNKNOWN, Dims, Number, Unknown, Value, add, axis_of, broadcast, dims_of, shape_from


@dataclass(frozen=True)
class Attributes:
    """A node's attributes: single numbers, lists of numbers, and texts."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Number]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def integer(self, name: str, default: int = 0) -> int:
        return self.numbers.get(name, default)

    def integers(self, name: str) -> list[int]:
        return [int(one) for one in self.lists.get(name, ())]


Rule: TypeAlias = "Callable[[Inputs, Attributes], Value | list[Value]]"

_SAME_SHAPE = """Sigmoid Softmax Elu Erf EyeLike RandomNormalLike RandomUniformLike Bernoulli CumSum CumProd Acos Acosh
Asin Asinh Atan Atanh Celu Cosh Gelu HardSigmoid HardSwish Hardmax IsInf IsNaN LRN LeakyRelu LogSoftmax LpNormalization
MeanVarianceNormalization Mish Selu Shrink Sinh Softplus Softsign Swish Tan ThresholdedRelu Trilu BatchNormalization
InstanceNormalization LayerNormalization GroupNormalization RMSNormalization ReverseSequence Scatter ScatterElements
ScatterND TensorScatter QuantizeLinear DequantizeLinear DynamicQuantizeLinear StringNormalizer"""
# Under the name of TensorFlow's op that does the same with the same inputs.
_RENAMED = {
    **{name: name for name in (*BINARY, *COMPARING, *UNARY)},
    **dict.fromkeys(_SAME_SHAPE.split(), "Sigmoid"),
    "Add": "AddV2",
    "And": "LogicalAnd",
    "Or": "LogicalOr",
    "Xor": "NotEqual",
    "Not": "LogicalNot",
    "GreaterOrEqual": "GreaterEqual",
    "LessOrEqual": "LessEqual",
    "BitwiseNot": "Invert",
    "Where": "SelectV2",
    **dict.fromkeys(("Identity", "Dropout", "CastLike"), "Identity"),
    **{name: name for name in ("Cast", "Shape", "Size", "Reshape", "Tile", "Range", "OneHot", "Einsum")},
    "GatherND": "GatherNd",
    "MaxUnpool": "ScatterNd",
    "ExpandDims": "ExpandDims",
}
_REDUCING = {f"Reduce{name}": name for name in ("Sum", "Prod", "Max", "Min", "Mean")}
_REDUCING |= dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), "EuclideanNorm")
_REDUCING |= dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), "EuclideanNorm")
_OF_ALL: Mapping[str, Callable[..., Number]] = {
    "Max": max,
    "Min": min,
    "Sum": lambda *numbers: sum(numbers),
    "Mean": lambda *numbers: sum(numbers) / len(numbers),
}


def onnx_step(op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Attributes) -> Step | None:
    """Returns the step of a node; None if no rule tells of it."""
    if op in _RENAMED:
        equation = attributes.texts.get("equation", "")
        return Step(_RENAMED[op], inputs, outputs, attributes.numbers, equation=equation, own_name=op)
    rule = _reduced(_REDUCING[op]) if op in _REDUCING else _combined(_OF_ALL[op]) if op in _OF_ALL else _RULES.get(op)
    if rule is None:
        return None
    return Step(op, inputs, outputs, attributes.numbers, makes=lambda given: rule(given, attributes))


def _by(op: str, given: Sequence[Value], numbers: Mapping[str, int] | None = None, **lists: Sequence[int]) -> Value:
    """Returns the first output of TensorFlow's op."""
    made = outputs_of_step(Step(op, (), (), numbers or {}, lists=lists), [*given])
    if not made:
        raise Unknown
    return made[0]


def _asked(given: Inputs, index: int, attributes: Attributes, name: str) -> list[Number | None]:
    """Returns the numbers of an input, which older versions have as an attribute; empty if there is neither."""
    if index < len(given) and given[index] != UNKNOWN:
        if given[index].numbers is None:
            raise Unknown
        return [*(given[index].numbers or ())]
    return [*attributes.lists.get(name, ())]


# Numbers.


def _combined(function: Callable[..., Number]) -> Rule:
    def rule(given: Inputs, attributes: Attributes) -> Value:
        known = [value for value in given if value.dims is not None]
        made = combine(function, max(value.item for value in known), *known)
        return made if len(known) == len(given) else Value(made.dims, made.item)

    return rule


def _clipped(given: Inputs, attributes: Attributes) -> Value:
    made = given[0]
    for limit, function in zip(given[1:3], (max, min), strict=False):
        made = combine(function, made.item, made, limit) if limit.number is not None else made
    return made


def _shifted(given: Inputs, attributes: Attributes) -> Value:
    return _by("LeftShift" if attributes.texts.get("direction") == "LEFT" else "RightShift", given)


# Parts, and other shapes of the same.


def _unsqueezed(given: Inputs, attributes: Attributes) -> Value:
    axes = _asked(given, 1, attributes, "axes")
    dims = list(dims_of(given[0]))
    for axis in sorted(axis_of(one, len(dims) + len(axes)) for one in axes):
        dims.insert(axis, 1)
    return given[0].shaped(dims).with_numbers(given[0].numbers)


def _squeezed(given: Inputs, attributes: Attributes) -> Value:
    axes = [int(one or 0) for one in _asked(given, 1, attributes, "axes")]
    return _by("Squeeze", given[:1], squeeze_dims=axes)


def _flattened(given: Inputs, attributes: Attributes) -> Value:
    dims, axis = dims_of(given[0]), attributes.integer("axis", 1)
    parts = (dims[:axis], dims[axis:])
    made = [math.prod(map(abs, part)) * (-1 if min(part, default=0) < 0 else 1) for part in parts]
    return given[0].shaped(made).with_numbers(given[0].numbers)


def _sliced(given: Inputs, attributes: Attributes) -> Value:
    dims = list(dims_of(given[0]))
    starts, ends = (_asked(given, index, attributes, name) for index, name in ((1, "starts"), (2, "ends")))
    axes = _asked(given, 3, attributes, "axes") or [*range(len(starts))]
    steps = _asked(given, 4, attributes, "steps") or [1] * len(starts)
    places = range(dims[0]) if len(dims) == 1 and is_few(given[0]) else range(0)
    for axis, start, end, step in zip((axis_of(one, len(dims)) for one in axes), starts, ends, steps, strict=True):
        if start is None or end is None or not step:
            raise Unknown
        dims[axis] = slice_length(dims[axis], start, end, step)
        places = places[int(start) : int(end) : int(step)]
    made = given[0].shaped(dims)
    return made.with_numbers(numbers_along(given[0], places)) if len(dims) == 1 else made


def _split(given: Inputs, attributes: Attributes) -> list[Value]:
    dims = list(dims_of(given[0]))
    axis, asked = axis_of(attributes.integer("axis"), len(dims)), _asked(given, 1, attributes, "split")
    count = len(asked) or attributes.integer("outputs")
    lengths = [int(one or 0) for one in asked] or [-(-dims[axis] // max(1, count))] * count
    made, start = list[Value](), 0
    for length in lengths:
        part = given[0].shaped([*dims[:axis], length if dims[axis] >= 0 else -1, *dims[axis + 1 :]])
        end = min(start + length, dims[axis])
        is_vector = len(dims) == 1 and 0 <= start <= end <= start + 999
        made.append(part.with_numbers(numbers_along(given[0], range(start, end))) if is_vector else part)
        start += length
    return made


def _picked(given: Inputs, attributes: Attributes) -> Value:
    made = given[0].shaped(given[1].dims)
    places = given[1].numbers
    if len(dims_of(given[0])) != 1 or places is None or None in places:
        return made
    return made.with_numbers(numbers_along(given[0], [int(place or 0) for place in places]))


def _joined(given: Inputs, attributes: Attributes) -> Value:
    return _by("ConcatV2", [*given, number(attributes.integer("axis"))])


def _gathered(given: Inputs, attributes: Attributes) -> Value:
    return _by("GatherV2", [*given[:2], number(attributes.integer("axis"))])


def _turned(given: Inputs, attributes: Attributes) -> Value:
    order = attributes.integers("perm") or [*range(len(dims_of(given[0])))][::-1]
    return _by("Transpose", [given[0], vector(order)])


def _reduced(op: str) -> Rule:
    def rule(given: Inputs, attributes: Attributes) -> Value:
        axes = _asked(given, 1, attributes, "axes")
        if not axes:
            if attributes.integer("noop_with_empty_axes"):
                return given[0]
            axes = [*range(len(dims_of(given[0])))]
        return _by(op, [given[0], vector(axes)], {"keep_dims": attributes.integer("keepdims", 1)})

    return rule


# Larger.


def _filled(given: Inputs, attributes: Attributes) -> Value:
    return _by("Fill", [given[0], Value((), 4)])


def _drawn(given: Inputs, attributes: Attributes) -> Value:
    return Value(shape_from(vector(attributes.integers("shape"))), 4)


def _sampled(given: Inputs, attributes: Attributes) -> Value:
    return Value(((dims_of(given[0]) or (-1,))[0], attributes.integer("sample_size", 1)), 4)


def _expanded(given: Inputs, attributes: Attributes) -> Value:
    shape = Value(shape_from(given[1]), given[0].item)
    return _by("AddV2", [given[0], shape]) if given[0].dims is not None else shape


def _padded(given: Inputs, attributes: Attributes) -> Value:
    """All beginnings stand before all ends."""
    pads = given[1].numbers if len(given) > 1 else attributes.lists.get("pads", attributes.lists.get("paddings"))
    if pads is None:
        raise Unknown
    half = len(pads) // 2
    axes = [int(one or 0) for one in given[3].numbers or ()] if len(given) > 3 else list(range(half))
    dims = list(dims_of(given[0]) if given[0].dims is not None else (-1,) * half)
    for axis, before, after in zip(axes or range(half), pads[:half], pads[half:], strict=False):
        more = max(0, int(before or 0)) + max(0, int(after or 0))
        dims[axis] = add(dims[axis], more) if more else dims[axis]
    return given[0].shaped(dims)


def _fitted(given: Inputs, attributes: Attributes) -> Value:
    """The lengths of some axes are asked for."""
    asked = shape_from(given[1])
    axes = attributes.integers("axes") or [*range(len(asked))]
    dims = list(dims_of(given[0]) if given[0].dims is not None else (-1,) * len(asked))
    for axis, length in zip(axes, asked, strict=True):
        dims[axis] = length
    return given[0].shaped(dims)


def _resized(given: Inputs, attributes: Attributes) -> Value:
    sizes = given[3] if len(given) > 3 else UNKNOWN
    if sizes.numbers:
        return given[0].shaped(shape_from(sizes))
    scales = given[2 if len(given) > 2 else 1].numbers if len(given) > 1 else attributes.lists.get("scales")
    dims = given[0].dims if given[0].dims is not None else (-1,) * len(scales or ())
    if not scales or len(scales) != len(dims):
        raise Unknown
    pairs = zip(dims, scales, strict=True)
    return given[0].shaped(int(math.copysign(int(abs(length) * (scale or 1)), length)) for length, scale in pairs)


def _window(given: Inputs, attributes: Attributes) -> Value:
    return Value((int(given[0].number or 0),), 4)


def _mel(given: Inputs, attributes: Attributes) -> Value:
    return Value((int(given[1].number or 0) // 2 + 1, int(given[0].number or 0)), 4)


def _spectrum(given: Inputs, attributes: Attributes) -> Value:
    dims, length = list(dims_of(given[0])), given[1].number if len(given) > 1 else None
    axis = axis_of(given[2].number if len(given) > 2 else attributes.integer("axis", 1), len(dims))
    if length is None:
        raise Unknown
    dims[axis] = int(length) // 2 + 1
    return given[0].shaped(dims)


def _spectra(given: Inputs, attributes: Attributes) -> Value:
    batch, length, *_ = dims_of(given[0])
    width = given[3].number if len(given) > 3 and given[3].number is not None else dims_of(given[2])[0]
    step = given[1].number
    if step is None or length < 0 or width < 0:
        raise Unknown
    return Value((batch, max(0, int(length - width)) // max(1, int(step)) + 1, int(width) // 2 + 1, 2), 4)


def _regions(given: Inputs, attributes: Attributes) -> Value:
    one = (attributes.integer("output_height", 1), attributes.integer("output_width", 1))
    height, width = attributes.integers("pooled_shape") or one
    regions = given[1].dims[0] if given[1].dims else -1
    return Value((regions, -1, height, width), 4)


def _cropped(given: Inputs, attributes: Attributes) -> Value:
    return Value(((given[1].dims or (-1,))[0], -1, *shape_from(given[3])), 4)


def _grid(given: Inputs, attributes: Attributes) -> Value:
    batch, _, *inner = shape_from(given[1])
    return Value((batch, *inner, len(inner)), 4)


def _from_columns(given: Inputs, attributes: Attributes) -> Value:
    return Value((-1, -1, *shape_from(given[1])), 4)


# Filters. `from below`: an unknown length counts as one.


def _windows(kernel: Sequence[int], attributes: Attributes) -> list[tuple[int, int, int, int]]:
    """Returns for each axis the length of a window, its step, and what is padded in all and to the output."""
    rank = len(kernel)
    steps, holes = (attributes.integers(name) or [1] * rank for name in ("strides", "dilations"))
    pads, more = attributes.integers("pads") or [0] * 2 * rank, attributes.integers("output_padding") or [0] * rank
    return [
        ((abs(length) - 1) * holes[axis] + 1, max(1, steps[axis]), pads[axis] + pads[axis + rank], more[axis])
        for axis, length in enumerate(kernel)
    ]


def _transposed(given: Inputs, attributes: Attributes) -> Value:
    filters = dims_of(given[1])
    image = given[0].dims if given[0].dims is not None else (-1,) * len(filters)
    channels = filters[1] * max(1, attributes.integer("group", 1))
    asked = attributes.integers("output_shape")
    if asked:
        return Value((image[0], channels, *asked), 4)
    windows = zip(image[2:], _windows(filters[2:], attributes), strict=True)
    made = [-max(1, step * (abs(length) - 1) + more + window - pads) for length, (window, step, pads, more) in windows]
    return Value((image[0], channels, *made), 4)


def _strided(image: Dims, kernel: Sequence[int], attributes: Attributes) -> list[int]:
    windows = zip(image[2:], _windows(kernel, attributes), strict=True)
    return [-max(1, (abs(length) + pads - window) // step + 1) for length, (window, step, pads, _) in windows]


def _convolved(given: Inputs, attributes: Attributes) -> Value:
    filters = dims_of(given[1])
    image = given[0].dims if given[0].dims is not None else (-1,) * len(filters)
    return Value((image[0], filters[0], *_strided(image, filters[2:], attributes)), 4)


def _pooled(given: Inputs, attributes: Attributes) -> Value:
    kernel = attributes.integers("kernel_shape")
    image = given[0].dims if given[0].dims is not None else (-1,) * (len(kernel) + 2)
    return Value((*image[:2], *_strided(image, kernel, attributes)), 4)


# Sequences: the shape of an element, behind how many there are.


def _sequence(given: Inputs, attributes: Attributes) -> Value:
    if len({value.dims for value in given}) != 1:
        raise Unknown
    return Value((len(given), *dims_of(given[0])), given[0].item)


def _longer(given: Inputs, attributes: Attributes) -> Value:
    count, *dims = dims_of(given[0])
    return given[0].shaped([add(count, 1), *dims])


def _element(given: Inputs, attributes: Attributes) -> Value:
    return given[0].shaped(dims_of(given[0])[1:])


def _from_sequence(given: Inputs, attributes: Attributes) -> Value:
    count, *dims = dims_of(given[0])
    if attributes.integer("new_axis"):
        axis = axis_of(attributes.integer("axis"), len(dims) + 1)
        return given[0].shaped([*dims[:axis], count, *dims[axis:]])
    axis = axis_of(attributes.integer("axis"), len(dims))
    return given[0].shaped([*dims[:axis], dims[axis] * abs(count), *dims[axis + 1 :]])


# Products.


def _product(first: int = 0, second: int = 1, names: tuple[str, str] = ("transA", "transB")) -> Rule:
    def rule(given: Inputs, attributes: Attributes) -> Value:
        turned = {f"transpose_{side}": attributes.integer(name) for side, name in zip("ab", names, strict=True)}
        return _by("MatMul", [given[first], given[second]], turned)

    return rule


def _stretched(given: Inputs, attributes: Attributes) -> Value:
    return Value(broadcast(*map(dims_of, given[:2])), given[0].item)


_RULES: Mapping[str, Rule] = {
    "Clip": _clipped,
    "BitShift": _shifted,
    "PRelu": _stretched,
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed,
    "Flatten": _flattened,
    "Slice": _sliced,
    "Split": _split,
    "GatherElements": _picked,
    "Concat": _joined,
    "Gather": _gathered,
    "Transpose": _turned,
    "ConstantOfShape": _filled,
    **dict.fromkeys(("RandomNormal", "RandomUniform"), _drawn),
    "Multinomial": _sampled,
    "Expand": _expanded,
    "Pad": _padded,
    "CenterCropPad": _fitted,
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), _window),
    "MelWeightMatrix": _mel,
    "DFT": _spectrum,
    "STFT": _spectra,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), _regions),
    "CropAndResize": _cropped,
    "AffineGrid": _grid,
    "Col2Im": _from_columns,
    **dict.fromkeys(("ConvTranspose", "ConvTransposeWithDynamicPads"), _transposed),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), _convolved),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pooled),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "FusedGemm"), _product()),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), _product()),
    "QLinearMatMul": _product(0, 3),
    "QLinearConv": lambda given, attributes: _convolved([given[0], given[3]], attributes),
    "SequenceConstruct": _sequence,
    "SequenceInsert": _longer,
    "SequenceAt": _element,
    "ConcatFromSequence": _from_sequence,
}
# No larger than what the inputs are, up to a factor that the op has by itself; or no tensors.
_OF_INPUTS = """ArgMax ArgMin Attention BitCast CausalConvWithState Compress DeformConv DepthToSpace Det GRU
GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample ImageDecoder LSTM LinearAttention
NegativeLogLikelihoodLoss NonMaxSuppression NonZero Optional OptionalGetElement OptionalHasElement RNN
RegexFullMatch RotaryEmbedding SequenceEmpty SequenceErase SequenceLength SoftmaxCrossEntropyLoss
SpaceToDepth SplitToSequence StringConcat StringSplit SwiGLU TfIdfVectorizer TopK Unique"""
OF_THEIR_INPUTS = frozenset(_OF_INPUTS.split())
