"""Finds the inputs and outputs of a graph that nobody named, and says why.

Structure decides, names only order what structure leaves open. The model is what hangs on data and weights and on no
labels (see `anatomy`). An output is a tensor of the model that no other part of the model takes. From these ends go,
one after the other, those that belong to what surrounds a model: decisions and reductions that only metrics and
summaries read; the logarithms, clips and reshapes by which a loss begins; a loss without labels, back to where it
meets what the model was given. What is left of a layer's end is a candidate:

- Without training in the graph all candidates are outputs: whoever saved it left only the model.
- With training, each head, which is a last layer and what follows it, has one output: what feeds nothing at all (a
  Softmax beside the loss) stands before what feeds the loss or metrics. If one head is there, its output is the
  model's. Of several all are outputs if each has an end that feeds nothing, or each has a loss with labels of its own.
- Everything else is ambiguous, and an error that tells the candidates: a decision that feeds nothing beside the tensor
  that it decides on; heads of different kinds; a loss that never meets data or labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FreezeError, nearest
from ..protos import DataType, FunctionDef, GraphDef
from .anatomy import (
    ELEMENTWISE,
    REDUCTIONS,
    Anatomy,
    changes_state,
    dissect,
    draws,
    shape_of,
    union,
)
from .graph import node_of, normalized
from .ops import dtype_name, output_dtypes
from .wiring import Tensor

_DECISIONS = """
    ArgMax ArgMin Equal Greater GreaterEqual InTopK InTopKV2 Less LessEqual LogicalAnd LogicalNot LogicalOr Multinomial
    NotEqual Rint Round Sign StatelessMultinomial
