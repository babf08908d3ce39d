"""What to do where a format cannot carry a model: each cause has its own next step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import DataType

_EVERY_OP = "--formats frozen,savedmodel"  # whatever TensorFlow runs is in them
_STRING = DataType.Value("DT_STRING")
_WIDE = {DataType.Value(f"DT_{name}"): name.lower() for name in ("DOUBLE", "COMPLEX64", "COMPLEX128")}
_WIDE[DataType.Value("DT_DOUBLE")] = "float64"
_PASSED_ON = ("Identity", "StopGradient", "Cast")


def without_op(op: str, node: str, graph_def: Any, inputs: Collection[str]) -> str:
    """Returns the next step for an op that the format does not know.

    Args:
        node: its name as the converter tells it, which may be that of a function's node.
        graph_def: the frozen graph.
        inputs: names of the nodes that are fed.
    """
    nodes = {each.name: each for each in graph_def.node}
    if node not in nodes:
        step = (
            "It is inside a layer or a function: where the model is built, end it before that, or begin it behind (in "
            "Keras: keras.Model(model.inputs, model.get_layer(NAME).output), or "
            "keras.Model(model.get_layer(NAME).output, model.outputs); export('folder'), and --checkpoint folder), "
            f"or write it without {op}"
        )
    else:
        read = [node_of(entry) for entry in data_inputs(nodes[node])]
        ends = [name for name in read if name in nodes and nodes[_origin(name, nodes)].op != "Const"]
        if not ends or any(_origin(name, nodes) in inputs for name in ends):
            step = f"Begin the model behind it (--inputs {node}), or write it without {op}"
        else:
            step = f"End the model before it (--outputs {','.join(dict.fromkeys(ends))}), or write it without {op}"
    return f"{step}; the formats that carry every op: {_EVERY_OP}"


def wide_dtype(op: str, node: str, graph_def: Any) -> str:
    """Returns the dtype of a node if it is one that few kernels of other runtimes have; else an empty text."""
    functions = (each for function in graph_def.library.function for each in function.node_def)
    for each in (*graph_def.node, *functions):
        if each.op == op and (node == each.name or node.endswith(f"/{each.name}")):
            return next((_WIDE[value.type] for value in each.attr.values() if value.type in _WIDE), "")
    return ""


def in_float32(dtype: str) -> str:
    """Returns the next step for what a format computes in float32 alone."""
    return f"Build the model in float32 instead of {dtype}, and train or save it again; in {dtype} it is in {_EVERY_OP}"


def without_bytes(tensor: str, is_input: bool, graph_def: Any) -> str:
    """Returns the next step for a tensor of strings, which may be any bytes."""
    if not is_input:
        what = f"end before {tensor}, with a tensor of numbers (--outputs)"
    elif first := _first_numbers(node_of(tensor), graph_def):
        what = f"begin behind its text, with numbers: --inputs {first}"
    else:
        what = (
            f"begin behind {tensor}, where the text has become numbers (in Keras: "
            "keras.Model(model.get_layer(NAME).output, model.outputs), with the NAME of the layer that reads text, "
            "then export('folder'), and --checkpoint folder)"
        )
    return f"Let the model {what}; strings are carried by {_EVERY_OP}"


def without_bfloat16(tensor: str, is_input: bool) -> str:
    """Returns the next step for an input or output of bfloat16, of which these runtimes take no arrays."""
    side = "begin with" if is_input else "end in"
    return (
        f"Let the model {side} float32 beside {tensor} (in Keras: dtype='float32' for its "
        f"{'Input' if is_input else 'last layer'}), and save it again; bfloat16 is carried by {_EVERY_OP}"
    )


def not_converted(converter: str) -> str:
    """Returns the next step where a converter gives up for a reason of its own."""
    return f"This is what {converter} says of this graph; the same graph, unconverted, is in {_EVERY_OP}"


def not_imported(size_limit: bool, version: str) -> str:
    """Returns the next step for a graph of which TensorFlow makes no SavedModel.

    Args:
        version: that of the TensorFlow that runs here.
    """
    if size_limit:
        return "Ask for the format whose weights lie beside the graph: --formats mmap"
    return (
        f"TensorFlow {version} itself cannot open this graph, in no format: install the one that wrote it, or save the "
        "model again without what it names"
    )


def _origin(name: str, nodes: Any) -> str:
    """Returns the node that a value comes from, before what passes it on."""
    while nodes[name].op in _PASSED_ON and (before := node_of(nodes[name].input[0])) in nodes:
        name = before
    return name


def _first_numbers(node: str, graph_def: Any) -> str | None:
    """Returns the one node that makes numbers of a node's strings; None if there is none, or more than one."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    waiting, seen, found = [node], {node}, set[str]()
    while waiting:
        name = waiting.pop()
        for reader in graph_def.node:
            if reader.name in seen or name not in map(node_of, data_inputs(reader)):
                continue
            seen.add(reader.name)
            dtypes = output_dtypes(reader, functions) or ()
            if not dtypes or reader.op in functions or "Call" in reader.op or (_STRING in dtypes and len(dtypes) > 1):
                return None
            if _STRING in dtypes:
                waiting.append(reader.name)
            else:
                found.add(reader.name)
    return found.pop() if len(found) == 1 else None
