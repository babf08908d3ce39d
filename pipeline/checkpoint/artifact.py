"""Opens the checkpoint of a finished artifact, and reads the origin in its signature."""

from __future__ import annotations

from pathlib import Path

from pipeline.store.files import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER

from .opened import Source
from .source import open_source


def open_artifact(checkpoint: Path, signature: str | None) -> Source:
    """Opens the checkpoint of an artifact.

    Args:
        signature: of a SavedModel, the signature's name.
    """
    saved_model = checkpoint / SAVED_MODEL_FOLDER
    return open_source(saved_model if saved_model.is_dir() else checkpoint / CHECKPOINT_PREFIX, None, signature)
