"""Rules by which a term becomes a simpler one that is the same function, for every input and to the bit.

Each rule is named by its function. None of them looks at names of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.graph.dtypes import DTYPES
from pipeline.graph.protos import AttrValue, DataType
from pipeline.signature import Array

from .contents import ContentTable, content_of_array
from .terms import Term, TermTable

COMMUTING = ("Add", "AddV2", "Mul", "LogicalAnd", "LogicalOr", "Equal", "NotEqual")  # whose two inputs may be swapped
DT_BOOL, DT_INT32, DT_INT64, DT_STRING = (
    DataType.Value(name) for name in ("DT_BOOL", "DT_INT32", "DT_INT64", "DT_STRING")
)
DT_FLOATS = {DataType.Value(name) for name in ("DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16")}


def dtype_of(term: Term, name: str) -> int:
    """Returns a dtype among a term's attributes; 0 if it has no such attribute."""
    value = attribute(term, name)
    return 0 if value is None else int(value.type)


def attribute(term: Term, name: str) -> AttrValue | None:
    """Returns an attribute of an op's term; None if it has the op's default."""
    for key, raw in term.attributes if isinstance(term.attributes, tuple) else ():
        if key == name:
            return AttrValue.FromString(raw)
    return None


Rule = Callable[["Rules", TermTable, Term], "int | None"]


