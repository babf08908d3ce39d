"""Walks through a .tflite: its subgraphs, and the branches, loops and calls that lead from one to another.

The layout is that of tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from pipeline.safety.flatbuffer import Table

from .arithmetic import combine
from .others import Endless, Step, number, outputs_of_step
from .shaping import Inputs
from .values import MOST_NUMBERS, STRING_BYTES, UNKNOWN, Unknown, Value, add, dims_of, elements_of, shape_from

_MOST_STEPS = 250_000  # operators that are looked at, over and over in loops and calls
_MOST_DEPTH = 100  # calls within calls
_MOST_TURNS = 256  # of a loop that is followed
# Fields by their numbers in the schema.
_MODEL_OPS, _MODEL_SUBGRAPHS, _MODEL_BUFFERS, _OP_CODE, _OP_OLD_CODE = 1, 2, 4, 3, 0
_TENSORS, _INPUTS, _OUTPUTS, _STEPS = 0, 1, 2, 3  # of a subgraph
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2
_STEP_CODE, _STEP_INPUTS, _STEP_OUTPUTS, _STEP_OPTIONS, _STEP_MORE_OPTIONS = 0, 1, 2, 4, 12
# Of TensorType: bytes of an element, and how its numbers are read; empty for others.
_TYPES = {
    0: (4, "f"),
    1: (2, "e"),
    2: (4, "i"),
    3: (1, "B"),
    4: (8, "q"),
    5: (STRING_BYTES, ""),
    6: (1, "B"),
    7: (2, "h"),
}
_TYPES |= {8: (8, ""), 9: (1, "b"), 10: (8, "d"), 11: (16, ""), 12: (8, "Q"), 15: (4, "I"), 16: (2, "H")}

# BuiltinOperator, under the name of TensorFlow's op that does the same with the same inputs.

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
_ELEMENTWISE |= {62: "GreaterEqual", 63: "LessEqual", 72: "NotEqual", 84: "LogicalOr", 86: "LogicalAnd", 64: "Select"}
_ELEMENTWISE |= {160: "BitwiseXor", 161: "RightShift", 207: "LeftShift", 163: "AddV2", 165: "Mul", 166: "Maximum"}
_ELEMENTWISE |= {181: "Minimum", 188: "Sub", 156: "Atan2"}
_UNARY |= {8: "Floor", 66: "Sin", 76: "Rsqrt", 104: "Ceil", 108: "Cos", 116: "Round", 158: "Sign", 87: "LogicalNot"}
# Of the shape of the first input; what they compute decides no shape of an honest model.
_UNARY |= dict.fromkeys((6, 11, 13, 20, 21, 50, 54, 80, 98, 111, 112, 114, 115, 117, 147, 150, 151, 152), "Sigmoid")
_SHAPING |= {40: "Mean", 82: "Max", 89: "Min", 91: "Any", 140: "All", 43: "Squeeze", 49: "Split", 102: "SplitV"}
_SHAPING |= {88: "Unpack", 110: "Rank"}
OF_TFLITE: Mapping[int, str] = _ELEMENTWISE | _UNARY | _SHAPING
# The numbers among an operator's options: place and name, as TensorFlow's op calls it.
OPTIONS_OF_TFLITE: Mapping[str, Mapping[int, str]] = {
    **{key: {0: "axis"} for key in ("ConcatV2", "OneHot")},
    "Pack": {1: "axis"},
    "GatherV2": {0: "axis", 1: "batch_dims"},
    "BatchMatMulV2": {0: "adj_x", 1: "adj_y"},
    **{key: {0: "keep_dims"} for key in ("Prod", "Sum", "Mean", "Max", "Min", "Any", "All")},
    **{key: {0: "num_split"} for key in ("Split", "SplitV")},
    "Unpack": {0: "num", 1: "axis"},
    "StridedSlice": {
        0: "begin_mask",
        1: "end_mask",
        2: "ellipsis_mask",
        3: "new_axis_mask",
        4: "shrink_axis_mask",
    },
}


# Operators that no op of TensorFlow is like.


def _dense(given: Inputs, options: Table | None) -> Value:
    """A product with filters of the shape [outputs, inputs]."""
    rows, filters = dims_of(given[0]), dims_of(given[1])
    count = max(1, elements_of(rows) // max(1, abs(filters[-1])))
    return Value((count if min(rows, default=0) >= 0 else -count, filters[0]), 4)


def _padded(given: Inputs, options: Table | None) -> Value:
    dims = list(dims_of(given[0]))
    if options is None:
        raise Unknown
    low, high, between = (options.numbers(field, "<q") for field in range(3))
    for axis, (before, after, inner) in enumerate(zip(low, high, between, strict=True)):
        dims[axis] = add(dims[axis], max(0, before + after + max(0, inner) * (abs(dims[axis]) - 1)))
    return given[0].shaped(dims)


def _dilated(given: Inputs, options: Table | None) -> Value:
    steps = shape_from(given[1])
    return given[0].shaped(
        add(length, (abs(length) - 1) * (abs(step) - 1)) for length, step in zip(dims_of(given[0]), steps, strict=True)
    )


def _added(given: Inputs, options: Table | None) -> Value:
    return combine(lambda *numbers: sum(numbers), given[0].item, *given)


_MAKES: Mapping[int, Callable[[Inputs, Table | None], Value]] = {
    9: _dense,
    106: _added,
    195: _padded,
    203: _dilated,
}
_OWN_NAMES = {9: "FullyConnected", 106: "AddN", 195: "StablehloPad", 203: "Dilate"}
_IF, _WHILE = 118, 119
# By operator the fields of its options that name the subgraphs that are given all its inputs.
_CALLING = {31: (0,), 206: (1,)}


def code_of(op: Table) -> int:
    """Returns the operator's number: old models have it in a field of one byte."""
    return max(op.number(_OP_CODE, "<i"), op.number(_OP_OLD_CODE, "<b"))


