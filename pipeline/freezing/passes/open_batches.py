"""Opens the batch of inputs that were cut out of a queue or an iterator: `[32, 40]` becomes `[?, 40]`.

The size of a queue's batch is written into the shapes of a graph, and often into its constants. The first dimension is
opened only if every op on the way to the outputs is known to take any number of rows, with the constants that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node, whole_node
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, dims_of, node_of, normalize_tensor
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import NodeDef

from .dead_branches import remove_dead_branches

Shape = tuple[int | None, ...]

_EACH = """
    Abs Add AddN AddV2 AsString Cast Ceil CheckNumerics ClipByValue Cos Div DivNoNan Elu Equal Erf Exp Expm1 Floor
    FloorDiv FloorMod Greater GreaterEqual Identity Inv IsFinite IsInf IsNan LeakyRelu Less LessEqual Log Log1p
    LogicalAnd LogicalNot LogicalOr Maximum Minimum Mul MulNoNan Neg NotEqual OnesLike Pow RealDiv Reciprocal Relu Relu6
    Rint Round Rsqrt Select SelectV2 Selu Sigmoid Sign Sin Softplus Softsign Sqrt Square SquaredDifference StopGradient
    StringLower StringToHashBucketFast StringToHashBucketStrong Sub Tanh Xdivy Xlogy ZerosLike
"""
_ROWS = """
    AvgPool AvgPool3D BiasAdd BiasAddV1 Conv2D Conv3D DepthToSpace DepthwiseConv2dNative FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 InTopK InTopKV2 LRN LogSoftmax LookupTableFind LookupTableFindV2 MaxPool MaxPool3D MaxPoolV2
    OneHot ResizeBicubic ResizeBilinear ResizeNearestNeighbor Softmax SpaceToDepth TopK TopKV2
"""
_REDUCE = "All Any ArgMax ArgMin Cumsum EuclideanNorm Max Mean Min Prod ReverseV2 Sum"
# The place of the axes among the inputs.
_OVER_AXES = dict.fromkeys(_REDUCE.split(), 1) | {"ExpandDims": 1, "SplitV": 2, "Split": 0, "ConcatV2": -1, "Concat": 0}
_JOINS = frozenset({"ExpandDims", "ConcatV2", "Concat"})
_ELEMENTWISE, _OF_ROWS = frozenset(_EACH.split()), frozenset(_ROWS.split())
_SIZES = frozenset({"Shape", "ShapeN", "Size", "Rank"})
_GATHERS = frozenset({"Gather", "GatherV2", "ResourceGather"})
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2"})


@dataclass
class _Opening:
    """What is known while the graph is walked.

    Args:
        whole: the graph with all branches; `graph` has only those that are taken.
        open: tensors of rows.
        sizes: nodes that are computed from the sizes of such tensors.
        scalars: tensors that are computed from scalars.
        drawn: by tensor that is drawn at random, the constant that holds its shape.
        inferred: shapes that the graph does not have.
        resized: by constant, the tensor whose shape it holds.
    """

    graph: Graph
    whole: Graph
    size: int
    open: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    scalars: set[str] = field(default_factory=set)
    drawn: dict[str, str] = field(default_factory=dict)
    inferred: dict[str, Shape] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)

    def shape(self, tensor: str) -> Shape | None:
        """Returns a tensor's shape in the graph."""
        return self.inferred.get(tensor) or _shape(
            self.whole if node_of(tensor) in self.whole.nodes else self.graph, tensor
        )

    def is_scalar(self, tensor: str) -> bool:
        """Returns True if a tensor is known to be a scalar."""
        return tensor in self.scalars or _shape(self.graph, tensor) == ()


@dataclass(frozen=True)
class Opened:
    """A graph with opened batches.

    Args:
        notes: a sentence on what was opened, or on what prevents it.
        resized: by constant that is the shape of a dropout's draw, the tensor of that shape: it is taken from there.
    """

    graph: Graph
    notes: tuple[str, ...] = ()
    resized: Mapping[str, str] = field(default_factory=dict)


def open_batches(graph: Graph, inputs: Iterable[str], outputs: Iterable[str]) -> Opened:
    """Opens the first dimension of inner tensors that become inputs, if the outputs can be computed for any number.

    Args:
        inputs: tensors; placeholders keep their shapes.
        outputs: tensors.
    """
    given = [tensor for tensor in map(normalize_tensor, inputs) if node_of(tensor) in graph.nodes]
    tensors = [tensor for tensor in given if graph.nodes[node_of(tensor)].op not in PLACEHOLDERS]
    shapes = {tensor: _shape(graph, tensor) for tensor in tensors}
    counts = {shape[0] for shape in shapes.values() if shape and shape[0] is not None}
    if len(counts) != 1 or not all(shape and shape[0] in counts for shape in shapes.values()):
        return Opened(graph)
    state = _Opening(remove_dead_branches(graph), graph, next(iter(counts)), set(tensors))
    fixed = _walk(state, {node_of(tensor) for tensor in tensors}, outputs)
    names = " and ".join(tensor.removesuffix(":0") for tensor in tensors)
    if fixed is not None:
        return Opened(graph, (f"{names} keeps its batch of {state.size}: {fixed}",))
    nodes = {node_of(tensor) for tensor in state.open}
    nodes |= state.resized.keys()
    opened = graph.replace_nodes(_open(node, state) if node.name in nodes else node for node in graph.node)
    told = f"{names} takes any number of rows: nothing on the way to the outputs needs the {state.size} of the graph"
    return Opened(opened, (told,), state.resized)


