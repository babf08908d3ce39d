"""Finds the moving averages that a checkpoint holds beside the variables, and takes them instead.

`tf.train.ExponentialMovingAverage` calls a variable's average `VARIABLE/ExponentialMovingAverage`. Models are often
evaluated with the averages, and a Saver that restores them under the variables' names is part of the author's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import CheckpointError
from pipeline.graph.variables import VARIABLE_OPS, Saved, variable_of

from .opened import Source

SUFFIX = "/ExponentialMovingAverage"


def find_averages(source: Source) -> Mapping[tuple[str, str], Saved]:
    """Returns where the average of a variable is in the checkpoint, by the variable's identity."""
    found, tensors = {}, source.bundle.tensors
    for variable in (variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS):
        saved = source.keys.get(variable.identity, Saved(variable.identity[1]))
        own, average = tensors.get(saved.key), tensors.get(f"{saved.key}{SUFFIX}")
        if own is not None and average is not None and (own.dtype, own.shape) == (average.dtype, average.shape):
            found[variable.identity] = replace(saved, key=f"{saved.key}{SUFFIX}")
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
            wanted=f"tensors named VARIABLE{SUFFIX}",
            next_step="Leave --averages out",
        )
    return replace(source, keys={**source.keys, **found}, has_averages=True)


def averages_note(source: Source, option: str = "freeze --averages") -> str:
    """Returns a sentence on averages that are not taken; empty if there are none.

    Args:
        option: what takes them.
    """
    count = 0 if source.has_averages else len(find_averages(source))
    told = f"moving averages of {count} variables are beside them, and are not taken: {option} takes them"
    return told if count else ""
