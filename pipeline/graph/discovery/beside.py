"""Finds what a caller may want beside the outputs that were found: answers of the same model, on the same inputs.

These are named tensors that feed nothing; that only metrics, summaries or a random choice take; decisions on an
output, such as the ArgMax of its logits; the logits that its softmax is made of; and answers on the way to the outputs
(see `inner`). A loss, a step of training, a copy of the model with other weights (a target network) and what is inside
a loop are none of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..ops import output_dtypes
from ..protos import FunctionDef
from ..variables import VARIABLE_OPS
from .inner import find_inner_answers, find_logits, keeps_order
from .left_out import find_random
from .names import is_named
from .op_kinds import changes_state, draws
from .roles import NodeRoles, union
from .shapes import ELEMENTWISE
from .topology import NumberedGraph, Tensor

_DECISION, _WEIGHTED, _BARE = range(3)  # the likeliest first
_DECIDES = frozenset({"ArgMax", "ArgMin", "TopK", "TopKV2"})
_FORMS = ELEMENTWISE | {"ExpandDims", "Identity", "LogSoftmax", "Reshape", "Sigmoid", "Softmax", "Squeeze"}
_ASIDE = re.compile(
    r"loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar|train|confusion|assert|broadcast_weights",
    re.IGNORECASE,
)


def find_beside(
    roles: NodeRoles, outputs: Collection[Tensor], functions: Mapping[str, FunctionDef]
) -> list[tuple[Tensor, Tensor | None]]:
    """Returns the tensors beside outputs, the likeliest first; each with what it decides on, if it decides.

    Args:
        functions: of the graph's library.
    """
    found = [
        (tensor, decided and _named_form(roles, decided, outputs))
        for _, tensor, decided in _find(roles, outputs, functions)
    ]
    inner = [*find_logits(roles, sorted(outputs)), *find_inner_answers(roles, outputs)]
    return [*found, *((tensor, None) for tensor in inner if all(tensor != known for known, _ in found))]


def _named_form(roles: NodeRoles, decided: Tensor, outputs: Collection[Tensor]) -> Tensor:
    """Returns what a decision is made on; if it has no name of its own, the named output that is a form of it."""
    graph = roles.graph
    if is_named(graph.nodes[decided[0]]):
        return decided
    forms = [one for one in sorted(outputs) if is_named(graph.nodes[one[0]]) and keeps_order(roles, one, decided)]
    return forms[0] if forms else decided


def find_idle(roles: NodeRoles, outputs: Collection[Tensor], functions: Mapping[str, FunctionDef]) -> list[Tensor]:
    """Returns the tensors beside outputs that the author named, that nothing takes, and that need no weights.

    Nobody computes such a tensor for the model's sake: it is there to be read.
    """
    consumers = roles.graph.consumers
    return [
        tensor for rank, tensor, _ in _find(roles, outputs, functions) if rank == _BARE and not consumers[tensor[0]]
    ]


def _find(
    roles: NodeRoles, outputs: Collection[Tensor], functions: Mapping[str, FunctionDef]
) -> list[tuple[int, Tensor, Tensor | None]]:
    graph = roles.graph
    taken = {index for index, _ in outputs}
    behind = _ancestors(graph, taken)
    random = find_random(roles)
    drawn = _find_drawn(roles, random, behind)
    aside = _find_aside(roles, behind, random)
    given = union(roles.above[index] for index in taken)
    bases = {_base(roles, tensor) for tensor in outputs}
    known = {_key(graph, index) for index in taken}
    foreign = _find_foreign(roles, behind)
    found: list[tuple[int, Tensor, Tensor | None]] = []
    for index in graph.order:
        op, above = graph.ops[index], roles.above[index]
        if not op or not above or above & ~given or index in taken or drawn[index] or foreign[index]:
            continue
        if (
            roles.depth[index]
            or roles.is_cut[index]
            or roles.is_scalar[index]
            or changes_state(op)
            or index in roles.differentiated
        ):
            continue
        if any((index, port) in roles.sources for port in (0, 1)) or _ASIDE.search(_scope(graph, index)):
            continue
        takers = {taker for taker, _ in graph.consumers[index] if taker not in roles.gradients}
        decided = graph.inputs[index][0] if op in _DECIDES and _base(roles, graph.inputs[index][0]) in bases else None
        has_name, is_last = is_named(graph.nodes[index]), not takers
        is_free = all(aside[taker] or (decided is not None and has_name and taker in taken) for taker in takers)
        is_answer = is_last or (roles.weight[index] > 0 and not _ASIDE.search(graph.nodes[index].name))
        if not is_free or not is_answer or not (has_name or decided is not None) or _key(graph, index) in known:
            continue
        known.add(_key(graph, index))
        rank = _DECISION if decided is not None else _WEIGHTED if roles.weight[index] else _BARE
        found += [(rank, (index, port), decided) for port in _ports(graph, index, functions)]
    return sorted(found, key=lambda one: one[:2])


def _ports(graph: NumberedGraph, index: int, functions: Mapping[str, FunctionDef]) -> list[int]:
    """Returns the ports of an answer; none of a node of several outputs that are parts of something, as of a split."""
    count = len(output_dtypes(graph.nodes[index], functions) or ())
    return list(range(count)) if count == 1 or graph.ops[index] in _DECIDES else []


def _find_drawn(roles: NodeRoles, random: set[int], behind: set[int]) -> list[bool]:
    """Finds what random numbers are part of; on the way to the outputs they are a dropout's."""
    graph = roles.graph
    found = [False] * len(graph.ops)
    for index in graph.order:
        if index not in behind and graph.ops[index]:
            is_new = index in random or draws(graph.ops[index])
            found[index] = is_new or any(found[source] for source, _ in graph.inputs[index])
    return found


