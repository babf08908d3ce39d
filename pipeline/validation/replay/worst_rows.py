"""Writes the worst rows of a failed validation, with a script that feeds them again."""

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
from pipeline.report.csv_cells import read_cell
from pipeline.settings import PASSED
from pipeline.signature import Batch, batch_size_of
from pipeline.store.file_names import RERUN_SCRIPT, WORST_FOLDER
from pipeline.workers.child import Limits

from ..checks.material import Material, row_count
from ..checks.search_rows import search_of
from ..results.findings import Finding
from ..results.recorder import ResultsRecorder
from .feed import Case, Reply, RestartingRunner, compare_case, run_case, save_cases, write_notes

MAX_ROWS = 16
_MAX_CONTEXT_ROWS = 64
Bounds: TypeAlias = Mapping[str, Mapping[str, tuple[float, float]]]  # by check and output
_SCRIPT = """#!/bin/sh
# Feeds the worst rows to the checkpoint and the candidates again, from the project's root:
#     sh {folder}/reproduce.sh
# Exits with 0 if they agree now, with 1 if they still differ.
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m pipeline rerun "$(dirname "$0")"
"""


@dataclass(frozen=True, order=True)
class WorstRow:
    """Row that failed, from results.csv; the worst row compares largest."""

    difference: float
    check: str
    output: str
    row: str


def write_worst(
    folder: Path,
    recorder: ResultsRecorder,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    material: Material,
    threads: int,
) -> None:
    """Writes `worst/` into a validation's folder, with up to 16 failed rows of each format.

    Writes nothing if no row failed, for instance if only weights differ.

    Args:
        folder: the validation's, with a complete `results.csv`.
        checkpoint: the checkpoint's artifact.
        candidates: the artifact's folder by format.
    """
    artifacts = {"checkpoint": checkpoint, **candidates}
    cases = {format: list(failed_cases(recorder, material, format)) for format in artifacts}
    if not any(cases.values()):
        return
    target = folder / WORST_FOLDER
    limits = Limits(*recorder.settings.limits)
    target.mkdir()
    formats = {format: (artifacts[format], _bounds(recorder, format)) for format, failed in cases.items() if failed}
    for format, (artifact, bounds) in formats.items():
        runner = RestartingRunner(format, artifact, threads, limits)
        with RestartingRunner("checkpoint", checkpoint, threads) as reference, runner as candidate:
            replies, held = list[tuple[Case, Reply, Reply]](), sum(case.size for case in cases[format])
            for case in cases[format]:
                replies.append(_reproduce(case, reference, candidate, material, bounds, held < material.sizes.held))
                held += replies[-1][0].size - case.size
        save_cases(target / f"{format}.npz", replies)
    write_notes(target, checkpoint, threads, limits, formats)
    script = target / RERUN_SCRIPT
    script.write_text(_SCRIPT.format(folder=f"output/{recorder.model}/validation/{WORST_FOLDER}"), encoding="utf-8")
    script.chmod(0o755)


def _reproduce(
    case: Case,
    reference: RestartingRunner,
    candidate: RestartingRunner,
    material: Material,
    bounds: Bounds,
    has_room: bool,
) -> tuple[Case, Reply, Reply]:
    """Runs a case on both sides; a row that differs only in its batch is replaced by that batch if there is room."""
    size = batch_size_of(material.signature)
    replies = run_case(case, reference, candidate, size)
    lines = compare_case(case, *replies, bounds.get(case.check, {}), material.signature)
    ran_alone = size is None and case.check in ("equal", "decisions") and case.row.isdecimal()
    if not ran_alone or not has_room or not all(line.is_equal for line in lines):
        return case, *replies
    row = int(case.row)
    start = row // material.batch_size * material.batch_size
    in_batch = replace(case, batch=material.rows.read(start, start + material.batch_size), positions=(row - start,))
    return in_batch, *run_case(in_batch, reference, candidate, size)


