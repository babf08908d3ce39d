"""Checks a choice of outputs against what it leaves out: tensors made of more inputs that no label explains.

A source that no weights are applied to may be a label, but also a mask, lengths or a choice of the caller's. If what is
made of it and of the model ends on its own, or is what the loss takes as logits, the source is no label of that loss.
Then the choice is not clear: the caller is asked.
"""

from __future__ import annotations

import re

from .ends import MODEL, NOTHING, SEEN, ModelEnd
from .losses import DECIDES
from .op_kinds import draws
from .roles import NodeRoles, union
from .scaled_rows import KEEP_ROWS, LOOK_UP
from .topology import Tensor, find_descendants

_MASKS = """
    Add AddV2 BatchGather ConcatV2 Gather GatherNd GatherV2 Maximum Minimum Mul ReverseSequence ScatterNd SegmentSum
    Select SelectV2 Sub TensorScatterUpdate UnsortedSegmentSum
"""
_JOINS = frozenset(_MASKS.split())
_CROSS_ENTROPY = re.compile(r"(Sparse)?SoftmaxCrossEntropyWithLogits")
_FORMS = frozenset({"Identity", "Reshape"})
_SCALES = frozenset({"Div", "Mul", "RealDiv"})  # by one number, such as a temperature
_ANSWERS = frozenset({"ArgMax", "Softmax", "TopKV2"})  # nobody makes them of an error


def find_left_out(
    roles: NodeRoles, chosen: list[ModelEnd], ends: list[ModelEnd], trained: list[ModelEnd]
) -> tuple[list[ModelEnd], str]:
    """Finds what a choice leaves out.

    Args:
        ends: of the model, chosen or not.
        trained: what a loss compares with labels though the model goes on from it.

    Returns:
        The tensors that may be outputs instead, and the reason to ask; empty if the choice is clear.
    """
    if not roles.has_training:
        return [], ""
    bare = next((end for end in chosen if _is_bare_lookup(roles, end.tensor[0])), None)
    random = find_random(roles)
    aside = [end for end in ends if _is_beside_training(roles, end)]
    made = _made_of_model(roles, [*chosen, *aside], random) if roles.labels else {}
    graph, name = roles.graph, roles.graph.name
    total = union(roles.above[index] & roles.labels for index in made if not roles.is_scalar[index])
    total |= union(end.labels for end in trained) & roles.labels
    total |= union(
        roles.above[consumer] & roles.labels
        for index in made
        for consumer, _ in graph.consumers[index]
        if consumer not in roles.gradients
    )
    has_samples = any(op.endswith("CandidateSampler") for op in set(graph.ops))  # whose labels weights are applied to
    found: list[ModelEnd] = []
    for index, is_compared in made.items():
        own = roles.above[index] & roles.labels
        if not own or roles.is_scalar[index] or not (total & ~own or has_samples) or roles.depth[index]:
            continue
        at = index
        if index in roles.differentiated or not roles.differentiated:
            if not _is_logits(roles, index):
                continue
            while graph.ops[at] in _FORMS and graph.inputs[at][0][0] in made and _is_own_form(roles, at):
                at = graph.inputs[at][0][0]
        elif is_compared or not _is_last(roles, index, random):
            continue
        others = ", ".join(name(tensor) for tensor, bit in roles.sources.items() if bit & own)
        ports = sorted({port for taker, port in graph.consumers[at] if taker not in roles.gradients}) or [0]
        feeds = MODEL if at in roles.differentiated else SEEN if graph.consumers[at] else NOTHING
        found += [
            ModelEnd((at, port), feeds, -1, doubt=f"it takes {others} too, and its loss has other labels")
            for port in ports
        ]
        if graph.ops[at] in DECIDES and not any(end.tensor == graph.inputs[at][0] for end in found):
            note = f"{name((at, 0))} decides on it"
            found.append(ModelEnd(graph.inputs[at][0], MODEL, -1, doubt=found[-1].doubt, note=note))
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


