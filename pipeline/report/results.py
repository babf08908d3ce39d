"""Reads from `results.csv` and `history.csv` what a report shows.

`results.csv` may have a million rows, so it is read in chunks. Only a histogram of the differences, a sample of the
values, and the worst rows stay in memory.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import DataError
from pipeline.settings import PASSED

from .csv_cells import read_cell
from .gist import MADE
from .verdict import DECISIONS, STABLE, WEIGHTS

WORST_ROWS = 8
MOST_SAMPLED = 2_000
MOST_SAMPLED_OUTPUTS = 2
STEPS_PER_DECADE = 2
CHUNK_ROWS = 20_000

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

_NO_OUTPUTS = (STABLE, WEIGHTS, DECISIONS, MADE)  # checks that do not compare an output with its reference
_TEXTS = ["format", "check", "output", "row", "element", "reference", "candidate", "ulp_diff", "verdict"]
_VALUES = ("reference", "candidate")
_SHOWN = ["format", "check", "output", "row", "element", "reference", "candidate", "abs_diff", "ulp_diff", "verdict"]


@dataclass
class Spread:
    """Distribution of one format's differences from the reference.

    Attributes:
        rows: rows compared.
        failed: rows whose verdict is not `passed`.
        zero: rows without any difference.
        unmeasured: rows without a number: text, or NaN.
        infinite: rows with an infinite difference.
        smallest, largest: range of the finite differences above zero.
        passed_by_size, failed_by_size: finite differences above zero, counted by `floor(2 * log10(difference))`.
    """

    rows: int = 0
    failed: int = 0
    zero: int = 0
    unmeasured: int = 0
    infinite: int = 0
    smallest: float = math.inf
    largest: float = 0.0
    passed_by_size: Counter[int] = field(default_factory=Counter)
    failed_by_size: Counter[int] = field(default_factory=Counter)


@dataclass
class Sample:
    """Regular sample of a stream of points, with at most `MOST_SAMPLED` points for any number of rows.

    Attributes:
        seen: number of points so far.
        stride: every `stride`-th point is in the sample.
        points: reference and candidate, float64 `[n, 2]`.
    """

    seen: int = 0
    stride: int = 1
    points: FloatArray = field(default_factory=lambda: np.empty((0, 2)))

    def add(self, rows: pd.DataFrame) -> None:
        """Adds the points of some rows; text becomes NaN."""
        sampled = rows.iloc[(-self.seen) % self.stride :: self.stride]
        self.seen += len(rows)
        columns = [pd.to_numeric(sampled[side], errors="coerce") for side in ("reference", "candidate")]
        self.points = np.concatenate([self.points, np.column_stack(columns).astype(np.float64)])
        while len(self.points) > MOST_SAMPLED:
            self.points, self.stride = self.points[::2], self.stride * 2

    @property
    def finite(self) -> FloatArray:
        """The points that can be drawn, float64 `[n, 2]`."""
        return self.points[np.isfinite(self.points).all(axis=1)]


@dataclass
class Values:
    """Values of reference and candidate for one output of one format on the rows of `equal`; failed rows separately."""

    passed: Sample = field(default_factory=Sample)
    failed: Sample = field(default_factory=Sample)


@dataclass(frozen=True)
class Results:
    """The part of the results that a report shows.

    Args:
        spreads: distribution of the differences, by format.
        values: by format and output, the deciding output first.
        worst: the worst rows: failed before passed, no number before a number, then by size. For the checks stable,
            weights and decisions only failed rows, decisions last.
    """

    spreads: dict[str, Spread]
    values: dict[str, dict[str, Values]]
    worst: list[dict[str, object]]


@dataclass(frozen=True)
class History:
    """Losses by training step; `validation_loss` has points only for steps with an evaluation."""

    loss: list[tuple[float, float]]
    validation_loss: list[tuple[float, float]]


def read_results(path: Path, first: str | None = None) -> Results:
    """Reads `results.csv`.

    Args:
        first: the output whose values are shown first.

    Raises:
        DataError: the file is missing, unreadable, or lacks a column.
    """
    spreads: dict[str, Spread] = {}
    values: dict[str, dict[str, Values]] = {}
    worst = pd.DataFrame()
    try:
        chunks = pd.read_csv(
            path,
            usecols=_SHOWN,
            dtype={**dict.fromkeys(_TEXTS, str), "abs_diff": np.float64},
            # "nan" and "" may be outputs of a model: only in abs_diff do they mean that there is no number.
            keep_default_na=False,
            na_values={"abs_diff": ["", "nan", "NaN"]},
            encoding_errors="replace",
            chunksize=CHUNK_ROWS,
        )
        for chunk in chunks:
            chunk["output"] = chunk["output"].map({cell: read_cell(cell) for cell in chunk["output"].unique()})
            for name, rows in chunk[~chunk["check"].isin(_NO_OUTPUTS)].groupby("format", sort=False):
                _count(spreads.setdefault(str(name), Spread()), rows)
                _sample_values(values.setdefault(str(name), {}), rows[rows["check"] == "equal"], first)
            worst = _worst(pd.concat([worst, _worst(chunk)]))
    except (OSError, ValueError) as exc:
        raise DataError("no readable results", where=path, got=exc, wanted=f"the columns {', '.join(_SHOWN)}") from exc
    shown = [
        {str(key): read_cell(value) if key in _VALUES else value for key, value in row.items()}
        for row in worst.to_dict("records")
    ]
    for name, outputs in values.items():
        values[name] = dict(sorted(outputs.items(), key=lambda item: item[0] != first)[:MOST_SAMPLED_OUTPUTS])
    return Results(spreads, values, shown)


def _sample_values(values: dict[str, Values], rows: pd.DataFrame, first: str | None) -> None:
    """Adds the values of some rows, for the first few outputs and for the output `first`."""
    for output, own in rows.groupby("output", sort=False):
        if output in values or len(values) < MOST_SAMPLED_OUTPUTS or output == first:
            samples = values.setdefault(str(output), Values())
            is_passed = own["verdict"] == PASSED
            samples.passed.add(own[is_passed])
            samples.failed.add(own[~is_passed])


def _count(spread: Spread, rows: pd.DataFrame) -> None:
    diffs = rows["abs_diff"].to_numpy()
    is_failed = (rows["verdict"] != PASSED).to_numpy(dtype=bool)
    is_sized = np.isfinite(diffs) & (diffs > 0)
    spread.rows += len(diffs)
    spread.failed += int(is_failed.sum())
    spread.zero += int((diffs == 0).sum())
    spread.unmeasured += int(np.isnan(diffs).sum())
    spread.infinite += int(np.isinf(diffs).sum())
    if is_sized.any():
        spread.smallest = min(spread.smallest, float(diffs[is_sized].min()))
        spread.largest = max(spread.largest, float(diffs[is_sized].max()))
    for counter, is_chosen in ((spread.passed_by_size, ~is_failed), (spread.failed_by_size, is_failed)):
        chosen = is_sized & is_chosen
        sizes, counts = np.unique(np.floor(STEPS_PER_DECADE * np.log10(diffs[chosen])), return_counts=True)
        counter.update({int(size): int(count) for size, count in zip(sizes, counts, strict=True)})


def _worst(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        return rows
    ranked = rows.assign(
        is_failed=rows["verdict"] != PASSED,
        is_output=rows["check"] != DECISIONS,  # whose differences are between class numbers
        rank=rows["abs_diff"].fillna(math.inf),
    )
    ranked = ranked[ranked["check"] != MADE]  # a refused format has no rows
    ranked = ranked[ranked["is_failed"] | ((ranked["abs_diff"] > 0) & ~ranked["check"].isin(_NO_OUTPUTS))]
    ranked = ranked.sort_values(["is_failed", "is_output", "rank"], ascending=False, kind="stable")
    return ranked[_SHOWN].head(WORST_ROWS)


def read_history(path: Path) -> History:
    """Reads `history.csv`; empty cells, NaN and infinities give no point.

    Raises:
        DataError: the file is missing or unreadable, lacks a column, or has a cell that is no number.
    """
    history = History([], [])
    wanted = "the columns step, loss, validation_loss"
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if not {"step", "loss", "validation_loss"} <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ())
                raise DataError("the training's history lacks a column", where=path, got=found, wanted=wanted)
            for row in reader:
                for points, cell in ((history.loss, row["loss"]), (history.validation_loss, row["validation_loss"])):
                    if cell and math.isfinite(float(cell)):
                        points.append((float(row["step"]), float(cell)))
    except (OSError, ValueError) as exc:
        raise DataError("no readable history of the training", where=path, got=exc, wanted=wanted) from exc
    return history
