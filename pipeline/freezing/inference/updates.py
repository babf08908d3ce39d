"""Finds which variable is the moving average of which tensor, by the ops that update it.

    variable -= (variable - value) * (1 - decay)          tensorflow/python/training/moving_averages.py
    variable = variable * decay + value * (1 - decay)     as people write it
    biased -= (biased - value) * (1 - decay);  variable = biased / (1 - decay ** step)        zero_debias

Each is one linear form of the variable and of one other tensor: so any spelling of it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import Variable, variable_behind

from .factors import NoFactor, factor_of

_SIGNS = {"AssignSub": -1, "AssignSubVariableOp": -1, "AssignAdd": 1, "AssignAddVariableOp": 1}
UPDATES = frozenset({*_SIGNS, "Assign", "AssignVariableOp"})
_SUMS = frozenset({"Add", "AddV2", "AddN", "Sub"})
_QUOTIENTS = frozenset({"Div", "RealDiv"})
_SELECTS = frozenset({"Select", "SelectV2"})
_CARRIES = frozenset({"Identity", "Cast", "CheckNumerics", "Snapshot"})
_LINEAR = _SUMS | _QUOTIENTS | _SELECTS | _CARRIES | UPDATES | {"Mul"}
_MOST_STEPS = 12
_CLOSE = 1e-3
_MOST_CORRECTED = 2.001  # a variance over n rows times n / (n - 1), as Bessel corrects it

Terms = dict[str, float | None]  # by tensor its coefficient; None for one that is not known
_OWN = ""  # the variable itself


@dataclass(frozen=True)
class Update:
    """A moving average.

    Args:
        variable: the average.
        value: the tensor that it averages.
        nodes: the ops that update it.
    """

    variable: Variable
    value: str
    nodes: tuple[str, ...]


def find_updates(graph: Graph) -> list[Update]:
    """Finds the moving averages of a graph: one for each tensor; none for a tensor that several variables average."""
    reader = _Reader(graph)
    direct, through = dict[tuple[str, str], Update](), list[Update]()
    every = list[Update]()
    for node in graph.node:
        if node.op not in UPDATES:
            continue
        for found in reader.read(node):
            other = reader.variable(found.value)
            if other is None:
                every.append(found)
                direct[found.variable.identity] = found
            elif other.identity != found.variable.identity:
                through.append(found)
    internal = set[tuple[str, str]]()
    for one in through:
        other = reader.variable(one.value)
        base = direct.get(other.identity) if other is not None else None
        if base is not None:
            every.append(Update(one.variable, base.value, (*one.nodes, *base.nodes)))
            internal.add(base.variable.identity)
    by_value: dict[str, dict[tuple[str, str], Update]] = {}
    for one in every:
        if one.variable.identity not in internal:
            by_value.setdefault(one.value, {})[one.variable.identity] = one
    return [next(iter(found.values())) for found in by_value.values() if len(found) == 1]


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def read(self, node: NodeDef) -> Iterator[Update]:
        """Yields what an op makes the average of; nothing if it is no average."""
        given = data_inputs(node)
        target = variable_behind(given[0], self._graph.nodes) if len(given) > 1 else None
        if target is None or not target.shape:
            return
        terms = self._terms(given[1], target, _MOST_STEPS)
        sign = _SIGNS.get(node.op)
        if sign is not None:
            terms = _add({_OWN: 1.0}, _times(terms, float(sign)))
        own = terms.pop(_OWN, 0.0)
        others = {tensor: one for tensor, one in terms.items() if one != 0}
        if len(others) != 1:
            return
        [(value, share)] = others.items()
        if own == 0.0:  # another variable of which it takes the value
            if self.variable(value) is not None:
                yield Update(target, value, (node.name,))
        elif _is_average(own, share) and self.variable(value) is None:
            yield Update(target, value, (node.name,))

    def variable(self, reference: str) -> Variable | None:
        """Returns the variable that a tensor is read from, or updated in; None if it is none."""
        for _ in range(_MOST_STEPS):
            node = self._graph.nodes.get(node_of(reference))
            if node is None or not data_inputs(node):
                break
            if node.op not in (*_CARRIES, "ReadVariableOp", *UPDATES):
                break
            reference = data_inputs(node)[0]
        return variable_behind(reference, self._graph.nodes)

    def _terms(self, reference: str, target: Variable, steps: int) -> Terms:
        graph = self._graph
        found, node = self.variable(reference), graph.nodes.get(node_of(reference))
        if found is not None and found.identity == target.identity:
            return {_OWN: 1.0}
        if found is not None or node is None or steps == 0:
            return {reference: 1.0}
        given = data_inputs(node)
        if node.op in _CARRIES:
            return self._terms(given[0], target, steps - 1)
        if node.op == "Mul" and len(given) == 2:
            for one, other in (given, given[::-1]):
                try:
                    return _times(self._terms(one, target, steps - 1), factor_of(graph, other))
                except NoFactor:
                    continue
        if node.op in _QUOTIENTS:
            try:
                by = factor_of(graph, given[1])
            except NoFactor:
                return {reference: 1.0}
            return _times(self._terms(given[0], target, steps - 1), 1 / by if by else None)
        if node.op in _SELECTS and self._holds(reference, target, _MOST_STEPS):
            kept = [one for one in given[1:] if not self._is_zero(one)]
            return self._terms(kept[0], target, steps - 1) if len(kept) == 1 else {reference: 1.0}
        if node.op in _SUMS and self._holds(reference, target, _MOST_STEPS):
            terms: Terms = {}
            for at, one in enumerate(given):
                sign = -1.0 if node.op == "Sub" and at else 1.0
                terms = _add(terms, _times(self._terms(one, target, steps - 1), sign))
            return terms
        return {reference: 1.0}

    def _holds(self, reference: str, target: Variable, steps: int) -> bool:
        found, node = self.variable(reference), self._graph.nodes.get(node_of(reference))
        if found is not None:
            return found.identity == target.identity
        if node is None or steps == 0 or node.op not in _LINEAR:
            return False
        return any(self._holds(one, target, steps - 1) for one in data_inputs(node))

    def _is_zero(self, reference: str) -> bool:
        node = self._graph.nodes.get(node_of(reference))
        if node is not None and node.op == "Fill":
            node = self._graph.nodes.get(node_of(node.input[1]))
        if node is None or node.op == "ZerosLike":
            return node is not None
        try:
            return node.op == "Const" and factor_of(self._graph, reference) == 0
        except NoFactor:
            return False


def _add(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> Terms:
    terms: Terms = dict(one)
    for tensor, share in other.items():
        known = terms.get(tensor, 0.0)
        terms[tensor] = None if known is None or share is None else round(known + share, 9)
    return terms


def _times(terms: Mapping[str, float | None], by: float | None) -> Terms:
    return {tensor: None if by is None or share is None else share * by for tensor, share in terms.items()}


def _is_average(own: float | None, share: float | None) -> bool:
    """Returns True if two coefficients are those of an average, or nothing speaks against it."""
    if own is not None and not 0 < own < 1:
        return False
    if share is not None and not 0 < share <= 1:
        return False
    if own is None or share is None:
        return True
    return 1 - _CLOSE < share / (1 - own) < _MOST_CORRECTED
