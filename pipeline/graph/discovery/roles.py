"""The parts of a graph: what feeds it, its weights, its forward pass, and what training added to that.

What a tensor is, is told by what it hangs on and what hangs on it:

    gradients   what `tf.gradients` added, by the scope that it names, and all that hangs on it
    outcome     ops that change state, write files, print or check: nothing of a model lies behind them
    weights     what hangs on variables alone (in a frozen graph, on float constants), not reduced to a norm
    layer       a node that applies weights to what hangs on a source
    source      a placeholder, or what is read from an iterator, a queue or a reader
    data        a source that some layer works on, however far behind it
    mode        a scalar source that decides branches or dropout: what is pinned when a model is deployed
    labels      other sources that are combined with what layers made: a loss and metrics lie behind them
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_

from ..graph import Graph
from ..nodes import PLACEHOLDERS
from ..protos import DataType, NodeDef
from ..unsupported import refusal_of
from ..variables import VARIABLE_OPS
from .gradients import find_gradients
from .shapes import REDUCTIONS, find_scalars, shape_of
from .topology import Tensor, Wiring, depths, wire

_SOURCES = re.compile(
    r"Placeholder(V2|WithDefault)?|IteratorGetNext\w*|Queue\w*Dequeue\w*|Reader(Read\w*)|(OrderedMap|Map)?Unstage\w*"
    r"|InfeedDequeue\w*|RecordInput"
)
# One string becomes features and labels here, so each output is a source.
_PARSERS = re.compile(r"Parse(Single)?(Sequence)?Example\w*|DecodeCSV|_ParseExample\w*")
_OBSERVERS = re.compile(r"\w*Summary\w*|Assert|PrintV2|Timestamp|\w*QueueEnqueue\w*|\w*HistogramFixedWidth")
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "VariableShape", "TensorArraySizeV3", "BroadcastGradientArgs"})
_QUESTIONS = frozenset({"VarIsInitializedOp", "IsVariableInitialized"})


_CHANGES_STATE, _DRAWS, _FILES = refusal_of("Assign"), refusal_of("RandomUniform"), refusal_of("SaveV2")
_FLOATS = frozenset({DataType.Value(f"DT_{name}") for name in ("FLOAT", "DOUBLE", "HALF", "BFLOAT16", "COMPLEX64")}) | {
    DataType.Value(f"DT_{name}") for name in ("COMPLEX128", "QINT8", "QUINT8", "QINT32", "INT8", "UINT8")
}
_MOST_UPDATED = 64  # what leads to the update of more is no step of one variable's update
_DT_BOOL = DataType.Value("DT_BOOL")


@lru_cache(maxsize=4096)
def _is_source(op: str) -> bool:
    return _SOURCES.fullmatch(op) is not None or _PARSERS.fullmatch(op) is not None


@lru_cache(maxsize=4096)
def is_outcome(op: str) -> bool:
    """Whether nothing of a model lies behind an op: it changes state, or tells something to somebody."""
    refusal = refusal_of(op)
    return (refusal is not None and refusal in (_CHANGES_STATE, _FILES)) or _OBSERVERS.fullmatch(op) is not None


@lru_cache(maxsize=4096)
def changes_state(op: str) -> bool:
    """Whether an op changes a variable."""
    return refusal_of(op) is _CHANGES_STATE


@lru_cache(maxsize=4096)
def draws(op: str) -> bool:
    """Whether an op draws random numbers."""
    return refusal_of(op) is _DRAWS or op.startswith("StatelessRandom") or op == "StatelessTruncatedNormal"


@dataclass
class Anatomy:
    """What every node of a graph is; lists go by the nodes' numbers.

    Args:
        sources: every source's bit, by its tensor; sets of sources are sums of bits.
        above: the sources that a node hangs on, without modes.
        modes: what a mode decides, by its bit.
        weight: 2 for what hangs on weights, 1 where these were reduced to a norm, 0 for the rest.
        is_cut: whether what hangs on a node hangs on nothing before it: shapes, outcomes, gradients.
        is_layer: whether a node applies weights to what hangs on a source.
        applied: by layer, variables that it applies, one for each input.
        data, labels: sources.
        needs_weights: whether the graph has weights at all.
        differentiated: nodes that gradients flow through.
    """

    wiring: Wiring
    producer: int
    gradients: set[int]
    is_outcome: list[bool]
    is_cut: list[bool]
    sources: dict[Tensor, int]
    depth: list[int]
    is_scalar: list[bool] = field(default_factory=list)
    above: list[int] = field(default_factory=list)
    modes: dict[int, str] = field(default_factory=dict)
    weight: list[int] = field(default_factory=list)
    is_layer: list[bool] = field(default_factory=list)
    applied: dict[int, set[int]] = field(default_factory=dict)
    data: int = 0
    labels: int = 0
    needs_weights: bool = True
    differentiated: set[int] = field(default_factory=set)
    has_updates: bool = False

    @property
    def has_training(self) -> bool:
        """Whether the graph does more than answer: it has gradients, updates, or a loss or metrics of labels."""
        return bool(self.gradients) or self.has_updates or self.labels != 0

    def sources_of(self, tensor: Tensor) -> int:
        """The sources that a tensor hangs on, without modes."""
        own = self.sources.get(tensor)
        return self.above[tensor[0]] if own is None else own & ~sum(self.modes)

    def is_pure_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor hangs on weights and on no source."""
        return self.weight[tensor[0]] == 2 and not self.sources_of(tensor)

    def is_inner(self, index: int) -> bool:
        """Whether a node belongs to the model: it hangs on data and weights, on no labels, and to no training."""
        above = self.above[index]
        return (
            above & self.data != 0
            and above & self.labels == 0
            and (self.weight[index] > 0 or not self.needs_weights)
            and index not in self.gradients
            and not self.is_outcome[index]
        )


