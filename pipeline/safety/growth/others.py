"""Operators of other runtimes, by the rules of TensorFlow's ops that do the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .costs import cost_of
from .rules import outputs_of
from .shaping import Inputs
from .values import Dims, Number, Unknown, Value


@dataclass(frozen=True)
class Step:
    """An operator, as the rules see it.

    Args:
        op: the name of TensorFlow's op.
        inputs, outputs: names of tensors; empty for one that is left out.
        numbers: attributes.
        arranged: puts the inputs in the order of TensorFlow's op.
        makes: the outputs, where no op of TensorFlow does the same.
        lists: attributes of several numbers.
        equation: what Einsum computes.
        own_name: what the operator is called in its own format.
    """

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    numbers: Mapping[str, int] = field(default_factory=dict)
    arranged: Callable[[list[Value]], list[Value]] | None = None
    makes: Callable[[Inputs], Value | list[Value]] | None = None
    equation: str = ""
    lists: Mapping[str, Sequence[int]] = field(default_factory=dict)
    own_name: str = ""

    def __str__(self) -> str:
        return self.own_name or self.op

    def integer(self, name: str, default: int = 0) -> int:
        return self.numbers.get(name, default)

    def integers(self, name: str) -> list[int]:
        return [*self.lists.get(name, ())]

    def dims(self, name: str) -> Dims | None:
        return None

    def text(self, name: str) -> str:
        return self.equation if name == "equation" else ""

    def is_integer(self, name: str) -> bool:
        return bool(self.numbers.get("is_integer"))

    def item(self, name: str) -> int:
        return self.numbers.get("item", 4)


def outputs_of_step(step: Step, given: list[Value]) -> list[Value]:
    """Returns what is known of an operator's outputs, and behind them what it takes besides."""
    try:
        if step.arranged is not None:
            given = step.arranged(given)
        if step.makes is not None:
            made = step.makes(given)
            return made if isinstance(made, list) else [made]
    except (Unknown, LookupError, ValueError, TypeError, ArithmeticError):
        return []
    cost = cost_of(step, given)
    return [*outputs_of(step, given), *([Value((cost,))] if cost else [])]


class Endless(Exception):
    """Functions call each other, or graphs lie in each other, without an end in sight."""


def number(value: Number) -> Value:
    """Returns a single number."""
    return Value((), 8).with_numbers([value])


def vector(numbers: Sequence[Number | None]) -> Value:
    """Returns a list of numbers."""
    return Value((len(numbers),), 8).with_numbers(numbers)
