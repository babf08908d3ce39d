"""Keeps the worst rows of a validation that failed, with a command that feeds just those again."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import of_kind
from .checks import Material, rows_in
from .findings import PASSED, Finding, Validation
from .formats import Array, Batch
from .rerunning import Case, Side, answers, save_cases, write_notes
from .rows import batch_size_of

FOLDER, MOST_ROWS = "worst", 16
_MOST_COMPANY = 64
_SCRIPT = """#!/bin/sh
# Feeds the worst rows to the checkpoint and the candidates again, from the project's root:
#     sh {folder}/reproduce.sh
# Exits with 0 if they agree now, with 1 if they still differ.
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m pipeline rerun "$(dirname "$0")"
"""


@dataclass(frozen=True, order=True)
class Picked:
    """A row that failed, as results.csv tells it; the worst is the largest."""

    difference: float
    check: str
    output: str
    row: str


def write_worst(
    folder: Path,
    validation: Validation,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    material: Material,
    threads: int,
) -> None:
    """Writes `worst/` into a validation's folder: for each format whose rows failed, up to 16 of them.

    Nothing is written where no row failed, for the weights alone may have.

    Args:
        folder: the validation's, with a `results.csv` that is complete.
        checkpoint: the checkpoint's artifact.
        candidates: the artifact's folder by format.
    """
    artifacts = {"checkpoint": checkpoint, **candidates}
    cases = {format: list(failed_cases(validation, material, format)) for format in artifacts}
    if not any(cases.values()):
        return
    place, size = folder / FOLDER, batch_size_of(material.signature)
    place.mkdir()
    for format, its_cases in cases.items():
        if its_cases:
            with Side("checkpoint", checkpoint, threads) as ours, Side(format, artifacts[format], threads) as theirs:
                told = [(case, *answers(case, ours, theirs, size)) for case in its_cases]
            save_cases(place / f"{format}.npz", told)
    formats = {format: (artifacts[format], _bounds(validation, format)) for format, kept in cases.items() if kept}
    write_notes(place, checkpoint, threads, formats)
    script = place / "reproduce.sh"
    script.write_text(_SCRIPT.format(folder=f"output/{validation.model}/validation/{FOLDER}"), encoding="utf-8")
    script.chmod(0o755)


def _bounds(validation: Validation, format: str) -> dict[str, dict[str, tuple[float, float]]]:
    bounds: dict[str, dict[str, tuple[float, float]]] = {}
    for finding in validation.findings.values():
        if finding.format == format:
            tolerance = finding.tolerance
            bounds.setdefault(finding.check, {})[finding.output] = (tolerance.rtol, tolerance.atol)
    return bounds


def failed_cases(validation: Validation, material: Material, format: str) -> Iterator[Case]:
    """The worst rows of a format's checks that failed, as batches to feed.

    Of a check that failed without a row, because a process died, say, the rows that it begins with.
    """
    failed = [one for one in validation.findings.values() if one.format == format and not one.has_passed]
    failed = [one for one in failed if one.check in _CASES]
    by_row: dict[tuple[str, str], list[str]] = {}
    picks = _picked(validation.results, format) if any(one.rows_failed for one in failed) else []
    for pick in chain(picks, _first_rows(failed, material)):
        by_row.setdefault((pick.check, pick.row), []).append(pick.output)
    for (check, row), outputs in list(by_row.items())[:MOST_ROWS]:
        case = _CASES[check](material, format, row)
        if case is not None:
            batch, positions, recorded = case
            yield Case(check, tuple(dict.fromkeys(outputs)), row, batch, positions, recorded)


def _picked(results: Path, format: str) -> list[Picked]:
    """The worst rows of each check and output that failed, in turns, so that each has its worst among the first."""
    worst: dict[tuple[str, str], list[Picked]] = {}
    with results.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["format"] != format or line["verdict"] == PASSED or line["check"] not in _CASES:
                continue
            heap = worst.setdefault((line["check"], line["output"]), [])
            heapq.heappush(heap, Picked(_distance(line["abs_diff"]), line["check"], line["output"], line["row"]))
            if len(heap) > MOST_ROWS:
                heapq.heappop(heap)
    turns = zip_longest(*(sorted(heap, reverse=True) for heap in worst.values()))
    return [pick for turn in turns for pick in turn if pick is not None]


def _distance(text: str) -> float:
    """The difference that a line tells; what has none, as a refusal, is farther than any."""
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return math.inf if math.isnan(value) else value


def _first_rows(failed: list[Finding], material: Material) -> Iterator[Picked]:
    for finding in failed:
        if not finding.rows_failed:
            labels: Mapping[str, Any] = {"edge": material.edges, "generated": material.made_up}
            for label in labels.get(finding.check, ["0"]):
                yield Picked(0.0, finding.check, finding.output, label)


Found = tuple[Batch, tuple[int, ...], Batch]


def _validation_row(material: Material, format: str, label: str) -> Found | None:
    """A row alone, or in its batch where batches are of a fixed size."""
    return _row_of(material.rows, label, batch_size_of(material.signature) or 1)


def _row_of(rows: Batch, label: str, size: int) -> Found | None:
    if not label.isdecimal() or int(label) >= rows_in(rows):
        return None
    start = int(label) // size * size
    return _part(rows, slice(start, start + size)), (int(label) - start,), {}


def _part(rows: Batch, which: slice | Array) -> Batch:
    return {name: np.asarray(values[which]) for name, values in rows.items()}


def _edge_row(material: Material, format: str, label: str) -> Found | None:
    return (material.edges[label], (0,), {}) if label in material.edges else None


def _generated_row(material: Material, format: str, label: str) -> Found | None:
    """A row `made up 7/3`, or a whole batch `made up 7` that was refused."""
    name, _, row = label.partition("/")
    batch = material.made_up.get(name)
    if batch is None:
        return None
    return batch, ((int(row),) if row.isdecimal() else tuple(range(rows_in(batch)))), {}


def _stable_row(material: Material, format: str, label: str) -> Found | None:
    """A row in the company in which it was asked again; where it was alone then, in that of the first time."""
    if not label.isdecimal():
        return None
    rows, row = material.rows, int(label)
    for numbers in material.sample(format).batches:
        if row in numbers and (len(numbers) > 1 or batch_size_of(material.signature)):
            return _part(rows, numbers), (int(np.flatnonzero(numbers == row)[0]),), {}
    start = max(0, min(row, rows_in(rows) - _MOST_COMPANY))
    return _part(rows, slice(start, start + _MOST_COMPANY)), (row - start,), {}


def _golden_row(material: Material, format: str, label: str) -> Found | None:
    inputs, outputs = (of_kind(kind, material.goldens) for kind in ("input", "output"))
    found = _row_of(inputs, label, batch_size_of(material.signature) or 1)
    if found is None:
        return None
    batch, (position,), _ = found
    start = int(label) - position
    count, size = rows_in(inputs), rows_in(batch)
    recorded = {
        # An output without the batch as its first dimension is recorded once for all rows.
        name: values[start : start + size] if values.ndim and len(values) == count else values
        for name, values in outputs.items()
    }
    return batch, (position,), recorded


_CASES = {
    "equal": _validation_row,
    "decisions": _validation_row,
    "edge": _edge_row,
    "generated": _generated_row,
    "stable": _stable_row,
    "golden": _golden_row,
}
