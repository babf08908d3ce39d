"""Recognizes graphs in which nothing can grow, without following their tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.protos import NodeDef

from .arithmetic import BINARY, COMPARING, UNARY
from .costs import COSTS
from .kinds import kinds
from .nodes import NodeView, value_of
from .values import STRING_BYTES

_KINDS = frozenset({"value", "shape", "stretched", "product", "state"})
_MORE = frozenset({"Cast", "NoOp", "ReadVariableOp"})
_OF_SAVERS = frozenset({"MergeV2Checkpoints", "Restore", "RestoreV2", "Save", "SaveV2"})


@dataclass
class Steadiness:
    """Whether no op of a graph can make a tensor of more dimensions than its inputs have, or longer ones.

    In such a graph nothing is larger than the longest dimension of a source (a constant, variable, placeholder or a
    random tensor of a constant shape), to the power of the highest rank.

    Args:
        graph: the graph whose nodes are going to be noted.
    """

    graph: Graph
    longest: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        self.holds = not self.graph.library.function
        # The bytes of constants and declared shapes that were noted: large graphs have the same ones again and again.
        self._constants, self._declared = set[bytes](), set[bytes]()

    @property
    def most_bytes(self) -> int:
        """The most bytes that a tensor can have, if the graph is steady."""
        return int(self.longest**self.rank) * STRING_BYTES  # no number takes more

    def note_source(self, dims: Iterable[int] | None) -> None:
        """Notes the shape of a source; None for an unknown rank."""
        if dims is None:
            self.holds = False
            return
        lengths = [abs(length) for length in dims]
        if lengths:
            self.longest, self.rank = max(self.longest, *lengths), max(self.rank, len(lengths))

    def note_declared(self, node: NodeDef) -> None:
        """Notes a source whose shape is in its attribute."""
        declared = node.attr.get("shape")
        written = b"" if declared is None else declared.SerializeToString()
        if declared is None or written not in self._declared:
            self._declared.add(written)
            self.note_source(NodeView(node).dims("shape"))

    def note_op(self, node: NodeDef) -> None:
        """Notes a node that is no source, and not of `steady_ops`."""
        if not self.holds:
            return
        first = self.graph.nodes.get(node.input[0]) if node.input and kinds().get(node.op) == "random" else None
        if first is None or first.op != "Const":
            self.holds = False
            return
        tensor = whole_node(first).attr["value"].tensor
        if (written := tensor.SerializeToString()) in self._constants:
            return
        self._constants.add(written)
        numbers = value_of(tensor).numbers
        self.note_source(None if numbers is None else [int(number or 0) for number in numbers])


@lru_cache(maxsize=1)
def steady_ops() -> frozenset[str]:
    """Returns the ops whose outputs have no more dimensions than the inputs, and no longer ones."""
    by_kind = {op for op, kind in kinds().items() if kind in _KINDS}
    return frozenset(by_kind | _MORE | _OF_SAVERS | {*UNARY, *BINARY, *COMPARING} - COSTS.keys())
