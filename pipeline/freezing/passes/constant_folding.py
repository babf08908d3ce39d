"""Folds constants: removes branches that are never taken, and random numbers without effect.

A dropout that a constant switches off still draws: TensorFlow 1 takes the floor of keep_prob + u, later ones compare
u with the rate, u from [0, 1). If every u gives the same result, that result replaces the draw. The possible results
follow from the range of each tensor: a constant, a draw, or the result of a few ops on these. Noise whose deviation is
0 is 0 as well, for draws are finite; it has the sign of its draw, and +0, one of the two, replaces it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace

from pipeline.graph.graph import Graph
from pipeline.graph.handles import CALLS, LOOPS
from pipeline.graph.nodes import control_inputs, data_inputs, is_control, node_of, unused_name
from pipeline.graph.protos import DataType, FunctionDef, NodeDef

_BOOL, _FLOAT, _DOUBLE, _HALF, _BFLOAT16 = (
    DataType.Value(name) for name in ("DT_BOOL", "DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16")
)
_CODES = {_BOOL: "<?", _FLOAT: "<f", _DOUBLE: "<d", _HALF: "<e"}
_FIELDS = {_BOOL: "bool_val", _FLOAT: "float_val", _DOUBLE: "double_val"}
# A draw is a whole multiple of 2**-bits below 1 (tensorflow/core/lib/random/random_distributions_utils.h).
_BITS = {_FLOAT: 23, _DOUBLE: 52, _HALF: 10, _BFLOAT16: 7}

_BRANCHES = ("If", "StatelessIf")
_NORMAL = frozenset({"RandomStandardNormal", "TruncatedNormal"})
_MOST_DEVIATIONS = 16.0  # of a draw: Box and Muller's from floats that are at least 1e-7 stay below 6 (same file)
_DRAWS = _NORMAL | {"RandomUniform"}
_DECIDING = _DRAWS | {*_BRANCHES}
_OF_BRANCHES = ("then_branch", "else_branch", "Tcond", "output_shapes")


@dataclass(frozen=True)
class Range:
    """The possible values of a tensor's elements.

    Args:
        low: the smallest.
        high: the largest; of bools, False is below True.
        dtype: TensorFlow's DataType.
        draw: the node that drew the tensor, which has its shape; None for a constant without dimensions.
        waits_for: control inputs that it needs to exist.
    """

    low: float
    high: float
    dtype: int
    draw: NodeDef | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def is_settled(self) -> bool:
        """True if all elements have one value, to the bit."""
        return self.low == self.high and math.copysign(1, self.low) == math.copysign(1, self.high)


_Ends = tuple[float, float]


def _products(a: Range, b: Range) -> _Ends | None:
    # In a range around 0, a product with 0 is 0 or -0.
    if min(a.low, b.low) < 0 and 0 in (a.low, a.high, b.low, b.high):
        is_drawn, is_nothing = a.draw or b.draw, any(one.low == one.high == 0 for one in (a, b))
        return (0.0, 0.0) if is_drawn and is_nothing else None
    ends = [one * other for one in (a.low, a.high) for other in (b.low, b.high)]
    return min(ends), max(ends)


def _quotients(a: Range, b: Range) -> _Ends | None:
    return (a.low / b.low, a.high / b.low) if b.is_settled and b.low > 0 else None


# The smallest and the largest result, by op. All but the products grow with their inputs, or fall.
_RULES: Mapping[str, Callable[..., _Ends | None]] = {
    "Add": lambda a, b: (a.low + b.low, a.high + b.high),
    "AddV2": lambda a, b: (a.low + b.low, a.high + b.high),
    "Sub": lambda a, b: (a.low - b.high, a.high - b.low),
    "Mul": _products,
    "Div": _quotients,
    "RealDiv": _quotients,
    "Reciprocal": lambda a: (1 / a.low, 1 / a.low) if a.is_settled and a.low > 0 else None,
    "Cast": lambda a: (a.low, a.high),
    "Maximum": lambda a, b: (max(a.low, b.low), max(a.high, b.high)),
    "Minimum": lambda a, b: (min(a.low, b.low), min(a.high, b.high)),
    "Floor": lambda a: (float(math.floor(a.low)), float(math.floor(a.high))),
    "Greater": lambda a, b: (a.low > b.high, a.high > b.low),
    "GreaterEqual": lambda a, b: (a.low >= b.high, a.high >= b.low),
    "Less": lambda a, b: (a.high < b.low, a.low < b.high),
    "LessEqual": lambda a, b: (a.high <= b.low, a.low <= b.high),
    "LogicalNot": lambda a: (not a.high, not a.low),
    "LogicalAnd": lambda a, b: (a.low and b.low, a.high and b.high),
    "LogicalOr": lambda a, b: (a.low or b.low, a.high or b.high),
}
_GIVES_BOOL = frozenset({"Greater", "GreaterEqual", "Less", "LessEqual"})
_PASSES = frozenset({"Identity", "StopGradient", "Snapshot", "Enter", "Switch"})  # each output is input 0
_MOVES_FRAMES = frozenset({"Enter", "Switch"})


def find_ranges(graph: Graph, arguments: Mapping[str, Range] | None = None) -> dict[str, Range]:
    """Returns the known ranges of the outputs of nodes, by the node's name.

    Args:
        graph: a graph, or a function's body.
        arguments: known ranges of the function's arguments.
    """
    known = dict(arguments or {})
    known.update((node.name, found) for node in graph.node if (found := _source(node)) is not None)
    waiting = list(known)
    while waiting:
        for node in graph.consumers.get(waiting.pop(), ()):
            is_followed = node.op in _RULES or node.op in _PASSES
            if is_followed and node.name not in known and (found := _result(node, known)) is not None:
                known[node.name] = found
                waiting.append(node.name)
    return known


def _source(node: NodeDef) -> Range | None:
    if node.op == "Const" and "value" in node.attr:
        return _constant(node)
    if node.op not in _DRAWS or not data_inputs(node) or (dtype := node.attr["dtype"].type) not in _BITS:
        return None
    if node.op in _NORMAL:
        return Range(-_MOST_DEVIATIONS, _MOST_DEVIATIONS, dtype, node, tuple(control_inputs(node)))
    return Range(0.0, 1 - 2.0 ** -_BITS[dtype], dtype, node, tuple(control_inputs(node)))


def _constant(node: NodeDef) -> Range | None:
    """Returns the range of a constant without dimensions; a missing value is 0."""
    tensor = node.attr["value"].tensor
    dtype = tensor.dtype
    if tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank or not (dtype in _CODES or dtype == _BFLOAT16):
        return None
    if tensor.tensor_content:
        bits: bytes = tensor.tensor_content
    elif dtype in _FIELDS:
        value = next(iter(getattr(tensor, _FIELDS[dtype])), 0)
        return Range(value, value, dtype) if math.isfinite(value) else None
    else:
        bits = next(iter(tensor.half_val), 0).to_bytes(4, "little")[:2]
    try:
        if dtype == _BFLOAT16:
            [value] = struct.unpack("<f", b"\0\0" + bits)
        else:
            [value] = struct.unpack(_CODES[dtype], bits)
    except struct.error:
        return None
    return Range(value, value, dtype) if math.isfinite(value) else None


def _result(node: NodeDef, known: Mapping[str, Range]) -> Range | None:
    references = data_inputs(node)
    given = [known.get(node_of(reference)) for reference in (references[:1] if node.op in _PASSES else references)]
    ranges = [one for one in given if one is not None]
    drawn = [one for one in ranges if one.draw is not None]
    if len(ranges) < len(given) or len(drawn) > 1 or len({one.dtype for one in ranges}) != 1:
        return None
    dtype = _BOOL if node.op in _GIVES_BOOL else ranges[0].dtype
    if node.op == "Cast":
        dtype = node.attr["DstT"].type
        if dtype == _BOOL or not (dtype in _CODES or dtype == _BFLOAT16) or node.attr["Truncate"].b:
            return None
    try:
        ends = (ranges[0].low, ranges[0].high) if node.op in _PASSES else _RULES[node.op](*ranges)
        low, high = (_round_to(end, dtype) for end in ends) if ends is not None else (math.nan, math.nan)
    except (TypeError, OverflowError, struct.error):
        return None  # a wrong number of inputs, or a result beyond its dtype
    if not (math.isfinite(low) and math.isfinite(high)) or (drawn and node.op in _MOVES_FRAMES):
        return None
    if not drawn:
        return Range(low, high, dtype)
    others = (f"^{node_of(r)}" for r, one in zip(references, ranges, strict=False) if one.draw is None)
    waits_for = dict.fromkeys((*drawn[0].waits_for, *control_inputs(node), *others))
    return replace(drawn[0], low=low, high=high, dtype=dtype, waits_for=tuple(waits_for))


def _round_to(value: float, dtype: int) -> float:
    """Rounds to the nearest number of a dtype; from float64 this equals the dtype's own arithmetic."""
    if dtype == _BFLOAT16:
        [bits] = struct.unpack("<I", struct.pack("<f", value))
        bits += 0x7FFF + (bits >> 16 & 1)
        [nearest] = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))
    else:
        [nearest] = struct.unpack(_CODES[dtype], struct.pack(_CODES[dtype], value))
    return float(nearest) if dtype != _BOOL else nearest


