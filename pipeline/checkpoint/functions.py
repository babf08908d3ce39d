"""Functions of a SavedModel that has no signature for them, such as the `__call__` of a module of TF Hub.

TensorFlow 2 stores each traced function with the tensors that it takes and the objects that it has captured
(tensorflow/core/protobuf/saved_object_graph.proto, struct.proto). A signature is such a function with a call of it in
the graph; here the call is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of, normalize_tensor, unused_name
from pipeline.graph.protos import MetaGraphDef, NodeDef, TensorInfo

_TRAINING = frozenset({"training", "is_training", "train"})
_OWN = re.compile(r"signatures|_(?!_call__).*|trace_\d+|.*_losses|keras_api")  # not for users to call


@dataclass(frozen=True)
class Function:
    """One trace of a function.

    Args:
        path: the attributes that lead to it, such as `("encoder", "__call__")`.
        trace: its position among the traces of the function.
        name: in the library of the graph.
        inputs: dtypes and shapes by name, in the order in which it takes them.
        outputs: the same for outputs.
        options: the values of what is no tensor, by the name of the argument, such as `training`.
        is_only: whether it has no other trace that is not for training.
    """

    path: tuple[str, ...]
    trace: int
    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    options: Mapping[str, object]
    is_only: bool = True

    @property
    def key(self) -> str:
        """What names it as a signature does."""
        return ".".join(self.path) + ("" if self.is_only else f"/trace_{self.trace}")

    @property
    def is_training(self) -> bool:
        """True if it computes as in training."""
        return any(bool(value) for name, value in self.options.items() if name in _TRAINING)

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.options.items()]
        return f"{self.key}({', '.join([*self.inputs, *given])})"


def list_functions(meta: MetaGraphDef) -> list[Function]:
    """Returns the functions nearest to the root that take and give tensors, those for training last."""
    objects = meta.object_graph_def.nodes
    level: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    seen = {0}
    while level:
        found: list[Function] = []
        below: list[tuple[int, tuple[str, ...]]] = []
        for number, path in level:
            for child in objects[number].children if number < len(objects) else ():
                if child.node_id >= len(objects) or _OWN.fullmatch(child.local_name):
                    continue
                found += _traces(meta, child.node_id, (*path, child.local_name))
                if child.node_id not in seen:
                    seen.add(child.node_id)
                    below.append((child.node_id, (*path, child.local_name)))
        if found:
            return sorted(found, key=lambda one: (one.is_training, one.path, one.trace))
        level = below
    return []


def _traces(meta: MetaGraphDef, number: int, path: tuple[str, ...]) -> list[Function]:
    saved = meta.object_graph_def.nodes[number]
    if saved.HasField("function"):
        names, arguments = list(saved.function.concrete_functions), _arguments(saved.function.function_spec)
    elif saved.HasField("bare_concrete_function"):
        names, arguments = [saved.bare_concrete_function.concrete_function_name], []
    else:
        return []
    found = [one for trace, name in enumerate(names) if (one := _trace(meta, path, trace, name, arguments)) is not None]
    for_use = [one for one in found if not one.is_training]
    return [
        Function(
            one.path, one.trace, one.name, one.inputs, one.outputs, one.options, one in for_use and len(for_use) == 1
        )
        for one in found
    ]


def _arguments(spec: Any) -> list[str]:
    """Returns the names of a function's positional arguments, without self."""
    for pair in spec.fullargspec.named_tuple_value.values:
        if pair.key == "args":
            names = [value.string_value for value in pair.value.list_value.values]
            return names[1:] if spec.is_method or names[:1] == ["self"] else names
    return []


def _trace(
    meta: MetaGraphDef, path: tuple[str, ...], trace: int, name: str, arguments: Sequence[str]
) -> Function | None:
    """Returns a trace; None if it takes or gives something other than tensors."""
    if name not in meta.object_graph_def.concrete_functions:
        return None
    concrete = meta.object_graph_def.concrete_functions[name]
    parts = list(concrete.canonicalized_input_signature.tuple_value.values)
    inputs: dict[str, TensorInfo] = {}
    options: dict[str, object] = {}
    for side in parts:
        for place, leaf in _leaves(side, ""):
            label = arguments[int(place)] if place.isdecimal() and int(place) < len(arguments) else place
            if leaf.WhichOneof("kind") == "tensor_spec_value":
                own = leaf.tensor_spec_value.name or label or "input"
                inputs[unused_name(own if not own.isdecimal() else f"input_{own}", inputs)] = _info(
                    leaf.tensor_spec_value
                )
            elif leaf.WhichOneof("kind") in ("type_spec_value", "tensor_value", "numpy_value"):
                return None
            else:
                options[label] = _plain(leaf)
    outputs: dict[str, TensorInfo] = {}
    for place, leaf in _leaves(concrete.output_signature, ""):
        if leaf.WhichOneof("kind") in ("tensor_spec_value", "bounded_tensor_spec_value"):
            spec = getattr(leaf, leaf.WhichOneof("kind"))
            outputs[f"output_{place or 0}" if place.isdecimal() or not place else place] = _info(spec)
        elif leaf.WhichOneof("kind") != "none_value":
            return None
    return Function(path, trace, name, inputs, outputs, options) if outputs else None


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yields what a structure holds, in TensorFlow's order, with the keys and positions that lead there."""
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        inner = [(str(index), one) for index, one in enumerate(getattr(value, kind).values)]
    elif kind == "dict_value":
        inner = sorted(value.dict_value.fields.items())
    elif kind == "named_tuple_value":
        inner = [(pair.key, pair.value) for pair in value.named_tuple_value.values]
    else:
        yield place, value
        return
    for key, one in inner:
        yield from _leaves(one, f"{place}/{key}" if place else key)


