"""Builds a model's graphs: one to train, one to deploy.

    training.meta    forward pass, loss, optimizer, moving averages
    inference.meta   the forward pass as it is deployed, without a placeholder that switches training on
    evaluation.meta  the same with the loss added, for validation losses during training
    signature.json   the model's inputs and outputs

A model without a loss has an inference graph only.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.errors import ModelError, PipelineError, first_line, logger, nearest
from pipeline.settings import GraphSettings
from pipeline.signature import TensorSpec
from pipeline.store.file_names import EVALUATION_GRAPH_FILE, INFERENCE_GRAPH_FILE, SIGNATURE_FILE, TRAINING_GRAPH_FILE

from .models import Model
from .models.source import ModelSource, load_model
from .randomness import STEP, key_draws_by_step

# Collections of the names that training needs from the graphs.
LABELS, LOSS, TRAIN_OP = "pipeline/labels", "pipeline/loss", "pipeline/train_op"
AVERAGES = "pipeline/averages"  # "variable=average", one entry each
DEFAULT_LABELS = TensorSpec("labels", "int64", (None,))


def build_graph(source: ModelSource, settings: GraphSettings, folder: Path) -> dict[str, Any]:
    """Builds and writes the graphs of a model.

    Returns:
        Notes for the manifest: the seed and the numbers of nodes.

    Raises:
        ModelError: the model cannot be imported, breaks its signature, or its two graphs have
            different variables.
    """
    model = load_model(source)
    inference = _inference_graph(model, settings, has_loss=False)
    if not _variables(inference):
        raise ModelError("the model has no variables", where=source.class_name, next_step="There is nothing to freeze")
    _write_meta(inference, folder / INFERENCE_GRAPH_FILE)
    model.signature.write(folder / SIGNATURE_FILE)
    notes = {"seed": settings.seed, "inference_nodes": len(inference.get_operations())}
    if hasattr(model, "loss"):
        training = _training_graph(model, settings)
        _require_same_variables(training, inference)
        _write_meta(training, folder / TRAINING_GRAPH_FILE)
        _write_meta(_inference_graph(model, settings, has_loss=True), folder / EVALUATION_GRAPH_FILE)
        notes["training_nodes"] = len(training.get_operations())
    return notes


def _inference_graph(model: Model, settings: GraphSettings, has_loss: bool) -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(settings.seed)
        outputs = _forward(model, is_training=False)
        if has_loss:
            _add_loss(model, outputs)
    return graph


def _training_graph(model: Any, settings: GraphSettings) -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(settings.seed)
        v1.placeholder(tf.int64, [], name=STEP)
        outputs = _forward(model, is_training=True)
        loss = _add_loss(model, outputs)
        step = v1.train.create_global_step()
        optimizer = model.optimizer() if hasattr(model, "optimizer") else v1.train.AdamOptimizer(settings.learning_rate)
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            train = optimizer.minimize(loss, global_step=step)
        trainable = v1.trainable_variables()
        if settings.moving_average:
            averages = v1.train.ExponentialMovingAverage(settings.moving_average)
            with tf.control_dependencies([train]):
                train = averages.apply(trainable)
            for variable in trainable:
                v1.add_to_collection(AVERAGES, f"{variable.op.name}={averages.average_name(variable)}")
        v1.add_to_collection(TRAIN_OP, train.name)
    return graph


def _forward(model: Model, is_training: bool) -> dict[str, tf.Tensor]:
    """Builds a model's forward pass in the current graph; inputs and outputs get their names in the signature."""
    inputs = {
        spec.name: v1.placeholder(tf.as_dtype(spec.dtype), spec.shape, name=spec.name)
        for spec in model.signature.inputs
    }
    outputs = dict(_called(model, inputs, is_training))
    for spec in model.signature.outputs:
        outputs[spec.name] = _name_output(spec, outputs)
    return outputs


def _called(model: Model, inputs: dict[str, tf.Tensor], is_training: bool) -> Mapping[str, tf.Tensor]:
    try:
        return model.forward(inputs, is_training)
    except PipelineError:
        raise
    except Exception as exc:  # the user's code may raise anything
        steps = traceback.extract_tb(exc.__traceback__)
        own = [step for step in steps if "/site-packages/" not in step.filename][-1]
        is_layer = any("keras/src/" in step.filename for step in steps)  # keras, or tf_keras, which is Keras 2
        raise ModelError(
            "the method forward fails",
            where=f"{own.filename}:{own.lineno}",
            got=f"{type(exc).__name__}: {first_line(exc)}",
            next_step="forward builds a TensorFlow 1 graph, where not all layers of Keras work: give the class a "
            "method build in its place, which returns a Keras 3 model; of a Keras 2 model, write a SavedModel with "
            "model.export(FOLDER), and give --checkpoint FOLDER"
            if is_layer
            else "Correct it there",
        ) from exc


