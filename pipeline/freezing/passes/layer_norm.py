"""Keeps the epsilon of a layer norm, which TensorFlow's optimizer would replace by its own.

With oneDNN, as TensorFlow starts on x86 by default, the optimizer fuses a layer norm whose scale and offset are
constants, as they are in a frozen graph, into `_MklLayerNorm` with an epsilon of 0.001, whatever the graph's is
(tensorflow/core/grappler/optimizers/remapper.cc, IsCommonNormPattern; TensorFlow 2.21). An answer of 4.2 became 3.0 for
an epsilon of 1e-6. It looks for a variance with kept dimensions; here the mean is taken without, and ExpandDims puts
the dimension back: the same bits, and no fusion.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.graph.nodes import is_control, node_of
from pipeline.graph.protos import DataType, NodeDef

_PASSING = ("Identity", "StopGradient", "PreventGradient", "Snapshot")  # which the optimizer removes
_FUSED_EPSILON = struct.pack("<f", 0.001)


def keep_epsilons(nodes: Sequence[NodeDef]) -> list[NodeDef]:
    """Returns the nodes of a graph, or of a function, with the variances of layer norms in two nodes each.

    Args:
        nodes: changed in place.
    """
    by_name = {node.name: node for node in nodes}
    added: dict[str, list[NodeDef]] = {}
    for node in nodes:
        if node.op in ("Rsqrt", "Sqrt"):
            for mean, axis in _variances(by_name, node):
                if mean.name not in added:
                    added[mean.name] = _split(mean, axis, by_name)
    if not added:
        return list(nodes)
    return [one for node in nodes for one in (*added.get(node.name, ()), node)]


def _variances(nodes: Mapping[str, NodeDef], root: NodeDef) -> Iterator[tuple[NodeDef, NodeDef]]:
    """Yields the variance below a root, with the constant of its one axis, if the epsilon beside it would change."""
    total = _producer(nodes, root, 0)
    if total is None or total.op not in ("Add", "AddV2"):
        return
    for at in (0, 1):
        mean, epsilon = _producer(nodes, total, at), _producer(nodes, total, 1 - at)
        if mean is None or mean.op != "Mean" or not mean.attr["keep_dims"].b:
            continue
        square, axis = _producer(nodes, mean, 0), _producer(nodes, mean, 1)
        is_variance = square is not None and square.op in ("SquaredDifference", "Square")
        if not is_variance or axis is None or axis.op != "Const" or _axis_of(axis) is None:
            continue
        if epsilon is None or epsilon.op != "Const" or not _is_fused_epsilon(epsilon.attr["value"].tensor):
            yield mean, axis


def _producer(nodes: Mapping[str, NodeDef], node: NodeDef, at: int) -> NodeDef | None:
    """Returns the node whose value an input has, across nodes that pass it on; None if it is not here."""
    seen = set[str]()
    while at < len(node.input) and not is_control(node.input[at]):
        found = nodes.get(node_of(node.input[at]))
        if found is None or found.op not in _PASSING or found.name in seen:
            return found
        seen.add(found.name)
        node, at = found, 0
    return None


def _axis_of(axis: NodeDef) -> int | None:
    """Returns the one axis of a constant; None if it has none or several."""
    tensor = axis.attr["value"].tensor
    if math.prod(dim.size for dim in tensor.tensor_shape.dim) != 1:
        return None
    if tensor.tensor_content:
        return int.from_bytes(tensor.tensor_content, "little", signed=True)
    values = [*tensor.int_val, *tensor.int64_val]
    return int(values[0]) if values else 0


def _is_fused_epsilon(tensor: Any) -> bool:
    if tensor.tensor_content:
        return bytes(tensor.tensor_content) == _FUSED_EPSILON
    return len(tensor.float_val) == 1 and struct.pack("<f", tensor.float_val[0]) == _FUSED_EPSILON


def _split(mean: NodeDef, axis: NodeDef, nodes: Mapping[str, NodeDef]) -> list[NodeDef]:
    """Makes a mean an ExpandDims; returns the new nodes in front of it: the mean itself, and the dimension."""
    narrow, dim = NodeDef(), NodeDef()
    narrow.CopyFrom(mean)
    narrow.name, dim_name = (_free(f"{mean.name}/{word}", nodes) for word in ("without_dims", "dim"))
    narrow.attr["keep_dims"].b = False
    narrow.attr.pop("_output_shapes", None)
    dim.CopyFrom(axis)  # with its control inputs, so that it is in the same frame of a loop
    dim.name = dim_name
    value, dtype, number = dim.attr["value"].tensor, axis.attr["dtype"].type, _axis_of(axis)
    value.Clear()
    value.dtype = dtype
    (value.int_val if dtype == DataType.Value("DT_INT32") else value.int64_val).append(number or 0)
    dim.attr.pop("_output_shapes", None)
    dtypes = mean.attr["T"], axis.attr["dtype"]
    is_function = ":" in mean.input[0].partition(":")[2]
    del mean.input[:]
    mean.input.extend([f"{name}:output:0" if is_function else name for name in (narrow.name, dim.name)])
    mean.op = "ExpandDims"
    mean.attr.pop("keep_dims", None)
    mean.attr.pop("Tidx", None)
    mean.attr["T"].CopyFrom(dtypes[0])
    mean.attr["Tdim"].CopyFrom(dtypes[1])
    return [narrow, dim]


def _free(name: str, nodes: Mapping[str, NodeDef]) -> str:
    while name in nodes:
        name += "_"
    return name
