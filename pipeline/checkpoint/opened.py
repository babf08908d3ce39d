"""Source: an opened graph, and the checkpoint with its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.protos import NodeDef, OpDef, TensorInfo
from pipeline.graph.variables import VARIABLE_OPS, Saved

from .bundle import Bundle


@dataclass(frozen=True)
class Inference:
    """What was rewritten in a graph that was built for training, so that it computes as the model is used.

    Args:
        nodes: those that replace nodes of their names, and new ones.
        batch_norms: number of batch norms that take their moving averages now.
        dropouts: number of dropouts that pass on what they get.
        statistics: nodes that batch norm took its statistics from, and that no output may need.
    """

    nodes: Mapping[str, NodeDef]
    batch_norms: int
    dropouts: int
    statistics: frozenset[str] = frozenset()


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
        inference: what was rewritten in the graph, if it was built for training.
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
    inference: Inference | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_variables(self) -> bool:
        """True if the graph has variables, in functions too."""
        return any(node.op in VARIABLE_OPS for node in self.graph.all_nodes())
