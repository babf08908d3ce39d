"""Fills a model's own graph with the weights of a checkpoint that somebody else made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.checkpoint.values import find_checkpoint, read_values
from pipeline.data.npz import prefixed, save_arrays
from pipeline.errors import DataError
from pipeline.store.files import CHECKPOINT_PREFIX, INFERENCE_GRAPH_FILE, SIGNATURE_FILE, VALIDATION_ROWS_FILE

from .models.source import ModelSource, load_model

v1 = tf.compat.v1


def import_weights(source: ModelSource, data: Path | None, graph: Path, place: str, folder: Path) -> dict[str, Any]:
    """Writes the checkpoint that is deployed: the model's inference graph, with values from elsewhere.

    Args:
        data: the data file, all of whose rows validate.
        graph: the artifact of the graphs.
        place: the checkpoint with the values, by the variables' names.
        folder: where `checkpoint`, `model.ckpt.*`, the signature and the rows are written.

    Returns:
        Notes for the manifest.

    Raises:
        CheckpointError: the checkpoint is not there, is damaged, or lacks a variable of that dtype and shape.
        DataError, ModelError: see the data file's reader and the model.
    """
    model = load_model(source)
    if data is None:
        raise DataError(
            "the model names no data file of its own", where=source.class_name, next_step="Give one with --data"
        )
    bundle = find_checkpoint(Path(place))
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(graph / INFERENCE_GRAPH_FILE))
        variables = {variable.op.name: variable for variable in v1.global_variables()}
        for name, value in read_values(bundle, variables).items():
            variables[name].load(value, session)
        v1.train.Saver(variables, save_relative_paths=True).save(session, str(folder / CHECKPOINT_PREFIX))
    shutil.copy(graph / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    examples = model.examples(data)
    labels = {} if examples.labels is None else {"labels": examples.labels}
    save_arrays(folder / VALIDATION_ROWS_FILE, {**prefixed("input", examples.inputs), **labels})
    return {"adopted": str(bundle.prefix), "variables": sorted(variables), "rows": len(examples)}
