"""Keeps the worst rows of a validation that failed, with a command that feeds just those again."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pipeline.data.npz import of_kind
from pipeline.settings import PASSED
from pipeline.signature import Batch, batch_size_of
from pipeline.store.files import RERUN_SCRIPT, WORST_FOLDER
from pipeline.workers.child import Limits

from ..checks.material import Material, rows_in
from ..results.findings import Finding
from ..results.recorder import ResultsRecorder
from .feed import Answer, Case, Side, answers, compared, save_cases, write_notes

MOST_ROWS = 16
_MOST_COMPANY = 64
Bound: TypeAlias = tuple[float, float]
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
    validation: ResultsRecorder,
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
    place = folder / WORST_FOLDER
    limits = Limits(*validation.settings.limits)
    place.mkdir()
    for format, its_cases in cases.items():
        if its_cases:
            side = Side(format, artifacts[format], threads, limits)
            with Side("checkpoint", checkpoint, threads) as ours, side as theirs:
                bounds = _bounds(validation, format)
                told = [_reproduced(case, ours, theirs, material, bounds) for case in its_cases]
            save_cases(place / f"{format}.npz", told)
    formats = {format: (artifacts[format], _bounds(validation, format)) for format, kept in cases.items() if kept}
    write_notes(place, checkpoint, threads, limits, formats)
    script = place / RERUN_SCRIPT
    script.write_text(_SCRIPT.format(folder=f"output/{validation.model}/validation/{WORST_FOLDER}"), encoding="utf-8")
    script.chmod(0o755)


def _reproduced(
    case: Case, reference: Side, candidate: Side, material: Material, bounds: Mapping[str, Mapping[str, Bound]]
) -> tuple[Case, Answer, Answer]:
    """A case with both sides' answers: alone, or, where a row differs only in it, in the company that it had."""
    size = batch_size_of(material.signature)
    told = answers(case, reference, candidate, size)
    lines = compared(case, *told, bounds.get(case.check, {}), material.signature)
    is_alone = size is None and case.check in ("equal", "decisions") and case.row.isdecimal()
    if not is_alone or not all(line.is_equal for line in lines):
        return case, *told
    row = int(case.row)
    start = row // material.size * material.size
    together = replace(case, batch=material.rows.read(start, start + material.size), positions=(row - start,))
    return together, *answers(together, reference, candidate, size)


def _bounds(validation: ResultsRecorder, format: str) -> dict[str, dict[str, Bound]]:
    bounds: dict[str, dict[str, Bound]] = {}
    for finding in validation.findings.values():
        if finding.format == format:
            tolerance = finding.tolerance
            bounds.setdefault(finding.check, {})[finding.output] = (tolerance.rtol, tolerance.atol)
    return bounds


def failed_cases(validation: ResultsRecorder, material: Material, format: str) -> Iterator[Case]:
    """The worst rows of a format's checks that failed, as batches to feed.

    Of a check that failed without a row, because a process died, say, the rows at which it stopped.
    """
    failed = [one for one in validation.findings.values() if one.format == format and not one.has_passed]
    failed = [one for one in failed if one.check in _CASES]
    by_row: dict[tuple[str, str], list[str]] = {}
    picks = _picked(validation.results, format) if failed else []
    seen = {(pick.check, pick.output) for pick in picks}
    stops = [_stop(one, material) for one in failed if (one.check, one.output) not in seen or _is_cut_short(one)]
    for pick in [*picks[: MOST_ROWS - 1], *stops, *picks[MOST_ROWS - 1 :]]:
        by_row.setdefault((pick.check, pick.row), []).append(pick.output)
    for (check, row), outputs in list(by_row.items())[:MOST_ROWS]:
        found = _CASES[check](material, format, row)
        if found is not None:
            batch, positions, recorded = found
            yield Case(check, tuple(dict.fromkeys(outputs)), row, batch, positions, recorded)


