"""Shapes of tensors, as far as a graph declares them; scalars."""

from __future__ import annotations

from ..nodes import PLACEHOLDERS, dims_of, placeholder_dims
from ..variables import VARIABLE_OPS, variable_of
from .topology import NumberedGraph, Tensor

_REDUCTIONS = "Sum Mean Max Min Prod All Any L2Loss EuclideanNorm"
_ELEMENTWISE = """
    Abs Add AddN AddV2 BitwiseAnd Cast ClipByValue Div DivNoNan Equal Exp Expm1 Floor FloorDiv Greater GreaterEqual Inv
    IsFinite IsInf IsNan Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mul MulNoNan Neg
    NotEqual OnesLike Pow RealDiv Reciprocal Relu Rsqrt Select SelectV2 Sign Softplus Sqrt Square SquaredDifference
    StopGradient Sub Xdivy Xlogy ZerosLike
"""
REDUCTIONS, ELEMENTWISE = frozenset(_REDUCTIONS.split()), frozenset(_ELEMENTWISE.split())
_KEEP_SCALARS = ELEMENTWISE | {"Identity", "Switch", "Merge", "Enter", "Exit", "PreventGradient", "CheckNumerics"}


def shape_of(graph: NumberedGraph, tensor: Tensor, producer: int) -> tuple[int | None, ...] | None:
    """Returns a tensor's declared shape; None if the rank is unknown."""
    node = graph.nodes[tensor[0]]
    if "_output_shapes" in node.attr:
        shapes = node.attr["_output_shapes"].list.shape
        if tensor[1] >= len(shapes):
            return None
        return dims_of(shapes[tensor[1]])
    return placeholder_dims(node, producer) if node.op in PLACEHOLDERS else None


def find_scalars(graph: NumberedGraph, gradients: set[int], producer: int) -> list[bool]:
    """Returns, per node, True if its first output is known to be a scalar or is reduced to one."""
    found = [False] * len(graph.ops)
    for index in graph.order:
        op = graph.ops[index]
        if not op or index in gradients:
            continue
        node = graph.nodes[index]
        if op in VARIABLE_OPS:  # the declared shape of a resource is its handle's
            found[index] = variable_of(node).shape == ()
        elif "_output_shapes" in node.attr or op in PLACEHOLDERS:
            found[index] = shape_of(graph, (index, 0), producer) == ()
        elif op == "Const":
            found[index] = not node.attr["value"].tensor.tensor_shape.dim
        elif op == "L2Loss":
            found[index] = True
        elif op in REDUCTIONS:
            found[index] = _reduces_all(graph, index)
        elif op in _KEEP_SCALARS or op == "ReadVariableOp":
            found[index] = bool(graph.inputs[index]) and all(found[source] for source, _ in graph.inputs[index])
    return found


def _reduces_all(graph: NumberedGraph, index: int) -> bool:
    """Returns True if a reduction covers all axes; by default they are listed from 0 on."""
    node = graph.nodes[index]
    if len(graph.inputs[index]) < 2 or ("keep_dims" in node.attr and node.attr["keep_dims"].b):
        return False
    axes = graph.nodes[graph.inputs[index][1][0]]
    if axes.op == "Range":
        return True
    if axes.op != "Const" or len(axes.attr["value"].tensor.tensor_shape.dim) != 1:
        return False
    tensor = axes.attr["value"].tensor
    size = tensor.tensor_shape.dim[0].size
    if tensor.tensor_content:
        values = [int.from_bytes(tensor.tensor_content[at : at + 4], "little") for at in range(0, size * 4, 4)]
    else:
        values = list(tensor.int_val)
    return values == list(range(size)) and size > 0
