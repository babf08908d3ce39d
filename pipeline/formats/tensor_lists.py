"""Gives the lists in a frozen graph's loops the form that TFLite's converter can make.

TFLite keeps a list as one tensor, which it makes before the elements are known. So each list needs the shape of its
elements: a Keras RNN states `[-1, units]`, where the first dimension is that of the batch, and many loops state
nothing, so that it is taken from what they write. The arrays of TensorFlow 1 become lists, which TFLite knows alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from pipeline.signature import Signature
from pipeline.store.file_names import FROZEN_FILE, SIGNATURE_FILE

from .control_flow import all_nodes, inline_calls
from .tensor_arrays import arrays_to_lists

_LISTS, _ARRAY, _EXIT = ("TensorListReserve", "EmptyTensorList"), "TensorArrayV3", "Exit"
_WRITES = {"TensorListSetItem": 2, "TensorListPushBack": 1}  # the position of the element among the inputs
_LOOPS = ("While", "StatelessWhile")
_PASSED_ON = ("Identity", "Enter", "Exit", "Merge", "Switch", "NextIteration")
_SCOPE = "tensor_lists"


def prepare_lists(frozen: Path, folder: Path) -> bool:
    """Writes an artifact in the format `frozen` whose lists TFLite's converter can make.

    Returns:
        False if nothing was written: the graph has no lists, arrays or loops of TensorFlow 1, or TensorFlow cannot
        import it, which it also tells whoever converts it as it is.
    """
    signature = Signature.read(frozen / SIGNATURE_FILE)
    try:
        graph_def = v1.GraphDef.FromString((frozen / FROZEN_FILE).read_bytes())
        if not {node.op for node in all_nodes(graph_def)} & {*_LISTS, _ARRAY, _EXIT}:
            return False
        prepared = open_lists(arrays_to_lists(inline_calls(graph_def, signature)), signature)
    except (ValueError, LookupError, DecodeError, tf.errors.OpError):
        return False
    signature = _apart_from_loops(prepared, signature)
    (folder / FROZEN_FILE).write_bytes(prepared.SerializeToString(deterministic=True))
    signature.write(folder / SIGNATURE_FILE)
    return True


def _apart_from_loops(graph_def: Any, signature: Signature) -> Signature:
    """Gives an output that is the end of a loop an op of its own: the converter makes another op of the loop."""
    ops = {node.name: node for node in graph_def.node}
    outputs = []
    for number, spec in enumerate(signature.outputs):
        end = ops[spec.tensor_name.partition(":")[0]]
        if end.op == _EXIT:
            node = graph_def.node.add(name=f"{_SCOPE}/output_{number}", op="Identity", input=[end.name])
            node.attr["T"].CopyFrom(end.attr["T"])
            spec = replace(spec, tensor=f"{node.name}:0")
        outputs.append(spec)
    return replace(signature, outputs=tuple(outputs))


def open_lists(graph_def: Any, signature: Signature) -> Any:
    """States the shape of the elements of each list, with the batch size of an input for an open first dimension.

    Args:
        graph_def: a graph without function calls.

    Returns:
        The same graph if there is nothing to do.
    """
    batched = next((spec for spec in signature.inputs if spec.shape and spec.shape[0] is None), None)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        shapes = {op.name: _element_shape(op) for op in graph.get_operations() if op.type in _LISTS}
        size = None if batched is None else graph.get_tensor_by_name(batched.tensor_name)
        stated = {name: _stated(shape, size) for name, shape in shapes.items() if shape is not None}
        result = graph.as_graph_def()
    for node in result.node:
        if stated.get(node.name) is not None:
            node.input[0] = stated[node.name].op.name
            node.attr["shape_type"].type = tf.int32.as_datatype_enum
    return result


def _stated(shape: list[int | None], batched: Any) -> Any:
    """Returns a tensor of a shape; None if it is open in more than its first dimension."""
    if None in shape[1:] or (None in shape and batched is None):
        return None
    if None not in shape:
        return tf.constant(shape, tf.int32, name=f"{_SCOPE}/shape")
    size = tf.shape(batched, name=f"{_SCOPE}/input")[:1]
    return tf.concat([size, tf.constant(shape[1:], tf.int32)], 0, name=f"{_SCOPE}/shape")


def _element_shape(op: Any) -> list[int | None] | None:
    """Returns the shape of a list's elements; None if it need not be stated, or nobody knows it."""
    known = tf.get_static_value(op.inputs[0])
    if known is not None and known.ndim:
        shape = [None if size < 0 else int(size) for size in known]
        return shape if None in shape else None
    written = _written_shape(op.outputs[0])
    return None if written is None or written.rank is None else written.as_list()