class Rules:
    """The rules, with the variables that handles stand for.

    Args:
        contents: of the constants.
        more: further rules, by op.

    Attributes:
        folded: terms of constants by terms that were computed.
        more: further rules, by op.
        roundings: by how much constants differ that rules took as equal, in units of 2**-23.
        values: terms of the values that variables have, by the term of their handle.
        ranges: of terms, as far as they were asked for.
    """

    def __init__(self, contents: ContentTable, more: Mapping[str, Rule] | None = None) -> None:
        self.contents, self.values, self.folded = contents, dict[int, int](), dict[Term, int]()
        self.more: Mapping[str, Rule] = {} if more is None else more
        self.roundings: list[float] = []
        self.ranges: dict[int, Range | None] = {}

    def simplify(self, table: TermTable, term: Term) -> int | None:
        """Returns the number of a simpler equal term; None if there is no rule for it."""
        found = self.folded.get(term) if self.folded else None
        for rules in (_RULES, self.more):
            rule = rules.get(term.op) if found is None else None
            found = rule(self, table, term) if rule is not None else found
        if found is None and term.op in _RANGED:
            found = self._settled(table, term)
        return found

    def constant(self, table: TermTable, array: Array, dtype: int) -> int:
        """Returns the term of a new constant."""
        return table.make("const", self.contents.number(content_of_array(array, dtype)))

    def scalar(self, table: TermTable, number: int) -> Array | None:
        """Returns the value of a constant without dimensions; None for any other term."""
        content = table[number].content
        if content is None or self.contents.contents[content].shape:
            return None
        return self.contents.array(content)

    # Reading variables.

    def _read(self, table: TermTable, term: Term) -> int | None:
        """ReadVariableOp(handle) is the variable's value; of one of several handles, one of their values."""
        [handle] = term.inputs[:1]
        if handle in self.values:
            return self.values[handle]
        chosen = table[handle]
        if chosen.op in ("if", "case"):
            values = [table.make(term.op, term.attributes, [one]) for one in chosen.inputs[1:]]
            return table.make(chosen.op, chosen.attributes, [chosen.inputs[0], *values])
        return None

    def _read_rows(self, table: TermTable, term: Term) -> int | None:
        """ResourceGather(handle, i) and Gather(value, i) are GatherV2(value, i, axis = number of batch dims)."""
        dims = attribute(term, "batch_dims")
        number = 0 if dims is None else dims.i
        dtype = dtype_of(term, "Tparams") or dtype_of(term, "dtype")
        value = term.inputs[0]
        if term.op == "ResourceGather":
            value = table.make("ReadVariableOp", attributes_of(dtype=dtype), [value])
        kept = {"Tparams": dtype, "Tindices": dtype_of(term, "Tindices")}
        axis = self.constant(table, np.array(number, "<i4"), DT_INT32)
        return table.make("GatherV2", attributes_of(number, **kept), [value, term.inputs[1], axis])

    def _gather(self, table: TermTable, term: Term) -> int | None:
        """The dtype of a constant axis does not matter."""
        if len(term.inputs) != 3 or (axis := self.scalar(table, term.inputs[2])) is None:
            return None
        kept = {"Tparams": dtype_of(term, "Tparams"), "Tindices": dtype_of(term, "Tindices")}
        dims = attribute(term, "batch_dims")
        wanted = attributes_of(0 if dims is None else dims.i, **kept)
        if term.attributes == wanted and axis.dtype == np.int32:
            return None
        return table.make("GatherV2", wanted, [*term.inputs[:2], self.constant(table, axis.astype("<i4"), DT_INT32)])

    def _read_nd(self, table: TermTable, term: Term) -> int | None:
        """ResourceGatherNd(handle, i) is GatherNd(value, i)."""
        dtype = dtype_of(term, "dtype")
        value = table.make("ReadVariableOp", attributes_of(dtype=dtype), term.inputs[:1])
        kept = {"Tparams": dtype, "Tindices": dtype_of(term, "Tindices")}
        return table.make("GatherNd", attributes_of(**kept), [value, term.inputs[1]])

    def _variable_shape(self, table: TermTable, term: Term) -> int | None:
        """VariableShape(handle) is the shape of the variable's value."""
        value = self.values.get(term.inputs[0])
        return None if value is None else self._shape_of(table, value, dtype_of(term, "out_type") or DT_INT32)

    def _shape(self, table: TermTable, term: Term) -> int | None:
        """The shape of a constant is a constant."""
        return self._shape_of(table, term.inputs[0], dtype_of(term, "out_type") or DT_INT32)

    def _shape_of(self, table: TermTable, number: int, dtype: int) -> int | None:
        content = table[number].content
        if content is None or dtype not in (DT_INT32, DT_INT64):
            return None
        shape = self.contents.contents[content].shape
        return self.constant(table, np.array(shape, DTYPES[dtype].code), dtype)

    def _is_initialized(self, table: TermTable, term: Term) -> int | None:
        """A variable with a value has one."""
        is_set = term.inputs[0] in self.values or table[term.inputs[0]].op == "const"
        return self.constant(table, np.array(True), DT_BOOL) if is_set else None

    # Branches and casts.

    def _if(self, table: TermTable, term: Term) -> int | None:
        """A branch that a constant takes, and branches that are equal."""
        condition, *branches = term.inputs
        if branches[0] == branches[1]:
            return branches[0]
        value = self.scalar(table, condition)
        return None if value is None or value.dtype != bool else branches[0 if value else 1]

    def _cast(self, table: TermTable, term: Term) -> int | None:
        """A cast to the same dtype."""
        given, wanted = dtype_of(term, "SrcT"), dtype_of(term, "DstT")
        return term.inputs[0] if given == wanted and given else None

    def _commute(self, table: TermTable, term: Term) -> int | None:
        """A sum or product of two in the other order has the same bits, whatever NaN's are; joined strings have not."""
        if len(term.inputs) != 2 or DT_STRING in (dtype_of(term, "T"), dtype_of(term, "Tin")):
            return None
        one, other = term.inputs
        if one <= other or one in table.leaves or other in table.leaves:  # numbers of leaves have no meaning
            return None
        return table.make(term.op, term.attributes, [other, one])

    # Ranges of values: what is the same for all draws is no draw.

    def _settled(self, table: TermTable, term: Term) -> int | None:
        """A random number that comes to the same whatever is drawn, as in a dropout that is switched off."""
        found = self._range_of_term(table, term)
        if found is None or not found.is_settled:
            return None
        dtype = DTYPES[found.dtype]
        value = np.array(found.low, dtype.numpy())
        if found.shape is None:
            return self.constant(table, value, found.dtype) if found.dtype == DT_BOOL else None
        kept = {"T": found.dtype, "index_type": found.shape_dtype}
        kept = {name: one for name, one in kept.items() if (name, one) != ("index_type", DT_INT32)}
        return table.make("Fill", attributes_of(**kept), [found.shape, self.constant(table, value, found.dtype)])

    def _range(self, table: TermTable, number: int) -> Range | None:
        if number not in self.ranges:
            self.ranges[number] = None
            self.ranges[number] = self._range_of_term(table, table[number])
        return self.ranges[number]

    def _range_of_term(self, table: TermTable, term: Term) -> Range | None:
        if term.content is not None:
            content = self.contents.contents[term.content]
            value = self.contents.array(term.content) if not content.shape else None
            if value is None or not (value.dtype == bool or content.dtype in DT_FLOATS) or not np.isfinite(value):
                return None
            return Range(float(value), float(value), content.dtype)
        if term.op in _DRAWS:
            dtype = dtype_of(term, "dtype")
            low, high = _DRAWS[term.op](dtype)
            if math.isnan(low):
                return None
            return Range(low, high, dtype, term.inputs[0], dtype_of(term, "T"))
        if term.op not in _RANGED:
            return None
        given = [self._range(table, one) for one in term.inputs]
        ranges = [one for one in given if one is not None]
        drawn = [one for one in ranges if one.shape is not None]
        if len(ranges) < len(given) or len(drawn) > 1 or len({one.dtype for one in ranges}) != 1:
            return None
        return _RANGED[term.op](*ranges, drawn[0] if drawn else ranges[0])


