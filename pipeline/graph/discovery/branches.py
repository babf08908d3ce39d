"""Finds branches that are for training alone, and through which labels come into a model, as in teacher forcing.

A model that is used never takes such a branch, so what only it takes is no input. Other branches for training stay, for
what they are made of is the model's too.
"""

from __future__ import annotations

import re

from ..protos import DataType, NodeDef
from .roles import NodeRoles
from .topology import Tensor

FOR_USE = re.compile(r"infer|predict|test|eval|determin|frozen|serv", re.IGNORECASE)  # true when a model is used
_PASS = frozenset({"Enter", "Identity", "RefEnter", "RefSwitch", "Switch"})
_BOOL = DataType.Value("DT_BOOL")


def find_label_branches(roles: NodeRoles) -> dict[tuple[int, Tensor], int]:
    """Returns the edges from branches for training to the merges behind them, with the sources that come in only there.

    Whether these are labels is seen if the model is classified without the edges: then no weights are applied to them.
    """
    graph, found = roles.graph, dict[tuple[int, Tensor], int]()
    if not roles.modes:
        return found
    for index, op in enumerate(graph.ops):
        given = graph.inputs[index]
        if op != "Merge" or len(given) != 2 or index in roles.gradients:
            continue
        value = next((value for tensor in given if (value := _value_for_use(roles, tensor)) is not None), None)
        if value is None:
            continue
        used, other = (given[1], given[0]) if value else (given[0], given[1])  # tf.cond merges (false, true)
        added = roles.sources_of(other) & ~roles.sources_of(used)
        if added:
            found[index, other] = added
    return found


def _value_for_use(roles: NodeRoles, start: Tensor) -> bool | None:
    """Returns the value when the model is used of the mode that decides a branch; None if no mode does."""
    graph, waiting, seen = roles.graph, [start[0]], set[int]()
    while waiting:
        index = waiting.pop(0)
        if index in seen or not graph.ops[index]:
            continue
        seen.add(index)
        if graph.ops[index] in ("Switch", "RefSwitch") and roles.depth[index] > roles.depth[start[0]] - 1:
            tensor = graph.inputs[index][1]
            while tensor not in roles.sources and graph.ops[tensor[0]] in _PASS:
                tensor = graph.inputs[tensor[0]][0]
            if roles.sources.get(tensor) in roles.modes:
                return _value_of(roles, graph.nodes[tensor[0]])
            continue
        waiting += [source for source, _ in graph.inputs[index]]
    return None


def _value_of(roles: NodeRoles, node: NodeDef) -> bool | None:
    if node.attr["dtype"].type != _BOOL:
        return None
    if node.op != "PlaceholderWithDefault":
        return FOR_USE.search(node.name.rpartition("/")[2]) is not None
    default = roles.graph.nodes[roles.graph.inputs[roles.graph.number[node.name]][0][0]]
    if default.op != "Const":
        return None
    tensor = default.attr["value"].tensor
    return any(tensor.bool_val) or any(tensor.tensor_content)
