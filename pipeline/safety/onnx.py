"""Finds dangers in an ONNX model: domains of its ops, and external files of its tensors (onnx/onnx.proto)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UnsafeModel
from pipeline.store.file_names import MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE

from . import Danger, printable
from .growth.onnx_graphs import find_excess
from .growth.others import Endless
from .named_files import require_beside
from .sizes import MOST_GROWN, MOST_TENSOR

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
            # A function of the model under the name of an op of the runtime is not called: the op is.
            if node.domain not in _DOMAINS:
                if (node.domain, node.op_type) in own:
                    continue
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
    """Checks what the nodes make of constants, in branches, loops and functions too."""
    try:
        found = find_excess(model, MOST_TENSOR)
    except Endless as exc:
        raise UnsafeModel(
            "the model's functions call each other without an end in sight", where=path, got=str(exc)
        ) from exc
    if found is not None:
        size, name = found.size_bytes, next(iter(found.node.output), "")
        raise UnsafeModel(
            f"this model could take more memory than there is: op {printable(found.node.op_type)} of {printable(name)}",
            where=path,
            got=f"{size / 1e9:.3g} GB" if size < 10**300 else "an astronomical number of bytes",
            wanted=f"at most {MOST_TENSOR / 1e9:.3g} GB",
        )


def _graphs(model: Any) -> Iterator[tuple[Any, str]]:
    waiting = [(model.graph, ""), *((function, function.name) for function in model.functions)]
    while waiting:
        graph, name = waiting.pop(0)
        yield graph, name
        for attribute in _attributes(graph):
            inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            waiting += [(one, name) for one in inner]


def _attributes(graph: Any) -> Iterator[Any]:
    """Yields the attributes of all nodes, and those that a function has if its call gives none."""
    for node in graph.node:
        yield from node.attribute
    yield from getattr(graph, "attribute_proto", ())


def _tensors(graph: Any) -> Iterator[Any]:
    """Yields the tensors of a graph or function; a function has only those of its nodes and attributes."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for attribute in _attributes(graph):
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for one in (*sparse, *attribute.sparse_tensors):
            yield from (one.values, one.indices)


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
