"""Generate rows for a signature: seeded, so that they are the same in every run and on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.errors import DataError
from pipeline.signature import Array, Signature, TensorSpec, batch_size_of

_OPEN_SIZE = 8  # for a dimension that the signature leaves open, other than the batch
_MOST_BYTES = 64_000_000  # of all rows together
_MOST_KEYS = 10_000
_LARGEST_INT = 4  # small: most integers are indices, and the edge cases cover large ones
_WORDS = (
    "call",
    "free",
    "now",
    "ok",
    "see you",
    "win £1000",
    "http://a.b",
    "naïve",
    "",
    "a longer message, of some words",
)


def generate_rows(
    signature: Signature, count: int, seed: int, keys: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, Array]:
    """Generate rows for the inputs of a signature.

    Args:
        count: number of rows; fewer if they would exceed 64 MB, and a multiple of the batch size if that is fixed.
        keys: by dtype, values that the model looks up in its tables. Three quarters of the values are such keys, and
            there are as many rows more as it takes to have each of the first 10,000 once.

    Returns:
        By input name an array `[rows, ...]`: floats normally distributed, integers from 0 to 3, words.

    Raises:
        DataError: an input has no batch dimension.
    """
    batch = batch_size_of(signature) or 1
    row_bytes = sum(8 * math.prod(_sizes(spec)) for spec in signature.inputs)
    known = {spec.name: [*(keys or {}).get(spec.dtype, ())][:_MOST_KEYS] for spec in signature.inputs}
    wanted = [-(-4 * len(known[spec.name]) // (3 * max(1, math.prod(_sizes(spec))))) for spec in signature.inputs]
    count = -(-max(count, *wanted) // batch) * batch if any(known.values()) else count
    count = max(1, min(count, _MOST_BYTES // max(1, row_bytes)) // batch) * batch
    draw = np.random.default_rng(seed)
    rows = {spec.name: _values(spec, (count, *_sizes(spec)), draw) for spec in signature.inputs}
    for name, values in known.items():
        if values:
            _put_keys(rows[name].reshape(-1), values)
    return rows


def _put_keys(places: Array, keys: Sequence[Any]) -> None:
    """Replace all values but those at the beginning by keys, one after the other and from the start again."""
    first = len(places) // 4
    for place in range(first, len(places)):
        places[place] = keys[(place - first) % len(keys)]


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of a row."""
    if spec.shape is None:
        return ()
    if not spec.shape:
        raise DataError(
            "an input without a batch dimension cannot hold rows",
            where=spec.name,
            got=spec,
            next_step=f"Pin it to its value (--pin {spec.name}=…)",
        )
    return tuple(_OPEN_SIZE if size is None else size for size in spec.shape[1:])


def _values(spec: TensorSpec, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    if spec.dtype == "string":
        words = np.array([word.encode() for word in _WORDS], dtype=object)
        return np.asarray(words[draw.integers(0, len(words), shape)])
    if spec.dtype == "bool":
        return draw.integers(0, 2, shape).astype(bool)
    if spec.dtype.startswith("complex"):
        return (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(spec.dtype)
    if "int" in spec.dtype:
        return draw.integers(0, _LARGEST_INT, shape).astype(spec.dtype.removeprefix("q"))
    return draw.standard_normal(shape).astype(getattr(ml_dtypes, spec.dtype, spec.dtype))
