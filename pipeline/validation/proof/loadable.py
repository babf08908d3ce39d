"""Whether every node of a graph takes what its inputs are, and in one frame: TensorFlow loads or runs no other graph.

TensorFlow checks the same when it imports a graph (tensorflow/core/graph/graph_constructor.cc) and before it runs one
(tensorflow/core/graph/control_flow.cc).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import is_control
from pipeline.graph.ops import dtype_name, dtypes_of, output_dtypes
from pipeline.graph.protos import AttrValue, FunctionDef, NodeDef

from .op_facts import facts_of, number_of_output
from .ops import plain_op
from .scope import Unproven


def require_loadable(graph: Graph) -> None:
    """Checks the inputs of a graph's nodes, and of its functions' nodes; ops of others are left out.

    Raises:
        Unproven: a node takes another dtype than its input has, another number of inputs, or inputs of two loops.
    """
    _Types(graph, graph, {}).require()
    _require_frames(graph)
    for function in graph.library.function:
        arguments = {arg.name: arg.type for arg in function.signature.input_arg}
        _Types(graph, graph.body(function.signature.name), arguments, function.signature.name).require()


def _require_frames(graph: Graph) -> None:
    """Checks that what a node of a TensorFlow 1 loop takes or waits for is in the loop too."""
    enters = {node.name: whole_node(node).attr["frame_name"].s for node in graph.node if plain_op(node.op) == "Enter"}
    if not enters:
        return
    frames: dict[str, tuple[bytes, ...]] = {node.name: () for node in graph.node if not node.input}
    waiting = [*frames]
    while waiting:
        name = waiting.pop()
        inside, op = frames[name], plain_op(graph.nodes[name].op)
        inside = (*inside, enters[name]) if name in enters else inside[:-1] if op == "Exit" else inside
        for consumer in graph.consumers.get(name, ()):
            if consumer.name not in frames:
                frames[consumer.name] = inside
                waiting.append(consumer.name)
            elif frames[consumer.name] != inside:
                raise Unproven(f"no TensorFlow runs the graph: node {consumer.name} has inputs of several loops")


class _Types:
    """The dtypes of the tensors of a graph, or of a function's body.

    Args:
        whole: the graph with the functions.
        arguments: dtypes of the function's arguments.
        function: its name; empty for the graph itself.
    """

    def __init__(self, whole: Graph, body: Graph, arguments: Mapping[str, int], function: str = "") -> None:
        self._functions: Mapping[str, FunctionDef] = whole.functions
        self._body, self._arguments, self._function = body, arguments, function
        self._outputs: dict[str, Sequence[int] | None] = {}

    def require(self) -> None:
        for node in self._body.node:
            references = [one for one in node.input if not is_control(one)]
            if not references:
                continue
            whole = whole_node(node)
            wanted = _inputs_of(whole, self._functions)
            if wanted is None:
                continue
            if len(wanted) != len(references):
                raise self._error(node, f"{len(references)} inputs, and takes {len(wanted)}")
            for reference, dtype in zip(references, wanted, strict=True):
                given = self._dtype(reference)
                if given is not None and given != dtype and dtype:
                    raise self._error(node, f"{dtype_name(given)} {reference}, and takes {dtype_name(dtype)}")

    def _error(self, node: NodeDef, words: str) -> Unproven:
        inside = f" in function {self._function}" if self._function else ""
        return Unproven(f"no TensorFlow loads the graph: node {node.name}{inside} ({node.op}) is given {words}")

    def _dtype(self, reference: str) -> int | None:
        """Returns the dtype of a tensor; None if it is not known."""
        name, _, rest = reference.partition(":")
        if self._function and not rest:
            return self._arguments.get(name) or None
        if name not in self._outputs:
            node = self._body.nodes.get(name)
            self._outputs[name] = None if node is None else output_dtypes(whole_node(node), self._functions)
        dtypes = self._outputs[name]
        if dtypes is None:
            return None
        port: int | None = int(rest or 0) if not self._function else None
        if self._function:
            output, _, index = rest.partition(":")
            port = number_of_output(whole_node(self._body.nodes[name]), output, int(index or 0), self._functions)
        return dtypes[port] if port is not None and port < len(dtypes) else None


def _inputs_of(node: NodeDef, functions: Mapping[str, FunctionDef]) -> list[int] | None:
    """Returns the dtypes that a node takes, 0 where one is not known; None for an op of others."""
    if node.op in functions:
        return [int(arg.type) for arg in functions[node.op].signature.input_arg]
    facts = facts_of(node.op)
    if facts is None:
        return None
    found = list[int]()
    for declared in facts.inputs:
        dtypes = dtypes_of(declared, node, _Defaults(facts.defaults))
        if dtypes is None:
            return None
        found += dtypes
    return found


class _Defaults(Mapping[str, AttrValue]):
    """Defaults of attributes, which are parsed where they are asked for."""

    def __init__(self, raw: Mapping[str, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> AttrValue:
        return AttrValue.FromString(self._raw[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)
