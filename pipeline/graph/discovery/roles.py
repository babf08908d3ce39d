"""Classifies the nodes of a graph: sources, weights, the forward pass, and parts that training added.

A tensor is classified by its ancestors and descendants:

    gradients   nodes that `tf.gradients` added, found by its scope, and all their descendants
    outcome     ops that change state, write files, print or check: no part of a model follows them
    weights     computed from variables alone (in a frozen graph, from float constants), not reduced to a norm
    layer       a node that applies weights to a descendant of a source
    source      a placeholder, or rows read from an iterator, a queue or a reader
    data        a source that some layer works on, directly or later
    mode        a scalar source that decides branches or dropout: pinned when a model is deployed
    labels      other sources that are combined with outputs of layers: a loss and metrics follow
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from ..graph import Graph
from ..nodes import PLACEHOLDERS
from ..protos import DataType, NodeDef
from ..unsupported import refusal_of
from ..variables import VARIABLE_OPS
from .gradients import find_gradients
from .op_kinds import DECODERS, FILES, changes_state, draws, is_outcome, is_source
from .scaled_rows import find_scaled_rows
from .settings import find_settings
from .shapes import REDUCTIONS, find_scalars, shape_of
from .topology import NumberedGraph, Tensor, loop_depths, number_graph

_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "VariableShape", "TensorArraySizeV3", "BroadcastGradientArgs"})
_QUESTIONS = frozenset({"VarIsInitializedOp", "IsVariableInitialized"})


FLOATS = frozenset({DataType.Value(f"DT_{name}") for name in ("FLOAT", "DOUBLE", "HALF", "BFLOAT16", "COMPLEX64")}) | {
    DataType.Value(f"DT_{name}") for name in ("COMPLEX128", "QINT8", "QUINT8", "QINT32", "INT8", "UINT8")
}
_MOST_UPDATED = 64  # what leads to the update of more is no step of one variable's update
_DT_BOOL = DataType.Value("DT_BOOL")


@dataclass
class NodeRoles:
    """The role of every node of a graph; lists are indexed by node number.

    Args:
        sources: every source's bit, by its tensor; sets of sources are sums of bits.
        above: the sources that a node is computed from, without modes.
        modes: the decision of each mode, by its bit.
        settings: sources that set how the model answers; as modes, they are not in `above`.
        weight: 2 for nodes computed from weights, 1 if these were reduced to a norm, 0 for the rest.
        is_cut: True where walks end: shapes, outcomes, gradients.
        is_layer: True for a node that applies weights to a descendant of a source.
        applied: by layer, variables that it applies, one for each input.
        data, labels: sources.
        needs_weights: whether the graph has weights at all.
        differentiated: nodes that gradients flow through.
        own_gradients: nodes of gradients; `gradients` has their descendants too.
        of_model: nodes of gradients that belong to the model; they are none of `gradients`.
        differentiated_by_model: nodes that these flow through.
    """

    graph: NumberedGraph
    producer: int
    gradients: set[int]
    is_outcome: list[bool]
    is_cut: list[bool]
    sources: dict[Tensor, int]
    depth: list[int]
    is_scalar: list[bool] = field(default_factory=list)
    above: list[int] = field(default_factory=list)
    modes: dict[int, str] = field(default_factory=dict)
    settings: int = 0
    weight: list[int] = field(default_factory=list)
    is_layer: list[bool] = field(default_factory=list)
    applied: dict[int, set[int]] = field(default_factory=dict)
    data: int = 0
    labels: int = 0
    needs_weights: bool = True
    differentiated: set[int] = field(default_factory=set)
    own_gradients: set[int] = field(default_factory=set)
    of_model: frozenset[int] = frozenset()
    differentiated_by_model: set[int] = field(default_factory=set)
    has_updates: bool = False

    @property
    def has_training(self) -> bool:
        """True if the graph also trains or scores: it has gradients, updates, or a loss or metrics of labels."""
        return bool(self.gradients) or self.has_updates or self.labels != 0

    def sources_of(self, tensor: Tensor) -> int:
        """Returns the sources that a tensor is computed from, without modes."""
        own = self.sources.get(tensor)
        return self.above[tensor[0]] if own is None else own & ~sum(self.modes) & ~self.settings

    def is_pure_weight(self, tensor: Tensor) -> bool:
        """Returns True if a tensor is computed from weights and from no source."""
        return self.weight[tensor[0]] == 2 and not self.sources_of(tensor)

    def is_inner(self, index: int) -> bool:
        """Returns True if a node belongs to the model: computed from data and weights, not from labels, no training."""
        above = self.above[index]
        return (
            above & self.data != 0
            and above & self.labels == 0
            and (self.weight[index] > 0 or not self.needs_weights)
            and index not in self.gradients
            and not self.is_outcome[index]
        )


def classify_nodes(
    graph: Graph,
    constants: Iterable[Tensor] = (),
    of_model: frozenset[int] = frozenset(),
    closed: Container[tuple[int, Tensor]] = (),
) -> NodeRoles:
    """Classifies the nodes of a graph.

    Args:
        constants: those that count as sources.
        of_model: nodes of gradients that belong to the model.
        closed: edges from branches that are for training alone, each by the node and what it takes.
    """
    # Every few hundred new lists the collector would look through the objects of all nodes, and find nothing.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        return _classify(graph, constants, of_model, closed)
    finally:
        if is_collecting:
            gc.enable()


def _classify(
    whole: Graph, constants: Iterable[Tensor], of_model: frozenset[int], closed: Container[tuple[int, Tensor]]
) -> NodeRoles:
    graph = number_graph(whole, closed)
    gradients = find_gradients(graph, of_model)
    sources: dict[Tensor, int] = {}
    for index, op in enumerate(graph.ops):
        if op and is_source(op):
            for port in {port for _, port in graph.consumers[index]} or {0}:
                sources[index, port] = 1 << len(sources)
    for tensor in constants:
        sources[tensor] = 1 << len(sources)
    outcomes = [is_outcome(op) for op in graph.ops]
    cuts = [outcome or op in _SHAPES for outcome, op in zip(outcomes, graph.ops, strict=True)]
    for index in gradients.nodes:
        cuts[index] = True
    roles = NodeRoles(
        graph=graph,
        producer=whole.versions.producer,
        gradients=gradients.nodes,
        own_gradients=gradients.own,
        of_model=of_model,
        is_outcome=outcomes,
        is_cut=cuts,
        sources=sources,
        depth=loop_depths(graph),
        differentiated=gradients.differentiated,
        differentiated_by_model=gradients.differentiated_by_model,
    )
    roles.has_updates = any("Apply" in op and changes_state(op) for op in set(graph.ops))
    roles.is_scalar = find_scalars(graph, gradients.nodes, whole.versions.producer)
    roles.above = _propagate(roles, sources)
    _find_modes(roles)
    decided = sum(roles.modes)
    roles.above = [above & ~decided for above in roles.above]
    _find_layers(roles)
    roles.settings = find_settings(graph, sources, roles.producer) & ~roles.data
    roles.above = [above & ~roles.settings for above in roles.above]
    _find_labels(roles)
    return roles


def _propagate(roles: NodeRoles, given: dict[Tensor, int], own: Callable[[str], bool] | None = None) -> list[int]:
    """Propagates sets of bits from nodes to their descendants; shapes, training and outcomes stop them.

    Args:
        given: the bits of tensors.
        own: by op, nodes with a bit of their own, 1.
    """
    graph, inputs = roles.graph, roles.graph.inputs
    found = [0] * len(graph.ops)
    starts = {op: own is not None and own(op) for op in set(graph.ops)}
    ends = {op: op != "" and is_source(op) for op in starts}
    for index in graph.order:
        if roles.is_cut[index]:
            continue
        op = graph.ops[index]
        bits = int(starts[op])
        if not ends[op]:
            for tensor in inputs[index]:
                bits |= given[tensor] if tensor in given else found[tensor[0]]
        found[index] = bits
    return found


# Modes.


def _find_modes(roles: NodeRoles) -> None:
    """Scalars that decide branches, or that random numbers are compared with or added to."""
    graph = roles.graph
    scalars: dict[int, tuple[int, bool]] = {}  # by the bit: the dtype, and whether the shape is known
    for (index, port), bit in roles.sources.items():
        if graph.ops[index] in PLACEHOLDERS:
            shape = shape_of(graph, (index, port), roles.producer)
            if shape in ((), None):
                scalars[bit] = (graph.nodes[index].attr["dtype"].type, shape == ())
    if not scalars:
        return
    random = _propagate(roles, {}, draws)
    variables = _propagate(roles, {}, VARIABLE_OPS.__contains__)
    weighted, candidates = 0, union(scalars)
    for index, given in enumerate(graph.inputs):
        op = graph.ops[index]
        if not roles.above[index] & candidates:
            continue
        bits = [roles.sources.get(tensor, roles.above[tensor[0]]) for tensor in given]
        if len(bits) == 2 and (op in ("Switch", "RefSwitch") or op in ("Select", "SelectV2")):
            decider = bits[1]
        elif bits and op in ("If", "StatelessIf", "Case", "StatelessCase"):
            decider = bits[0]
        else:
            decider = 0
        if decider in scalars:
            roles.modes[decider] = "it decides which branch is taken"
        for bit, tensor in zip(bits, given, strict=True):
            if bit in scalars and not random[tensor[0]] and not variables[tensor[0]]:
                for other, partner in zip(bits, given, strict=True):
                    if not other and random[partner[0]]:
                        roles.modes.setdefault(bit, "random numbers are measured by it, as in dropout")
                    if not other and variables[partner[0]] and not random[partner[0]]:
                        weighted |= bit
    for bit, (dtype, is_known) in scalars.items():
        if dtype == _DT_BOOL and is_known:
            roles.modes.setdefault(bit, "it is one bool for the whole batch")
        elif bit & weighted and not is_known and dtype != _DT_BOOL:
            roles.modes.pop(bit, None)


# Weights, data and labels.


def _find_layers(roles: NodeRoles) -> None:
    """Finds the weights, and where they are applied; what is called a weight is widened until something is applied."""
    graph = roles.graph
    nodes = [(index, graph.nodes[index]) for index, op in enumerate(graph.ops) if op in VARIABLE_OPS]
    floats = [index for index, node in nodes if node.attr["dtype"].type in FLOATS]
    attempts: list[Callable[[], Iterable[int]]] = [
        lambda: (index for index in floats if not roles.is_scalar[index]),
        lambda: floats,
        lambda: (index for index, _ in nodes),
    ]
    if not nodes:
        attempts = [lambda: (index for index, node in enumerate(graph.nodes) if _is_constant_weight(node))]
    for attempt in attempts:
        _apply_weights(roles, set(attempt()))
        if roles.data:
            return
    roles.needs_weights = False
    filenames = 0
    for index, op in enumerate(graph.ops):
        roles.data |= roles.above[index]
        if refusal_of(op) is FILES:
            filenames |= union(map(roles.sources_of, graph.inputs[index]))
    roles.data &= ~filenames


def _is_constant_weight(node: NodeDef) -> bool:
    if node.op != "Const" or node.attr["dtype"].type not in FLOATS:
        return False
    dims = node.attr["value"].tensor.tensor_shape.dim
    return len(dims) > 0 and any(dim.size > 1 for dim in dims)


def _apply_weights(roles: NodeRoles, weights: set[int]) -> None:
    graph, above = roles.graph, roles.above
    roles.weight = weight = [0] * len(graph.ops)
    variable = [-1] * len(graph.ops)  # one of the variables that pure weights are computed from
    for index in graph.order:
        op = graph.ops[index]
        if index in weights:
            weight[index], variable[index] = 2, index
        elif not (roles.is_cut[index] or op in _QUESTIONS):
            if op and is_source(op):
                continue
            for source, _ in graph.inputs[index]:
                if weight[source] > weight[index]:
                    weight[index], variable[index] = weight[source], variable[source]
            if weight[index] == 2 and op in REDUCTIONS and not above[index]:
                weight[index] = 1
    own_updates = _own_updates(roles, variable)
    roles.is_layer, roles.applied, roles.data = [False] * len(graph.ops), {}, 0
    for index in graph.order:
        if not above[index] or not weight[index] or graph.ops[index] == "":
            continue
        pure = [tensor for tensor in graph.inputs[index] if roles.is_pure_weight(tensor)]
        if not pure or not any(roles.sources_of(tensor) for tensor in graph.inputs[index]):
            continue
        if any(variable[tensor[0]] in own_updates.get(index, ()) for tensor in pure):
            continue
        roles.is_layer[index] = True
        roles.applied[index] = {variable[source] for source, _ in pure}
        roles.data |= above[index]
    if roles.data:
        scaled = find_scaled_rows(graph, above, roles.sources_of, weight, roles.data, roles.gradients)
        for index, found in scaled.items():
            roles.is_layer[index] = True
            roles.data |= found.values
            roles.applied[index] = {variable[row] for row in found.rows}
            for layer in found.lookups:  # the weights are applied here and not yet there
                roles.applied.pop(layer, None)


def _own_updates(roles: NodeRoles, variable: list[int]) -> dict[int, set[int]]:
    """Returns nodes that lead only to updates of variables, such as moving averages, with these variables."""
    graph = roles.graph
    updated: dict[int, set[int]] = {}
    for index in reversed(graph.order):
        if changes_state(graph.ops[index]):
            if graph.inputs[index]:
                updated[index] = {variable[graph.inputs[index][0][0]]} - {-1}
        elif graph.consumers[index] and roles.above[index]:
            behind = [updated.get(consumer) for consumer, _ in graph.consumers[index]]
            known = [variables for variables in behind if variables is not None]
            if len(known) == len(behind):
                variables = set().union(*known)
                if len(variables) <= _MOST_UPDATED:
                    updated[index] = variables
    return updated


def _find_labels(roles: NodeRoles) -> None:
    """Finds the labels: sources that no layer works on, combined with outputs of layers."""
    graph, above = roles.graph, roles.above
    roles.data |= union(_lengths(roles, index) for index, op in enumerate(graph.ops) if op in DECODERS)
    others = sum(roles.sources.values()) & ~roles.data & ~sum(roles.modes) & ~roles.settings
    if not others or not roles.needs_weights:
        return
    joined, results = 0, 0
    for index, op in enumerate(graph.ops):
        if not op or not above[index] & others:
            continue
        if above[index] & roles.data and roles.weight[index]:
            joined |= above[index] & others
        is_last = not any(
            not roles.is_outcome[consumer] and consumer not in roles.gradients for consumer, _ in graph.consumers[index]
        )
        feeds_outcome = any(roles.is_outcome[consumer] for consumer, _ in graph.consumers[index])
        if is_last and not feeds_outcome and not roles.is_scalar[index]:
            results |= above[index] & others
    if not roles.gradients and not roles.has_updates:
        # Without training a source that ends in more than a scalar is a mask or a threshold, not a label.
        roles.data |= joined & results
        joined &= ~results
    roles.labels = joined


def _lengths(roles: NodeRoles, index: int) -> int:
    """Returns the sources of the lengths that a decoder of the model's outputs takes, which a loss may take too."""
    scores, lengths = roles.graph.inputs[index][:2]
    is_model = roles.sources_of(scores) & roles.data and roles.weight[scores[0]]
    return roles.sources_of(lengths) if is_model and not roles.weight[lengths[0]] else 0


def union(sets: Iterable[int]) -> int:
    """Returns the union of sets of bits."""
    return reduce(or_, sets, 0)
