"""Reads what a runner needs from `signature.json` in addition to the signature: pins, feeds, tables to fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.errors import RunnerError, first_line
from pipeline.signature import read_origin
from pipeline.store.file_names import SIGNATURE_FILE


def candidate_of(folder: Path) -> dict[str, Any]:
    """Reads the entry about a third-party candidate; empty for an artifact that the pipeline made."""
    candidate: dict[str, Any] = read_origin(folder / SIGNATURE_FILE).get("candidate", {})
    return candidate


def pinned_feeds(graph: tf.Graph, pins: Mapping[str, str]) -> dict[str, Any]:
    """Converts pinned values from text to arrays, by tensor.

    Raises:
        RunnerError: the graph lacks a pinned placeholder.
    """
    feeds = {}
    for name, text in pins.items():
        tensor_name = name if ":" in name else f"{name}:0"
        try:
            feeds[tensor_name] = pinned_value(graph.get_tensor_by_name(tensor_name), text)
        except KeyError as exc:
            raise RunnerError("the graph lacks a placeholder that is pinned", where=name) from exc
    return feeds


def pinned_value(tensor: tf.Tensor | tf.TensorSpec, text: str) -> Any:
    """Converts a pinned value from text to an array of a tensor's dtype, and of its shape if that is known."""
    if tensor.dtype == tf.bool:
        value: Any = text.lower() in ("true", "1")
    elif tensor.dtype == tf.string:
        value = text.encode()
    else:
        value = tensor.dtype.as_numpy_dtype(text)
    return np.full(tensor.shape.as_list() if tensor.shape.is_fully_defined() else [], value)


def constant_feeds(session: tf.compat.v1.Session, folder: Path) -> dict[str, Any]:
    """Reads the values to feed with every batch, by tensor: pins of the checkpoint that the candidate needs as feeds.

    Raises:
        RunnerError: the graph lacks such a placeholder.
    """
    return pinned_feeds(session.graph, candidate_of(folder).get("fed", {}))


def fill_tables(session: tf.compat.v1.Session, folder: Path) -> None:
    """Fills the lookup tables of a third-party candidate; graphs that the pipeline makes fill their own.

    Raises:
        RunnerError: TensorFlow cannot fill a table.
    """
    fillers = candidate_of(folder).get("fillers", [])
    if not fillers:
        return
    try:
        session.run(fillers)
    except (tf.errors.OpError, ValueError) as exc:
        raise RunnerError("a table of the candidate cannot be filled", where=folder, got=first_line(exc)) from exc
