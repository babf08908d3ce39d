"""Leaves out results of functions that nobody uses, where computing them would change state or draw.

A function gives all outputs of a model, whichever are asked for. What is asked for may be right in a .pb although
another output draws, or counts its calls. The place of such a result is kept, so that no other one changes its number;
an empty constant stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of, normalize_tensor
from pipeline.graph.protos import DataType, FunctionDef, FunctionDefLibrary, NodeDef
from pipeline.graph.unsupported import acts_itself

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_NO_CONSTANTS = frozenset(DataType.Value(f"DT_{name}") for name in ("INVALID", "RESOURCE", "VARIANT"))


def leave_out_unused_results(graph: Graph, outputs: Iterable[str]) -> Graph:
    """Returns the graph with empty constants for the unused results of functions that act.

    Args:
        outputs: tensors that are used.
    """
    acting = _acting(graph)
    if not acting:
        return graph
    uses = _Uses(graph)
    uses.add(graph.node, [normalize_tensor(name) for name in outputs])
    fresh: dict[str, FunctionDef] = {}
    for name in _callers_first(graph):
        function = graph.functions[name]
        unused = [*uses.unused_results(function)] if name in acting else []
        if unused:
            function = fresh[name] = _without(function, unused)
        results = [*function.ret.values()]
        ends = map(node_of, [*results, *function.control_ret.values()])
        live = Graph(function.node_def).ancestors(ends, with_control=True)
        uses.add([node for node in function.node_def if node.name in live], results)
    if not fresh:
        return graph
    functions = [fresh.get(one.signature.name, one) for one in graph.library.function]
    return Graph(graph.node, FunctionDefLibrary(function=functions, gradient=graph.library.gradient), graph.versions)


def _acting(graph: Graph) -> set[str]:
    """Returns the functions that change state, draw, or act on the outside world, themselves or by a call."""
    called = graph.called(graph.node) if graph.functions else []
    acting = {name for name in called if any(acts_itself(node.op) for node in graph.functions[name].node_def)}
    if acting:
        acting |= {name for name in called if not acting.isdisjoint(graph.called(graph.functions[name].node_def))}
    return acting


def _callers_first(graph: Graph) -> list[str]:
    """Returns the called functions, each after all that call it; of functions that call each other, in any order."""
    order, seen = list[str](), set[str]()
    waiting: list[tuple[str, bool]] = [(name, False) for name in graph.called(graph.node)]
    while waiting:
        name, is_done = waiting.pop()
        if is_done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            inside = [one for node in graph.functions[name].node_def for one in graph.called_by(node)]
            waiting += [(name, True), *((one, False) for one in inside)]
    return order[::-1]


class _Uses:
    """The results of functions that are used, by the functions' names."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._used, self._unclear = graph, dict[str, set[int]](), set[str]()
        # A function that calls itself uses results of which nothing is known yet.
        order = {name: place for place, name in enumerate(_callers_first(graph))}
        for name, place in order.items():
            for node in graph.functions[name].node_def:
                self._unclear |= {one for one in graph.called_by(node) if order[one] <= place}

    def add(self, nodes: Iterable[NodeDef], results: Iterable[str]) -> None:
        """Adds what is used in a graph, or in a function.

        Args:
            nodes: those that are computed there.
            results: the references that it gives.
        """
        nodes, calls = list(nodes), dict[str, list[str]]()
        for node in nodes:
            names = list(self._graph.called_by(node))
            if node.op in _CALLS:
                calls[node.name] = names
            else:
                self._unclear.update(names)
        if not calls:
            return
        for reference in (*results, *(one for node in nodes for one in data_inputs(node))):
            for name in calls.get(node_of(reference), ()):
                port = reference.rpartition(":")[2] if ":" in reference else "0"
                if port.isdecimal():
                    self._used.setdefault(name, set()).add(int(port))
                else:
                    self._unclear.add(name)

    def unused_results(self, function: FunctionDef) -> Iterator[str]:
        """Yields the names of a function's results that no caller uses."""
        used = self._used.get(function.signature.name, set())
        if function.signature.name not in self._unclear:
            for number, result in enumerate(function.signature.output_arg):
                if number not in used and result.type not in _NO_CONSTANTS:
                    yield result.name


def _without(function: FunctionDef, unused: list[str]) -> FunctionDef:
    new = FunctionDef()
    new.CopyFrom(function)
    dtypes = {result.name: result.type for result in function.signature.output_arg}
    taken = {node.name for node in function.node_def} | {one.name for one in function.signature.input_arg}
    for result in unused:
        name = f"{result}_left_out"
        while name in taken:
            name += "_"
        empty = new.node_def.add(name=name, op="Const")
        empty.attr["dtype"].type = dtypes[result]
        tensor = empty.attr["value"].tensor
        tensor.dtype = dtypes[result]
        tensor.tensor_shape.dim.add(size=0)
        new.ret[result] = f"{name}:output:0"
    return new
