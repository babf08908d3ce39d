"""What a comparison found: a line of results.csv for each row, and a finding for each check and output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import compare
from .compare import Tolerance
from .decisions import Flips
from .resultsfile import ResultsFile
from .settings import ValidationSettings
from .signature import Decision, Signature, TensorSpec
from .weighing import Weights, WeightsFinding

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]

PASSED, FAILED = "passed", "failed"
UNSTABLE = (
    "Its answer depends on a row's neighbours or on chance, as with batch norm or dropout in training mode, or with a "
    "softmax over the batch"
)


@dataclass
class Finding:
    """What one check found on one output of one format, summed over its rows.

    Args:
        rows_allowed: how many rows may fail; more than none for decisions alone.
    """

    format: str
    check: str
    output: str
    dtype: str
    tolerance: Tolerance
    rows: int = 0
    rows_failed: int = 0
    rows_allowed: int = 0
    is_bit_equal: bool = True
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    max_ulp_diff: float | None = None
    reason: str | None = None
    worst: dict[str, Any] | None = None
    worst_rank: tuple[bool, float] = (False, -1.0)  # whether that row failed, and by how much

    @property
    def has_passed(self) -> bool:
        return self.reason is None and self.rows > 0 and self.rows_failed <= self.rows_allowed

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
            "rows_allowed": self.rows_allowed,
            "bit_equal": self.is_bit_equal and self.has_passed,
            "max_abs_diff": _json_number(self.max_abs_diff),
            "max_rel_diff": _json_number(self.max_rel_diff),
            "max_ulp_diff": None if self.max_ulp_diff is None else int(self.max_ulp_diff),
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
        bound = f"(bound: rtol {self.tolerance.rtol:g}, atol {self.tolerance.atol:g})"
        if self.check == "stable":
            return (
                f"stable of {self.output}: {self.rows_failed} of {self.rows} rows are answered otherwise when "
                f"{self.format} is asked again in other batches; the worst is {place}: first {worst.get('reference')}, "
                f"then {worst.get('candidate')} {bound}. {UNSTABLE}"
            )
        return (
            f"{self.check} of {self.output}: {self.rows_failed} of {self.rows} rows differ; the worst is {place}: "
            f"reference {worst.get('reference')}, {self.format} {worst.get('candidate')} {bound}"
        )


@dataclass
class Validation:
    """One comparison of candidates with their checkpoint, while it is going on.

    Args:
        model: the name that stands in results.csv.
        results: the file.
        bounds: by format whose bounds its floats are held to, where not those of their dtype: `float16`, say.
    """

    model: str
    signature: Signature
    settings: ValidationSettings
    results: Path
    bounds: Mapping[str, str] = field(default_factory=dict)
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = ResultsFile(self.results, self.model)

    def __enter__(self) -> Validation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def flush(self) -> None:
        """Lets others read what stands in results.csv so far."""
        self._file.flush()

    def note(self, format: str, sentence: str) -> None:
        """Keeps what is no failure and worth knowing."""
        self.notes.setdefault(format, []).append(sentence)

    def finding(self, format: str, check: str, output: str) -> Finding:
        """The finding to add to."""
        key = (format, check, output)
        if key not in self.findings:
            spec = next(spec for spec in self.signature.outputs if spec.name == output)
            self.findings[key] = Finding(format, check, output, spec.dtype, self._tolerance(format, spec))
        return self.findings[key]

    def _tolerance(self, format: str, spec: TensorSpec) -> Tolerance:
        return Tolerance(*self.settings.tolerance(spec.dtype, self.bounds.get(format, ""), spec.name))

    def disagreeing(self, format: str, reference: Batch, candidate: Batch, rows: int) -> dict[str, float]:
        """In what the outputs of a batch differ beyond their bounds, without a word of it in results.csv.

        Args:
            rows: how many the batch has.

        Returns:
            The largest absolute difference by its kind: `names`, `kinds` (dtype or shape), `values`, `not finite` where
            a number is infinite or none, and `rounding` where the difference is within the relative bound of the
            largest number of its row: a sum's error grows with what was added, not with what is left of it. Nothing
            where both agree.
        """
        found: dict[str, float] = {}
        for spec in self.signature.outputs:
            if spec.name not in candidate or spec.name not in reference:
                found["names"] = np.inf
                continue
            ours, theirs = (_with_rows(side[spec.name], rows) for side in (reference, candidate))
            if compare.disagreement(ours, theirs) is not None:
                found["kinds"] = np.inf
                continue
            tolerance, differences = self._tolerance(format, spec), compare.measure(ours, theirs)
            is_off = ~compare.judge(differences, tolerance)
            is_finite = compare.is_finite(ours) & compare.is_finite(theirs)
            is_near = differences.absolute <= tolerance.rtol * differences.magnitude.max(
                axis=1, keepdims=True, initial=0
            )
            kinds = {"not finite": ~is_finite, "rounding": is_finite & is_near, "values": is_finite & ~is_near}
            for kind, is_kind in kinds.items():
                if (is_off & is_kind).any():
                    largest = float(differences.absolute[is_off & is_kind].max())
                    found[kind] = max(found.get(kind, 0.0), largest)
        return found

    def expect(self, format: str, check: str, outputs: Collection[str] | None = None) -> None:
        """Notes that a check is due, on all outputs or on some: if no row is compared, it has failed."""
        for spec in self._specs(outputs):
            self.finding(format, check, spec.name)

    def fail(self, format: str, check: str, reason: str, outputs: Collection[str] | None = None) -> None:
        """Marks a check as failed, on all outputs or on some."""
        for spec in self._specs(outputs):
            self.finding(format, check, spec.name).fail(reason)

    def _specs(self, outputs: Collection[str] | None) -> list[TensorSpec]:
        return [spec for spec in self.signature.outputs if outputs is None or spec.name in outputs]

    def compare(
        self,
        format: str,
        check: str,
        reference: Batch,
        candidate: Batch,
        labels: Sequence[Any],
        outputs: Collection[str] | None = None,
    ) -> None:
        """Compares the outputs of one batch and appends a line to results.csv for each row.

        Args:
            labels: what stands in the column `row`, one per row.
            outputs: those that the check is on; None for all.
        """
        extra = sorted(set(candidate) - set(reference))
        if extra:
            self.fail(format, check, f"{check}: the candidate has outputs that the reference lacks: {', '.join(extra)}")
        for spec in self._specs(outputs):
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
            self._tell(finding, ours, theirs, labels if len(ours) == len(labels) else labels[:1])

    def _tell(self, finding: Finding, reference: Array, candidate: Array, labels: Sequence[Any]) -> None:
        differences = compare.measure(reference, candidate)
        is_within = compare.judge(differences, finding.tolerance)
        worst = compare.worst_elements(differences, is_within)
        has_passed = np.asarray(is_within.all(axis=1))
        rows = np.arange(len(labels))
        is_shown = worst >= 0

        def shown(values: Array | None) -> Array | None:
            return None if values is None or not is_shown.all() else values[rows, worst]

        flat_reference, flat_candidate = (compare.by_row(side) for side in (reference, candidate))
        columns = {
            "row": list(labels),
            "element": _element_labels(worst, (*reference.shape[1:], *((2,) if np.iscomplexobj(reference) else ()))),
            "reference": _cells(shown(flat_reference), len(labels)),
            "candidate": _cells(shown(flat_candidate), len(labels)),
            "abs_diff": _diff_cells(shown(differences.absolute), reference),
            "rel_diff": _diff_cells(shown(differences.relative), reference),
            "ulp_diff": _diff_cells(shown(differences.ulp), reference),
            "verdict": np.where(has_passed, PASSED, FAILED).tolist(),
        }
        self._write(finding, columns)
        _add_to(finding, differences, is_within, has_passed, columns)

    def tell_refusals(self, format: str, check: str, label: str, refusals: Mapping[str, str | None]) -> None:
        """Writes down a row or a batch that was refused, on one line: equal if both sides refuse it."""
        ours, theirs = refusals["reference"], refusals["candidate"]
        has_passed = ours is not None and theirs is not None
        for spec in self.signature.outputs:
            line = _line(
                label,
                f"refused: {ours}" if ours else "answered",
                f"refused: {theirs}" if theirs else "answered",
                has_passed,
            )
            self._add_line(self.finding(format, check, spec.name), line, has_passed)

    def tell_crash(self, format: str, check: str, problem: str) -> None:
        """Writes down that a candidate could not go on with a check: a line that failed, for each output."""
        for spec in self.signature.outputs:
            finding = self.finding(format, check, spec.name)
            self._add_line(finding, _line("", "answered", f"failed: {problem}", False), False)
            finding.fail(f"{check}: the candidate could not be run: {problem}")

    def _add_line(self, finding: Finding, line: Mapping[str, Any], has_passed: bool) -> None:
        self._write(finding, {column: [value] for column, value in line.items()})
        finding.rows += 1
        finding.rows_failed += not has_passed
        if not has_passed:
            finding.is_bit_equal = False
            if finding.worst_rank < (True, np.inf):
                finding.worst_rank = (True, np.inf)
                finding.worst = {key: line[key] for key in ("row", "element", "reference", "candidate")}

    def tell_decisions(
        self, format: str, decision: Decision, reference: Array, candidate: Array, numbers: Sequence[int]
    ) -> None:
        """Writes down what was decided of the rows of a batch, a line for each.

        Args:
            reference, candidate: classes, int64 `[rows]`.
        """
        columns = {
            **dict.fromkeys(("element", "abs_diff", "rel_diff", "ulp_diff"), [""] * len(numbers)),
            "row": list(numbers),
            "reference": reference.tolist(),
            "candidate": candidate.tolist(),
            "verdict": np.where(reference == candidate, PASSED, FAILED).tolist(),
        }
        self._file.write(format, "decisions", columns, decision.output)

    def judge_decisions(self, format: str, output: str, flips: Flips) -> None:
        """Makes the finding of what was decided: it has failed if more rows flipped than may."""
        finding = Finding(format, "decisions", output, "int64", Tolerance(0.0, 0.0), flips.rows, flips.flipped)
        self.findings[format, "decisions", output] = finding
        share = self.settings.most_flipped(self.bounds.get(format, ""))
        finding.rows_allowed = int(share * flips.rows)
        finding.is_bit_equal = not flips.flipped
        if flips.shown:
            flip = flips.shown[0]
            finding.worst = {"element": "", **{key: flip[key] for key in ("row", "reference", "candidate")}}
        if flips.flipped > finding.rows_allowed:
            allowed = f"; allowed are {finding.rows_allowed}" if share else ""
            distance = "" if flip["distance"] is None else f", which was decided by {flip['distance']:.3g}"
            finding.fail(
                f"decisions of {output}: {flips.flipped} of {flips.rows} rows are decided otherwise{allowed}; the "
                f"surest of them is row {flip['row']}{distance}: {flip['reference']} became {flip['candidate']}"
            )

    def tell_unmade(self, format: str, reason: str) -> None:
        """Writes down, on one line, why there is no file of a format: a check of it that has failed."""
        finding = Finding(format, "made", "file", "", Tolerance(0.0, 0.0))
        self.findings[format, "made", "file"] = finding
        self._add_line(finding, _line("", "", reason, False), False)
        finding.fail(f"{format} could not be made: {reason}")

    def tell_weights(self, format: str, found: WeightsFinding) -> None:
        """Writes down how a candidate's weights compare with the checkpoint's: a line for each variable."""
        if not found.weights and found.problem is None:
            self.skipped["weights"] = "the outputs need no variable"
            return
        dtypes = ", ".join(sorted({weights.dtype for weights in found.weights}))
        finding = Finding(format, "weights", "variables", dtypes, Tolerance(0.0, 0.0))
        self.findings[format, "weights", "variables"] = finding
        differing = [weights for weights in found.weights if not weights.is_equal]
        finding.rows, finding.rows_failed = len(found.weights), len(differing)
        finding.is_bit_equal = not any(weights.is_halved for weights in found.weights)
        if found.problem is not None:
            finding.fail(f"weights: {found.problem}")
            return
        lines = [_weights_line(weights) for weights in found.weights]
        self._write(finding, {column: [line[column] for line in lines] for column in lines[0]})
        figures = zip(*(_largest(weights) for weights in found.weights), strict=True)
        finding.max_abs_diff, finding.max_rel_diff, finding.max_ulp_diff = (
            max((value for value in values if value is not None), default=None) for values in figures
        )
        if differing:
            _add_worst(finding, differing, found.others)

    def _write(self, finding: Finding, columns: Mapping[str, Any]) -> None:
        self._file.write(finding.format, finding.check, columns, finding.output)


def _line(label: str, reference: str, candidate: str, has_passed: bool) -> dict[str, Any]:
    """A line on something other than values."""
    return {
        "row": label,
        "element": "",
        "reference": reference,
        "candidate": candidate,
        **dict.fromkeys(("abs_diff", "rel_diff", "ulp_diff"), ""),
        "verdict": PASSED if has_passed else FAILED,
    }


_MOST_NAMED = 3


def _weights_line(weights: Weights) -> dict[str, Any]:
    """A variable's line of results.csv: the first element that differs."""
    found, figures = weights.difference, _largest(weights)
    measured = found.measured if found else figures
    return {
        "output": weights.name,
        "row": "weights",
        "element": found.first if found else "",
        "reference": found.reference if found else "",
        "candidate": found.candidate if found else weights.problem or "",
        **{
            column: "" if value is None else value
            for column, value in zip(("abs_diff", "rel_diff", "ulp_diff"), measured, strict=True)
        },
        "verdict": PASSED if weights.is_equal else FAILED,
    }