def known_truth(reference: str, known: Mapping[str, Range]) -> bool | None:
    """Returns the value of a bool; None if it is unknown."""
    found = known.get(node_of(reference))
    return bool(found.low) if found and found.dtype == _BOOL and found.draw is None and found.is_settled else None


def fold_constants(graph: Graph, outputs: Iterable[str]) -> Graph:
    """Returns the graph with one branch for each If with a known condition, and without draws that have no effect.

    The other branch, which may hold a dropout, then no longer prevents freezing.
    """
    deciding = {node.name for node in graph.node if node.op in _DECIDING}
    inside = any(node.op in _DECIDING for function, node in graph.placed_nodes() if function)
    if not deciding and not inside:
        return graph
    # Most draws are initializers, which no output needs.
    needed = graph.ancestors(map(node_of, outputs), with_control=True)
    if not deciding & needed and not inside:
        return graph
    graph = graph.parsed
    known = find_ranges_by_scope(graph, needed)
    is_decided = any(
        _is_decided(node, found)
        for scope, found in known.items()
        for node in (graph.body(scope) if scope else graph).node
    )
    if not is_decided:
        return graph
    new = graph.to_proto()
    scopes: list[tuple[FunctionDef | None, MutableSequence[NodeDef]]] = [(None, new.node)]
    scopes += [(function, function.node_def) for function in new.library.function]
    for function, body in scopes:
        found = known.get(function.signature.name if function is not None else "", {})
        for node in body:
            if node.op in _BRANCHES and (truth := known_truth(next(iter(node.input), ""), found)) is not None:
                _take_branch(node, truth)
        _settle_draws(body, function, found)
    return Graph.of(new)