def _find_aside(roles: NodeRoles, behind: set[int], random: set[int]) -> list[bool]:
    """Finds what belongs to training, metrics, summaries or a random choice, or is made for these alone.

    Args:
        behind: the nodes on the way to the outputs, and these.
    """
    graph = roles.graph
    found = [False] * len(graph.ops)
    for index in reversed(graph.order):
        if index in behind or not graph.ops[index]:
            continue
        op = graph.ops[index]
        takers = {taker for taker, _ in graph.consumers[index] if taker not in roles.gradients}
        is_random = draws(op) or not random.isdisjoint(source for source, _ in graph.inputs[index])
        found[index] = (
            index in roles.gradients
            or roles.is_cut[index]
            or roles.is_scalar[index]
            or changes_state(op)
            or bool(roles.above[index] & roles.labels)
            or is_random
            or (bool(takers) and all(found[taker] for taker in takers))
        )
    return found


def _ancestors(graph: NumberedGraph, starts: Iterable[int]) -> set[int]:
    waiting, found = list(starts), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [source for source, _ in graph.inputs[index]]
    return found


def _find_foreign(roles: NodeRoles, behind: set[int]) -> list[bool]:
    """Finds what is made with variables that neither the outputs nor the loss are made with, as a target network is."""
    graph = roles.graph
    own = behind | {variable for layer in roles.differentiated for variable in roles.applied.get(layer, ())}
    found = [False] * len(graph.ops)
    for index in graph.order:
        is_new = graph.ops[index] in VARIABLE_OPS and index not in own
        found[index] = is_new or any(found[source] for source, _ in graph.inputs[index])
    return found


def _base(roles: NodeRoles, tensor: Tensor) -> Tensor:
    """Returns what a tensor is another form of, as logits are of their softmax."""
    graph = roles.graph
    while graph.ops[tensor[0]] in _FORMS and not roles.is_layer[tensor[0]]:
        given = [one for one in graph.inputs[tensor[0]] if roles.above[one[0]]]
        if len(given) != 1:
            break
        tensor = given[0]
    return tensor


def _key(graph: NumberedGraph, index: int) -> tuple[str, tuple[Tensor, ...]]:
    """Returns what two nodes that compute the same have in common; constants beside the first input differ in name."""
    given = graph.inputs[index]
    return graph.ops[index], tuple(one for one in given if graph.ops[one[0]] != "Const") or tuple(given)


def _scope(graph: NumberedGraph, index: int) -> str:
    return str(graph.nodes[index].name).rpartition("/")[0]
