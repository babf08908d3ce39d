"""Switches fused batch norms that are built for training to the averages that the training kept of their statistics.

A fused batch norm in training mode gives the batch's mean and variance as its outputs 1 and 2, and the graph updates
one variable with each. In the graph for inference the node has these two variables as its inputs 3 and 4, and
`is_training` is false (tensorflow/core/ops/nn_ops.cc, FusedBatchNormV3). So nothing has to be guessed: which variable
is which shows in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, node_of, normalize_tensor
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import REFERENCE_OPS, VARIABLE_OPS, Variable

from .prune import changed_variables

_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_STEPS = frozenset({"Add", "AddV2", "Cast", "Identity", "Mul", "RealDiv", "Reshape", "Squeeze", "Sub"})  # of an average
_OFF = ("false", "0")


def is_norm(node: NodeDef | None) -> bool:
    """Returns True for a fused batch norm."""
    return node is not None and node.op in _NORMS


def trains(node: NodeDef) -> bool:
    """Returns True for a fused batch norm that takes the statistics of its batch; that is the default."""
    whole = whole_node(node)
    return is_norm(node) and ("is_training" not in whole.attr or bool(whole.attr["is_training"].b))


def find_training_norms(graph: Graph, outputs: Iterable[str], inputs: Iterable[str]) -> list[NodeDef]:
    """Returns the fused batch norms on the way to outputs that take the batch's own statistics."""
    above = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
    return [node for node in graph.node if node.name in above and trains(node)]


def find_norm_pins(graph: Graph, outputs: Sequence[str], inputs: Iterable[str]) -> dict[str, str]:
    """Returns the pins that switch the batch norms on the way to outputs to their averages; none if one has none."""
    norms = find_training_norms(graph, outputs, inputs)
    found = all(averages_of(graph, node) for node in norms)
    return {node.name: _OFF[0] for node in norms} if found else {}


def averages_of(graph: Graph, norm: NodeDef) -> tuple[str, str] | None:
    """Returns the tensors of the mean and the variance that the graph keeps of a batch norm; None if it keeps none."""
    found = [_kept(graph, f"{norm.name}:{port}") for port in (1, 2)]
    names = {one.identity for one in found if one is not None}
    tensors = [_read(graph, one) for one in found if one is not None]
    if len(names) < 2 or None in tensors:
        return None
    return str(tensors[0]), str(tensors[1])


def switch_norms(graph: Graph, pins: Mapping[str, str]) -> Graph:
    """Returns the graph with batch norms that take their averages.

    Args:
        pins: by the names of nodes of the graph, `false`. One that is switched already stays as it is.

    Raises:
        FreezeError: a node keeps no averages, or the value is another one.
    """
    switched = {name: _switched(graph, graph.nodes[name], text) for name, text in pins.items()}
    return graph.replace_nodes(switched.get(node.name, node) for node in graph.node) if switched else graph


def norm_pins(graph: Graph, pins: Mapping[str, str]) -> dict[str, str]:
    """Returns those of the pins that are of batch norms."""
    return {name: text for name, text in pins.items() if is_norm(graph.nodes.get(node_of(name)))}


def _switched(graph: Graph, node: NodeDef, text: str) -> NodeDef:
    if text.strip().lower() not in _OFF:
        wanted = "false: the averages that the training kept"
        raise FreezeError("a batch norm can be pinned to one value", where=node.name, got=text, wanted=wanted)
    if not trains(node):
        return node
    averages = averages_of(graph, node)
    if averages is None:
        raise FreezeError(
            "this batch norm keeps no averages of its statistics",
            where=node.name,
            next_step="Give the graph that is built for inference (--graph-file, for `freeze` --graph)",
        )
    made = NodeDef()
    made.CopyFrom(whole_node(node))
    made.input[3:5] = averages
    made.attr["is_training"].b = False
    return made


def _kept(graph: Graph, tensor: str) -> Variable | None:
    """Returns the one variable that is updated with a tensor."""
    found: dict[tuple[str, str], Variable] = {}
    waiting, seen = [tensor], set[str]()
    while waiting:
        reference = waiting.pop()
        for taker in graph.consumers.get(node_of(reference), ()):
            if reference not in map(normalize_tensor, data_inputs(taker)) or taker.name in seen:
                continue
            changed = {one.identity: one for one in changed_variables(taker, graph)}
            if changed:
                found |= changed
            elif taker.op in _STEPS:
                seen.add(taker.name)
                waiting.append(f"{taker.name}:0")
    return next(iter(found.values())) if len(found) == 1 else None


def _read(graph: Graph, variable: Variable) -> str | None:
    """Returns the tensor of a variable's value that waits for nothing."""
    node = graph.nodes[variable.name]
    passes = "Identity" if node.op in REFERENCE_OPS else "ReadVariableOp"
    reads = [one for one in graph.consumers.get(node.name, ()) if one.op == passes and len(one.input) == 1]
    return reads[0].name if reads and node.op in VARIABLE_OPS else None
