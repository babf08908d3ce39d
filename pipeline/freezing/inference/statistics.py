"""Tells a mean and a variance over the rows of a batch, as batch norm takes them in training.

Forms: `FusedBatchNorm*`, whose results 1 and 2 they are; `tf.nn.moments`; the mean of the square minus the square of
the mean; sums divided by a count (tensorflow/python/ops/nn_impl.py, sufficient_statistics and normalize_moments).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import DataType, NodeDef

CARRIES = frozenset(
    {"Identity", "Squeeze", "Reshape", "ExpandDims", "Cast", "StopGradient", "CheckNumerics", "Snapshot"}
)
REDUCTIONS = frozenset({"Mean", "Sum"})
_SAME = frozenset({"Identity", "Cast", "StopGradient", "Snapshot", "CheckNumerics"})
_SQUARES = frozenset({"Square", "SquaredDifference"})
_WITHIN = CARRIES | _SQUARES | {"Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Neg"}
_INT64 = DataType.Value("DT_INT64")
_MOST_STEPS = 12


@dataclass(frozen=True)
class Statistic:
    """A mean or a variance over the rows.

    Args:
        root: the tensor that it is before its shape or dtype is changed.
        rows: the node that it is taken of.
        is_variance: False for a mean.
        reductions: the nodes that reduce the rows.
        axes: those of the reduction, if it is one.
    """

    root: str
    rows: str
    is_variance: bool
    reductions: tuple[str, ...]
    axes: tuple[int, ...]


def statistic_of(graph: Graph, reference: str) -> Statistic | None:
    """Returns what a tensor is of its batch; None if it is none, or the result of a fused batch norm."""
    root = _climb(graph, reference, CARRIES)
    found = _reductions(graph, root, _MOST_STEPS)
    if not found:
        return None
    axes = [axes_of(graph, node) for node in found]
    if any(one is None or 0 not in one for one in axes):
        return None
    squared = [node for node in found if _squared(graph, node) is not None]
    rows = _squared(graph, squared[0]) if squared else same(graph, data_inputs(found[0])[0])
    assert rows is not None
    names = tuple(node.name for node in found)
    return Statistic(root, rows, bool(squared), names, axes[0] or ())


def axes_of(graph: Graph, node: NodeDef) -> tuple[int, ...] | None:
    """Returns the axes that a reduction takes, as they stand in the graph; None if they are not constant."""
    given = data_inputs(node)
    axes = graph.nodes.get(node_of(given[1])) if len(given) > 1 else None
    if axes is None or axes.op != "Const":
        return None
    tensor = whole_node(axes).attr["value"].tensor
    count, size = math.prod(dim.size for dim in tensor.tensor_shape.dim), 8 if tensor.dtype == _INT64 else 4
    packed = tensor.tensor_content
    if packed:
        return tuple(
            int.from_bytes(packed[at : at + size], "little", signed=True) for at in range(0, len(packed), size)
        )
    values: list[int] = [*tensor.int_val, *tensor.int64_val] or [0]
    return (*values, *values[-1:] * (count - len(values)))


def same(graph: Graph, reference: str) -> str:
    """Returns the node whose values a tensor has, whatever its dtype."""
    return node_of(_climb(graph, reference, _SAME))


def _climb(graph: Graph, reference: str, ops: frozenset[str]) -> str:
    for _ in range(_MOST_STEPS):
        node = graph.nodes.get(node_of(reference))
        if node is None or node.op not in ops or not data_inputs(node):
            break
        reference = data_inputs(node)[0]
    return reference


def _reductions(graph: Graph, reference: str, steps: int) -> Sequence[NodeDef]:
    """Returns the nodes at which the rows of a batch become one value."""
    node = graph.nodes.get(node_of(reference))
    if node is None or steps == 0:
        return []
    if node.op in REDUCTIONS:
        return [node]
    if node.op not in _WITHIN:
        return []
    found: list[NodeDef] = []
    for one in data_inputs(node)[: 1 if node.op in CARRIES else None]:
        found += [each for each in _reductions(graph, one, steps - 1) if each not in found]
    return found


def _squared(graph: Graph, reduction: NodeDef) -> str | None:
    """Returns the node whose squares are reduced; None if no squares are."""
    node = graph.nodes.get(same(graph, data_inputs(reduction)[0]))
    given = data_inputs(node) if node is not None else []
    is_square = node is not None and (
        node.op in _SQUARES or (node.op == "Mul" and same(graph, given[0]) == same(graph, given[1]))
    )
    if not is_square:
        return None
    rows = same(graph, given[0])
    inner = graph.nodes.get(rows)
    return same(graph, data_inputs(inner)[0]) if inner is not None and inner.op == "Sub" else rows
