"""Turns readers of variables into readers of constants.

When a variable becomes a constant, its handle becomes the value itself. Ops that pass the handle on now pass the value:
the op stays, its dtype changes. Ops that read through the handle become ops on the value, by the table `RULES`.
Functions that receive handles are copied, once for each combination of dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.handles import CALLS, LOOPS, PASSING, Handles, Scope, of_several_dtypes
from pipeline.graph.lazy_nodes import copy_node
from pipeline.graph.nodes import control_inputs, data_inputs, is_control, node_of
from pipeline.graph.protos import DataType, FunctionDef, GraphDef, NodeDef
from pipeline.graph.variables import VARIABLE_OPS


class Rewriter:
    """Rewrites the nodes of one graph and of the functions that they call.

    Args:
        graph: the graph, which is not changed.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._handles = graph, Handles(graph)
        self._copies: dict[tuple[str, tuple[int | None, ...]], FunctionDef] = {}
        self._arena = GraphDef()  # holds the copies: one message takes less memory than many

    @property
    def functions(self) -> list[FunctionDef]:
        """The functions that the rewritten nodes call."""
        return list(self._copies.values())

    def rewrite(self) -> list[NodeDef]:
        """Returns the nodes of the graph, in their order, reading values instead of variables; new nodes come last.

        Variables themselves stay, to be replaced by constants later. All other nodes are copies.
        """
        scope = Scope(self._graph.nodes)
        parts = [list(self._rewrite_node(scope, node)) for node in self._graph.node]
        return [part[-1] for part in parts] + [new for part in parts for new in part[:-1]]

    def _rewrite_node(self, scope: Scope, node: NodeDef) -> Iterator[NodeDef]:
        if node.op in VARIABLE_OPS and not scope.is_function:
            yield node
            return
        new = copy_node(node, self._arena.node.add())
        if node.op in OF_REFERENCES:
            new.op = OF_REFERENCES[node.op]
        elif node.op in VARIABLE_OPS:
            pass
        elif node.op in PASSING:
            self._retype(scope, node, new)
        elif self._handles.call(node) is not None:
            self._redirect(scope, node, new)
        elif node.op in RULES:
            yield from RULES[node.op](self._handles, scope, node, new)
        elif any(self._handles.of(scope, reference) for reference in data_inputs(node)):
            raise FreezeError(
                f"{node.op} uses a variable in a way that a constant does not allow",
                where=f"node {node.name}",
                next_step="Read the variable first, and use its value",
            )
        else:
            self._carry_functions(new)
        for index, reference in enumerate(new.input if scope.is_function else ()):
            if not is_control(reference):  # it names the output of an op, which may now be another op
                new.input[index] = self._rename_output(scope, reference)
        _forget_training(new)
        yield new

    def _retype(self, scope: Scope, node: NodeDef, new: NodeDef) -> None:
        attribute, _ = PASSING[node.op]
        given = data_inputs(node)
        value = new.attr[attribute]
        if value.WhichOneof("value") == "list":
            if len(value.list.type) != len(given):
                raise FreezeError(f"{node.op} has more or less inputs than dtypes", where=f"node {node.name}")
            for index, reference in enumerate(given):
                if dtype := self._handles.of(scope, reference):
                    value.list.type[index] = dtype
        elif dtypes := {found for reference in given if (found := self._handles.of(scope, reference))}:
            if len(dtypes) > 1:
                raise of_several_dtypes(node)
            value.type = dtypes.pop()

    def _redirect(self, scope: Scope, node: NodeDef, new: NodeDef) -> None:
        """Makes a call use the copies of its functions for the handles that it passes."""
        call = self._handles.call(node)
        assert call is not None  # checked by the caller
        names, first, inputs, outputs = call
        given = tuple(self._handles.of(scope, reference) for reference in data_inputs(node)[first:])
        if node.op in LOOPS and any(given):
            self._require_kept(node, self._handles.function(names[1]), given)
        fresh = {name: self._copy(name, given).signature.name for name in names}
        if node.op in fresh:
            new.op = fresh[node.op]
            return
        for attribute in CALLS[node.op][0]:
            value = new.attr[attribute]
            for func in [value.func] if value.WhichOneof("value") == "func" else value.list.func:
                func.name = fresh[func.name]
        assert inputs is not None  # as for every op of the table
        assert outputs is not None
        for index, dtype in enumerate(given):
            if dtype:
                new.attr[inputs].list.type[index] = dtype
                if (
                    "output_shapes" in new.attr
                    and inputs == outputs
                    and index < len(new.attr["output_shapes"].list.shape)
                ):
                    new.attr["output_shapes"].list.shape[index].Clear()
                    new.attr["output_shapes"].list.shape[index].unknown_rank = True
        if outputs != inputs and any(given):
            for index in range(len(new.attr[outputs].list.type)):
                if dtype := self._handles.from_call(scope, node, "", index):
                    new.attr[outputs].list.type[index] = dtype

    def _require_kept(self, loop: NodeDef, body: FunctionDef, given: tuple[int | None, ...]) -> None:
        """Checks that a loop's body returns the handles that it receives.

        TensorFlow assumes that a resource among a loop's variables is the same in every turn
        (tensorflow/core/common_runtime/lower_while_op.cc), whatever the body returns.
        """
        nodes = self._graph.body(body.signature.name).nodes
        if len(body.signature.output_arg) != len(given):
            raise FreezeError("a loop's body returns more or less than it is given", where=f"node {loop.name}")
        for index, dtype in enumerate(given):
            reference = body.ret[body.signature.output_arg[index].name]
            while (inner := nodes.get(node_of(reference))) is not None and inner.op in ("Identity", *LOOPS):
                reference = next(iter(data_inputs(inner)[int(reference.rpartition(":")[2]) :]), "")
            if dtype and reference != body.signature.input_arg[index].name:
                raise FreezeError(
                    f"{loop.op} is given one variable's handle and returns another's",
                    where=f"node {loop.name}",
                    next_step="Choose between the variables' values",
                )

    def _carry_functions(self, new: NodeDef) -> None:
        """Copies the functions of an op that receives no handles, such as a gradient or a counting loop."""
        if new.op == "SymbolicGradient" and self._graph.gradients:
            raise FreezeError(
                "SymbolicGradient may be of a function with a gradient of its own, which a .pb does not name",
                where=f"node {new.name}",
                next_step="Take the gradient before the graph is saved",
            )
        for name in sorted(new.attr) if self._handles.library else ():
            value = new.attr[name]
            for func in [value.func] if value.WhichOneof("value") == "func" else value.list.func:
                if func.name in self._handles.library:
                    func.name = self._copy(func.name, ()).signature.name

    def _copy(self, name: str, given: tuple[int | None, ...]) -> FunctionDef:
        """Returns a copy of a function whose arguments are values in place of handles of these dtypes."""
        original = self._handles.function(name)
        key = (name, given if any(given) else ())
        if key in self._copies:
            return self._copies[key]
        copy = FunctionDef()
        copy.CopyFrom(original)
        same = [other for other, _ in self._copies if other == name]
        copy.signature.name = f"{name}__{len(same)}" if same else name
        self._copies[key] = copy  # before its body, as a function may call itself
        scope = self._handles.scope_of(original, given)
        for argument, dtype in zip(copy.signature.input_arg, given, strict=False):
            if dtype:
                argument.type = dtype
                argument.ClearField("handle_data")
        for argument in copy.signature.output_arg:
            if dtype := self._handles.of(scope, original.ret[argument.name]):
                argument.type = dtype
                argument.ClearField("handle_data")
        del copy.node_def[:]
        copy.node_def.extend(new for node in original.node_def for new in self._rewrite_node(scope, node))
        for result, reference in original.ret.items():
            copy.ret[result] = self._rename_output(scope, reference)
        copy.attr.pop("_input_shapes", None)
        return copy

    def _rename_output(self, scope: Scope, reference: str) -> str:
        node = scope.nodes.get(node_of(reference))
        if node is None or reference.count(":") < 2 or node.op not in OUTPUT_NAMES:
            return reference
        name, _, index = reference.split(":")
        return f"{name}:{OUTPUT_NAMES[node.op]}:{index}"


