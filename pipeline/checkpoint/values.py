"""Finds, opens and reads checkpoints; every mismatch with the graph's variables is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import CheckpointError, nearest
from pipeline.signature import Array

from .bundle import Bundle, open_checkpoint
from .files import find_prefix, require_files

if TYPE_CHECKING:
    import tensorflow as tf


def find_checkpoint(place: Path | str) -> Bundle:
    """Finds a checkpoint and opens it.

    Args:
        place: a Saver's prefix, any file of it, or a folder with one.

    Raises:
        CheckpointError: there is no checkpoint, a shard is missing, or the index is damaged or of another kind.
    """
    prefix = find_prefix(place)
    require_files(prefix)
    return open_checkpoint(prefix)


def read_values(bundle: Bundle, wanted: Mapping[str, tf.Variable]) -> dict[str, Array]:
    """Returns the values of variables, by their keys in the checkpoint.

    TensorFlow restores a resource variable of another shape without an error, so shapes and
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
