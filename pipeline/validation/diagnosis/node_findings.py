"""What a walk through graphs' inner tensors has found, as plain values for a process without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

VARIABLES = ("VarHandleOp", "Variable", "VariableV2", "AutoReloadVariable")
PASSES = ("Identity", "ReadVariableOp", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch")


def _a(op: str) -> str:
    return f"{'an' if op[:1] in 'AEIOU' else 'a'} {op}"


@dataclass(frozen=True)
class Drift:
    """A tensor that is within its bound, and not the same to the bit."""

    tensor: str
    op: str
    largest: float


@dataclass(frozen=True)
class Divergence:
    """The first tensor that differs.

    Args:
        tensor: its name in both graphs.
        op: of the checkpoint's node; candidate_op: of the candidate's.
        reference, candidate: the two values at the element that differs most, as text; or what each side said.
        element: that element's index.
        inputs: the names of the candidate's inputs of the node.
        variables: those that the node reads directly.
        attributes: what the node's attributes are on either side where they differ, as text.
        largest: the largest difference; infinite where it cannot be measured.
        drift: the first tensor before it that is not the same to the bit, if there is one.
        compared: how many tensors were compared before it, all within their bounds.
    """

    tensor: str
    op: str
    candidate_op: str
    reference: str
    candidate: str
    element: tuple[int, ...]
    inputs: tuple[str, ...]
    variables: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    largest: float = math.inf
    drift: Drift | None = None
    compared: int = 0

    @property
    def is_weight(self) -> bool:
        """Whether the tensor is a variable's value."""
        return bool(self.variables) and self.op in (*PASSES, *VARIABLES)

    @property
    def cause(self) -> str:
        """What it amounts to, in words."""
        if self.is_weight:
            return f"the weights differ: variable {self.variables[0]}"
        if self.op != self.candidate_op:
            return f"{_a(self.candidate_op)} stands where the checkpoint has {_a(self.op)}"
        if self.op.startswith("FusedBatchNorm"):
            return "a batch norm is computed otherwise: in training mode on one side"
        if self.attributes:
            return f"the node has other attributes: {'; '.join(self.attributes)}"
        return "this node computes otherwise"

    def sentence(self) -> str:
        """The whole finding."""
        reads = f", which reads {', '.join(self.variables)}" if self.variables else ""
        given = f", computed from {', '.join(self.inputs)}" if self.inputs and not self.is_weight else ""
        place = f" at element {';'.join(map(str, self.element))}" if self.element else ""
        return (
            f"the first tensor that differs is {self.tensor} ({self.op}{reads}{given}){place}: {self.candidate} "
            f"instead of {self.reference}; {self.compared} tensors before it agree: {self.cause}"
        )


@dataclass(frozen=True)
class Agreement:
    """All inner tensors are within their bounds.

    Args:
        compared: how many they are.
        first, last: the first and the last of them that is not the same to the bit, if any is.
    """

    compared: int
    first: Drift | None = None
    last: Drift | None = None


@dataclass(frozen=True)
class Node:
    """A node by which rows, or draws, come in: its name, its op, and the ops that it is computed from."""

    name: str
    op: str
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Instability:
    """The first tensor that is not the same for the same row.

    Args:
        is_chance: it differs when the same rows are asked again; else with other rows beside them.
        mixing: its own node, and those before it whose values belong to no single row, the nearest first.
    """

    tensor: str
    is_chance: bool
    mixing: tuple[Node, ...]
