"""Pins placeholders: `is_training` becomes a constant, and its other branch no longer prevents freezing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.errors import FreezeError, nearest
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import PLACEHOLDERS, node_of
from pipeline.graph.protos import NodeDef, TensorShapeProto

from .batch_norms import norm_pins, switch_norms

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
# By dtype: how a value is read from text, and the field of a TensorProto that holds it.
_KINDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "bool": (lambda text: _TRUTHS[text.lower()], "bool_val"),
    "string": (str.encode, "string_val"),
    "float32": (float, "float_val"),
    "float64": (float, "double_val"),
    "int64": (int, "int64_val"),
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), (int, "int_val")),
}


def pin_placeholders(graph: Graph, pins: Mapping[str, str], names: Iterable[str] = ()) -> Graph:
    """Returns the graph with a constant in place of each pinned placeholder.

    Args:
        pins: by the placeholder's name its value, as text: `true`, `0.5`, `7`. If the placeholder's shape is known
            every element has it; otherwise the constant is a scalar. A scalar constant can be pinned too, such as the
            rate of a dropout that nothing switches off; and a batch norm that is built for training, see `batch_norms`.
        names: what else a placeholder can be called, for the error message.

    Raises:
        FreezeError: the placeholder does not exist, or its dtype has no such value.
    """
    if not pins:
        return graph
    values = {node_of(name): text for name, text in pins.items()}
    norms = norm_pins(graph, values)
    graph = switch_norms(graph, norms)
    values = {name: text for name, text in values.items() if name not in norms}
    known = [node.name for node in graph.node if node.op in PLACEHOLDERS or (node.name in values and _is_scalar(node))]
    for name in values:
        if name not in known:
            raise FreezeError("no such placeholder to pin", where=name, next_step=nearest(name, [*names, *known]))
    return graph.replace_nodes(
        _make_constant(whole_node(node), values[node.name]) if node.name in values else node for node in graph.node
    )


def _is_scalar(node: NodeDef) -> bool:
    return node.op == "Const" and not whole_node(node).attr["value"].tensor.tensor_shape.dim


def _make_constant(node: NodeDef, text: str) -> NodeDef:
    dtype = node.attr["dtype"].type
    name = DTYPES[dtype].name if dtype in DTYPES else str(dtype)
    constant = NodeDef(name=node.name, op="Const")
    constant.attr["dtype"].type = dtype
    tensor = constant.attr["value"].tensor
    tensor.dtype = dtype
    try:
        read, field = _KINDS[name]
        getattr(tensor, field).append(_in_range(read(text.strip()), name))
    except (KeyError, ValueError) as exc:
        raise FreezeError(
            "a placeholder cannot be pinned to this", where=node.name, got=text, wanted=f"a value of dtype {name}"
        ) from exc
    shape = node.attr["shape"].shape
    is_known = not shape.unknown_rank and all(dim.size >= 0 for dim in shape.dim)
    tensor.tensor_shape.CopyFrom(shape if is_known else TensorShapeProto())
    return constant


def _in_range(value: Any, dtype: str) -> Any:
    """Returns the value if this integer dtype can hold it; else raises a ValueError."""
    found = re.fullmatch(r"(u?)int(\d+)", dtype)
    if found:
        bits = int(found[2])
        low, high = (0, 2**bits - 1) if found[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if not low <= value <= high:
            raise ValueError(f"{value} is not from {low} to {high}")
    return value
