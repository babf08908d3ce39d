"""Says what may be wanted beside the outputs that were found, with the command; all of it was frozen first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.checkpoint.opened import Source
from pipeline.errors import PipelineError
from pipeline.graph.discovery import find_answers_beside
from pipeline.graph.nodes import PLACEHOLDERS, node_of

from .needs import try_freezing
from .write.constants import Constant, FrozenGraph

_MOST = 5
_MOST_NODES = 30_000  # of larger graphs no candidate is tried


@dataclass(frozen=True)
class Beside:
    """Other answers of a model whose outputs were found.

    Args:
        words: their names, with what they decide on.
        outputs: the outputs that were found, and they.
    """

    words: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.words)


def find_beside(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str]
) -> Beside | None:
    """Finds what can be frozen together with outputs, of the same inputs; None if there is nothing.

    Args:
        outputs: tensors that were found, and can be frozen with these inputs and pins.
    """
    if len(source.graph.node) > _MOST_NODES:
        return None
    found = find_answers_beside(source.graph, outputs)
    tried = [*_take(source, outputs, inputs, pins, [name for name, _ in found[:_MOST]])] if found else []
    ops = {node.name: node.op for node in source.graph.node} if tried else {}
    words = [f"{name} ({ops[node_of(name)]} of {of})" if of else name for name, of in found if name in tried]
    return Beside(tuple(words), (*outputs, *tried)) if tried else None


def _take(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str], names: Sequence[str]
) -> Iterator[str]:
    """Yields all that can be frozen and needs no more inputs; one by one only if that is not so of all together."""
    known = _placeholders(try_freezing(source, outputs, inputs, pins))
    if known is None:
        return
    if _placeholders(try_freezing(source, [*outputs, *names], inputs, pins)) == known:
        yield from names
    else:
        yield from (one for one in names if _placeholders(try_freezing(source, [*outputs, one], inputs, pins)) == known)


def _placeholders(frozen: FrozenGraph | PipelineError) -> set[str] | None:
    if isinstance(frozen, PipelineError):
        return None
    return {node.name for node in frozen.nodes if not isinstance(node, Constant) and node.op in PLACEHOLDERS}
