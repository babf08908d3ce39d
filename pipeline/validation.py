"""Proves a candidate equal to its checkpoint, or says where it is not.

Three checks, each on every output:

    equal    the candidate against the checkpoint, on all validation rows
    edge     the same on rows that no data file holds
    golden   the checkpoint and the candidate against the outputs recorded when the model was trained

Both run in processes of their own that see the artifacts alone, never the model's code. Names are
compared first, then dtypes and shapes, then values. Whatever cannot be compared has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import compare
from .arrays import load_arrays, of_kind
from .compare import Tolerance
from .edges import edge_batches
from .errors import PipelineError, RunnerError
from .formats import ApartRunner, Array, Batch
from .metrics import classification, decide, margins
from .settings import ValidationSettings
from .signature import Signature

COLUMNS = [
    "model",
    "format",
    "check",
    "output",
    "row",
    "element",
    "reference",
    "candidate",
    "abs_diff",
    "rel_diff",
    "ulp_diff",
    "verdict",
]
PASSED, FAILED = "passed", "failed"
_VERDICT_SCHEMA = 1


@dataclass
class Finding:
    """What one check found on one output of one format, summed over its rows."""

    format: str
    check: str
    output: str
    dtype: str
    tolerance: Tolerance
    rows: int = 0
    rows_failed: int = 0
    is_bit_equal: bool = True
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    max_ulp_diff: float | None = None
    reason: str | None = None
    worst: dict[str, Any] | None = None

    @property
    def has_passed(self) -> bool:
        return self.reason is None and self.rows > 0 and self.rows_failed == 0

    def fail(self, reason: str) -> None:
        """Marks the check as failed, whatever its rows say; the first reason stays."""
        self.reason = self.reason or reason

    def to_dict(self) -> dict[str, Any]:
        """The finding as it stands in verdict.json."""
        return {
            "format": self.format,
            "check": self.check,
            "output": self.output,
            "dtype": self.dtype,
            "rows": self.rows,
            "rows_failed": self.rows_failed,
            "bit_equal": self.is_bit_equal and self.has_passed,
            "max_abs_diff": _json_number(self.max_abs_diff),
            "max_rel_diff": _json_number(self.max_rel_diff),
            "max_ulp_diff": _json_number(self.max_ulp_diff),
            "rtol": self.tolerance.rtol,
            "atol": self.tolerance.atol,
            "verdict": PASSED if self.has_passed else FAILED,
            "reason": None if self.has_passed else self.sentence(),
            "worst": self.worst,
        }

    def sentence(self) -> str:
        """Why the check failed."""
        if self.reason is not None:
            return self.reason
        if self.rows == 0:
            return f"{self.check} of {self.output}: no row was compared"
        worst = self.worst or {}
        place = f"row {worst.get('row')}" + (f", element {worst['element']}" if worst.get("element") else "")
        return (
            f"{self.check} of {self.output}: {self.rows_failed} of {self.rows} rows differ; the worst is {place}: "
            f"reference {worst.get('reference')}, {self.format} {worst.get('candidate')} "
            f"(bound: rtol {self.tolerance.rtol:g}, atol {self.tolerance.atol:g})"
        )


@dataclass
class Validation:
    """One comparison of candidates with their checkpoint, while it is going on."""

    model: str
    signature: Signature
    settings: ValidationSettings
    results: Path
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    def finding(self, format: str, check: str, output: str) -> Finding:
        """The finding to add to."""
        key = (format, check, output)
        if key not in self.findings:
            spec = next(spec for spec in self.signature.outputs if spec.name == output)
            tolerance = Tolerance(*self.settings.tolerance(spec.dtype))
            self.findings[key] = Finding(format, check, output, spec.dtype, tolerance)
        return self.findings[key]

    def fail(self, format: str, check: str, reason: str) -> None:
        """Marks a check as failed on every output."""
        for spec in self.signature.outputs:
            self.finding(format, check, spec.name).fail(reason)

    def compare(self, format: str, check: str, reference: Batch, candidate: Batch, labels: Sequence[Any]) -> None:
        """Compares the outputs of one batch and appends a line to results.csv for each row.

        Args:
            labels: what stands in the column `row`, one per row.
        """
        extra = sorted(set(candidate) - set(reference))
        if extra:
            self.fail(format, check, f"{check}: the candidate has outputs that the reference lacks: {', '.join(extra)}")
        for spec in self.signature.outputs:
            finding = self.finding(format, check, spec.name)
            if spec.name not in candidate or spec.name not in reference:
                side = "candidate" if spec.name not in candidate else "reference"
                finding.fail(f"{check}: the {side} lacks the output {spec.name}")
                continue
            ours, theirs = (_with_rows(side[spec.name], len(labels)) for side in (reference, candidate))
            problem = compare.disagreement(ours, theirs)
            if problem is not None:
                finding.fail(f"{check} of {spec.name}: {problem}")
                continue
            self._tell(finding, ours, theirs, labels)

    def _tell(self, finding: Finding, reference: Array, candidate: Array, labels: Sequence[Any]) -> None:
        differences = compare.measure(reference, candidate)
        is_within = compare.judge(differences, finding.tolerance)
        worst = compare.worst_elements(differences, is_within)
        has_passed = is_within.all(axis=1)
        rows = np.arange(len(labels))
        is_shown = worst >= 0

        def shown(values: Array | None) -> Array | None:
            return None if values is None or not is_shown.all() else values[rows, worst]

        flat_reference, flat_candidate = (side.reshape(len(labels), -1) for side in (reference, candidate))
        columns = {
            "row": list(labels),
            "element": _element_labels(worst, reference.shape[1:]),
            "reference": _cells(shown(flat_reference), len(labels)),
            "candidate": _cells(shown(flat_candidate), len(labels)),
            "abs_diff": _diff_cells(shown(differences.absolute), reference),
            "rel_diff": _diff_cells(shown(differences.relative), reference),
            "ulp_diff": _diff_cells(shown(differences.ulp), reference),
            "verdict": np.where(has_passed, PASSED, FAILED),
        }
        self._write(finding, columns)
        _add_to(finding, differences, is_within, has_passed, columns)

    def tell_refusals(self, format: str, label: str, refusals: Mapping[str, str | None]) -> None:
        """Writes down an edge row that was refused: equal if both sides refuse it."""
        ours, theirs = refusals["reference"], refusals["candidate"]
        has_passed = ours is not None and theirs is not None
        for spec in self.signature.outputs:
            finding = self.finding(format, "edge", spec.name)
            columns = {
                "row": [label],
                "element": [""],
                "reference": [f"refused: {ours}" if ours else "answered"],
                "candidate": [f"refused: {theirs}" if theirs else "answered"],
                "abs_diff": [None],
                "rel_diff": [None],
                "ulp_diff": [None],
                "verdict": [PASSED if has_passed else FAILED],
            }
            self._write(finding, columns)
            finding.rows += 1
            finding.rows_failed += not has_passed
            if not has_passed:
                finding.is_bit_equal = False
                finding.worst = finding.worst or {
                    key: columns[key][0] for key in ("row", "element", "reference", "candidate")
                }

    def _write(self, finding: Finding, columns: Mapping[str, Any]) -> None:
        frame = pd.DataFrame(columns)
        frame.insert(0, "model", self.model)
        frame.insert(1, "format", finding.format)
        frame.insert(2, "check", finding.check)
        frame.insert(3, "output", finding.output)
        frame[COLUMNS].to_csv(
            self.results, mode="a", header=not self.results.exists(), index=False, na_rep="nan", lineterminator="\n"
        )


def _with_rows(array: Array, rows: int) -> Array:
    """The array with the batch as its first dimension; an output that has none is one single row."""
    return array if array.ndim and len(array) == rows else array.reshape(1, *array.shape)


def _element_labels(worst: Array, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [""] * len(worst)
    return [";".join(map(str, np.unravel_index(index, shape))) if index >= 0 else "" for index in worst]


def _cells(values: Array | None, rows: int) -> Any:
    if values is None:
        return [""] * rows
    if values.dtype.kind in "OSU":
        return [_text(value) for value in values]
    # Widened, a float's shortest text is exact for the original dtype and for float64 alike.
    return values.astype(np.float64) if values.dtype.kind in "fV" else values


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _diff_cells(values: Array | None, reference: Array) -> Any:
    is_measurable = values is not None and reference.dtype.kind not in "OSU"
    return values if is_measurable else [""] * len(reference)


def _add_to(
    finding: Finding, differences: compare.Differences, is_within: Array, has_passed: Array, columns: Mapping[str, Any]
) -> None:
    """Adds the rows of one batch to what was found so far, and keeps the worst row."""
    finding.rows += len(has_passed)
    finding.rows_failed += int((~has_passed).sum())
    if not differences.absolute.size:
        return
    largest = float(differences.absolute.max())
    finding.is_bit_equal = finding.is_bit_equal and largest == 0
    row = int(np.lexsort((differences.absolute.max(axis=1), ~has_passed))[-1])
    is_worse = finding.max_abs_diff is None or largest > finding.max_abs_diff
    if finding.worst is None or (is_worse and not (has_passed[row] and finding.rows_failed)):
        finding.worst = {
            "row": _plain(columns["row"][row]),
            "element": columns["element"][row],
            "reference": str(_plain(columns["reference"][row])),
            "candidate": str(_plain(columns["candidate"][row])),
        }
    if columns["abs_diff"][row] != "":
        finding.max_abs_diff = max(finding.max_abs_diff or 0.0, largest)
        finding.max_rel_diff = max(finding.max_rel_diff or 0.0, float(differences.relative.max()))
    if differences.ulp is not None:
        finding.max_ulp_diff = max(finding.max_ulp_diff or 0.0, float(differences.ulp.max()))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _json_number(value: float | None) -> float | str | None:
    return str(value) if value is not None and not np.isfinite(value) else value


def validate(
    model: str,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    settings: ValidationSettings,
    threads: int,
    folder: Path,
) -> dict[str, Any]:
    """Compares candidates with their checkpoint and writes `results.csv` and `verdict.json`.

    Args:
        model: the name that stands in results.csv.
        checkpoint: the artifact of the checkpoint, with its signature, goldens and validation rows.
        candidates: the artifact's folder by format.
        folder: where the two files are written.

    Returns:
        The content of verdict.json.

    Raises:
        PipelineError: the checkpoint itself cannot be opened or run; what a candidate cannot do is a finding.
    """
    signature = Signature.read(checkpoint / "signature.json")
    stored = load_arrays(checkpoint / "validation.npz")
    rows, labels = of_kind("input", stored), stored.get("labels")
    goldens = load_arrays(checkpoint / "goldens.npz")
    validation = Validation(model, signature, settings, folder / "results.csv")
    decisions: dict[str, list[Array]] = {}
    with ApartRunner("checkpoint", checkpoint, threads) as reference:
        _check_goldens(validation, "checkpoint", reference, goldens)
        for format, artifact in candidates.items():
            with ApartRunner(format, artifact, threads) as candidate:
                try:
                    _check_equal(validation, reference, candidate, rows, decisions)
                    _check_edges(validation, reference, candidate, rows)
                    _check_goldens(validation, format, candidate, goldens)
                except PipelineError as exc:
                    validation.fail(format, "equal", f"the candidate could not be run: {exc}")
    verdict = _verdict(validation, rows, goldens, labels, decisions)
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    return verdict


def _batches(rows: Batch, size: int) -> Iterator[tuple[Batch, range]]:
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        yield (
            {name: values[start : start + size] for name, values in rows.items()},
            range(start, min(start + size, count)),
        )


def _check_equal(
    validation: Validation,
    reference: ApartRunner,
    candidate: ApartRunner,
    rows: Batch,
    decisions: dict[str, list[Array]],
) -> None:
    for batch, numbers in _batches(rows, validation.settings.batch_size):
        reference.ask(batch)
        candidate.ask(batch)
        ours, theirs = reference.answer(), candidate.answer()
        validation.compare(candidate.format, "equal", ours, theirs, numbers)
        decision = validation.signature.decision
        if decision is not None:
            for format, outputs in (("checkpoint", ours), (candidate.format, theirs)):
                if decision.output in outputs:
                    decisions.setdefault(format, []).append(outputs[decision.output])


def _check_edges(validation: Validation, reference: ApartRunner, candidate: ApartRunner, rows: Batch) -> None:
    for label, batch in edge_batches(validation.signature, rows).items():
        answers: dict[str, Batch] = {}
        refusals: dict[str, str | None] = {"reference": None, "candidate": None}
        for side, runner in (("reference", reference), ("candidate", candidate)):
            try:
                answers[side] = runner.run(batch)
            except RunnerError as exc:
                refusals[side] = exc.got or exc.what
        if any(refusals.values()):
            validation.tell_refusals(candidate.format, label, refusals)
        else:
            validation.compare(candidate.format, "edge", answers["reference"], answers["candidate"], [label])


def _check_goldens(validation: Validation, format: str, runner: ApartRunner, goldens: Batch) -> None:
    recorded = of_kind("output", goldens)
    for batch, numbers in _batches(of_kind("input", goldens), validation.settings.batch_size):
        expected = {name: values[numbers.start : numbers.stop] for name, values in recorded.items()}
        validation.compare(format, "golden", expected, runner.run(batch), numbers)


def _verdict(
    validation: Validation, rows: Batch, goldens: Batch, labels: Array | None, decisions: Mapping[str, list[Array]]
) -> dict[str, Any]:
    findings = [validation.findings[key] for key in sorted(validation.findings)]
    reasons = [finding.sentence() for finding in findings if not finding.has_passed]
    if not findings:
        reasons.append("nothing was compared")
    outputs = {format: np.concatenate(parts) for format, parts in decisions.items()}
    return {
        "schema": _VERDICT_SCHEMA,
        "verdict": FAILED if reasons else PASSED,
        "model": validation.model,
        "reasons": reasons,
        "rows": {
            "validation": len(next(iter(rows.values()))),
            "edge": len(edge_batches(validation.signature, rows)),
            "golden": len(next(iter(of_kind("input", goldens).values()))),
        },
        "checks": [finding.to_dict() for finding in findings],
        "metrics": _metrics(validation.signature, labels, outputs),
        "decisions": _decisions(validation.signature, outputs),
    }


def _metrics(signature: Signature, labels: Array | None, outputs: Mapping[str, Array]) -> dict[str, Any]:
    decision = signature.decision
    if decision is None or labels is None or labels.dtype.kind not in "iu" or not len(labels):
        return {}
    return {
        format: classification(labels, decide(output, decision), decision)
        for format, output in outputs.items()
        if len(output) == len(labels)
    }


def _decisions(signature: Signature, outputs: Mapping[str, Array]) -> dict[str, Any]:
    """For each candidate how many rows are decided otherwise, and how close the nearest row is to that."""
    decision = signature.decision
    if decision is None or "checkpoint" not in outputs:
        return {}
    reference = outputs["checkpoint"]
    distances = margins(reference, decision)
    found = {}
    for format, output in outputs.items():
        if format != "checkpoint" and output.shape == reference.shape:
            flipped = int((decide(output, decision) != decide(reference, decision)).sum())
            nearest = int(np.argmin(distances))
            found[format] = {
                "rows": len(output),
                "flipped": flipped,
                "nearest_row": nearest,
                "nearest_distance": float(distances[nearest]),
            }
    return found
