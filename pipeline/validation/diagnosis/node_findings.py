"""Findings about the inner tensors of graphs, as values for a process without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.graph.variables import VARIABLE_OPS

PASS_THROUGH_OPS = ("Identity", "ReadVariableOp", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch")


def _with_article(op: str) -> str:
    return f"{'an' if op[:1] in 'AEIOU' else 'a'} {op}"


@dataclass(frozen=True)
class Drift:
    """Tensor that is within its tolerance, but not equal in every bit."""

    tensor: str
    op: str
    largest: float


@dataclass(frozen=True)
class Divergence:
    """First tensor that differs.

    Args:
        tensor: its name in both graphs.
        op, candidate_op: its node's op in the checkpoint and in the candidate.
        reference, candidate: the values at the element that differs most, as text; or each side's error message.
        element: that element's index.
        inputs: names of the node's inputs in the candidate.
        variables: those that the node reads directly.
        attributes: descriptions of the node's attributes that differ.
        largest: the largest difference; infinite if it cannot be measured.
        drift: the first tensor before it that is not equal in every bit, if there is one.
        compared: number of tensors before it, all within their tolerance.
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
        """True if the tensor is a variable's value."""
        return bool(self.variables) and self.op in (*PASS_THROUGH_OPS, *VARIABLE_OPS)

    @property
    def cause(self) -> str:
        """Short description of the cause."""
        if self.is_weight:
            return f"the weights differ: variable {self.variables[0]}"
        if self.op != self.candidate_op:
            return f"{_with_article(self.candidate_op)} stands where the checkpoint has {_with_article(self.op)}"
        if self.op.startswith("FusedBatchNorm"):
            return "a batch norm is computed otherwise: in training mode on one side"
        if self.attributes:
            return f"the node has other attributes: {'; '.join(self.attributes)}"
        return "this node computes otherwise"

    def sentence(self) -> str:
        """Describes the finding."""
        reads = f", which reads {', '.join(self.variables)}" if self.variables else ""
        given = f", computed from {', '.join(self.inputs)}" if self.inputs and not self.is_weight else ""
        position = f" at element {';'.join(map(str, self.element))}" if self.element else ""
        return (
            f"the first tensor that differs is {self.tensor} ({self.op}{reads}{given}){position}, {self.candidate} "
            f"instead of {self.reference}: {self.compared} tensors before it agree, and {self.cause}"
        )


@dataclass(frozen=True)
class Agreement:
    """Result of a search in which all inner tensors are within their tolerance.

    Args:
        compared: number of tensors.
        first, last: the first and the last tensor that is not equal in every bit, if there is one.
    """

    compared: int
    first: Drift | None = None
    last: Drift | None = None


@dataclass(frozen=True)
class NodeInfo:
    """Node with its op and the ops of its inputs."""

    name: str
    op: str
    input_ops: tuple[str, ...]


@dataclass(frozen=True)
class Instability:
    """First tensor that is not the same for the same row.

    Args:
        is_random: it differs when the same batch is run again; else it depends on the other rows of the batch.
        mixing_nodes: its own node, and those before it whose values belong to no single row, the nearest first.
    """

    tensor: str
    is_random: bool
    mixing_nodes: tuple[NodeInfo, ...]
