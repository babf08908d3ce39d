"""What a frozen graph demands of its inputs: its variables are constants there, with the shapes of the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.source import open_artifact
from pipeline.graph.demands import LEFT_OUT, Demands, demands_of
from pipeline.graph.dtypes import STRING
from pipeline.graph.graph import Graph
from pipeline.graph.protos import NodeDef
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import SIGNATURE_FILE

from .freeze import Prepared, prepare
from .table_keys import keys_of_mutable_tables, keys_of_tables
from .write.constants import Constant, FrozenGraph, content, strings

_MOST_KEYS = 1_000_000


def demands_of_frozen(frozen: FrozenGraph, bundle: Bundle, signature: Signature) -> Demands:
    """Finds out what a frozen graph demands of the inputs of its signature.

    Args:
        bundle: the checkpoint, from which the keys of tables are read.
    """
    keys = set(keys_of_mutable_tables(frozen.nodes))
    nodes = [
        _with_keys(node, bundle) if node.name in keys else _without_values(node) if isinstance(node, Constant) else node
        for node in frozen.nodes
    ]
    return demands_of(Graph(nodes, frozen.library, frozen.versions), signature.inputs)


def demands_of_artifact(checkpoint: Path) -> Demands:
    """Finds out what the graph of a checkpoint's artifact demands of its inputs.

    Raises:
        CheckpointError: the checkpoint's files are damaged, or do not match the graph.
        FreezeError: the graph cannot become a correct .pb.
    """
    signature, prepared = _prepare(checkpoint)
    return demands_of_frozen(prepared.graph, prepared.bundle, signature)


def nodes_of_artifact(checkpoint: Path) -> frozenset[str]:
    """Returns the names of the nodes that a .pb of a checkpoint's artifact carries, those inside functions too.

    Raises: as `demands_of_artifact`.
    """
    _, prepared = _prepare(checkpoint)
    inner = (node.name for function in prepared.graph.library.function for node in function.node_def)
    return frozenset([*(node.name for node in prepared.graph.nodes), *inner])


def keys_of_artifact(checkpoint: Path) -> dict[str, list[Any]]:
    """Returns by dtype the keys of the lookup tables that a .pb of a checkpoint's artifact fills; each once.

    Raises: as `demands_of_artifact`.
    """
    _, prepared = _prepare(checkpoint)
    names = set(keys_of_mutable_tables(prepared.graph.nodes))
    return keys_of_tables(
        _with_keys(node, prepared.bundle) if node.name in names else node for node in prepared.graph.nodes
    )


def _prepare(checkpoint: Path) -> tuple[Signature, Prepared]:
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    outputs, inputs = ([spec.tensor or spec.name for spec in specs] for specs in (signature.outputs, signature.inputs))
    source = open_artifact(checkpoint, origin.get("signature"))
    return signature, prepare(source, outputs, inputs, origin.get("pins", {}))


def _with_keys(node: NodeDef | Constant, bundle: Bundle) -> NodeDef:
    """Returns a constant with its values, which are the keys of a table."""
    if not isinstance(node, Constant):
        return node
    new = _without_values(node)
    if node.elements <= _MOST_KEYS:
        tensor = new.attr["value"].tensor
        if node.dtype == STRING.number:
            tensor.string_val.extend(strings(node, bundle))
        else:
            tensor.tensor_content = b"".join(content(node, bundle))
        del new.attr[LEFT_OUT]
    return new


def _without_values(constant: Constant) -> NodeDef:
    node = NodeDef(name=constant.name, op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = constant.dtype
    for size in constant.shape:
        tensor.tensor_shape.dim.add(size=size)
    node.attr[LEFT_OUT].b = True
    return node
