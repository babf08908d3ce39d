"""Adds to a choice the tensors that the author of a model named and that nothing takes, in the middle of the model.

A state that a loop gives beside its results, or features beside a softmax: whoever names a tensor that nothing takes
wants to read it. What a chosen decision is made on is added too if it has a name and no other output tells it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..variables import VARIABLE_OPS
from .ends import METRIC_NAME, MODEL, NOTHING, ModelEnd, ModelEnds
from .losses import DECIDES, PASSES_DECISION
from .names import is_named, scope_of
from .roles import FLOATS, NodeRoles, union
from .topology import Tensor
from .trained import chain_of

_MOST_ADDED = 4


def find_named_beside(roles: NodeRoles, ends: Iterable[ModelEnd]) -> list[ModelEnd]:
    """Returns the ends in the middle of a model that feed nothing and that the author named."""
    return [
        end
        for end in ends
        if end.head < 0
        and end.feeds == NOTHING
        and is_named(roles.graph.nodes[end.tensor[0]])
        and not METRIC_NAME.search(roles.graph.name(end.tensor).rpartition("/")[2])
        and not (roles.has_training and roles.is_scalar[end.tensor[0]])
    ]


def find_unweighted(roles: NodeRoles) -> list[ModelEnd]:
    """Returns the named tensors of inputs and numbers that are trained, such as a time constant, that nothing takes."""
    graph, made = roles.graph, set[int]()
    for index in graph.order:
        is_number = graph.ops[index] in VARIABLE_OPS and graph.nodes[index].attr["dtype"].type in FLOATS
        if is_number or (not roles.is_cut[index] and not made.isdisjoint(source for source, _ in graph.inputs[index])):
            made.add(index)
    idle = [
        index
        for index in sorted(made)
        if graph.ops[index]
        and roles.above[index] & roles.data
        and not roles.above[index] & ~roles.data
        and not roles.weight[index]
        and not roles.depth[index]
        and all(roles.is_cut[taker] for taker, _ in graph.consumers[index])
    ]
    ends = [ModelEnd((index, 0), NOTHING, -1, decides_on=_decided(roles, index)) for index in idle]
    return find_named_beside(roles, ends) if roles.needs_weights else []


def _decided(roles: NodeRoles, index: int) -> Tensor | None:
    """Returns what a tensor decides on, such as x for cast(x > 1)."""
    graph = roles.graph
    while graph.ops[index] in PASSES_DECISION and graph.inputs[index]:
        index = graph.inputs[index][0][0]
    given = [tensor for tensor in graph.inputs[index] if roles.sources_of(tensor)]
    return given[0] if given and graph.ops[index] in DECIDES else None


def add_named(roles: NodeRoles, picked: list[ModelEnd], ends: Iterable[ModelEnd]) -> tuple[list[ModelEnd], str]:
    """Adds named ends in the middle of the model to a choice.

    Returns:
        The choice; and without one, the reason to ask.
    """
    beside = [end for end in find_named_beside(roles, ends) if end not in picked]
    found: list[ModelEnd] = []
    if beside:
        answered = _ancestors(roles, picked)
        used = {variable for layer in answered & roles.applied.keys() for variable in roles.applied[layer]}
        given = union(roles.above[end.tensor[0]] for end in picked)
        name = roles.graph.name
        for end in beside:
            layers = _last_layers(roles, end.tensor[0])
            if not layers <= answered and {v for layer in layers for v in roles.applied.get(layer, ())} <= used:
                continue  # the same tensor of a twin, as of the tower that is trained
            if not layers <= answered or roles.above[end.tensor[0]] & ~given:
                return [], f"{name(end.tensor)} feeds nothing, as an output does, but is no part of what ends the model"
            found.append(end)
        if len(found) > _MOST_ADDED:
            return [], "several tensors in the middle of the model feed nothing, as outputs do"
    chosen = [*picked, *found]
    return [*chosen, *find_decided(roles, chosen)], ""


def find_decided(roles: NodeRoles, chosen: Iterable[ModelEnd]) -> list[ModelEnd]:
    """Returns the named tensors that decisions among ends are made on, and that no other end tells."""
    told = {tensor for end in chosen if end.decides_on is None for tensor in chain_of(roles, end.tensor)}
    told |= {end.tensor for end in chosen}
    name, found = roles.graph.name, dict[Tensor, ModelEnd]()
    for end in chosen:
        on = end.decides_on
        if end.feeds == NOTHING and on is not None and on not in told and is_named(roles.graph.nodes[on[0]]):
            found.setdefault(on, ModelEnd(on, MODEL, end.head, note=f"{name(end.tensor)} decides on it"))
    return list(found.values())


def find_trained_within(roles: NodeRoles, ends: ModelEnds, beside: Iterable[ModelEnd] = ()) -> list[ModelEnd]:
    """Returns the named tensors in the middle of the model that a loss compares with labels, such as scores of tags.

    Args:
        beside: ends; without them, all of the model. What they tell is left out, and what takes more inputs.
    """
    among = list(beside or ends.found)
    given = union(roles.above[end.tensor[0]] for end in among)
    told = {tensor for end in among if end.decides_on is None for tensor in chain_of(roles, end.tensor)}
    return [
        end
        for end in ends.trained
        if end.head < 0
        and is_named(roles.graph.nodes[end.tensor[0]])
        and end.tensor not in told
        and not roles.above[end.tensor[0]] & ~given
    ]


def find_siblings(roles: NodeRoles, ends: list[ModelEnd], others: Iterable[ModelEnd]) -> list[ModelEnd]:
    """Returns ends and what else the author named in the scope of all of them, made of no other inputs."""
    graph = roles.graph
    scopes = {scope_of(graph.nodes[end.tensor[0]]) for end in ends}
    if len(scopes) != 1 or "" in scopes:
        return []
    given = union(roles.above[end.tensor[0]] for end in ends)
    return [
        *ends,
        *(
            other
            for other in others
            if scope_of(graph.nodes[other.tensor[0]]) in scopes
            and is_named(graph.nodes[other.tensor[0]])
            and not roles.above[other.tensor[0]] & ~given
        ),
    ]


def _ancestors(roles: NodeRoles, ends: Iterable[ModelEnd]) -> set[int]:
    waiting, seen = [end.tensor[0] for end in ends], set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            waiting += [source for source, _ in roles.graph.inputs[index]]
    return seen


def _last_layers(roles: NodeRoles, index: int) -> set[int]:
    """Returns the last layers before a node."""
    found, waiting, seen = set[int](), [index], set[int]()
    while waiting:
        at = waiting.pop()
        if at in seen or not roles.above[at]:
            continue
        seen.add(at)
        if roles.is_layer[at]:
            found.add(at)
        else:
            waiting += [source for source, _ in roles.graph.inputs[at]]
    return found
