"""Writes a Keras model as a checkpoint's artifact: a SavedModel, its signature, and Keras's own outputs as goldens.

saved_model/      one signature, `serving_default`, with inputs and outputs by name
signature.json    the inputs and outputs
goldens.npz       rows, and Keras's own outputs for them

TensorFlow writes the SavedModel. `model.export` would collect the variables in an order that depends on memory
addresses, and store each of them twice; here they are stored in the order in which the graph reads them. So the same
model gives the same bytes if a new process writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.saved_model.experimental import TrackableResource

from pipeline.checkpoint.source import open_source
from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import CheckpointError, ModelError, nearest
from pipeline.freezing.freeze import prepare
from pipeline.freezing.table_keys import keys_of_tables
from pipeline.signature import Batch, Signature, TensorSpec, batch_size_of, shapes_fit
from pipeline.store.file_names import SAVED_MODEL_FILE, SAVED_MODEL_FOLDER, SIGNATURE_FILE

from .adapter import NamedModel

SIGNATURE_KEY = "serving_default"
_MARK = "_user_specified_name"


def serve(named_model: NamedModel) -> Any:
    """Returns the function that is exported, traced: its variables are those that the outputs need."""
    specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in named_model.signature.inputs}
    return tf.function(named_model.__call__, input_signature=[specs], autograph=False).get_concrete_function()


def variables_of(served: Any) -> list[tf.Variable]:
    """Returns the variables that an exported function reads, in the order in which its graph does."""
    variables = {id(variable.handle): variable for variable in served.variables}
    return [variables[id(handle)] for handle in served.captured_inputs if id(handle) in variables]


def write_checkpoint(
    named_model: NamedModel, folder: Path, is_declared: bool = True, served: Any = None
) -> dict[str, list[Any]]:
    """Writes `saved_model/` and `signature.json`.

    Args:
        is_declared: the signature is the author's. Else it is what Keras infers layer by layer, which may be another
            shape than the layer's code makes (of TextVectorization); then the exported graph says what is true.
        served: the function to export (see `serve`); None to trace it now.

    Returns:
        What the model looks up in its tables, by dtype.

    Raises:
        CheckpointError: the model has no weights, or TensorFlow cannot write it.
        FreezeError: its graph cannot become a correct .pb.
        ModelError: its inputs or outputs do not match its signature.
    """
    _write_saved_model(named_model, serve(named_model) if served is None else served, folder / SAVED_MODEL_FOLDER)
    source = open_source(folder / SAVED_MODEL_FOLDER)
    if not source.has_variables:
        raise CheckpointError("there is nothing to freeze: the model has no weights", where=named_model.model.name)
    prepared = prepare(source, (), (), {})
    if not is_declared:
        outputs = tuple(_as_exported(spec, prepared.signature.outputs) for spec in named_model.signature.outputs)
        named_model.signature = replace(named_model.signature, outputs=outputs)
    match_signature(named_model.signature, prepared.signature).write(folder / SIGNATURE_FILE, origin=prepared.origin)
    return keys_of_tables(prepared.graph.nodes)


def _write_saved_model(named_model: NamedModel, served: Any, folder: Path) -> None:
    module = tf.Module()
    module.weights = variables_of(served)
    module.tables = [
        part for part in tf.train.TrackableView(named_model.model).descendants() if isinstance(part, TrackableResource)
    ]
    tf.saved_model.save(module, str(folder), {SIGNATURE_KEY: served})
    _make_reproducible(folder / SAVED_MODEL_FILE)
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # it has a random number, and loading does not need it


def _make_reproducible(path: Path) -> None:
    """Rewrites a SavedModel's graph with reproducible bytes.

    TensorFlow marks captured arguments with a counter of the process, and writes maps in any order.
    """
    model = SavedModel.FromString(path.read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        for attributes in function.arg_attr.values():
            if _MARK in attributes.attr and attributes.attr[_MARK].s.isdigit():
                del attributes.attr[_MARK]
    path.write_bytes(model.SerializeToString(deterministic=True))


def match_signature(declared: Signature, exported: Signature) -> Signature:
    """Returns the declared signature with the tensor names of the exported one.

    Raises:
        ModelError: a tensor is missing, or has another dtype or an incompatible shape.
    """
    inputs, outputs = (
        tuple(_match_tensor(spec, {other.name: other for other in others}) for spec in specs)
        for specs, others in ((declared.inputs, exported.inputs), (declared.outputs, exported.outputs))
    )
    return replace(declared, inputs=inputs, outputs=outputs)


def _as_exported(spec: TensorSpec, exported: Sequence[TensorSpec]) -> TensorSpec:
    other = next((one for one in exported if one.name == spec.name), spec)
    return spec if shapes_fit(spec.shape, other.shape) else replace(spec, shape=other.shape)


def _match_tensor(spec: TensorSpec, exported: Mapping[str, TensorSpec]) -> TensorSpec:
    other = exported.get(spec.name)
    if other is None:
        raise ModelError(
            "the model lacks an input or output of its signature",
            where=spec.name,
            next_step=nearest(spec.name, exported),
        )
    if spec.dtype != other.dtype or not tf.TensorShape(spec.shape).is_compatible_with(tf.TensorShape(other.shape)):
        raise ModelError(
            "a tensor of the model does not match its signature",
            where=spec.name,
            got=replace(other, tensor=None),
            wanted=replace(spec, tensor=None),
        )
    return replace(spec, tensor=other.tensor)


def record_goldens(named_model: NamedModel, rows: Batch, path: Path) -> None:
    """Writes rows and Keras's outputs for them; with a fixed batch size, only the rows of full batches."""
    count = len(next(iter(rows.values())))
    whole = count - count % (batch_size_of(named_model.signature) or 1)
    rows = {name: values[:whole] for name, values in rows.items()}
    save_arrays(path, {**add_kind("input", rows), **add_kind("output", named_model.predict(rows))})
