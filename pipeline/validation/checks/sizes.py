"""Decides how many rows are held at a time, by their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.npz import NpzReader
from pipeline.errors import RunnerError
from pipeline.formats.row_bytes import bytes_of, spec_row_bytes
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, batch_size_of

from .stability import MAX_ROWS

_ASK_FROM = 4_000_000  # bytes of a batch's inputs and outputs; below, inner tensors are taken to be small


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows that fit into `[validation] batch_mb`.

    Args:
        batch: rows per batch: `batch_size`, or fewer; the fixed size if there is one.
        held: the most rows of which inputs, outputs and inner tensors may be held at a time.
        sample: rows that `stable` asks again, whose first answers are kept.
    """

    batch: int
    held: int
    sample: int = MAX_ROWS


def unlimited(signature: Signature, settings: ValidationSettings) -> Sizes:
    """Returns the sizes for rows of no bytes."""
    size = batch_size_of(signature) or settings.batch_size
    return Sizes(size, max(size, 2**31))


def plan_sizes(
    signature: Signature, settings: ValidationSettings, rows: NpzReader, reference: SubprocessRunner
) -> Sizes:
    """Decides the sizes by the bytes of a row: of its inputs, its outputs, and the largest node of the reference.

    The reference answers one row only if the signature leaves open how large an answer is, and is asked for its nodes
    only if a batch is not small: it takes a moment to open, in which candidates open too.

    Raises:
        StageCrashed: the reference's process ended.
    """
    inputs = bytes_of(rows.first)
    known = [spec_row_bytes(spec) for spec in signature.outputs]
    outputs = sum(count for count in known if count is not None)
    if None in known and len(rows):
        try:
            size = batch_size_of(signature) or 1
            outputs = bytes_of(reference.run(RowRange(rows, 0, size))) // size
        except RunnerError:
            pass  # the checks record what the reference refuses
    bound = int(settings.batch_mb * 1e6)
    batch = (inputs + outputs) * min(settings.batch_size, len(rows))
    inner = reference.inner_row_bytes() if batch >= _ASK_FROM else 0
    held = max(1, bound // max(1, inputs + outputs + inner))
    sample = min(MAX_ROWS, max(2, bound // max(1, outputs)))
    return Sizes(batch_size_of(signature) or min(settings.batch_size, held), held, sample)
