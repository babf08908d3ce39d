"""Exports a Keras model class as the checkpoint to deploy, with the weights of a training step or other weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from pipeline.checkpoint.files import step_of
from pipeline.checkpoint.values import find_checkpoint
from pipeline.inputs import is_keras_file
from pipeline.settings import ExportSettings, GraphSettings
from pipeline.store.files import DEPLOY_FOLDER, GOLDENS_FILE, VALIDATION_ROWS_FILE

from ..examples import read_examples, save_validation
from ..import_checkpoint import ROWS
from ..models import KerasModel
from ..models.source import ModelSource, load_model
from .adapter import make_deterministic
from .graphs import build_model, require_all_variables
from .saved_model import record_goldens, write_checkpoint
from .weights import load_weights, load_weights_file, named_weights


def export_trained(
    source: ModelSource, training: Path, graph_settings: GraphSettings, settings: ExportSettings, folder: Path
) -> dict[str, Any]:
    """Writes a training step as a checkpoint: builds the model again and loads the weights of that step.

    Args:
        training: artifact of the stage training, with the weights of the last and the best step.
        folder: receives `saved_model/`, the signature, the rows and the goldens.

    Returns:
        Notes for the manifest: the exported step and variables.

    Raises:
        CheckpointError: the training's files are damaged.
        FreezeError: the model's graph cannot become a correct .pb.
        ModelError, SettingError: see `build_model`.
    """
    require_all_variables(settings)
    make_deterministic()
    saved = training / DEPLOY_FOLDER / settings.step
    named_model, bundle = build_model(cast(KerasModel, load_model(source)), graph_settings), find_checkpoint(saved)
    load_weights(named_model.model, bundle)
    write_checkpoint(named_model, folder)
    shutil.copy(saved / GOLDENS_FILE, folder / GOLDENS_FILE)
    shutil.copy(training / VALIDATION_ROWS_FILE, folder / VALIDATION_ROWS_FILE)
    return {
        "exported": settings.step,
        "step": step_of(bundle.prefix),
        "variables": sorted(named_weights(named_model.model)),
    }


def import_model_weights(
    source: ModelSource, data: Path | None, graph_settings: GraphSettings, weights: str, folder: Path
) -> dict[str, Any]:
    """Writes a checkpoint of a model with third-party weights.

    Args:
        data: the data file; all of its rows are used for validation.
        weights: a Keras file, or a checkpoint with the weights by name.
        folder: receives `saved_model/`, the signature, the rows and the goldens.

    Returns:
        Notes for the manifest.

    Raises:
        CheckpointError: the file is missing, damaged, or has the weights of another model.
        DataError, FreezeError, ModelError, SettingError: see `read_examples`, `write_checkpoint`, `build_model`.
    """
    make_deterministic()
    contract = cast(KerasModel, load_model(source))
    examples = read_examples(contract, source, data)
    named_model = build_model(contract, graph_settings)
    if is_keras_file(weights):
        load_weights_file(named_model.model, Path(weights))
    else:
        load_weights(named_model.model, find_checkpoint(weights))
    write_checkpoint(named_model, folder)
    save_validation(examples, folder)
    rows = {name: values[:ROWS] for name, values in examples.inputs.items()}
    record_goldens(named_model, rows, folder / GOLDENS_FILE)
    return {"adopted": weights, "variables": sorted(named_weights(named_model.model)), "rows": len(examples)}
