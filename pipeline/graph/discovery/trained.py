"""Finds what a choice of outputs would drop though a loss was made of it.

The tensor that a loss compares with labels is what was trained. It is not dropped because another one feeds nothing: a
renderer's depth is no answer without its colours. It is dropped if a chosen output tells the same, as a softmax does of
its logits, or as the tower for use does of the same tower with dropout.
"""

from __future__ import annotations

from .ends import LOSS, ModelEnd
from .losses import LIKES, RESHAPES
from .names import is_named
from .roles import NodeRoles, union
from .shapes import ELEMENTWISE
from .topology import Tensor
from .twins import find_twins

_TELLS = ELEMENTWISE | RESHAPES | {"Elu", "LeakyRelu", "LogSoftmax", "Relu6", "Selu", "Sigmoid", "Softmax", "Tanh"}
_JOINS = frozenset({"ConcatV2", "Pack"})
_MOST_ADDED = 4


def add_trained(
    roles: NodeRoles, chosen: list[ModelEnd], trained: list[ModelEnd], named: list[ModelEnd]
) -> tuple[list[ModelEnd], str]:
    """Adds what the loss is made of to a choice that would drop it, or what the author named that tells the same.

    Args:
        trained: ends that feed the loss, and what else the loss is made of.
        named: tensors that the author named beside ends that feed nothing.

    Returns:
        The choice; and without one, the reason to ask.
    """
    chosen = _without_twins(roles, chosen)
    idle = [end for end in chosen if end.feeds != LOSS]
    added = find_untold(roles, chosen, trained)
    if not added:
        return chosen, ""
    graph, name = roles.graph, roles.graph.name
    twins = find_twins(graph, [end.tensor[0] for end in (*chosen, *named, *added)])
    told = {_twin(twins, one) for end in (*idle, *named) for one in _told_by(roles, end)}
    rest = [end for end in added if all(_twin(twins, one) not in told for one in chain_of(roles, end.tensor))]
    extra = list({end.tensor: end for end in (*named, *rest)}.values())  # what was named beside is not dropped for it
    given = union(roles.above[end.tensor[0]] for end in chosen)
    has_names = all(is_named(graph.nodes[end.tensor[0]]) for end in idle)
    is_unnamed = has_names and any(not is_named(graph.nodes[end.tensor[0]]) for end in rest)
    if is_unnamed or any(roles.above[end.tensor[0]] & ~given for end in extra) or len(rest) > _MOST_ADDED:
        more = f" and {len(added) - 1} more" if len(added) > 1 else ""
        others = f"the loss is computed from other tensors ({name(added[0].tensor)}{more})"
        return [], f"nothing else in the graph uses {name(idle[0].tensor)}, as with an output, but {others}"
    return [*chosen, *extra], ""


def _without_twins(roles: NodeRoles, chosen: list[ModelEnd]) -> list[ModelEnd]:
    """Drops what feeds the loss if ends that feed nothing are made of the same, computed once more."""
    idle = [end.tensor[0] for end in chosen if end.feeds != LOSS]
    if not idle or len(idle) == len(chosen):
        return chosen
    twins = find_twins(roles.graph, [end.tensor[0] for end in chosen])
    used = {twins[index] for index in find_twins(roles.graph, idle)}
    return [end for end in chosen if end.feeds != LOSS or twins[end.tensor[0]] not in used]


def find_untold(roles: NodeRoles, chosen: list[ModelEnd], trained: list[ModelEnd]) -> list[ModelEnd]:
    """Returns the trained tensors that a choice of ends that feed nothing would drop."""
    if not roles.has_training or all(end.feeds == LOSS for end in chosen):
        return []
    told = {tensor for end in chosen for tensor in _told_by(roles, end)}
    applied = {end.head: roles.applied.get(end.head, set()) for end in chosen if end.head not in roles.of_model}
    found: list[ModelEnd] = []
    for end in trained:
        own = roles.applied.get(end.head, set())
        is_twin = any(head != end.head and own and own <= variables for head, variables in applied.items())
        if end.head < 0 or is_twin or (roles.differentiated and end.head not in roles.differentiated):
            continue
        chain = chain_of(roles, end.tensor)
        if told.isdisjoint(chain):
            found.append(end)
            told.update(chain)
    return found


def _told_by(roles: NodeRoles, end: ModelEnd) -> list[Tensor]:
    return [tensor for part in _parts(roles, end.tensor) for tensor in chain_of(roles, part)]


def _twin(twins: dict[int, int], tensor: Tensor) -> Tensor:
    return twins.get(tensor[0], tensor[0]), tensor[1]


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