def _largest(weights: Weights) -> tuple[float | None, float | None, float | None]:
    """A variable's largest absolute, relative and ulp difference; None for what has none."""
    if weights.difference is not None:
        return weights.difference.largest
    if weights.problem is not None or weights.dtype == "string":
        return None, None, None
    return 0.0, 0.0, 0.0 if "float" in weights.dtype or "complex" in weights.dtype else None


def _add_worst(finding: Finding, differing: Sequence[Weights], others: int) -> None:
    """Names the variables that differ, and the one that is farthest off."""
    worst = max(differing, key=lambda weights: _farness(weights.difference.largest[0] if weights.difference else None))
    line = _weights_line(worst)
    finding.worst = {
        "row": worst.name,
        "element": line["element"],
        "reference": str(line["reference"]),
        "candidate": str(line["candidate"]),
    }
    named = "; ".join(weights.sentence() for weights in differing[:_MOST_NAMED])
    more = f"; and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
    rest = f" (constants of the size of weights that are of no variable: {others})" if others else ""
    finding.fail(f"weights: {len(differing)} of {finding.rows} variables are not the checkpoint's: {named}{more}{rest}")


def _farness(distance: float | None) -> float:
    return np.inf if distance is None else distance


def _with_rows(array: Array, rows: int) -> Array:
    """The array with the batch as its first dimension; an output that has none is one single row."""
    return array if array.ndim and len(array) == rows else array.reshape(1, *array.shape)


def _element_labels(worst: Array, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [""] * len(worst)
    return [";".join(map(str, np.unravel_index(index, shape))) if index >= 0 else "" for index in worst]


def _cells(values: Array | None, rows: int) -> list[Any]:
    if values is None:
        return [""] * rows
    if values.dtype.kind in "OSU":
        return [_text(value) for value in values]
    # Widened, a float's shortest text is exact for the original dtype and for float64 alike.
    return list((values.astype(np.float64) if values.dtype.kind in "fV" else values).tolist())


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _diff_cells(values: Array | None, reference: Array) -> list[Any]:
    is_measurable = values is not None and reference.dtype.kind not in "OSU"
    return values.tolist() if values is not None and is_measurable else [""] * len(reference)


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
    rank = (not has_passed[row], float(differences.absolute[row].max()))
    if rank > finding.worst_rank:
        finding.worst_rank = rank
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
