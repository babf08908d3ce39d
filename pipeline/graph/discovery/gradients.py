"""Finds the nodes that `tf.gradients` added: one scope, and in it a part for each op that the gradient passes.

TensorFlow names these parts, `gradients/dense/MatMul_grad/…` for `dense/MatMul`, and so does every optimizer of
TensorFlow 1 (tensorflow/python/ops/gradients_util.py, _GradientsHelper).
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache

from .topology import NumberedGraph, find_descendants

_GRADIENTS = re.compile(r"(?:.*?/)??gradients(?:_\d+)?(?=/)")
_GRADIENT_OPS = re.compile(r"(?!StopGradient|PreventGradient)\w*Grad(V\d|N|Ex|Grad|GradV\d)?|\w+BackpropFilter\w*")


@dataclass(frozen=True)
class Gradients:
    """What `tf.gradients` added to a graph.

    Args:
        own: the nodes of gradients themselves.
        nodes: these and what is computed from them: training, and no part of a model.
        differentiated: the nodes that gradients flow through.
        differentiated_by_model: those that gradients flow through which belong to the model.
    """

    own: set[int]
    nodes: set[int]
    differentiated: set[int]
    differentiated_by_model: set[int]


def find_gradients(graph: NumberedGraph, of_model: Container[int] = ()) -> Gradients:
    """Finds the gradients.

    Args:
        of_model: nodes of gradients that belong to the model, as the forces of a potential do.
    """
    scopes: dict[str, bool] = {}  # by a scope that may be one of gradients, whether it is
    inside: list[tuple[int, str]] = []
    starts, differentiated, by_model = set[int](), set[int](), set[int]()
    for index, node in enumerate(graph.nodes):
        name = node.name
        if _is_gradient(graph.ops[index]):
            starts.add(index)
        end = name.rfind("_grad/")
        found = _GRADIENTS.match(name) if "gradients" in name else None
        if found is not None:
            scopes[found[0]] = scopes.get(found[0], False) or end > found.end()
            inside.append((index, found[0]))
        if end > 0:
            forward = _forward_of(name[:end], graph.number)
            if forward is not None:
                starts.add(index)
                (by_model if index in of_model else differentiated).add(forward)
    starts |= {index for index, scope in inside if scopes[scope]}
    starts = {index for index in starts if index not in of_model}
    # A loop with a gradient fills lists for it, but is not part of the gradient.
    nodes = starts | find_descendants(graph, starts, differentiated - starts)
    return Gradients(starts, nodes, differentiated, by_model)


def _forward_of(name: str, number: dict[str, int]) -> int | None:
    """Finds the node whose gradient has this name; a scope around the whole graph is a prefix of both parts."""
    start = -1
    while (start := name.find("/", start + 1)) >= 0:
        rest = name[start + 1 :]
        if rest in number:
            return number[rest]
        scope = name[:start].rpartition("/")[0]
        if scope and f"{scope}/{rest}" in number:
            return number[f"{scope}/{rest}"]
    return None


@lru_cache(maxsize=4096)
def _is_gradient(op: str) -> bool:
    return _GRADIENT_OPS.fullmatch(op) is not None
