"""Finds what a choice of outputs would drop though a loss was made of it.

The tensor that a loss compares with labels is what was trained. It is not dropped because another one feeds nothing: a
renderer's depth is no answer without its colours. It is dropped if a chosen output tells the same, as a softmax does of
its logits, or as the tower for use does of the same tower with dropout.
"""

from __future__ import annotations

from .ends import LOSS, ModelEnd
from .losses import LIKES, RESHAPES
from .roles import NodeRoles, union
from .shapes import ELEMENTWISE
from .topology import Tensor

_TELLS = ELEMENTWISE | RESHAPES | {"Elu", "LeakyRelu", "LogSoftmax", "Relu6", "Selu", "Sigmoid", "Softmax", "Tanh"}
_JOINS = frozenset({"ConcatV2", "Pack"})
_MOST_ADDED = 4


def add_trained(roles: NodeRoles, chosen: list[ModelEnd], trained: list[ModelEnd]) -> tuple[list[ModelEnd], str]:
    """Adds what the loss is made of to a choice that would drop it.

    Args:
        trained: ends that feed the loss, and what else the loss is made of.

    Returns:
        The choice; and without one, the reason to ask.
    """
    idle = [end for end in chosen if end.feeds != LOSS]
    if not idle or not roles.has_training:
        return chosen, ""
    told = {tensor for end in chosen for part in _parts(roles, end.tensor) for tensor in chain_of(roles, part)}
    applied = {end.head: roles.applied.get(end.head, set()) for end in chosen if end.head not in roles.of_model}
    added: list[ModelEnd] = []
    for end in trained:
        own = roles.applied.get(end.head, set())
        is_twin = any(head != end.head and own and own <= variables for head, variables in applied.items())
        if end.head < 0 or is_twin or (roles.differentiated and end.head not in roles.differentiated):
            continue
        chain = chain_of(roles, end.tensor)
        if told.isdisjoint(chain):
            added.append(end)
            told.update(chain)
    given = union(roles.above[end.tensor[0]] for end in chosen)
    name = roles.graph.name
    if any(roles.above[end.tensor[0]] & ~given for end in added) or len(added) > _MOST_ADDED:
        return [], f"{name(idle[0].tensor)} feeds nothing, as an output does, but the loss is made of others"
    return [*chosen, *added], ""


def _parts(roles: NodeRoles, tensor: Tensor) -> list[Tensor]:
    """Returns a tensor, and those that it is put together from, such as the rows of each GPU's tower."""
    last = chain_of(roles, tensor)[-1]
    if roles.graph.ops[last[0]] not in _JOINS:
        return [tensor]
    return [tensor, *(one for one in roles.graph.inputs[last[0]] if roles.is_inner(one[0]))]


def chain_of(roles: NodeRoles, tensor: Tensor) -> list[Tensor]:
    """Returns a tensor, the one that it is another form of, and so on."""
    found, before = [tensor], _form_of(roles, tensor)
    while before is not None and before not in found:
        found.append(before)
        before = _form_of(roles, before)
    return found


def _form_of(roles: NodeRoles, tensor: Tensor) -> Tensor | None:
    """Returns the one tensor that another is made of, such as the logits of a softmax, or of max(x, 0) - x * 0.5."""
    waiting, seen = {tensor}, set[Tensor]()
    while True:
        last = max(waiting)
        if roles.graph.ops[last[0]] not in _TELLS or _is_scaled_by_many(roles, last[0]) or last in seen:
            return None
        seen.add(last)
        given = {one for one in roles.graph.inputs[last[0]] if roles.is_inner(one[0])}
        waiting = (waiting - {last}) | {one for one in given if roles.graph.ops[one[0]] not in LIKES}
        if len(waiting) <= 1:
            return waiting.pop() if waiting else None


def _is_scaled_by_many(roles: NodeRoles, index: int) -> bool:
    """Returns True for a layer whose weights are more than one number: another may be made of the same tensor."""
    pure = [source for source, port in roles.graph.inputs[index] if roles.is_pure_weight((source, port))]
    return roles.is_layer[index] and not all(roles.is_scalar[source] for source in pure)
