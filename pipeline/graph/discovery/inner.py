"""Finds answers on the way to the outputs: tensors that the author named and that no further layer takes as features.

The weights of an attention, where a thing is in a picture, the scores that a decoder chooses from: they are computed
for use too, and the model goes on from them. What a layer, an activation, a pool or a concatenation takes is a hidden
layer, and another form of an output, as logits are of their softmax, tells nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from .losses import RESHAPES
from .names import is_named
from .op_kinds import draws
from .roles import FLOATS, NodeRoles, union
from .shapes import ELEMENTWISE, REDUCTIONS
from .topology import Tensor
from .trained import chain_of

_MOST = 4  # of more the author names every step
_PASSED_ON = RESHAPES | REDUCTIONS | {"Gather", "GatherNd", "GatherV2", "Pack", "StridedSlice", "Unpack"}
_OF_FEATURES = re.compile(
    r"BiasAdd|Concat\w*|Conv\w*|Elu|Erf|FusedBatchNorm\w*|Gelu|LRN|LeakyRelu|MatMul|(Max|Avg)Pool\w*|Relu6?"
    r"|Selu|Sigmoid|Softmax|Softplus|Split\w*|Tanh|TensorArray\w*|\w*RNN\w*|\w*LSTM\w*|While|Stateless\w*|Enter|Switch"
)
_SQUASHES = frozenset({"LogSoftmax", "Sigmoid", "Softmax"})
_SAME_ORDER = _SQUASHES | {"Identity", "Reshape", "Squeeze"}
_LOOKS_UP = re.compile(r"(Resource)?Gather\w*|Conv\w*|LRN|Relu6?")
_OF_LIBRARIES = re.compile(
    r"moments/|batch_?norm|/bn\w*/|(^|/)(sequence_length|CheckSeqLen|conv\w*|Conv\w*|depthwise|broadcast_weights\w*)(_\d+)?$"
    r"|loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar|dropout",
    re.IGNORECASE,
)


def find_inner_answers(roles: NodeRoles, outputs: Collection[Tensor]) -> list[Tensor]:
    """Returns the answers on the way to outputs, in the order of the graph; none if there are many.

    Args:
        outputs: tensors of the model.
    """
    graph = roles.graph
    told = {tensor for output in outputs for tensor in chain_of(roles, output)}
    given = union(roles.above[index] for index, _ in outputs)
    found, masks = [], _find_masks(roles)
    for index in sorted(_ancestors(roles, (index for index, _ in outputs))):
        name = graph.nodes[index].name if graph.ops[index] else ""
        if (
            not name
            or not roles.is_inner(index)
            or (index, 0) in told
            or (index, 0) in roles.sources
            or roles.above[index] & ~given
            or roles.depth[index]
            or roles.is_cut[index]
            or roles.is_scalar[index]
            or draws(graph.ops[index])
            or _LOOKS_UP.fullmatch(graph.ops[index])
            or _OF_LIBRARIES.search(name)
            or not is_named(graph.nodes[index])
            or graph.nodes[index].attr["T"].type not in FLOATS
        ):
            continue
        if not told.isdisjoint(chain_of(roles, (index, 0))) or _is_of_features(roles, index, masks):
            continue
        found.append((index, 0))
        told.add((index, 0))
    return found if len(found) <= _MOST else []


_OF_DROPOUT = ("Select", "SelectV2", "Mul", "")  # a dropout ends with one; and no op at all


def find_logits(roles: NodeRoles, outputs: Collection[Tensor]) -> list[Tensor]:
    """Returns what the softmax or the sigmoid of an output is made of, in the order of the outputs."""
    graph, found = roles.graph, dict[Tensor, None]()
    for output in outputs:
        chain = chain_of(roles, output)
        for at, (index, _) in enumerate(chain[:-1]):
            if graph.ops[index] not in _SQUASHES:
                if graph.ops[index] in _SAME_ORDER:
                    continue
                break
            before = chain[at + 1]
            if graph.ops[before[0]] == "Reshape" and len(chain) > at + 2 and not is_named(graph.nodes[before[0]]):
                before = chain[at + 2]
            is_own = (
                roles.is_inner(before[0]) and not roles.depth[before[0]] and graph.ops[before[0]] not in _OF_DROPOUT
            )
            if is_own and before not in outputs and not roles.is_scalar[before[0]]:
                found[_first_twin(roles, before)] = None
            break
    return [one for one in found if one not in outputs]


def _first_twin(roles: NodeRoles, tensor: Tensor) -> Tensor:
    """Returns the first tensor that is computed by the same op of the same, such as a sum that is written twice."""
    graph, (index, port) = roles.graph, tensor
    own = graph.ops[index], graph.inputs[index]
    takers = graph.consumers[graph.inputs[index][0][0]] if graph.inputs[index] else []
    twins = [taker for taker, _ in takers if (graph.ops[taker], graph.inputs[taker]) == own]
    has_same = all(graph.nodes[one].attr == graph.nodes[index].attr for one in twins)
    return (min(twins), port) if twins and has_same else tensor


def keeps_order(roles: NodeRoles, output: Tensor, decided: Tensor) -> bool:
    """Returns True if the largest value of an output stands where that of what a decision is made on stands."""
    chain = chain_of(roles, output)
    return decided in chain and all(roles.graph.ops[index] in _SAME_ORDER for index, _ in chain[: chain.index(decided)])


def _is_of_features(roles: NodeRoles, index: int, masks: set[int]) -> bool:
    """Returns True if a layer takes a tensor, or what layers take of each other: a hidden layer of the model.

    Args:
        masks: what is drawn and made of no rows, as in dropout.
    """
    graph, waiting, seen = roles.graph, [index], set[int]()
    while waiting:
        at = waiting.pop()
        for taker, _ in graph.consumers[at]:
            if taker in seen or taker in roles.gradients or roles.is_cut[taker] or not graph.ops[taker]:
                continue
            seen.add(taker)
            op, name = graph.ops[taker], graph.nodes[taker].name
            others = [tensor for tensor in graph.inputs[taker] if tensor[0] != at]
            is_masked = any(source in masks for source, _ in others)
            if roles.is_layer[taker] or "dropout" in name.lower() or is_masked:
                return True
            if _OF_FEATURES.fullmatch(op):
                return True
            is_alone = op in ELEMENTWISE and not any(map(roles.sources_of, others))
            if op in _PASSED_ON or is_alone:
                waiting.append(taker)
    return False


def _find_masks(roles: NodeRoles) -> set[int]:
    graph, found = roles.graph, set[int]()
    for index in graph.order:
        is_new = bool(graph.ops[index]) and draws(graph.ops[index])
        if not roles.above[index] and (is_new or any(source in found for source, _ in graph.inputs[index])):
            found.add(index)
    return found


def _ancestors(roles: NodeRoles, starts: Iterable[int]) -> set[int]:
    waiting, found = list(starts), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [source for source, _ in roles.graph.inputs[index]]
    return found
