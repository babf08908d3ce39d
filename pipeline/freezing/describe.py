"""Describes a frozen graph: its signature, and the variables and inputs behind each output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoint.opened import Source
from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, dims_of, node_of, normalize_tensor, placeholder_dims
from pipeline.graph.ops import dtype_name, output_dtypes
from pipeline.graph.protos import NodeDef, OpDef, TensorInfo
from pipeline.graph.variables import VARIABLE_OPS, variable_of
from pipeline.hashing import hash_file
from pipeline.signature import DTYPES as DTYPE_NAMES
from pipeline.signature import Shape, Signature, TensorSpec

from .passes.lookup_tables import TABLES
from .write.constants import Constant, FrozenGraph

_MOST_STEPS = 20
_KEEPING = frozenset({"Elu", "Identity", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh"})
_ADDING = frozenset({"Add", "AddV2", "BiasAdd"})
_READS = frozenset({"Identity", "ReadVariableOp", "Cast"})


class Describer:
    """Finds dtypes and shapes of a graph's tensors.

    Args:
        graph: the graph before variables become constants.
        definitions: of the ops, as far as the graph brings them along.
        infos: dtypes and shapes of a signature; they win over the graph's.
    """

    def __init__(
        self, graph: Graph, definitions: Mapping[str, OpDef], infos: Mapping[str, TensorInfo] | None = None
    ) -> None:
        self._graph = graph
        self._definitions = definitions
        self._infos = infos or {}

    def spec(self, name: str, tensor: str) -> TensorSpec:
        """Returns a tensor as an entry of a signature.

        Raises:
            FreezeError: its dtype is unknown, or cannot be fed or fetched.
        """
        tensor = normalize_tensor(tensor)
        op = self._graph.nodes[node_of(tensor)].op
        dtype, shape = self._dtype(tensor), self._shape(tensor)
        if dtype not in DTYPE_NAMES:
            raise FreezeError(
                "this tensor can be neither fed nor fetched",
                where=tensor,
                got=f"dtype {dtype}" if dtype else f"an op that TensorFlow lacks, {op}",
                next_step="Name a tensor that holds values",
            )
        return TensorSpec(name, dtype, shape, tensor if tensor != f"{name}:0" else None)

    def _dtype(self, tensor: str) -> str:
        if tensor in self._infos:
            return dtype_name(self._infos[tensor].dtype)
        node = whole_node(self._graph.nodes[node_of(tensor)])
        if node.op in VARIABLE_OPS:
            return dtype_name(variable_of(node).dtype)
        dtypes = output_dtypes(node, self._graph.functions, self._definitions)
        port = int(tensor.rpartition(":")[2])
        return dtype_name(dtypes[port]) if dtypes is not None and port < len(dtypes) else ""

    def _shape(self, tensor: str) -> Shape | None:
        if tensor in self._infos:
            return dims_of(self._infos[tensor].tensor_shape)
        node, port = whole_node(self._graph.nodes[node_of(tensor)]), int(tensor.rpartition(":")[2])
        if node.op in VARIABLE_OPS:
            return variable_of(node).shape
        shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
        if port < len(shapes):
            return dims_of(shapes[port])
        return placeholder_dims(node, self._graph.versions.producer) if node.op in PLACEHOLDERS else self._made(node)

    def _made(self, node: NodeDef) -> Shape | None:
        """Returns the shape of what a dense layer ends with, in a graph that tells no shapes; None for all else."""
        widths = list[int | None]()
        for _ in range(_MOST_STEPS):
            given = list(data_inputs(node))
            if node.op == "MatMul":
                kernel = self._weights(given[1])
                if kernel is None or len(kernel) != 2:
                    return None
                widths.append(kernel[0 if node.attr["transpose_b"].b else 1])
                known = [width for width in widths if width is not None]
                return (None, max(known)) if len(known) == len(widths) else None
            if node.op in _ADDING:
                added = [(number, shape) for number in (1, 0) if (shape := self._weights(given[number])) is not None]
                if not added or len(added[0][1]) != 1:
                    return None
                widths += added[0][1]
                given = [given[1 - added[0][0]]]
            elif node.op not in _KEEPING:
                return None
            node = whole_node(self._graph.nodes[node_of(given[0])])
        return None

    def _weights(self, reference: str) -> Shape | None:
        """Returns the shape of a variable or constant behind reads; None for all else."""
        node = whole_node(self._graph.nodes[node_of(reference)])
        for _ in range(_MOST_STEPS):
            if node.op in _READS:
                node = whole_node(self._graph.nodes[node_of(node.input[0])])
        if node.op in VARIABLE_OPS:
            return variable_of(node).shape
        return dims_of(node.attr["value"].tensor.tensor_shape) if node.op == "Const" else None


def describe_signature(
    describer: Describer, frozen: FrozenGraph, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Signature:
    """Returns the signature of a frozen graph.

    Args:
        inputs: tensors by name; other placeholders that the outputs need are added after them.
        outputs: tensors by name.
    """
    given = {node_of(tensor) for tensor in inputs.values()}
    # A node with several fed outputs is made of several placeholders.
    given |= {
        node_of(r) for node in frozen.nodes if isinstance(node, NodeDef) and node.name in given for r in node.input
    }
    needed = {
        node.name: normalize_tensor(node.name)
        for node in frozen.nodes
        if isinstance(node, NodeDef) and node.op in ("Placeholder", "PlaceholderV2") and node.name not in given
    }
    return Signature(
        tuple(describer.spec(name, tensor) for name, tensor in {**inputs, **needed}.items()),
        tuple(describer.spec(name, tensor) for name, tensor in outputs.items()),
    )


def find_inner_rows(frozen: FrozenGraph) -> str | None:
    """Returns the constant of a graph without inputs that is most likely its rows: the largest; None if there is none.

    The rows of an Estimator with a constant `input_fn` are such a constant.
    """
    constants = [node for node in frozen.nodes if isinstance(node, NodeDef) and node.op == "Const"]
    sizes = {node.name: [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim] for node in constants}
    rows = {name: math.prod(dims) for name, dims in sizes.items() if len(dims) > 1}
    return max(rows, key=rows.__getitem__, default=None)


def describe_origin(source: Source, frozen: FrozenGraph, outputs: Mapping[str, str]) -> dict[str, Any]:
    """Returns the origin of a frozen graph as plain JSON values: checkpoint, tables, and the needs of each output.

    Args:
        outputs: tensors by name.
    """
    return {"checkpoint": _checkpoint(source), "tables": list(_tables(frozen)), "outputs": _outputs(frozen, outputs)}


def _checkpoint(source: Source) -> dict[str, Any]:
    """Returns the files that decide the values. An index holds every tensor's CRC-32C, so its hash covers all data."""
    prefix = source.bundle.prefix
    index = Path(f"{prefix}.index")
    file = index if index.is_file() else Path(prefix)
    return {
        "kind": source.kind,
        "name": Path(source.path).name,
        "index_sha256": hash_file(file) if file.is_file() and source.bundle.tensors else None,
        "graph": source.graph_file.name,
        "graph_sha256": hash_file(source.graph_file),
    }


def _tables(frozen: FrozenGraph) -> Iterator[dict[str, str]]:
    for node in frozen.nodes:
        if isinstance(node, NodeDef) and node.op in TABLES:
            keys, values = (dtype_name(node.attr[name].type) for name in ("key_dtype", "value_dtype"))
            yield {"name": node.name, "keys": keys, "values": values}


def _outputs(frozen: FrozenGraph, outputs: Mapping[str, str]) -> dict[str, Any]:
    constants = {node.name: node for node in frozen.nodes if isinstance(node, Constant)}
    # A constant has no inputs: a leaf of the walk.
    graph = Graph(NodeDef(name=node.name, op="Const") if isinstance(node, Constant) else node for node in frozen.nodes)
    described = {}
    for name, tensor in outputs.items():
        needed = graph.ancestors([node_of(tensor)], with_control=True)
        described[name] = {
            "tensor": normalize_tensor(tensor),
            "op": graph.nodes[node_of(tensor)].op,
            "inputs": sorted(node for node in needed if graph.nodes[node].op in PLACEHOLDERS),
            "variables": sorted({constants[node].tensor.key for node in needed if node in constants}),
        }
    return described