def _is_decided(node: NodeDef, known: Mapping[str, Range]) -> bool:
    if node.op in _BRANCHES:
        return known_truth(next(iter(node.input), ""), known) is not None
    found = known.get(node.name)
    return found is not None and found.draw is not None and found.is_settled


def _take_branch(node: NodeDef, truth: bool) -> None:
    node.attr["f"].func.CopyFrom(node.attr["then_branch" if truth else "else_branch"].func)
    node.op = "StatefulPartitionedCall" if node.op == "If" else "PartitionedCall"
    del node.input[0]
    for name in _OF_BRANCHES:
        node.attr.pop(name, None)


def find_ranges_by_scope(graph: Graph, needed: set[str]) -> dict[str, dict[str, Range]]:
    """Returns the known ranges in the graph's needed nodes, under the name "", and in each called function."""
    functions = graph.functions
    reached = graph.replace_nodes(node for node in graph.node if node.name in needed)
    arguments: dict[str, list[Range | None]] = {"": []}
    found: dict[str, dict[str, Range]] = {}
    waiting = [""]
    while waiting:
        scope = waiting.pop()
        names = [argument.name for argument in functions[scope].signature.input_arg] if scope else []
        given = {name: one for name, one in zip(names, arguments[scope], strict=False) if one is not None}
        body = graph.body(scope) if scope else reached
        found[scope] = find_ranges(body, given)
        for node in body.node:
            for name, passed in _calls_of(node, functions, found[scope]):
                # Known is what all calls agree on: each further call can only reduce it.
                before = arguments.get(name)
                after = [
                    one if before is None or one == b else None for one, b in zip(passed, before or passed, strict=True)
                ]
                if before != after:
                    arguments[name] = after
                    waiting.append(name)
    return found


