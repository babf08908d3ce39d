"""Writes a Keras model as the checkpoint to deploy: a class with trained or other weights, or a model file.

saved_model/      the exported model
signature.json    the model's inputs and outputs
validation.npz    the validation rows; for a model file the rows of a data file, or generated rows
goldens.npz       the first of these rows, and Keras's own outputs for them
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf

from pipeline.checkpoint.files import step_of
from pipeline.checkpoint.source import open_source
from pipeline.checkpoint.values import find_checkpoint
from pipeline.data.generated import refused_rows
from pipeline.errors import DataError, SettingError, first_line
from pipeline.freezing.demands import demands_of_artifact
from pipeline.graph.demands import NOTHING
from pipeline.inputs import DataSource, ImportedCheckpoint, is_keras_file
from pipeline.safety.models import require_safe_source
from pipeline.settings import ExportSettings, GraphSettings
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import (
    DEPLOY_FOLDER,
    GOLDENS_FILE,
    SAVED_MODEL_FOLDER,
    SIGNATURE_FILE,
    VALIDATION_ROWS_FILE,
)

from ..examples import read_examples, read_given_rows, save_validation
from ..import_checkpoint import ROWS, write_rows
from ..models import KerasModel
from ..models.source import ModelSource, load_model
from .adapter import NamedModel, make_deterministic
from .agreement import take_assets
from .code import Code
from .graphs import build_model, require_all_variables
from .keras2 import NamedKeras2Model
from .load import load_file
from .saved_model import record_goldens, serve, variables_of, write_checkpoint
from .weights import load_weights, load_weights_file, named_weights, require_loaded, variables_beside

logger = logging.getLogger(__name__)


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
    source: ModelSource, data: DataSource | None, graph_settings: GraphSettings, weights: str, folder: Path
) -> dict[str, Any]:
    """Writes a checkpoint of a model with third-party weights.

    Args:
        data: the data file; all of its rows are used for validation. None to make rows up.
        weights: a Keras file, or a checkpoint with the weights by name.
        folder: receives `saved_model/`, the signature, the rows and the goldens.

    Returns:
        Notes for the manifest.

    Raises:
        CheckpointError: the file is missing, damaged, or has the weights of another model.
        DataError, FreezeError, ModelError, SettingError: see `read_examples`, `write_checkpoint`, `build_model`.
    """
    make_deterministic()
    contract = cast(KerasModel, load_model(source, reads_rows=data is not None))
    examples = None if data is None else read_examples(contract, source, data)
    named_model = build_model(contract, graph_settings)
    found, left_out = list[str](), tuple[str, ...]()
    if is_keras_file(weights):
        before = {name: variable.numpy() for name, variable in variables_beside(named_model.model).items()}
        load_weights_file(named_model.model, Path(weights))
        found = take_assets(named_model.model, Path(weights))
        for note in found:
            logger.info("checkpoint: %s", note)
        beside = variables_beside(named_model.model)
        changed = {name for name, value in before.items() if not np.array_equal(value, beside[name].numpy())}
        served = serve(named_model)
        require_loaded(named_model.model, variables_of(served), changed, Path(weights))
    else:
        served = serve(named_model)
        left_out = load_weights(named_model.model, find_checkpoint(weights), variables_of(served)).left_out
    keys = write_checkpoint(named_model, folder, served=served)
    if examples is None:
        rows = _make_rows(named_model, keys, graph_settings.seed, folder)
    else:
        save_validation(examples, folder)
        rows = dict(examples.inputs)
    _record(named_model, rows, folder, data)
    variables = sorted(named_weights(named_model.model))
    notes: dict[str, list[str]] = {"found": found, "left_out": list(left_out)}
    return {
        "adopted": weights,
        "variables": variables,
        "rows": len(next(iter(rows.values()))),
        **{name: told for name, told in notes.items() if told},
    }


def import_file(
    imported: ImportedCheckpoint, data: DataSource | None, seed: int, folder: Path, source: ModelSource | None = None
) -> dict[str, Any]:
    """Writes the artifact of a Keras model file.

    Args:
        source: the code of its layers that is not Keras's own; None if none was given.

    Other arguments, Returns: see `import_checkpoint.import_checkpoint`.

    Raises:
        CheckpointError: the file is missing, damaged, or names code that is not Keras's own and was not given.
        ModelError: the code that was given cannot be imported.
        SettingError: inputs, outputs, pins, a graph file or a signature were given.
        FreezeError: the model's graph cannot become a correct .pb.
        DataError: the rows do not fit the inputs.
    """
    _refuse_tensor_names(imported)
    make_deterministic()
    named_model = load_file(Path(imported.path), Code.of(imported, source))
    may_be_whole, given = len(named_model.signature.inputs) > 1, None
    if data is not None and not may_be_whole:  # before anything is exported
        given = read_given_rows(data, named_model.signature)
    keys = write_checkpoint(named_model, folder, is_declared=False)
    exported = open_source(folder / SAVED_MODEL_FOLDER)
    allowed = require_safe_source(exported, imported.allow_ops)  # before any row is answered
    demands = NOTHING
    if data is None or may_be_whole:
        demands = demands_of_artifact(folder)
    if demands.groups:
        _declare_whole(named_model, folder / SIGNATURE_FILE)
    rows = write_rows(named_model.signature, given or data, seed, folder, keys, demands)
    _record(named_model, rows, folder, data)
    reader = "tf_keras" if isinstance(named_model, NamedKeras2Model) else "Keras"
    found = [f"inputs and outputs are those of the Keras model, read with {reader}"]
    return {
        "adopted": imported.path,
        "found": found,
        **({"allowed": allowed} if allowed else {}),
        "rows": len(next(iter(rows.values()))),
    }


def _make_rows(named_model: NamedModel, keys: Mapping[str, Sequence[Any]], seed: int, folder: Path) -> dict[str, Any]:
    """Writes rows that the exported graph takes; returns them by input."""
    demands = demands_of_artifact(folder)
    if demands.groups:
        _declare_whole(named_model, folder / SIGNATURE_FILE)
    return write_rows(named_model.signature, None, seed, folder, keys, demands)


def _record(named_model: NamedModel, rows: Mapping[str, Any], folder: Path, data: DataSource | None) -> None:
    """Records what Keras answers to the first rows.

    Raises:
        DataError: the model refuses them.
    """
    try:
        record_goldens(named_model, {name: values[:ROWS] for name, values in rows.items()}, folder / GOLDENS_FILE)
    except (tf.errors.OpError, ValueError, TypeError) as exc:
        if data is None:
            raise refused_rows(named_model.signature, first_line(exc)) from exc
        raise DataError("the model refuses these rows", where=data.path, got=first_line(exc)) from exc


def _declare_whole(named_model: NamedModel, path: Path) -> None:
    """Says of a model's inputs, here and in its `signature.json`, that they are one value together, as a graph is."""
    replace(Signature.read(path), is_whole=True).write(path, origin=read_origin(path))
    named_model.signature = replace(named_model.signature, is_whole=True)


def _refuse_tensor_names(imported: ImportedCheckpoint) -> None:
    given = {
        "--inputs": ", ".join(imported.inputs),
        "--outputs": ", ".join(imported.outputs),
        "--pin": ", ".join(imported.pins),
        "--graph-file": imported.graph,
        "--signature": imported.signature,
        "--tags": ", ".join(imported.tags),
        "--averages": "yes" if imported.averages else "",
        "--inference": "yes" if imported.inference else "",
    }
    for flag, value in given.items():
        if value:
            raise SettingError(
                "a Keras model has its own inputs and outputs, and no graph before it is exported",
                where=flag,
                got=value,
                next_step=f"Leave out {flag}, or cut the model in Keras: keras.Model(inputs, outputs)",
            )
