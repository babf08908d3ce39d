"""The format `savedmodel`: the frozen graph as a TensorFlow 1 SavedModel, for model servers.

It also opens any other SavedModel as TensorFlow does: the reference if a chain starts at a SavedModel.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError, EncodeError
from tensorflow.compat import v1
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.errors import FreezeError, RunnerError, first_line
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import SignatureDef
from pipeline.signature import Array, Batch, Signature, TensorSpec
from pipeline.store.file_names import FROZEN_FILE, SAVED_MODEL_FILE, SIGNATURE_FILE

from .origin import candidate_of, pinned_feeds, pinned_value, with_idle_feeds
from .refusals import not_imported
from .row_bytes import stored_row_bytes
from .runner import Runner, check_batch
from .saved_functions import find_function
from .session import SessionRunner, session_config
from .waiting import require_no_wait

SIGNATURE_KEY, TAG = "serving_default", "serve"
MAX_BYTES = 2**31 - 1
_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, tf.errors.OpError)


def make_saved_model(frozen: Path, folder: Path) -> dict[str, Any]:
    """Writes a frozen graph as `saved_model.pb`, and copies its `signature.json`.

    The graph is the one of `model.pb`, node by node. Its one signature has the inputs and outputs of `signature.json`
    by name. There are no variables to restore and no tables to initialize. The file has no dates, paths or random
    numbers (TensorFlow's own writer adds a `fingerprint.pb` with one), so the same graph gives the same bytes.

    Args:
        frozen: an artifact in the format `frozen`.

    Returns:
        Notes for the manifest: the signature's name.

    Raises:
        FreezeError: TensorFlow cannot import the graph, it lacks a tensor of the signature, or is too large.
    """
    signature, path = Signature.read(frozen / SIGNATURE_FILE), frozen / FROZEN_FILE
    try:
        graph_def = v1.GraphDef.FromString(path.read_bytes())
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            signature_def = v1.saved_model.build_signature_def(
                _tensor_infos(graph, signature.inputs),
                _tensor_infos(graph, signature.outputs),
                v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
            )
        meta = v1.train.export_meta_graph(graph=graph, graph_def=graph_def)
        meta.meta_info_def.tags.append(TAG)
        meta.signature_def[SIGNATURE_KEY].CopyFrom(signature_def)
        content = SavedModel(saved_model_schema_version=1, meta_graphs=[meta]).SerializeToString(deterministic=True)
        if len(content) > MAX_BYTES:  # protobuf writes more without an error
            raise ValueError(f"{len(content)} bytes, and {MAX_BYTES} are the most that can be read again")
    except (ValueError, KeyError, DecodeError, EncodeError, tf.errors.OpError) as exc:
        got, next_step = first_line(exc), not_imported(path.stat().st_size > MAX_BYTES // 2, tf.__version__)
        raise FreezeError("no SavedModel can be made of this", where=path, got=got, next_step=next_step) from exc
    (folder / SAVED_MODEL_FILE).write_bytes(content)
    shutil.copyfile(frozen / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    return {"signature": SIGNATURE_KEY}


def _tensor_infos(graph: tf.Graph, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    tensors = {spec.name: graph.get_tensor_by_name(spec.tensor_name) for spec in specs}
    return {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}


def open_runner(folder: Path, signature: Signature, threads: int, is_unoptimized: bool = False) -> Runner:
    """Opens an artifact's folder with its signature `serving_default`.

    A third-party candidate is opened with its own signature and its own names.

    Raises:
        RunnerError: it cannot be loaded, or its signature lacks an input or output of `signature.json`.
    """
    if candidate := candidate_of(folder):
        names = {spec.name: spec.tensor_name for spec in (*signature.inputs, *signature.outputs)}
        return open_saved_model(folder, candidate["signature"], signature, threads, is_unoptimized, names)
    session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_unoptimized))
    try:
        meta = v1.saved_model.load(session, [TAG], str(folder))
    except (*_ERRORS, DecodeError) as exc:
        raise _load_error(folder / SAVED_MODEL_FILE, exc) from exc
    own = meta.signature_def[SIGNATURE_KEY]
    inputs, outputs = (_rename_tensors(signature.inputs, own.inputs), _rename_tensors(signature.outputs, own.outputs))
    return SessionRunner(session, replace(signature, inputs=inputs, outputs=outputs))


def _rename_tensors(
    specs: tuple[TensorSpec, ...], own: Any, names: Mapping[str, str] | None = None
) -> tuple[TensorSpec, ...]:
    """Replaces the tensor names of specs by those in the SavedModel's own signature."""
    owned = {spec.name: (names or {}).get(spec.name, spec.name) for spec in specs}
    for spec in specs:
        if owned[spec.name] not in own:
            raise RunnerError(
                "the SavedModel's signature lacks a tensor of the signature", where=spec.name, got=", ".join(own)
            )
    return tuple(replace(spec, tensor=own[owned[spec.name]].name) for spec in specs)


def _load_error(path: Path, cause: Exception) -> RunnerError:
    got = f"{type(cause).__name__}: {first_line(cause)}"
    return RunnerError("TensorFlow cannot load the SavedModel", where=path, got=got)


def open_saved_model(
    folder: Path,
    key: str | None,
    signature: Signature,
    threads: int,
    is_unoptimized: bool = False,
    names: Mapping[str, str] | None = None,
    pins: Mapping[str, str] | None = None,
) -> Runner:
    """Opens a SavedModel as TensorFlow 2 does, with the function of a signature; else in a session of TensorFlow 1.

    A session is needed for tensors that the signature does not name, and for what the loader of TensorFlow 2 refuses,
    such as the slots of an optimizer of a class that it does not know.

    Args:
        key: name of the signature in the SavedModel; None to use the tensor names of `signature`.
        names: the SavedModel's name of an input or output, if it differs from the name in `signature`.
        pins: values of pinned placeholders, by the placeholder's name in the graph.

    Raises:
        RunnerError: it cannot be loaded, or lacks the signature.
    """
    names, pins = names or {}, pins or {}
    chosen = read_meta_graphs(folder)[1][0]  # the same of several graphs as freezing chooses
    meta = chosen.rest
    if key is not None and key not in meta.signature_def:
        try:
            loaded = _load(folder, meta.meta_info_def.tags, threads, is_unoptimized)
            return FunctionRunner(loaded, find_function(loaded, meta, key), signature, names, pins, chosen.graph)
        except (*_ERRORS, AttributeError) as exc:
            raise _load_error(folder, exc) from exc
    own = meta.signature_def[key] if key is not None else SignatureDef()
    given = {node_of(info.name): name for name, info in own.inputs.items()}
    sides = (signature.inputs, signature.outputs)
    inputs, outputs = ({names.get(spec.name, spec.name) for spec in side} for side in sides)
    refusal: Exception | None = None
    if inputs <= set(own.inputs) and outputs <= set(own.outputs) and given.keys() >= set(map(node_of, pins)):
        try:
            fed = {given[node_of(tensor)]: text for tensor, text in pins.items()}
            loaded = _load(folder, meta.meta_info_def.tags, threads, is_unoptimized)
            return FunctionRunner(loaded, loaded.signatures[key], signature, names, fed, chosen.graph)
        except (*_ERRORS, AttributeError) as exc:
            refusal = exc
    try:
        session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_unoptimized))
        v1.saved_model.load(session, list(meta.meta_info_def.tags), str(folder))
        if refusal is not None:
            signature = replace(
                signature,
                inputs=_rename_tensors(signature.inputs, own.inputs, names),
                outputs=_rename_tensors(signature.outputs, own.outputs, names),
            )
        feeds = pinned_feeds(session.graph, pins)
        return SessionRunner(session, signature, with_idle_feeds(session.graph, signature, feeds))
    except (*_ERRORS, DecodeError) as exc:
        raise _load_error(folder, refusal or exc) from exc


