"""Writes a Keras model as a checkpoint's artifact: a SavedModel, its signature, and Keras's own answers as goldens.

saved_model/      one signature, `serving_default`, with inputs and outputs by their names
signature.json    what it is fed and gives
goldens.npz       rows, and what Keras itself answers to them

TensorFlow writes the SavedModel. `model.export` collects the variables in an order that depends on addresses in
memory, and keeps each of them twice; here they are kept in the order in which the graph reads them. So the same model
gives the same bytes, whenever a process of its own writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.saved_model.experimental import TrackableResource

from pipeline.checkpoint.source import open_source
from pipeline.data.npz import prefixed, save_arrays
from pipeline.errors import CheckpointError, ModelError, nearest
from pipeline.freezing.freeze import prepare
from pipeline.signature import Batch, Signature, TensorSpec, batch_size_of
from pipeline.store.files import SAVED_MODEL_FILE, SAVED_MODEL_FOLDER, SIGNATURE_FILE

from .adapter import NamedModel

SIGNATURE_KEY, FOLDER = "serving_default", SAVED_MODEL_FOLDER
_MARK = "_user_specified_name"


def write_checkpoint(named: NamedModel, folder: Path) -> None:
    """Writes `saved_model/` and `signature.json`.

    Raises:
        CheckpointError: the model has no weights, or TensorFlow cannot write it.
        FreezeError: its graph cannot become a right .pb.
        ModelError: what it gives is not what its signature promises.
    """
    _write_saved_model(named, folder / FOLDER)
    source = open_source(folder / FOLDER)
    if not source.has_variables:
        raise CheckpointError("there is nothing to freeze: the model has no weights", where=named.model.name)
    prepared = prepare(source, (), (), {})
    kept_promise(named.signature, prepared.signature).write(folder / SIGNATURE_FILE, origin=prepared.origin)


def _write_saved_model(named: NamedModel, folder: Path) -> None:
    specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in named.signature.inputs}
    serve = tf.function(named.__call__, input_signature=[specs], autograph=False).get_concrete_function()
    variables = {id(variable.handle): variable for variable in serve.variables}
    kept = tf.Module()
    kept.weights = [variables[id(handle)] for handle in serve.captured_inputs if id(handle) in variables]
    kept.tables = [
        part for part in tf.train.TrackableView(named.model).descendants() if isinstance(part, TrackableResource)
    ]
    tf.saved_model.save(kept, str(folder), {SIGNATURE_KEY: serve})
    _forget_history(folder / SAVED_MODEL_FILE)
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # it holds a random number, and loading does without


def _forget_history(path: Path) -> None:
    """Writes a SavedModel's graph again without what depends on the process that wrote it.

    Captured arguments are marked with a running number of their process, and maps are written in any order.
    """
    model = SavedModel.FromString(path.read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        for attributes in function.arg_attr.values():
            if _MARK in attributes.attr and attributes.attr[_MARK].s.isdigit():
                del attributes.attr[_MARK]
    path.write_bytes(model.SerializeToString(deterministic=True))


def kept_promise(promised: Signature, given: Signature) -> Signature:
    """A promised signature, with the tensors that keep it.

    Raises:
        ModelError: a name is missing, or is not of its dtype or a compatible shape.
    """
    inputs, outputs = (
        tuple(_kept(spec, {other.name: other for other in others}) for spec in specs)
        for specs, others in ((promised.inputs, given.inputs), (promised.outputs, given.outputs))
    )
    return replace(promised, inputs=inputs, outputs=outputs)


def _kept(spec: TensorSpec, given: Mapping[str, TensorSpec]) -> TensorSpec:
    other = given.get(spec.name)
    if other is None:
        raise ModelError(
            "the model lacks what its signature promises", where=spec.name, next_step=nearest(spec.name, given)
        )
    if spec.dtype != other.dtype or not tf.TensorShape(spec.shape).is_compatible_with(tf.TensorShape(other.shape)):
        raise ModelError(
            "the model is not what its signature promises",
            where=spec.name,
            got=replace(other, tensor=None),
            wanted=replace(spec, tensor=None),
        )
    return replace(spec, tensor=other.tensor)


def record_goldens(named: NamedModel, rows: Batch, path: Path) -> None:
    """Writes rows, and what Keras answers to them; where the batch is fixed, those of whole batches."""
    count = len(next(iter(rows.values())))
    whole = count - count % (batch_size_of(named.signature) or 1)
    rows = {name: values[:whole] for name, values in rows.items()}
    save_arrays(path, {**prefixed("input", rows), **prefixed("output", named.answer(rows))})
