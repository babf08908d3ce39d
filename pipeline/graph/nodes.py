"""Node references: names of nodes and tensors, in a graph and in the bodies of functions.

In a graph an input is `node`, `node:2` or, for control, `^node`. In a function's body it is an argument's
name, `node:output:2` or `^node` (tensorflow/core/framework/node_def.proto and function.proto).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from pipeline.errors import FreezeError

from .protos import AttrValue, FunctionDef, NodeDef, TensorShapeProto


def node_of(reference: str) -> str:
    """Returns the name of the node, or of the function's argument, that an input refers to."""
    return reference.lstrip("^").split(":", 1)[0]


_TENSOR = re.compile(r"[^:^]+(:[0-9]+)?")


def require_tensor_names(names: Iterable[str]) -> None:
    """Validates names of tensors or nodes.

    Raises:
        FreezeError: a name is malformed.
    """
    for name in names:
        if not _TENSOR.fullmatch(name):
            raise FreezeError(
                "this is no name of a tensor", where="inputs and outputs", got=repr(name), wanted="node or node:port"
            )


def dims_of(shape: TensorShapeProto) -> tuple[int | None, ...] | None:
    """Returns a shape with None for each open size; None if the rank is unknown."""
    return None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def placeholder_dims(node: NodeDef, producer: int) -> tuple[int | None, ...] | None:
    """Returns the shape that a placeholder declares; None if the rank is unknown.

    Args:
        producer: the version of the graph. Up to 21 an unknown shape was written as a scalar's, and TensorFlow reads
            it as unknown (tensorflow/core/ops/array_ops.cc, Placeholder).
    """
    if "shape" not in node.attr:
        return None
    shape = node.attr["shape"].shape
    is_unknown = node.op == "Placeholder" and producer <= _UNTIL_PRODUCER and not shape.dim
    return None if is_unknown else dims_of(shape)


def unused_name(name: str, taken: Container[str]) -> str:
    """Returns a name for a new node."""
    while name in taken:
        name += "_"
    return name


def is_control(reference: str) -> bool:
    """Returns True if an input only sets an order and carries no value."""
    return reference.startswith("^")


def normalize_tensor(reference: str) -> str:
    """Returns a tensor's name with its port: `node` becomes `node:0`."""
    return reference if ":" in reference else f"{reference}:0"


def data_inputs(node: NodeDef) -> list[str]:
    """Returns the inputs that carry values; they come before the control inputs."""
    return [reference for reference in node.input if not reference.startswith("^")]


def control_inputs(node: NodeDef) -> list[str]:
    """Returns the control inputs, which only set an order."""
    return [reference for reference in node.input if reference.startswith("^")]


def function_names(attr: AttrValue) -> Iterator[str]:
    """Yields the functions that an attribute names."""
    if attr.WhichOneof("value") == "func":
        yield attr.func.name
    for func in attr.list.func:
        yield func.name


def called_functions(node: NodeDef, functions: Mapping[str, FunctionDef]) -> Iterator[str]:
    """Yields the functions that a node calls: named by an attribute, or by the node's op."""
    if not functions:
        return
    if node.op in functions:
        yield node.op
    for name in sorted(node.attr):
        for function in function_names(node.attr[name]):
            if function in functions:
                yield function


_UNTIL_PRODUCER = 21
PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
