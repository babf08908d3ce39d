"""Reads initial weights for a training from an existing checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from pipeline.checkpoint.objects import keys_by_name
from pipeline.checkpoint.values import find_checkpoint, read_values
from pipeline.errors import CheckpointError, logger, nearest
from pipeline.inputs import WarmStart
from pipeline.signature import Array


def read_warm_values(
    warm_start: WarmStart, variables: Mapping[str, tf.Variable]
) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """Reads the values of the variables that the checkpoint has.

    Args:
        variables: the model's variables, by name.

    Returns:
        Values by variable name; and for the manifest, the names found and the names not found.

    Raises:
        CheckpointError: it matches no variable, or one of another shape; or the mapping names a missing variable.
    """
    files = find_checkpoint(warm_start.prefix)
    unknown = sorted(set(warm_start.keys) - set(variables))
    if unknown:
        raise CheckpointError(
            "the warm start's mapping names a variable that the model lacks",
            got=unknown[0],
            next_step=nearest(unknown[0], variables),
        )
    own = keys_by_name(files, {name: tuple(variable.shape) for name, variable in variables.items()})
    keys = {
        name: warm_start.keys.get(name, name if name in files.tensors else own.get(name, name)) for name in variables
    }
    missing = [name for name in warm_start.keys if keys[name] not in files.tensors]
    matched = {name: key for name, key in keys.items() if key in files.tensors}
    if not matched or missing:
        name = missing[0] if missing else next(iter(keys), "")
        raise CheckpointError(
            f"the warm start lacks {keys[name]}" if missing else "the warm start matches no variable of the model",
            where=files.prefix,
            got=", ".join(sorted(files.tensors)[:8]),
            wanted=", ".join(sorted(keys.values())[:8]),
            next_step="Map the names with --warm-start-map name=key,…",
        )
    values = read_values(files, {key: variables[name] for name, key in matched.items()})
    left = sorted(set(keys) - set(matched))
    logger.info(
        "warm start from %s: loaded %s; not found, so initialized: %s", files.prefix, sorted(matched), left or "none"
    )
    return {name: values[key] for name, key in matched.items()}, {"taken": sorted(matched), "initialized": left}
