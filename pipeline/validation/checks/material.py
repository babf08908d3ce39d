"""Material of the checks: the rows that they feed, and the results that one check leaves for another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.edge_cases import edge_batches
from pipeline.data.generated import generate_rows, generate_value, read_rows_together
from pipeline.data.held import hold_still, keep_beside_rows
from pipeline.data.npz import NpzReader, load_arrays, of_kind
from pipeline.errors import PipelineError, SettingError, nearest
from pipeline.formats.runner import SubprocessRunner
from pipeline.freezing.demands import demands_of_artifact, keys_of_artifact, nodes_of_artifact
from pipeline.graph.demands import NOTHING, Demands
from pipeline.settings import ValidationSettings
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of, by_rows, read_origin, whole_inputs
from pipeline.store.file_names import GOLDENS_FILE, SIGNATURE_FILE, VALIDATION_ROWS_FILE
from pipeline.workers.child import Limits

from ..compare.decisions import Flips, Scores
from ..results.recorder import ResultsRecorder
from .neighbours import Conclusion
from .sizes import Sizes, unlimited
from .stability import BATCH_SIZES, StabilitySample

_SEED = 1009  # unlikely to be the seed of a chain's own generated rows


@dataclass
class Material:
    """Rows that the checks of one validation feed, and results that one check leaves for another.

    Args:
        rows: the validation rows.
        labels: their true classes, int `[rows]` under the name `labels`; None if unknown.
        goldens: the recorded inputs and outputs; may be empty.
        sizes: how many rows are held at a time.
        whole: the inputs that have one value for all rows.
        value: the signature of inputs that are one value together; None if their rows can be cut apart.
        scores: counts of decisions by format, the checkpoint's included; filled by the pass over validation rows.
        flips: counts of decisions that differ from the checkpoint's, by format; filled by the same pass.
        rows_per_second: speed of the comparison of validation rows, by format.
        samples: rows for the check `stable`, with the first answers to them, by format.
        conclusions: what unstable answers depend on, by format.
        score_bins: bin edges for the scores of all sides, set by the first batch; None if there is not one decision
            for each row.
        run_sharded: compares the validation rows in other processes; None to compare them in this one.
        checkpoint: its artifact, whose graph says what it demands of rows that are made up.
        is_made_up: the validation rows were made up too, because no data was given.
        settings: of the validation.
        searched: by check of `SEARCHES`, how many rows were fed.
        kept: what a check made for all candidates, by its name.
    """

    signature: Signature
    rows: NpzReader
    labels: NpzReader | None
    goldens: Batch
    sizes: Sizes
    whole: frozenset[str] = frozenset()
    value: Signature | None = None
    scores: dict[str, Scores] = field(default_factory=dict)
    flips: dict[str, Flips] = field(default_factory=dict)
    rows_per_second: dict[str, float] = field(default_factory=dict)
    samples: dict[str, StabilitySample] = field(default_factory=dict)
    conclusions: dict[str, Conclusion] = field(default_factory=dict)
    score_bins: Array | None = None
    run_sharded: RunSharded | None = None
    checkpoint: Path | None = None
    is_made_up: bool = False
    settings: ValidationSettings = field(default_factory=ValidationSettings)
    searched: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def demands(self) -> Demands:
        """What the checkpoint's graph demands of its inputs; nothing if its graph is none that can be frozen."""
        with suppress(PipelineError):
            if self.checkpoint is not None:
                return demands_of_artifact(self.checkpoint)
        return NOTHING

    @cached_property
    def carried_nodes(self) -> frozenset[str]:
        """The names of the nodes that a .pb of the checkpoint carries; none if its graph is none that can be frozen."""
        with suppress(PipelineError):
            if self.checkpoint is not None:
                return nodes_of_artifact(self.checkpoint)
        return frozenset()

    @property
    def batch_size(self) -> int:
        """Rows per batch."""
        return self.sizes.batch

    @cached_property
    def table_keys(self) -> Mapping[str, Sequence[Any]]:
        """By dtype, the keys of the checkpoint's lookup tables; none if its graph is none that can be frozen."""
        with suppress(PipelineError):
            if self.checkpoint is not None:
                return keys_of_artifact(self.checkpoint)
        return {}

    @cached_property
    def edge_cases(self) -> Mapping[str, Batch]:
        """Batches of edge-case rows, by name; none for the parts of a sparse or ragged tensor."""
        if self.parts_of_one:
            return {}
        batches = edge_batches(self.signature, self.rows.first, self.demands)
        return {label: keep_beside_rows(batch, self.rows.first, self.whole) for label, batch in batches.items()}

    @property
    def parts_of_one(self) -> tuple[str, ...]:
        """Inputs that are the parts of a sparse or ragged tensor, so that none can have any other value alone."""
        return next((group.inputs for group in self.demands.groups if len(group.inputs) > 1), ())

    @cached_property
    def generated(self) -> dict[str, Batch]:
        """Batches of generated rows in several sizes, by name; empty if a batch would be too large."""
        if self.value is not None:
            values = {size: generate_value(self.value, size, _SEED, demands=self.demands) for size in BATCH_SIZES}
            return {
                f"made up {size}": {name: array[np.newaxis] for name, array in value.items()}
                for size, value in values.items()
            }
        specs = tuple(
            # Dimensions that the signature leaves open get the lengths of the validation rows.
            TensorSpec(
                spec.name, spec.dtype, (spec.shape[0] if spec.shape else None, *self.rows.first[spec.name].shape[1:])
            )
            for spec in self.signature.inputs
        )
        fixed_size = batch_size_of(self.signature)
        sizes = (fixed_size,) if fixed_size else tuple(dict.fromkeys(min(one, self.sizes.held) for one in BATCH_SIZES))
        rows = generate_rows(Signature(specs, self.signature.outputs), sum(sizes), _SEED, demands=self.demands)
        starts = np.cumsum([0, *sizes[:-1]])
        batches = {
            f"made up {size}": hold_still(
                {name: values[start : start + size] for name, values in rows.items()}, self.whole
            )
            for start, size in zip(starts, sizes, strict=True)
        }
        return {label: batch for label, batch in batches.items() if row_count(batch)}

    def sample(self, format: str) -> StabilitySample:
        """Returns the rows that a candidate is asked again; the same ones for every candidate."""
        if format not in self.samples:
            self.samples[format] = self._new_sample()
        return self.samples[format]

    def _new_sample(self) -> StabilitySample:
        return StabilitySample(self.signature, len(self.rows), self.sizes.sample, self.sizes.held)

    def count_rows(self, check: str) -> int:
        """Counts the rows of a check."""
        counts: Mapping[str, Callable[[], int]] = {
            "equal": lambda: len(self.rows),
            "decisions": lambda: max((flips.rows for flips in self.flips.values()), default=0),
            "edge": lambda: len(self.edge_cases),
            "generated": lambda: sum(row_count(batch) for batch in self.generated.values()),
            "stable": lambda: len(self._new_sample().numbers),
            "golden": lambda: row_count(of_kind("input", self.goldens)) if self.goldens else 0,
        }
        return counts[check]() if check in counts else self.searched.get(check, 0)