def _bounds(recorder: ResultsRecorder, format: str) -> Bounds:
    bounds: dict[str, dict[str, tuple[float, float]]] = {}
    for finding in recorder.findings.values():
        if finding.format == format:
            tolerance = finding.tolerance
            bounds.setdefault(finding.check, {})[finding.output] = (tolerance.rtol, tolerance.atol)
    return bounds


def failed_cases(recorder: ResultsRecorder, material: Material, format: str) -> Iterator[Case]:
    """Yields the worst rows of a format's failed checks, as batches to feed.

    For a check that failed without a row, for instance because a process crashed, yields the rows where it stopped.
    """
    failed = [finding for finding in recorder.findings.values() if finding.format == format and not finding.has_passed]
    failed = [finding for finding in failed if finding.check in _CASE_BUILDERS]
    by_row: dict[tuple[str, str], list[str]] = {}
    worst = _read_worst_rows(recorder.results, format) if failed else []
    seen = {(worst_row.check, worst_row.output) for worst_row in worst}
    unfinished = "could not be run"  # in the reason of a check that the candidate could not finish
    stopped = [one for one in failed if (one.check, one.output) not in seen or unfinished in (one.reason or "")]
    stops = [_find_stop(finding, material) for finding in stopped]
    for worst_row in [*worst[: MAX_ROWS - 1], *stops, *worst[MAX_ROWS - 1 :]]:
        by_row.setdefault((worst_row.check, worst_row.row), []).append(worst_row.output)
    held = 0
    for (check, row), outputs in list(by_row.items())[:MAX_ROWS]:
        inputs = _CASE_BUILDERS[check](material, format, row) if held < material.sizes.held else None
        if inputs is not None:
            batch, positions, recorded = inputs
            held += row_count(batch)
            yield Case(check, tuple(dict.fromkeys(outputs)), row, batch, positions, recorded)


def _read_worst_rows(results: Path, format: str) -> list[WorstRow]:
    """Reads the worst rows of each failed check and output, in turns, so that the worst ones of each come first."""
    worst: dict[tuple[str, str], list[WorstRow]] = {}
    with results.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            has_failed = line["format"] == format and line["verdict"] != PASSED
            if not has_failed or line["check"] not in _CASE_BUILDERS or not line["row"]:
                continue
            output = read_cell(line["output"])
            heap = worst.setdefault((line["check"], output), [])
            heapq.heappush(heap, WorstRow(_distance(line["abs_diff"]), line["check"], output, line["row"]))
            if len(heap) > MAX_ROWS:
                heapq.heappop(heap)
    turns = zip_longest(*(sorted(heap, reverse=True) for heap in worst.values()))
    return [worst_row for turn in turns for worst_row in turn if worst_row is not None]


def _distance(text: str) -> float:
    """Parses a difference; infinite for a line without one, such as a refusal."""
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return math.inf if math.isnan(value) else value


def _find_stop(finding: Finding, material: Material) -> WorstRow:
    """Finds the first row, or batch, without a line in results.csv: there the check stopped."""
    finished_rows = max(0, finding.rows - finding.rows_failed)
    labels = list({"edge": material.edge_cases, "generated": material.generated}.get(finding.check, ()))
    if labels:
        counts = np.cumsum([1 if finding.check == "edge" else row_count(material.generated[label]) for label in labels])
        label = labels[min(int(np.searchsorted(counts, finished_rows, side="right")), len(labels) - 1)]
    else:
        label = f"from {finished_rows}"
    return WorstRow(0.0, finding.check, finding.output, label)


CaseInputs: TypeAlias = "tuple[Batch, tuple[int, ...], Batch]"


