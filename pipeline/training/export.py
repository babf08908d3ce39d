"""Exports the trained weights, or those of another checkpoint, as the checkpoint to deploy."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Set
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.files import step_of
from pipeline.checkpoint.objects import holds_objects, keys_by_name, misfit
from pipeline.checkpoint.values import find_checkpoint, read_values
from pipeline.errors import CheckpointError, nearest
from pipeline.inputs import DataSource
from pipeline.settings import ExportSettings
from pipeline.signature import Signature
from pipeline.store import file_names

from .examples import read_examples, save_validation
from .models.source import ModelSource, load_model


def export_checkpoint(graph: Path, training: Path, settings: ExportSettings, folder: Path) -> dict[str, Any]:
    """Writes the checkpoint to deploy: the inference graph and the variables that it needs.

    Args:
        graph: artifact of the stage graph.
        training: artifact of the stage training, with the weights of the last and the best step
            (their moving averages if the model keeps them).
        folder: receives `checkpoint`, `model.ckpt.*`, the signature and the goldens.

    Returns:
        Notes for the manifest: the exported step and variables.

    Raises:
        CheckpointError: the training's files are damaged, or the setting `variables` names a missing
            variable or leaves out one that an output needs.
    """
    source = find_checkpoint(training / file_names.DEPLOY_FOLDER / settings.step)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(graph / file_names.INFERENCE_GRAPH_FILE))
        variables = {variable.op.name: variable for variable in v1.global_variables()}
        keys = export_keys(settings.variables, variables)
        _require_needed_variables(
            session.graph, Signature.read(graph / file_names.SIGNATURE_FILE), set(variables) - set(keys)
        )
        for name, value in read_values(source, variables).items():
            variables[name].load(value, session)
        saver = v1.train.Saver({key: variables[name] for name, key in keys.items()}, save_relative_paths=True)
        saver.save(session, str(folder / file_names.CHECKPOINT_PREFIX))
    shutil.copy(graph / file_names.SIGNATURE_FILE, folder / file_names.SIGNATURE_FILE)
    shutil.copy(
        training / file_names.DEPLOY_FOLDER / settings.step / file_names.GOLDENS_FILE, folder / file_names.GOLDENS_FILE
    )
    shutil.copy(training / file_names.VALIDATION_ROWS_FILE, folder / file_names.VALIDATION_ROWS_FILE)
    return {"exported": settings.step, "step": step_of(source.prefix), "variables": keys}


def import_weights(
    source: ModelSource, data: DataSource | None, graph: Path, weights: str, folder: Path
) -> dict[str, Any]:
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
        v1.train.import_meta_graph(str(graph / file_names.INFERENCE_GRAPH_FILE))
        signature = Signature.read(graph / file_names.SIGNATURE_FILE)
        variables = {variable.op.name: variable for variable in v1.global_variables()}
        if holds_objects(bundle):  # the state of a dropout, say, is no part of them
            needed = _needed(tf.compat.v1.get_default_graph(), signature)
            variables = {name: variable for name, variable in variables.items() if name in needed}
        named = {key: variables[name] for name, key in _keys(bundle, variables).items()}
        for key, value in read_values(bundle, named).items():
            named[key].load(value, session)
        v1.train.Saver(variables, save_relative_paths=True).save(session, str(folder / file_names.CHECKPOINT_PREFIX))
    shutil.copy(graph / file_names.SIGNATURE_FILE, folder / file_names.SIGNATURE_FILE)
    save_validation(examples, folder)
    return {"adopted": str(bundle.prefix), "variables": sorted(variables), "rows": len(examples)}


def _keys(bundle: Bundle, variables: Mapping[str, tf.Variable]) -> dict[str, str]:
    """Returns the checkpoint's keys by the variables' names; of TensorFlow 2's objects, by the names that they had.

    Raises:
        CheckpointError: a variable is not among the objects, or more than one could be it.
    """
    if not holds_objects(bundle) or all(name in bundle.tensors for name in variables):
        return {name: name for name in variables}
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    keys = keys_by_name(bundle, wanted)
    if len(keys) < len(wanted):
        lacking = next((name for name in wanted if name not in keys), next(iter(wanted)))
        raise misfit(
            bundle,
            wanted,
            f"the checkpoint's objects are not the variables of the model: {lacking}",
            "Give the variables of forward the names, or the paths, that the checkpoint has; or give the class a "
            "method build in its place, which returns a keras.Model with the checkpoint's attributes",
        )
    return keys


def export_keys(setting: str, variables: Iterable[str]) -> dict[str, str]:
    """Maps each exported variable to its key in the checkpoint.

    Args:
        setting: `all`, or a comma-separated list of name patterns and `name=key` pairs; pairs take precedence.
        variables: names of the inference graph's variables.

    Raises:
        CheckpointError: a name or a pattern matches no variable, or two variables would get the same key.
    """
    names = sorted(variables)
    if setting.strip() == "all":
        return {name: name for name in names}
    keys: dict[str, str] = {}
    for item in sorted((part.strip() for part in setting.split(",")), key=lambda item: "=" in item):
        pattern, renames, key = item.partition("=")
        found = [name for name in names if (name == pattern if renames else fnmatchcase(name, pattern))]
        if not found:
            raise CheckpointError(
                "no variable of the inference graph matches",
                where="[export] variables",
                got=pattern,
                next_step=nearest(pattern, names),
            )
        keys.update({name: key if renames else name for name in found})
    if len(set(keys.values())) != len(keys):
        raise CheckpointError("two variables would get the same key", where="[export] variables", got=setting)
    return keys


def _require_needed_variables(graph: tf.Graph, signature: Signature, left_out: Set[str]) -> None:
    for name in sorted(left_out & _needed(graph, signature)):
        raise CheckpointError(
            "a variable that the outputs need is left out",
            where="[export] variables",
            got=f"no {name}",
            next_step=f"Add {name}, or * for all the others",
        )


def _needed(graph: tf.Graph, signature: Signature) -> set[str]:
    """Returns the names of the nodes that the outputs need."""
    outputs = [spec.name for spec in signature.outputs]
    return {node.name for node in v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs).node}
