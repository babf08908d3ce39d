"""Bytes of a row: of its inputs, and of its outputs as far as the signature tells."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from pipeline.signature import Batch, Signature, TensorSpec

_TOGETHER = 16_000_000  # bytes of inputs that are run at once where nothing else bounds them


def spec_row_bytes(spec: TensorSpec) -> int | None:
    """Returns the bytes of a row of one input or output; None if its shape or dtype leaves them open."""
    sizes = [size for size in (spec.shape or ())[1:] if size is not None]
    if spec.dtype == "string" or spec.shape is None or len(sizes) < len(spec.shape) - 1:
        return None
    return math.prod(sizes) * np.dtype(getattr(ml_dtypes, spec.dtype, spec.dtype.removeprefix("q"))).itemsize


def bytes_of(batch: Batch) -> int:
    """Returns the bytes of all values of a batch."""
    return sum(
        sum(map(len, values.ravel())) if values.dtype == object else int(values.nbytes) for values in batch.values()
    )


def rows_together(rows: Batch, signature: Signature) -> int:
    """Returns how many rows to run at once: all if they are small, or if an answer may be one for a whole batch."""
    count = len(next(iter(rows.values())))
    if not all(spec.shape and spec.shape[0] is None for spec in signature.outputs):
        return count
    return max(1, min(count, _TOGETHER * count // max(1, bytes_of(rows))))
