"""Arithmetic with the few numbers that shapes are computed from."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

from .values import MOST_NUMBERS, Dims, Number, Unknown, Value, axis_of, broadcast, dims_of

_MOST = 1 << 63  # numbers beyond are not followed: the machine's would wrap around


def _divided(one: Number, other: Number) -> Number:
    """Divides as TensorFlow's Div and TruncateDiv do: integers towards zero."""
    if isinstance(one, int) and isinstance(other, int):
        return abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)
    return one / other


def _power(one: Number, other: Number) -> Number:
    if other * math.log2(max(2.0, abs(one))) > 64:
        raise OverflowError
    return int(one**other) if isinstance(one, int) and isinstance(other, int) and other >= 0 else float(one**other)


BINARY: Mapping[str, Callable[[Number, Number], Number]] = {
    **dict.fromkeys(("Add", "AddV2"), operator.add),
    "Sub": operator.sub,
    **dict.fromkeys(("Mul", "MulNoNan"), operator.mul),
    **dict.fromkeys(("Div", "RealDiv", "TruncateDiv", "DivNoNan"), _divided),
    "FloorDiv": operator.floordiv,
    **dict.fromkeys(("Mod", "FloorMod", "TruncateMod"), operator.mod),
    "Maximum": max,
    "Minimum": min,
    "Pow": _power,
    "SquaredDifference": lambda one, other: (one - other) ** 2,
    "LeftShift": lambda one, other: int(one) << min(64, int(other)),
    "RightShift": lambda one, other: int(one) >> min(64, int(other)),
    "BitwiseAnd": lambda one, other: int(one) & int(other),
    "BitwiseOr": lambda one, other: int(one) | int(other),
    "BitwiseXor": lambda one, other: int(one) ^ int(other),
}
COMPARING: Mapping[str, Callable[[Number, Number], Number]] = {
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "LogicalAnd": lambda one, other: bool(one) and bool(other),
    "LogicalOr": lambda one, other: bool(one) or bool(other),
}
UNARY: Mapping[str, Callable[[Number], Number]] = {
    "Neg": operator.neg,
    "Abs": abs,
    "Square": lambda one: one * one,
    "Sqrt": math.sqrt,
    "Exp": math.exp,
    "Expm1": math.expm1,
    "Log": math.log,
    "Log1p": math.log1p,
    "Ceil": math.ceil,
    "Floor": math.floor,
    "Round": round,
    "Rint": round,
    "Sign": lambda one: (one > 0) - (one < 0),
    "Inv": lambda one: 1 / one,
    "Reciprocal": lambda one: 1 / one,
    "Rsqrt": lambda one: 1 / math.sqrt(one),
    "Sin": math.sin,
    "Cos": math.cos,
    "Tanh": math.tanh,
    "LogicalNot": lambda one: not one,
    "Relu": lambda one: max(0, one),
    "Invert": lambda one: ~int(one),
    "ZerosLike": lambda one: 0,
    "OnesLike": lambda one: 1,
}
REDUCING: Mapping[str, Callable[[Sequence[Number]], Number]] = {
    "Prod": math.prod,
    "Sum": sum,
    "Max": max,
    "Min": min,
    "Mean": lambda numbers: sum(numbers) / len(numbers),
    "All": all,
    "Any": any,
}


def apply(function: Callable[..., Number], *numbers: Number | None) -> Number | None:
    """Returns a result that the machine would have too, or None if it is unknown."""
    if any(number is None for number in numbers):
        return None
    try:
        result = function(*numbers)
    except (ArithmeticError, ValueError, TypeError):
        return None
    if isinstance(result, complex) or not math.isfinite(result) or abs(result) >= _MOST:
        return None
    return result


def map_numbers(function: Callable[..., Number], *values: Value) -> list[Number | None] | None:
    """Applies a function to each element of tensors of one shape, or of single numbers; None if too little is known."""
    count = max((len(value.numbers) for value in values if value.numbers is not None), default=0)
    rows = [one.numbers for one in values if one.numbers is not None and len(one.numbers) in (1, count)]
    if len(rows) != len(values) or not count:
        return None
    stretched = [row * count if len(row) == 1 else row for row in rows]
    return [apply(function, *column) for column in zip(*stretched, strict=True)]


def combine(function: Callable[..., Number], item: int, *values: Value) -> Value:
    """Returns the result of an op on elements, stretched to a common shape."""
    made = Value(broadcast(*map(dims_of, values)), item)
    if any(value.numbers is None for value in values):
        return made
    return made.with_numbers(map_numbers(function, *values))


def numbers_along(value: Value, places: Sequence[int]) -> list[Number | None] | None:
    """Returns some elements of a vector."""
    if value.numbers is None or len(places) > MOST_NUMBERS:
        return None
    if any(not -len(value.numbers) <= place < len(value.numbers) for place in places):
        return None
    return [value.numbers[place] for place in places]


def reduce_dims(dims: Dims, axes: Sequence[Number | None], keeps: bool) -> Dims:
    """Returns the shape without some axes; Raises Unknown if these are."""
    gone = {axis_of(axis, len(dims)) for axis in axes}
    kept = [1 if axis in gone else length for axis, length in enumerate(dims) if keeps or axis not in gone]
    return tuple(kept)


def slice_length(length: int, begin: Number | None, end: Number | None, step: Number | None) -> int:
    """Returns the elements of `[begin:end:step]`; None for a missing end, and -1 for what cannot be told."""
    if length < 0 or step is None or not step:
        return -1
    first, last = (None if one is None else int(one) for one in (begin, end))
    return len(range(*slice(first, last, int(step)).indices(min(length, 1 << 62))))


def require_rank(dims: Dims, rank: int) -> Dims:
    """Returns a shape of this rank; Raises Unknown if it has another."""
    if len(dims) != rank:
        raise Unknown
    return dims