def _calls_of(
    node: NodeDef, functions: Mapping[str, FunctionDef], known: Mapping[str, Range]
) -> Iterator[tuple[str, list[Range | None]]]:
    """Yields the functions that a node calls, with the known ranges of their arguments."""
    attributes, first = CALLS[node.op][:2] if node.op in CALLS else ((), 0)
    truth = known_truth(next(iter(node.input), ""), known) if node.op in _BRANCHES else None
    for name in [node.op] if node.op in functions else list(node.attr):
        if name != node.op and truth is not None and name != ("then_branch" if truth else "else_branch"):
            continue
        value = node.attr[name] if name != node.op else None
        called = [node.op] if value is None else [f.name for f in value.list.func] + [value.func.name]
        for function in filter(functions.__contains__, called):
            arguments = functions[function].signature.input_arg
            passed: list[Range | None] = [None] * len(arguments)
            if value is None or name in attributes:
                constants = [known.get(node_of(reference)) for reference in data_inputs(node)[first:]]
                kept = [one if one and one.draw is None and one.is_settled else None for one in constants]
                passed = [*kept, *passed][: len(passed)]
            if node.op in LOOPS:
                passed = _keep_in_loop(passed, functions.get(node.attr["body"].func.name))
            yield function, passed


def _keep_in_loop(passed: list[Range | None], body: FunctionDef | None) -> list[Range | None]:
    """Keeps the ranges of loop variables that the loop's body returns unchanged."""
    if body is None:
        return [None] * len(passed)
    names = [argument.name for argument in body.signature.input_arg]
    results = [body.ret.get(argument.name) for argument in body.signature.output_arg]
    kept = [name == result for name, result in zip(names, results, strict=False)]
    return [one if is_kept else None for one, is_kept in zip(passed, [*kept, *[False] * len(passed)], strict=False)]


def _settle_draws(nodes: MutableSequence[NodeDef], function: FunctionDef | None, known: Mapping[str, Range]) -> None:
    """Replaces the first node after each draw whose value is known by a constant of the draw's shape."""
    names = {node.name for node in nodes}
    has_frames = any(node.op in _MOVES_FRAMES for node in nodes)
    added, settled = list[NodeDef](), set[str]()
    for node in nodes:
        found = known.get(node.name)
        if found is None or found.draw is None or not found.is_settled:
            continue
        if any((one := known.get(node_of(r))) and one.draw and one.is_settled for r in data_inputs(node)):
            continue  # its input is replaced already
        shape = data_inputs(found.draw)[0]
        # In a loop or a branch a constant belongs to the frame of its control inputs.
        place = [reference for reference in (f"^{node_of(shape)}", *found.waits_for) if node_of(reference) in names]
        waits_for = place if has_frames else control_inputs(node)
        value = _value(unused_name(f"{node.name}/settled", names), found, waits_for if has_frames else [])
        names.add(value.name)
        reference = value.name if function is None else f"{value.name}:output:0"
        node.CopyFrom(NodeDef(name=node.name, op="Fill", input=[shape, reference, *waits_for]))
        node.attr["T"].type = found.dtype
        node.attr["index_type"].type = found.draw.attr["T"].type
        added.append(value)
        settled.add(node.name)
    nodes.extend(added)
    if function is not None:
        _rename_outputs(function, settled)


def _value(name: str, found: Range, waits_for: Sequence[str]) -> NodeDef:
    node = NodeDef(name=name, op="Const", input=waits_for)
    node.attr["dtype"].type = found.dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = found.dtype
    tensor.tensor_shape.SetInParent()
    if found.dtype in _FIELDS:
        getattr(tensor, _FIELDS[found.dtype]).append(found.low)
    else:
        bits = struct.pack("<e", found.low) if found.dtype == _HALF else struct.pack("<f", found.low)[2:]
        tensor.half_val.append(int.from_bytes(bits, "little"))
    return node


def _rename_outputs(function: FunctionDef, settled: set[str]) -> None:
    """Renames references in functions: they name the output of the op, which is now a Fill."""

    def rename(reference: str) -> str:
        is_settled = node_of(reference) in settled and not is_control(reference)
        return f"{node_of(reference)}:output:0" if is_settled else reference

    for node in function.node_def:
        references = [rename(reference) for reference in node.input]
        del node.input[:]
        node.input.extend(references)
    for name, reference in function.ret.items():
        function.ret[name] = rename(reference)
