"""Finds values that only scale rows that are looked up, as in a factorization machine or a sparse linear model.

No weights are applied to such values in the usual way, as none are to labels. But rows of a table are weights, and what
scales all of them is data; the labels come later.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import reduce
from operator import or_

from .topology import NumberedGraph, Tensor, find_descendants

LOOK_UP = frozenset({"Gather", "GatherNd", "GatherV2", "ResourceGather", "ResourceGatherNd"})
KEEP_ROWS = frozenset(
    {"Cast", "DynamicStitch", "ExpandDims", "Identity", "ParallelDynamicStitch", "Reshape", "Squeeze", "Transpose"}
)
_SCALES = """
    BatchMatMul BatchMatMulV2 MatMul Mul SegmentMean SegmentSum SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum
    SparseTensorDenseMatMul UnsortedSegmentSum
"""
_SCALE_ROWS = frozenset(_SCALES.split())


@dataclass(frozen=True)
class ScaledRows:
    """What scales rows.

    Args:
        values: the sources that scale them.
        rows: nodes of the rows.
        lookups: nodes on the way from the tables to the rows.
    """

    values: int
    rows: list[int]
    lookups: set[int]


def find_scaled_rows(
    graph: NumberedGraph,
    above: list[int],
    sources_of: Callable[[Tensor], int],
    weight: list[int],
    data: int,
    gradients: Container[int],
) -> dict[int, ScaledRows]:
    """Returns the nodes where sources that are not yet known as data scale rows, and nothing else is done with these.

    Args:
        above: by node, the sources that it is computed from.
        sources_of: the same of a tensor, which may be a source itself.
        weight: by node, 2 if weights are in it.
        data: the sources that weights are applied to.
        gradients: nodes of no model.
    """
    is_row = [False] * len(graph.ops)
    scaling: dict[int, int] = {}
    for index in graph.order:
        op, given = graph.ops[index], [source for source, _ in graph.inputs[index]]
        if op in LOOK_UP and given and weight[index] == 2:
            is_row[index] = not sources_of(graph.inputs[index][0]) or is_row[given[0]]
        elif op in KEEP_ROWS:
            is_row[index] = any(is_row[source] for source in given)
        elif op in _SCALE_ROWS and any(is_row[source] for source in given):
            is_row[index] = True
            scales = [one for one in graph.inputs[index] if not is_row[one[0]] and not weight[one[0]]]
            values = [sources_of(one) for one in scales if not _is_choice(graph, one[0])]
            scaling[index] = reduce(or_, values, 0)
    found = {}
    for index, scale in scaling.items():
        rows = [source for source, _ in graph.inputs[index] if is_row[source]]
        takers = {taker for row in rows for taker, _ in graph.consumers[row] if above[taker] and taker not in gradients}
        later = reduce(or_, (above[after] for after in find_descendants(graph, [index], gradients)), 0)
        if scale & ~data and all(is_row[taker] for taker in takers) and later & ~above[index] & ~data:
            found[index] = ScaledRows(scale, rows, _lookups(graph, rows, is_row))
    return found


def _is_choice(graph: NumberedGraph, index: int) -> bool:
    """Returns True for one-hot rows, which choose a value as labels and actions do, and are none."""
    while graph.ops[index] in KEEP_ROWS and graph.inputs[index]:
        index = graph.inputs[index][0][0]
    return graph.ops[index] == "OneHot"


def _lookups(graph: NumberedGraph, rows: list[int], is_row: list[bool]) -> set[int]:
    waiting, seen = list(rows), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            waiting += [source for source, _ in graph.inputs[index] if is_row[source]]
    return seen
