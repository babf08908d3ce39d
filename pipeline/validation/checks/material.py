"""Material of the checks: the rows they feed, the limits they judge by, the runner of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.checkpoint.artifact import read_origin
from pipeline.data.edge_cases import edge_batches
from pipeline.data.generated import generate_rows
from pipeline.data.npz import NpzReader, load_arrays, of_kind
from pipeline.errors import SettingError, nearest
from pipeline.formats.runner import SubprocessRunner
from pipeline.settings import ValidationSettings
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of
from pipeline.store.files import GOLDENS_FILE, SIGNATURE_FILE, VALIDATION_ROWS_FILE
from pipeline.workers.child import Limits

from ..compare.decisions import Flips, Scores
from ..results.recorder import ResultsRecorder
from .stability import SIZES, Sample

_SEED = 1009  # none that a chain's own made-up rows are likely to have


@dataclass
class Material:
    """What the checks of one validation run on, and what one of them leaves for others.

    Args:
        rows: the validation rows.
        labels: the rows' true classes, int `[rows]` under the name `labels`; None where there are none.
        goldens: the recorded inputs and outputs; empty where none were.
        size: rows per batch.
        scores: by format what it decides, the checkpoint's too, once the validation rows were answered.
        flips: by format the rows that it decides otherwise than the checkpoint.
        rows_per_second: by format how fast the validation rows were compared.
        samples: by format the rows to ask again, once the first answers to them are kept.
        score_bins: of the bins in which all sides' scores are counted, once the first batch was answered; None where
            that has not one decision for each row.
        compare_elsewhere: makes the pass of a check over the validation rows in other processes; None where this one
            makes it.
    """

    signature: Signature
    rows: NpzReader
    labels: NpzReader | None
    goldens: Batch
    size: int
    scores: dict[str, Scores] = field(default_factory=dict)
    flips: dict[str, Flips] = field(default_factory=dict)
    rows_per_second: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)
    score_bins: Array | None = None
    compare_elsewhere: Elsewhere | None = None

    @cached_property
    def edges(self) -> Mapping[str, Batch]:
        """Batches of awkward rows, by what is special about them."""
        return edge_batches(self.signature, self.rows.first)

    @cached_property
    def generated(self) -> dict[str, Batch]:
        """Batches of generated rows in several sizes, by name; none where a batch would be too large."""
        specs = tuple(
            # Lengths that the signature leaves open are those of the validation rows.
            TensorSpec(
                spec.name,
                spec.dtype,
                (spec.shape[0] if spec.shape else None, *self.rows.first[spec.name].shape[1:]),
            )
            for spec in self.signature.inputs
        )
        fixed = batch_size_of(self.signature)
        sizes = (fixed,) if fixed else SIZES
        rows = generate_rows(Signature(specs, self.signature.outputs), sum(sizes), _SEED)
        starts = np.cumsum([0, *sizes[:-1]])
        batches = {
            f"made up {size}": {name: values[start : start + size] for name, values in rows.items()}
            for start, size in zip(starts, sizes, strict=True)
        }
        return {label: batch for label, batch in batches.items() if rows_in(batch)}

    def sample(self, format: str) -> Sample:
        """The rows that a candidate is asked again; the same ones for every candidate."""
        if format not in self.samples:
            self.samples[format] = Sample(self.signature, len(self.rows))
        return self.samples[format]

    def rows_of(self, check: str) -> int:
        """How many rows a check is made on."""
        counts: Mapping[str, Callable[[], int]] = {
            "equal": lambda: len(self.rows),
            "decisions": lambda: max((flips.rows for flips in self.flips.values()), default=0),
            "edge": lambda: len(self.edges),
            "generated": lambda: sum(rows_in(batch) for batch in self.generated.values()),
            "stable": lambda: len(Sample(self.signature, len(self.rows)).numbers),
            "golden": lambda: rows_in(of_kind("input", self.goldens)),
        }
        return counts[check]()


def limits_of(checkpoint: Path, limits: Limits) -> Limits | None:
    """What the process of a checkpoint may take: one that somebody else made no more than a candidate."""
    return limits if read_origin(checkpoint / SIGNATURE_FILE) else None


def read_material(checkpoint: Path, settings: ValidationSettings, batch: int | None) -> Material:
    """What the checks of a validation run on.

    Args:
        checkpoint: its artifact, with its signature, goldens and validation rows.
        batch: the number of rows that a candidate takes at once, where that is fixed.

    Raises:
        SettingError: a tolerance is for an output that is not there.
        DataError: a file of the artifact is missing or damaged.
    """
    signature = Signature.read(checkpoint / SIGNATURE_FILE)
    if batch is not None:
        signature = signature.of_batch(batch)
    for output in settings.output_tolerances:
        names = [spec.name for spec in signature.outputs]
        if output not in names:
            raise SettingError(
                "no such output", where="[validation] tolerances", got=output, next_step=nearest(output, names)
            )
    path, recorded = checkpoint / VALIDATION_ROWS_FILE, checkpoint / GOLDENS_FILE
    kept = NpzReader(path)
    has_classes = "labels" in kept.names and kept.first["labels"].dtype.kind in "iu"
    goldens = load_arrays(recorded) if recorded.exists() else {}
    size = batch_size_of(signature) or settings.batch_size
    return Material(signature, NpzReader(path, "input"), kept if has_classes else None, goldens, size)


def rows_in(batch: Batch) -> int:
    """The number of rows of a batch."""
    return len(next(iter(batch.values()), ()))


Elsewhere = Callable[[ResultsRecorder, SubprocessRunner, SubprocessRunner, Material, str], None]
