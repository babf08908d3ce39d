"""Rewrites a graph that was built for training, so that it computes as the model is used.

Batch norm takes the moving averages that its own updates keep, and a dropout of a constant rate passes on what it
gets: what the code builds with `training=False`. Which variable is the average of what is read from the graph, and
names mean nothing. Where a batch norm has no averages, no output that needs it is frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

from pipeline.checkpoint.opened import Inference, Source
from pipeline.errors import FreezeError
from pipeline.graph.discovery.gradients import find_gradients
from pipeline.graph.discovery.topology import number_graph
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import control_inputs
from pipeline.graph.protos import GraphDef, MetaGraphDef, NodeDef
from pipeline.graph.variables import Saved

from ..dropouts import find_dropouts
from ..passes.batch_norms import trains
from ..passes.pin_placeholders import pin_placeholders
from .norms import switch_norms, takes_moments
from .updates import Update, find_updates

_FOUND: WeakKeyDictionary[Graph, Inference | None] = WeakKeyDictionary()  # messages ask for many outputs


def take_inference(source: Source) -> Source:
    """Returns the source with its graph rewritten for inference.

    Raises:
        FreezeError: there is nothing to rewrite.
    """
    found = find_inference(source)
    if found is None:
        is_saved_model = source.kind == "SavedModel"
        raise FreezeError(
            "the graph of a SavedModel is taken as it is"
            if is_saved_model
            else "nothing in this graph is in training mode that could be switched",
            where=f"--inference, {source.path}",
            wanted="a batch norm that takes the batch's statistics, with moving averages that the graph updates; or a "
            "dropout of a constant rate",
            next_step="Leave --inference out",
        )
    return with_inference(source, found)


def offer_inference(source: Source) -> Source | None:
    """Returns the source rewritten for inference, if a batch norm in it is in training mode and has its averages."""
    if source.inference is not None or source.kind == "SavedModel":
        return None
    if source.graph not in _FOUND:
        _FOUND[source.graph] = find_inference(source) if find_updates(source.graph) else None
    found = _FOUND[source.graph]
    return with_inference(source, found) if found is not None and found.batch_norms else None


def with_inference(source: Source, found: Inference) -> Source:
    """Returns the source with these nodes in its graph, and a note on them."""
    graph = source.graph.replace_nodes(_merged(source.graph.node, found.nodes))
    note = f"the graph was built for training: --inference lets {told(found)}"
    return replace(source, graph=graph, inference=found, notes=(*source.notes, note))


def told(found: Inference) -> str:
    """Returns what was rewritten, in words."""
    norms, dropouts = found.batch_norms, found.dropouts
    parts = []
    if norms:
        take = "batch norms take their moving averages" if norms > 1 else "batch norm takes its moving averages"
        parts.append(f"{norms} {take}")
    if dropouts:
        parts.append(f"{dropouts} {'dropouts pass on all' if dropouts > 1 else 'dropout passes on all'}")
    return " and ".join(parts)


def find_inference(source: Source) -> Inference | None:
    """Finds what switches a training graph to inference; None if there is nothing."""
    if source.kind == "SavedModel":
        return None
    graph = source.graph
    forward = _forward(graph)
    updates = [one for one in find_updates(forward) if _is_saved(source, one)]
    edits = switch_norms(forward, updates)
    switched = graph.replace_nodes(_merged(graph.node, edits.nodes))
    dropouts = find_dropouts(_forward(switched), [node.name for node in switched.node], ())
    pins = {name: value for one in dropouts for name, value in one.items()}
    if not edits.norms and not pins:
        return None
    nodes = dict(edits.nodes)
    for node in pin_placeholders(switched, pins).node if pins else ():
        if node.name in pins:
            node.input[:] = control_inputs(graph.nodes[node.name])  # in a loop they tell where it is
            nodes[node.name] = node
    return Inference(nodes, len(edits.norms), len(dropouts), frozenset(edits.reductions))


def write_inference(message: MetaGraphDef, found: Inference | None) -> MetaGraphDef:
    """Returns the message of a graph, rewritten."""
    if found is None:
        return message
    made = MetaGraphDef()
    made.CopyFrom(message)
    made.ClearField("graph_def")
    graph = message.graph_def
    made.graph_def.CopyFrom(GraphDef(library=graph.library, versions=graph.versions))
    made.graph_def.node.extend(_merged(graph.node, found.nodes))
    return made


def require_inference(source: Source, nodes: Iterable[NodeDef]) -> None:
    """Checks that no node of a frozen graph takes statistics of the batch, where the graph was to be for inference.

    Raises:
        FreezeError: one does.
    """
    found = training_norm(source, nodes) if source.inference is not None else None
    if found is not None:
        raise FreezeError(
            "a batch norm takes the batch's own statistics, and the graph keeps no moving averages of them that "
            "are in the checkpoint",
            where=f"node {found}",
            next_step="Give the graph that is built for inference (--graph-file, for `freeze` --graph), or leave "
            "--inference out",
        )


def training_norm(source: Source, nodes: Iterable[NodeDef]) -> str | None:
    """Returns the first node that takes statistics of a batch as batch norm does in training; None if there is none.

    Args:
        nodes: of the source's graph, or of a frozen graph made of it.
    """
    known = batch_statistics(source)
    for node in nodes:
        if node.name in known or trains(node) or takes_moments(source.graph, node):
            return str(node.name)
    return None


def batch_statistics(source: Source) -> frozenset[str]:
    """Returns the nodes that batch norm takes its statistics from, and of which the graph keeps averages."""
    offered = source if source.inference is not None else offer_inference(source)
    return frozenset() if offered is None or offered.inference is None else offered.inference.statistics


def _is_saved(source: Source, update: Update) -> bool:
    saved = source.keys.get(update.variable.identity, Saved(update.variable.identity[1]))
    return saved.key in source.bundle.tensors


def _forward(graph: Graph) -> Graph:
    """Returns the graph without its gradients, which take the masks of dropouts as well."""
    numbered = number_graph(graph)
    gone = {numbered.nodes[index].name for index in find_gradients(numbered).nodes if index < len(numbered.nodes)}
    return graph.replace_nodes(node for node in graph.node if node.name not in gone)


def _merged(nodes: Iterable[NodeDef], edits: Mapping[str, NodeDef]) -> list[NodeDef]:
    kept = [edits.get(node.name, node) for node in nodes]
    known = {node.name for node in kept}
    return [*kept, *(node for name, node in edits.items() if name not in known)]