"""
_DECIDES = frozenset(_DECISIONS.split())
_RESHAPES = frozenset(["ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient", "Transpose"])
_PASSES_DECISION = _RESHAPES | {"Cast"}
_LOGARITHMS = frozenset(["Log", "Log1p"])
_GUARDS_LOGARITHM = frozenset(
    ["Add", "AddV2", "Cast", "ClipByValue", "Div", "Maximum", "Minimum", "Mul", "RealDiv", "Sub", "Sum"]
)
_LOSS_MATH = ELEMENTWISE | REDUCTIONS
_WITHOUT_GRADIENT_NODES = frozenset(["AddN", "Identity", "Neg"])  # the gradient may pass them unchanged
_PIECES = frozenset(
    ["AsString", "StringFormat", "ConcatV2", "GatherNd", "GatherV2", "Pack", "Slice", "StridedSlice", "Tile"]
)
_CALLS = frozenset(
    [
        "Case",
        "If",
        "PartitionedCall",
        "StatefulPartitionedCall",
        "StatelessCase",
        "StatelessIf",
        "StatelessWhile",
        "While",
    ]
)
_FIRST_ONLY = re.compile(r"FusedBatchNorm(V\d)?|(Ref)?Merge")  # the other outputs are for gradients
_CROSS_ENTROPY = re.compile(r"(Sparse)?SoftmaxCrossEntropyWithLogits")
_OUTPUT_NAME = re.compile(r"logit|predict|prob|softmax|output|score|y_?pred|y_?hat|embedding|result", re.IGNORECASE)
_OTHER_NAME = re.compile(r"loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|target|ground_?truth|y_true", re.IGNORECASE)
_DT_BOOL = DataType.Value("DT_BOOL")
_HANDLES = frozenset(DataType.Value(f"DT_{name}") for name in ("RESOURCE", "VARIANT"))
_MOST_SHOWN = 8

_NOTHING, _LOSS, _SEEN, _STATE = "nothing", "the loss", "metrics or summaries", "updates of variables"
_UNANCHORED = "its loss compares it with nothing that was given"
_TWO_JOINS = "it is combined with an input, and the result is compared with an input"


@dataclass(frozen=True)
class Candidate:
    """A tensor that may be an input or an output of a graph.

    Args:
        tensor: its name; without a port for a node's first output.
        op: the node's.
        dtype: as `tf.DType.name` has it.
        shape: a size or None per dimension; None where the graph does not tell the rank.
        score: from 0 to 1, to order them by.
        reasons: what speaks for it and against it, the weightiest first.
    """

    tensor: str
    op: str
    dtype: str
    shape: tuple[int | None, ...] | None
    score: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        sizes = "" if self.shape is None else f" [{', '.join('?' if s is None else str(s) for s in self.shape)}]"
        return f"{self.tensor}: {self.op}, {self.dtype}{sizes}; {', '.join(self.reasons)}"


@dataclass
class _End:
    """An end of the model.

    Args:
        feeds: nothing, the loss, or what only watches.
        head: the last layer before it; -1 where layers follow on the way to other ends.
        decides_on: for a decision, the tensor that it is about.
        doubt: why it is no clear case by itself; empty where it is one.
    """

    tensor: Tensor
    feeds: str
    head: int
    labels: int = 0
    decides_on: Tensor | None = None
    doubt: str = ""
    is_bool: bool = False


@dataclass(frozen=True)
class _Ends:
    found: list[_End]
    alternatives: list[_End]


@dataclass(frozen=True)
class _Feeds:
    """What the outputs of a node go to: kinds of things, labels met in a loss, joins with inputs on the way there."""

    kinds: frozenset[str]
    labels: int = 0
    joins: int = 0


def ranked_outputs(graph: GraphDef) -> list[Candidate]:
    """What may be an output of the graph, the likeliest first."""
    anatomy = dissect(graph)
    return _ranked(graph, anatomy, _find_ends(anatomy, _functions(graph)))


def discovered_outputs(graph: GraphDef) -> list[str]:
    """The graph's outputs, where its structure leaves no doubt.

    Returns:
        Names of tensors, in the order of the graph's nodes.

    Raises:
        FreezeError: there is none, or it is not clear which; the likeliest are told with their reasons.
    """
    anatomy = dissect(graph)
    ends = _find_ends(anatomy, _functions(graph))
    chosen, doubt = _choose(anatomy, ends.found)
    if chosen:
        return [anatomy.wiring.name(end.tensor) for end in sorted(chosen, key=lambda end: end.tensor)]
    candidates = _ranked(graph, anatomy, ends)
    if not candidates:
        raise FreezeError(
            "no tensor of the graph looks like an output",
            got="nothing that is computed from an input and from variables",
            next_step="Name the outputs with --outputs",
        )
    shown = [f"\n  {candidate}" for candidate in candidates[:_MOST_SHOWN]]
    more = f"\n  and {len(candidates) - _MOST_SHOWN} more" if len(candidates) > _MOST_SHOWN else ""
    raise FreezeError(
        f"it is not clear which tensors are the outputs: {doubt}",
        next_step=f"name them with --outputs, e.g. --outputs {candidates[0].tensor}. "
        f"The likeliest are{''.join(shown)}{more}",
    )


def ranked_inputs(graph: GraphDef, outputs: Sequence[str]) -> list[Candidate]:
    """What the outputs are computed from: placeholders, iterators and queues; data first, then modes to pin.

    Args:
        outputs: names of tensors or nodes.

    Raises:
        FreezeError: an output is not in the graph.
    """
    anatomy = dissect(graph)
    wiring, functions = anatomy.wiring, _functions(graph)
    for name in outputs:
        if node_of(name) not in wiring.number:
            raise FreezeError(
                "no such tensor in the graph", where=name, next_step=nearest(node_of(name), wiring.number)
            )
    found = []
    for tensor in _sources_above(anatomy, outputs):
        score, reasons = _input_reasons(anatomy, tensor)
        found.append((score, tensor, _candidate(anatomy, functions, tensor, score, reasons)))
    return [candidate for _, _, candidate in sorted(found, key=lambda entry: (-entry[0], entry[1]))]


# Inputs.


def _sources_above(anatomy: Anatomy, outputs: Iterable[str]) -> list[Tensor]:
    """The sources that outputs hang on; a parser of examples is passed, for what it parses is the input."""
    wiring = anatomy.wiring
    waiting: list[Tensor] = []
    for name in outputs:
        port = normalized(name).rpartition(":")[2]
        waiting.append((wiring.number[node_of(name)], int(port) if port.isdecimal() else 0))
    seen, found = set[Tensor](), set[Tensor]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        is_given = tensor in anatomy.sources or not wiring.inputs[tensor[0]]
        if tensor in anatomy.sources and not re.search("Parse|CSV", wiring.ops[tensor[0]]):
            found.add(tensor)
        elif not is_given or tensor in anatomy.sources:
            waiting += wiring.inputs[tensor[0]]
    return sorted(found)


def _input_reasons(anatomy: Anatomy, tensor: Tensor) -> tuple[float, list[str]]:
    node = anatomy.wiring.nodes[tensor[0]]
    bit = anatomy.sources[tensor]
    reasons = []
    if bit in anatomy.modes:
        value = "false" if node.attr["dtype"].type == DataType.Value("DT_BOOL") else "VALUE"
        return 0.3, [f"a mode: {anatomy.modes[bit]}", f"pin it with --pin {node.name}={value}"]
    score = 0.6
    if bit & anatomy.data:
        score = 0.9
        reasons.append("weights are applied to it")
    elif bit & anatomy.labels:
        score = 0.4
        reasons.append("no weights are applied to it, as with labels")
    else:
        reasons.append("the outputs hang on it, no weights are applied to it")
    if "Placeholder" not in node.op:
        score -= 0.1
        reasons.append("rows are read here: as an input it becomes a placeholder")
    if node.op == "PlaceholderWithDefault":
        score -= 0.05
        reasons.append("it has a default")
    if _LABEL_NAME.search(node.name):
        score -= 0.05
        reasons.append("named like labels")
    return score, reasons


# Ends of the model.


def _find_ends(anatomy: Anatomy, functions: Mapping[str, FunctionDef]) -> _Ends:
    return _Peeling(anatomy, functions).run()


class _Peeling:
    """Takes away, from the ends of the graph on, what surrounds the model."""

    def __init__(self, anatomy: Anatomy, functions: Mapping[str, FunctionDef]) -> None:
        self.anatomy, self.wiring, self.functions = anatomy, anatomy.wiring, functions
        count = len(self.wiring.ops)
        self.inner = [anatomy.is_inner(index) for index in range(count)]
        self.decided = self._decisions()
        self.base = self._bases()
        self.is_followed = self._followed()
        self.is_joined, self.is_behind_join = self._joins()
        self.head = self._heads()
        self.root = self._roots()
        self.peeled: dict[int, _Feeds] = {}  # what was taken away
        self.is_logarithm = set[int]()
        self.ends: list[_End] = []
        self.alternatives: list[_End] = []

    def run(self) -> _Ends:
        by_products = self._by_products()
        for index in reversed(self.wiring.order):
            if not self.inner[index]:
                continue
            feeds = self._feeds(index)
            if feeds is None:
                continue
            is_hidden = self.anatomy.depth[index] > 0 or not self.wiring.ops[index] or index in by_products
            if is_hidden or (not feeds.kinds and self.wiring.is_awaited[index]) or self._is_part(index, feeds):
                self.peeled[index] = feeds
            else:
                self._add_ends(index, feeds)
        if any(end.doubt == _UNANCHORED for end in self.ends):
            self.alternatives += self._middles()
        return _Ends(self._without_rehearsals(), self.alternatives)

    def _without_rehearsals(self) -> list[_End]:
        """The ends, less those of layers that stand in the middle of the model elsewhere: a loop's first step, say."""
        ends = self._without_by_products(self.ends[::-1])
        middle = {v for layer, used in self.anatomy.applied.items() if self.is_followed[layer] for v in used}
        rehearsed = [
            end
            for end in ends
            if end.feeds == _NOTHING and end.head >= 0 and self.anatomy.applied.get(end.head, set()) <= middle
        ]
        return [end for end in ends if end not in rehearsed] if len(rehearsed) < len(ends) else ends

    def _without_by_products(self, ends: list[_End]) -> list[_End]:
        """The ends, less the outputs of loops and calls that nothing takes, while something takes the others."""
        results = [end for end in ends if not self._is_bare_result(end.tensor[0])]
        roots = {self.root[end.tensor[0]] for end in results} | {-1}
        return [
            end
            for end in ends
            if end.feeds != _NOTHING
            or self.root[end.tensor[0]] < 0
            or (end.head >= 0 and (end in results or self.root[end.tensor[0]] not in roots))
        ]

    def _is_bare_result(self, index: int) -> bool:
        """Whether a node only hands on a result of a loop or call."""
        given = self.wiring.inputs[index]
        return self.wiring.ops[index] == "Identity" and self._is_call(given[0][0])

    def _is_call(self, index: int) -> bool:
        op = self.wiring.ops[index]
        return op in _CALLS or op in self.functions

    def _roots(self) -> list[int]:
        """The loop or call that alone stands behind a node, since the last layer; -1 where none does, or several."""
        found = [-1] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index]:
                continue
            if self._is_call(index) or not self.wiring.ops[index]:
                found[index] = index
            elif not self.anatomy.is_layer[index]:
                given = self.wiring.inputs[index]
                loops = [source for source, _ in given if not self.wiring.ops[source]]
                roots = {found[source] for source, _ in given if self.inner[source]}
                found[index] = loops[0] if loops else roots.pop() if len(roots) == 1 else -1
        return found

    def _middles(self) -> list[_End]:
        """What may be the output of a loss without labels: the last of one input, or what takes an input's place."""
        ends: list[_End] = []
        layers = self.anatomy.applied
        on_inputs = {variable for layer, used in layers.items() if self._applies_to_input(layer) for variable in used}
        for index in self.wiring.order:
            if not self.inner[index] or index in self.peeled or not self.is_followed[index]:
                continue
            for consumer, port in self.wiring.consumers[index]:
                if not self.inner[consumer] or consumer in self.anatomy.gradients:
                    continue
                if self.anatomy.above[consumer] != self.anatomy.above[index]:
                    ends.append(_End((index, port), _LOSS, -1, doubt="the last that hangs on these inputs alone"))
                elif not on_inputs.isdisjoint(layers.get(consumer, ())) and not self._applies_to_input(consumer):
                    doubt = "it takes the place of an input: the same weights are applied to both"
                    ends.append(_End((index, port), _LOSS, -1, doubt=doubt))
        return ends

    def _applies_to_input(self, layer: int) -> bool:
        given = [tensor for tensor in self.wiring.inputs[layer] if self.anatomy.sources_of(tensor)]
        return all(self._is_given(tensor) for tensor in given)

    def _feeds(self, index: int) -> _Feeds | None:
        """What a node's outputs feed beside gradients; None where the model itself takes one."""
        anatomy = self.anatomy
        kinds, labels, joins = set[str](), 0, 0
        for consumer, _ in self.wiring.consumers[index]:
            if consumer in anatomy.gradients:
                continue
            if self.inner[consumer]:
                if consumer not in self.peeled:
                    return None
                behind = self.peeled[consumer]
                kinds |= behind.kinds or {_LOSS if self._may_be_loss(consumer) else _SEEN}
                labels |= behind.labels
                joins = max(joins, behind.joins + (consumer in self.is_joined))
            elif changes_state(self.wiring.ops[consumer]):
                kinds.add(_STATE)
            elif anatomy.is_outcome[consumer]:
                kinds.add(_SEEN)
            elif self._is_in_loss(consumer):
                kinds.add(_LOSS)
                labels |= anatomy.above[consumer] & anatomy.labels
            elif anatomy.above[consumer]:
                kinds.add(_SEEN)
        return _Feeds(frozenset(kinds), labels, joins)

    def _may_be_loss(self, index: int) -> bool:
        """Whether a scalar that nothing takes may be the loss: then it has a gradient."""
        known = self.anatomy.differentiated
        return self.decided[index] is None and (not known or index in known)

    def _is_in_loss(self, index: int) -> bool:
        """Whether a node that labels feed is on the way to a loss, and not to a metric."""
        op, known = self.wiring.ops[index], self.anatomy.differentiated
        if not self.anatomy.above[index] or op in _DECIDES:
            return False
        return not known or index in known or op in _WITHOUT_GRADIENT_NODES

    def _is_part(self, index: int, feeds: _Feeds) -> bool:
        """Whether an end belongs to what surrounds the model, and not to the model."""
        op, anatomy = self.wiring.ops[index], self.anatomy
        if feeds.kinds == {_STATE} or (feeds.kinds and self.decided[index] is not None):
            return True
        is_loss = self.is_behind_join[index] and anatomy.is_scalar[index]
        if not feeds.kinds and not anatomy.has_training and not is_loss:
            return False
        if anatomy.is_layer[index]:
            return False
        if op in _LOSS_MATH and anatomy.is_scalar[index]:
            return self._is_reduced(index)
        if not feeds.kinds:
            return False
        if _LOSS not in feeds.kinds:
            return op in _LOSS_MATH or op in _RESHAPES or op in _PIECES
        return self._begins_loss(index, feeds)

    def _is_reduced(self, index: int) -> bool:
        """Whether a scalar comes from more than scalars, by a reduction."""
        waiting, seen = [index], set[int]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if self.wiring.ops[current] in REDUCTIONS:
                return True
            waiting += [
                source
                for source, _ in self.wiring.inputs[current]
                if self.inner[source] and self.anatomy.is_scalar[source] and not self.anatomy.is_layer[source]
            ]
        return False

    def _begins_loss(self, index: int, feeds: _Feeds) -> bool:
        """Whether an end that feeds the loss is a step of the loss."""
        op, consumers = self.wiring.ops[index], self.wiring.consumers[index]
        if op in _LOGARITHMS or (
            op in _GUARDS_LOGARITHM and any(consumer in self.is_logarithm for consumer, _ in consumers)
        ):
            self.is_logarithm.add(index)
            return True
        if not feeds.labels:
            return self.is_behind_join[index] or op in _LOSS_MATH
        if op == "Reshape":
            shape = self.wiring.inputs[index][1][0] if len(self.wiring.inputs[index]) > 1 else index
            takers = [self.wiring.ops[c] for c, _ in consumers if c not in self.anatomy.gradients]
            if self.wiring.ops[shape] != "Const" and all(map(_CROSS_ENTROPY.fullmatch, takers)):
                return True  # tf.nn makes a matrix of logits of any rank
        if op in _RESHAPES:
            return self._has_other_uses(self.wiring.inputs[index][0][0], index)
        return op in ELEMENTWISE and self._meets_loss_earlier(index)

    def _has_other_uses(self, index: int, but: int) -> bool:
        return self.inner[index] and any(
            consumer != but and consumer not in self.anatomy.gradients and self.anatomy.above[consumer]
            for consumer, _ in self.wiring.consumers[index]
        )

    def _meets_loss_earlier(self, index: int) -> bool:
        """Whether the one tensor that an end is made from element by element feeds the loss directly, too."""
        base = self.base[index]
        return base != index and any(
            not self.inner[consumer] and consumer not in self.anatomy.gradients and self._is_in_loss(consumer)
            for consumer, _ in self.wiring.consumers[base]
        )

    def _add_ends(self, index: int, feeds: _Feeds) -> None:
        kind = next((kind for kind in (_LOSS, _SEEN) if kind in feeds.kinds), _NOTHING)
        decides_on = self.decided[index]
        for port, dtype in self._ports(index, bool(feeds.kinds)):
            end = _End((index, port), kind, self.head[index], feeds.labels, decides_on, is_bool=dtype == _DT_BOOL)
            if kind == _LOSS and not feeds.labels:
                end.doubt = (_UNANCHORED, "", _TWO_JOINS)[min(feeds.joins, 2)]
            if kind == _LOSS and self.wiring.ops[index] == "LogSoftmax":
                end.doubt = "a LogSoftmax may belong to the loss"
                self.alternatives.append(_End(self.wiring.inputs[index][0], _LOSS, end.head, feeds.labels))
            self.ends.append(end)
            if end.doubt == _TWO_JOINS:
                self._add_later_joins(end)
        if decides_on is not None and self.anatomy.has_training:
            self.alternatives.append(_End(decides_on, _SEEN, self.head[decides_on[0]]))

    def _add_later_joins(self, end: _End) -> None:
        """What was made from an end and an input, and is compared with an input again, may be the output as well."""
        for join in sorted(self.is_joined):
            for tensor in self.wiring.inputs[join]:
                if tensor[0] in self.is_joined and join in self.peeled:
                    self.alternatives.append(_End(tensor, _LOSS, self.head[tensor[0]], doubt=end.doubt))

    def _ports(self, index: int, is_used: bool) -> list[tuple[int, int]]:
        """The outputs that may be ends, and their dtypes: those that something takes, or all of them."""
        node = self.wiring.nodes[index]
        used = sorted({port for _, port in self.wiring.consumers[index]}) if is_used else []
        dtypes = output_dtypes(node, self.functions) or (0,) * (max(used, default=0) + 1)
        ports = [0] if _FIRST_ONLY.fullmatch(node.op) else used or range(len(dtypes))
        return [(port, dtypes[port]) for port in ports if port < len(dtypes) and dtypes[port] not in _HANDLES]

    # What is known beforehand of each node.

    def _decisions(self) -> list[Tensor | None]:
        """For what only tells a decision, the tensor that it is about."""
        found: list[Tensor | None] = [None] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index]:
                continue
            op, given = self.wiring.ops[index], [t for t in self.wiring.inputs[index] if self.inner[t[0]]]
            if op in _DECIDES or (draws(op) and given):
                found[index] = next((found[t[0]] or t for t in given), None)
            elif op in _PASSES_DECISION and given:
                found[index] = found[given[0][0]]
        return found

    def _bases(self) -> list[int]:
        """The one node that each is made from element by element; itself where it is not, or from several."""
        found = list(range(len(self.wiring.ops)))
        for index in self.wiring.order:
            if self.inner[index] and self.wiring.ops[index] in ELEMENTWISE and not self.anatomy.is_layer[index]:
                bases = {found[source] for source, _ in self.wiring.inputs[index] if self.inner[source]}
                if len(bases) == 1:
                    found[index] = bases.pop()
        return found

    def _followed(self) -> list[bool]:
        """Whether a layer of the model comes after a node."""
        found = [False] * len(self.wiring.ops)
        for index in reversed(self.wiring.order):
            found[index] = any(
                self.inner[consumer] and (self.anatomy.is_layer[consumer] or found[consumer])
                for consumer, _ in self.wiring.consumers[index]
            )
        return found

    def _joins(self) -> tuple[set[int], list[bool]]:
        """Nodes after the last layer that combine what the model gives with what it was given, and all behind them."""
        joins, behind = set[int](), [False] * len(self.wiring.ops)
        for index in self.wiring.order:
            if not self.inner[index] or self.anatomy.is_layer[index] or self.is_followed[index]:
                continue
            given = self.wiring.inputs[index]
            if any(self.inner[source] for source, _ in given) and any(self._is_given(tensor) for tensor in given):
                joins.add(index)
            behind[index] = index in joins or any(behind[source] for source, _ in given)
        return joins, behind

    def _is_given(self, tensor: Tensor) -> bool:
        return bool(self.anatomy.sources_of(tensor)) and not self.anatomy.weight[tensor[0]]

    def _heads(self) -> list[int]:
        """The last layer before each node; -1 where it is followed by others."""
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

    def _by_products(self) -> set[int]:
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


