"""One side of the comparison: a graph with its inputs, outputs, constants and variables, as the files hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.source import open_artifact, open_source
from pipeline.errors import CheckpointError, DataError
from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.graph import Graph
from pipeline.graph.lazy import load_lazily
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import PLACEHOLDERS, node_of, normalize_tensor, placeholder_dims
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import Saved
from pipeline.safety.models import require_mapped
from pipeline.signature import Signature, TensorSpec, read_origin
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, SAVED_MODEL_FILE, SIGNATURE_FILE

from .contents import Content, content_of_array, content_of_tensor, content_of_variable, join_strings
from .saved_names import saved_names

Identity = tuple[str, str]
_AVERAGE = "ExponentialMovingAverage"  # tensorflow/python/training/moving_averages.py


@dataclass(frozen=True)
class Model:
    """A graph that is compared.

    Args:
        side: `checkpoint` or `candidate`.
        inputs: the names of inputs by tensor, as `node:port`.
        outputs: tensors by the names of outputs.
        fixed: the text that stands for a placeholder's value, by tensor.
        variable: returns the content of a variable by its container and shared name, and its node's name.
        contents: the contents of large constants that are not in their message, by node.
        folder: of the files that ImmutableConst names.
        pure: ops that are not TensorFlow's, and of which the model says that they keep no state.
    """

    side: str
    graph: Graph
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    fixed: Mapping[str, str] = field(default_factory=dict)
    variable: Callable[[Identity, str], Content | None] = lambda identity, name: None
    contents: Mapping[str, memoryview] = field(default_factory=dict)
    folder: Path = Path()
    pure: frozenset[str] = frozenset()

    def input_kind(self, name: str) -> tuple[int | None, tuple[int | None, ...] | None]:
        """Returns dtype and shape of an input, each None if it is open or not known, as an inner tensor's shape is."""
        tensor, node = self._fed(name)
        if node is None:
            return None, None
        whole, port = whole_node(node), int(tensor.partition(":")[2] or 0)
        dtypes = output_dtypes(whole, self.graph.functions) or ()
        shape = placeholder_dims(whole, self.graph.versions.producer) if node.op in PLACEHOLDERS else None
        return dtypes[port] if port < len(dtypes) else None, shape

    def is_placeholder(self, name: str) -> bool:
        """Returns True if an input is a placeholder, and not an inner tensor."""
        node = self._fed(name)[1]
        return node is not None and node.op in PLACEHOLDERS

    def _fed(self, name: str) -> tuple[str, NodeDef | None]:
        tensor = next((tensor for tensor, own in self.inputs.items() if own == name), "")
        return tensor, self.graph.nodes.get(node_of(tensor))

    def constant(self, node: NodeDef, is_inner: bool) -> Content:
        """Returns the content of a Const or an ImmutableConst.

        Args:
            is_inner: the node is in a function.

        Raises:
            DataError: the message is broken, or a file cannot be read.
        """
        if node.op == "ImmutableConst":
            path = require_mapped(self.folder, node)
            shape = tuple(dim.size for dim in node.attr["shape"].shape.dim)
            return Content(node.attr["dtype"].type, shape, path.stat().st_size, path.read_bytes, node.name)
        tensor = node.attr["value"].tensor
        if tensor.dtype != node.attr["dtype"].type:
            raise DataError("a constant is of another dtype than its value", where=f"node {node.name}")
        return content_of_tensor(tensor, None if is_inner else self.contents.get(node.name), node.name)


def model_of_files(
    side: str, source: Source, inputs: Sequence[str], outputs: Sequence[str], pins: Mapping[str, str] | None = None
) -> Model:
    """Returns the side of a source whose inputs and outputs are named by their tensors."""
    signature = Signature(
        tuple(TensorSpec(name, "float32", None, normalize_tensor(name)) for name in inputs),
        tuple(TensorSpec(name, "float32", None, normalize_tensor(name)) for name in outputs),
    )
    return _of_source(side, source, signature, {normalize_tensor(name): text for name, text in (pins or {}).items()})


def open_checkpoint_model(checkpoint: Path) -> Model:
    """Opens the checkpoint's side: its graph as it was saved, and what its Saver restores.

    Args:
        checkpoint: the artifact with `signature.json`, and `model.ckpt.*` or `saved_model/`.

    Raises:
        CheckpointError: it is damaged.
    """
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    source = open_artifact(checkpoint, origin.get("signature"))
    pins = {normalize_tensor(source.inputs.get(name, name)): text for name, text in origin.get("pins", {}).items()}
    return _of_source("checkpoint", source, signature, pins)


def open_candidate_model(folder: Path) -> Model:
    """Opens the candidate's side: `model.pb`, `graph.pb` with `weights/`, or a SavedModel.

    Raises:
        CheckpointError, DataError: it is damaged.
    """
    signature, origin = Signature.read(folder / SIGNATURE_FILE), read_origin(folder / SIGNATURE_FILE)
    fed = {normalize_tensor(name): text for name, text in origin.get("candidate", {}).get("fed", {}).items()}
    if (folder / SAVED_MODEL_FILE).is_file():
        key = origin.get("candidate", {}).get("signature")
        return _of_source("candidate", open_source(folder, None, key), signature, fed)
    path = folder / (GRAPH_FILE if (folder / GRAPH_FILE).is_file() else FROZEN_FILE)
    lazy = load_lazily(path)
    return Model("candidate", lazy.graph, *_ports(signature, {}, {}), fed, contents=lazy.contents, folder=folder)


def _of_source(side: str, source: Source, signature: Signature, fixed: Mapping[str, str]) -> Model:
    names = {} if source.kind == "SavedModel" else saved_names(source)

    def variable(identity: Identity, name: str) -> Content | None:
        saved = names.get(identity) or source.keys.get(identity, Saved(identity[1]))
        average = f"{saved.key}/{_AVERAGE}"
        if source.has_averages and average in source.bundle.tensors:
            saved = replace(saved, key=average)
        try:
            return content_of_variable(source.bundle, saved.key, saved.part, name)
        except (CheckpointError, ValueError):
            return None

    pure = frozenset(name for name, definition in source.definitions.items() if not definition.is_stateful)
    ports = _ports(signature, source.inputs, source.outputs)
    return Model(side, source.graph, *ports, fixed, variable, pure=pure)


def _ports(
    signature: Signature, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the names of inputs by tensor, and the tensors of outputs by name."""

    def tensor(spec: TensorSpec, own: Mapping[str, str]) -> str:
        known = own.get(spec.tensor_name) or own.get(spec.name)
        return normalize_tensor(known or spec.tensor_name)

    fed = {tensor(spec, inputs): spec.name for spec in signature.inputs}
    return fed, {spec.name: tensor(spec, outputs) for spec in signature.outputs}


def fixed_content(text: str, dtype: int, shape: tuple[int, ...] | None) -> Content:
    """Returns the content of a placeholder that has a fixed value.

    Args:
        text: the value.
        shape: the placeholder's, if all of its lengths are known.
    """
    if dtype == STRING.number:
        joined = join_strings([text.encode()])
        return Content(dtype, (), len(joined), lambda: joined)
    kind = DTYPES[dtype].numpy()
    value = text.lower() in ("true", "1") if kind.kind == "b" else kind.type(text)
    return content_of_array(np.full(shape or (), value, kind), dtype)