def _walk(state: _Opening, fed: set[str], outputs: Iterable[str]) -> str | None:
    """Opens all tensors behind the inputs; returns a sentence on the first node that cannot follow."""
    graph = state.graph
    needed = graph.ancestors(map(node_of, outputs), with_control=False, stop=fed)
    sources = {name: {node_of(r) for r in data_inputs(graph.nodes[name])} & needed for name in needed - fed}
    ready = [*(needed & fed), *(name for name, above in sources.items() if not above)]
    for name in ready:  # grows while it is read
        if name not in fed and (reason := _follow(state, whole_node(graph.nodes[name]))) is not None:
            return reason
        for consumer in {node.name for node in graph.consumers.get(name, ())} & sources.keys():
            if name in sources[consumer]:
                sources[consumer].remove(name)
                if not sources[consumer]:
                    ready.append(consumer)
    return "a loop is on the way to the outputs" if len(ready) < len(needed) else None


def _follow(state: _Opening, node: NodeDef) -> str | None:
    """Marks a node's outputs as open if they have the rows of its inputs; returns the reason if they cannot."""
    given = [normalize_tensor(reference) for reference in data_inputs(node)]
    opened = [tensor in state.open for tensor in given]
    if any(node_of(tensor) in state.sizes for tensor in given) and not any(opened):
        if node.op in ("Fill", "BroadcastTo", "RandomUniform", "RandomStandardNormal", "TensorArrayV3"):
            return f"{node.name} ({node.op}) makes rows"
        state.sizes.add(node.name)
        return None
    if not any(opened):
        _note_closed(state, node, given)
        return None
    if node.op in _SIZES:
        state.sizes.add(node.name)
        return None
    count = len(node.attr["_output_shapes"].list.shape) if "_output_shapes" in node.attr else 1
    if not _keeps_rows(state, node, given, opened):
        return f"{node.name} ({node.op}) may be made for it"
    if (
        node.op in _OVER_AXES
        and node.op not in ("ExpandDims", "ConcatV2", "Concat")
        and 0 in (_axes(state, node) or ())
    ):
        return f"{node.name} ({node.op}) combines the rows"
    if node.op.startswith("FusedBatchNorm"):
        count = 1  # the others are statistics
    state.open |= {f"{node.name}:{port}" for port in range(count)}
    return None


def _note_closed(state: _Opening, node: NodeDef, given: list[str]) -> None:
    """Notes of a node without open inputs whether it is a scalar, or drawn at random."""
    tensor = f"{node.name}:0"
    if node.op == "RandomUniform" and state.graph.nodes[node_of(given[0])].op == "Const":
        state.drawn[tensor] = node_of(given[0])
    elif node.op in _ELEMENTWISE and given:
        if all(map(state.is_scalar, given)):
            state.scalars.add(tensor)
        drawn = {state.drawn[one] for one in given if one in state.drawn}
        if len(drawn) == 1 and all(one in state.drawn or state.is_scalar(one) for one in given):
            state.drawn[tensor] = drawn.pop()


def _follows_each(state: _Opening, node: NodeDef, given: list[str], opened: list[bool]) -> bool:
    """Returns True if an op element by element has the rows of its open inputs; a dropout's draw gets their shape."""
    rows = [tensor for tensor, is_open in zip(given, opened, strict=True) if is_open]
    own = state.shape(f"{node.name}:0")
    if own is None:
        shapes = {state.shape(tensor) for tensor in rows}
        own = shapes.pop() if len(shapes) == 1 else None
        if own is None:
            return False
        state.inferred[f"{node.name}:0"] = own
    for tensor in (tensor for tensor, is_open in zip(given, opened, strict=True) if not is_open):
        if state.is_scalar(tensor) or _broadcasts(state.shape(tensor), own):
            continue
        constant = state.drawn.get(tensor)
        if constant is None or state.shape(rows[0]) != own or _integers(state.graph, f"{constant}:0") != list(own):
            return False
        if constant in state.graph.ancestors([node_of(rows[0])], with_control=True):
            return False
        state.resized[constant] = rows[0]
    return True


