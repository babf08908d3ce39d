"""Walks through a graph, its functions and its loops, and finds the ops that could take too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import AttrValue, NodeDef, TensorProto, TensorShapeProto
from pipeline.graph.variables import VARIABLE_OPS

from .costs import cost_of
from .rules import outputs_of
from .values import MOST_NUMBERS, STRING_BYTES, UNKNOWN, Dims, Number, Value, elements_of

MOST_STEPS = 500_000  # nodes that are looked at, over and over in loops and calls
_MOST_TURNS = 256  # of a loop that is followed
_MOST_DEPTH = 40  # calls within calls that are followed with what they are given
_MOST_TEXT = 1 << 24  # bytes of a text that is kept
_REFERENCE = 100  # what a reference's number has above that of its dtype
_CONSTANTS = frozenset({"Const", "HostConst"})
_DECLARED = VARIABLE_OPS | {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "ImmutableConst"}
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
_LOOPS = frozenset({"While", "StatelessWhile"})


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


def find_excess(graph: Graph, most_bytes: int) -> Excess | None:
    """Finds the first op that makes more than it may from constants; None if there is none."""
    walk = _Walk(graph, most_bytes)
    try:
        for function in graph.library.function:
            walk.body(function.signature.name, {})
        walk.body("", {})
    except _Found as found:
        return found.excess
    return None


def examine(graph: Graph) -> dict[str, list[Value]]:
    """Returns by node what is known of its outputs, of any size."""
    return _Walk(graph, 1 << 200).body("", {})


class _Found(Exception):
    def __init__(self, excess: Excess) -> None:
        super().__init__()
        self.excess = excess


@dataclass
class NodeView:
    """A node of TensorFlow, as the rules see it; its attributes are parsed when one is asked for."""

    node: NodeDef
    _attributes: Mapping[str, AttrValue] | None = field(default=None, repr=False)

    @property
    def op(self) -> str:
        return str(self.node.op)

    def find(self, name: str) -> AttrValue | None:
        """Returns an attribute; None if there is none: asking the message would make it."""
        if self._attributes is None:
            self._attributes = whole_node(self.node).attr
        return self._attributes.get(name)

    def integer(self, name: str, default: int = 0) -> int:
        value = self.find(name)
        return default if value is None else int(value.i or value.b)

    def integers(self, name: str) -> list[int]:
        """Returns the numbers of a list; of a list of shapes, their elements."""
        value = self.find(name)
        if value is None:
            return []
        return [*value.list.i, *(elements_of(dims_from(shape) or ()) for shape in value.list.shape)]

    def dims(self, name: str) -> Dims | None:
        value = self.find(name)
        if value is None:
            return None
        return dims_from(value.list.shape[0] if value.list.shape else value.shape)

    def text(self, name: str) -> str:
        value = self.find(name)
        return "" if value is None else value.s.decode("utf-8", "replace")

    def is_integer(self, name: str) -> bool:
        value = self.find(name)
        kind = None if value is None else DTYPES.get(value.type)
        return kind is not None and kind.code[1:2] in ("i", "u")

    def item(self, name: str) -> int:
        value = self.find(name)
        return 4 if value is None or not value.type else item_bytes(value.type)


def item_bytes(dtype: int) -> int:
    """Returns the bytes of an element; 1 for a dtype that is unknown."""
    number = dtype - _REFERENCE if dtype > _REFERENCE else dtype
    return STRING_BYTES if number == STRING.number else max(1, DTYPES[number].size_bytes) if number in DTYPES else 1


def dims_from(shape: TensorShapeProto) -> Dims | None:
    """Returns the lengths of a message; None for an unknown rank."""
    return None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else -1 for dim in shape.dim)


def value_of(tensor: TensorProto) -> Value:
    """Returns what is known of a constant: its numbers, if they are few."""
    made = Value(tuple(max(0, dim.size) for dim in tensor.tensor_shape.dim), item_bytes(tensor.dtype))
    count = elements_of(made.dims or ())
    if tensor.dtype == STRING.number and tensor.string_val:
        lengths = [len(text) for text in tensor.string_val]
        text = tensor.string_val[0] if count == 1 and lengths[0] <= _MOST_TEXT else None
        return Value(made.dims, STRING_BYTES + min(lengths), text=text)
    return made.with_numbers(_numbers(tensor, count)) if 0 < count <= MOST_NUMBERS else made


def _numbers(tensor: TensorProto, count: int) -> Sequence[Number | None] | None:
    kind = DTYPES.get(tensor.dtype)
    if kind is None or not kind.is_plain or not kind.size_bytes:
        return None
    values: list[Number] = [*tensor.int_val, *tensor.int64_val, *tensor.float_val, *tensor.double_val]
    values += [int(one) for one in tensor.bool_val]
    if tensor.tensor_content:
        import numpy as np  # only where a graph is checked, and not in a run in which everything is complete

        if len(tensor.tensor_content) != count * kind.size_bytes:
            return None
        values = np.frombuffer(tensor.tensor_content, kind.code).tolist()
    return values + values[-1:] * (count - len(values)) if values else [0] * count


Given = Mapping[str, Value]


class _Walk:
    """What is known of a graph's tensors."""

    def __init__(self, graph: Graph, most_bytes: int) -> None:
        self.graph, self.most_bytes, self.steps = graph, most_bytes, 0
        self.depth = 0
        self.known: dict[tuple[str, tuple[Value, ...]], list[Value]] = {}

    def body(self, function: str, arguments: Given) -> dict[str, list[Value]]:
        """Looks at all nodes of the graph or of a function's body; returns what is known of their outputs."""
        graph = self.graph.body(function) if function else self.graph
        found: dict[str, list[Value]] = {}
        for node in _in_order(graph):
            self.steps += 1
            given = [_reference(found, arguments, name) for name in node.input if not name.startswith("^")]
            found[node.name] = self.outputs(node, function, given)
        return found

    def outputs(self, node: NodeDef, function: str, given: Sequence[Value]) -> list[Value]:
        op = node.op
        if op in _CONSTANTS or op in _DECLARED:
            return [_declared(NodeView(node), given)]
        view = NodeView(node)
        if op in _LOOPS or op in _CALLS or op in _BRANCHES or op in self.graph.functions:
            return self.called(view, given)
        made = outputs_of(view, given)
        size = max((value.size_bytes for value in made), default=0) + cost_of(view, given)
        if size > self.most_bytes:
            raise _Found(Excess(node, function, size))
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
                results = [self.call(_function(view, name), given[1:]) for name in _BRANCHES[view.op]]
                return [one if one == other else UNKNOWN for one, other in zip(*results, strict=False)]
            return self.call(view.op if view.op in self.graph.functions else _function(view, "f"), given)
        finally:
            self.depth -= 1

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
            self.known[key] = [_reference(found, arguments, name) for name in returned]
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