class _Found(Exception):
    def __init__(self, step: Step, size: int) -> None:
        super().__init__()
        self.step, self.size = step, size


def find_excess(model: Table, most_bytes: int) -> tuple[Step, int] | None:
    """Finds the first operator that makes more than it may from constants, and the bytes; None if there is none.

    Raises:
        Endless: subgraphs call each other without an end.
        ValueError: the file is damaged.
    """
    walk = _Walk(model, most_bytes)
    try:
        for index in range(len(walk.subgraphs)):
            walk.subgraph(index, ())
    except _Found as found:
        return found.step, found.size
    return None


class _Walk:
    """What is known of a model's tensors."""

    def __init__(self, model: Table, most_bytes: int) -> None:
        self.subgraphs = list(model.tables(_MODEL_SUBGRAPHS))
        self.buffers = list(model.tables(_MODEL_BUFFERS))
        self.codes = [code_of(op) for op in model.tables(_MODEL_OPS)]
        self.tensors = [[self._value(one) for one in graph.tables(_TENSORS)] for graph in self.subgraphs]
        self.most_bytes, self.steps, self.depth = most_bytes, 0, 0

    def subgraph(self, index: int, given: Sequence[Value]) -> list[Value]:
        """Looks at all operators of a subgraph; returns what is known of its outputs."""
        if not 0 <= index < len(self.subgraphs):
            return []
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise Endless(f"{self.depth} calls within each other")
        graph = self.subgraphs[index]
        known = dict(enumerate(self.tensors[index]))
        known |= {place: one for place, one in zip(graph.numbers(_INPUTS), given, strict=False) if one != UNKNOWN}
        for one in graph.tables(_STEPS):
            self.steps += 1
            inputs, outputs = one.numbers(_STEP_INPUTS), one.numbers(_STEP_OUTPUTS)
            made = self.outputs(one, [known.get(place, UNKNOWN) for place in inputs], outputs)
            known |= {place: value for place, value in zip(outputs, made, strict=False) if value != UNKNOWN}
        self.depth -= 1
        return [known.get(place, UNKNOWN) for place in graph.numbers(_OUTPUTS)]

    def outputs(self, one: Table, given: list[Value], outputs: Sequence[int]) -> list[Value]:
        index = one.number(_STEP_CODE, "<I")
        code = self.codes[index] if index < len(self.codes) else -1
        options, more = one.table(_STEP_OPTIONS), one.table(_STEP_MORE_OPTIONS)
        if code in (_IF, _WHILE, *_CALLING):
            return self.called(code, options or more, given)
        step = _step(code, options, more, [str(place) for place in outputs])
        made = [] if step is None or not outputs else outputs_of_step(step, given)
        size = max((value.size_bytes for value in made), default=0)
        if step is not None and size > self.most_bytes:
            raise _Found(step, size)
        return made

    def called(self, code: int, options: Table | None, given: list[Value]) -> list[Value]:
        if options is None:
            return []
        if self.steps > _MOST_STEPS:
            raise Endless(f"more than {_MOST_STEPS:,} operators, with those that are called")
        if code == _WHILE:
            return self.loop(options, given)
        if code == _IF:
            results = [self.subgraph(options.number(field, "<i"), given[1:]) for field in (0, 1)]
            return [one if one == other else UNKNOWN for one, other in zip(*results, strict=False)]
        return self.subgraph(options.number(_CALLING[code][0], "<i"), given)

    def loop(self, options: Table, given: list[Value]) -> list[Value]:
        """Turns a loop as long as it is known to go on; then it is unknown what comes out of it."""
        condition, body = (options.number(field, "<i") for field in (0, 1))
        values = given
        for _ in range(_MOST_TURNS):
            answer = self.subgraph(condition, values)
            goes_on = answer[0].number if answer else None
            if goes_on is not None and not goes_on:
                return values
            values = self.subgraph(body, values)
            if goes_on is None or len(values) != len(given) or self.steps > _MOST_STEPS // 4:  # it may turn once
                return []
        return []

    def _value(self, tensor: Table) -> Value:
        """Returns a constant, or what is declared of a tensor, whose lengths may be longer."""
        item, code = _TYPES.get(tensor.number(_TENSOR_TYPE, "<b"), (1, ""))
        dims, index = tensor.numbers(_TENSOR_SHAPE), tensor.number(_TENSOR_BUFFER, "<I")
        content = _content(self.buffers[index], item) if 0 < index < len(self.buffers) else b""
        if content is not None and not content:
            return Value(tuple(-max(1, length) for length in dims), item)
        made = Value(tuple(max(0, length) for length in dims), item)
        if content is None or not code or len(content) % item:
            return made
        return made.with_numbers(struct.unpack(f"<{len(content) // item}{code}", content))


