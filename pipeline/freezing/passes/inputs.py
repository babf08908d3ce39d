"""Makes inner tensors inputs: their ancestors are then no longer needed."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.errors import FreezeError
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node, whole_node
from pipeline.graph.nodes import PLACEHOLDERS, is_control, node_of, normalize_tensor
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import NodeDef, OpDef

from ..write.constants import unused_name
from .prune import changed_inputs

_WHOLE = {"int32": "i", "int64": "q"}


def feed_inner_tensors(
    graph: Graph, inputs: Iterable[str], outputs: Iterable[str], definitions: Mapping[str, OpDef]
) -> Graph:
    """Returns the graph with Placeholders in place of inner tensors that are inputs.

    A node whose first output is fed becomes a Placeholder. If other outputs are fed it becomes an IdentityN of
    Placeholders, so that each tensor keeps its name. Users of its other outputs take them from a copy of the node. The
    Placeholder in place of what updates a variable, or hangs on an update, waits for the copy: pruning refuses a graph
    that reads what is updated.

    Args:
        inputs: tensors.
        outputs: tensors that will be fetched.
        definitions: of the graph's ops, as in a MetaGraphDef; not needed for TensorFlow's own.

    Raises:
        FreezeError: an input's node has no such output, or its dtype is unknown; or an output is fetched from a node of
            which another output is fed.
    """
    ports = _ports(inputs)
    inner = {node.name: whole_node(node) for node in graph.node if node.name in ports and _is_computed(graph, node)}
    if not inner:
        return graph
    for tensor in map(normalize_tensor, outputs):
        name, port = tensor.rsplit(":", 1)
        if name in inner and port not in ports[name]:
            raise FreezeError(
                "this tensor is fetched, and another one of its node is fed",
                where=tensor,
                got=f"{', '.join(f'{name}:{fed}' for fed in sorted(ports[name]))} among the inputs",
                next_step="Feed an input of the node, or fetch a tensor computed from it",
            )
    dtypes = {name: output_dtypes(node, graph.functions, definitions) for name, node in inner.items()}
    return _insert_placeholders(graph, inner, {name: ports[name] for name in inner}, dtypes)


def _is_computed(graph: Graph, node: NodeDef) -> bool:
    """Returns True for an inner tensor, and for a default that is computed: not from constants alone."""
    if node.op != "PlaceholderWithDefault":
        return node.op not in PLACEHOLDERS
    behind = (graph.nodes[name] for name in graph.ancestors([node.name], with_control=False))
    return any(one.op != "Const" and not any(not is_control(given) for given in one.input) for one in behind)


def _ports(inputs: Iterable[str]) -> dict[str, set[str]]:
    """Returns the fed outputs by node, as text: they may be no numbers."""
    ports: dict[str, set[str]] = {}
    for tensor in map(normalize_tensor, inputs):
        name, port = tensor.rsplit(":", 1)
        ports.setdefault(name, set()).add(port)
    return ports


def _insert_placeholders(
    graph: Graph,
    inner: Mapping[str, NodeDef],
    ports: Mapping[str, set[str]],
    dtypes: Mapping[str, Sequence[int] | None],
) -> Graph:
    taken = set(graph.nodes)
    copies = {name: unused_name(f"{name}/computed", taken) for name in inner}
    nodes: list[NodeDef] = []
    for node in graph.node:
        inputs = [_move_input(reference, copies, ports) for reference in node.input]
        if inputs != list(node.input) or node.name in inner:
            node = copy_node(node)
            node.input[:] = inputs
        nodes.append(node)
        if node.name in inner:
            placeholders = _make_placeholders(inner[node.name], ports[node.name], dtypes[node.name], taken)
            if hangs_on_updates(graph, node.name):  # pruning drops the edge, if nothing reads what is updated
                placeholders[0].input.append(f"^{copies[node.name]}")
            nodes += placeholders
            node.name = copies[node.name]
    return graph.replace_nodes(nodes)


def hangs_on_updates(graph: Graph, name: str) -> bool:
    """Returns True if a node updates a variable, or is computed from such a node or waits for one.

    Whoever waits for the node waits for the update: an input in its place does not take that away from the model.
    """
    above = graph.ancestors([name], with_control=True)
    return any(bool(changed_inputs(graph.nodes[one], graph)) for one in above)


def _move_input(reference: str, copies: Mapping[str, str], ports: Mapping[str, set[str]]) -> str:
    """Returns an input, redirected to the copy if its node is replaced and this output is not fed."""
    name = node_of(reference)
    if name not in copies or is_control(reference):
        return reference
    port = normalize_tensor(reference).rpartition(":")[2]
    return reference if port in ports[name] else f"{copies[name]}:{port}"


def _make_placeholders(node: NodeDef, ports: set[str], dtypes: Sequence[int] | None, taken: set[str]) -> list[NodeDef]:
    """Returns the nodes that replace a node, under its name."""
    for port in sorted(ports):
        if dtypes is None or not port.isdecimal() or int(port) >= len(dtypes):
            raise FreezeError(
                "this tensor cannot be made an input",
                where=f"{node.name}:{port}",
                got=f"a {node.op} of {'an unknown number of' if dtypes is None else len(dtypes)} outputs",
                next_step="Give an output that the node has",
            )
    assert dtypes is not None  # there is at least one port, so this was checked above
    numbers = sorted(map(int, ports))
    if numbers == [0]:
        return [_placeholder(node, node.name, 0, dtypes[0])]
    names = {number: unused_name(f"{node.name}/{number}", taken) for number in numbers}
    placeholders = [_placeholder(node, names[number], number, dtypes[number]) for number in numbers]
    together = NodeDef(name=node.name, op="IdentityN")
    for number in range(numbers[-1] + 1):  # a filler for an output that is neither fed nor read
        given = number if number in names else numbers[0]
        together.input.append(names[given])
        together.attr["T"].list.type.append(dtypes[given])
    return [*placeholders, together]


def _placeholder(node: NodeDef, name: str, port: int, dtype: int) -> NodeDef:
    placeholder = NodeDef(name=name, op="Placeholder")
    placeholder.attr["dtype"].type = dtype
    shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    if node.op == "PlaceholderWithDefault":
        placeholder.attr["shape"].CopyFrom(node.attr["shape"])
    elif port < len(shapes):
        placeholder.attr["shape"].shape.CopyFrom(shapes[port])
    else:
        placeholder.attr["shape"].shape.unknown_rank = True
    return placeholder


def unknown_shapes(graph: Graph, needed: Collection[str]) -> list[str]:
    """Returns the shapes of sparse placeholders whose default has a -1 for what is open: TensorFlow ends on reading it.

    Args:
        needed: the nodes that the outputs need.
    """
    return [node.name for node in graph.node if node.name in needed and _is_open_shape(node, graph)]


def _is_open_shape(node: NodeDef, graph: Graph) -> bool:
    prefix = node.name.removesuffix("/shape")
    if node.op != "PlaceholderWithDefault" or prefix == node.name or f"{prefix}/indices" not in graph.nodes:
        return False
    default = graph.nodes.get(node_of(node.input[0]), NodeDef())
    if default.op != "Const":
        return False
    from pipeline.graph.tensors import content_of  # loads NumPy, which freezing mostly does without

    tensor = whole_node(default).attr["value"].tensor
    kind = _WHOLE.get(DTYPES[tensor.dtype].name) if tensor.dtype in DTYPES else None
    return kind is not None and any(size < 0 for size in array(kind, bytes(content_of(tensor))))
