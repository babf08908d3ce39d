"""Computes facts on every node about what follows the last layer of a model; `outputs` uses them."""

from __future__ import annotations

from collections.abc import Mapping

from ..protos import FunctionDef
from .op_kinds import changes_state, draws
from .roles import NodeRoles
from .shapes import ELEMENTWISE, REDUCTIONS
from .topology import Tensor

_DECISIONS = """
    ArgMax ArgMin Equal Greater GreaterEqual InTopK InTopKV2 Less LessEqual LogicalAnd LogicalNot LogicalOr Multinomial
    NotEqual Rint Round Sign StatelessMultinomial
"""
DECIDES = frozenset(_DECISIONS.split())
RESHAPES = frozenset(["ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient", "Transpose"])
PASSES_DECISION = RESHAPES | {"Cast"}
DROPS = frozenset(["Floor", "Greater", "GreaterEqual", "Less", "LessEqual"])  # what dropout does with a draw
LIKES = frozenset(["OnesLike", "ZerosLike"])  # of whatever is given, but for its shape
ADDS = frozenset(["Add", "AddV2"])  # of noise, whose deviation may be a weight
_CALLED = "Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While"
_CALLS = frozenset(_CALLED.split())


class LayerContext:
    """Facts by node number.

    Args:
        inner: True if a node belongs to the model.
        decided: for a node that only reports a decision, the tensor that it decides on.
        base: the one node that each is computed from element by element; otherwise the node itself.
        is_reduced: True if a scalar is a reduction of a larger tensor.
        is_followed: True if a layer of the model comes after a node.
        joins: nodes after the last layer that combine an output of the model with an input.
        is_behind_join: True for joins and all their descendants.
        head: the last layer before each node; -1 if other layers follow it.
        drawn: for a node behind the last layer that is drawn at random, the last tensor before the draw.
        root: the only loop or call between the last layer and a node; -1 if there is none, or several.
    """

    def __init__(self, roles: NodeRoles, functions: Mapping[str, FunctionDef]) -> None:
        self.roles, self.graph, self.functions = roles, roles.graph, functions
        self.inner = [roles.is_inner(index) for index in range(len(self.graph.ops))]
        self.decided = self._find_decisions()
        self.base = self._find_bases()
        self.is_reduced = self._find_reduced()
        self.is_followed = self._find_followed()
        self.joins, self.is_behind_join = self._find_joins()
        self.head = self._find_heads()
        self.drawn = self._find_drawn()
        self.root = self._find_roots()

    def is_call(self, index: int) -> bool:
        """Returns True if a node calls a function."""
        op = self.graph.ops[index]
        return op in _CALLS or op in self.functions

    def is_given(self, tensor: Tensor) -> bool:
        """Returns True if a tensor is computed from sources and from no weights."""
        return bool(self.roles.sources_of(tensor)) and not self.roles.weight[tensor[0]]

    def _find_reduced(self) -> list[bool]:
        found = [False] * len(self.graph.ops)
        for index in self.graph.order:
            if self.inner[index] and self.roles.is_scalar[index] and not self.roles.is_layer[index]:
                found[index] = self.graph.ops[index] in REDUCTIONS or any(
                    found[source] for source, _ in self.graph.inputs[index]
                )
        return found

    def _find_decisions(self) -> list[Tensor | None]:
        found: list[Tensor | None] = [None] * len(self.graph.ops)
        for index in self.graph.order:
            if not self.inner[index]:
                continue
            op, given = self.graph.ops[index], [t for t in self.graph.inputs[index] if self.inner[t[0]]]
            if op in DECIDES or (draws(op) and given):
                found[index] = next((found[t[0]] or t for t in given), None)
            elif op in PASSES_DECISION and given:
                found[index] = found[given[0][0]]
        return found

    def _find_bases(self) -> list[int]:
        found = list(range(len(self.graph.ops)))
        for index in self.graph.order:
            if self.inner[index] and self.graph.ops[index] in ELEMENTWISE and not self.roles.is_layer[index]:
                given = [source for source, _ in self.graph.inputs[index] if self.inner[source]]
                like = [source for source in given if self.graph.ops[source] in LIKES]
                bases = {found[source] for source in given if source not in like or len(like) == len(given)}
                if len(bases) == 1:
                    found[index] = bases.pop()
        return found

    def _find_followed(self) -> list[bool]:
        found = [False] * len(self.graph.ops)
        for index in reversed(self.graph.order):
            found[index] = any(
                self.inner[consumer] and (self.roles.is_layer[consumer] or found[consumer])
                for consumer, _ in self.graph.consumers[index]
                if index in self.roles.of_model or consumer not in self.roles.of_model
            )
        return found

    def _find_joins(self) -> tuple[set[int], list[bool]]:
        joins, behind = set[int](), [False] * len(self.graph.ops)
        for index in self.graph.order:
            if not self.inner[index] or self.roles.is_layer[index] or self.is_followed[index]:
                continue
            given = self.graph.inputs[index]
            if any(self.inner[source] for source, _ in given) and any(self.is_given(tensor) for tensor in given):
                joins.add(index)
            behind[index] = index in joins or any(behind[source] for source, _ in given)
        return joins, behind

    def _find_heads(self) -> list[int]:
        found = [-1] * len(self.graph.ops)
        place = {index: at for at, index in enumerate(self.graph.order)}
        for index in self.graph.order:
            if not self.inner[index] or self.is_followed[index]:
                continue
            if self.roles.is_layer[index]:
                found[index] = index
                continue
            heads = [found[source] for source, _ in self.graph.inputs[index] if found[source] >= 0]
            if heads:
                found[index] = max(heads, key=place.__getitem__)
        return found

    def _find_drawn(self) -> list[Tensor | None]:
        """An action of a policy is drawn from its logits, or is its mean with noise; dropout ends no model."""
        graph = self.graph
        found: list[Tensor | None] = [None] * len(graph.ops)
        is_random = [False] * len(graph.ops)
        for index in graph.order:
            op, given = graph.ops[index], graph.inputs[index]
            inner = [tensor for tensor in given if self.inner[tensor[0]]]
            if not self.inner[index]:
                is_drawn = draws(op) and not op.endswith("CandidateSampler")  # the loss takes some classes
                follows = op != "" and any(is_random[source] for source, _ in given)
                is_random[index] = is_drawn or (follows and not self.roles.above[index] and op not in DROPS)
            elif not self.is_followed[index]:
                before = next((found[source] for source, _ in inner if found[source] is not None), None)
                if before is not None and op in ADDS:  # the mean, not the deviation that scales the noise
                    before = next((tensor for tensor in inner if found[tensor[0]] is None), before)
                is_new = draws(op) or any(is_random[source] for source, _ in given)
                if before is None and is_new and inner and (op in ADDS or not self.roles.is_layer[index]):
                    before = inner[0]
                found[index] = before if before is None or self.roles.depth[before[0]] == 0 else None
        return found

    def _find_roots(self) -> list[int]:
        found = [-1] * len(self.graph.ops)
        for index in self.graph.order:
            if not self.inner[index]:
                continue
            if self.is_call(index) or not self.graph.ops[index]:
                found[index] = self.graph.loop_of.get(index, index)
            elif not self.roles.is_layer[index]:
                given = self.graph.inputs[index]
                loops = [source for source, _ in given if not self.graph.ops[source]]
                roots = {found[source] for source, _ in given if self.inner[source]}
                found[index] = self.graph.loop_of[loops[0]] if loops else roots.pop() if len(roots) == 1 else -1
        return found

    def by_products(self) -> set[int]:
        """Returns the unused outputs of loops that also have used outputs."""
        found = set[int]()
        for exits in self.graph.exits.values():
            used = {
                index
                for index in exits
                if any(
                    consumer not in self.roles.gradients and not changes_state(self.graph.ops[consumer])
                    for consumer, _ in self.graph.consumers[index]
                )
            }
            if used:
                found |= set(exits) - used
        return found
