"""Random single edits of a graph, and whether one changed what it answers: for what must not be proved."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .cases import Array, v1
from .oracle import Answers, answers_of, is_same

_NEIGHBOURS = [
    {"Add", "Sub"},
    {"AddV2", "Sub", "Mul", "Maximum", "Minimum"},
    {"Less", "LessEqual", "Greater", "GreaterEqual"},
    {"Equal", "NotEqual"},
    {"LogicalAnd", "LogicalOr"},
    {"Relu", "Relu6", "Tanh", "Sigmoid", "Exp", "Expm1", "Abs", "Square", "Neg", "Identity"},
    {"Sum", "Max", "Mean", "Min", "Prod"},
    {"Floor", "Ceil", "Round"},
    {"Softmax", "LogSoftmax"},
    {"StringLower", "StringUpper"},
]
_DTYPES = [tf.float32, tf.float64, tf.int32, tf.int64, tf.bool]
_VALUES = ("float_val", "int_val", "int64_val", "double_val")


def edit(graph: Any, dice: random.Random) -> str:
    """Makes one random edit of a GraphDef in place; returns what it was, empty if none was found.

    It is another op, input, attribute, control input, function, or another bit of a constant.
    """
    places = [(node, None) for node in graph.node]
    places += [(node, function) for function in graph.library.function for node in function.node_def]
    for _ in range(50):
        node, function = dice.choice(places)
        if what := dice.choice(_EDITS)(node, function, graph, dice):
            return f"{what} of {node.name} ({node.op})"
    return ""


def _op(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    others = sorted(set().union(*(kind for kind in _NEIGHBOURS if node.op in kind)) - {node.op})
    if not others:
        return ""
    node.op = dice.choice(others)
    return "op"


def _order(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    data = [number for number, one in enumerate(node.input) if not one.startswith("^")]
    if len(data) < 2:
        return ""
    one, other = dice.sample(data, 2)
    is_other = node.input[one] != node.input[other]
    node.input[one], node.input[other] = node.input[other], node.input[one]
    return "order of inputs" if is_other else ""


def _input(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    data = [number for number, one in enumerate(node.input) if not one.startswith("^")]
    if not data:
        return ""
    if function is None:
        names = [one.name for one in graph.node]
    else:
        names = [one for other in function.node_def for one in other.input if not one.startswith("^")]
        names += [one.name for one in function.signature.input_arg]
    number, name = dice.choice(data), dice.choice(names)
    is_other = name not in (node.input[number], node.name)
    node.input[number] = name if is_other else node.input[number]
    return "input" if is_other else ""


def _bit(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    if node.op != "Const":
        return ""
    tensor = node.attr["value"].tensor
    if tensor.tensor_content:
        content = bytearray(tensor.tensor_content)
        bit = dice.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        tensor.tensor_content = bytes(content)
        return f"bit {bit}"
    for values in (getattr(tensor, name) for name in _VALUES):
        if len(values):
            values[dice.randrange(len(values))] += 1
            return "value"
    if len(tensor.bool_val):
        tensor.bool_val[0] = not tensor.bool_val[0]
    elif len(tensor.string_val):
        tensor.string_val[dice.randrange(len(tensor.string_val))] += b"x"
    return "value" if len(tensor.bool_val) or len(tensor.string_val) else ""


def _attribute(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    names = sorted(name for name in node.attr if name not in ("value", "_class"))
    if not names:
        return ""
    name = dice.choice(names)
    value = node.attr[name]
    kind = value.WhichOneof("value")
    if kind == "b":
        value.b = not value.b
    elif kind == "i":
        value.i += 1
    elif kind == "f":
        value.f += 0.5
    elif kind == "s":
        value.s += b"x"
    elif kind == "type":
        value.type = dice.choice(_DTYPES).as_datatype_enum
    elif kind == "list" and len(value.list.i):
        value.list.i[0] += 1
    else:
        return ""
    return f"attribute {name}"


def _control(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    control = [number for number, one in enumerate(node.input) if one.startswith("^")]
    if not control:
        return ""
    del node.input[dice.choice(control)]
    return "control input"


def _function(node: Any, function: Any, graph: Any, dice: random.Random) -> str:
    named = sorted(name for name, value in node.attr.items() if value.WhichOneof("value") == "func")
    if not named or len(graph.library.function) < 2:
        return ""
    attribute = node.attr[dice.choice(named)]
    other = dice.choice(graph.library.function).signature.name
    is_other = other != attribute.func.name
    attribute.func.name = other
    return "function" if is_other else ""


_EDITS = [_op, _order, _input, _bit, _attribute, _control, _function]


def changes_an_answer(raw: bytes, edited: bytes, outputs: Sequence[str], feeds: Mapping[str, Array]) -> bool:
    """Whether an edited graph answers otherwise, on inputs for which both answer."""
    for fed in _other_feeds(feeds):
        wanted = _answers(raw, outputs, fed)
        found = _answers(edited, outputs, fed)
        if wanted is not None and found is not None and not is_same(wanted, found):
            return True
    return False


def _answers(raw: bytes, outputs: Sequence[str], feeds: Mapping[str, Array]) -> Answers | None:
    try:
        return answers_of(raw, outputs, feeds)
    except (tf.errors.OpError, ValueError):
        return None


def _other_feeds(feeds: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
    yield feeds
    yield {name: np.concatenate([one, one]) if one.ndim and not one.dtype.names else one for name, one in feeds.items()}
    yield {name: (one * -7.5 + 0.3).astype(one.dtype) if one.dtype.kind == "f" else one for name, one in feeds.items()}


def edited(raw: bytes, seed: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Yields words for random edits of a .pb, each with its bytes; the same for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        graph = v1.GraphDef.FromString(raw)
        if what := edit(graph, dice):
            yield what, graph.SerializeToString()
