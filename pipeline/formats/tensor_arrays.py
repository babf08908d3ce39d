"""Turns the arrays of TensorFlow 1 (`TensorArrayV3`) into lists, which TFLite's converter knows alone.

An array is a handle, and a flow that stands for its state: each write takes a flow and returns another. The list goes
where the flow went, through the ops of a loop too, and the handle is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

_ARRAY = "TensorArrayV3"
_PASSED_ON = ("Identity", "Enter", "RefEnter", "Exit", "Merge", "Switch", "NextIteration")
# By op: the list's op, and the positions of its inputs among those of the array; E stands for the elements' shape.
_OPS: dict[str, tuple[str, str]] = {
    _ARRAY: ("TensorListReserve", "E0"),
    "TensorArrayReadV3": ("TensorListGetItem", "21E"),
    "TensorArrayWriteV3": ("TensorListSetItem", "312"),
    "TensorArraySizeV3": ("TensorListLength", "1"),
    "TensorArrayScatterV3": ("TensorListFromTensor", "2E"),
    "TensorArrayGatherV3": ("TensorListStack", "2E"),
}


def arrays_to_lists(graph_def: Any) -> Any:
    """Replaces the arrays of a graph, if all that is done with them can be done with lists.

    Returns:
        The same graph if there are none, or one is used otherwise: the converter then names its op.
    """
    nodes = {node.name: node for node in graph_def.node}
    arrays = {name for name, node in nodes.items() if node.op == _ARRAY}
    users = [node for node in graph_def.node if node.op.startswith("TensorArray") and node.op != _ARRAY]
    if not arrays or not all(node.op in _OPS and _is_in_order(nodes, node) for node in users):
        return graph_def
    handles = _passed_on(nodes, arrays)
    flows = _passed_on(nodes, {f"{name}:1" for name in arrays} | {node.name for node in users if _returns_flow(node)})
    stated = {
        name: node.attr["element_shape"].shape
        for node in graph_def.node
        if node.op in ("TensorArrayGatherV3", _ARRAY)  # what is read at the end may be known better than at the start
        for name in (node.name, *_data_inputs(node))
        if name in arrays and not node.attr["element_shape"].shape.unknown_rank
    }
    result = v1.GraphDef(library=graph_def.library, versions=graph_def.versions)
    for node in graph_def.node:
        if node.name in handles:
            continue
        result.node.extend(_replacement(node, stated.get(node.name)) if node.op.startswith("TensorArray") else [node])
        if node.name in flows:
            result.node[-1].attr["T"].type = tf.variant.as_datatype_enum
    for node in result.node:
        for position, entry in enumerate(node.input):
            name, _, output = entry.partition(":")
            if name in arrays and output == "1":
                node.input[position] = name
    return result


def _returns_flow(node: Any) -> bool:
    return node.op in ("TensorArrayWriteV3", "TensorArrayScatterV3")


def _is_in_order(nodes: dict[str, Any], node: Any) -> bool:
    """Returns True for an op of one element, or of all: their numbers are those of a range from 0."""
    if node.op not in ("TensorArrayScatterV3", "TensorArrayGatherV3"):
        return True
    numbers = _behind_identity(nodes, node.input[1])
    if numbers.op == "Const":
        value = tf.make_ndarray(numbers.attr["value"].tensor)
        return bool(np.array_equal(value, np.arange(value.size)))
    if numbers.op != "Range":
        return False
    first, _, step = (_behind_identity(nodes, entry) for entry in numbers.input)
    return all(
        one.op == "Const" and tf.make_ndarray(one.attr["value"].tensor) == wanted
        for one, wanted in ((first, 0), (step, 1))
    )


def _behind_identity(nodes: dict[str, Any], entry: str) -> Any:
    node = nodes[entry.partition(":")[0]]
    while node.op == "Identity":
        node = nodes[node.input[0].partition(":")[0]]
    return node


def _passed_on(nodes: dict[str, Any], tensors: set[str]) -> set[str]:
    """Returns the names of the ops that only pass on one of these tensors."""
    found, entries = set[str](), set(tensors)
    grown = True
    while grown:
        grown = False
        for node in nodes.values():
            if node.name not in found and node.op in _PASSED_ON and not entries.isdisjoint(_data_inputs(node)):
                found.add(node.name)
                entries |= {node.name, f"{node.name}:1"}
                grown = True
    return found


def _data_inputs(node: Any) -> Iterator[str]:
    yield from (entry.removesuffix(":0") for entry in node.input if not entry.startswith("^"))


def _replacement(node: Any, stated: Any) -> list[Any]:
    """Returns a list's op for an array's op, and before it the shape of its elements."""
    data = [entry for entry in node.input if not entry.startswith("^")]
    control = [entry for entry in node.input if entry.startswith("^")]
    op, order = _OPS[node.op]
    known = stated or (node.attr["element_shape"].shape if "element_shape" in node.attr else None)
    made = v1.NodeDef(name=node.name, op=op, device=node.device)
    # In a loop, a constant belongs to the frame of what it waits for.
    shape = _shape_constant(f"{node.name}/element_shape", known, f"^{data[-1].partition(':')[0]}")
    made.input.extend([shape.name if position == "E" else data[int(position)] for position in order])
    if op == "TensorListStack":
        made.attr["num_elements"].i = -1
    if op != "TensorListLength":
        made.attr["element_dtype"].type = node.attr["T" if "T" in node.attr else "dtype"].type
    if op in ("TensorListReserve", "TensorListFromTensor"):
        made.attr["shape_type"].type = tf.int32.as_datatype_enum
    made.input.extend(control)
    return [shape, made] if "E" in order else [made]


def _shape_constant(name: str, shape: Any, control: str) -> Any:
    known = None if shape is None or shape.unknown_rank else np.array([dim.size for dim in shape.dim], np.int32)
    value = tf.make_tensor_proto(np.array(-1, np.int32) if known is None else known)
    node = v1.NodeDef(name=name, op="Const", input=[control])
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(value)
    return node
