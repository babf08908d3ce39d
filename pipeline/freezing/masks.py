"""Judges what the value of a mode does to dropout: told from the graph, for names such as `dropout` mean either way.

A value is right if every draw that it decides comes to a mask that keeps all, and what is kept is scaled by 1. It is
wrong if a mask keeps nothing, whatever is drawn, or if it leads to a division by 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef

from .passes.constant_folding import Range, find_ranges_by_scope
from .passes.pin_placeholders import pin_placeholders

_CARRIES = frozenset({"Identity", "StopGradient", "Snapshot", "Cast", "Reshape", "ExpandDims", "Tile", "BroadcastTo"})
_DIVIDES = frozenset({"Div", "RealDiv", "DivNoNan", "Xdivy"})
_SELECTS = frozenset({"Select", "SelectV2"})
_SUMS = frozenset({"Add", "AddV2", "Sub"})
_LOOKS = frozenset({"Shape", "Size", "Rank", "Switch", "Merge", "Enter", "Exit", "NextIteration", "Fill"})
_ZEROS = frozenset({"ZerosLike"})


class Effect(Enum):
    """What a value does to the dropouts that it decides."""

    KEEPS = "keeps all, and scales by 1"
    DROPS = "drops everything"
    UNKNOWN = "cannot be told"


@dataclass(frozen=True)
class Judgement:
    """The effect of a value, and the node that shows it.

    Args:
        node: with words on what it does; empty if the effect is not that it drops.
    """

    effect: Effect
    node: str = ""


def drops(found: Judgement | None) -> bool:
    """Returns True for a value that lets nothing through."""
    return found is not None and found.effect is Effect.DROPS


class DropoutJudge:
    """Tells what values of modes do to dropout, for some outputs of a graph.

    Args:
        graph: with the placeholders.
        outputs: names of tensors.
        inputs: names of tensors that are fed: what is above them does not count.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str], inputs: Sequence[str] = ()) -> None:
        needed = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
        self._graph = graph.replace_nodes(node for node in graph.node if node.name in needed).parsed
        self._before = find_ranges_by_scope(self._graph, needed)
        self._needed = needed

    def judge(self, pins: Mapping[str, str]) -> Judgement | None:
        """Returns the effect of pins, by the names of placeholders; None if no draw is measured by them."""
        pinned = {name: value for name, value in pins.items() if name in self._needed}
        try:
            graph = pin_placeholders(self._graph, pinned)
        except FreezeError:  # no value of its dtype: said when it is frozen
            return None
        after = find_ranges_by_scope(graph, self._needed)
        effects = [*self._effects(graph, after, pinned)]
        dropping = next((one for one in effects if one.effect is Effect.DROPS), None)
        if not any(found.draw is not None for scope in after for _, found in self._decided(scope, after)):
            return None
        if dropping is not None:
            return dropping
        is_known = bool(effects) and all(one.effect is Effect.KEEPS for one in effects)
        return Judgement(Effect.KEEPS if is_known else Effect.UNKNOWN)

    def _decided(self, scope: str, after: Mapping[str, Mapping[str, Range]]) -> Iterator[tuple[str, Range]]:
        """Yields what is known by the pins alone."""
        before = self._before.get(scope, {})
        for name, found in after[scope].items():
            earlier = before.get(name)
            if earlier is None or (earlier.low, earlier.high) != (found.low, found.high):
                yield name, found

    def _effects(
        self, graph: Graph, after: Mapping[str, Mapping[str, Range]], pins: Mapping[str, str]
    ) -> Iterator[Judgement]:
        for scope in after:
            body, known = graph.body(scope) if scope else graph, after[scope]
            for name, found in self._decided(scope, after):
                if not found.is_settled:
                    yield Judgement(Effect.UNKNOWN)
                    continue
                for taker, port in _takers(body, name, known):
                    yield from _apply(body, taker, port, found)


def _takers(graph: Graph, name: str, known: Mapping[str, Range]) -> Iterator[tuple[NodeDef, int]]:
    """Yields the nodes that apply a known value to what is not known, each with the number of the input."""
    waiting, seen = [name], {name}
    while waiting:
        at = waiting.pop()
        for taker in graph.consumers.get(at, ()):
            if taker.name in known:
                continue
            for port, reference in enumerate(data_inputs(taker)):
                if node_of(reference) != at:
                    continue
                if taker.op in _CARRIES and port == 0:
                    if taker.name not in seen:
                        seen.add(taker.name)
                        waiting.append(taker.name)
                elif taker.op not in _CARRIES:
                    yield taker, port


def _apply(graph: Graph, node: NodeDef, port: int, found: Range) -> Iterator[Judgement]:
    """Yields what a node makes of a settled value that it takes."""
    value, is_mask = float(found.low), found.draw is not None
    if node.op == "Mul":
        if value == 0 and is_mask:
            yield Judgement(Effect.DROPS, f"{node.name} multiplies by 0, whatever is drawn")
        else:
            yield Judgement(Effect.KEEPS if value == 1 else Effect.UNKNOWN)
    elif node.op in _DIVIDES and port == 1:
        if value == 0:
            yield Judgement(Effect.DROPS, f"{node.name} divides by 0")
        else:
            yield Judgement(Effect.KEEPS if value == 1 else Effect.UNKNOWN)
    elif node.op in ("Reciprocal", "Inv"):
        yield Judgement(Effect.DROPS, f"{node.name} divides by 0") if value == 0 else Judgement(Effect.UNKNOWN)
    elif node.op in _SELECTS and port == 0:
        chosen = data_inputs(node)[1 if value else 2]
        if _is_zero(graph, node_of(chosen)):
            yield Judgement(Effect.DROPS, f"{node.name} takes zeros, whatever is drawn")
        else:
            # Of two values that are no zeros either may be the one for use.
            other = data_inputs(node)[2 if value else 1]
            yield Judgement(Effect.KEEPS if _is_zero(graph, node_of(other)) else Effect.UNKNOWN)
    elif node.op in _SUMS:
        yield Judgement(Effect.KEEPS if value == 0 else Effect.UNKNOWN)
    elif node.op not in _LOOKS and node.op not in graph.functions:
        yield Judgement(Effect.UNKNOWN)


def _is_zero(graph: Graph, name: str) -> bool:
    """Returns True for zeros, of whatever shape."""
    node = graph.nodes.get(name)
    while node is not None and node.op in (*_CARRIES, "Fill") and len(node.input) > 0:
        node = graph.nodes.get(node_of(node.input[1 if node.op == "Fill" else 0]))
    if node is None or node.op in _ZEROS:
        return node is not None
    if node.op != "Const":
        return False
    tensor = whole_node(node).attr["value"].tensor
    fields = (tensor.float_val, tensor.double_val, tensor.half_val, tensor.int_val, tensor.int64_val)
    return not any(tensor.tensor_content) and not any(any(values) for values in fields)
