"""Reads the values of checkpoints, with every doubt spoken, and exports one for deployment."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.errors import CheckpointError, nearest
from pipeline.settings import ExportSettings
from pipeline.signature import Signature

from .bundle import Bundle, open_checkpoint
from .files import find_prefix, require_files, step_of

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]


def find_checkpoint(place: Path | str) -> Bundle:
    """Finds a checkpoint and opens it.

    Args:
        place: a Saver's prefix, any file of it, or a folder with one.

    Raises:
        CheckpointError: nothing is there, a shard is missing, or the index is damaged or is none.
    """
    prefix = find_prefix(place)
    require_files(prefix)
    return open_checkpoint(prefix)


def read_values(bundle: Bundle, wanted: Mapping[str, tf.Variable]) -> dict[str, Array]:
    """The values of variables, by the keys they have in the checkpoint.

    TensorFlow restores a resource variable of another shape without a word, so shapes and
    dtypes are compared first.

    Raises:
        CheckpointError: a key is missing, its dtype or shape is not the variable's, or its bytes
            are damaged.
    """
    for key, variable in wanted.items():
        if key not in bundle.tensors:
            raise CheckpointError(
                "the checkpoint lacks a variable of the graph",
                where=bundle.prefix,
                got=f"no {key}",
                next_step=nearest(key, bundle.tensors),
            )
        tensor, dtype = bundle.tensors[key], variable.dtype.base_dtype
        if tensor.dtype != dtype.as_datatype_enum or not variable.shape.is_compatible_with(tensor.shape):
            raise CheckpointError(
                "the checkpoint's variable is not the graph's",
                where=f"{bundle.prefix}, {key}",
                got=f"{tensor.dtype_name} {list(tensor.shape)}",
                wanted=f"{dtype.name} {variable.shape}",
            )
    return {key: bundle.read(key) for key in wanted}


@contextmanager
def checkpoint_errors(where: object) -> Iterator[None]:
    """TensorFlow's errors about a checkpoint's files leave as CheckpointError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, IndexError) as exc:  # IndexError: data is cut off
        raise CheckpointError(
            "the checkpoint is damaged or is not one",
            where=where,
            got=str(exc).strip().split("\n", 1)[0][:200],
            next_step="Copy the checkpoint again, or take an older one",
        ) from exc


def export_checkpoint(graph: Path, training: Path, settings: ExportSettings, folder: Path) -> dict[str, Any]:
    """Writes the checkpoint that is deployed: the inference graph and the variables that it needs.

    Args:
        graph: the artifact of the graphs.
        training: the artifact of the training, which kept the weights of its last and its best step,
            moving averages in the place of the variables if there are any.
        folder: where `checkpoint`, `model.ckpt.*`, the signature and the goldens are written.

    Returns:
        Notes for the manifest: which step was exported.

    Raises:
        CheckpointError: the training's files are damaged, or the setting `variables` names what is
            not there or leaves out what an output needs.
    """
    source = find_checkpoint(training / "deploy" / settings.step)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(graph / "inference.meta"))
        variables = {variable.op.name: variable for variable in v1.global_variables()}
        keys = export_keys(settings.variables, variables)
        _require_needed(session.graph, Signature.read(graph / "signature.json"), set(variables) - set(keys))
        for name, value in read_values(source, variables).items():
            variables[name].load(value, session)
        saver = v1.train.Saver({key: variables[name] for name, key in keys.items()}, save_relative_paths=True)
        saver.save(session, str(folder / "model.ckpt"))
    shutil.copy(graph / "signature.json", folder / "signature.json")
    shutil.copy(training / "deploy" / settings.step / "goldens.npz", folder / "goldens.npz")
    shutil.copy(training / "validation.npz", folder / "validation.npz")
    return {"exported": settings.step, "step": step_of(source.prefix), "variables": keys}


def export_keys(setting: str, variables: Iterable[str]) -> dict[str, str]:
    """Which variables are exported, and under which key each.

    Args:
        setting: `all`, or a comma-separated list of name patterns and of `name=key` pairs, which are stronger.
        variables: names of the inference graph's variables.

    Raises:
        CheckpointError: a name or a pattern fits no variable, or two variables would have one key.
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
                "no variable of the inference graph fits",
                where="[export] variables",
                got=pattern,
                next_step=nearest(pattern, names),
            )
        keys.update({name: key if renames else name for name in found})
    if len(set(keys.values())) != len(keys):
        raise CheckpointError("two variables would have one key", where="[export] variables", got=setting)
    return keys


def _require_needed(graph: tf.Graph, signature: Signature, left_out: Set[str]) -> None:
    outputs = [spec.name for spec in signature.outputs]
    needed = {node.name for node in v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs).node}
    for name in sorted(left_out & needed):
        raise CheckpointError(
            "a variable that the outputs need is left out",
            where="[export] variables",
            got=f"no {name}",
            next_step=f"Add {name}, or * for all the others",
        )
