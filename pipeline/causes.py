"""Says why a candidate that is not equal differs: the first node at which it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .edges import edge_batches
from .errors import PipelineError
from .findings import Finding, Validation
from .process import Limits, run_apart
from .rowfile import RowFile
from .rows import batch_size_of
from .signature import DTYPES

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]

_LOOKED_INTO = ("equal", "edge")  # the others compare a candidate with itself, or with what was recorded
_OPTIMIZER = (
    "with TensorFlow's optimizer off all inner tensors agree, so graph and weights are the same: kernels round, or "
    "overflow, in another order"
)


def explain(
    validation: Validation, checkpoint: Path, candidates: Mapping[str, Path], rows: RowFile, threads: int
) -> dict[str, str]:
    """The causes of what was found, by format.

    Args:
        checkpoint: the artifact of the checkpoint; a SavedModel's functions keep no names to compare by.
        candidates: the artifact's folder by format; those without a `model.pb` are not looked into.
        rows: the validation rows.

    Returns:
        A sentence for each format of which rows differ in the checks `equal` or `edge`.
    """
    causes = {}
    for format, artifact in candidates.items():
        findings = (one for one in validation.findings.values() if one.format == format and one.check in _LOOKED_INTO)
        failed = [one for one in findings if one.rows_failed and one.worst]
        if failed and (artifact / "model.pb").is_file() and not (checkpoint / "saved_model").is_dir():
            batch = _worst_batch(validation, failed, rows)
            causes[format] = _cause(validation, checkpoint, artifact / "model.pb", batch, format, threads)
    return causes


def _cause(validation: Validation, checkpoint: Path, pb: Path, batch: Batch, format: str, threads: int) -> str:
    settings, coarser = validation.settings, validation.bounds.get(format, "")
    bounds = {dtype: settings.tolerance(dtype, coarser) for dtype in DTYPES if "float" in dtype}
    try:
        found = run_apart(
            "pipeline.divergence:find_divergence",
            *(checkpoint, pb, validation.signature, dict(batch), bounds, threads),
            limits=Limits(*settings.limits),
        )
    except PipelineError as exc:
        return f"the cause could not be looked for: {exc}"
    return _OPTIMIZER if found is None else str(found.sentence())


def _worst_batch(validation: Validation, failed: list[Finding], rows: RowFile) -> Batch:
    """The rows to look at: of the finding that fails worst, on validation rows if it does there."""
    worst = max(failed, key=lambda one: (one.check == "equal", one.worst_rank))
    label = (worst.worst or {}).get("row")
    edges = edge_batches(validation.signature, rows.first)
    if label in edges:
        return edges[label]
    size = batch_size_of(validation.signature) or 1
    start = int(label) // size * size if worst.check == "equal" and isinstance(label, int) else 0
    return rows.read(start, start + size)