def find_made_of(roles: NodeRoles, ends: list[ModelEnd], wanted: int) -> list[Tensor]:
    """Finds the last tensors of the model that are made of exactly some sources; no comparisons with labels."""
    own = sorted({end.tensor for end in ends if roles.above[end.tensor[0]] == wanted})
    if own:
        return own
    graph, random = roles.graph, find_random(roles)
    made = _made_of_model(roles, ends, random)
    made |= {index: False for index in graph.order if roles.is_inner(index)}
    found = set[Tensor]()
    for index, is_compared in made.items():
        if is_compared or roles.above[index] != wanted or roles.is_scalar[index] or roles.depth[index]:
            continue
        if not graph.ops[index] or (wanted & roles.labels and index in roles.differentiated):
            continue
        if draws(graph.ops[index]) or not random.isdisjoint(source for source, _ in graph.inputs[index]):
            continue
        takers = {taker for taker, _ in graph.consumers[index] if taker not in roles.gradients}
        takers = {one for one in takers if random.isdisjoint(source for source, _ in graph.inputs[one])}
        if all(roles.is_cut[one] or roles.is_scalar[one] or roles.above[one] & ~wanted for one in takers):
            found.add((index, 0))
            found |= {graph.inputs[index][0]} if graph.ops[index] in DECIDES else set()
    return sorted(found)


def _is_beside_training(roles: NodeRoles, end: ModelEnd) -> bool:
    """Returns True if no loss takes an end, not even as what another tensor is compared with."""
    if end.feeds not in (NOTHING, SEEN) or end.head < 0:
        return False
    return roles.differentiated.isdisjoint(find_descendants(roles.graph, [end.tensor[0]], roles.gradients))


def _is_bare_lookup(roles: NodeRoles, index: int) -> bool:
    graph = roles.graph
    while graph.ops[index] in KEEP_ROWS and graph.inputs[index]:
        index = graph.inputs[index][0][0]
    return graph.ops[index] in LOOK_UP and roles.is_layer[index]


def _made_of_model(roles: NodeRoles, ends: list[ModelEnd], random: set[int]) -> dict[int, bool]:
    """Returns the nodes made of the heads of ends without a comparison; True for those behind a difference."""
    graph = roles.graph
    reached = find_descendants(graph, [end.head if end.head >= 0 else end.tensor[0] for end in ends], roles.gradients)
    made: dict[int, bool] = {}
    for index in graph.order:
        op = graph.ops[index]
        if index not in reached or roles.is_cut[index] or roles.is_outcome[index]:
            continue
        if roles.is_inner(index):
            made[index] = False
            continue
        given = [source for source, _ in graph.inputs[index]]
        if draws(op) or not random.isdisjoint(given):
            continue  # what is drawn from the model or explores beside it is no answer of it
        before = [made[source] for source in given if source in made]
        if not before or not roles.above[index] & roles.labels or _CROSS_ENTROPY.fullmatch(op):
            continue
        others = [tensor for tensor in graph.inputs[index] if tensor[0] not in made]
        is_join = any(roles.sources_of(tensor) & roles.labels for tensor in others)
        is_scaled = op in _SCALES and len(others) == 1 and roles.is_scalar[others[0][0]]
        if any(roles.weight[source] for source, _ in others) or (is_join and not is_scaled and op not in _JOINS):
            continue
        made[index] = op not in _ANSWERS and (any(before) or (is_join and op == "Sub"))
    return made


def find_random(roles: NodeRoles) -> set[int]:
    """Returns the nodes that are drawn, or made of draws alone."""
    graph, found = roles.graph, set[int]()
    for index in graph.order:
        op = graph.ops[index]
        follows = not roles.above[index] and not found.isdisjoint(source for source, _ in graph.inputs[index])
        if (draws(op) and not op.endswith("CandidateSampler")) or (op and follows):
            found.add(index)
    return found


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


def _is_last(roles: NodeRoles, index: int, random: set[int]) -> bool:
    """Returns True if all that follows a node has more labels, is reduced to a scalar, reports or explores."""
    own = roles.above[index] & roles.labels
    return all(
        taker in roles.gradients
        or roles.is_cut[taker]
        or roles.is_scalar[taker]
        or roles.above[taker] & roles.labels & ~own
        or not random.isdisjoint(source for source, _ in roles.graph.inputs[taker])
        for taker, _ in roles.graph.consumers[index]
    )
