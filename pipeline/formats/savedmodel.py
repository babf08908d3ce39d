"""The format `savedmodel`: a SavedModel of TensorFlow 1 around the frozen graph, for what serves such folders.

Any SavedModel can be opened too, as TensorFlow loads it: the reference where a chain starts at one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError, EncodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipeline.errors import FreezeError, RunnerError
from pipeline.signature import Array, Batch, Signature, TensorSpec
from pipeline.store.files import FROZEN_FILE, SAVED_MODEL_FILE, SIGNATURE_FILE

from .origin import candidate_of
from .runner import Runner, checked_batch
from .session import SessionRunner, session_config

v1 = tf.compat.v1
SIGNATURE_KEY, TAG = "serving_default", "serve"
MAX_BYTES = 2**31 - 1
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, TypeError, tf.errors.OpError)


def make_saved_model(frozen: Path, folder: Path) -> dict[str, Any]:
    """Writes `saved_model.pb` around a frozen graph, and `signature.json` beside it.

    The graph is that of `model.pb`, node by node. Its one signature has the inputs and outputs of `signature.json`
    by their names. There are no variables to restore and no tables to initialize; nothing in it tells when or where it
    was made (TensorFlow's own writer adds a `fingerprint.pb` with a random number), so the same graph gives the same
    bytes.

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
            served = v1.saved_model.build_signature_def(
                _tensor_infos(graph, signature.inputs),
                _tensor_infos(graph, signature.outputs),
                v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
            )
        meta = v1.train.export_meta_graph(graph=graph, graph_def=graph_def)
        meta.meta_info_def.tags.append(TAG)
        meta.signature_def[SIGNATURE_KEY].CopyFrom(served)
        content = SavedModel(saved_model_schema_version=1, meta_graphs=[meta]).SerializeToString(deterministic=True)
        if len(content) > MAX_BYTES:  # protobuf writes it without complaint
            raise ValueError(f"{len(content)} bytes, and {MAX_BYTES} are the most that can be read again")
    except (ValueError, KeyError, DecodeError, EncodeError, tf.errors.OpError) as exc:
        got = str(exc).strip().split("\n", 1)[0][:300]
        raise FreezeError(
            "no SavedModel can be made of this", where=path, got=got, next_step="Leave savedmodel out of --formats"
        ) from exc
    (folder / SAVED_MODEL_FILE).write_bytes(content)
    shutil.copyfile(frozen / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    return {"signature": SIGNATURE_KEY}


def _tensor_infos(graph: tf.Graph, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    tensors = {spec.name: graph.get_tensor_by_name(spec.tensor_name) for spec in specs}
    return {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}


def open_runner(folder: Path, signature: Signature, threads: int, is_plain: bool = False) -> Runner:
    """Opens an artifact's folder, and feeds and fetches the tensors that its `serving_default` names.

    A candidate that the pipeline did not make is opened by a signature of its own, with names of its own.

    Raises:
        RunnerError: it does not load, or its signature lacks an input or output of `signature.json`.
    """
    if told := candidate_of(folder):
        called = {spec.name: spec.tensor_name for spec in (*signature.inputs, *signature.outputs)}
        return open_saved_model(folder, told["signature"], signature, threads, is_plain, called)
    session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_plain))
    try:
        meta = v1.saved_model.load(session, [TAG], str(folder))
    except (*_BROKEN, DecodeError) as exc:
        raise _not_loaded(folder / SAVED_MODEL_FILE, exc) from exc
    served = meta.signature_def[SIGNATURE_KEY]
    inputs, outputs = _served(signature.inputs, served.inputs), _served(signature.outputs, served.outputs)
    return SessionRunner(session, replace(signature, inputs=inputs, outputs=outputs))


def _served(specs: tuple[TensorSpec, ...], served: Any) -> tuple[TensorSpec, ...]:
    for spec in specs:
        if spec.name not in served:
            raise RunnerError(
                "the SavedModel's signature lacks a tensor of the signature", where=spec.name, got=", ".join(served)
            )
    return tuple(replace(spec, tensor=served[spec.name].name) for spec in specs)


def _not_loaded(place: Path, cause: Exception) -> RunnerError:
    got = f"{type(cause).__name__}: {cause}".split("\n", 1)[0][:300]
    return RunnerError("TensorFlow cannot load the SavedModel", where=place, got=got)


def open_saved_model(
    folder: Path,
    key: str | None,
    signature: Signature,
    threads: int,
    is_plain: bool = False,
    called: Mapping[str, str] | None = None,
) -> Runner:
    """Opens a SavedModel: by its signature, or, where tensors were named instead, in a session of TensorFlow 1.

    Args:
        key: the signature's name in the SavedModel.
        called: the SavedModel's name of an input or output, where it is not the signature's.

    Raises:
        RunnerError: it does not load, or has no such signature.
    """
    try:
        if key is None:
            session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_plain))
            v1.saved_model.load(session, ["serve"], str(folder))
            return SessionRunner(session, signature)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": is_plain})
        loaded = tf.saved_model.load(str(folder))
        return FunctionRunner(loaded, loaded.signatures[key], signature, called)
    except _BROKEN as exc:
        raise _not_loaded(folder, exc) from exc


class FunctionRunner:
    """Calls a signature's function.

    Args:
        loaded: what keeps the function's variables alive.
        called: the function's name of an input or output, where it is not the signature's.
    """

    def __init__(
        self, loaded: Any, function: Any, signature: Signature, called: Mapping[str, str] | None = None
    ) -> None:
        self._loaded, self._function, self._signature, self._called = loaded, function, signature, dict(called or {})

    def _own(self, spec: TensorSpec) -> str:
        return self._called.get(spec.name, spec.name)

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        given = checked_batch(self._signature, batch)
        try:
            tensors = {self._own(spec): tf.constant(given[spec.name], spec.dtype) for spec in self._signature.inputs}
            answers = self._function(**tensors)
            return {spec.name: np.asarray(answers[self._own(spec)].numpy()) for spec in self._signature.outputs}
        except (tf.errors.OpError, ValueError, TypeError, KeyError) as exc:
            got = str(exc).strip().split("\n", 1)[0][:300]
            raise RunnerError("TensorFlow could not run the batch", got=got) from exc
