"""Small graphs written by hand, and what the check `graph` finds of two."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pipeline.graph.graph import Graph
from pipeline.graph.protos import FunctionDef, FunctionDefLibrary, NodeDef
from pipeline.validation.proof.contents import Content
from pipeline.validation.proof.model import Model
from pipeline.validation.proof.prove import Proof, compare_models

FLOAT, INT32, STRING, INT64, BOOL, HALF, RESOURCE = 1, 3, 7, 9, 10, 19, 20


def node(name: str, op: str, *inputs: str, **attributes: Any) -> NodeDef:
    """A node; attributes are dtypes (int), booleans, strings of functions, or messages."""
    new = NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        if isinstance(value, bool):
            new.attr[key].b = value
        elif isinstance(value, int):
            new.attr[key].type = value
        elif isinstance(value, str):
            new.attr[key].func.name = value
        else:
            new.attr[key].CopyFrom(value)
    return new


def const(name: str, *values: float, dtype: int = FLOAT, shape: Sequence[int] | None = None) -> NodeDef:
    new = node(name, "Const", dtype=dtype)
    tensor = new.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    for size in [len(values)] if shape is None else shape:
        tensor.tensor_shape.dim.add(size=size)
    code = {FLOAT: "f", INT32: "i", INT64: "q", BOOL: "?", HALF: "e"}[dtype]
    tensor.tensor_content = struct.pack(f"<{len(values)}{code}", *values)
    return new


def words(name: str, *values: bytes) -> NodeDef:
    new = node(name, "Const", dtype=STRING)
    tensor = new.attr["value"].tensor
    tensor.dtype = STRING
    tensor.tensor_shape.dim.add(size=len(values))
    tensor.string_val.extend(values)
    return new


def floats(*values: float) -> Content:
    raw = struct.pack(f"<{len(values)}f", *values)
    return Content(FLOAT, (len(values),), len(raw), lambda: raw, "w")


def model(
    side: str, nodes: Sequence[NodeDef], weights: Content | None = None, functions: Sequence[FunctionDef] = ()
) -> Model:
    graph = Graph(nodes, FunctionDefLibrary(function=functions))
    return Model(side, graph, {"x:0": "x"}, {"y": "y:0"}, variable=lambda identity, name: weights)


def prove(
    reference: Sequence[NodeDef], candidate: Sequence[NodeDef], *values: float, functions: Sequence[FunctionDef] = ()
) -> Proof:
    """Compares two graphs with the input `x` and the output `y`; the reference's variable has some values."""
    pair = (model("checkpoint", reference, floats(*values), functions), model("candidate", candidate, None, functions))
    return compare_models(*pair)


X = node("x", "Placeholder", dtype=FLOAT)
TEXT = node("x", "Placeholder", dtype=STRING)
VARIABLE = node("w", "VarHandleOp", dtype=FLOAT)
READ = node("w/read", "ReadVariableOp", "w", dtype=FLOAT)
TIMES_W = [X, VARIABLE, READ, node("y", "Mul", "x", "w/read", T=FLOAT)]
