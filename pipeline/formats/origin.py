"""Reads what a runner needs from `signature.json` in addition to the signature: pins, feeds, tables to fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.errors import RunnerError, first_line
from pipeline.signature import Signature, read_origin
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


def with_idle_feeds(graph: tf.Graph, signature: Signature, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a value for each placeholder that TensorFlow asks for though no answer depends on it.

    What a branch that is not taken reads is asked for all the same, such as the rate of a dropout that a pin switches
    off. The frozen graph does without it: if an output did depend on it, the two would differ.

    Args:
        feeds: values that are fed with every batch beside the rows, by tensor.
    """
    known, found, seen = {*feeds, *(spec.tensor_name for spec in signature.inputs)}, dict(feeds), set[str]()
    try:
        tensors = [graph.get_tensor_by_name(spec.tensor_name) for spec in signature.outputs]
    except (KeyError, ValueError):  # the runner says which tensor the graph lacks
        return found
    waiting = [tensor.op for tensor in tensors if tensor.name not in known]
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        value = _idle_value(operation.outputs[0]) if operation.type in ("Placeholder", "PlaceholderV2") else None
        if value is not None:
            found[operation.outputs[0].name] = value
        waiting += operation.control_inputs
        waiting += [tensor.op for tensor in operation.inputs if tensor.name not in known]
    return found


def _idle_value(tensor: tf.Tensor) -> Any:
    """Returns a value that is valid as a rate or a size, and that no frozen graph has by itself; None for handles."""
    kind = tensor.dtype
    values = ((kind.is_bool, False), (kind.is_integer, 1), (kind.is_floating or kind.is_complex, 0.5))
    value = next((value for is_kind, value in values if is_kind), b"" if kind == tf.string else None)
    sizes = [size or 1 for size in tensor.shape.as_list()] if tensor.shape.rank is not None else []
    return None if value is None else np.full(sizes, value, kind.as_numpy_dtype)


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
