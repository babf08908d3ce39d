"""Refuses graphs that are small on disk but would exceed the memory, before memory is allocated.

A constant may use one value for 10^12 elements; a placeholder, a variable or an op may have such a shape; functions may
call each other so often that inlining them never ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.checkpoint.bundle import Bundle
from pipeline.errors import UnsafeModel
from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.protos import NodeDef, TensorProto, TensorShapeProto
from pipeline.graph.variables import VARIABLE_OPS

from . import printable
from .growth.nodes import NodeView, declared_value, value_of
from .growth.steady import Steadiness, steady_ops
from .growth.values import Value
from .reach import Calls

MOST_TENSOR = 8 << 30  # bytes of one tensor that is not stored in a file
MOST_GROWN = 2 << 30  # bytes of constants beyond their stored bytes: more than a .pb may have
MOST_CALLS = 100  # calls within calls
MOST_NODES = 20_000_000  # after all calls are inlined
_BYTES_OF_STRING = 24  # bytes of an empty string in memory
_FACTOR = 100  # the highest compression of a checkpoint's tables

_SMALL = 4096  # bytes; smaller constants are not counted, as each node takes some bytes in the file
_CONSTANTS = frozenset({"Const", "HostConst"})
# Ops that make a tensor of the shape in their attribute.
_OF_SHAPE = VARIABLE_OPS | {
    "Placeholder",
    "PlaceholderV2",
    "PlaceholderWithDefault",
    "ImmutableConst",
    "ParallelConcat",
}
_REFERENCE = 100
_SIZED = _CONSTANTS | _OF_SHAPE
_STORED = 4  # times that what is stored may be taken: in a wider dtype, and as a complex number


def require_bounded(
    graph: Graph,
    path: Path,
    stored_bytes: int = 0,
    contents: Mapping[str, int] | None = None,
    stored: Callable[[NodeDef], Value | None] | None = None,
) -> None:
    """Checks that a graph does not exceed the memory of a machine.

    Args:
        stored_bytes: size of the checkpoint's files, which hold its variables.
        contents: bytes of constants by node, if they were left in their file.
        stored: returns the numbers of a variable in the checkpoint, if they are few.

    Raises:
        UnsafeModel: it would take more than `MOST_TENSOR` or `MOST_GROWN` bytes, or its functions never end.
    """
    grown, held, steadiness, steady = 0, contents or {}, Steadiness(graph), steady_ops() - _SIZED
    for function, node in graph.placed_nodes():
        op, size = node.op, 0
        if op in steady:
            continue
        if op not in _SIZED:
            steadiness.note_op(node)
            continue
        node = whole_node(node)
        if op in _CONSTANTS:
            if "value" not in node.attr:  # asking for what is not there would make it
                continue
            tensor = node.attr["value"].tensor
            if tensor.tensor_shape.dim:
                steadiness.note_source([dim.size for dim in tensor.tensor_shape.dim])
            size = _bytes(tensor.tensor_shape, tensor.dtype)
            if size > _SMALL:
                grown += max(0, size - _stored_bytes(tensor) - held.get("" if function else node.name, 0))
            if grown > MOST_GROWN:
                reason = f"constants of {_gb(grown)} more than is stored of them"
                raise _too_large(path, node, function, size, reason)
            continue
        steadiness.note_declared(node)
        if op in _OF_SHAPE and "shape" in node.attr:
            size = _bytes(node.attr["shape"].shape, node.attr["dtype"].type if "dtype" in node.attr else 0)
        if size > (max(MOST_TENSOR, stored_bytes) if op in VARIABLE_OPS else MOST_TENSOR):
            raise _too_large(path, node, function, size)
    _require_ending(graph, path)
    most_bytes = max(MOST_TENSOR, (stored_bytes + sum(held.values())) * _STORED)
    if steadiness.holds and steadiness.most_bytes <= most_bytes:
        return
    from .growth.graphs import find_excess  # most graphs are steady, and need no rules

    excess = find_excess(graph, most_bytes, dict(_declared_values(graph, stored)))
    if excess is not None:
        raise _too_large(path, excess.node, excess.function, excess.size_bytes)


def _declared_values(
    graph: Graph, stored: Callable[[NodeDef], Value | None] | None
) -> Iterator[tuple[tuple[str, str], Value]]:
    """Yields what is known of constants, variables and placeholders, by function and node."""
    for function, node in graph.placed_nodes():
        if node.op in _SIZED:
            view = NodeView(whole_node(node))
            is_number = stored is not None and node.op in VARIABLE_OPS and view.is_integer("dtype")
            value = stored(view.node) if stored is not None and is_number else None
            if value is None:
                value = _declared_value(view)
            if value is not None:
                yield (function, node.name), value


def _declared_value(view: NodeView) -> Value | None:
    if view.op not in _CONSTANTS:
        return declared_value(view)
    constant = view.find("value")
    return None if constant is None else value_of(constant.tensor)


def require_stored(bundle: Bundle, path: Path | str, stored_bytes: int) -> None:
    """Checks that a checkpoint's tensors are not larger than its files can hold.

    Raises:
        UnsafeModel: one is.
    """
    for tensor in bundle.tensors.values():
        size = max(tensor.size_bytes, tensor.elements * (tensor.kind.size_bytes or 1))
        if size > stored_bytes * _FACTOR + MOST_TENSOR // 1024:
            raise UnsafeModel(
                "the checkpoint lists a tensor that its files cannot hold",
                where=path,
                got=f"{printable(tensor.key)} of {_gb(size)} in files of {stored_bytes:,} bytes",
                next_step="Do not load it; copy the checkpoint again if it should be whole",
            )


def _bytes(shape: TensorShapeProto, dtype: int) -> int:
    """Returns the bytes of a tensor; unknown lengths count as 1."""
    if not shape.dim:
        return _size_of(dtype)
    lengths = (int(dim.size) for dim in shape.dim)
    return math.prod(max(1, length) if length else 0 for length in lengths) * _size_of(dtype)


def _size_of(dtype: int) -> int:
    number = dtype - _REFERENCE if dtype > _REFERENCE else dtype
    return _BYTES_OF_STRING if number == STRING.number else max(1, DTYPES[number].size_bytes) if number in DTYPES else 1


def _stored_bytes(tensor: TensorProto) -> int:
    counts = (len(tensor.float_val), len(tensor.int_val), len(tensor.int64_val), len(tensor.string_val))
    more = (len(tensor.double_val), len(tensor.bool_val), len(tensor.half_val), len(tensor.scomplex_val))
    return len(tensor.tensor_content) + max(*counts, *more, len(tensor.dcomplex_val)) * _size_of(tensor.dtype)


def _require_ending(graph: Graph, path: Path) -> None:
    """Checks that functions do not call themselves, nor each other too deep or too often."""
    calls = Calls(graph)
    sizes, depths = dict[str, int](), dict[str, int]()
    inner = {
        name: [c for node in body.node_def for c in calls.called_by(node)] for name, body in graph.functions.items()
    }
    for start in graph.functions:
        waiting = [(start, iter(inner[start]))]
        on_the_way = {start}
        while waiting:
            name, rest = waiting[-1]
            callee = next(rest, None)
            if callee is None:
                waiting.pop()
                on_the_way.discard(name)
                sizes[name] = len(graph.functions[name].node_def) + sum(sizes[one] for one in inner[name])
                depths[name] = 1 + max((depths[one] for one in inner[name]), default=0)
            elif callee in on_the_way:
                raise _endless(path, f"function {printable(callee)} calls itself")
            elif callee not in sizes:
                on_the_way.add(callee)
                waiting.append((callee, iter(inner[callee])))
        if depths[start] > MOST_CALLS:
            raise _endless(path, f"{depths[start]} calls within each other, at function {printable(start)}")
        if sizes[start] > MOST_NODES:
            raise _endless(path, f"function {printable(start)} expands to more than {MOST_NODES:,} nodes")


def _endless(path: Path, got: str) -> UnsafeModel:
    return UnsafeModel("the model's functions call each other without an end in sight", where=path, got=got)


def _too_large(path: Path, node: NodeDef, function: str, size: int, got: str = "") -> UnsafeModel:
    inside = f" (function {printable(function)})" if function else ""
    place = f"op {printable(node.op)} in node {printable(node.name)}{inside}"
    return UnsafeModel(
        f"this model could take more memory than there is: {place}",
        where=path,
        got=got or _gb(size),
        wanted=f"at most {_gb(MOST_GROWN if got else MOST_TENSOR)}",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size < 10**300 else "an astronomical number of bytes"