def checkpoint_limits(checkpoint: Path, limits: Limits) -> Limits:
    """Returns the limits of a checkpoint's process: those of candidates if it is a third party's, else their time."""
    return limits if read_origin(checkpoint / SIGNATURE_FILE) else Limits(limits.seconds)


def read_material(checkpoint: Path, settings: ValidationSettings, fixed_size: int | None) -> Material:
    """Reads the material of a validation.

    Args:
        checkpoint: its artifact, with its signature, goldens and validation rows.
        fixed_size: the only batch size that a candidate accepts; None if it accepts any.

    Raises:
        SettingError: a tolerance is for an output that does not exist.
        DataError: a file of the artifact is missing or damaged.
    """
    signature = Signature.read(checkpoint / SIGNATURE_FILE)
    whole, value = whole_inputs(signature), signature if signature.is_whole else None
    if fixed_size is not None:
        signature = signature.of_batch(fixed_size)
    signature = by_rows(signature)
    for output in settings.output_tolerances:
        names = [spec.name for spec in signature.outputs]
        if output not in names:
            raise SettingError(
                "no such output", where="[validation] tolerances", got=output, next_step=nearest(output, names)
            )
    path, goldens_path = checkpoint / VALIDATION_ROWS_FILE, checkpoint / GOLDENS_FILE
    recorded_rows = NpzReader(path)
    has_classes = "labels" in recorded_rows.names and recorded_rows.first["labels"].dtype.kind in "iu"
    goldens = load_arrays(goldens_path) if goldens_path.exists() else {}
    together = read_rows_together(path)
    if together is not None and together > 1:  # as the values of a sparse tensor, which are cut into no smaller batches
        signature = signature.of_batch(together)
    rows, labels = NpzReader(path, "input"), recorded_rows if has_classes else None
    return Material(
        signature,
        rows,
        labels,
        goldens,
        unlimited(signature, settings),
        whole,
        value,
        checkpoint=checkpoint,
        is_made_up=together is not None,
        settings=settings,
    )


def row_count(batch: Batch) -> int:
    """Counts the rows of a batch; one of a model without inputs is one row."""
    return len(next(iter(batch.values()))) if batch else 1


RunSharded = Callable[[ResultsRecorder, SubprocessRunner, SubprocessRunner, Material, str], None]
