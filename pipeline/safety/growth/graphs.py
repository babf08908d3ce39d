"""Walks through a graph, its functions and its loops, and finds the ops that could take too much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import VARIABLE_OPS

from .arithmetic import BINARY
from .costs import cost_of
from .nodes import NodeView, declared_value, value_of
from .rules import growing, outputs_of
from .values import UNKNOWN, Value

MOST_STEPS = 500_000  # nodes that are looked at, over and over in loops and calls
_MOST_TURNS = 100  # of a loop that is followed
_MOST_DEPTH = 100  # calls within calls that are followed with what they are given
_CONSTANTS = frozenset({"Const", "HostConst"})
_DECLARED = VARIABLE_OPS | {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "ImmutableConst"}
_CARRYING = frozenset({"Identity", "StopGradient", "ReadVariableOp", "CheckNumerics"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "_If", "Case", "StatelessCase"})
_EITHER = ("then_branch", "else_branch")
_LOOPS = frozenset({"While", "StatelessWhile", "_While"})
# Ops that call a function for each element, which has captured other values: where these are among the inputs.
_MAPS = {"MapDefun": ("Tcaptured", 0)}
_OF_DATA = ("MapDataset", "MapDatasetV2", "FilterDataset", "InterleaveDataset", "MapAndBatchDataset")
_BACK = frozenset({"NextIteration", "RefNextIteration"})
_FOLLOWED = _CALLS | _BRANCHES | _LOOPS | _MAPS.keys() | {"LoopCond"} | _BACK
_SWITCHES, _MERGES = frozenset({"Switch", "RefSwitch"}), frozenset({"Merge", "RefMerge"})


# By name the outputs that are not the first, of the ops whose rules tell of them; in a function they have a name.
_LATER = {
    **dict.fromkeys(("output_true", "value_index", "rt_dense_values", "r", "u", "tensor", "flow"), 1),
    **dict.fromkeys(("true_expected_count", "output_values", "nmsed_scores", "valid_outputs"), 1),
    **dict.fromkeys(("v", "sampled_expected_count", "empty_row_indicator", "nmsed_classes"), 2),
    **dict.fromkeys(("reverse_index_map", "valid_detections"), 3),
}


@dataclass(frozen=True)
class Excess:
    """An op that takes too much.

    Args:
        function: the function that it is in; empty for the graph itself.
    """

    node: NodeDef
    function: str
    size_bytes: int


def find_excess(
    graph: Graph, most_bytes: int, declared: Mapping[tuple[str, str], Value] | None = None
) -> Excess | None:
    """Finds the first op that makes more than it may from constants; None if there is none.

    Args:
        declared: values of constants, variables and placeholders that are known already, by function and name.
    """
    walk = _Walk(graph, most_bytes)
    walk.declared = declared or {}
    try:
        for function in graph.library.function:
            walk.body(function.signature.name, {})
        walk.body("", {})
    except _Found as found:
        return found.excess
    return None


def examine(graph: Graph) -> dict[str, list[Value]]:
    """Returns by node what is known of its outputs, of any size."""
    walk = _Walk(graph, 1 << 200)
    walk.sees_all = True
    return walk.body("", {})


class _Found(Exception):
    def __init__(self, excess: Excess) -> None:
        super().__init__()
        self.excess = excess


Given = Mapping[str, Value]
Found: TypeAlias = "dict[str, list[Value]]"


@dataclass(frozen=True, slots=True)
class _Step:
    """A node, with what never changes however often it is looked at.

    Args:
        inputs: by name of the node, or of the argument, and number of the output.
        constant: its value, if that is in the node itself.
    """

    view: NodeView
    inputs: tuple[tuple[str, int], ...]
    constant: list[Value] | None


@dataclass(frozen=True)
class _OldLoop:
    """A loop of TensorFlow 1: what goes on as long as a condition is true, and what comes back around."""

    condition: str
    back: Sequence[tuple[str, str]]  # Merge, NextIteration
    steps: Sequence[_Step]


class _Walk:
    """What is known of a graph's tensors."""

    def __init__(self, graph: Graph, most_bytes: int) -> None:
        self.graph, self.most_bytes = graph, most_bytes
        self.steps, self.depth, self.sees_all = 0, 0, False
        self.declared: Mapping[tuple[str, str], Value] = {}
        self.known: dict[tuple[str, tuple[Value, ...]], list[Value]] = {}
        self.bodies: dict[str, tuple[list[_Step], list[_OldLoop]]] = {}

    def body(self, function: str, arguments: Given) -> Found:
        """Looks at all nodes of the graph or of a function's body; returns what is known of their outputs."""
        found: Found = {}
        if not function and not any(node.op == "LoopCond" for node in self.graph.node):  # once, and then forgotten
            ordered = _in_order(self.graph, self.starts("", self.graph))
            rest = (node for node in ordered if not self.glance(node, found))
            self.look_at((self.prepare("", node) for node in rest), "", arguments, found)
            return found
        steps, loops = self.prepared(function)
        self.look_at(steps, function, arguments, found)
        for loop in loops:
            self.turn(loop, function, arguments, found)
        return found

    def glance(self, node: NodeDef, found: Found) -> bool:
        """Looks at a node as most are, without its attributes; returns False if it needs a closer look."""
        op = node.op
        if op in _CONSTANTS or op in VARIABLE_OPS:
            value = self.declared.get(("", node.name))
            if value is not None:
                found[node.name] = [value]
            return value is not None
        if op in _CARRYING and len(node.input) and node.input[0] in found:  # without a port: the first output
            found[node.name] = found[node.input[0]][:1]
            return True
        if op in BINARY and len(node.input) == 2:
            one, other = (found.get(name) for name in node.input)
            if one and other and one[0].numbers is None and one[0].dims and one[0].item >= other[0].item:
                is_one = other[0].dims == ()  # a single number changes no shape
                if is_one or (other[0].numbers is None and other[0].dims == one[0].dims):
                    found[node.name] = one[:1]
                    return True
        return False

    def prepared(self, function: str) -> tuple[list[_Step], list[_OldLoop]]:
        if function not in self.bodies:
            graph = self.graph.body(function) if function else self.graph
            steps = [self.prepare(function, node) for node in _in_order(graph, self.starts(function, graph))]
            self.bodies[function] = steps, list(_old_loops(graph, steps))
        return self.bodies[function]

    def prepare(self, function: str, node: NodeDef) -> _Step:
        view, constant = NodeView(node), None
        if node.op in _CONSTANTS:
            value = self.declared.get((function, node.name))
            if value is None:
                message = view.find("value")
                value = UNKNOWN if message is None else value_of(message.tensor)
            constant = [value]
        return _Step(view, tuple(_reference(name) for name in node.input if not name.startswith("^")), constant)

    def starts(self, function: str, graph: Graph) -> Iterator[NodeDef]:
        """Yields the nodes that may make more than they are given, and those whose values are returned."""
        looked_at, functions = growing() | _FOLLOWED, self.graph.functions
        for node in graph.node:
            if self.sees_all or node.op in looked_at or node.op in functions or node.op.endswith(_OF_DATA):
                yield node
        for reference in functions[function].ret.values() if function else ():
            if (node := graph.nodes.get(node_of(reference))) is not None:
                yield node

    def look_at(self, steps: Iterable[_Step], function: str, arguments: Given, found: Found) -> None:
        for step in steps:
            self.steps += 1
            if step.constant is not None:
                found[step.view.node.name] = step.constant
            else:
                given = [_look_up(found, arguments, name) for name in step.inputs]
                found[step.view.node.name] = self.outputs(step.view, function, given)

    def turn(self, loop: _OldLoop, function: str, arguments: Given, found: Found) -> None:
        """Turns a loop as long as it is known to go on."""
        for _ in range(_MOST_TURNS):
            if self.steps > MOST_STEPS or not _look_up(found, arguments, (loop.condition, 0)).number:
                return
            for merge, behind in loop.back:
                found[merge] = [_look_up(found, arguments, (behind, 0)), Value((), 4)]
            self.look_at(loop.steps, function, arguments, found)

    def outputs(self, view: NodeView, function: str, given: Sequence[Value]) -> list[Value]:
        op = view.op
        if op == "PlaceholderWithDefault" and given and given[0] != UNKNOWN:
            return [given[0]]  # another may be fed
        if op in _DECLARED:
            value = self.declared.get((function, view.node.name))
            return [declared_value(view) if value is None else value]
        if op in _LOOPS or op in _CALLS or op in _BRANCHES or op in self.graph.functions:
            return self.called(view, given)
        made = outputs_of(view, given)
        size = max((value.size_bytes for value in made), default=0) + cost_of(view, given)
        if size > self.most_bytes:
            raise _Found(Excess(view.node, function, size))
        if op in _MAPS or op.endswith(_OF_DATA):
            self.called(view, given)
        return made

    # Calls.

    def called(self, view: NodeView, given: Sequence[Value]) -> list[Value]:
        """Follows a call, with what its function is given."""
        if self.depth >= _MOST_DEPTH or self.steps > MOST_STEPS:
            return []
        self.depth += 1
        try:
            if view.op in _LOOPS:
                return self.loop(view, given)
            if view.op in _BRANCHES:
                results = [self.call(name, given[1:]) for name in _branches(view)]
                return [same[0] if len(set(same)) == 1 else UNKNOWN for same in zip(*results, strict=False)]
            if view.op in _MAPS or view.op.endswith(_OF_DATA):
                self.captured(view, given)
                return []
            return self.call(view.op if view.op in self.graph.functions else _function(view, "f"), given)
        finally:
            self.depth -= 1

    def captured(self, view: NodeView, given: Sequence[Value]) -> None:
        """Calls the functions of an op that is given elements that are unknown, and behind them what they captured."""
        attribute, start = _MAPS.get(view.op, ("Targuments", 1))
        types = view.find(attribute)
        inputs = list(given[start : start + len(types.list.type)]) if types is not None and start else list(given)
        if types is not None and not start:  # they come last
            inputs = list(given[len(given) - len(types.list.type) :])
        for name in ("f", "predicate", "map_func"):
            definition = self.graph.functions.get(_function(view, name))
            if definition is not None:
                before = len(definition.signature.input_arg) - len(inputs)
                self.call(definition.signature.name, [*[UNKNOWN] * before, *inputs])

    def call(self, function: str, given: Sequence[Value]) -> list[Value]:
        definition = self.graph.functions.get(function)
        if definition is None or self.steps > MOST_STEPS:
            return []
        key = (function, tuple(given))
        if key not in self.known:
            names = [argument.name for argument in definition.signature.input_arg]
            arguments = dict(zip(names, given, strict=False))
            found = self.body(function, arguments)
            returned = [definition.ret.get(output.name, "") for output in definition.signature.output_arg]
            self.known[key] = [_look_up(found, arguments, _reference(name)) for name in returned]
        return self.known[key]

    def loop(self, view: NodeView, given: Sequence[Value]) -> list[Value]:
        """Turns a loop as long as it is known to go on; then it is unknown what comes out of it."""
        condition, body = _function(view, "cond"), _function(view, "body")
        values = list(given)
        for _ in range(_MOST_TURNS):
            answer = self.call(condition, values)
            if not answer or answer[0].number is None:
                self.call(body, values)  # it may turn once
                return []
            if not answer[0].number:
                return values
            values = self.call(body, values)
            if len(values) != len(given):
                return []
        return []