def dissect(graph: Graph) -> Anatomy:
    """Tells the parts of a graph apart."""
    # Every few hundred new lists the collector would look through the objects of all nodes, and find nothing.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        return _dissect(graph)
    finally:
        if is_collecting:
            gc.enable()


def _dissect(graph: Graph) -> Anatomy:
    wiring = wire(graph)
    gradients, differentiated = find_gradients(wiring)
    sources: dict[Tensor, int] = {}
    for index, op in enumerate(wiring.ops):
        if op and _is_source(op):
            for port in {port for _, port in wiring.consumers[index]} or {0}:
                sources[index, port] = 1 << len(sources)
    outcomes = [is_outcome(op) for op in wiring.ops]
    cuts = [outcome or op in _SHAPES for outcome, op in zip(outcomes, wiring.ops, strict=True)]
    for index in gradients:
        cuts[index] = True
    anatomy = Anatomy(
        wiring=wiring,
        producer=graph.versions.producer,
        gradients=gradients,
        is_outcome=outcomes,
        is_cut=cuts,
        sources=sources,
        depth=depths(wiring),
        differentiated=differentiated,
    )
    anatomy.has_updates = any("Apply" in op and changes_state(op) for op in set(wiring.ops))
    anatomy.is_scalar = find_scalars(wiring, gradients, graph.versions.producer)
    anatomy.above = _propagate(anatomy, sources)
    _find_modes(anatomy)
    decided = sum(anatomy.modes)
    anatomy.above = [above & ~decided for above in anatomy.above]
    _find_layers(anatomy)
    _find_labels(anatomy)
    return anatomy