# The choice.


def _choose(anatomy: Anatomy, ends: list[_End]) -> tuple[list[_End], str]:
    """The outputs; where there are none, why not."""
    if not anatomy.has_training and not any(end.feeds == _LOSS for end in ends):
        clear = [end for end in ends if end.feeds == _NOTHING or end.head >= 0]
        return clear, "nothing ends the model"
    heads: dict[int, list[_End]] = {}
    for end in ends:
        if end.head >= 0 or not anatomy.needs_weights:
            heads.setdefault(end.head, []).append(end)
    picked: list[_End] = []
    for found in heads.values():
        best, doubt = _of_head(found)
        if doubt:
            return [], doubt
        picked += best
    # The same weights twice: once for the loss, with dropout perhaps, and once for answers.
    answering = {v for end in picked if end.feeds != _LOSS for v in anatomy.applied.get(end.head, ())}
    picked = [e for e in picked if e.feeds != _LOSS or answering.isdisjoint(anatomy.applied.get(e.head, ()))]
    aside = [e for e in ends if e.head < 0 and e.feeds == _NOTHING and e.decides_on is None and not e.is_bool]
    if aside and anatomy.needs_weights and not any(end.feeds == _NOTHING for end in picked):
        return [], "a tensor in the middle of the model feeds nothing, as an output does, and its end feeds the loss"
    if len(picked) <= 1:
        return picked, "no tensor ends the model"
    if len({anatomy.above[end.tensor[0]] for end in picked}) > 1:
        return [], "several parts of the model end, and they have different inputs"
    if all(end.feeds == _NOTHING for end in picked):
        return picked, ""
    labels = [end.labels for end in picked]
    if all(end.feeds == _LOSS for end in picked) and all(labels) and sum(labels) == union(labels):
        return picked, ""
    return [], "several parts of the model end, and not all in the same way"