def _name_output(spec: TensorSpec, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns the tensor of an output, checked, and under the output's name in the graph."""
    if spec.name not in outputs:
        raise ModelError(
            "the model does not return an output of its signature",
            where=spec.name,
            got=", ".join(sorted(outputs)) or "nothing",
            wanted=str(spec),
            next_step=nearest(spec.name, outputs),
        )
    tensor = tf.convert_to_tensor(outputs[spec.name])
    if tensor.dtype.base_dtype != tf.as_dtype(spec.dtype) or not tensor.shape.is_compatible_with(spec.shape):
        raise ModelError(
            "an output has another dtype or shape than in the signature",
            where=spec.name,
            got=f"{tensor.dtype.name} {tensor.shape}",
            wanted=str(spec),
        )
    if tensor.name == spec.tensor_name:
        return tensor
    existing = {operation.name: operation.type for operation in tensor.graph.get_operations()}
    if spec.name in existing:
        raise ModelError(
            "an output's name is taken by another node of the graph",
            where=spec.name,
            got=f"a {existing[spec.name]} of that name, and {tensor.name} as the output",
            next_step="Give that node another name",
        )
    # The slash keeps TensorFlow from numbering the name where a scope has it.
    return tf.identity(tensor, name=f"{spec.name}/")


def _add_loss(model: Any, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Adds the labels' placeholder and the model's loss to the current graph, and their names to collections."""
    spec = getattr(model, "labels", DEFAULT_LABELS)
    labels = v1.placeholder(tf.as_dtype(spec.dtype), spec.shape, name=LABELS)
    loss = tf.convert_to_tensor(model.loss(outputs, labels))
    if not loss.dtype.is_floating or loss.shape.rank not in (0, None):
        raise ModelError(
            "the loss is not a scalar", got=f"{loss.dtype.name} {loss.shape}", wanted="a float of shape []"
        )
    v1.add_to_collection(LABELS, labels.name)
    v1.add_to_collection(LOSS, loss.name)
    return loss


def names_in_collection(graph: tf.Graph, collection: str) -> list[str]:
    """Reads the names in a collection of an imported graph, which stores strings as bytes."""
    return [tf.compat.as_str(name) for name in graph.get_collection(collection)]


def _require_same_variables(training: tf.Graph, inference: tf.Graph) -> None:
    trained = {variable.op.name: variable.shape for variable in _variables(training)}
    for variable in _variables(inference):
        name = variable.op.name
        if name not in trained or not trained[name].is_compatible_with(variable.shape):
            raise ModelError(
                "a variable of the inference graph is not trained",
                where=name,
                got=trained.get(name, "no such variable in the training graph"),
                wanted=f"the same variable, {variable.shape}, in both graphs",
                next_step=nearest(name, trained),
            )


def _variables(graph: tf.Graph) -> list[tf.Variable]:
    return list(graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES))


def _name_tables(graph: v1.GraphDef) -> None:
    """Names each table after its node, for reproducible bytes: TensorFlow gives it a random name."""
    names: dict[bytes, bytes] = {}
    for node in graph.node:
        if "HashTable" in node.op and node.attr["shared_name"].s:
            node.attr["shared_name"].s = names.setdefault(node.attr["shared_name"].s, node.name.encode())


def _write_meta(graph: tf.Graph, path: Path) -> None:
    with graph.as_default():
        meta = v1.train.export_meta_graph()
    _name_tables(meta.graph_def)
    if graph.get_collection(TRAIN_OP):
        unkeyed = key_draws_by_step(meta.graph_def, [variable.initializer.name for variable in _variables(graph)])
        if unkeyed:
            logger.warning(
                "a resumed training may differ in its last bits from one that was not interrupted, because no "
                "checkpoint stores the random state of: %s",
                ", ".join(unkeyed),
            )
    path.write_bytes(meta.SerializeToString(deterministic=True))
