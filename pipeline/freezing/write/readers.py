"""Finds constants that are only read, and may be in memory that is mapped read-only.

An op may write its result into the memory of an input that nothing else needs (OpKernelContext::forward_input). A
Const always needs its own memory. An ImmutableConst, a file mapped for reading, does not: `tf.square` of one ends the
process with a segmentation fault. So a constant is followed to every op that receives its memory, through ops that
pass it on and into functions, and each must be known to only read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.graph.graph import Graph
from pipeline.graph.handles import CALLS, LOOPS
from pipeline.graph.nodes import data_inputs, function_names, normalize_tensor
from pipeline.graph.protos import FunctionDef, NodeDef

from .constants import Constant, FrozenGraph

# Ops that only read these inputs and return new memory.
_READING: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "SparseMatMul"), frozenset({0, 1})),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), frozenset({1})),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), frozenset({1})),
    **dict.fromkeys(("Gather", "GatherV2", "GatherNd"), frozenset({0})),
    **dict.fromkeys(("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"), frozenset({0})),
    **dict.fromkeys(("Shape", "Size", "Rank", "ArgMax", "ArgMin"), frozenset({0})),
    "SparseTensorDenseMatMul": frozenset({3}),
    "BiasAdd": frozenset({1}),
}

# Ops whose outputs may be the memory of these inputs; None: of any.
_PASSING: Mapping[str, frozenset[int] | None] = {
    **dict.fromkeys(("Identity", "StopGradient", "PreventGradient", "GuaranteeConst", "EnsureShape"), frozenset({0})),
    **dict.fromkeys(("Enter", "Exit", "NextIteration", "Switch"), frozenset({0})),
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze", "Bitcast", "Cast", "Transpose"), frozenset({0})),
    **dict.fromkeys(("Slice", "StridedSlice", "SplitV", "Unpack", "BroadcastTo", "Tile"), frozenset({0})),
    **dict.fromkeys(("Merge", "Concat", "ConcatV2", "Pack"), None),
    "Split": frozenset({1}),
}

# Ops that call functions: the attributes that name them, and the input that is a function's first argument.
_CALLS = {op: call[:2] for op, call in CALLS.items() if op != "RemoteCall"}

# Where memory is: a node's output (in a graph or a function), or a function's argument (port 0). A port of None is
# any of the node's outputs.
_Place = tuple[str, int | None]


class _MayWrite(Exception):
    """An op that may write to its input receives the memory."""


@dataclass(frozen=True)
class _Scope:
    """A graph or a function's body: the users of each node or argument, and the results.

    Args:
        uses: by the name of a node or an argument: the output, the user, the user's input.
        returned: by the same name: the output, the index of the function's result.
    """

    is_function: bool
    uses: Mapping[str, list[tuple[int | None, NodeDef, int]]]
    returned: Mapping[str, list[tuple[int | None, int]]] = field(default_factory=dict)


class Readers:
    """Checks one graph's constants; every function is checked once for each of its arguments.

    Args:
        outputs: names of nodes whose tensors are fetched even if other nodes use them. The caller may write to the
            array that a session returns, which may be the tensor's own memory.
    """

    def __init__(self, graph: FrozenGraph, outputs: Iterable[str] = ()) -> None:
        self._outputs = frozenset(outputs)
        nodes = [node for node in graph.nodes if not isinstance(node, Constant)]
        self._view = Graph(nodes, graph.library)
        self._scopes: dict[str, _Scope] = {}
        self._answers: dict[tuple[str, int], frozenset[int] | None] = {}
        self._graph = _scope_of_graph(nodes)

    def only_read(self, name: str) -> bool:
        """Returns True if all users of a constant only read it."""
        try:
            self._follow(self._graph, (name, 0))
        except _MayWrite:
            return False
        return True

    def _follow(self, scope: _Scope, start: _Place) -> frozenset[int]:
        """Returns the function's results that may be the memory; raises _MayWrite if an op may write to it."""
        waiting, seen, results = [start], set[_Place](), set[int]()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            name, port = place
            users = [use for use in scope.uses.get(name, ()) if _overlaps(use[0], port)]
            ends = [index for output, index in scope.returned.get(name, ()) if _overlaps(output, port)]
            if not scope.is_function and (name in self._outputs or not scope.uses.get(name)):
                raise _MayWrite
            results.update(ends)
            for _, node, index in users:
                waiting += self._find_forwarded(node, index)
        return frozenset(results)

    def _find_forwarded(self, node: NodeDef, index: int) -> list[_Place]:
        """Returns the outputs of a node that may be the memory of one of its inputs."""
        if index in _READING.get(node.op, ()):
            return []
        if _allocates_output(node):
            return []
        if node.op == "IdentityN":
            return [(node.name, index)]
        if node.op in _PASSING:
            inputs = _PASSING[node.op]
            if inputs is None or index in inputs:
                return [(node.name, None)]
        names, first = _CALLS.get(node.op, ((), 0))
        called = [name for attribute in names for name in function_names(node.attr[attribute])]
        called = [node.op] if node.op in self._view.functions else called
        if not called or index < first:
            raise _MayWrite
        results = frozenset[int]().union(*(self._find_returned(name, index - first) for name in called))
        # A loop's results are its arguments, in the next turn and at its end.
        if node.op in LOOPS:
            if results - {index}:
                raise _MayWrite
            results |= {index}
        return [(node.name, result) for result in sorted(results)]

    def _find_returned(self, function: str, argument: int) -> frozenset[int]:
        """Returns the results of a function that may be the memory of an argument."""
        key = function, argument
        if key not in self._answers:
            self._answers[key] = None  # the answer inside a recursive function
            body = self._view.functions.get(function)
            arguments = [] if body is None else list(body.signature.input_arg)
            if body is not None and not any(arg.number_attr or arg.type_list_attr for arg in arguments):
                if function not in self._scopes:
                    self._scopes[function] = _scope_of_function(body, self._view.body(function).nodes)
                try:
                    self._answers[key] = self._follow(self._scopes[function], (arguments[argument].name, 0))
                except _MayWrite:
                    self._answers[key] = None
        answer = self._answers[key]
        if answer is None:
            raise _MayWrite
        return answer


