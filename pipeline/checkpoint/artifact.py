"""Open the checkpoint of a finished artifact, and read what its signature says of its origin."""

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
    """What a `signature.json` tells besides the signature; empty where it tells nothing."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("origin", {})
    return told
