"""Rules of ops that keep, move or bound numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .shapes import broadcast, keep
from .step import Made, Rules, Step, scaled, shifted
from .tensors import UNKNOWN, Dim, Open, Value, product

_CARRYING = """Identity Snapshot StopGradient PreventGradient CheckNumerics Cast Enter RefEnter Exit RefExit RefIdentity
    PlaceholderWithDefault Reverse ReverseV2 ReadVariableOp DeepCopy OptionalGetValue
    StringLower StringUpper StringStrip RegexReplace StaticRegexReplace Substr"""
_PIXELS = (255.0, 256.0, 127.5, 127.0, 128.0)
_SMALL = 64
_WINDOWS = 2  # of a signal that is cut into windows: what compares them has two


def carry(step: Step) -> Made:
    """The values are those of the first input."""
    return step.value(0)


def carry_all(step: Step) -> Made:
    return list(step.given)


def merge(step: Step) -> Made:
    value = next((each for each in step.given if each is not UNKNOWN), UNKNOWN)
    return [value, Value(())]


def switch(step: Step) -> Made:
    return [step.value(0), step.value(0)]


def select(step: Step) -> Value:
    """The values are those of the second or the third input.

    Where both come from the same leaf, one of them moved, it is the unmoved one that counts: Keras counts a negative
    index from the end of its table.
    """
    one, other = step.value(1), step.value(2)
    plain = [side.origins for side in (one, other) if all(origin[1:] == (1.0, 0.0, 0.0) for origin in side.origins)]
    is_same = {origin.leaf for origin in one.origins} == {origin.leaf for origin in other.origins}
    origins = plain[0] if is_same and len(plain) == 1 else one.origins + other.origins
    return replace(one, numbers=None, origins=origins, dims=one.dims or other.dims)


def _bounds(value: Value) -> tuple[float, float] | None:
    numbers = value.numbers
    if not numbers or any(isinstance(each, tuple) or each is None for each in numbers):
        return None
    known = [float(each) for each in numbers]  # type: ignore[arg-type]  # the others are excluded
    return min(known), max(known)


def _computed(step: Step, compute: Callable[[Dim, Dim], Dim | None]) -> Value | None:
    """Computes with lengths: a shape that the graph works out."""
    one, other = step.value(0).numbers, step.value(1).numbers
    if one is None or other is None or len(one) != 1 or len(other) != 1:
        return None
    if not isinstance(one[0], int | tuple) or not isinstance(other[0], int | tuple):
        return None
    return Value(step.dims(0) or step.dims(1) or (), numbers=(compute(one[0], other[0]),))


def add(step: Step) -> Value:
    made = broadcast(step)
    lengths = _computed(step, lambda a, b: _add_lengths(a, b, 1))
    if lengths is not None:
        return lengths
    for one, other in ((0, 1), (1, 0)):
        stride = step.value(one).rows
        if stride is not None and all("int" in origin.leaf.dtype for origin in step.value(other).origins):
            step.within(other, 0, stride - 1 if stride > 1 else None)  # a step among the steps of all rows
        bounds = _bounds(step.value(other))
        if bounds is not None and (step.value(one).origins or step.value(one).looked):
            return replace(shifted(step.value(one), *bounds), dims=made.dims, rank_of=made.rank_of)
    return made


def _add_lengths(one: Dim, other: Dim, sign: int) -> Dim | None:
    if isinstance(one, int) and isinstance(other, int):
        return one + sign * other
    if isinstance(one, int) and sign == 1:
        one, other = other, one
    return one.then("add", sign * other) if isinstance(one, Open) and isinstance(other, int) else None


def subtract(step: Step) -> Value:
    made, bounds = broadcast(step), _bounds(step.value(1))
    lengths = _computed(step, lambda a, b: _add_lengths(a, b, -1))
    if lengths is not None:
        return lengths
    value = step.value(0)
    if bounds is None:
        bounds, value = _bounds(step.value(0)), scaled(step.value(1), -1)
        return made if bounds is None else replace(shifted(value, *bounds), dims=made.dims, rank_of=made.rank_of)
    return replace(shifted(value, -bounds[1], -bounds[0]), dims=made.dims, rank_of=made.rank_of)


def multiply(step: Step) -> Value:
    made = broadcast(step)
    lengths = _computed(step, lambda a, b: product((a, b)))
    if lengths is not None:
        return lengths
    for one, other in ((0, 1), (1, 0)):
        bounds = _bounds(step.value(other))
        if step.value(one).rows is not None:
            return replace(made, rows=int(bounds[0]) if bounds is not None and bounds[0] == bounds[1] else 0)
        if bounds is not None and bounds[0] == bounds[1] and bounds[0]:
            return _scaled(step, one, bounds[0], made)
    return made


def divide(step: Step) -> Value:
    made, bounds = broadcast(step), _bounds(step.value(1))
    if bounds is None or bounds[0] != bounds[1] or not bounds[0]:
        return made
    return _scaled(step, 0, 1 / bounds[0], made)


def _scaled(step: Step, number: int, factor: float, made: Value) -> Value:
    if any(abs(factor * pixel - 1) < 1e-3 for pixel in _PIXELS):
        step.hint(number, 0, 255)
    return replace(scaled(step.value(number), factor), dims=made.dims, rank_of=made.rank_of)


def floor_divide(step: Step) -> Value:
    lengths = _computed(step, _divided)
    if lengths is not None:
        return lengths
    made, bounds = broadcast(step), _bounds(step.value(1))
    if bounds is None or bounds[0] != bounds[1] or bounds[0] <= 0:
        return made
    return replace(
        shifted(scaled(step.value(0), 1 / bounds[0]), 1 / bounds[0] - 1, 0), dims=made.dims, rank_of=made.rank_of
    )


def _divided(one: Dim, other: Dim) -> Dim | None:
    if not isinstance(other, int) or other <= 0:
        return None
    return one // other if isinstance(one, int) else one.then("divide", other) if isinstance(one, Open) else None


def larger(step: Step) -> Value:
    """The larger of two numbers. A length that may be 0 or more is a number of windows: some are wanted."""
    lengths = _computed(step, _larger)
    if lengths is None:
        return clip(step)
    for number in lengths.numbers or ():
        if isinstance(number, Open):
            step.facts.at_least(number, _WINDOWS)
    return lengths


def _larger(one: Dim, other: Dim) -> Dim | None:
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other)
    least, length = (one, other) if isinstance(one, int) else (other, one)
    if not isinstance(least, int) or least > 0 or not isinstance(length, Open):
        return None
    return length if length.changes or length.size.largest is not None else None


def negate(step: Step) -> Value:
    return replace(scaled(step.value(0), -1), dims=step.value(0).dims, rank_of=step.value(0).rank_of)


def clip(step: Step) -> Value:
    """A bound that the graph keeps itself: values are meant to be within. Whole numbers stay indices."""
    if step.node.op == "ClipByValue":
        low, high = _bounds(step.value(1)), _bounds(step.value(2))
        if low is not None and high is not None:
            step.hint(0, low[0], high[1])
        made, given = keep(step), step.given[:1]
    else:
        made, given = broadcast(step), step.given[:2]
    origins = tuple(origin for value in given for origin in value.origins if "int" in origin.leaf.dtype)
    return replace(made, origins=origins)


def positive(step: Step) -> Value:
    """Only numbers from a bound on have an answer."""
    lowest = {"Log": 1e-3, "Rsqrt": 1e-3, "Log1p": -0.999, "Acosh": 1.0}.get(step.node.op, 0.0)
    step.within(0, lowest)
    return keep(step)


def unit(step: Step) -> Value:
    """Only numbers from -1 to 1 have an answer."""
    step.within(0, -0.999, 0.999)
    return keep(step)


def gather_values(step: Step) -> Made:
    """Elements that occur once, or were sorted: the values are those of the first input."""
    return [Value(None, origins=step.value(0).origins, looked=step.value(0).looked), *[UNKNOWN] * 3]


RULES: Rules = {
    **dict.fromkeys(_CARRYING.split(), carry),
    **dict.fromkeys(("IdentityN",), carry_all),
    **dict.fromkeys(("Merge", "RefMerge"), merge),
    **dict.fromkeys(("Switch", "RefSwitch"), switch),
    **dict.fromkeys(("Select", "SelectV2"), select),
    **dict.fromkeys(("Add", "AddV2"), add),
    "Sub": subtract,
    "Mul": multiply,
    **dict.fromkeys(("RealDiv", "Div"), divide),
    **dict.fromkeys(("FloorDiv", "TruncateDiv"), floor_divide),
    "Neg": negate,
    **dict.fromkeys(("ClipByValue", "Minimum"), clip),
    "Maximum": larger,
    **dict.fromkeys(("Log", "Log1p", "Sqrt", "Rsqrt", "Acosh"), positive),
    **dict.fromkeys(("Acos", "Asin", "Atanh"), unit),
    **dict.fromkeys(("Unique", "UniqueV2", "UniqueWithCounts"), gather_values),
}
