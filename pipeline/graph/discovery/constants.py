"""Finds constants that stand where others have placeholders: labels in front of a loss, the rows of a whole graph.

Who trains on a small data set often writes it into the graph. A loss then compares the model with a constant, and so
does every metric beside it; without this, such a metric would look like the model's end.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..protos import FunctionDef, NodeDef
from ..variables import VARIABLE_OPS
from .losses import LayerContext
from .roles import NodeRoles
from .topology import NumberedGraph, Tensor

_COMPARES_WITH = """
    Mul SigmoidCrossEntropyWithLogits SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits
    SquaredDifference Sub
"""
_TAKE_ROWS = "BatchMatMul BatchMatMulV2 Conv1D Conv2D Conv3D Gather GatherV2 MatMul ResourceGather"
_PREPARE = "Cast Div ExpandDims Identity Mul OneHot RealDiv Reshape Squeeze Sub"
_COMPARES, _TAKES_ROWS, _PREPARES = (frozenset(ops.split()) for ops in (_COMPARES_WITH, _TAKE_ROWS, _PREPARE))


def find_constant_rows(roles: NodeRoles) -> list[Tensor]:
    """Returns the constants that weights are applied to, in a graph whose weights are applied to nothing else."""
    graph = roles.graph
    if roles.data or VARIABLE_OPS.isdisjoint(graph.ops):
        return []
    return [
        (index, 0)
        for index, node in enumerate(graph.nodes)
        if graph.ops[index] == "Const" and _is_of_many(node) and _reaches(graph, index, _TAKES_ROWS, roles.weight)
    ]


def find_constant_labels(roles: NodeRoles, functions: Mapping[str, FunctionDef]) -> list[Tensor]:
    """Returns the constants that a loss compares the model with, if the loss compares it with nothing else."""
    if not roles.gradients or roles.labels or not roles.data:
        return []
    context = LayerContext(roles, functions)
    if context.joins:
        return []  # the loss compares the model with its own input, as an autoencoder's
    graph = roles.graph
    found = []
    for index, node in enumerate(graph.nodes):
        if graph.ops[index] != "Const" or not _is_of_many(node) or _is_uniform(node):
            continue
        behind = _reaches(graph, index, _COMPARES, [2 * inner for inner in context.inner])
        if any(at in roles.differentiated and not context.is_followed[at] and not roles.is_layer[at] for at in behind):
            found.append((index, 0))
    return found


def _reaches(graph: NumberedGraph, start: int, ops: frozenset[str], weight: list[int]) -> list[int]:
    """Returns the nodes of some ops that take a constant, prepared or not, together with something of weight 2."""
    waiting, seen, found = [start], {start}, []
    while waiting:
        index = waiting.pop()
        for consumer, _ in graph.consumers[index]:
            others = [source for source, _ in graph.inputs[consumer] if source != index]
            if graph.ops[consumer] in ops and any(weight[other] == 2 for other in others):
                found.append(consumer)
            elif (
                graph.ops[consumer] in _PREPARES
                and consumer not in seen
                and all(graph.ops[other] == "Const" or other in seen for other in others)
            ):
                seen.add(consumer)
                waiting.append(consumer)
    return found


def _is_of_many(node: NodeDef) -> bool:
    dims = node.attr["value"].tensor.tensor_shape.dim
    return any(dim.size > 1 for dim in dims)


def _is_uniform(node: NodeDef) -> bool:
    """Returns True if all elements are one value, as of ones and zeros."""
    tensor = node.attr["value"].tensor
    if not tensor.tensor_content:
        values = [*tensor.float_val, *tensor.double_val, *tensor.int_val, *tensor.int64_val, *tensor.half_val]
        return len(set(values)) <= 1
    count = 1
    for dim in tensor.tensor_shape.dim:
        count *= dim.size
    size = len(tensor.tensor_content) // max(count, 1)
    return bool(tensor.tensor_content == tensor.tensor_content[:size] * count)
