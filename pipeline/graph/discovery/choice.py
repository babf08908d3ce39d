"""Chooses the outputs among the ends of a model, or says why it is not clear.

Of each head (a last layer and its descendants) the ends that feed nothing are taken, and without any the one that feeds
the loss. A decision without an answer beside it is taken together with what it decides on, so that either is there.
"""

from __future__ import annotations

from .ends import LOSS, METRIC_NAME, MODEL, NOTHING, SEEN, UNANCHORED, ModelEnd
from .named import add_named, find_decided
from .roles import NodeRoles

_MOST_OF_HEAD = 4
_SAMPLED = "the loss takes a sample of the classes, and no tensor that feeds nothing gives all of them"


def choose(roles: NodeRoles, ends: list[ModelEnd]) -> tuple[list[ModelEnd], str]:
    """Chooses the outputs.

    Returns:
        The ends; and without any, the reason.
    """
    if not roles.has_training and not any(end.feeds == LOSS for end in ends):
        found = [end for end in ends if end.feeds == NOTHING or end.head >= 0]
        return [*found, *find_decided(roles, found)], "nothing ends the model"
    heads: dict[int, list[ModelEnd]] = {}
    for end in ends:
        if end.head >= 0 or not roles.needs_weights:
            heads.setdefault(end.head, []).append(end)
    if all(end.feeds == LOSS and end.doubt in ("", UNANCHORED) for end in ends):
        twin = _first_of_twins(roles, ends)
        if twin:
            return twin, ""
    picked: list[ModelEnd] = []
    sampled = ""
    for found in heads.values():
        best, doubt = _choose_of_head(roles, found)
        if doubt == _SAMPLED:
            sampled = doubt
        elif doubt:
            return [], doubt
        picked += best
    if sampled and not any(end.feeds == NOTHING for end in picked):
        return [], sampled
    # The same weights twice: once for the loss, with dropout perhaps, and once for answers.
    idle = [end for end in picked if end.feeds != LOSS and end.head not in roles.of_model]
    answering = {v for end in idle for v in roles.applied.get(end.head, ())}
    picked = [e for e in picked if e.feeds != LOSS or answering.isdisjoint(roles.applied.get(e.head, ()))]
    aside = [e for e in ends if e.head < 0 and e.feeds == NOTHING and e.decides_on is None and not e.is_bool]
    if aside and roles.needs_weights and not any(end.feeds == NOTHING for end in picked):
        return [], "a tensor in the middle of the model feeds nothing, as an output does, and its end feeds the loss"
    found, doubt = _choose_of_heads(roles, picked)
    is_idle = found and roles.needs_weights and any(end.feeds == NOTHING for end in found)
    return add_named(roles, found, ends) if is_idle else (found, doubt)


def _choose_of_heads(roles: NodeRoles, picked: list[ModelEnd]) -> tuple[list[ModelEnd], str]:
    if len(picked) <= 1:
        return picked, "no tensor ends the model"
    learned = [end for end in picked if end.feeds not in (LOSS, SEEN) or end.head in roles.differentiated]
    if learned and roles.differentiated:
        picked = learned  # what no gradient reaches is what others are compared with, as of a target network
    if len({roles.above[end.tensor[0]] for end in picked}) > 1:
        first = _first_of_twins(roles, picked)
        return (first, "") if first else ([], "several parts of the model end, and they have different inputs")
    return picked, ""


def _first_of_twins(roles: NodeRoles, picked: list[ModelEnd]) -> list[ModelEnd]:
    """Returns the first end if all are the same ops and the same weights, each applied to an input of its own."""
    forms = {_form(roles, end) for end in picked}
    inputs = {roles.above[end.tensor[0]] for end in picked}
    if len(picked) < 2 or len(forms) > 1 or len(inputs) < len(picked):
        return []
    return [min(picked, key=lambda end: end.tensor)]


def _form(roles: NodeRoles, end: ModelEnd) -> tuple[object, ...]:
    """Returns the ops and the weights before an end, in the order of the graph."""
    graph, waiting, seen = roles.graph, [end.tensor[0]], set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            waiting += [source for source, _ in graph.inputs[index] if roles.above[source]]
    used = frozenset(v for index in seen for v in roles.applied.get(index, ()))
    return used, tuple(sorted(graph.ops[index] for index in seen if "Placeholder" not in graph.ops[index]))


def _choose_of_head(roles: NodeRoles, ends: list[ModelEnd]) -> tuple[list[ModelEnd], str]:
    idle = [end for end in ends if end.feeds == NOTHING]
    named = [end for end in idle if not METRIC_NAME.search(roles.graph.name(end.tensor).rpartition("/")[2])]
    idle = named or idle
    if len(idle) > _MOST_OF_HEAD and len({end.tensor[0] for end in idle}) > 1:
        return [], "several tensors of one head feed nothing"
    if idle:
        return [*_with_decided(roles, idle)], ""
    if any(is_sampled(roles, end) for end in ends):
        return [], _SAMPLED
    doubt = next((end.doubt for end in ends if end.doubt), "")
    if doubt:
        return [], doubt
    own = [end for end in ends if not end.is_beside]
    return (ends, "") if len(own) == 1 else ([], "several tensors of one head feed the loss or metrics")


def is_sampled(roles: NodeRoles, end: ModelEnd) -> bool:
    """Returns True if an end is computed for some classes only, as by tf.nn.nce_loss."""
    graph, waiting, seen = roles.graph, [end.tensor[0]], set[int]()
    if not any(op.endswith("CandidateSampler") for op in set(graph.ops)):
        return False
    while waiting:
        index = waiting.pop()
        if graph.ops[index].endswith("CandidateSampler"):
            return True
        if index not in seen:
            seen.add(index)
            waiting += [source for source, _ in graph.inputs[index]]
    return False


def _with_decided(roles: NodeRoles, idle: list[ModelEnd]) -> list[ModelEnd]:
    """Adds what a decision is about, if no other end of the head tells it."""
    if any(end.decides_on is None for end in idle):
        return idle
    found = {end.decides_on: end for end in idle if end.decides_on is not None}
    names = roles.graph.name
    added = [
        ModelEnd(tensor, MODEL, end.head, note=f"{names(end.tensor)} decides on it") for tensor, end in found.items()
    ]
    return [*added, *idle]
