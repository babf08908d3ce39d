"""Puts together ends that may be wanted in one command, where it is not clear which are the outputs."""

from __future__ import annotations

from .ends import METRIC_NAME, MODEL, NOTHING, ModelEnd, ModelEnds
from .inner import find_inner_answers
from .named import find_decided, find_trained_within
from .names import is_named
from .roles import NodeRoles
from .trained import find_untold


def named_of_branches(roles: NodeRoles, ends: ModelEnds, left: list[ModelEnd]) -> list[ModelEnd]:
    """Returns what the author named for use in all branches of a model; nothing if there is one branch.

    Args:
        left: what is made with an input that no loss explains.
    """
    idle = [one for one in [*ends.found, *left] if one.feeds == NOTHING and not one.is_bool]
    if len({roles.above[one.tensor[0]] for one in idle}) < 2:
        return []
    named = [one for one in [*idle, *ends.named] if is_named(roles.graph.nodes[one.tensor[0]]) and not one.is_bool]
    return [one for one in named if not METRIC_NAME.search(roles.graph.name(one.tensor).rpartition("/")[2])]


def with_inner(roles: NodeRoles, ends: ModelEnds, pair: tuple[list[ModelEnd], str]) -> list[tuple[list[ModelEnd], str]]:
    """Returns a group of ends with the answers on the way to them; nothing if there are none."""
    group, what = pair
    inner = [ModelEnd(tensor, MODEL, -1) for tensor in find_inner_answers(roles, [one.tensor for one in group])]
    known = {one.tensor for one in (*inner, *group)}
    others = [one for one in ends.alternatives if one.feeds == MODEL and is_named(roles.graph.nodes[one.tensor[0]])]
    inner += [one for one in others if one.tensor not in known]
    return [([*group, *inner], f"{what}, and what is named on the way there")] if inner else []


def with_trained(roles: NodeRoles, ends: ModelEnds, group: list[ModelEnd]) -> list[tuple[list[ModelEnd], str]]:
    """Returns the ends of a group that nothing uses, with what was named in their scope; and all, with the trained."""
    idle = [one for one in group if one.feeds == NOTHING]
    above = {roles.above[one.tensor[0]] for one in group}
    named = [one for one in ends.named if idle and not one.is_bool and roles.above[one.tensor[0]] in above]
    decided = find_decided(roles, group)
    within = find_trained_within(roles, ends, group)
    trained = [] if len(idle) < len(group) or within else find_untold(roles, idle, ends.trained)
    unused = "what nothing else uses"
    if named:
        unused += ", with what is named in its scope"
    return [
        (idle + named if named else [], unused),
        ([*group, *named, *decided, *within, *trained], f"{unused}, and what the loss is computed from"),
    ]
