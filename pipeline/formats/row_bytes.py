"""Bytes of a row: of its inputs, and of its outputs as far as the signature tells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import DataType, NodeDef
from pipeline.signature import Batch, Signature, TensorSpec

_SIZES = {"double": 8, "int64": 8, "complex64": 8, "complex128": 16, "half": 2, "bfloat16": 2, "uint8": 1, "bool": 1}
_TOGETHER = 16_000_000  # bytes of inputs that are run at once where nothing else bounds them


def spec_row_bytes(spec: TensorSpec) -> int | None:
    """Returns the bytes of a row of one input or output; None if its shape or dtype leaves them open."""
    sizes = [size for size in (spec.shape or ())[1:] if size is not None]
    if spec.dtype == "string" or spec.shape is None or len(sizes) < len(spec.shape) - 1:
        return None
    return math.prod(sizes) * np.dtype(getattr(ml_dtypes, spec.dtype, spec.dtype.removeprefix("q"))).itemsize


def bytes_of(batch: Batch) -> int:
    """Returns the bytes of all values of a batch."""
    return sum(
        sum(map(len, values.ravel())) if values.dtype == object else int(values.nbytes) for values in batch.values()
    )


def stored_row_bytes(graph: Graph) -> int:
    """Returns the bytes that one row takes in the largest node of a SavedModel's functions, its inputs and outputs.

    TensorFlow 2 writes the shapes of their tensors into the file. Only those count whose first dimension alone is open.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    largest = 0
    for function in functions.values():
        made = {node.name: _made_by(node, output_dtypes(node, functions) or ()) for node in function.node_def}
        for node in function.node_def:
            taken = {node_of(reference) for reference in data_inputs(node)}
            largest = max(largest, made[node.name] + sum(made.get(name, 0) for name in taken))
    return largest


def _made_by(node: NodeDef, dtypes: Sequence[int]) -> int:
    total = 0
    if "_output_shapes" not in node.attr:
        return total
    for shape, dtype in zip(node.attr["_output_shapes"].list.shape, dtypes, strict=False):
        sizes = [dim.size for dim in shape.dim]
        if sizes[:1] == [-1] and -1 not in sizes[1:]:
            name = DataType.Name(dtype).removeprefix("DT_").lower()
            total += math.prod(sizes[1:]) * _SIZES.get(name, 4)
    return total


def rows_together(rows: Batch, signature: Signature) -> int:
    """Returns how many rows to run at once: all if they are small, or if an answer may be one for a whole batch."""
    count = len(next(iter(rows.values())))
    if not all(spec.shape and spec.shape[0] is None for spec in signature.outputs):
        return count
    return max(1, min(count, _TOGETHER * count // max(1, bytes_of(rows))))