def _of_head(ends: list[_End]) -> tuple[list[_End], str]:
    idle = [end for end in ends if end.feeds == _NOTHING]
    decisions = [end for end in idle if end.decides_on is not None]
    if decisions:
        return [], "a decision feeds nothing, as an output does; what it decides on may be the output as well"
    if len(idle) > 1:
        return (idle, "") if len({e.tensor[0] for e in idle}) == 1 else ([], "several tensors of one head feed nothing")
    if idle:
        return idle, ""
    doubt = next((end.doubt for end in ends if end.doubt), "")
    if doubt:
        return [], doubt
    return (ends, "") if len(ends) == 1 else ([], "several tensors of one head feed the loss or metrics")


# How candidates are told.


def _ranked(graph: GraphDef, anatomy: Anatomy, ends: _Ends) -> list[Candidate]:
    functions = _functions(graph)
    chosen = {end.tensor for end in _choose(anatomy, ends.found)[0]}
    found: dict[Tensor, Candidate] = {}
    for end in (*ends.found, *ends.alternatives):
        if end.tensor not in found:
            score, reasons = _output_reasons(anatomy, end, end.tensor in chosen)
            found[end.tensor] = _candidate(anatomy, functions, end.tensor, score, reasons)
    return sorted(
        found.values(), key=lambda candidate: (-candidate.score, anatomy.wiring.number[node_of(candidate.tensor)])
    )


