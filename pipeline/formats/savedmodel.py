"""A SavedModel as TensorFlow loads it: the signature's function, called with tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import RunnerError
from ..signature import Signature
from . import Array, Batch, Runner
from .session import SessionRunner, checked_batch, session_config

v1 = tf.compat.v1
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, TypeError, tf.errors.OpError)


def open_saved_model(folder: Path, key: str | None, signature: Signature, threads: int) -> Runner:
    """Opens a SavedModel: by its signature, or, where tensors were named instead, in a session of TensorFlow 1.

    Args:
        key: the signature's name in the SavedModel.

    Raises:
        RunnerError: it does not load, or has no such signature.
    """
    try:
        if key is None:
            session = v1.Session(graph=tf.Graph(), config=session_config(threads))
            v1.saved_model.load(session, ["serve"], str(folder))
            return SessionRunner(session, signature)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        loaded = tf.saved_model.load(str(folder))
        return FunctionRunner(loaded, loaded.signatures[key], signature)
    except _BROKEN as exc:
        got = f"{type(exc).__name__}: {exc}".split("\n", 1)[0][:300]
        raise RunnerError("TensorFlow cannot load the SavedModel", where=folder, got=got) from exc


class FunctionRunner:
    """Calls a signature's function.

    Args:
        loaded: what keeps the function's variables alive.
    """

    def __init__(self, loaded: Any, function: Any, signature: Signature) -> None:
        self._loaded, self._function, self._signature = loaded, function, signature

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        given = checked_batch(self._signature, batch)
        try:
            tensors = {spec.name: tf.constant(given[spec.name], spec.dtype) for spec in self._signature.inputs}
            answers = self._function(**tensors)
            return {spec.name: np.asarray(answers[spec.name].numpy()) for spec in self._signature.outputs}
        except (tf.errors.OpError, ValueError, TypeError, KeyError) as exc:
            got = str(exc).strip().split("\n", 1)[0][:300]
            raise RunnerError("TensorFlow could not run the batch", got=got) from exc
