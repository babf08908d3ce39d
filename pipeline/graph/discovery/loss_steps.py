"""Finds what a loss makes of an output that it also takes itself: parts, differences and reshapes of it.

A loss that compares weights of a portfolio with returns, and also takes how far they are from the last ones, begins
with the weights: a slice of them, or their difference to an input, is a step of the loss.
"""

from __future__ import annotations

from collections.abc import Callable

from .losses import RESHAPES, LayerContext
from .names import is_named
from .shapes import ELEMENTWISE, REDUCTIONS, shape_of
from .topology import NumberedGraph

PIECES = frozenset(
    ["AsString", "StringFormat", "ConcatV2", "GatherNd", "GatherV2", "Pack", "Slice", "StridedSlice", "Tile"]
)
_STEPS = (ELEMENTWISE | REDUCTIONS | RESHAPES | PIECES | {"Split", "SplitV", "Unpack"}) - {"ConcatV2", "Pack"}
_FORMS = (RESHAPES | {"Slice", "StridedSlice"}) - {"StopGradient", "Transpose"}


def find_compared_base(context: LayerContext, index: int, is_in_loss: Callable[[int], bool]) -> int:
    """Returns the tensor that an end is made of by arithmetic alone, if a loss compares that one with labels; or -1.

    Args:
        is_in_loss: returns True for a node fed by labels that leads to a loss.
    """
    roles, graph, at = context.roles, context.graph, index
    while graph.ops[at] in _STEPS and not roles.is_layer[at]:
        given = {source for source, _ in graph.inputs[at] if context.inner[source]}
        if len(given) != 1:
            return -1
        at = given.pop()
        if roles.depth[at] or not graph.ops[at] or roles.is_scalar[at]:
            return -1
        for taker, _ in graph.consumers[at]:
            is_aside = context.inner[taker] or taker in roles.gradients or roles.is_outcome[taker]
            if not is_aside and roles.above[taker] & roles.labels and is_in_loss(taker):
                return at
    return -1


def stands_for_named(context: LayerContext, index: int) -> bool:
    """Returns True for an unnamed form, made for the loss alone, of a tensor that its author named."""
    roles, graph, op = context.roles, context.graph, context.graph.ops[index]
    if op not in _FORMS or is_named(graph.nodes[index]):
        return False
    before, port = graph.inputs[index][0]
    if port != 0 or not context.inner[before] or not is_named(graph.nodes[before]) or context.is_followed[before]:
        return False
    shape = shape_of(graph, (before, port), roles.producer)
    return op in RESHAPES or (shape is not None and len(shape) > 1 and all(size == 1 for size in shape[1:]))


def adds_axes(graph: NumberedGraph, index: int) -> bool:
    """Returns True for x[None], which takes nothing away."""
    attributes = graph.nodes[index].attr
    is_slice = graph.ops[index] == "StridedSlice"
    return is_slice and bool(attributes["new_axis_mask"].i) and not attributes["shrink_axis_mask"].i
