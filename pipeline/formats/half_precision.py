"""Computes in float32 what a frozen graph computes in float16 or bfloat16, for converters that lack such kernels.

Keras's policies `mixed_float16` and `mixed_bfloat16` put a Cast before and behind the layers; the weights are float32.
TFLite has no kernel for most ops in half precision, and ONNX none for bfloat16 in most. In float32 each of them rounds
less, so the answers are nearer to what the layers mean; the bounds are still those of the checkpoint's precision.
Weights that are only stored as float16, with a Cast behind each, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.errors import logger
from pipeline.graph.nodes import is_control, node_of, normalize_tensor
from pipeline.signature import Signature, TensorSpec
from pipeline.store.file_names import FROZEN_FILE, SIGNATURE_FILE

from .control_flow import all_nodes

HALF = {tf.float16.as_datatype_enum: "float16", tf.bfloat16.as_datatype_enum: "bfloat16"}
BFLOAT16 = {tf.bfloat16.as_datatype_enum: "bfloat16"}
_FLOAT = tf.float32.as_datatype_enum
_CARRIED = ("Const", "Identity", "Cast", "Placeholder")  # these only carry or convert numbers
_OF_BITS = ("Bitcast", "DecodeRaw", "ParseTensor", "DecodePaddedRaw")  # another width gives other numbers
_SCOPE = "half_precision"


def prepare_half(frozen: Path, folder: Path, format: str) -> bool:
    """Writes an artifact in the format `frozen` that computes in float32.

    Args:
        format: what it is made for, for the log.

    Returns:
        False if nothing was written: the graph computes nothing in half precision, or cannot be read.
    """
    signature = Signature.read(frozen / SIGNATURE_FILE)
    try:
        graph_def = v1.GraphDef.FromString((frozen / FROZEN_FILE).read_bytes())
    except DecodeError:
        return False
    if not computes_in(graph_def, HALF):
        return False
    widened, signature = widen(graph_def, signature, HALF, format)
    (folder / FROZEN_FILE).write_bytes(widened.SerializeToString(deterministic=True))
    signature.write(folder / SIGNATURE_FILE)
    return True


def computes_in(graph_def: Any, narrow: Mapping[int, str]) -> list[str]:
    """Lists the ops that a graph computes in a narrow dtype; none where such numbers are only stored.

    Args:
        narrow: names of dtypes by their numbers.
    """
    ops = {node.op for node in all_nodes(graph_def) if any(dtype in narrow for dtype in _dtypes_of(node.attr))}
    return [] if ops & set(_OF_BITS) else sorted(ops - set(_CARRIED))


def widen(
    graph_def: Any, signature: Signature, narrow: Mapping[int, str], format: str
) -> tuple[v1.GraphDef, Signature]:
    """Returns a graph that computes in float32 instead, and its signature; inputs and outputs keep their dtypes."""
    names = sorted(
        {narrow[dtype] for node in all_nodes(graph_def) for dtype in _dtypes_of(node.attr) if dtype in narrow}
    )
    logger.info("%s: computed in float32, for it lacks kernels for the %s of this model", format, " and ".join(names))
    result = v1.GraphDef()
    result.CopyFrom(graph_def)
    for function in result.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type in narrow:
                argument.type = _FLOAT
        _widen_attributes(function.attr, narrow)
    for node in all_nodes(result):
        _widen_node(node, narrow)
    fed = {spec.tensor_name: spec for spec in signature.inputs if spec.dtype in narrow.values()}
    for spec in fed.values():
        _cast_input(result, spec)
    outputs = [
        _cast_output(result, spec, number) if spec.dtype in narrow.values() else spec
        for number, spec in enumerate(signature.outputs)
    ]
    return result, replace(signature, outputs=tuple(outputs))


def _dtypes_of(attributes: Mapping[str, Any]) -> Iterator[int]:
    for value in attributes.values():
        if value.HasField("type"):
            yield value.type
        elif value.HasField("list"):
            yield from value.list.type


def _widen_attributes(attributes: Mapping[str, Any], narrow: Mapping[int, str]) -> None:
    for value in attributes.values():
        if value.HasField("type") and value.type in narrow:
            value.type = _FLOAT
        elif value.HasField("list"):
            for position, dtype in enumerate(value.list.type):
                if dtype in narrow:
                    value.list.type[position] = _FLOAT


def _widen_node(node: Any, narrow: Mapping[int, str]) -> None:
    _widen_attributes(node.attr, narrow)
    if node.op == "Const" and node.attr["value"].tensor.dtype in narrow:
        values = tf.make_ndarray(node.attr["value"].tensor).astype("float32")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))


def _cast_input(graph_def: Any, spec: TensorSpec) -> None:
    """Gives an input its own dtype again, and its readers a Cast.

    An input is a placeholder; or where another tensor of a node than its first is one, a tensor of an IdentityN of
    placeholders, as `freezing.passes.inputs` makes it.
    """
    fed = normalize_tensor(spec.tensor_name)
    own, port = node_of(fed), int(fed.rpartition(":")[2])
    name, narrow = f"{_SCOPE}/{own}_{port}", getattr(tf, spec.dtype).as_datatype_enum
    behind = list[str]()
    for node in graph_def.node:
        if node.name == own and node.op == "IdentityN":
            behind = [node_of(entry) for entry in node.input]
    for node in graph_def.node:
        if node.name == own and behind:
            for number, given in enumerate(behind):  # the same placeholder fills tensors that nothing reads
                if given == behind[port]:
                    node.attr["T"].list.type[number] = narrow
        elif node.name in (own, *behind[port : port + 1]):
            node.attr["dtype"].type = narrow
        if node.name != own:
            for position, entry in enumerate(node.input):
                if not is_control(entry) and normalize_tensor(entry) == fed:
                    node.input[position] = name
    _add_cast(graph_def, name, fed.removesuffix(":0"), spec.dtype, "float32")


def _cast_output(graph_def: Any, spec: TensorSpec, number: int) -> TensorSpec:
    name = f"{_SCOPE}/output_{number}"
    _add_cast(graph_def, name, spec.tensor_name.removesuffix(":0"), "float32", spec.dtype)
    return replace(spec, tensor=f"{name}:0")


def _add_cast(graph_def: Any, name: str, read: str, before: str, after: str) -> None:
    node = graph_def.node.add(name=name, op="Cast", input=[read])
    node.attr["SrcT"].type, node.attr["DstT"].type = (getattr(tf, dtype).as_datatype_enum for dtype in (before, after))
