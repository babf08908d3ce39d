"""Rules for what other tools leave: Grappler, freeze_graph's companions, converters of TensorFlow 2.

Each is the same function, to the bit, wherever both forms answer; kernels of arithmetic take numbers below 1.2e-38 as
zero. Each is named by its function, whose sentence is the law. What would be another function for some input is not
here: sums in another order, Log(1 + x) as Log1p, x + 0 as x (which loses the sign of a zero), Not(a < b) as a >= b
(which differs for NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.graph.dtypes import DTYPES
from pipeline.graph.protos import AttrValue, DataType
from pipeline.signature import Array

from .op_facts import facts_of
from .rules import DT_FLOATS, DT_INT32, DT_STRING, Rules, attribute, attributes_of, dtype_of
from .terms import Term, TermTable

_Rule = Callable[[Rules, TermTable, Term], int | None]
# Not Relu and Relu6: fused, they give 0 for NaN, and alone NaN (tensorflow/core/kernels/fused_eigen_output_kernels.h).
_ACTIVATIONS = frozenset({"Elu", "Tanh", "Sigmoid", "LeakyRelu"})
_OF_FUSED = frozenset(
    {
        "TArgs",
        "num_args",
        "num_host_args",
        "fused_ops",
        "epsilon",
        "leakyrelu_alpha",
        "filter_format",
        "is_filter_const",
    }
)
DT_HALF, DT_DOUBLE = (DataType.Value(name) for name in ("DT_HALF", "DT_DOUBLE"))
_REAL = {number for number, dtype in DTYPES.items() if dtype.size_bytes and dtype.numpy().kind in "iuf"}


def _number(term: Term, name: str, default: int = 0) -> int:
    value = attribute(term, name)
    return default if value is None else int(value.i)


def _flag(term: Term, name: str) -> bool:
    value = attribute(term, name)
    return value is not None and value.b


def _with(term: Term, **changed: AttrValue | None) -> tuple[tuple[str, bytes], ...]:
    """Returns a term's attributes with others in their place; None takes one away."""
    assert isinstance(term.attributes, tuple)
    kept = {key: raw for key, raw in term.attributes if key not in changed}
    new = {key: one.SerializeToString(deterministic=True) for key, one in changed.items() if one is not None}
    return tuple(sorted({**kept, **new}.items()))


def _array(rules: Rules, table: TermTable, number: int) -> tuple[Array, int] | None:
    """Returns a small constant's value and dtype; None for any other term."""
    content = table[number].content
    value = None if content is None else rules.contents.array(content)
    return None if content is None or value is None else (value, rules.contents.contents[content].dtype)


def _is_all(rules: Rules, table: TermTable, number: int, value: float) -> bool:
    """Returns True for a constant without dimensions that has a value: it changes no shape."""
    found = _array(rules, table, number)
    if found is None or found[0].shape or (found[0].dtype.kind not in "iuf" and found[1] not in DT_FLOATS):
        return False
    own = float(found[0])
    return own == value and not (value == 0 and np.signbit(own))


def _indices_as_int32(rules: Rules, table: TermTable, term: Term, at: int, dtype: str) -> int | None:
    """The dtype of constant indices does not matter."""
    found = _array(rules, table, term.inputs[at])
    if found is None or (dtype_of(term, dtype) in (0, DT_INT32) and found[1] == DT_INT32):
        return None
    value = found[0]
    if value.dtype.kind not in "iu" or (value.size and np.abs(value).max() > np.iinfo(np.int32).max):
        return None
    inputs = list(term.inputs)
    inputs[at] = rules.constant(table, value.astype("<i4"), DT_INT32)
    new = _with(term, **{dtype: None})
    return None if (new, tuple(inputs)) == (term.attributes, term.inputs) else table.make(term.op, new, inputs)


# Arithmetic.