def _picked(results: Path, format: str) -> list[Picked]:
    """The worst rows of each check and output that failed, in turns, so that each has its worst among the first."""
    worst: dict[tuple[str, str], list[Picked]] = {}
    with results.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["format"] != format or line["verdict"] == PASSED or line["check"] not in _CASES or not line["row"]:
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


def _is_cut_short(finding: Finding) -> bool:
    """Whether the candidate could not go on with the check, whatever it answered before."""
    return "could not be run" in (finding.reason or "")


def _stop(finding: Finding, material: Material) -> Picked:
    """Where a check stopped: at the first row, or batch, that it has no line of."""
    done = max(0, finding.rows - finding.rows_failed)
    labels = list({"edge": material.edges, "generated": material.generated}.get(finding.check, ()))
    if labels:
        counts = np.cumsum([1 if finding.check == "edge" else rows_in(material.generated[label]) for label in labels])
        label = labels[min(int(np.searchsorted(counts, done, side="right")), len(labels) - 1)]
    else:
        label = f"from {done}"
    return Picked(0.0, finding.check, finding.output, label)


Found: TypeAlias = "tuple[Batch, tuple[int, ...], Batch]"


def _validation_row(material: Material, format: str, label: str) -> Found | None:
    """A row alone, or in its batch where batches are of a fixed size; or all from the one at which a check stopped."""
    size, rows = batch_size_of(material.signature), material.rows
    number = _number(label, len(rows))
    if number is None:
        return None
    if label.startswith(_FROM):
        start = number // (size or 1) * (size or 1)
        batch = rows.read(start, start + (size or _MOST_COMPANY))
        return batch, tuple(range(rows_in(batch))), {}
    start = number // (size or 1) * (size or 1)
    return rows.read(start, start + (size or 1)), (number - start,), {}


_FROM = "from "


def _number(label: str, count: int) -> int | None:
    """The number of a row; None where it is none of these rows."""
    text = label.removeprefix(_FROM)
    return int(text) if text.isdecimal() and int(text) < count else None


def _edge_row(material: Material, format: str, label: str) -> Found | None:
    return (material.edges[label], (0,), {}) if label in material.edges else None


def _generated_row(material: Material, format: str, label: str) -> Found | None:
    """A row `made up 7/3`, or a whole batch `made up 7` that was refused."""
    name, _, row = label.partition("/")
    batch = material.generated.get(name)
    if batch is None:
        return None
    return batch, ((int(row),) if row.isdecimal() else tuple(range(rows_in(batch)))), {}


def _stable_row(material: Material, format: str, label: str) -> Found | None:
    """A row in the company in which it was asked again; where it was alone then, in that of the first time."""
    rows = material.rows
    row = _number(label, len(rows))
    if row is None:
        return None
    for numbers in material.sample(format).batches:
        if row in numbers and (len(numbers) > 1 or batch_size_of(material.signature)):
            return rows.take(numbers), (int(np.flatnonzero(numbers == row)[0]),), {}
    start = max(0, min(row, len(rows) - _MOST_COMPANY))
    return rows.read(start, start + _MOST_COMPANY), (row - start,), {}


def _golden_row(material: Material, format: str, label: str) -> Found | None:
    inputs, outputs = (of_kind(kind, material.goldens) for kind in ("input", "output"))
    count, size = rows_in(inputs), batch_size_of(material.signature) or 1
    number = _number(label, count)
    if number is None:
        return None
    which = slice(start := number // size * size, start + size)
    recorded = {
        # An output without the batch as its first dimension is recorded once for all rows.
        name: values[which] if values.ndim and len(values) == count else values
        for name, values in outputs.items()
    }
    return {name: values[which] for name, values in inputs.items()}, (number - start,), recorded


_CASES = {
    "equal": _validation_row,
    "decisions": _validation_row,
    "edge": _edge_row,
    "generated": _generated_row,
    "stable": _stable_row,
    "golden": _golden_row,
}
