"""What follows the last layer of a model, told for each node beforehand; `ends` takes it apart from behind."""

from __future__ import annotations

from collections.abc import Mapping

from ..protos import FunctionDef
from .roles import Anatomy, changes_state, draws
from .shapes import ELEMENTWISE, REDUCTIONS
from .topology import Tensor

_DECISIONS = """
    ArgMax ArgMin Equal Greater GreaterEqual InTopK InTopKV2 Less LessEqual LogicalAnd LogicalNot LogicalOr Multinomial
    NotEqual Rint Round Sign StatelessMultinomial
"""
DECIDES = frozenset(_DECISIONS.split())
RESHAPES = frozenset(["ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient", "Transpose"])
_PASSES_DECISION = RESHAPES | {"Cast"}
_CALLED = "Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While"
_CALLS = frozenset(_CALLED.split())


class Tails:
    """Lists by the nodes' numbers.

    Args:
        inner: whether a node belongs to the model.
        decided: for what only tells a decision, the tensor that it is about.
        base: the one node that each is made from element by element; itself where it is not, or from several.
        is_reduced: whether a scalar comes from more than scalars, by a reduction.
        is_followed: whether a layer of the model comes after a node.
        joins: nodes after the last layer that combine what the model gives with what it was given.
        is_behind_join: these, and all behind them.
        head: the last layer before each node; -1 where it is followed by others.
        root: the loop or call that alone stands behind a node, since the last layer; -1 where none does, or several.
    """

    def __init__(self, anatomy: Anatomy, functions: Mapping[str, FunctionDef]) -> None:
        self.anatomy, self.wiring, self.functions = anatomy, anatomy.wiring, functions
        self.inner = [anatomy.is_inner(index) for index in range(len(self.wiring.ops))]
        self.decided = self._decisions()
        self.base = self._bases()
        self.is_reduced = self._reduced()
        self.is_followed = self._followed()
        self.joins, self.is_behind_join = self._joins()
        self.head = self._heads()
        self.root = self._roots()

    def is_call(self, index: int) -> bool:
        """Whether a node calls a function."""
        op = self.wiring.ops[index]
        return op in _CALLS or op in self.functions

    def is_given(self, tensor: Tensor) -> bool:
        """Whether a tensor hangs on sources, and on no weights."""
        return bool(self.anatomy.sources_of(tensor)) and not self.anatomy.weight[tensor[0]]

    def _reduced(self) -> list[bool]:
        found = [False] * len(self.wiring.ops)
        for index in self.wiring.order:
            if self.inner[index] and self.anatomy.is_scalar[index] and not self.anatomy.is_layer[index]:
                found[index] = self.wiring.ops[index] in REDUCTIONS or any(
                    found[source] for source, _ in self.wiring.inputs[index]
                )
        return found

    def _decisions(self) -> list[Tensor | None]:
        found: list[Tensor | None] = [None] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index]:
                continue
            op, given = self.wiring.ops[index], [t for t in self.wiring.inputs[index] if self.inner[t[0]]]
            if op in DECIDES or (draws(op) and given):
                found[index] = next((found[t[0]] or t for t in given), None)
            elif op in _PASSES_DECISION and given:
                found[index] = found[given[0][0]]
        return found

    def _bases(self) -> list[int]:
        found = list(range(len(self.wiring.ops)))
        for index in self.wiring.order:
            if self.inner[index] and self.wiring.ops[index] in ELEMENTWISE and not self.anatomy.is_layer[index]:
                bases = {found[source] for source, _ in self.wiring.inputs[index] if self.inner[source]}
                if len(bases) == 1:
                    found[index] = bases.pop()
        return found

    def _followed(self) -> list[bool]:
        found = [False] * len(self.wiring.ops)
        for index in reversed(self.wiring.order):
            found[index] = any(
                self.inner[consumer] and (self.anatomy.is_layer[consumer] or found[consumer])
                for consumer, _ in self.wiring.consumers[index]
            )
        return found

    def _joins(self) -> tuple[set[int], list[bool]]:
        joins, behind = set[int](), [False] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index] or self.anatomy.is_layer[index] or self.is_followed[index]:
                continue
            given = self.wiring.inputs[index]
            if any(self.inner[source] for source, _ in given) and any(self.is_given(tensor) for tensor in given):
                joins.add(index)
            behind[index] = index in joins or any(behind[source] for source, _ in given)
        return joins, behind

    def _heads(self) -> list[int]:
        found = [-1] * len(self.wiring.ops)
        place = {index: at for at, index in enumerate(self.wiring.order)}
        for index in self.wiring.order:
            if not self.inner[index] or self.is_followed[index]:
                continue
            if self.anatomy.is_layer[index]:
                found[index] = index
                continue
            heads = [found[source] for source, _ in self.wiring.inputs[index] if found[source] >= 0]
            if heads:
                found[index] = max(heads, key=place.__getitem__)
        return found

    def _roots(self) -> list[int]:
        found = [-1] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index]:
                continue
            if self.is_call(index) or not self.wiring.ops[index]:
                found[index] = index
            elif not self.anatomy.is_layer[index]:
                given = self.wiring.inputs[index]
                loops = [source for source, _ in given if not self.wiring.ops[source]]
                roots = {found[source] for source, _ in given if self.inner[source]}
                found[index] = loops[0] if loops else roots.pop() if len(roots) == 1 else -1
        return found

    def by_products(self) -> set[int]:
        """What leaves a loop unused, beside what is used."""
        found = set[int]()
        for exits in self.wiring.exits.values():
            used = {
                index
                for index in exits
                if any(
                    consumer not in self.anatomy.gradients and not changes_state(self.wiring.ops[consumer])
                    for consumer, _ in self.wiring.consumers[index]
                )
            }
            if used:
                found |= set(exits) - used
        return found
