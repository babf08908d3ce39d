"""Finds the weights that produced the recorded outputs: those of another step, or raw instead of averaged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.formats.checkpoint import assigns, open_session
from pipeline.formats.session import session_config
from pipeline.signature import Batch, Signature, as_fed
from pipeline.store.file_names import CHECKPOINT_PREFIX, SIGNATURE_FILE

from ..compare.tolerance import Tolerance, all_within
from .similarity import AVERAGE, ValueSource


def find_weights(
    checkpoint: Path,
    prefixes: Sequence[str],
    signature: Signature,
    inputs: Batch,
    recorded: Batch,
    tolerances: Mapping[str, Tolerance],
    threads: int,
) -> ValueSource | None:
    """Tries the weights of other checkpoints in a checkpoint's graph until one reproduces the recorded outputs.

    Args:
        checkpoint: the artifact with `model.ckpt.*`.
        prefixes: the other checkpoints, the newest last; the newest is tried first.
        inputs, recorded: the recorded inputs and outputs, `[rows, ...]` by name.
        tolerances: by output.

    Returns:
        The source of the weights that reproduce the recorded outputs; None if there is none.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    session, constants = open_session(checkpoint, signature, session_config(threads))
    with session.graph.as_default():
        variables = assigns(session.graph)
    given = as_fed(inputs, Signature.read(checkpoint / SIGNATURE_FILE))
    fed = {spec.tensor_name: given[spec.name] for spec in signature.inputs} | constants
    fetched = {spec.name: spec.tensor_name for spec in signature.outputs if spec.name in recorded}
    for prefix, is_average in product([str(checkpoint / CHECKPOINT_PREFIX), *reversed(prefixes)], (False, True)):
        values = _values(prefix, variables, is_average)
        if values is None:
            continue
        try:
            for name, (placeholder, assign) in variables.items():
                session.run(assign, {placeholder: values[name]})
            answers = session.run(fetched, fed)
        except (tf.errors.OpError, ValueError, TypeError):
            continue
        if all(all_within(recorded[name], np.asarray(answers[name]), tolerances[name]) for name in fetched):
            return ValueSource(prefix, is_average)
    return None


def _values(prefix: str, names: Mapping[str, Any], is_average: bool) -> dict[str, Any] | None:
    """Reads the values of variables, or their averages; None if one is missing, or if there are no averages."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        keys = {name: _key(name.removesuffix(AVERAGE), shapes, is_average) for name in names}
        if None in keys.values() or (is_average and not any(str(key).endswith(AVERAGE) for key in keys.values())):
            return None
        return {name: reader.get_tensor(key) for name, key in keys.items()}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError, OSError):
        return None


def _key(name: str, known: Mapping[str, Any], is_average: bool) -> str | None:
    wanted = (name + AVERAGE, name) if is_average else (name, name + AVERAGE)
    return next((key for key in wanted if key in known), None)