DT_BOOL, DT_INT32 = DataType.Value("DT_BOOL"), DataType.Value("DT_INT32")
# Ops on the reference of an old variable, and the ops on a value that replace them.
OF_REFERENCES: Mapping[str, str] = {
    "RefIdentity": "Identity",
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
}
# By old op, the name of the new op's output in functions.
OUTPUT_NAMES = {
    "ReadVariableOp": "output",
    "ResourceGather": "output",
    "ResourceGatherNd": "output",
    "VariableShape": "output",
    "VarIsInitializedOp": "output",
    "IsVariableInitialized": "output",
}
# Takes the handles, the scope, the old node and a copy of it to change; yields additional nodes.
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
    # In a loop a constant belongs to the frame of its control inputs.
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
    """VarIsInitializedOp(handle), IsVariableInitialized(reference) -> true, next to the value."""
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


_OF_TRAINING = ("_class", "_output_shapes")


def _forget_training(node: NodeDef) -> None:
    """Removes attributes that belong to the machine or process of the training."""
    node.device = ""
    attributes = node.attr
    for name in _OF_TRAINING:
        if name in attributes:
            del attributes[name]


def _become(new: NodeDef, op: str, inputs: list[str], node: NodeDef) -> None:
    """Turns a node into another op on these inputs; its name and control inputs stay."""
    new.op = op
    del new.input[:]
    new.input.extend([*inputs, *(r for r in control_inputs(node) if r not in inputs)])
    new.attr.clear()