def _validation_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row: alone, or in its batch if the size is fixed; or of the rows where a check stopped."""
    size, rows = batch_size_of(material.signature), material.rows
    number = _number(label, len(rows))
    if number is None:
        return None
    if label.startswith(_FROM):
        start = number // (size or 1) * (size or 1)
        batch = rows.read(start, start + (size or min(_MAX_CONTEXT_ROWS, material.sizes.held)))
        return batch, tuple(range(row_count(batch))), {}
    start = number // (size or 1) * (size or 1)
    return rows.read(start, start + (size or 1)), (number - start,), {}


_FROM = "from "


def _number(label: str, count: int) -> int | None:
    """Parses a row number; None if there is no such row."""
    text = label.removeprefix(_FROM)
    return int(text) if text.isdecimal() and int(text) < count else None


def _edge_row(material: Material, format: str, label: str) -> CaseInputs | None:
    return (material.edge_cases[label], (0,), {}) if label in material.edge_cases else None


def _generated_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row such as `made up 7/3`, or of a refused batch such as `made up 7`."""
    name, _, row = label.partition("/")
    batch = material.generated.get(name)
    if batch is None:
        return None
    return batch, ((int(row),) if row.isdecimal() else tuple(range(row_count(batch)))), {}


def _stable_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row in the batch of its second run; if it was alone there, in that of the first run."""
    rows = material.rows
    row = _number(label, len(rows))
    if row is None:
        return None
    for numbers in material.sample(format).batches:
        if row in numbers and (len(numbers) > 1 or batch_size_of(material.signature)):
            return rows.take(numbers), (int(np.flatnonzero(numbers == row)[0]),), {}
    context = min(_MAX_CONTEXT_ROWS, max(2, material.sizes.held))
    start = max(0, min(row, len(rows) - context))
    return rows.read(start, start + context), (row - start,), {}


def _golden_row(material: Material, format: str, label: str) -> CaseInputs | None:
    inputs, outputs = (of_kind(kind, material.goldens) for kind in ("input", "output"))
    count, size = row_count(inputs), batch_size_of(material.signature) or 1
    number = _number(label, count)
    if number is None:
        return None
    span = slice(start := number // size * size, start + size)
    recorded = {
        # An output without rows as its first dimension is recorded once for all rows.
        name: values[span] if values.ndim and len(values) == count else values
        for name, values in outputs.items()
    }
    return {name: values[span] for name, values in inputs.items()}, (number - start,), recorded


def _sizes_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row such as `batch of 257/3`."""
    size, _, row = label.removeprefix("batch of ").partition("/")
    if not size.isdecimal() or int(size) not in search_of(material).sizes[0]:
        return None
    batch = search_of(material).batch_of(int(size))
    return batch, ((int(row),) if row.isdecimal() else tuple(range(row_count(batch)))), {}


def _searched_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row of a ladder, or at an edge: alone, or as often as a fixed batch has rows."""
    size = batch_size_of(material.signature) or 1
    for ladder in (*search_of(material).ladders, *search_of(material).edges):
        if label in ladder.labels:
            row = ladder.labels.index(label)
            return {name: np.repeat(values[row : row + 1], size, 0) for name, values in ladder.rows.items()}, (0,), {}
    return None


def _repeated_row(material: Material, format: str, label: str) -> CaseInputs | None:
    """Builds the inputs of a row such as `call 1000/2`, or `beside NAME`."""
    usual, unusual = search_of(material).again, search_of(material).unusual.get(label.removeprefix("beside "))
    if label.startswith("beside ") and unusual is not None:
        return {name: np.concatenate([unusual[name], usual[name][:1]]) for name in usual}, (1,), {}
    row = label.rpartition("/")[2]
    return (usual, (int(row),), {}) if row.isdecimal() else None


_CASE_BUILDERS = {
    "equal": _validation_row,
    "decisions": _validation_row,
    "edge": _edge_row,
    "generated": _generated_row,
    "stable": _stable_row,
    "golden": _golden_row,
    "sizes": _sizes_row,
    "ladders": _searched_row,
    "boundary": _searched_row,
    "repeated": _repeated_row,
}
