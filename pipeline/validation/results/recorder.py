"""One comparison of candidates with their checkpoint, while it goes on: lines of results.csv, and findings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.settings import FAILED, PASSED, ValidationSettings
from pipeline.signature import Array, Batch, Decision, Signature, TensorSpec

from ..compare import differences as compare
from ..compare.decisions import Flips
from ..compare.differences import Tolerance
from ..compare.weights import Weights, WeightsFinding
from .csv_file import (
    ResultsFile,
    difference_cells,
    element_labels,
    largest_of,
    told_line,
    value_cells,
    weights_line,
    with_rows,
)
from .findings import Finding, add_rows

_MOST_NAMED = 3


@dataclass
class ResultsRecorder:
    """One comparison of candidates with their checkpoint, while it is going on.

    Args:
        model: the name that stands in results.csv.
        results: the file.
        bounds: by format whose bounds its floats are held to, where not those of their dtype: `float16`, say.
        is_part: whether the file is a part of one, and has no header.
    """

    model: str
    signature: Signature
    settings: ValidationSettings
    results: Path
    bounds: Mapping[str, str] = field(default_factory=dict)
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    is_part: bool = False

    def __post_init__(self) -> None:
        self._file = ResultsFile(self.results, self.model, has_header=not self.is_part)

    def __enter__(self) -> ResultsRecorder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def flush(self) -> None:
        """Lets others read what stands in results.csv so far."""
        self._file.flush()

    def absorb(self, findings: Iterable[Finding], results: Path) -> None:
        """Adds what another comparison found on later rows: its findings, and its part of results.csv."""
        for one in findings:
            self.finding(one.format, one.check, one.output).absorb(one)
        self._file.append(results)

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
            ours, theirs = (with_rows(side[spec.name], rows) for side in (reference, candidate))
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
            ours, theirs = (with_rows(side[spec.name], len(labels)) for side in (reference, candidate))
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
            "element": element_labels(worst, (*reference.shape[1:], *((2,) if np.iscomplexobj(reference) else ()))),
            "reference": value_cells(shown(flat_reference), len(labels)),
            "candidate": value_cells(shown(flat_candidate), len(labels)),
            "abs_diff": difference_cells(shown(differences.absolute), reference),
            "rel_diff": difference_cells(shown(differences.relative), reference),
            "ulp_diff": difference_cells(shown(differences.ulp), reference),
            "verdict": np.where(has_passed, PASSED, FAILED).tolist(),
        }
        self._write(finding, columns)
        add_rows(finding, differences, is_within, has_passed, columns)

    def tell_refusals(self, format: str, check: str, label: str, refusals: Mapping[str, str | None]) -> None:
        """Writes down a row or a batch that was refused, on one line: equal if both sides refuse it."""
        ours, theirs = refusals["reference"], refusals["candidate"]
        has_passed = ours is not None and theirs is not None
        for spec in self.signature.outputs:
            line = told_line(
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
            self._add_line(finding, told_line("", "answered", f"failed: {problem}", False), False)
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
        self._add_line(finding, told_line("", "", reason, False), False)
        finding.fail(f"{format} could not be made: {reason}")

    def tell_weights(self, format: str, found: WeightsFinding) -> None:
        """Writes down how a candidate's weights compare with the checkpoint's: a line for each variable."""
        absent = self._tell_absent(format, found)
        if not found.weights and found.problem is None and absent is None:
            if not found.absent:
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
        if absent is not None:
            finding.fail(absent)
        if not found.weights:
            return
        lines = [weights_line(weights) for weights in found.weights]
        self._write(finding, {column: [line[column] for line in lines] for column in lines[0]})
        figures = zip(*(largest_of(weights) for weights in found.weights), strict=True)
        finding.max_abs_diff, finding.max_rel_diff, finding.max_ulp_diff = (
            max((value for value in values if value is not None), default=None) for values in figures
        )
        if differing:
            _add_worst(finding, differing, found.others)

    def _tell_absent(self, format: str, found: WeightsFinding) -> str | None:
        """Tells of variables that a candidate of somebody else's has not as constants: it may have folded them.

        Returns:
            Why the check has failed, if it was asked for by its name.
        """
        renamed = [weights for weights in found.weights if weights.constant]
        if renamed:
            first = f"such as {renamed[0].name} as {renamed[0].constant}"
            self.note(format, f"{len(renamed)} variables are constants of other names, {first}")
        if not found.absent:
            return None
        reason = (
            "found neither by name nor by their bits among the constants: folded into others, it seems, so the outputs "
            "alone tell of them"
        )
        title = f"weights of {', '.join(found.absent[:_MOST_NAMED])}" + (
            f" and {len(found.absent) - _MOST_NAMED} more" if len(found.absent) > _MOST_NAMED else ""
        )
        if self.settings.is_every_check:
            self.skipped[title] = reason
            return None
        return f"weights was asked for ([validation] checks), and does not apply: {title}: {reason}"

    def _write(self, finding: Finding, columns: Mapping[str, Any]) -> None:
        self._file.write(finding.format, finding.check, columns, finding.output)


def _add_worst(finding: Finding, differing: Sequence[Weights], others: int) -> None:
    """Names the variables that differ, and the one that is farthest off."""
    worst = max(differing, key=lambda weights: _farness(weights.difference.largest[0] if weights.difference else None))
    line = weights_line(worst)
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