def _content(buffer: Table, item: int) -> bytes | None:
    """Returns the content of a constant; None if it has too many numbers. Of large models it lies behind the tables."""
    size, most = buffer.size(_BUFFER_DATA), MOST_NUMBERS * item
    if size:
        return buffer.content(_BUFFER_DATA) if size <= most else None
    start, size = buffer.number(_BUFFER_OFFSET, "<Q"), buffer.number(_BUFFER_SIZE, "<Q")
    return (buffer.bytes_at(start, size) if size <= most else None) if start > 1 and size > 1 else b""


def _step(code: int, options: Table | None, more: Table | None, outputs: Sequence[str]) -> Step | None:
    """Returns the step of an operator; None if no rule tells of it."""
    makes = _MAKES.get(code)
    if makes is not None:
        return Step("", (), outputs, makes=lambda given: makes(given, more), own_name=_OWN_NAMES[code])
    op = OF_TFLITE.get(code)
    if op is None:
        return None
    names = OPTIONS_OF_TFLITE.get(op, {})
    numbers = {name: options.number(place, _code_of(name)) for place, name in names.items()} if options else {}
    with_axis = op in ("ConcatV2", "GatherV2")
    axis = numbers.get("axis", 0)
    lists = {"squeeze_dims": options.numbers(0)} if op == "Squeeze" and options else {}
    return Step(op, (), outputs, numbers, (lambda given: [*given, number(axis)]) if with_axis else None, lists=lists)


def _code_of(option: str) -> str:
    return "<b" if option in ("adj_x", "adj_y", "keep_dims") else "<i"
