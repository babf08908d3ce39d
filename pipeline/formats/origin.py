"""What a runner has to know besides the signature, from the `signature.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.errors import RunnerError
from pipeline.store.files import SIGNATURE_FILE


def origin_of(folder: Path) -> dict[str, Any]:
    """What `signature.json` tells besides the signature; empty where it tells nothing, or is not there."""
    path = folder / SIGNATURE_FILE
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    origin: dict[str, Any] = told.get("origin", {})
    return origin


def candidate_of(folder: Path) -> dict[str, Any]:
    """What is told of a candidate that the pipeline did not make; empty for an artifact of its own."""
    candidate: dict[str, Any] = origin_of(folder).get("candidate", {})
    return candidate


def pinned(graph: tf.Graph, pins: Mapping[str, str]) -> dict[str, Any]:
    """What is fed for placeholders whose values are told as text, by tensor.

    Raises:
        RunnerError: there is no such placeholder.
    """
    return {name if ":" in name else f"{name}:0": _pinned_value(graph, name, text) for name, text in pins.items()}


def _pinned_value(graph: tf.Graph, name: str, text: str) -> Any:
    try:
        tensor = graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except KeyError as exc:
        raise RunnerError("the graph lacks a placeholder that is pinned", where=name) from exc
    if tensor.dtype == tf.bool:
        value: Any = text.lower() in ("true", "1")
    elif tensor.dtype == tf.string:
        value = text.encode()
    else:
        value = tensor.dtype.as_numpy_dtype(text)
    return np.full(tensor.shape.as_list() if tensor.shape.is_fully_defined() else [], value)


def fed_always(session: tf.compat.v1.Session, folder: Path) -> dict[str, Any]:
    """What is fed with every batch, by tensor: placeholders that the checkpoint has pinned, and the candidate not.

    Raises:
        RunnerError: the graph lacks one of them.
    """
    return pinned(session.graph, candidate_of(folder).get("fed", {}))


def fill_tables(session: tf.compat.v1.Session, folder: Path) -> None:
    """Runs what fills a candidate's tables; what the pipeline makes fills them by itself.

    Raises:
        RunnerError: TensorFlow cannot run it.
    """
    fillers = candidate_of(folder).get("fillers", [])
    if not fillers:
        return
    try:
        session.run(fillers)
    except (tf.errors.OpError, ValueError) as exc:
        got = str(exc).strip().split("\n", 1)[0][:300]
        raise RunnerError("a table of the candidate cannot be filled", where=folder, got=got) from exc
