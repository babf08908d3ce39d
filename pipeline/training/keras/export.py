"""Writes the checkpoint that is deployed of a Keras model of one's own: a step of its training, or other weights."""

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
from .adapter import settle_arithmetic
from .graphs import build_model, require_all_variables
from .saved_model import record_goldens, write_checkpoint
from .weights import named_weights, take_weights, take_weights_of_file


def export_trained(
    source: ModelSource, training: Path, graph_settings: GraphSettings, settings: ExportSettings, folder: Path
) -> dict[str, Any]:
    """Writes a step of a training as a checkpoint: the model built anew, with the weights of that step.

    Args:
        training: the artifact of the training, which kept the weights of its last and its best step.
        folder: where `saved_model/`, the signature, the rows and the goldens are written.

    Returns:
        Notes for the manifest: which step was exported.

    Raises:
        CheckpointError: the training's files are damaged.
        FreezeError: the model's graph cannot become a right .pb.
        ModelError, SettingError: see `build_model`.
    """
    require_all_variables(settings)
    settle_arithmetic()
    kept = training / DEPLOY_FOLDER / settings.step
    named, bundle = build_model(cast(KerasModel, load_model(source)), graph_settings), find_checkpoint(kept)
    take_weights(named.model, bundle)
    write_checkpoint(named, folder)
    shutil.copy(kept / GOLDENS_FILE, folder / GOLDENS_FILE)
    shutil.copy(training / VALIDATION_ROWS_FILE, folder / VALIDATION_ROWS_FILE)
    return {"exported": settings.step, "step": step_of(bundle.prefix), "variables": sorted(named_weights(named.model))}


def import_model_weights(
    source: ModelSource, data: Path | None, graph_settings: GraphSettings, place: str, folder: Path
) -> dict[str, Any]:
    """Writes a checkpoint of a model with weights from elsewhere.

    Args:
        data: the data file, all of whose rows validate.
        place: a file of Keras's, or a checkpoint that has the weights by their names.
        folder: where `saved_model/`, the signature, the rows and the goldens are written.

    Returns:
        Notes for the manifest.

    Raises:
        CheckpointError: the file is not there, is damaged, or holds the weights of another model.
        DataError, FreezeError, ModelError, SettingError: see `read_examples`, `write_checkpoint`, `build_model`.
    """
    settle_arithmetic()
    contract = cast(KerasModel, load_model(source))
    examples = read_examples(contract, source, data)
    named = build_model(contract, graph_settings)
    if is_keras_file(place):
        take_weights_of_file(named.model, Path(place))
    else:
        take_weights(named.model, find_checkpoint(place))
    write_checkpoint(named, folder)
    save_validation(examples, folder)
    rows = {name: values[:ROWS] for name, values in examples.inputs.items()}
    record_goldens(named, rows, folder / GOLDENS_FILE)
    return {"adopted": place, "variables": sorted(named_weights(named.model)), "rows": len(examples)}
