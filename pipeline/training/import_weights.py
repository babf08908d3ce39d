"""Loads the weights of a third-party checkpoint into a model's own graph."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.checkpoint.values import find_checkpoint, read_values
from pipeline.store.files import CHECKPOINT_PREFIX, INFERENCE_GRAPH_FILE, SIGNATURE_FILE

from .examples import read_examples, save_validation
from .models.source import ModelSource, load_model


def import_weights(source: ModelSource, data: Path | None, graph: Path, weights: str, folder: Path) -> dict[str, Any]:
    """Writes the checkpoint to deploy: the model's inference graph with the values of another checkpoint.

    Args:
        data: the data file; all of its rows are used for validation.
        graph: artifact of the stage graph.
        weights: the checkpoint with the values, by variable name.
        folder: receives `checkpoint`, `model.ckpt.*`, the signature and the rows.

    Returns:
        Notes for the manifest.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or lacks a variable of that dtype and shape.
        DataError, ModelError: see `read_examples` and `load_model`.
    """
    examples = read_examples(load_model(source), source, data)
    bundle = find_checkpoint(Path(weights))
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(graph / INFERENCE_GRAPH_FILE))
        variables = {variable.op.name: variable for variable in v1.global_variables()}
        for name, value in read_values(bundle, variables).items():
            variables[name].load(value, session)
        v1.train.Saver(variables, save_relative_paths=True).save(session, str(folder / CHECKPOINT_PREFIX))
    shutil.copy(graph / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    save_validation(examples, folder)
    return {"adopted": str(bundle.prefix), "variables": sorted(variables), "rows": len(examples)}