def _propagate(anatomy: Anatomy, given: dict[Tensor, int], own: Callable[[str], bool] | None = None) -> list[int]:
    """Sets of bits that nodes pass on to what hangs on them; shapes, training and outcomes pass nothing on.

    Args:
        given: the bits of tensors.
        own: by op, nodes with a bit of their own, 1.
    """
    wiring, inputs = anatomy.wiring, anatomy.wiring.inputs
    found = [0] * len(wiring.ops)
    starts = {op: own is not None and own(op) for op in set(wiring.ops)}
    ends = {op: op != "" and _is_source(op) for op in starts}
    for index in wiring.order:
        if anatomy.is_cut[index]:
            continue
        op = wiring.ops[index]
        bits = int(starts[op])
        if not ends[op]:
            for tensor in inputs[index]:
                bits |= given[tensor] if tensor in given else found[tensor[0]]
        found[index] = bits
    return found


# Modes.


def _find_modes(anatomy: Anatomy) -> None:
    """Scalars that decide branches, or that random numbers are compared with or added to."""
    wiring = anatomy.wiring
    scalars: dict[int, tuple[int, bool]] = {}  # by the bit: the dtype, and whether the shape is known
    for (index, port), bit in anatomy.sources.items():
        if wiring.ops[index] in PLACEHOLDERS:
            shape = shape_of(wiring, (index, port), anatomy.producer)
            if shape in ((), None):
                scalars[bit] = (wiring.nodes[index].attr["dtype"].type, shape == ())
    if not scalars:
        return
    random = _propagate(anatomy, {}, draws)
    variables = _propagate(anatomy, {}, VARIABLE_OPS.__contains__)
    weighted, candidates = 0, union(scalars)
    for index, given in enumerate(wiring.inputs):
        op = wiring.ops[index]
        if not anatomy.above[index] & candidates:
            continue
        bits = [anatomy.sources.get(tensor, anatomy.above[tensor[0]]) for tensor in given]
        if len(bits) == 2 and (op in ("Switch", "RefSwitch") or op in ("Select", "SelectV2")):
            decider = bits[1]
        elif bits and op in ("If", "StatelessIf", "Case", "StatelessCase"):
            decider = bits[0]
        else:
            decider = 0
        if decider in scalars:
            anatomy.modes[decider] = "it decides which branch is taken"
        for bit, tensor in zip(bits, given, strict=True):
            if bit in scalars and not random[tensor[0]] and not variables[tensor[0]]:
                for other, partner in zip(bits, given, strict=True):
                    if not other and random[partner[0]]:
                        anatomy.modes.setdefault(bit, "random numbers are measured by it, as in dropout")
                    if not other and variables[partner[0]] and not random[partner[0]]:
                        weighted |= bit
    for bit, (dtype, is_known) in scalars.items():
        if dtype == _DT_BOOL and is_known:
            anatomy.modes.setdefault(bit, "it is one bool for the whole batch")
        elif bit & weighted and not is_known and dtype != _DT_BOOL:
            anatomy.modes.pop(bit, None)


# Weights, data and labels.


def _find_layers(anatomy: Anatomy) -> None:
    """Finds the weights, and where they are applied; what is called a weight is widened until something is applied."""
    wiring = anatomy.wiring
    nodes = [(index, wiring.nodes[index]) for index, op in enumerate(wiring.ops) if op in VARIABLE_OPS]
    floats = [index for index, node in nodes if node.attr["dtype"].type in _FLOATS]
    attempts: list[Callable[[], Iterable[int]]] = [
        lambda: (index for index in floats if not anatomy.is_scalar[index]),
        lambda: floats,
        lambda: (index for index, _ in nodes),
    ]
    if not nodes:
        attempts = [lambda: (index for index, node in enumerate(wiring.nodes) if _is_constant_weight(node))]
    for attempt in attempts:
        _apply_weights(anatomy, set(attempt()))
        if anatomy.data:
            return
    anatomy.needs_weights = False
    filenames = 0
    for index, op in enumerate(wiring.ops):
        anatomy.data |= anatomy.above[index]
        if refusal_of(op) is _FILES:
            filenames |= union(map(anatomy.sources_of, wiring.inputs[index]))
    anatomy.data &= ~filenames


