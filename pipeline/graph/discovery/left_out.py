"""Checks a choice of outputs against what it leaves out: tensors made of more inputs that no label explains.

A source that no weights are applied to may be a label, but also a mask, lengths or a choice of the caller's. If what is
made of it and of the model ends on its own, or is what the loss takes as logits, the source is no label of that loss.
Then the choice is not clear: the caller is asked.
"""

from __future__ import annotations

import re

from .ends import MODEL, SEEN, ModelEnd
from .losses import DECIDES
from .roles import NodeRoles, union
from .scaled_rows import KEEP_ROWS, LOOK_UP
from .topology import find_descendants

_MASKS = """
    Add AddV2 BatchGather ConcatV2 Gather GatherNd GatherV2 Maximum Minimum Mul ReverseSequence ScatterNd SegmentSum
    Select SelectV2 Sub TensorScatterUpdate UnsortedSegmentSum
"""
_JOINS = frozenset(_MASKS.split())
_CROSS_ENTROPY = re.compile(r"(Sparse)?SoftmaxCrossEntropyWithLogits")
_FORMS = frozenset({"Identity", "Reshape"})


def find_left_out(roles: NodeRoles, chosen: list[ModelEnd]) -> tuple[list[ModelEnd], str]:
    """Finds what a choice leaves out.

    Returns:
        The tensors that may be outputs instead, and the reason to ask; empty if the choice is clear.
    """
    if not roles.has_training:
        return [], ""
    bare = next((end for end in chosen if _is_bare_lookup(roles, end.tensor[0])), None)
    made = _made_of_model(roles, chosen) if roles.labels else {}
    graph, name = roles.graph, roles.graph.name
    total = union(roles.above[index] & roles.labels for index in made if not roles.is_scalar[index])
    total |= union(
        roles.above[consumer] & roles.labels
        for index in made
        for consumer, _ in graph.consumers[index]
        if consumer not in roles.gradients
    )
    found: list[ModelEnd] = []
    for index, is_compared in made.items():
        own = roles.above[index] & roles.labels
        if not own or roles.is_scalar[index] or not total & ~own or roles.depth[index]:
            continue
        at = index
        if index in roles.differentiated or not roles.differentiated:
            if not _is_logits(roles, index):
                continue
            while graph.ops[at] in _FORMS and graph.inputs[at][0][0] in made and _is_own_form(roles, at):
                at = graph.inputs[at][0][0]
        elif is_compared or not _is_last(roles, index):
            continue
        others = ", ".join(name(tensor) for tensor, bit in roles.sources.items() if bit & own)
        ports = sorted({port for taker, port in graph.consumers[at] if taker not in roles.gradients}) or [0]
        feeds = MODEL if at in roles.differentiated else SEEN if graph.consumers[at] else "nothing"
        found += [
            ModelEnd((at, port), feeds, -1, doubt=f"it takes {others} too, and its loss has other labels")
            for port in ports
        ]
    if found:
        own = roles.above[found[0].tensor[0]] & roles.labels
        met = ", ".join(name(tensor) for tensor, bit in roles.sources.items() if bit & own)
        return (
            found,
            f"{met} may be an input or labels: {name(found[-1].tensor)} is made with it, and no loss explains that",
        )
    if bare is not None:
        return [], f"{name(bare.tensor)} gives rows of a table, with nothing computed from them"
    return [], ""


def _is_bare_lookup(roles: NodeRoles, index: int) -> bool:
    graph = roles.graph
    while graph.ops[index] in KEEP_ROWS and graph.inputs[index]:
        index = graph.inputs[index][0][0]
    return graph.ops[index] in LOOK_UP and roles.is_layer[index]


def _made_of_model(roles: NodeRoles, chosen: list[ModelEnd]) -> dict[int, bool]:
    """Returns the nodes made of the chosen heads without a comparison; True for those behind a difference."""
    graph = roles.graph
    reached = find_descendants(graph, [end.head if end.head >= 0 else end.tensor[0] for end in chosen], roles.gradients)
    made: dict[int, bool] = {}
    for index in graph.order:
        op = graph.ops[index]
        if index not in reached or roles.is_cut[index] or roles.is_outcome[index]:
            continue
        if roles.is_inner(index):
            made[index] = False
            continue
        given = [source for source, _ in graph.inputs[index]]
        before = [made[source] for source in given if source in made]
        if not before or not roles.above[index] & roles.labels or _CROSS_ENTROPY.fullmatch(op):
            continue
        others = [tensor for tensor in graph.inputs[index] if tensor[0] not in made]
        is_join = any(roles.sources_of(tensor) & roles.labels for tensor in others)
        if any(roles.weight[source] for source, _ in others) or (is_join and (op not in _JOINS or op in DECIDES)):
            continue
        made[index] = any(before) or (is_join and op == "Sub")
    return made


def _is_logits(roles: NodeRoles, index: int) -> bool:
    """Returns True if a cross entropy takes a node as logits, together with labels that the node does not have."""
    graph, own = roles.graph, roles.above[index] & roles.labels
    takers = [taker for taker, _ in graph.consumers[index] if taker not in roles.gradients]
    joins = [taker for taker in takers if roles.above[taker] & roles.labels & ~own]
    if any(_CROSS_ENTROPY.fullmatch(graph.ops[taker]) and graph.inputs[taker][0][0] == index for taker in joins):
        return True
    # tf.nn.sigmoid_cross_entropy_with_logits compares them with zero, and multiplies them with the labels
    is_compared = any(
        graph.ops[taker] == "GreaterEqual" and graph.ops[graph.inputs[taker][1][0]] == "ZerosLike" for taker in takers
    )
    return is_compared and any(graph.ops[taker] == "Mul" for taker in joins)


def _is_own_form(roles: NodeRoles, index: int) -> bool:
    """Returns True if a node is another form of what it takes, and of nothing with more labels."""
    before = roles.graph.inputs[index][0][0]
    return roles.above[before] & roles.labels == roles.above[index] & roles.labels and not roles.is_inner(before)


def _is_last(roles: NodeRoles, index: int) -> bool:
    """Returns True if all that follows a node has more labels, is reduced to a scalar, or reports."""
    own = roles.above[index] & roles.labels
    return all(
        taker in roles.gradients
        or roles.is_cut[taker]
        or roles.is_scalar[taker]
        or roles.above[taker] & roles.labels & ~own
        for taker, _ in roles.graph.consumers[index]
    )
