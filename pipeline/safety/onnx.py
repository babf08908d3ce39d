"""Finds dangers in an ONNX model: domains of its ops, and external files of its tensors (onnx/onnx.proto)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UnsafeModel
from pipeline.store.file_names import MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE

from . import Danger, printable
from .growth.others import Step, find_excess, onnx_step
from .growth.values import MOST_NUMBERS, Value
from .named_files import require_beside
from .sizes import MOST_GROWN, MOST_TENSOR

_INT = 2  # AttributeProto.AttributeType
# Of TensorProto.DataType, how numbers are read.
_TYPES = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "B", 10: "e", 11: "d", 12: "I", 13: "Q"}
# Without a name of its own a domain is ai.onnx.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Ops of onnxruntime that call Python, load libraries, or read what lies in another file.
_ACTING = {
    **dict.fromkeys(("PythonOp", "PythonOpGrad"), "call Python code"),
    **dict.fromkeys(("ATen", "ExternalOp", "TritonOp"), "run code that cannot be looked into"),
    "EPContext": "read files",
}
_UNKNOWN = "do anything: the effect of ops of the domain {} is unknown"


def find_dangers(model: Any, path: Path) -> list[Danger]:
    """Finds nodes of an ONNX model that could do more than compute, in its graphs, branches and functions.

    Args:
        model: a ModelProto, read without the files beside it.

    Raises:
        UnsafeModel: it reads weights outside of its folder, or a tensor takes more memory than there is.
    """
    found, own = list[Danger](), {(function.domain, function.name) for function in model.functions}
    for graph, function in _graphs(model):
        for node in graph.node:
            if (node.domain, node.op_type) in own:
                continue
            if node.domain not in _DOMAINS:
                op = f"{node.domain}.{node.op_type}"
                found.append(Danger(op, node.name or op, _UNKNOWN.format(printable(node.domain)), function))
            elif node.op_type in _ACTING and node.domain == "com.microsoft":
                found.append(Danger(node.op_type, node.name or node.op_type, _ACTING[node.op_type], function))
        for tensor in _tensors(graph):
            _require_own(tensor, path)
            _require_bounded(tensor, path)
    _require_no_growth(model, path)
    return found


def _require_no_growth(model: Any, path: Path) -> None:
    """Checks what the nodes make of constants; a branch sees the constants of the graph around it."""
    constants: dict[str, Value] = {}
    for graph, _ in _graphs(model):
        constants |= {tensor.name: _value(tensor) for tensor in getattr(graph, "initializer", ())}
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and node.output and attribute.HasField("t"):
                    constants[node.output[0]] = _value(attribute.t)
    for graph, function in _graphs(model):
        declared = {} if function else {port.name: _declared(port) for port in graph.input}
        found = find_excess(filter(None, map(_step, graph.node)), declared | constants, MOST_TENSOR)
        if found is not None:
            step, size = found
            raise UnsafeModel(
                f"this model could take more memory than there is: op {step} of {printable(step.outputs[0])}",
                where=path,
                got=f"{size / 1e9:.3g} GB" if size < 10**300 else "an astronomical number of bytes",
                wanted=f"at most {MOST_TENSOR / 1e9:.3g} GB",
            )


def _step(node: Any) -> Step | None:
    numbers = {attribute.name: int(attribute.i) for attribute in node.attribute if attribute.type == _INT}
    lists = {attribute.name: list(attribute.ints) for attribute in node.attribute if attribute.ints}
    texts = {attribute.name: attribute.s.decode("utf-8", "replace") for attribute in node.attribute if attribute.s}
    if not node.output:
        return None
    return onnx_step(node.op_type, node.input, node.output, numbers, lists, texts.get("equation", ""))


def _value(tensor: Any) -> Value:
    kind = _TYPES.get(tensor.data_type)
    dims = tuple(max(0, length) for length in tensor.dims)
    if kind is None:
        return Value(dims)
    item, code = struct.calcsize(kind), f"<{math.prod(dims)}{kind}" if math.prod(dims) <= MOST_NUMBERS else ""
    made = Value(dims, item)
    if tensor.raw_data:
        is_whole = code and struct.calcsize(code) == len(tensor.raw_data)
        return made.with_numbers(struct.unpack(code, tensor.raw_data)) if is_whole else made
    return made.with_numbers([*tensor.int64_data, *tensor.int32_data, *tensor.float_data]) if code else made


def _declared(port: Any) -> Value:
    shape = port.type.tensor_type.shape
    return Value(tuple(-max(1, dim.dim_value) for dim in shape.dim), struct.calcsize("b"))


def _graphs(model: Any) -> Iterator[tuple[Any, str]]:
    waiting = [(model.graph, ""), *((function, function.name) for function in model.functions)]
    while waiting:
        graph, name = waiting.pop(0)
        yield graph, name
        for node in graph.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
                waiting += [(one, name) for one in inner]


def _tensors(graph: Any) -> Iterator[Any]:
    """Yields the tensors of a graph or function; a function has only those of its nodes."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def external_files(model: Any, path: Path) -> dict[str, Path]:
    """Returns the files with external data of all tensors, by the names in the model.

    Raises:
        UnsafeModel: one of them is not the model's own.
    """
    found: dict[str, Path] = {}
    for graph, _ in _graphs(model):
        for tensor in _tensors(graph):
            found |= _require_own(tensor, path)
    return found


def _require_own(tensor: Any, path: Path) -> dict[str, Path]:
    """Returns the files that a tensor names; of several names a runtime takes the last, and all are checked."""
    what = f"tensor {printable(tensor.name)}"
    names = [entry.value for entry in tensor.external_data if entry.key == "location"]
    for name in names:
        # These names have the model's own files in an artifact, which would be replaced.
        if Path(name).as_posix() in (ONNX_FILE, SIGNATURE_FILE, MANIFEST_FILE):
            raise UnsafeModel(
                f"this model could replace files: {what} lies in one of another purpose", where=path, got=repr(name)
            )
    return {Path(name).as_posix(): require_beside(path.parent, name, what, path) for name in names}


def _require_bounded(tensor: Any, path: Path) -> None:
    size = math.prod(max(0, length) for length in tensor.dims)
    stored = len(tensor.raw_data) + sum(len(getattr(tensor, name)) for name in _FIELDS)
    if size > (MOST_TENSOR if tensor.external_data else stored * 8 + MOST_GROWN):
        raise UnsafeModel(
            f"this model could take more memory than there is: tensor {printable(tensor.name)}",
            where=path,
            got=f"{size:.3g} elements" if size < 10**300 else "an astronomical number of elements",
            wanted="no more than are stored of it",
        )


_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
