"""Source: an opened graph, and the checkpoint with its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.protos import OpDef, TensorInfo
from pipeline.graph.variables import VARIABLE_OPS, Saved

from .bundle import Bundle


@dataclass(frozen=True)
class Source:
    """A graph, and the checkpoint with its values.

    Args:
        path: the prefix, the SavedModel's folder, or the GraphDef's file.
        kind: `checkpoint`, `SavedModel` or `GraphDef`.
        graph: the graph as saved; of a SavedModel with the current paths of assets, and its own ops fill its tables.
        graph_file: the file of the graph.
        bundle: the variables' values; empty without a checkpoint.
        keys: the place of a variable in the bundle, by the variable's identity; without an entry, its name is the key.
        inputs: tensors by their names in the signature; empty without a signature. A sparse tensor is three, as
            `name/indices`.
        outputs: the same for outputs.
        infos: dtypes and shapes in the signature, by tensor.
        signature_key: the signature's name; None if there is none, or if outputs were named instead.
        signature_keys: the names of all signatures.
        definitions: the ops that a MetaGraphDef brings along, by name.
        assets: files by the tensors of the graph that hold their paths.
        metas: all graphs of the file, unchanged, this one first.
        has_averages: the variables have the values of their moving averages.
        notes: sentences on what was chosen, where there was a choice.
    """

    path: Path | str
    kind: str
    graph: Graph
    graph_file: Path
    bundle: Bundle
    keys: Mapping[tuple[str, str], Saved] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    infos: Mapping[str, TensorInfo] = field(default_factory=dict)
    signature_key: str | None = None
    signature_keys: tuple[str, ...] = ()
    definitions: Mapping[str, OpDef] = field(default_factory=dict)
    assets: Mapping[str, Path] = field(default_factory=dict)
    metas: tuple[MetaGraph, ...] = ()
    has_averages: bool = False
    notes: tuple[str, ...] = ()

    @property
    def has_variables(self) -> bool:
        """True if the graph has variables, in functions too."""
        return any(node.op in VARIABLE_OPS for node in self.graph.all_nodes())
