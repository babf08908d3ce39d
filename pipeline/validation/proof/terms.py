"""Terms: what a tensor is computed from, independent of names, as a table in which equal terms have one number.

A term is an op, its attributes that mean something, and the terms of its inputs. Both graphs share one table, so two
tensors are the same function of the inputs if they have the same number (value numbering; Cocke, Schwartz 1970).

Loop variables and what is made anew each run, such as a TensorArray, are leaves without a meaning of their own, each
with a number: `leaf`. A term that has no meaning outside a loop or a run is renamed before it is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

Rule = Callable[["TermTable", "Term"], int | None]


_BINDERS = frozenset({"loop", "function"})


class Term(NamedTuple):
    """One term.

    Args:
        op: TensorFlow's op, or one of: `input`, `const`, `leaf`, `bound`, `output`, `if`, `loop`, `table`, `handle`.
        attributes: hashable, equal for equal meanings.
        inputs: numbers of terms.
    """

    op: str
    attributes: Hashable
    inputs: tuple[int, ...]

    @property
    def content(self) -> int | None:
        """The number of a constant's content; None for any other term."""
        return self.attributes if self.op == "const" and isinstance(self.attributes, int) else None


class TermTable:
    """All terms of a comparison.

    Args:
        rule: called for every new term; returns the number of a simpler equal one, or None.
    """

    def __init__(self, rule: Rule) -> None:
        self.terms: list[Term] = []
        self.leaves: dict[int, frozenset[int]] = {}  # the leaves below a term, where there are any
        self.levels: dict[int, int] = {}  # how deep the loops below a term are nested, where there are any
        self._numbers: dict[Term, int] = {}
        self._simple: dict[Term, int] = {}
        self._rule = rule

    def __getitem__(self, number: int) -> Term:
        return self.terms[number]

    def make(self, op: str, attributes: Hashable = None, inputs: Iterable[int] = ()) -> int:
        """Returns the number of a term, or of a simpler equal one."""
        term = Term(op, attributes, tuple(inputs))
        found = self._simple.get(term)
        if found is None:
            simpler = self._rule(self, term)
            found = self._simple[term] = self._number(term) if simpler is None else simpler
        return found

    def _number(self, term: Term) -> int:
        number = self._numbers.get(term)
        if number is None:
            number = self._numbers[term] = len(self.terms)
            self.terms.append(term)
            if self.leaves or term.op == "leaf":
                below = {number} if term.op == "leaf" else set[int]()
                for one in term.inputs:
                    if one in self.leaves:
                        below |= self.leaves[one]
                if below:
                    self.leaves[number] = frozenset(below)
            if self.levels or term.op in _BINDERS:
                level = max((self.levels.get(one, 0) for one in term.inputs), default=0) + (term.op in _BINDERS)
                if level:
                    self.levels[number] = level
        return number

    def leaf(self, kind: str) -> int:
        """Returns a new leaf, which is equal to no other term."""
        return self.make("leaf", (kind, len(self.terms)))

    def output(self, term: int, port: int) -> int:
        """Returns an output of an op that has several."""
        return self.make("output", port, (term,))

    def apply_rules_again(self) -> None:
        """Applies the rules anew to every term that is made from now on: what they know has changed."""
        self._simple.clear()

    def below(self, starts: Iterable[int]) -> Iterator[int]:
        """Yields terms and all that they are computed from, each once, in the order of a depth-first walk.

        The order depends on the structure alone: it is the same for terms that differ only in their leaves.
        """
        waiting, seen = list(starts)[::-1], set[int]()
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                yield number
                waiting.extend(self.terms[number].inputs[::-1])

    def rename(self, start: int, leaves: Mapping[int, int]) -> int:
        """Returns a term with other terms in place of leaves."""
        done: dict[int, int] = dict(leaves)
        waiting = [start]
        while waiting:
            number = waiting[-1]
            if number in done or self.leaves.get(number, frozenset()).isdisjoint(leaves):
                done.setdefault(number, number)
                waiting.pop()
                continue
            term = self.terms[number]
            missing = [one for one in term.inputs if one not in done]
            if missing:
                waiting += missing
            else:
                done[number] = self.make(term.op, term.attributes, [done[one] for one in term.inputs])
                waiting.pop()
        return done[start]

    def leaves_in_order(self, starts: Iterable[int], wanted: Container[int]) -> list[int]:
        """Returns those of some leaves that terms are computed from, in the order of `below`."""
        waiting, seen, found = list(starts)[::-1], set[int](), list[int]()
        while waiting:
            number = waiting.pop()
            if number in seen or number not in self.leaves:
                continue
            seen.add(number)
            if number in wanted:
                found.append(number)
            waiting.extend(self.terms[number].inputs[::-1])
        return found

    def bind(
        self, op: str, attributes: Hashable, leaves: Sequence[int], inner: Sequence[int], outer: Sequence[int]
    ) -> int:
        """Returns a term that binds leaves: they become numbers, so that equal loops and functions are equal terms.

        Args:
            op: `loop` or `function`.
            leaves: the bound leaves, in an order that depends on the structure alone.
            inner: terms in which they stand.
            outer: terms in which they do not.
        """
        level = 1 + max((self.levels.get(one, 0) for one in inner), default=0)
        numbers = {leaf: self.make("bound", (level, number)) for number, leaf in enumerate(leaves)}
        return self.make(op, attributes, [*(self.rename(one, numbers) for one in inner), *outer])

    def loop_result(
        self, index: int, variables: Sequence[int], first: Sequence[int], condition: int, after: Sequence[int]
    ) -> int:
        """Returns the last value of a loop's variable.

        The term holds the variables that it needs and no other, in the order in which the condition and then the bodies
        name them: loops that differ in the number or the order of their variables are equal if their results are.

        Args:
            index: of the variable.
            variables: leaves.
            first: the variables' values before the loop.
            condition: whether there is another turn, as a term of the variables.
            after: the variables' values after a turn, as terms of the variables.
        """
        numbers = {leaf: number for number, leaf in enumerate(variables)}
        order = self.leaves_in_order([condition], numbers)
        order += [variables[index]] if variables[index] not in order else []
        for leaf in order:  # which grows
            order += [one for one in self.leaves_in_order([after[numbers[leaf]]], numbers) if one not in order]
        needed = [numbers[leaf] for leaf in order]
        inner = [condition, *(after[number] for number in needed)]
        place = order.index(variables[index])
        return self.bind("loop", (place, len(order)), order, inner, [first[number] for number in needed])
