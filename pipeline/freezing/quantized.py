"""Answers for training graphs of quantization-aware training, which assign the ranges of FakeQuant nodes on the way.

TensorFlow 1 writes two graphs (tf.contrib.quantize.create_training_graph, create_eval_graph). Only that of evaluation
can be frozen: there the ranges are variables that the training left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.source import open_source
from pipeline.errors import FreezeError, PipelineError
from pipeline.graph.discovery import discover_outputs
from pipeline.graph.nodes import node_of
from pipeline.graph.unsupported import CHANGES_STATE, refusal_of

from .needs import Needs, find_needs

_GRAPHS = (".meta", ".pb", ".pbtxt")
_MOST_GRAPHS = 8


def find_assigned_ranges(source: Source, outputs: Iterable[str]) -> list[str]:
    """Returns the FakeQuant nodes before outputs whose ranges are assigned on the way."""
    graph = source.graph
    above = graph.ancestors(map(node_of, outputs), with_control=False)
    quantized = [name for name in above if graph.nodes[name].op.startswith("FakeQuantWithMinMaxVars")]
    changing = {node.name for node in graph.node if refusal_of(node.op) is CHANGES_STATE} if quantized else set()
    # A resource variable is read again after it is assigned: the read only waits for that.
    return sorted(name for name in quantized if changing & graph.ancestors([name], with_control=True))


def find_evaluation_graphs(source: Source, outputs: Sequence[str]) -> Iterator[tuple[Path, list[str], Needs]]:
    """Yields the other graphs of the checkpoint's folder that freeze with it, their outputs, and what they need."""
    folder = source.graph_file.parent
    others = [path for path in sorted(folder.iterdir()) if path.suffix in _GRAPHS and path != source.graph_file]
    for path in others[:_MOST_GRAPHS]:
        try:
            other = open_source(source.bundle.prefix, path)
            same = all(node_of(name) in other.graph.nodes for name in outputs)
            found = list(outputs) if same else discover_outputs(other.graph)
            needs = find_needs(other, found, [], {})
        except PipelineError:
            continue
        if isinstance(needs, Needs) and not needs.inputs:
            yield path, found, needs


def refuse_training_graph(quantized: Sequence[str], commands: Sequence[str]) -> FreezeError:
    """Returns the error for a training graph.

    Args:
        quantized: the FakeQuant nodes whose ranges are assigned.
        commands: that freeze other graphs with the same checkpoint.
    """
    advice = "Freeze the graph of evaluation instead, with this checkpoint"
    lack = (
        f"{advice}: build the model without training (tf.contrib.quantize.create_eval_graph), write its graph beside it"
    )
    return FreezeError(
        "this is a training graph of quantization-aware training: it assigns the ranges of FakeQuant nodes on the way",
        where=f"{quantized[0]} and {len(quantized) - 1} more" if len(quantized) > 1 else quantized[0],
        next_step="\n  ".join([f"{advice}:", *commands])
        if commands
        else f"{lack} and give it with --graph-file (for `freeze`: --graph)",
    )
