"""Opens the checkpoint of a finished artifact, and reads the origin in its signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.store.files import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER

from .source import Source, open_source


def open_artifact(checkpoint: Path, signature: str | None) -> Source:
    """Opens the checkpoint of an artifact.

    Args:
        signature: of a SavedModel, the signature's name.
    """
    saved_model = checkpoint / SAVED_MODEL_FOLDER
    return open_source(saved_model if saved_model.is_dir() else checkpoint / CHECKPOINT_PREFIX, None, signature)


def read_origin(path: Path) -> dict[str, Any]:
    """Returns the origin in a `signature.json`: all besides the signature; empty if there is none."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("origin", {})
    return told