def _output_reasons(anatomy: Anatomy, end: _End, is_chosen: bool) -> tuple[float, list[str]]:
    name = anatomy.wiring.name(end.tensor)
    score = {_NOTHING: 0.7, _LOSS: 0.6, _SEEN: 0.5}[end.feeds]
    reasons = [f"feeds {end.feeds}" if end.feeds == _NOTHING else f"feeds nothing but {end.feeds}"]
    if end.decides_on is not None:
        score -= 0.1
        reasons.append(f"decides on {anatomy.wiring.name(end.decides_on)}")
    if end.head < 0 and anatomy.needs_weights and not end.doubt:
        score -= 0.3
        reasons.append("stands in the middle of the model, or beside it")
    if end.doubt:
        score -= 0.1
        reasons.append(end.doubt)
    if _OUTPUT_NAME.search(name):
        score += 0.05
        reasons.append("named like an output")
    if _OTHER_NAME.search(name):
        score -= 0.05
        reasons.append("named like a loss or a metric")
    return round(score + (0.2 if is_chosen else 0), 2), reasons


def _candidate(
    anatomy: Anatomy, functions: Mapping[str, FunctionDef], tensor: Tensor, score: float, reasons: list[str]
) -> Candidate:
    wiring = anatomy.wiring
    node = wiring.nodes[tensor[0]]
    dtypes = output_dtypes(node, functions)
    dtype = dtype_name(dtypes[tensor[1]]) if dtypes and tensor[1] < len(dtypes) else "unknown dtype"
    shape = shape_of(wiring, tensor, anatomy.producer)
    return Candidate(wiring.name(tensor), node.op, dtype, shape, round(score, 2), tuple(reasons))


def _functions(graph: GraphDef) -> Mapping[str, FunctionDef]:
    return {function.signature.name: function for function in graph.library.function}