def _declared(view: NodeView, given: Sequence[Value]) -> Value:
    if view.op in _CONSTANTS:
        value = view.find("value")
        return UNKNOWN if value is None else value_of(value.tensor)
    if view.op == "PlaceholderWithDefault" and given:
        return given[0]  # another may be fed
    return Value(view.dims("shape"), view.item("dtype")) if view.find("shape") is not None else UNKNOWN


def _function(view: NodeView, name: str) -> str:
    value = view.find(name)
    return "" if value is None else str(value.func.name)


def _reference(found: Mapping[str, list[Value]], arguments: Given, reference: str) -> Value:
    """Returns an input's value; in a function it is `node:output:2`, in a graph `node:2`."""
    name, _, place = reference.partition(":")
    if name not in found:
        return arguments.get(name, UNKNOWN)
    output, _, index = place.rpartition(":")
    outputs, number = found[name], int(index) if index.isdecimal() else 0
    number += _LATER.get(output, 0)
    return outputs[number] if number < len(outputs) else UNKNOWN


def _in_order(graph: Graph) -> Iterator[NodeDef]:
    """Yields every node behind its inputs, but for what comes back around a loop."""
    nodes, done = graph.nodes, set[str]()
    for start in graph.node:
        waiting = [(start.name, iter(start.input))]
        if start.name in done:
            continue
        done.add(start.name)
        while waiting:
            name, rest = waiting[-1]
            for reference in rest:
                above = node_of(reference)
                if above in nodes and above not in done:
                    done.add(above)
                    waiting.append((above, iter(nodes[above].input)))
                    break
            else:
                waiting.pop()
                yield nodes[name]
