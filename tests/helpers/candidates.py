"""Candidates for tests: deployed files, made from a checkpoint with TensorFlow's own tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.inputs import ImportedCheckpoint
from pipeline.training.import_checkpoint import import_checkpoint

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
Change = Callable[[dict[str, Array]], None]

DRAW = np.random.default_rng(5)
W = DRAW.normal(size=(3, 2)).astype(np.float32)
B = DRAW.normal(size=2).astype(np.float32)


def build(x: Any) -> Any:
    """Two outputs of one dtype and shape, `y` and `p`, of the variables `layer/w` and `layer/b`."""
    w = v1.get_variable("layer/w", initializer=tf.constant(W))
    b = v1.get_variable("layer/b", initializer=tf.constant(B))
    return tf.nn.softmax(tf.add(x @ w, b, name="y"), name="p")


def one_ulp_off(values: dict[str, Array]) -> None:
    """One weight differs by one float32 ulp."""
    values["layer/w"][1, 1] = np.nextafter(values["layer/w"][1, 1], np.float32(9))


def far_off(values: dict[str, Array]) -> None:
    """One weight differs."""
    values["layer/w"][1, 1] += 1


def of_another_run(values: dict[str, Array]) -> None:
    """Every weight differs."""
    draw = np.random.default_rng(6)
    for name, value in values.items():
        values[name] = draw.normal(size=value.shape).astype(np.float32)


def save(prefix: Path, model: Callable[[Any], Any] = build) -> Path:
    """Writes the checkpoint of a model with one input `x`."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), v1.Session() as session:
        model(v1.placeholder(tf.float32, [None, 3], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
    return prefix


def artifact(prefix: Path, folder: Path, **options: Any) -> Path:
    """Makes the artifact of a checkpoint."""
    folder.mkdir(parents=True)
    import_checkpoint(ImportedCheckpoint(str(prefix), **options), None, 7, folder)
    return folder


def frozen_graph(prefix: Path, change: Change | None = None, outputs: tuple[str, ...] = ("y", "p")) -> Any:
    """Freezes a checkpoint with TensorFlow's own converter, optionally with changed weights."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        saver.restore(session, str(prefix))
        if change is not None:
            variables = {variable.op.name: variable for variable in v1.global_variables()}
            values = {name: session.run(variable) for name, variable in variables.items()}
            change(values)
            for name, value in values.items():
                variables[name].load(value, session)
        return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(outputs))


def node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def renamed(graph: Any, names: dict[str, str]) -> Any:
    """Renames some nodes of a graph."""
    new = v1.GraphDef()
    new.CopyFrom(graph)
    for each in new.node:
        each.name = names.get(each.name, each.name)
        for index, reference in enumerate(each.input):
            first, colon, port = reference.partition(":")
            each.input[index] = names.get(first, first) + colon + port
    return new


def scoped(graph: Any, scope: str = "prod") -> Any:
    """Imports the graph under a name scope."""
    return renamed(graph, {node.name: f"{scope}/{node.name}" for node in graph.node})


def write_pb(graph: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.SerializeToString())
    return path


def write_saved_model(
    graph: Any, folder: Path, called: dict[str, str] | None = None, inputs: dict[str, str] | None = None
) -> Path:
    """A SavedModel of TensorFlow 1 around a frozen graph.

    Args:
        called: tensors by their names in the signature.
    """
    with tf.Graph().as_default() as made, v1.Session() as session:
        tf.import_graph_def(graph, name="")
        tensors = [
            {name: made.get_tensor_by_name(tensor) for name, tensor in side.items()}
            for side in (inputs or {"x": "x:0"}, called or {"y": "y:0", "p": "p:0"})
        ]
        v1.saved_model.simple_save(session, str(folder), *tensors)
    return folder


def write_module(folder: Path, change: Change | None = None) -> Path:
    """The same model as a SavedModel of TensorFlow 2, with variables, and tensors named by whoever saves them."""
    values = {"layer/w": W.copy(), "layer/b": B.copy()}
    if change is not None:
        change(values)
    module = tf.Module()
    module.w, module.b = tf.Variable(values["layer/w"]), tf.Variable(values["layer/b"])

    def answer(x: Any) -> Any:
        y = x @ module.w + module.b
        return {"y": y, "p": tf.nn.softmax(y)}

    function = tf.function(answer, [tf.TensorSpec([None, 3], tf.float32, name="x")])
    tf.saved_model.save(module, str(folder), {"serving_default": function})
    return folder


def write_tflite(graph: Any, path: Path, batch: int | None = None) -> Path:
    """A TFLite file of a frozen graph, by TensorFlow's converter, which keeps no names but those of tensors."""
    path.with_suffix(".graph").write_bytes(graph.SerializeToString())
    converter = v1.lite.TFLiteConverter.from_frozen_graph(
        str(path.with_suffix(".graph")), ["x"], ["y", "p"], {"x": [batch, 3]}
    )
    path.write_bytes(converter.convert())
    return path


def write_onnx(graph: Any, path: Path, batch: int | None = None, names: Sequence[str] = ("y", "p")) -> Path:
    """An ONNX model of a frozen graph.

    Args:
        names: those of the outputs `y` and `p` there.
    """
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=["x:0"],
        output_names=["y:0", "p:0"],
        opset=17,
        shape_override={"x:0": [batch, 3]} if batch else None,
        tensors_to_rename={"y:0": names[0], "p:0": names[1]},
    )
    path.write_bytes(model.SerializeToString())
    return path