def _is_constant_weight(node: NodeDef) -> bool:
    if node.op != "Const" or node.attr["dtype"].type not in _FLOATS:
        return False
    dims = node.attr["value"].tensor.tensor_shape.dim
    return len(dims) > 0 and any(dim.size > 1 for dim in dims)


def _apply_weights(anatomy: Anatomy, weights: set[int]) -> None:
    wiring, above = anatomy.wiring, anatomy.above
    anatomy.weight = weight = [0] * len(wiring.ops)
    variable = [-1] * len(wiring.ops)  # one of those that pure weights hang on
    for index in wiring.order:
        op = wiring.ops[index]
        if index in weights:
            weight[index], variable[index] = 2, index
        elif not (anatomy.is_cut[index] or op in _QUESTIONS):
            if op and _is_source(op):
                continue
            for source, _ in wiring.inputs[index]:
                if weight[source] > weight[index]:
                    weight[index], variable[index] = weight[source], variable[source]
            if weight[index] == 2 and op in REDUCTIONS and not above[index]:
                weight[index] = 1
    own_updates = _own_updates(anatomy, variable)
    anatomy.is_layer, anatomy.applied, anatomy.data = [False] * len(wiring.ops), {}, 0
    for index in wiring.order:
        if not above[index] or not weight[index] or wiring.ops[index] == "":
            continue
        pure = [tensor for tensor in wiring.inputs[index] if anatomy.is_pure_weight(tensor)]
        if not pure or not any(anatomy.sources_of(tensor) for tensor in wiring.inputs[index]):
            continue
        if any(variable[tensor[0]] in own_updates.get(index, ()) for tensor in pure):
            continue
        anatomy.is_layer[index] = True
        anatomy.applied[index] = {variable[source] for source, _ in pure}
        anatomy.data |= above[index]


def _own_updates(anatomy: Anatomy, variable: list[int]) -> dict[int, set[int]]:
    """Nodes that lead to nothing but the update of variables, as moving averages have them; and these variables."""
    wiring = anatomy.wiring
    updated: dict[int, set[int]] = {}
    for index in reversed(wiring.order):
        if changes_state(wiring.ops[index]):
            if wiring.inputs[index]:
                updated[index] = {variable[wiring.inputs[index][0][0]]} - {-1}
        elif wiring.consumers[index] and anatomy.above[index]:
            behind = [updated.get(consumer) for consumer, _ in wiring.consumers[index]]
            known = [variables for variables in behind if variables is not None]
            if len(known) == len(behind):
                variables = set().union(*known)
                if len(variables) <= _MOST_UPDATED:
                    updated[index] = variables
    return updated


def _find_labels(anatomy: Anatomy) -> None:
    """Sources that no layer works on, and that meet what layers made."""
    wiring, above = anatomy.wiring, anatomy.above
    others = sum(anatomy.sources.values()) & ~anatomy.data & ~sum(anatomy.modes)
    if not others or not anatomy.needs_weights:
        return
    joined, results = 0, 0
    for index, op in enumerate(wiring.ops):
        if not op or not above[index] & others:
            continue
        if above[index] & anatomy.data and anatomy.weight[index]:
            joined |= above[index] & others
        is_last = not any(
            not anatomy.is_outcome[consumer] and consumer not in anatomy.gradients
            for consumer, _ in wiring.consumers[index]
        )
        is_told = any(anatomy.is_outcome[consumer] for consumer, _ in wiring.consumers[index])
        if is_last and not is_told and not anatomy.is_scalar[index]:
            results |= above[index] & others
    if not anatomy.gradients and not anatomy.has_updates:
        # Without training a source that ends in more than a scalar is a mask or a threshold, not a label.
        anatomy.data |= joined & results
        joined &= ~results
    anatomy.labels = joined


def union(sets: Iterable[int]) -> int:
    """The sum of sets of bits."""
    return reduce(or_, sets, 0)