def _allocates_output(node: NodeDef) -> bool:
    """Returns True if an op, by its attributes, never reuses the memory of an input."""
    if node.op == "Cast":
        return bool(node.attr["SrcT"].type != node.attr["DstT"].type)
    # With one operand it may be a transposition, or the operand itself; with two it is a matrix product.
    return bool(node.op == "Einsum" and node.attr["N"].i == 2)


def _overlaps(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other


def _scope_of_graph(nodes: Iterable[NodeDef]) -> _Scope:
    uses: defaultdict[str, list[tuple[int | None, NodeDef, int]]] = defaultdict(list)
    for node in nodes:
        for index, reference in enumerate(data_inputs(node)):
            name, _, port = normalize_tensor(reference).rpartition(":")
            uses[name].append((int(port), node, index))
    return _Scope(False, uses)


def _scope_of_function(function: FunctionDef, nodes: Mapping[str, NodeDef]) -> _Scope:
    """Returns the scope of a body, where `node:output:2` is the third tensor of the output named `output`."""
    uses: defaultdict[str, list[tuple[int | None, NodeDef, int]]] = defaultdict(list)
    returned: defaultdict[str, list[tuple[int | None, int]]] = defaultdict(list)
    for node in function.node_def:
        for index, reference in enumerate(data_inputs(node)):
            name, port = _place_in_function(reference, nodes)
            uses[name].append((port, node, index))
    for index, argument in enumerate(function.signature.output_arg):
        name, port = _place_in_function(function.ret[argument.name], nodes)
        returned[name].append((port, index))
    return _Scope(True, uses, returned)


def _place_in_function(reference: str, nodes: Mapping[str, NodeDef]) -> _Place:
    name, _, rest = reference.partition(":")
    if not rest:
        return name, 0
    # The calls above have one named output, a list; of other ops' outputs it is not asked which.
    is_list = name in nodes and nodes[name].op in {*_CALLS, "IdentityN"}
    return name, int(rest.rpartition(":")[2]) if is_list else None
