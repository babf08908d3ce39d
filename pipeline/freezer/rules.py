"""The ops that read a variable through its handle, and the ops on its value that take their place: a table, by op."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pipeline.errors import FreezeError
from pipeline.graph.handles import Handles, Scope
from pipeline.graph.nodes import control_inputs, data_inputs, node_of
from pipeline.graph.protos import DataType, NodeDef

DT_BOOL, DT_INT32 = DataType.Value("DT_BOOL"), DataType.Value("DT_INT32")

# Ops on the reference of an old variable, and the ops on a value that take their place.
OF_REFERENCES: Mapping[str, str] = {
    "RefIdentity": "Identity",
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
}

# The output of each rule's new op, by the old op: what functions call it.
OUTPUT_NAMES = {
    "ReadVariableOp": "output",
    "ResourceGather": "output",
    "ResourceGatherNd": "output",
    "VariableShape": "output",
    "VarIsInitializedOp": "output",
    "IsVariableInitialized": "output",
}

# Given the handles, the scope, the old node and a copy of it to change; gives new nodes besides.
Rule = Callable[[Handles, Scope, NodeDef, NodeDef], Iterator[NodeDef]]


def _read(handles: Handles, scope: Scope, node: NodeDef, new: NodeDef) -> Iterator[NodeDef]:
    """ReadVariableOp(handle) -> Identity(value)."""
    _become(new, "Identity", data_inputs(node)[:1], node)
    new.attr["T"].type = node.attr["dtype"].type
    yield from ()


def _gather(handles: Handles, scope: Scope, node: NodeDef, new: NodeDef) -> Iterator[NodeDef]:
    """ResourceGather(handle, indices) -> GatherV2(value, indices, axis), where the axis is the number of batch dims."""
    batch_dims = node.attr["batch_dims"].i
    indices = node.attr["Tindices"].type
    name = f"{node.name}/axis"
    while name in scope.nodes or name in scope.arguments:
        name += "_"
    axis = NodeDef(name=name, op="Const")
    # In a loop's frame a constant lives where what it waits for lives.
    if any(other.op in ("Enter", "RefEnter") for other in scope.nodes.values()):
        axis.input.append(f"^{node_of(data_inputs(node)[1])}")
    axis.attr["dtype"].type = indices
    tensor = axis.attr["value"].tensor
    tensor.dtype = indices
    tensor.tensor_shape.SetInParent()
    (tensor.int_val if indices == DT_INT32 else tensor.int64_val).append(batch_dims)
    suffix = ":output:0" if scope.is_function else ""
    _become(new, "GatherV2", [*data_inputs(node)[:2], f"{axis.name}{suffix}"], node)
    new.attr["Tparams"].type = node.attr["dtype"].type
    new.attr["Tindices"].type = indices
    new.attr["Taxis"].type = indices
    new.attr["batch_dims"].i = batch_dims
    yield axis


def _gather_nd(handles: Handles, scope: Scope, node: NodeDef, new: NodeDef) -> Iterator[NodeDef]:
    """ResourceGatherNd(handle, indices) -> GatherNd(value, indices)."""
    _become(new, "GatherNd", data_inputs(node)[:2], node)
    new.attr["Tparams"].type = node.attr["dtype"].type
    new.attr["Tindices"].type = node.attr["Tindices"].type
    yield from ()


def _shape(handles: Handles, scope: Scope, node: NodeDef, new: NodeDef) -> Iterator[NodeDef]:
    """VariableShape(handle) -> Shape(value)."""
    dtype = handles.of(scope, data_inputs(node)[0])
    if dtype is None:
        raise FreezeError("the shape of something that is no variable is asked for", where=f"node {node.name}")
    out_type = node.attr["out_type"].type or DT_INT32
    _become(new, "Shape", data_inputs(node)[:1], node)
    new.attr["T"].type = dtype
    new.attr["out_type"].type = out_type
    yield from ()


def _is_initialized(handles: Handles, scope: Scope, node: NodeDef, new: NodeDef) -> Iterator[NodeDef]:
    """VarIsInitializedOp(handle), IsVariableInitialized(reference) -> true, where the value is."""
    [source] = data_inputs(node)[:1]
    waits_for = [] if scope.is_function and ":" not in source else [f"^{node_of(source)}"]
    _become(new, "Const", waits_for, node)
    new.attr["dtype"].type = DT_BOOL
    new.attr["value"].tensor.dtype = DT_BOOL
    new.attr["value"].tensor.tensor_shape.SetInParent()
    new.attr["value"].tensor.bool_val.append(True)
    yield from ()


RULES: Mapping[str, Rule] = {
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "VariableShape": _shape,
    "VarIsInitializedOp": _is_initialized,
    "IsVariableInitialized": _is_initialized,
}


def _become(new: NodeDef, op: str, inputs: list[str], node: NodeDef) -> None:
    """Makes a node another op on these inputs; its name and what it waits for stay."""
    new.op = op
    del new.input[:]
    new.input.extend([*inputs, *(r for r in control_inputs(node) if r not in inputs)])
    new.attr.clear()