class Range:
    """The range of a tensor's elements.

    Args:
        low, high: the smallest and the largest value, as float64.
        dtype: TensorFlow's DataType.
        shape: the term of the shape of a draw; None for a constant without dimensions.
        shape_dtype: the dtype of that term.
    """

    def __init__(self, low: float, high: float, dtype: int, shape: int | None = None, shape_dtype: int = 0) -> None:
        self.low, self.high, self.dtype, self.shape, self.shape_dtype = low, high, dtype, shape, shape_dtype

    @property
    def is_settled(self) -> bool:
        """True if all elements have one value."""
        return self.low == self.high

    def of(self, low: float, high: float, dtype: int | None = None) -> Range | None:
        """Returns a range of the same shape, with ends rounded to the dtype; None if they are not finite."""
        dtype = self.dtype if dtype is None else dtype
        kind = DTYPES[dtype].numpy()
        ends = (float(np.array(low).astype(kind)), float(np.array(high).astype(kind)))
        return Range(*ends, dtype, self.shape, self.shape_dtype) if all(map(math.isfinite, ends)) else None


def _uniform(dtype: int) -> tuple[float, float]:
    """A draw is a multiple of 2**-bits from [0, 1) (tensorflow/core/lib/random/random_distributions_utils.h)."""
    bits = {1: 23, 2: 52, 19: 10, 14: 7}.get(dtype)
    return (0.0, 1 - 2.0**-bits) if bits else (math.nan, math.nan)


def _normal(dtype: int) -> tuple[float, float]:
    """Box and Muller's transform of floats that are at least 1e-7 stays below 6 (same file)."""
    return (-16.0, 16.0) if dtype in DT_FLOATS else (math.nan, math.nan)


def _multiply(a: Range, b: Range, of: Range) -> Range | None:
    products = [one * other for one in (a.low, a.high) for other in (b.low, b.high)]
    if min(products) == max(products) == 0:
        return of.of(0.0, 0.0)  # of either sign; a sum with it has the same value
    return of.of(min(products), max(products))


def _compare(
    is_true: Callable[[float, float], bool], at_worst: Callable[[Range, Range], tuple[float, float, float, float]]
) -> Callable[[Range, Range, Range], Range | None]:
    def ranged(a: Range, b: Range, of: Range) -> Range | None:
        least_a, least_b, most_a, most_b = at_worst(a, b)
        return of.of(is_true(least_a, least_b), is_true(most_a, most_b), DT_BOOL)

    return ranged


def _falling(a: Range, b: Range) -> tuple[float, float, float, float]:
    return a.low, b.high, a.high, b.low


def _rising(a: Range, b: Range) -> tuple[float, float, float, float]:
    return a.high, b.low, a.low, b.high


_DRAWS: Mapping[str, Callable[[int], tuple[float, float]]] = {
    "RandomUniform": _uniform,
    "RandomStandardNormal": _normal,
    "TruncatedNormal": _normal,
}
_RANGED: Mapping[str, Callable[..., Range | None]] = {
    "Add": lambda a, b, of: of.of(a.low + b.low, a.high + b.high),
    "AddV2": lambda a, b, of: of.of(a.low + b.low, a.high + b.high),
    "Sub": lambda a, b, of: of.of(a.low - b.high, a.high - b.low),
    "Mul": _multiply,
    "Floor": lambda a, of: of.of(math.floor(a.low), math.floor(a.high)),
    "Greater": _compare(lambda a, b: a > b, _falling),
    "GreaterEqual": _compare(lambda a, b: a >= b, _falling),
    "Less": _compare(lambda a, b: a < b, _rising),
    "LessEqual": _compare(lambda a, b: a <= b, _rising),
    "LogicalNot": lambda a, of: of.of(not a.high, not a.low),
    "LogicalAnd": lambda a, b, of: of.of(bool(a.low and b.low), bool(a.high and b.high)),
    "LogicalOr": lambda a, b, of: of.of(bool(a.low or b.low), bool(a.high or b.high)),
}


def attributes_of(batch_dims: int = 0, **dtypes: int) -> tuple[tuple[str, bytes], ...]:
    """Returns the attributes of an op's term."""
    found = {name: AttrValue(type=dtype).SerializeToString() for name, dtype in dtypes.items()}
    if batch_dims:
        found["batch_dims"] = AttrValue(i=batch_dims).SerializeToString()
    return tuple(sorted(found.items()))


_RULES: Mapping[str, Rule] = {
    "ReadVariableOp": Rules._read,
    "ResourceGather": Rules._read_rows,
    "Gather": Rules._read_rows,
    "GatherV2": Rules._gather,
    "ResourceGatherNd": Rules._read_nd,
    "VariableShape": Rules._variable_shape,
    "Shape": Rules._shape,
    "VarIsInitializedOp": Rules._is_initialized,
    "IsVariableInitialized": Rules._is_initialized,
    "if": Rules._if,
    "Cast": Rules._cast,
    **dict.fromkeys(COMMUTING, Rules._commute),
}
