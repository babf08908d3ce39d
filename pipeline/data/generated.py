"""Generate rows for a signature: seeded, so that they are the same in every run and on every machine."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from pipeline.errors import DataError
from pipeline.signature import Array, Signature, TensorSpec, batch_size_of

_OPEN_SIZE = 8  # for a dimension that the signature leaves open, other than the batch
_MOST_BYTES = 64_000_000  # of all rows together
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


def generate_rows(signature: Signature, count: int, seed: int) -> dict[str, Array]:
    """Generate rows for the inputs of a signature.

    Args:
        count: number of rows; fewer if they would exceed 64 MB, and a multiple of the batch size if that is fixed.

    Returns:
        By input name an array `[rows, ...]`: floats normally distributed, integers from 0 to 3, words.

    Raises:
        DataError: an input has no batch dimension.
    """
    batch = batch_size_of(signature) or 1
    row_bytes = sum(8 * math.prod(_sizes(spec)) for spec in signature.inputs)
    count = max(1, min(count, _MOST_BYTES // max(1, row_bytes)) // batch) * batch
    draw = np.random.default_rng(seed)
    return {spec.name: _values(spec, (count, *_sizes(spec)), draw) for spec in signature.inputs}


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
