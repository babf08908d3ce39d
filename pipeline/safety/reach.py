"""Finds everything that running a graph would run: back from the fetched nodes over inputs, control edges and calls.

A called function counts completely: its side effects run whether its value is used or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import AttrValue, NodeDef

# Ops that pass their inputs to a function, and the number of inputs before these.
_BEFORE = {"PartitionedCall": 0, "StatefulPartitionedCall": 0, "If": 1, "StatelessIf": 1, "Case": 1, "StatelessCase": 1}
_SAME = "api_implements"  # TensorFlow's optimizer may exchange functions of one value


Reached = tuple[Collection[str], Collection[str]]  # names of reached nodes of the graph itself, and of functions


@dataclass(frozen=True)
class Calls:
    """The calls between the functions of a graph."""

    graph: Graph

    @cached_property
    def _alike(self) -> Mapping[str, list[str]]:
        """The functions that the optimizer may exchange."""
        by_name: dict[str, list[str]] = {}
        for name, function in self.graph.functions.items():
            if _SAME in function.attr:
                by_name.setdefault(function.attr[_SAME].s.decode("utf-8", "replace"), []).append(name)
        return {name: alike for alike in by_name.values() for name in alike}

    def called_by(self, node: NodeDef) -> Iterator[str]:
        """Yields the functions that a node names: by its op, or by an attribute at any depth."""
        functions = self.graph.functions
        if not functions:
            return
        if node.op in functions:
            yield node.op
        for value in node.attr.values():
            yield from (name for name in _function_names(value) if name in functions)

    def beside(self, function: str) -> Iterator[str]:
        """Yields the functions that may run instead of this one."""
        yield from self._alike.get(function, ())
        if self.graph.gradients.get(function) in self.graph.functions:
            yield self.graph.gradients[function]

    def reach(self, starts: Iterable[str], functions: Iterable[str] = (), fed: Collection[str] = ()) -> Reached:
        """Returns everything that runs for nodes and functions.

        Args:
            starts: names of nodes or tensors; unknown names are ignored.
            fed: tensors (`node:0`) whose values are fed; their ancestors do not run.
        """
        found, called = set[str](), set[str]()
        waiting = [node_of(name) for name in starts]
        calls = [name for name in functions if name in self.graph.functions]
        while waiting:
            name = waiting.pop()
            node = self.graph.nodes.get(name)
            if node is None or name in found:
                continue
            found.add(name)
            calls += self.called_by(node)
            for reference in node.input:
                tensor = reference if ":" in reference or reference.startswith("^") else f"{reference}:0"
                if tensor not in fed:
                    waiting.append(node_of(reference))
        while calls:
            name = calls.pop()
            if name in called:
                continue
            called.add(name)
            calls += self.beside(name)
            for node in self.graph.functions[name].node_def:
                calls += self.called_by(node)
        return found, called

    @cached_property
    def call_sites(self) -> Mapping[str, list[tuple[str, NodeDef]]]:
        """By function the nodes that call it, each with the function around it (empty: the graph itself)."""
        sites: dict[str, list[tuple[str, NodeDef]]] = {}
        for scope, node in self.graph.placed_nodes() if self.graph.functions else ():
            for name in self.called_by(node):
                sites.setdefault(name, []).append((scope, node))
        return sites

    def origins(self, scope: str, reference: str) -> Iterator[tuple[str, NodeDef | None, str]]:
        """Yields the origins of a value, through Identities and the arguments of functions.

        Yields:
            The scope (empty: the graph itself), the node, and the tensor's reference there. Without a node: an argument
            of a function; then the reference is its name.
        """
        waiting, seen = [(scope, reference)], set[tuple[str, str]]()
        while waiting:
            here, name = waiting.pop()
            if (here, name) in seen:
                continue
            seen.add((here, name))
            node = (self.graph.body(here) if here else self.graph).nodes.get(node_of(name))
            if node is None and here:
                yield here, None, name
                for caller, call in self.call_sites.get(here, ()):
                    given = self._given(here, name, call)
                    if given is None:
                        yield caller, call, call.name
                    else:
                        waiting.append((caller, given))
            elif node is not None and node.op == "Identity" and node.input:
                waiting.append((here, node.input[0]))
            else:
                yield here, node, name

    def _given(self, function: str, argument: str, call: NodeDef) -> str | None:
        """Returns the value that a call passes for an argument; None if unknown for this kind of call."""
        names = [argument.name for argument in self.graph.functions[function].signature.input_arg]
        first = 0 if call.op == function else _BEFORE.get(call.op)
        inputs = data_inputs(call)
        if first is None or argument not in names or len(inputs) != first + len(names):
            return None
        return inputs[first + names.index(argument)]


def _function_names(value: AttrValue) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        funcs = [one.func] if one.WhichOneof("value") == "func" else list(one.list.func)
        for func in funcs:
            yield func.name
            waiting += func.attr.values()
