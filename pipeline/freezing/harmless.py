"""Cuts out of a graph what could do more than compute, where nothing that a run needs is computed from it.

The artifact of a checkpoint then holds a graph that TensorFlow may load: it never sees what was cut away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, node_of
from pipeline.graph.protos import FunctionDefLibrary, MetaGraphDef, NodeDef, OpDef
from pipeline.safety import Danger, require_safe
from pipeline.safety.gate import Gate
from pipeline.safety.graphs import find_dangers
from pipeline.safety.reach import Calls
from pipeline.signature import Signature

from .passes.inputs import feed_inner_tensors
from .write.constants import Constant, FrozenGraph

_PLACE = b"loc:@"


def left_out_notes(gate: Gate) -> list[str]:
    """Returns the sentences on what is cut away; none if nothing is."""
    if gate.is_loaded_whole:
        return []
    ops = {danger.op: danger for danger in reversed(gate.refused)}
    return [f"left out, for no output needs it: {danger} (could {danger.harm})" for danger in ops.values()]


def require_harmless(gate: Gate, frozen: FrozenGraph) -> None:
    """Checks a frozen graph before it is written: what the outputs do not need is gone from it.

    Raises:
        UnsafeModel: it could do more than compute, and that is not allowed.
    """
    if gate.refused and not gate.is_loaded_whole:
        nodes = [node for node in frozen.nodes if not isinstance(node, Constant)]
        graph = Graph(nodes, frozen.library)
        home = gate.source.graph_file.parent
        require_safe(gate.source.graph_file, find_dangers(MetaGraph(graph, MetaGraphDef()), home), gate.allowed)


def cut_away(message: MetaGraphDef, gate: Gate, signature: Signature) -> MetaGraphDef:
    """Returns the message without all nodes and functions that a refused op runs before, or is in.

    An input that stands behind such an op, or is one, becomes a placeholder under its own name.

    Args:
        message: as the file of `gate.source` has it.
        signature: the inputs and outputs of the run.

    Raises:
        UnsafeModel: what is left could still do more than compute.
    """
    if not gate.refused or gate.is_loaded_whole:
        return message
    fed, fetched = ([spec.tensor_name for spec in side] for side in (signature.inputs, signature.outputs))
    graph = Graph.of(message.graph_def)
    behind = _behind(graph, _refused(graph, message, gate))
    given = [name for name in fed if node_of(name) in behind and graph.nodes[node_of(name)].op not in PLACEHOLDERS]
    definitions = {op.name: op for op in message.meta_info_def.stripped_op_list.op}
    kept = _without(_fed(graph, given, fetched, definitions, signature), message, gate)
    made = MetaGraphDef()
    made.CopyFrom(message)
    made.ClearField("collection_def")  # what they name may be gone; restoring reads none
    made.graph_def.CopyFrom(kept.to_proto())
    home = gate.source.graph_file.parent
    require_safe(gate.source.graph_file, find_dangers(MetaGraph.of(made), home), gate.allowed)
    return made


def _refused(graph: Graph, message: MetaGraphDef, gate: Gate) -> list[Danger]:
    rest = MetaGraphDef(saver_def=message.saver_def)
    found = find_dangers(MetaGraph(graph, rest), gate.source.graph_file.parent)
    return [danger for danger in found if danger.op not in gate.allowed]


def _fed(
    graph: Graph,
    given: Sequence[str],
    fetched: Sequence[str],
    definitions: Mapping[str, OpDef],
    signature: Signature,
) -> Graph:
    """Returns the graph with placeholders for inputs; they have the shapes that the signature has."""
    made = feed_inner_tensors(graph, given, fetched, definitions) if given else graph
    specs = {spec.tensor_name: spec for spec in signature.inputs}
    for node in made.node if given else ():
        if node.name not in map(node_of, given):
            continue
        node.input[:] = data_inputs(node)  # an input that is fed waits for nothing
        shapes = node.attr["_output_shapes"].list.shape
        for port in range(len(node.input) or 1):
            shape = shapes.add()
            spec = specs.get(f"{node.name}:{port}")
            sizes = None if spec is None else spec.shape
            shape.unknown_rank = sizes is None
            for size in sizes or ():
                shape.dim.add(size=-1 if size is None else size)
        if node.op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(shapes[0])
    return made


def _without(graph: Graph, message: MetaGraphDef, gate: Gate) -> Graph:
    refused = _refused(graph, message, gate)
    gone, functions = _behind(graph, refused), _functions_with(graph, refused)
    library = FunctionDefLibrary()
    library.function.extend(one for one in graph.library.function if one.signature.name not in functions)
    library.gradient.extend(
        one for one in graph.library.gradient if not {one.function_name, one.gradient_func} & functions
    )
    return Graph([_placed(node, gone) for node in graph.node if node.name not in gone], library, graph.versions)


def _placed(node: NodeDef, gone: set[str]) -> NodeDef:
    """Returns the node without the wish to be placed beside nodes that are gone."""
    places = list(node.attr["_class"].list.s) if "_class" in node.attr else []
    kept = [place for place in places if place.removeprefix(_PLACE).decode("utf-8", "replace") not in gone]
    if len(kept) < len(places):
        node = copy_node(node)
        node.attr["_class"].list.s[:] = kept
    return node


def _behind(graph: Graph, refused: Iterable[Danger]) -> set[str]:
    """Returns the nodes that are refused, that call what is, and all that is computed from them or waits for them."""
    found = list(refused)
    functions, calls = _functions_with(graph, found), Calls(graph)
    starts = {danger.node for danger in found if not danger.function}
    starts |= {node.name for node in graph.node if functions and not functions.isdisjoint(calls.called_by(node))}
    return graph.descendants(starts)


def _functions_with(graph: Graph, refused: Iterable[Danger]) -> set[str]:
    """Returns the functions that a refused op is in, and those that call them or may be exchanged for them."""
    found, calls = {danger.function for danger in refused if danger.function}, Calls(graph)
    while found:
        more = {
            name
            for name, function in graph.functions.items()
            if name not in found
            and (
                not found.isdisjoint(calls.beside(name))
                or any(not found.isdisjoint(calls.called_by(node)) for node in function.node_def)
            )
        }
        if not more:
            break
        found |= more
    return found
