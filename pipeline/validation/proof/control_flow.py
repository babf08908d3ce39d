"""Branches and loops of both generations, as terms that do not say which generation they are of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.graph.nodes import data_inputs, is_control, node_of
from pipeline.graph.protos import NodeDef

from .loops import is_kept, leaves_loop, loop_of, returns_argument, sides_of
from .model import Model
from .ops import plain_op
from .rules import DT_INT32, Rules
from .scope import DEAD, Guard, Scope, Unproven
from .terms import TermTable


class ControlFlow(ABC):
    """What an evaluator does with branches and loops.

    Attributes:
        table, rules, model: as in `Evaluator`.
    """

    def __init__(self, table: TermTable, rules: Rules, model: Model) -> None:
        self.table, self.rules, self.model = table, rules, model
        self._turns: dict[int, Callable[[], list[int]]] = {}  # by variable of a loop of TensorFlow 1, the loop's terms

    @abstractmethod
    def _evaluate(self, scope: Scope, references: Iterable[str]) -> None:
        """Evaluates tensors and all that they are computed from or wait for."""

    @abstractmethod
    def _term(self, scope: Scope, reference: str) -> int:
        """Returns the term of a tensor that has been evaluated."""

    @abstractmethod
    def _guard(self, scope: Scope, reference: str) -> Guard:
        """Returns the conditions under which a tensor exists."""

    @abstractmethod
    def _call(self, scope: Scope, name: str, given: Sequence[int], guard: Guard) -> list[int]:
        """Returns the results of a function."""

    def _branches(self, scope: Scope, op: str, names: Sequence[str], given: Sequence[int], guard: Guard) -> list[int]:
        condition, *arguments = given
        value = self.rules.scalar(self.table, condition)
        if value is not None and value.dtype.kind in "bi":
            taken = (0 if value else 1) if op == "if" else int(value)
            return self._call(scope, names[taken if 0 <= taken < len(names) else -1], arguments, guard)
        ports = [1, 0] if op == "if" else range(len(names))
        results = [
            self._call(scope, name, arguments, guard | {(condition, port)})
            for name, port in zip(names, ports, strict=True)
        ]
        return [self.table.make(op, len(names), [condition, *each]) for each in zip(*results, strict=True)]

    def _merge(self, scope: Scope, node: NodeDef) -> Sequence[int]:
        """Returns the value of the branch that is taken, and its number, of a condition of TensorFlow 1."""
        references = data_inputs(node)
        alive = {
            number: (self._term(scope, one), guard - scope.guard)
            for number, one in enumerate(references)
            if DEAD not in (guard := self._guard(scope, one))
        }
        if not alive:
            scope.guards[node.name] = scope.guard | {DEAD}
            return [self._term(scope, references[0])] * 2
        shared = frozenset.intersection(*(guard for _, guard in alive.values()))
        waits = scope.guard.union(*(self._guard(scope, one) for one in node.input if is_control(one)))
        scope.guards[node.name] = waits | shared
        if len(alive) == 1:
            [(number, (term, _))] = alive.items()
            return [term, self._number(number)]
        own = {number: guard - shared for number, (_, guard) in alive.items()}
        if any(len(guard) != 1 for guard in own.values()):
            raise Unproven(f"branches that are not those of one condition: {scope.place(node.name)}")
        sides = {number: next(iter(guard)) for number, guard in own.items()}
        by_port = {port: number for number, (_, port) in sides.items()}
        conditions = {condition for condition, _ in sides.values()}
        if len(conditions) != 1 or sorted(by_port) != list(range(len(references))):
            raise Unproven(f"branches that are not those of one condition: {scope.place(node.name)}")
        [condition] = conditions
        op, ports = ("if", [1, 0]) if len(references) == 2 else ("case", sorted(by_port))
        values = [alive[by_port[port]][0] for port in ports]
        numbers = [self._number(by_port[port]) for port in ports]
        return [self.table.make(op, len(ports), [condition, *each]) for each in (values, numbers)]

    def _number(self, number: int) -> int:
        return self.rules.constant(self.table, np.array(number, "<i4"), DT_INT32)

    def _exit(self, scope: Scope, node: NodeDef) -> int:
        """Returns the last value of a loop variable of TensorFlow 1."""
        if not leaves_loop(scope, node):  # a frame without turns
            [reference] = data_inputs(node)
            scope.guards[node.name] = self._guard(scope, reference)
            return self._term(scope, reference)
        condition, merges = loop_of(scope, node)
        nodes = scope.graph.nodes
        switch = data_inputs(node)[0]
        index = [merge.name for merge in merges].index(node_of(data_inputs(nodes[node_of(switch)])[0]))
        enters = [sides_of(scope, merge)[0] for merge in merges]
        first = [self._term(scope, one) for one in enters]
        scope.guards[node.name] = scope.guard.union(*(self._guard(scope, one) for one in enters))
        key = f"{condition}^variables"
        if key not in scope.values:
            scope.values[key] = [
                value if is_kept(scope, merge) else self._variable_of_loop(value)
                for merge, value in zip(merges, first, strict=True)
            ]
            for leaf in self._list(scope, key):
                self._turns[leaf] = lambda: [
                    *self._list(scope, f"{key}^test"),
                    *first,
                    *self._list(scope, f"{key}^after"),
                ]
            for merge, variable in zip(merges, self._list(scope, key), strict=True):
                scope.values[merge.name] = [variable, self.table.leaf("turn")]
                for one in scope.graph.consumers.get(merge.name, ()):
                    if plain_op(one.op) == "Switch" and node_of(data_inputs(one)[1]) == condition:
                        scope.values[one.name] = [variable, variable]
            [test] = data_inputs(nodes[condition])
            turns = [sides_of(scope, merge)[1] for merge in merges]
            after = [data_inputs(nodes[node_of(one)])[0] for one in turns]
            self._evaluate(scope, [test, *after])
            scope.values[f"{key}^test"] = [self._term(scope, test)]
            scope.values[f"{key}^after"] = [self._term(scope, one) for one in after]
        variables = self._list(scope, key)
        if variables[index] == first[index]:
            return first[index]
        values = self.rules.values
        sides = [
            [values.get(one, one) for one in side] for side in (variables, first, self._list(scope, f"{key}^after"))
        ]
        [test_term] = self._list(scope, f"{key}^test")
        result = self._loop(index, sides[0], sides[1], test_term, sides[2])
        if variables[index] not in values:
            return result
        handle = self.table.leaf("handle")  # of one variable or another, by the number of turns
        values[handle] = result
        return handle

    def _variable_of_loop(self, first: int) -> int:
        """Returns the leaf of a loop's variable; if it is a handle, its value is a leaf as well."""
        leaf = self.table.leaf("turn")
        if first in self.rules.values:
            self.rules.values[leaf] = self.table.leaf("turn")
        return leaf

    def _list(self, scope: Scope, key: str) -> Sequence[int]:
        found = scope.values[key]
        assert not isinstance(found, int)
        return found

    def _loop(self, index: int, variables: Sequence[int], first: Sequence[int], test: int, after: Sequence[int]) -> int:
        """Returns a loop's result; variables that never change are none."""
        turning = [number for number, one in enumerate(variables) if self.table[one].op == "leaf"]
        chosen = [[side[number] for number in turning] for side in (variables, first, after)]
        return self.table.loop_result(turning.index(index), chosen[0], chosen[1], test, chosen[2])

    def _while(self, scope: Scope, node: NodeDef, given: Sequence[int], guard: Guard) -> list[int]:
        """Returns the last values of the variables of a loop of TensorFlow 2."""
        test, body = node.attr["cond"].func.name, node.attr["body"].func.name
        variables = [
            value if returns_argument(self.model.graph, body, number) else self.table.leaf("turn")
            for number, value in enumerate(given)
        ]
        [condition] = self._call(scope, test, variables, guard)
        after = self._call(scope, body, variables, guard)
        return [
            value if value == variables[number] else self._loop(number, variables, given, condition, after)
            for number, value in enumerate(given)
        ]
