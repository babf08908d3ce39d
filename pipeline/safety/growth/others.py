"""The same walk for operators of TensorFlow Lite and ONNX, by the rules of TensorFlow's ops that do the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .arithmetic import BINARY, COMPARING, UNARY
from .costs import cost_of
from .rules import outputs_of
from .shaping import Inputs
from .values import UNKNOWN, Dims, Number, Unknown, Value, add, dims_of, shape_from


@dataclass(frozen=True)
class Step:
    """An operator, as the rules see it.

    Args:
        op: the name of TensorFlow's op.
        inputs, outputs: names of tensors; empty for one that is left out.
        numbers: attributes.
        arranged: puts the inputs in the order of TensorFlow's op.
        makes: the outputs, where no op of TensorFlow does the same.
        equation: what Einsum computes.
        own_name: what the operator is called in its own format.
    """

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    numbers: Mapping[str, int] = field(default_factory=dict)
    arranged: Callable[[list[Value]], list[Value]] | None = None
    makes: Callable[[Inputs], Value] | None = None
    equation: str = ""
    own_name: str = ""

    def __str__(self) -> str:
        return self.own_name or self.op

    def integer(self, name: str, default: int = 0) -> int:
        return self.numbers.get(name, default)

    def integers(self, name: str) -> list[int]:
        return []

    def dims(self, name: str) -> Dims | None:
        return None

    def text(self, name: str) -> str:
        return self.equation if name == "equation" else ""

    def is_integer(self, name: str) -> bool:
        return bool(self.numbers.get("is_integer"))

    def item(self, name: str) -> int:
        return self.numbers.get("item", 4)


def find_excess(steps: Iterable[Step], known: Mapping[str, Value], most_bytes: int) -> tuple[Step, int] | None:
    """Finds the first operator that makes more than it may from constants, and the bytes; None if there is none.

    Args:
        steps: in the order in which they are run.
        known: the constants and inputs by their names.
    """
    values = dict(known)
    for step in steps:
        made = _outputs(step, [values.get(name, UNKNOWN) for name in step.inputs])
        size = max((value.size_bytes for value in made), default=0)
        if size > most_bytes:
            return step, size
        for name, value in zip(step.outputs, made, strict=False):
            if value != UNKNOWN or name not in values:
                values[name] = value
    return None


def _outputs(step: Step, given: list[Value]) -> list[Value]:
    try:
        if step.arranged is not None:
            given = step.arranged(given)
        if step.makes is not None:
            return [step.makes(given)]
    except (Unknown, LookupError, ValueError, TypeError, ArithmeticError):
        return []
    cost = cost_of(step, given)
    return [*outputs_of(step, given), *([Value((cost,))] if cost else [])]


def number(value: Number) -> Value:
    """Returns a single number."""
    return Value((), 8).with_numbers([value])


def vector(numbers: Sequence[Number | None]) -> Value:
    """Returns a list of numbers."""
    return Value((len(numbers),), 8).with_numbers(numbers)


# TensorFlow Lite: tensorflow/lite/schema/schema.fbs, BuiltinOperator.

_ELEMENTWISE = {0: "AddV2", 41: "Sub", 18: "Mul", 42: "Div", 78: "Pow", 55: "Maximum", 57: "Minimum", 90: "FloorDiv"}
_ELEMENTWISE |= {95: "FloorMod", 99: "SquaredDifference", 58: "Less", 61: "Greater", 71: "Equal", 123: "SelectV2"}
_UNARY = {47: "Exp", 73: "Log", 59: "Neg", 101: "Abs", 92: "Square", 75: "Sqrt", 93: "ZerosLike", 19: "Relu"}
_UNARY |= {14: "Sigmoid", 28: "Tanh", 25: "Softmax", 105: "ReverseV2", 128: "Cumsum", 53: "Cast"}
_SHAPING = {83: "Pack", 69: "Tile", 34: "Pad", 60: "PadV2", 100: "MirrorPad", 94: "Fill", 96: "Range", 85: "OneHot"}
_SHAPING |= {130: "BroadcastTo", 145: "BroadcastArgs", 22: "Reshape", 70: "ExpandDims", 77: "Shape", 39: "Transpose"}
_SHAPING |= {107: "GatherNd", 23: "ResizeBilinear", 97: "ResizeNearestNeighbor", 38: "SpaceToBatchND", 65: "Slice"}
_SHAPING |= {67: "Conv2DBackpropInput", 68: "SparseToDense", 122: "ScatterNd", 113: "MatrixDiag", 131: "RFFT2D"}
_SHAPING |= {126: "BatchMatMulV2", 148: "RandomUniform", 146: "RandomStandardNormal", 149: "Multinomial"}
_SHAPING |= {125: "SegmentSum", 153: "UnsortedSegmentProd", 154: "UnsortedSegmentMax", 155: "UnsortedSegmentSum"}
_SHAPING |= {157: "UnsortedSegmentMin", 45: "StridedSlice", 81: "Prod", 74: "Sum", 2: "ConcatV2", 36: "GatherV2"}
OF_TFLITE: Mapping[int, str] = _ELEMENTWISE | _UNARY | _SHAPING
# The numbers among an operator's options: place and name, as TensorFlow's op calls it.
OPTIONS_OF_TFLITE: Mapping[str, Mapping[int, str]] = {
    **{key: {0: "axis"} for key in ("ConcatV2", "OneHot")},
    "Pack": {1: "axis"},
    "GatherV2": {0: "axis", 1: "batch_dims"},
    "BatchMatMulV2": {0: "adj_x", 1: "adj_y"},
    **{key: {0: "keep_dims"} for key in ("Prod", "Sum")},
    "StridedSlice": {
        0: "begin_mask",
        1: "end_mask",
        2: "ellipsis_mask",
        3: "new_axis_mask",
        4: "shrink_axis_mask",
    },
}


def tflite_step(code: int, inputs: Sequence[str], outputs: Sequence[str], numbers: Mapping[str, int]) -> Step | None:
    """Returns the step of an operator; None if no rule tells of it."""
    op = OF_TFLITE.get(code)
    if op is None:
        return None
    with_axis = op in ("ConcatV2", "GatherV2")
    axis = numbers.get("axis", 0)
    return Step(op, inputs, outputs, numbers, (lambda given: [*given, number(axis)]) if with_axis else None)


# ONNX: github.com/onnx/onnx/blob/main/docs/Operators.md.

_OF_ONNX = {
    **{name: name for name in (*BINARY, *COMPARING, *UNARY)},
    **dict.fromkeys(("Max", "Min", "Sum"), "AddN"),
    "Add": "AddV2",
    "Where": "SelectV2",
    "And": "LogicalAnd",
    "Or": "LogicalOr",
    "Not": "LogicalNot",
    **dict.fromkeys(("Identity", "Dropout"), "Identity"),
    **dict.fromkeys(("Sigmoid", "Softmax", "Elu", "Erf", "EyeLike", "RandomNormalLike", "CumSum"), "Sigmoid"),
    **{name: name for name in ("Cast", "Shape", "Size", "Reshape", "Tile", "Range", "OneHot", "MatMul", "Einsum")},
    "GatherND": "GatherNd",
    "MaxUnpool": "ScatterNd",
}


def onnx_step(op: str, *given: Any) -> Step | None:
    """Returns the step of a node; None if no rule tells of it.

    Args:
        given: its inputs, outputs, attributes of one number, attributes of several, and the equation of an Einsum.
    """
    step = _onnx_step(op, *given)
    return None if step is None else replace(step, own_name=op)


def _onnx_step(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    numbers: Mapping[str, int],
    lists: Mapping[str, list[int]],
    equation: str,
) -> Step | None:
    axis = numbers.get("axis", 0)
    if op in _OF_ONNX:
        return Step(_OF_ONNX[op], inputs, outputs, numbers, equation=equation)
    if op in ("Concat", "Gather"):
        name = "ConcatV2" if op == "Concat" else "GatherV2"
        return Step(name, inputs, outputs, numbers, lambda given: [*given, number(axis)])
    if op == "Transpose" and "perm" in lists:
        return Step("Transpose", inputs, outputs, numbers, lambda given: [given[0], vector(lists["perm"])])
    if op == "ConstantOfShape":
        return Step("Fill", inputs, outputs, numbers, lambda given: [given[0], Value((), 4)])
    if op in ("RandomNormal", "RandomUniform") and "shape" in lists:
        return Step("RandomUniform", inputs, outputs, numbers, lambda given: [vector(lists["shape"])])
    makes = _MAKES.get(op)
    return (
        None if makes is None else Step(op, inputs, outputs, numbers, makes=lambda given: makes(given, numbers, lists))
    )


def _expanded(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    shape = Value(shape_from(given[1]), given[0].item)
    return outputs_of(Step("AddV2", (), ()), [given[0], shape])[0] if given[0].dims is not None else shape


def _padded(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    """All beginnings stand before all ends."""
    pads = given[1].numbers if len(given) > 1 else lists.get("pads")
    if pads is None:
        raise Unknown
    half = len(pads) // 2
    axes = [int(one or 0) for one in given[3].numbers or ()] if len(given) > 3 else list(range(half))
    dims = list(dims_of(given[0]) if given[0].dims is not None else (-1,) * half)
    for axis, before, after in zip(axes or range(half), pads[:half], pads[half:], strict=False):
        more = max(0, int(before or 0)) + max(0, int(after or 0))
        dims[axis] = add(dims[axis], more) if more else dims[axis]
    return given[0].shaped(dims)


def _resized(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    sizes = given[3] if len(given) > 3 else UNKNOWN
    if sizes.numbers:
        return given[0].shaped(shape_from(sizes))
    scales = given[2 if len(given) > 2 else 1].numbers
    dims = given[0].dims if given[0].dims is not None else (-1,) * len(scales or ())
    if not scales or len(scales) != len(dims):
        raise Unknown
    pairs = zip(dims, scales, strict=True)
    return given[0].shaped(int(math.copysign(int(abs(length) * (scale or 1)), length)) for length, scale in pairs)


def _window(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    return Value((int(given[0].number or 0),), 4)


def _mel(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    return Value((int(given[1].number or 0) // 2 + 1, int(given[0].number or 0)), 4)


def _regions(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    height, width = lists.get("pooled_shape") or (numbers.get("output_height", 1), numbers.get("output_width", 1))
    regions = given[1].dims[0] if given[1].dims else -1
    return Value((regions, -1, height, width), 4)


def _grid(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    batch, _, *inner = shape_from(given[1])
    return Value((batch, *inner, len(inner)), 4)


def _transposed(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    if "output_shape" not in lists:
        raise Unknown
    return Value((-1, -1, *lists["output_shape"]), 4)


def _convolved(given: Inputs, numbers: Mapping[str, int], lists: Mapping[str, list[int]]) -> Value:
    filters, pads, steps = dims_of(given[1]), lists.get("pads", []), lists.get("strides", [])
    half = len(pads) // 2
    lengths = [-max(1, (pads[axis] + pads[axis + half]) // max(1, (steps or [1] * half)[axis])) for axis in range(half)]
    return Value((-1, filters[0], *lengths), 4)


_MAKES: Mapping[str, Callable[[Inputs, Mapping[str, int], Mapping[str, list[int]]], Value]] = {
    "Expand": _expanded,
    "Pad": _padded,
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), _window),
    "MelWeightMatrix": _mel,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), _regions),
    "AffineGrid": _grid,
    "ConvTranspose": _transposed,
    "Conv": _convolved,
}
