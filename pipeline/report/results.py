"""`results.csv` and `history.csv`, as much of them as a report shows.

`results.csv` may have a million rows, so that it is read in pieces: what stays is a count by size of difference, and
the few worst rows.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .verdict import STABLE

WORST_ROWS = 8
STEPS_PER_DECADE = 2
CHUNK_ROWS = 100_000

_TEXTS = ["format", "check", "output", "row", "element", "reference", "candidate", "ulp_diff", "verdict"]
_SHOWN = ["format", "check", "output", "row", "element", "reference", "candidate", "abs_diff", "ulp_diff", "verdict"]


@dataclass
class Spread:
    """How far one format's rows are from their reference.

    Attributes:
        rows: rows compared.
        failed: rows whose verdict is not `passed`.
        zero: rows without any difference.
        unmeasured: rows without a number: text, or not a number.
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


@dataclass(frozen=True)
class Results:
    """The spread by format, and the worst rows: failed before passed, no number before a number, then by size.

    Both are of differences from the reference; where a candidate was compared with itself, of what failed alone.
    """

    spreads: dict[str, Spread]
    worst: list[dict[str, object]]


@dataclass(frozen=True)
class History:
    """Losses by training step; `validation_loss` has points only where it was measured."""

    loss: list[tuple[float, float]]
    validation_loss: list[tuple[float, float]]


def read_results(path: Path) -> Results:
    """Reads `results.csv`.

    Raises:
        DataError: the file is missing, unreadable, or lacks a column.
    """
    spreads: dict[str, Spread] = {}
    worst = pd.DataFrame()
    try:
        chunks = pd.read_csv(
            path,
            usecols=_SHOWN,
            dtype={**dict.fromkeys(_TEXTS, str), "abs_diff": np.float64},
            # "nan" and "" are answers of a model like any other: only in abs_diff do they mean that there is no number.
            keep_default_na=False,
            na_values={"abs_diff": ["", "nan", "NaN"]},
            encoding_errors="replace",
            chunksize=CHUNK_ROWS,
        )
        for chunk in chunks:
            for name, rows in chunk[chunk["check"] != STABLE].groupby("format", sort=False):
                _count(spreads.setdefault(str(name), Spread()), rows)
            worst = _worst(pd.concat([worst, _worst(chunk)]))
    except (OSError, ValueError) as exc:
        raise DataError("no readable results", where=path, got=exc, wanted=f"the columns {', '.join(_SHOWN)}") from exc
    return Results(spreads, [{str(key): value for key, value in row.items()} for row in worst.to_dict("records")])


def _count(spread: Spread, rows: pd.DataFrame) -> None:
    diffs = rows["abs_diff"].to_numpy()
    is_failed = (rows["verdict"] != "passed").to_numpy(dtype=bool)
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
    ranked = rows.assign(is_failed=rows["verdict"] != "passed", rank=rows["abs_diff"].fillna(math.inf))
    ranked = ranked[ranked["is_failed"] | ((rows["abs_diff"] > 0) & (rows["check"] != STABLE))]
    ranked = ranked.sort_values(["is_failed", "rank"], ascending=False, kind="stable")
    return ranked[_SHOWN].head(WORST_ROWS)


def read_history(path: Path) -> History:
    """Reads `history.csv`; cells that are empty or not finite give no point.

    Raises:
        DataError: the file is missing or unreadable, lacks a column, or holds what is not a number.
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