def _info(spec: Any) -> TensorInfo:
    return TensorInfo(dtype=spec.dtype, tensor_shape=spec.shape)


def _plain(value: Any) -> object:
    kind = value.WhichOneof("kind")
    return None if kind in (None, "none_value") else getattr(value, kind)


def choose_function(
    place: Path, functions: Sequence[Function], wanted: str | None, is_needed: bool
) -> tuple[Function | None, str]:
    """Returns a function of a SavedModel, and a sentence on how it was chosen.

    Args:
        wanted: its key, as `Function.key`.
        is_needed: raise an error if the choice is open.

    Raises:
        FreezeError: several functions could be meant.
    """
    if wanted is not None:
        return next((one for one in functions if one.key == wanted), None), f"the function is {wanted}"
    for_use = [one for one in functions if not one.is_training]
    calls = [one for one in for_use if one.path == ("__call__",)]
    left = calls if len(calls) == 1 else for_use or list(functions)
    if len(left) == 1:
        others = [f"--signature {one.key}" for one in functions if one is not left[0]]
        rest = f"; others are {', '.join(others)}" if others else ""
        return left[0], f"the SavedModel has no signature: its function {left[0]} is taken{rest}"
    if not left or not is_needed:
        return None, ""
    raise FreezeError(
        "the SavedModel has no signature, and several functions",
        where=place,
        got=", ".join(map(str, left)),
        next_step=f"Say which of them to freeze: --signature {left[0].key}",
    )


def add_call(
    place: Path, graph: Graph, meta: MetaGraphDef, function: Function
) -> tuple[Graph, dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Returns the graph with a call of a function, and the tensors of its inputs and outputs by name.

    Raises:
        FreezeError: the function has captured what is no variable, constant, table or asset.
    """
    signature = graph.functions[function.name].signature
    taken = set(graph.nodes)
    nodes: list[NodeDef] = []

    def add(node: NodeDef) -> str:
        node.name = unused_name(re.sub(r"[^\w./>-]", "_", node.name).lstrip("_") or "function", taken)
        taken.add(node.name)
        nodes.append(node)
        return str(node.name)

    fed: dict[str, TensorInfo] = {}
    for name, info in function.inputs.items():
        placeholder = NodeDef(name=name, op="Placeholder")
        placeholder.attr["dtype"].type = info.dtype
        placeholder.attr["shape"].shape.CopyFrom(info.tensor_shape)
        fed[name] = TensorInfo(name=f"{add(placeholder)}:0", dtype=info.dtype, tensor_shape=info.tensor_shape)
    captured = []
    for number in meta.object_graph_def.concrete_functions[function.name].bound_inputs:
        held = _captured(graph, meta, number)
        if held is None:
            raise _cannot_call(place, function)
        captured.append(add(held) if isinstance(held, NodeDef) else held)
    call = NodeDef(
        name=function.key, op="StatefulPartitionedCall", input=[*(i.name[:-2] for i in fed.values()), *captured]
    )
    if len(call.input) != len(signature.input_arg) or len(function.outputs) != len(signature.output_arg):
        raise _cannot_call(place, function)
    call.attr["f"].func.name = function.name
    for attribute, arguments in (("Tin", signature.input_arg), ("Tout", signature.output_arg)):
        call.attr[attribute].list.type.extend(argument.type for argument in arguments)
    name = add(call)
    fetched = {
        output: TensorInfo(name=f"{name}:{port}", dtype=info.dtype, tensor_shape=info.tensor_shape)
        for port, (output, info) in enumerate(function.outputs.items())
    }
    return graph.replace_nodes([*graph.node, *nodes]), fed, fetched


def _captured(graph: Graph, meta: MetaGraphDef, number: int) -> NodeDef | str | None:
    """Returns the node of a captured object: a new one of a variable, else the name of one of the graph."""
    objects = meta.object_graph_def.nodes
    saved = objects[number] if 0 <= number < len(objects) else None
    kind = saved.WhichOneof("kind") if saved is not None else None
    if saved is None:
        return None
    if kind == "variable":
        handle = NodeDef(name=saved.variable.name or f"captured_{number}", op="VarHandleOp")
        handle.attr["dtype"].type = saved.variable.dtype
        handle.attr["shape"].shape.CopyFrom(saved.variable.shape)
        handle.attr["shared_name"].s = f"object_{number}".encode()
        return handle
    if kind == "constant":
        return saved.constant.operation if saved.constant.operation in graph.nodes else None
    if kind == "asset":
        return node_of(normalize_tensor(meta.asset_file_def[saved.asset.asset_file_def_index].tensor_info.name))
    return _passed(graph, meta, number)


def _passed(graph: Graph, meta: MetaGraphDef, number: int) -> str | None:
    """Returns the tensor that the graph passes to functions for an object: a table's to its initializer."""
    concrete = meta.object_graph_def.concrete_functions
    for node in graph.node:
        for name in graph.called_by(node):
            bound = list(concrete[name].bound_inputs) if name in concrete else []
            if number in bound:
                return data_inputs(node)[-len(bound) :][bound.index(number)]
    return None


def _cannot_call(place: Path, function: Function) -> FreezeError:
    return FreezeError(
        f"the function {function.key} takes more than tensors, variables, constants and tables",
        where=place,
        next_step="Export the model with a signature: tf.saved_model.save(model, FOLDER, signatures=FUNCTION)",
    )
