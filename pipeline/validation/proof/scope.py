"""Scopes: the nodes of a graph, or of one call of a function, with what has been found of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.graph.graph import Graph
from pipeline.graph.protos import NodeDef

Guard = frozenset[tuple[int, int]]
DEAD = (-1, -1)  # in the guard of what no run reaches


class Unproven(Exception):
    """A part of a graph whose function is not decided here, with a sentence that says why."""


@dataclass
class Scope:
    """The nodes of a graph or of one call of a function, with what is known of them.

    Args:
        function: its name; empty for the graph itself.
        graph: its nodes.
        arguments: terms of the function's arguments.
        guard: of the call.
        values: by node the terms of its outputs; a node with an op's term alone has that.
        guards: by node.
        choices: by Switch the term of its condition, and the output that a constant condition takes.
        turning: by Enter of a loop's variable the loop's name; None until it is asked for.
    """

    function: str
    graph: Graph
    arguments: Mapping[str, int] = field(default_factory=dict)
    guard: Guard = frozenset()
    values: dict[str, int | Sequence[int]] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    choices: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    turning: Mapping[str, bytes] | None = None

    def place(self, name: str) -> str:
        """Returns words for a node."""
        return f"node {name}" + (f" in function {self.function}" if self.function else "")


@dataclass(frozen=True)
class Effect:
    """A node that is run for what it does: a check, or a change of state.

    Args:
        term: of the op on its inputs.
    """

    node: NodeDef
    function: str
    term: int