def _written_shape(tensor: Any) -> tf.TensorShape | None:
    """Returns the shape of what is written to a list, by the ops that read it or the loops that change it."""
    waiting, seen = [tensor], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for reader in one.consumers():
            if reader.type in _WRITES and reader.inputs[0] is one:
                return reader.inputs[_WRITES[reader.type]].shape
            if reader.type in _LOOPS:
                body = _body_of(reader)
                waiting += [body.inputs[k] for k, given in enumerate(reader.inputs) if given is one]
            elif reader.type in _PASSED_ON:
                waiting += reader.outputs
    return None


def list_out_of_order(graph_def: Any) -> str | None:
    """Returns the first op that writes to a list at other places than the numbers of its loop's turns.

    tf2onnx takes what a loop writes for a list of as many elements as the loop has turns, in their order. A Keras RNN
    without sequences writes each to the same place, and reads the last, which comes to the same.
    """
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        for op in graph.get_operations():
            if op.type == "TensorArrayWriteV3" and not _counts_turns(op.inputs[1]):
                return str(op.name)
            if op.type in _LOOPS:
                body = _body_of(op)
                for write in (one for one in body.get_operations() if one.type == "TensorListSetItem"):
                    if not _counts_turns(write.inputs[1], op, body):
                        return str(write.name)
    return None


def _counts_turns(number: Any, loop: Any = None, body: Any = None) -> bool:
    """Returns True for a number that is 0 in the first turn of a loop, and then one more in each, or for a constant."""
    if tf.get_static_value(_behind(number, "Enter")) is not None:
        return True
    if loop is None:  # a loop of TensorFlow 1: Enter and NextIteration meet in Merge
        merge = _behind(number, "Switch")
        if merge.op.type != "Merge":
            return False
        (first, later), merged, outer = merge.op.inputs, merge, {}
        first, later = _behind(first, "Enter"), _behind(later, "NextIteration")
    else:
        outer = {id(inner): given for inner, given in zip(body.inputs, loop.inputs, strict=True)}
        merged = _behind(number)
        if id(merged) not in outer:
            return False
        first = outer[id(merged)]
        later = _behind(next(out for one, out in zip(body.inputs, body.outputs, strict=True) if one is merged))
    if later.op.type not in ("Add", "AddV2") or tf.get_static_value(_behind(first)) != 0:
        return False
    terms = [_behind(term, "Switch") for term in later.op.inputs]
    steps = [_behind(outer.get(id(term), term), "Enter") for term in terms if term is not merged]
    return len(steps) == 1 and tf.get_static_value(steps[0]) == 1


def _behind(tensor: Any, *passed: str) -> Any:
    """Follows a tensor back through Identity and other ops that only pass it on."""
    while tensor.op.type in ("Identity", *passed):
        tensor = tensor.op.inputs[0]
    return tensor


def _body_of(loop: Any) -> Any:
    """Returns the graph of a loop's body, with the shapes of the loop's variables."""
    name = loop.get_attr("body").name
    definition = loop.graph._get_function(name).definition
    return function_def_to_graph(definition, input_shapes=[output.shape for output in loop.outputs])