def _load(folder: Path, tags: Sequence[str], threads: int, is_unoptimized: bool) -> Any:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": is_unoptimized})
    return tf.saved_model.load(str(folder), tags=list(tags))


class FunctionRunner:
    """Calls the function of a SavedModel's signature.

    Args:
        loaded: the loaded SavedModel, referenced to keep the function's variables alive.
        names: the function's name of an input or output, if it differs from the name in `signature`.
        pins: values of inputs that are the same in every batch, as text, by the function's name of the input.
        graph: the graph as the file has it, which tells how large inner tensors are.

    Raises:
        RunnerError: an output would wait for the rows of a queue.
    """

    def __init__(
        self,
        loaded: Any,
        function: Any,
        signature: Signature,
        names: Mapping[str, str] | None = None,
        pins: Mapping[str, str] | None = None,
        graph: Graph | None = None,
    ) -> None:
        self._stored = graph
        self._loaded, self._function, self._signature, self._names = loaded, function, signature, dict(names or {})
        sides = ([tensor.name for tensor in side] for side in (function.graph.outputs, function.graph.inputs))
        require_no_wait(function.graph, *sides)
        specs = function.structured_input_signature[1] if pins else {}
        self._pins = {
            name: tf.constant(pinned_value(specs[name], text), specs[name].dtype) for name, text in (pins or {}).items()
        }

    def inner_row_bytes(self) -> int:
        """Returns the bytes of one row in the largest node; 0 if the file does not tell its shapes."""
        return 0 if self._stored is None else stored_row_bytes(self._stored)

    def _own_name(self, spec: TensorSpec) -> str:
        return self._names.get(spec.name, spec.name)

    def run(self, batch: Batch) -> dict[str, Array]:
        check_batch(self._signature, batch)
        try:
            tensors = {
                self._own_name(spec): tf.constant(batch[spec.name], spec.dtype) for spec in self._signature.inputs
            }
            outputs = self._function(**tensors, **self._pins)
            return {spec.name: np.asarray(outputs[self._own_name(spec)].numpy()) for spec in self._signature.outputs}
        except (tf.errors.OpError, ValueError, TypeError, KeyError) as exc:
            raise RunnerError("TensorFlow could not run the batch", got=first_line(exc)) from exc
