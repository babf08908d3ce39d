"""Reduces the ends of a model: forms of one tensor, first steps of loops, by-products of loops and calls."""

from __future__ import annotations

from .ends import LOSS, NOTHING, ModelEnd
from .losses import LayerContext
from .names import is_named
from .roles import union
from .scaled_rows import LOOK_UP
from .shapes import ELEMENTWISE
from .topology import Tensor

_SLICES = frozenset({"Slice", "StridedSlice"})
_LOOPS = frozenset({"StatelessWhile", "While"})


def join_forms(context: LayerContext, ends: list[ModelEnd]) -> list[ModelEnd]:
    """Replaces several forms of one tensor in front of a loss, such as d and max(0, 1 - d), by that tensor."""
    heads: dict[int, list[ModelEnd]] = {}
    for end in ends:
        if end.feeds == LOSS and end.head >= 0:
            heads.setdefault(end.head, []).append(end)
    for head, forms in heads.items():
        if len(forms) < 2:
            continue
        chains = [_chain(context, end.tensor) for end in forms]
        common = next((one for one in chains[0] if all(one in chain for chain in chains[1:])), None)
        if common is not None:
            labels = union(end.labels for end in forms)
            joined = ModelEnd(common, LOSS, head, labels, note="the loss takes it in several forms")
            first = ends.index(forms[0])
            ends = [end for end in [*ends[:first], joined, *ends[first:]] if end not in forms]
    return ends


def _chain(context: LayerContext, tensor: Tensor) -> list[Tensor]:
    """Returns a tensor, the one that it is computed from element by element, or an unnamed slice of, and so on."""
    found = [tensor]
    while _is_form(context, tensor[0]) and not context.roles.is_layer[tensor[0]]:
        given = {source for source in context.graph.inputs[tensor[0]] if context.inner[source[0]]}
        if len(given) != 1:
            break
        tensor = given.pop()
        found.append(tensor)
    return found


def _is_form(context: LayerContext, index: int) -> bool:
    op = context.graph.ops[index]
    return op in ELEMENTWISE or (op in _SLICES and not is_named(context.graph.nodes[index]))


def without_rehearsals(context: LayerContext, ends: list[ModelEnd]) -> list[ModelEnd]:
    """Drops ends of layers that are also used in the middle of the model, such as a loop's first step.

    A table whose rows are looked up in the middle may be all that an end is scored against.
    """
    ends = _without_by_products(context, ends)
    applied, ops = context.roles.applied, context.graph.ops
    followed = [layer for layer in applied if context.is_followed[layer]]
    looked_up, middle = (
        {v for layer in followed if (ops[layer] in LOOK_UP) == is_lookup for v in applied[layer]}
        for is_lookup in (True, False)
    )
    rehearsed = [
        end
        for end in ends
        if end.feeds == NOTHING
        and end.head >= 0
        and applied.get(end.head, set()) <= (middle | looked_up if ops[end.head] in LOOK_UP else middle)
        if end.head not in context.roles.of_model
    ]
    tensors = {end.tensor for end in rehearsed}
    return [end for end in ends if end.tensor not in tensors] if len(rehearsed) < len(ends) else ends


def _without_by_products(context: LayerContext, ends: list[ModelEnd]) -> list[ModelEnd]:
    """Drops unused outputs of loops and calls of which other outputs are used, but none that its author named."""
    graph, root = context.graph, context.root
    named = {end.tensor for end in ends if is_named(graph.nodes[end.tensor[0]])}
    bare = {end.tensor for end in ends if _passes_result(context, end)} - named
    inside = {tensor for tensor in bare if _is_beside_results(context, tensor, bare)}
    results = [end for end in ends if end.tensor not in bare]
    roots = {root[end.tensor[0]] for end in results} | {-1}
    tensors = {end.tensor for end in results}
    return [
        end
        for end in ends
        if end.feeds != NOTHING
        or end.tensor in named
        or (root[end.tensor[0]] < 0 and end.tensor not in inside)
        or (end.head >= 0 and end.tensor not in inside and (end.tensor in tensors or root[end.tensor[0]] not in roots))
    ]


def _passes_result(context: LayerContext, end: ModelEnd) -> bool:
    """Returns True if an end only passes on a result of a loop or call."""
    graph, at = context.graph, end.tensor[0]
    return graph.ops[at] == "Identity" and context.is_call(graph.inputs[at][0][0])


def _is_beside_results(context: LayerContext, tensor: Tensor, bare: set[Tensor]) -> bool:
    """Returns True if a loop gives a tensor beside results that are used."""
    graph = context.graph
    loop = graph.inputs[tensor[0]][0][0]
    idle = {index for index, _ in bare} | context.roles.gradients
    return graph.ops[loop] in _LOOPS and any(taker not in idle for taker, _ in graph.consumers[loop])