def _branches(view: NodeView) -> list[str]:
    value = view.find("branches")
    return [_function(view, name) for name in _EITHER] if value is None else [func.name for func in value.list.func]


def _function(view: NodeView, name: str) -> str:
    value = view.find(name)
    return "" if value is None else str(value.func.name)


def _reference(reference: str) -> tuple[str, int]:
    """Returns node and output of an input; in a function it is `node:output:2`, in a graph `node:2`."""
    if ":" not in reference:
        return reference, 0
    name, _, place = reference.partition(":")
    output, _, index = place.rpartition(":")
    return name, (int(index) if index.isdecimal() else 0) + _LATER.get(output, 0)


def _look_up(found: Found, arguments: Given, reference: tuple[str, int]) -> Value:
    name, number = reference
    outputs = found.get(name)
    if outputs is None:
        return arguments.get(name, UNKNOWN)
    return outputs[number] if number < len(outputs) else UNKNOWN


def _old_loops(graph: Graph, steps: Sequence[_Step]) -> Iterator[_OldLoop]:
    """Yields the loops of a graph, by their conditions."""
    nodes = graph.nodes
    for condition in [step.view.node for step in steps if step.view.op == "LoopCond"]:
        switches = [node for node in graph.consumers.get(condition.name, ()) if node.op in _SWITCHES]
        merges = {node_of(node.input[0]) for node in switches if node.input}
        merged = [nodes[name] for name in merges if name in nodes and nodes[name].op in _MERGES]
        back = [(one.name, node_of(name)) for one in merged for name in one.input[1:2]]
        behind = graph.ancestors([condition.name, *(name for _, name in back)], with_control=False)
        inside = (graph.descendants(one.name for one in merged) & behind) - {one.name for one in merged}
        yield _OldLoop(condition.name, back, [step for step in steps if step.view.node.name in inside])


def _in_order(graph: Graph, starts: Iterable[NodeDef]) -> Iterator[NodeDef]:
    """Yields nodes and all before them, every node behind its inputs, but for what comes back around a loop."""
    nodes, done = graph.nodes, set[str]()
    for start in starts:
        waiting = [(start.name, iter(_before(start, nodes)))]
        if start.name in done:
            continue
        done.add(start.name)
        while waiting:
            name, rest = waiting[-1]
            for reference in rest:
                above = node_of(reference)
                if above in nodes and above not in done and not reference.startswith("^"):
                    done.add(above)
                    waiting.append((above, iter(_before(nodes[above], nodes))))
                    break
            else:
                waiting.pop()
                yield nodes[name]


def _before(node: NodeDef, nodes: Mapping[str, NodeDef]) -> Sequence[str]:
    """Returns the inputs that a node is computed from at first; later turns of an old loop come back to its Merge."""
    if node.op not in _MERGES:
        return list(node.input)
    return [name for name in node.input if getattr(nodes.get(node_of(name)), "op", "") not in _BACK]