def add(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Add of numbers is AddV2."""
    return None if dtype_of(term, "T") in (DT_STRING, 0) else table.make("AddV2", term.attributes, term.inputs)


def add_n(rules: Rules, table: TermTable, term: Term) -> int | None:
    """AddN is the sum from left to right."""
    if dtype_of(term, "T") not in _REAL:
        return term.inputs[0] if len(term.inputs) == 1 else None
    total, *others = term.inputs
    for one in others:
        total = table.make("AddV2", attributes_of(T=dtype_of(term, "T")), [total, one])
    return total


def add_negative(rules: Rules, table: TermTable, term: Term) -> int | None:
    """x + -y is x - y."""
    if len(term.inputs) != 2:
        return None
    one, other = term.inputs
    for kept, negated in ((one, other), (other, one)):
        if table[negated].op == "Neg":
            return table.make("Sub", term.attributes, [kept, table[negated].inputs[0]])
    return None


def subtract(rules: Rules, table: TermTable, term: Term) -> int | None:
    """x - 0 is x; x - -y is x + y; x - c is x + -c."""
    one, other = term.inputs
    if _is_all(rules, table, other, 0):
        return one
    if table[other].op == "Neg":
        return table.make("AddV2", term.attributes, [one, table[other].inputs[0]])
    found = _array(rules, table, other)
    if found is None or found[0].dtype.kind not in "if":
        return None
    return table.make("AddV2", term.attributes, [one, rules.constant(table, -found[0], found[1])])


def multiply(rules: Rules, table: TermTable, term: Term) -> int | None:
    """x * 1 is x; x * x is Square(x)."""
    one, other = term.inputs
    if one == other and dtype_of(term, "T") in _REAL:
        return table.make("Square", term.attributes, [one])
    for kept, neutral in ((one, other), (other, one)):
        if _is_all(rules, table, neutral, 1):
            return kept
    return None


def divide(rules: Rules, table: TermTable, term: Term) -> int | None:
    """x / 1 is x; x / 2**n is x * 2**-n, as both are rounded from the same number; Div of floats is RealDiv."""
    if dtype_of(term, "T") not in DT_FLOATS:
        return None
    if _is_all(rules, table, term.inputs[1], 1):
        return term.inputs[0]
    found = _array(rules, table, term.inputs[1])
    if found is not None and found[0].size:
        with np.errstate(all="ignore"):
            inverse = np.reciprocal(found[0])
        tiny = {DT_HALF: 2.0**-14, DT_DOUBLE: 2.0**-1022}.get(found[1], 2.0**-126)
        is_exact = np.abs(np.frexp(found[0].astype(np.float64))[0]) == 0.5
        if is_exact.all() and np.isfinite(inverse).all() and (np.abs(inverse) >= tiny).all():
            return table.make("Mul", term.attributes, [term.inputs[0], rules.constant(table, inverse, found[1])])
    return None if term.op == "RealDiv" else table.make("RealDiv", term.attributes, term.inputs)


def undo(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Neg(Neg(x)) and LogicalNot(LogicalNot(x)) are x."""
    inner = table[term.inputs[0]]
    return inner.inputs[0] if inner.op == term.op else None


def square(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Square(x - y) is SquaredDifference(x, y)."""
    inner = table[term.inputs[0]]
    if inner.op != "Sub" or dtype_of(term, "T") not in _REAL:
        return None
    return table.make("SquaredDifference", term.attributes, inner.inputs)


def add_bias(rules: Rules, table: TermTable, term: Term) -> int | None:
    """BiasAdd along the last axis is a sum."""
    layout, content = attribute(term, "data_format"), table[term.inputs[1]].content
    if content is None or len(rules.contents.contents[content].shape) != 1 or (layout and layout.s == b"NCHW"):
        return None
    return table.make("AddV2", attributes_of(T=dtype_of(term, "T")), term.inputs)


# Shapes.


def pack_one(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Pack of one is ExpandDims."""
    if len(term.inputs) != 1:
        return None
    axis = rules.constant(table, np.array(_number(term, "axis"), "<i4"), DT_INT32)
    return table.make("ExpandDims", attributes_of(T=dtype_of(term, "T")), [term.inputs[0], axis])


def expand(rules: Rules, table: TermTable, term: Term) -> int | None:
    """A mean over an axis that is put back keeps it; the dtype and the shape, () or (1,), of an axis do not matter."""
    found = _array(rules, table, term.inputs[1])
    if found is None or found[0].size != 1:
        return None
    inner = table[term.inputs[0]]
    over = _array(rules, table, inner.inputs[1]) if inner.op == "Mean" and not _flag(inner, "keep_dims") else None
    if over is not None and over[0].ravel().tolist() == found[0].ravel().tolist():
        return table.make("Mean", _with(inner, keep_dims=AttrValue(b=True)), inner.inputs)
    if found[0].shape:
        axis = rules.constant(table, found[0].reshape(()), found[1])
        return table.make(term.op, term.attributes, [term.inputs[0], axis])
    return _indices_as_int32(rules, table, term, 1, "Tdim")


def reshape(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Reshape(Reshape(x, s), t) is Reshape(x, t)."""
    inner = table[term.inputs[0]]
    if inner.op == "Reshape":
        return table.make("Reshape", term.attributes, [inner.inputs[0], term.inputs[1]])
    return _indices_as_int32(rules, table, term, 1, "Tshape")


def transpose(rules: Rules, table: TermTable, term: Term) -> int | None:
    """Transpose by 0, 1, ... is the identity; Transpose of a Transpose is one."""
    order, inner = _array(rules, table, term.inputs[1]), table[term.inputs[0]]
    if order is None or order[0].ndim != 1:
        return None
    if order[0].tolist() == [*range(order[0].size)]:
        return term.inputs[0]
    first = _array(rules, table, inner.inputs[1]) if inner.op == "Transpose" else None
    if first is not None and sorted(first[0].tolist()) == sorted(order[0].tolist()) == [*range(order[0].size)]:
        both = rules.constant(table, first[0][order[0]].astype("<i4"), DT_INT32)
        return table.make("Transpose", _with(term, Tperm=None), [inner.inputs[0], both])
    return _indices_as_int32(rules, table, term, 1, "Tperm")


def multiply_transposed(rules: Rules, table: TermTable, term: Term) -> int | None:
    """MatMul of a transposed matrix is MatMul with the flag."""
    for at, flag in enumerate(("transpose_a", "transpose_b")):
        inner = table[term.inputs[at]]
        order = _array(rules, table, inner.inputs[1]) if inner.op == "Transpose" else None
        if order is not None and order[0].tolist() == [1, 0]:
            inputs = list(term.inputs)
            inputs[at] = inner.inputs[0]
            new = None if _flag(term, flag) else AttrValue(b=True)
            return table.make(term.op, _with(term, **{flag: new}), inputs)
    return None


# Fused ops.


def unfuse(rules: Rules, table: TermTable, term: Term) -> int | None:
    """_FusedMatMul and _FusedConv2D are the op, then BiasAdd, then the activation."""
    fused = attribute(term, "fused_ops")
    steps = [] if fused is None else [step.decode() for step in fused.list.s]
    if not steps or steps[0] != "BiasAdd" or len(term.inputs) != 3 or not set(steps[1:]) <= _ACTIVATIONS:
        return None
    dtype, layout = dtype_of(term, "T"), attribute(term, "data_format")
    own = _with(term, **dict.fromkeys(_OF_FUSED))
    found = table.make(term.op.removeprefix("_Fused"), own, term.inputs[:2])
    bias = dict(attributes_of(T=dtype)) | ({} if layout is None else {"data_format": layout.SerializeToString()})
    found = table.make("BiasAdd", tuple(sorted(bias.items())), [found, term.inputs[2]])
    alpha = attribute(term, "leakyrelu_alpha")
    for step in steps[1:]:
        attributes = dict(_typed(step, dtype))
        if step == "LeakyRelu" and alpha is not None:
            attributes["alpha"] = alpha.SerializeToString()
        found = table.make(step, tuple(sorted(attributes.items())), [found])
    return found


def decompose(rules: Rules, table: TermTable, term: Term) -> int | None:
    """_UnaryOpsComposition is its ops, one after the other."""
    names, [found] = attribute(term, "op_names"), term.inputs
    if names is None:
        return None
    for name in names.list.s:
        found = table.make(name.decode(), _typed(name.decode(), dtype_of(term, "T")), [found])
    return found


def _typed(op: str, dtype: int) -> tuple[tuple[str, bytes], ...]:
    """Returns the attributes of an op that has a dtype alone, as a graph's node has them: without a default."""
    defaults = facts.defaults if (facts := facts_of(op)) is not None else {}
    return tuple(one for one in attributes_of(T=dtype) if defaults.get(one[0]) != one[1])


REWRITES: Mapping[str, _Rule] = {
    "Add": add,
    "AddN": add_n,
    "AddV2": add_negative,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "RealDiv": divide,
    "Neg": undo,
    "LogicalNot": undo,
    "Square": square,
    "BiasAdd": add_bias,
    "Pack": pack_one,
    "ExpandDims": expand,
    "Reshape": reshape,
    "Transpose": transpose,
    "MatMul": multiply_transposed,
    **dict.fromkeys(("_FusedMatMul", "_FusedConv2D", "_FusedDepthwiseConv2dNative"), unfuse),
    "_UnaryOpsComposition": decompose,
}
