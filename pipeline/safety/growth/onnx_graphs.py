"""Walks through an ONNX model: its graphs, the branches and loops in them, and the calls of its own functions."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .onnx_rules import Attributes, onnx_step
from .others import Endless, outputs_of_step
from .values import MOST_NUMBERS, UNKNOWN, Number, Value

MOST_STEPS = 1_000_000  # nodes that are looked at, over and over in calls
_MOST_FOLLOWED = 250_000  # of them, before loops are no longer followed
MOST_DEPTH = 100  # graphs and calls within each other
_MOST_TURNS = 256  # of a loop that is followed
_INT = 2  # AttributeProto.AttributeType
# Of TensorProto.DataType, how numbers are read, and the field that has them if they are not raw.
_TYPES = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "B", 10: "e", 11: "d", 12: "I", 13: "Q"}
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
STANDARD = frozenset({"", "ai.onnx"})

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Excess:
    """A node that makes too much."""

    node: Any
    size_bytes: int


class _Found(Exception):
    def __init__(self, excess: Excess) -> None:
        super().__init__()
        self.excess = excess


def find_excess(model: Any, most_bytes: int) -> Excess | None:
    """Finds the first node that makes more than it may from constants; None if there is none.

    Args:
        model: a ModelProto.

    Raises:
        Endless: nobody could tell, because it never ends.
    """
    walk = _Walk(model, most_bytes)
    try:
        for function in model.functions:
            walk.graph(function, {}, {})
        walk.graph(model.graph, {}, {})
    except _Found as found:
        return found.excess
    return None


class _Walk:
    """What is known of a model's tensors; a graph within a graph sees the tensors around it."""

    def __init__(self, model: Any, most_bytes: int) -> None:
        self.functions = {_key(function, function.name): function for function in model.functions}
        self.most_bytes, self.steps, self.depth = most_bytes, 0, 0

    def graph(self, graph: Any, around: Values, attributes: Mapping[str, Any], given: Values | None = None) -> Values:
        """Looks at all nodes of a graph or of a function's body; returns what is known of its tensors.

        Args:
            attributes: of the call of a function, by their names.
            given: what is known of its inputs.
        """
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Endless(f"{self.depth} graphs within each other")
        known = dict(around)
        if not isinstance(next(iter(graph.input), ""), str):
            known |= {port.name: _declared(port) for port in graph.input}
        known |= {name: value for name, value in (given or {}).items() if value != UNKNOWN}
        for tensor in getattr(graph, "initializer", ()):
            known[tensor.name] = value_of(tensor)
        for sparse in getattr(graph, "sparse_initializer", ()):
            known[sparse.values.name] = _sparse(sparse)
        for node in _in_order(graph):
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Endless(f"more than {MOST_STEPS:,} nodes, with those that are called")
            made = self.outputs(node, known, attributes)
            known |= {name: value for name, value in zip(node.output, made, strict=False) if name and value != UNKNOWN}
        self.depth -= 1
        return known

    def outputs(self, node: Any, known: Values, attributes: Mapping[str, Any]) -> Sequence[Value]:
        own = {one.name: attributes.get(one.ref_attr_name, one) if one.ref_attr_name else one for one in node.attribute}
        given = [known.get(name, UNKNOWN) for name in node.input]
        made = self._computed(node, given, own)
        size = max((value.size_bytes for value in made), default=0)
        if size > self.most_bytes:
            raise _Found(Excess(node, size))
        if node.domain in STANDARD and node.op_type in WITH_GRAPHS:
            made = WITH_GRAPHS[node.op_type](self, node, given, known, own, attributes)
        function = self.functions.get(_key(node, node.op_type))
        if function is None:
            return made
        called = self.called(function, given, own)
        return made or called

    def _computed(self, node: Any, given: list[Value], own: Mapping[str, Any]) -> list[Value]:
        if node.op_type == "Constant" and node.domain in STANDARD:
            return [_constant(name, attribute) for name, attribute in own.items()][:1]
        step = onnx_step(node.op_type, node.input, node.output, _attributes(own, len(node.output)))
        return [] if step is None else outputs_of_step(step, given)

    def called(self, function: Any, given: Sequence[Value], own: Mapping[str, Any]) -> list[Value]:
        """Follows a call, with what its function is given."""
        defaults = {one.name: one for one in function.attribute_proto}
        found = self.graph(function, dict(zip(function.input, given, strict=False)), {**defaults, **own})
        return [found.get(name, UNKNOWN) for name in function.output]

    def branches(
        self, node: Any, given: list[Value], known: Values, own: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> list[Value]:
        names = ["then_branch", "else_branch"]
        if given and given[0].number is not None:
            names = names[:1] if given[0].number else names[1:]
        results = [_results(self.graph(own[name].g, known, attributes), own[name].g) for name in names if name in own]
        if len(results) < 2:
            return results[0] if results else []
        return [one if one == other else UNKNOWN for one, other in zip(*results, strict=False)]

    def loop(
        self, node: Any, given: list[Value], known: Values, own: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> list[Value]:
        """Turns a loop as long as it is known to go on; then it is unknown what comes out of it."""
        if "body" not in own:
            return []
        body, states = own["body"].g, given[2:]
        most = given[0].number if node.input and node.input[0] else math.inf
        goes_on: Number | None = given[1].number if len(node.input) > 1 and node.input[1] else 1
        rows = list[Value]()
        for turn in range(_MOST_TURNS):
            if most is not None and turn >= most:
                return [*states, *_stacked(rows, turn)]
            if goes_on is not None and not goes_on:
                return [*states, *_stacked(rows, turn)]
            names, before = [port.name for port in body.input], states
            first = [Value((), 8).with_numbers([turn]), Value((), 1).with_numbers([goes_on])]
            inner = dict(zip(names, [*first, *states], strict=False))
            made = _results(self.graph(body, known, attributes, inner), body)
            states, rows = made[1 : 1 + len(states)], made[1 + len(states) :]
            if goes_on is None or most is None or self.steps > _MOST_FOLLOWED:  # it may turn once
                return []
            goes_on = made[0].number if made else None
            if goes_on and states == before:  # and so it will stay
                last = [] if most is math.inf else _stacked(rows, int(most))
                self._require_small(node, last)
                return [*states, *last]
        return []

    def body(
        self, node: Any, given: list[Value], known: Values, own: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> list[Value]:
        if "body" in own:
            self.graph(own["body"].g, known, attributes)
        return []

    def _require_small(self, node: Any, made: Sequence[Value]) -> None:
        size = max((value.size_bytes for value in made), default=0)
        if size > self.most_bytes:
            raise _Found(Excess(node, size))


WITH_GRAPHS = {"If": _Walk.branches, "Loop": _Walk.loop, "Scan": _Walk.body, "SequenceMap": _Walk.body}


def _key(one: Any, name: str) -> tuple[str, str, str]:
    return "" if one.domain in STANDARD else one.domain, name, getattr(one, "overload", "")


def _results(known: Values, graph: Any) -> list[Value]:
    return [known.get(port.name, UNKNOWN) for port in graph.output]


def _stacked(rows: Sequence[Value], count: int) -> list[Value]:
    return [UNKNOWN if row.dims is None else row.shaped([count, *row.dims]) for row in rows]


def _attributes(own: Mapping[str, Any], outputs: int) -> Attributes:
    numbers, lists, texts = {"outputs": outputs}, dict[str, list[Number]](), dict[str, str]()
    for name, one in own.items():
        if one.type == _INT:
            numbers[name] = int(one.i)
        elif one.ints or one.floats:
            lists[name] = [*one.ints, *one.floats]
        elif one.s:
            texts[name] = one.s.decode("utf-8", "replace")
    if "to" in numbers:  # of Cast, as TensorFlow's op would have it
        code = _TYPES.get(numbers["to"], "")
        numbers |= {"is_integer": int(code not in ("", "f", "d", "e")), "item": struct.calcsize(code) if code else 1}
    return Attributes(numbers, lists, texts)


def _constant(name: str, attribute: Any) -> Value:
    """Returns the value of a Constant, in any of its spellings."""
    match name:
        case "value":
            return value_of(attribute.t)
        case "sparse_value":
            return _sparse(attribute.sparse_tensor)
        case "value_int" | "value_float":
            return Value((), 4).with_numbers([attribute.i if name == "value_int" else attribute.f])
        case "value_ints" | "value_floats":
            numbers = [*attribute.ints, *attribute.floats]
            return Value((len(numbers),), 4).with_numbers(numbers)
    return UNKNOWN


def _sparse(sparse: Any) -> Value:
    return Value(tuple(max(0, length) for length in sparse.dims), max(1, value_of(sparse.values).item))


def value_of(tensor: Any) -> Value:
    """Returns what is known of a stored tensor: its numbers, if they are few."""
    code, dims = _TYPES.get(tensor.data_type), tuple(max(0, length) for length in tensor.dims)
    if code is None:
        return Value(dims)
    made, count = Value(dims, struct.calcsize(code)), math.prod(dims)
    if count > MOST_NUMBERS:
        return made
    if tensor.raw_data:
        layout = f"<{count}{code}"
        is_whole = struct.calcsize(layout) == len(tensor.raw_data)
        return made.with_numbers(struct.unpack(layout, tensor.raw_data)) if is_whole else made
    return made.with_numbers([*getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))])


def _declared(port: Any) -> Value:
    shape = port.type.tensor_type
    return Value(tuple(-max(1, dim.dim_value) for dim in shape.shape.dim)) if shape.HasField("shape") else UNKNOWN


def _in_order(graph: Any) -> Iterator[Any]:
    """Yields every node behind those that make its inputs, as runtimes sort them."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    done = [False] * len(graph.node)
    for start in range(len(graph.node)):
        if done[start]:
            continue
        done[start] = True
        waiting = [(start, _needed(graph.node[start]))]
        while waiting:
            index, rest = waiting[-1]
            for name in rest:
                above = makers.get(name)
                if above is not None and not done[above]:
                    done[above] = True
                    waiting.append((above, _needed(graph.node[above])))
                    break
            else:
                waiting.pop()
                yield graph.node[index]


def _needed(node: Any) -> Iterator[str]:
    """Yields the names of a node's inputs, and of what the graphs in it use from outside."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield from one.input
        for attribute in one.attribute:
            waiting += [inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node]