def _keeps_rows(state: _Opening, node: NodeDef, given: list[str], opened: list[bool]) -> bool:
    op, graph = node.op, state.graph
    if op in _ELEMENTWISE:
        return _follows_each(state, node, given, opened)
    if op in _OF_ROWS:
        return opened[0] and not any(opened[1:]) if not op.startswith("InTopK") else all(opened[:2])
    if op == "Switch":
        return not opened[1]
    if op == "Merge":
        return all(opened)
    if op in _PRODUCTS:
        row_shape, other = (state.shape(tensor) for tensor in given[:2])
        if op == "MatMul":
            return opened == [True, False] and not node.attr["transpose_a"].b
        is_one_for_all = not opened[1] and other is not None and len(other) == 2
        return opened[0] and row_shape is not None and len(row_shape) > 2 and (opened[1] or is_one_for_all)
    if op in _GATHERS:
        return not opened[0] and opened[1]
    if op == "Reshape":
        return opened[0] and _reshapes_rows(state, node, given)
    if op == "Squeeze":
        dims = list(node.attr["squeeze_dims"].list.i)
        return bool(dims) and all(dim > 0 for dim in dims)
    if op in ("Transpose", "Pad", "PadV2", "MirrorPad"):
        values = _integers(graph, given[1])
        return values is not None and values[: 1 if op == "Transpose" else 2] in ([0], [0, 0])
    if op == "StridedSlice":
        masks = [node.attr[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis", "new_axis")]
        return opened[0] and bool(masks[0] & masks[1] & 1) and not (masks[2] | masks[3]) & 1
    if op in ("Pack", "Unpack"):
        return node.attr["axis"].i > 0 and all(opened)
    if op in _OVER_AXES:
        axes = _axes(state, node)
        rows = [is_open for tensor, is_open in zip(given, opened, strict=True) if _integers(graph, tensor) is None]
        return axes is not None and all(rows) and (op not in _JOINS or 0 not in axes)
    return False


def _broadcasts(shape: Shape | None, own: Shape) -> bool:
    """Returns True if a tensor that is not of rows has no dimension at the place of the rows, or one of size 1."""
    return shape is not None and (len(shape) < len(own) or shape[:1] in ((), (1,)))


def _reshapes_rows(state: _Opening, node: NodeDef, given: list[str]) -> bool:
    """Returns True if the new rows are parts of the old ones, or equal to them, however many there are."""
    before, after = state.shape(given[0]), state.shape(f"{node.name}:0")
    if node_of(given[1]) in state.sizes:
        return before is not None and after is not None and before[0] == after[0]
    values = _integers(state.graph, given[1])
    if not values or values[0] != -1 or before is None or None in before[1:]:
        return False
    size = prod(values[1:])
    return size > 0 and prod(n or 1 for n in before[1:]) % size == 0


def _axes(state: _Opening, node: NodeDef) -> list[int] | None:
    """Returns the axes that a node works on, counted from the front; None if they are unknown."""
    given = [normalize_tensor(reference) for reference in data_inputs(node)]
    place = _OVER_AXES[node.op]
    axes = _integers(state.graph, given[place])
    of = state.shape(f"{node.name}:0" if node.op == "ExpandDims" else given[1 if place == 0 else 0])
    if axes is None or of is None:
        return None
    return [axis % max(1, len(of)) for axis in axes]


def _integers(graph: Graph, tensor: str) -> list[int] | None:
    """Returns the values of a constant of int32 or int64; None for others."""
    node = graph.nodes[node_of(tensor)]
    if node.op != "Const":
        return None
    proto = whole_node(node).attr["value"].tensor
    width = {3: 4, 9: 8}.get(proto.dtype)
    if width is None:
        return None
    content: bytes = proto.tensor_content
    count = prod(int(dim.size) for dim in proto.tensor_shape.dim)
    if content:
        return [int.from_bytes(content[at : at + width], "little", signed=True) for at in range(0, len(content), width)]
    values: list[int] = [*proto.int_val, *proto.int64_val]  # of equal ones at the end there is one
    return values + (values[-1:] or [0]) * (count - len(values))


def _shape(graph: Graph, tensor: str) -> Shape | None:
    node, port = whole_node(graph.nodes[node_of(tensor)]), int(tensor.rpartition(":")[2])
    if node.op == "Const":
        return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)
    shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    return dims_of(shapes[port]) if port < len(shapes) else None


def _open(node: NodeDef, state: _Opening) -> NodeDef:
    node = copy_node(node)
    if node.name in state.resized:
        rows = state.resized[node.name]
        kind = node.attr["dtype"].type
        node.CopyFrom(NodeDef(name=node.name, op="Shape", input=[rows.removesuffix(":0")]))
        dtypes = output_dtypes(whole_node(state.graph.nodes[node_of(rows)]), state.graph.functions)
        node.attr["T"].type = (dtypes or [1])[int(rows.rpartition(":")[2])]
        node.attr["out_type"].type = kind
        return node
    for port, shape in enumerate(node.attr["_output_shapes"].list.shape):
        if f"{node.name}:{port}" in state.open and shape.dim:
            shape.dim[0].size = -1
    return node
