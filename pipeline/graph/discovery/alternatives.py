"""Finds other tensors that may be outputs, in case the ends of a model are ambiguous."""

from __future__ import annotations

from collections.abc import Collection

from ..variables import VARIABLE_OPS
from .ends import LOSS, MODEL, NOTHING, ModelEnd
from .losses import LayerContext
from .op_kinds import changes_state
from .roles import NodeRoles
from .topology import Tensor, find_descendants

TWO_JOINS = "it is combined with an input, and the result is compared with an input"
_LAYERS = frozenset(["BatchMatMul", "BatchMatMulV2", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul"])
_SCALES = frozenset(["Div", "Mul", "RealDiv", "Softmax"])


def find_middles(context: LayerContext, removed: Collection[int]) -> list[ModelEnd]:
    """Finds possible outputs before a loss without labels: the last tensor of one input, or its replacement."""
    ends: list[ModelEnd] = []
    layers = context.roles.applied
    on_inputs = {variable for layer, used in layers.items() if _applies_to_input(context, layer) for variable in used}
    for index in context.graph.order:
        if not context.inner[index] or index in removed:
            continue
        for consumer, port in context.graph.consumers[index]:
            if not context.inner[consumer] or consumer in context.roles.gradients:
                continue
            if context.roles.above[consumer] != context.roles.above[index]:
                ends.append(
                    ModelEnd((index, port), MODEL, -1, doubt="the last that is computed from these inputs alone")
                )
            elif not on_inputs.isdisjoint(layers.get(consumer, ())) and not _applies_to_input(context, consumer):
                doubt = "it takes the place of an input: the same weights are applied to both"
                ends.append(ModelEnd((index, port), MODEL, -1, doubt=doubt))
    return ends


def find_made_of_weights(roles: NodeRoles) -> list[ModelEnd]:
    """Finds what is computed from weights alone and feeds nothing, such as normalized word vectors."""
    graph = roles.graph
    if not any(op.endswith("CandidateSampler") for op in set(graph.ops)):
        return []
    slots = {index for index, op in enumerate(graph.ops) if op in VARIABLE_OPS} - set().union(*roles.applied.values())
    of_slots = find_descendants(graph, slots)
    return [
        ModelEnd((index, 0), NOTHING, -1, doubt="it is computed from weights alone")
        for index, op in enumerate(graph.ops)
        if op in _SCALES
        and roles.is_pure_weight((index, 0))
        and not roles.is_scalar[index]
        and index not in roles.gradients
        and index not in of_slots
        and not any(_is_of_use(roles, consumer) for consumer, _ in graph.consumers[index])
    ]


def find_before_draws(context: LayerContext, removed: Collection[int]) -> list[ModelEnd]:
    """Finds the last tensors before a draw, such as the mean of an action with noise."""
    found = {before: None for index in sorted(removed) if (before := context.drawn[index]) is not None}
    doubt = "random numbers are combined with it"
    return [ModelEnd(tensor, MODEL, context.head[tensor[0]], doubt=doubt) for tensor in found]


def find_leftovers(roles: NodeRoles) -> list[ModelEnd]:
    """Finds what else is computed from inputs and weights, with labels in it perhaps, and ends the graph or its loss.

    For a graph in which nothing ends the model: all that does is made with labels, or is part of a gradient.
    """
    graph, found = roles.graph, list[ModelEnd]()
    for index in reversed(graph.order):
        if not graph.ops[index] or index in roles.gradients or roles.is_outcome[index] or not roles.weight[index]:
            continue
        if not roles.above[index] or roles.is_scalar[index] or roles.depth[index]:
            continue
        takers = {taker for taker, _ in graph.consumers[index] if roles.above[taker] and not roles.is_outcome[taker]}
        if all(roles.is_scalar[taker] for taker in takers):
            doubt = "it is made of an input that may be labels" if roles.above[index] & roles.labels else ""
            found.append(ModelEnd((index, 0), LOSS if takers else NOTHING, -1, doubt=doubt))
    return found


def _is_of_use(roles: NodeRoles, index: int) -> bool:
    """Returns True if data flows through a node, or it trains."""
    op = roles.graph.ops[index]
    return roles.above[index] != 0 or index in roles.gradients or changes_state(op) or roles.is_scalar[index]


def _applies_to_input(context: LayerContext, layer: int) -> bool:
    given = [tensor for tensor in context.graph.inputs[layer] if context.roles.sources_of(tensor)]
    return all(context.is_given(tensor) for tensor in given)


def before_constant_layers(context: LayerContext, index: int) -> Tensor | None:
    """Returns the last tensor before layers of constant weights, as of a trained network that judges this one."""
    found, waiting, seen = None, [index], set[int]()
    while waiting:
        at = waiting.pop()
        if at in seen or context.roles.is_layer[at] or not context.inner[at]:
            continue
        seen.add(at)
        given = [tensor for tensor in context.graph.inputs[at] if context.inner[tensor[0]]]
        if context.graph.ops[at] in _LAYERS and len(given) == 1:
            found = given[0] if found is None else min(found, given[0])
        waiting += [source for source, _ in given]
    return found


def find_later_joins(context: LayerContext, removed: Collection[int]) -> list[ModelEnd]:
    """Finds tensors made from an end and an input that are compared with an input again: each may be the output."""
    return [
        ModelEnd(tensor, LOSS, context.head[tensor[0]], doubt=TWO_JOINS)
        for join in sorted(context.joins.intersection(removed))
        for tensor in context.graph.inputs[join]
        if tensor[0] in context.joins
    ]
