"""Finds sources that set how a model answers, such as how many of the best: they are no rows, and no labels either."""

from __future__ import annotations

from collections.abc import Mapping

from .shapes import shape_of
from .topology import NumberedGraph, Tensor

_COUNTS = frozenset({"TopKV2"})  # (values, how many of the largest)


def find_settings(graph: NumberedGraph, sources: Mapping[Tensor, int], producer: int) -> int:
    """Returns the bits of scalars that have a default, and of those that say how many of the best are wanted."""
    counts = {graph.inputs[index][1] for index, op in enumerate(graph.ops) if op in _COUNTS}
    found = 0
    for tensor, bit in sources.items():
        op = graph.ops[tensor[0]]
        has_default = op == "PlaceholderWithDefault" and shape_of(graph, tensor, producer) == ()
        found |= bit if has_default or (tensor in counts and op.startswith("Placeholder")) else 0
    return found
