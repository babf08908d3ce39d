"""Finds the moving averages that a checkpoint holds beside the variables, and takes them instead.

`tf.train.ExponentialMovingAverage` calls a variable's average `VARIABLE/ExponentialMovingAverage`. Models are often
evaluated with the averages, and a Saver that restores them under the variables' names is part of the author's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.checkpoint.opened import Source
from pipeline.errors import CheckpointError
from pipeline.graph.variables import VARIABLE_OPS, Saved, variable_of

_SUFFIX = "/ExponentialMovingAverage"


def find_averages(source: Source) -> Mapping[tuple[str, str], Saved]:
    """Returns where the average of a variable is in the checkpoint, by the variable's identity."""
    found, tensors = {}, source.bundle.tensors
    for variable in (variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS):
        saved = source.keys.get(variable.identity, Saved(variable.identity[1]))
        own, average = tensors.get(saved.key), tensors.get(f"{saved.key}{_SUFFIX}")
        if own is not None and average is not None and (own.dtype, own.shape) == (average.dtype, average.shape):
            found[variable.identity] = replace(saved, key=f"{saved.key}{_SUFFIX}")
    return found


def take_averages(source: Source) -> Source:
    """Returns the source with the averages as the values of their variables.

    Raises:
        CheckpointError: there are none.
    """
    found = find_averages(source)
    if not found:
        raise CheckpointError(
            "the checkpoint holds no moving averages beside its variables",
            where=source.path,
            wanted=f"tensors named VARIABLE{_SUFFIX}",
            next_step="leave --averages out",
        )
    return replace(source, keys={**source.keys, **found})


def averages_note(source: Source, are_taken: bool) -> str:
    """Returns a sentence on the averages; empty if there are none."""
    count = len(find_averages(source))
    if are_taken or not count:
        return ""
    return f"moving averages of {count} variables are beside them, and are not taken: freeze --averages takes them"
