"""What a frozen graph demands of its inputs: its variables are constants there, with the shapes of the checkpoint."""

from __future__ import annotations

from pathlib import Path

from pipeline.checkpoint.source import open_artifact
from pipeline.graph.demands import LEFT_OUT, Demands, demands_of
from pipeline.graph.graph import Graph
from pipeline.graph.protos import NodeDef
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import SIGNATURE_FILE

from .freeze import prepare
from .write.constants import Constant, FrozenGraph


def demands_of_frozen(frozen: FrozenGraph, signature: Signature) -> Demands:
    """Finds out what a frozen graph demands of the inputs of its signature."""
    nodes = [_without_values(node) if isinstance(node, Constant) else node for node in frozen.nodes]
    return demands_of(Graph(nodes, frozen.library, frozen.versions), signature.inputs)


def demands_of_artifact(checkpoint: Path) -> Demands:
    """Finds out what the graph of a checkpoint's artifact demands of its inputs.

    Raises:
        CheckpointError: the checkpoint's files are damaged, or do not match the graph.
        FreezeError: the graph cannot become a correct .pb.
    """
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    outputs, inputs = ([spec.tensor or spec.name for spec in specs] for specs in (signature.outputs, signature.inputs))
    source = open_artifact(checkpoint, origin.get("signature"))
    return demands_of_frozen(prepare(source, outputs, inputs, origin.get("pins", {})).graph, signature)


def _without_values(constant: Constant) -> NodeDef:
    node = NodeDef(name=constant.name, op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = constant.dtype
    for size in constant.shape:
        tensor.tensor_shape.dim.add(size=size)
    node.attr[LEFT_OUT].b = True
    return node
