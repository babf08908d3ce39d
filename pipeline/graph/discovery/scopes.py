"""Finds the tensors that an author named in the scope of named ends: who names a tensor wants to fetch it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..ops import output_dtypes
from ..protos import DataType
from .ends import MODEL, NOTHING, SEEN, ModelEnd
from .losses import LIKES, LayerContext
from .names import is_named, scope_of
from .op_kinds import draws
from .shapes import shape_of

_NO_OUTPUT = re.compile(r"loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar|penalty|grad(_|$)", re.I)
_HANDLES = frozenset(DataType.Value(f"DT_{name}") for name in ("RESOURCE", "VARIANT"))
_MOST_BESIDE = 6  # more named tensors at one end are the steps of a model


def find_in_scopes(context: LayerContext, ends: Iterable[ModelEnd]) -> list[ModelEnd]:
    """Finds the named tensors that stand beside named ends that feed nothing: in their scope, after the last layer.

    They are on the way to such an end, or are made beside it for a metric; each has a value for each row, as the end.
    """
    roles, graph = context.roles, context.graph
    named = [end for end in ends if end.feeds == NOTHING and is_named(graph.nodes[end.tensor[0]])]
    beside: dict[tuple[str, object], str] = {}
    for end in named:
        shape = shape_of(graph, end.tensor, roles.producer)
        if shape:
            beside.setdefault((scope_of(graph.nodes[end.tensor[0]]), shape[0]), graph.name(end.tensor))
    known, found = {end.tensor for end in ends}, list[ModelEnd]()
    for index in graph.order if beside else ():
        tensor = (index, 0)
        if tensor in known or not _may_be_fetched(context, index) or not is_named(graph.nodes[index]):
            continue
        shape = shape_of(graph, tensor, roles.producer)
        neighbour = beside.get((scope_of(graph.nodes[index]), shape[0])) if shape else None
        if neighbour is not None:
            takers = [one for one, _ in graph.consumers[index] if one not in roles.gradients]
            feeds = MODEL if any(context.inner[one] for one in takers) else SEEN
            found.append(ModelEnd(tensor, feeds, context.head[index], note=f"named in the scope of {neighbour}"))
    return found if len(found) <= _MOST_BESIDE else []


def _may_be_fetched(context: LayerContext, index: int) -> bool:
    """Returns True for a result of the model with one value or more per row, not drawn at random."""
    roles, op = context.roles, context.graph.ops[index]
    if not op or not context.inner[index] or context.is_followed[index] or context.head[index] < 0:
        return False
    if roles.is_scalar[index] or roles.depth[index] or context.drawn[index] is not None or draws(op) or op in LIKES:
        return False
    node = context.graph.nodes[index]
    dtypes = output_dtypes(node, context.functions)
    return not _NO_OUTPUT.search(node.name.rpartition("/")[2]) and not (dtypes and dtypes[0] in _HANDLES)
