"""Finds gradients that belong to the model: those with respect to its inputs that are an answer, as forces are.

A gradient with a row for each of the batch is one with respect to an input or to an inner tensor. It is an answer if
labels are compared with it, or if nothing takes what is made of it. A penalty on its norm, as critics have, is neither.
"""

from __future__ import annotations

from .roles import NodeRoles
from .shapes import shape_of
from .topology import Tensor


def find_input_gradients(roles: NodeRoles) -> frozenset[int]:
    """Returns the nodes of gradients that belong to the model."""
    graph, own = roles.graph, roles.own_gradients
    found: set[int] = set()
    if not own:
        return frozenset()
    shapes = {shape_of(graph, tensor, roles.producer) for tensor in roles.sources}
    for index, given in enumerate(graph.inputs):
        if index in own or not graph.ops[index] or roles.is_outcome[index]:
            continue
        for tensor in given:
            if tensor[0] in own and _has_rows(roles, tensor, shapes) and _is_answer(roles, index):
                found |= _gradients_above(roles, tensor[0])
    return frozenset(found)


def _has_rows(roles: NodeRoles, tensor: Tensor, shapes: set[tuple[int | None, ...] | None]) -> bool:
    shape = shape_of(roles.graph, tensor, roles.producer)
    return shape is not None and shape != () and (shape[0] is None or shape in shapes)


def _is_answer(roles: NodeRoles, start: int) -> bool:
    """Returns True if labels are compared with what is made of a node, or nothing takes it."""
    graph, waiting, seen = roles.graph, [start], set[int]()
    while waiting:
        index = waiting.pop()
        if index in seen or index in roles.own_gradients or roles.is_outcome[index] or roles.is_scalar[index]:
            continue
        seen.add(index)
        if not graph.ops[index] or roles.depth[index]:
            continue
        if any(_is_label(roles, tensor) for tensor in graph.inputs[index]):
            return True
        takers = {taker for taker, _ in graph.consumers[index]}
        if not takers and not graph.is_awaited[index]:
            return True
        waiting += takers
    return False


def _is_label(roles: NodeRoles, tensor: Tensor) -> bool:
    sources = roles.sources_of(tensor)
    return bool(sources & ~roles.data) and not roles.weight[tensor[0]] and not sources & roles.data


def _gradients_above(roles: NodeRoles, start: int) -> set[int]:
    waiting, seen = [start], set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen and index in roles.own_gradients:
            seen.add(index)
            waiting += [source for source, _ in roles.graph.inputs[index]]
    return seen
