"""Records the results of a validation: lines of results.csv, and findings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.settings import FAILED, PASSED, ValidationSettings
from pipeline.signature import Array, Batch, Decision, Signature, TensorSpec

from ..compare.decisions import Flips
from ..compare.differences import (
    by_row,
    disagreement,
    has_numbers,
    is_finite,
    is_identical,
    measure,
    row_blocks,
    worst_elements,
)
from ..compare.precision import Precision
from ..compare.tolerance import (
    EXACT,
    Tolerance,
    flipped_share_for,
    is_rounding,
    tolerance_for,
    widen,
    within_tolerance,
)
from ..compare.weights import VariableComparison, WeightsComparison
from .csv_file import (
    ResultsFile,
    difference_cells,
    element_labels,
    largest_differences,
    text_line,
    value_cells,
    variable_line,
    with_rows,
)
from .findings import Finding, add_rows

_MAX_NAMED = 3


@dataclass
class ResultsRecorder(AbstractContextManager["ResultsRecorder"]):
    """Compares outputs of candidates with their reference, and records the results.

    Args:
        model: its name in results.csv.
        results: the path of results.csv.
        tolerance_classes: by format, see `tolerance.tolerance_class_of`.
        findings: by format, check, output and runtime.
        skipped: reasons, by check.
        notes: sentences, by format.
        is_part: write no header, because the file is a part of another.
        precisions: narrow float types that outputs are computed in, by output.
        runtime: the other runtime that answers now; see `answering_in`.
        proved: outputs whose graph was proved equal to the checkpoint's, by format. Their rows are judged by the
            largest number of the row too: a kernel rounds a sum in proportion to its terms, not to what is left of it.
    """

    model: str
    signature: Signature
    settings: ValidationSettings
    results: Path
    tolerance_classes: Mapping[str, str] = field(default_factory=dict)
    findings: dict[tuple[str, str, str, str], Finding] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    is_part: bool = False
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    runtime: str = ""
    proved: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = ResultsFile(self.results, self.model, has_header=not self.is_part)

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def merge(self, findings: Iterable[Finding], results: Path) -> None:
        """Adds the findings of later rows, and their part of results.csv."""
        for one in findings:
            self.finding(one.format, one.check, one.output).merge(one)
        self._file.append(results)

    @contextmanager
    def answering_in(self, runtime: str) -> Iterator[None]:
        """Records as answers of another runtime what is recorded in the block."""
        self.runtime = runtime
        try:
            yield
        finally:
            self.runtime = ""

    def note(self, format: str, sentence: str) -> None:
        """Adds a sentence that is worth knowing and no failure."""
        self.notes.setdefault(format, []).append(sentence)

    def finding(self, format: str, check: str, output: str) -> Finding:
        """Returns the finding of a check on an output; creates it at first use."""
        key = (format, check, output, self.runtime)
        if key not in self.findings:
            spec = next(spec for spec in self.signature.outputs if spec.name == output)
            bounds = self._tolerance(format, spec)
            self.findings[key] = Finding(format, check, output, spec.dtype, bounds, runtime=self.runtime)
        return self.findings[key]

    def _tolerance(self, format: str, spec: TensorSpec) -> Tolerance:
        kind = self.tolerance_classes.get(format, "") or ("runtime" if self.runtime else "")
        bounds = tolerance_for(self.settings, spec.dtype, kind, spec.name)
        return widen(self.settings, bounds, spec.dtype, spec.name, self.precisions.get(spec.name))

    def note_precisions(self, format: str) -> None:
        """Notes the outputs whose bounds follow a narrow type that they are computed in."""
        for spec in self._specs(set(self.precisions)):
            bounds = self._tolerance(format, spec)
            plain = tolerance_for(self.settings, spec.dtype, self.tolerance_classes.get(format, ""), spec.name)
            if bounds != plain:
                self.note(format, self.precisions[spec.name].sentence(spec.name, bounds.rtol, bounds.atol))

    def difference_kinds(
        self, format: str, reference: Batch, candidate: Batch, rows: int, inputs: Batch | None = None
    ) -> dict[str, float]:
        """Classifies the differences of a batch beyond its bounds; records nothing.

        Args:
            rows: number of rows in the batch.
            inputs: the batch, if it is at hand.

        Returns:
            The largest absolute difference by kind, empty where both sides agree: `names`, `kinds` (dtype or shape),
            `values`, `overflow` (see `_overflowing`) and `rounding`, where the difference is within the relative bound
            of the largest number of its row: the error of a sum grows with its terms, not its result. Of an output
            whose graph is proved equal, a row with a NaN counts as `overflow`, for a kernel may drop a NaN on the way;
            and integers, bools and strings are `decision`: they turn where a number is rounded.
        """
        found: dict[str, float] = {}
        overflows: Array | None = None
        proved = self.proved.get(format, frozenset())
        for spec in self.signature.outputs:
            if spec.name not in candidate or spec.name not in reference:
                found["names"] = np.inf
                continue
            expected, actual = (with_rows(side[spec.name], rows) for side in (reference, candidate))
            if disagreement(expected, actual) is not None:
                found["kinds"] = np.inf
                continue
            for block in row_blocks(expected):
                if is_identical(expected[block], actual[block]):
                    continue
                if overflows is None:
                    overflows = _overflowing(reference, rows) | _overflowing(candidate, rows)
                is_proved, is_over = spec.name in proved, overflows
                if is_proved:
                    is_over = is_over | ~has_numbers(inputs or {}, rows)
                    is_over |= ~(has_numbers(reference, rows) & has_numbers(candidate, rows))
                by_block = is_over[block] if len(expected) == rows else np.array([is_over.any()])
                kinds = _difference_kinds(expected[block], actual[block], self._tolerance(format, spec), by_block)
                if is_proved and expected.dtype.kind in "biuOSU" and "values" in kinds:
                    kinds["decision"] = kinds.pop("values")
                found |= {kind: max(found.get(kind, 0.0), largest) for kind, largest in kinds.items()}
        return found

    def note_rounding(self) -> None:
        """Notes the rows that passed by the largest number of their row alone."""
        for finding in self.findings.values():
            if finding.rows_rounded:
                self.note(
                    finding.format,
                    f"{finding.check} of {finding.output}: {finding.rows_rounded} rows differ by more than the bound "
                    "of an element near 0, and by less than that of the largest number of their row, as kernels round: "
                    "the output is proved to be the same function",
                )

    def expect(self, format: str, check: str, outputs: Collection[str] | None = None) -> None:
        """Announces a check on all outputs or some of them: it fails if no row is compared."""
        for spec in self._specs(outputs):
            self.finding(format, check, spec.name)

    def fail(self, format: str, check: str, reason: str, outputs: Collection[str] | None = None) -> None:
        """Marks a check as failed, on all outputs or some of them."""
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
            labels: values of the column `row`, one per row.
            outputs: the outputs to compare; None for all.
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
            expected, actual = (with_rows(side[spec.name], len(labels)) for side in (reference, candidate))
            problem = disagreement(expected, actual)
            if problem is not None:
                finding.fail(f"{check} of {spec.name}: {problem}")
                continue
            self._record_output(finding, expected, actual, labels if len(expected) == len(labels) else labels[:1])

    def _record_output(self, finding: Finding, reference: Array, candidate: Array, labels: Sequence[Any]) -> None:
        for block in row_blocks(reference):
            self._record_block(finding, reference[block], candidate[block], labels[block])

    def _record_block(self, finding: Finding, reference: Array, candidate: Array, labels: Sequence[Any]) -> None:
        flat_reference, flat_candidate = (by_row(side) for side in (reference, candidate))
        if is_identical(reference, candidate):  # the first element shows it as well as all of them
            flat_reference, flat_candidate = flat_reference[:, :1], flat_candidate[:, :1]
        differences = measure(flat_reference, flat_candidate)
        is_within = within_tolerance(differences, finding.tolerance)
        if finding.check != "stable" and finding.output in self.proved.get(finding.format, ()):
            is_near = is_rounding(differences, finding.tolerance)
            finding.rows_rounded += int((is_within | is_near).all(axis=1).sum() - is_within.all(axis=1).sum())
            is_within |= is_near
        worst = worst_elements(differences, is_within)
        has_passed = np.asarray(is_within.all(axis=1))
        rows = np.arange(len(labels))
        is_shown = worst >= 0

        def worst_values(values: Array | None) -> Array | None:
            return None if values is None or not is_shown.all() else values[rows, worst]

        columns = {
            "row": list(labels),
            "element": element_labels(worst, (*reference.shape[1:], *((2,) if np.iscomplexobj(reference) else ()))),
            "reference": value_cells(worst_values(flat_reference), len(labels)),
            "candidate": value_cells(worst_values(flat_candidate), len(labels)),
            "abs_diff": difference_cells(worst_values(differences.absolute), reference),
            "rel_diff": difference_cells(worst_values(differences.relative), reference),
            "ulp_diff": difference_cells(worst_values(differences.ulp), reference),
            "verdict": np.where(has_passed, PASSED, FAILED).tolist(),
        }
        self._write(finding, columns)
        add_rows(finding, differences, is_within, has_passed, columns)

    def record_refusals(self, format: str, check: str, label: str, refusals: Mapping[str, str | None]) -> None:
        """Records a row or batch that a side refused, on one line: passed if both sides refuse it."""
        expected, actual = refusals["reference"], refusals["candidate"]
        has_passed = expected is not None and actual is not None
        for spec in self.signature.outputs:
            line = text_line(
                label,
                f"refused: {expected}" if expected else "answered",
                f"refused: {actual}" if actual else "answered",
                has_passed,
            )
            self.add_line(self.finding(format, check, spec.name), line, has_passed)

    def record_crash(self, format: str, check: str, problem: str) -> None:
        """Records that a candidate could not finish a check: a failed line for each output."""
        for spec in self.signature.outputs:
            finding = self.finding(format, check, spec.name)
            self.add_line(finding, text_line("", "answered", f"failed: {problem}", False), False)
            finding.fail(f"{check}: the candidate could not be run: {problem}")

    def add_line(self, finding: Finding, line: Mapping[str, Any], has_passed: bool) -> None:
        """Adds a line that holds texts, and counts it as a row of the finding."""
        self._write(finding, {column: [value] for column, value in line.items()})
        finding.rows += 1
        finding.rows_failed += not has_passed
        if not has_passed:
            finding.is_bit_equal = False
            if finding.worst_rank < (True, np.inf):
                finding.worst_rank = (True, np.inf)
                finding.worst = {key: line[key] for key in ("row", "element", "reference", "candidate")}

    def record_decisions(
        self, format: str, decision: Decision, reference: Array, candidate: Array, numbers: Sequence[int]
    ) -> None:
        """Records the decisions on the rows of a batch, a line for each.

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
        """Makes the finding of the decisions: failed if more rows flipped than allowed."""
        finding = Finding(format, "decisions", output, "int64", EXACT, flips.rows, flips.flipped)
        self.findings[format, "decisions", output, ""] = finding
        share = flipped_share_for(self.settings, self.tolerance_classes.get(format, ""))
        finding.rows_allowed = int(share * flips.rows)
        finding.is_bit_equal = not flips.flipped
        if flips.surest:
            flip = flips.surest[0]
            finding.worst = {"element": "", **{key: flip[key] for key in ("row", "reference", "candidate")}}
        if flips.flipped > finding.rows_allowed:
            allowed = f"; allowed are {finding.rows_allowed}" if share else ""
            distance = "" if flip["distance"] is None else f", which was decided by {flip['distance']:.3g}"
            finding.fail(
                f"decisions of {output}: {flips.flipped} of {flips.rows} rows are decided otherwise{allowed}; the "
                f"surest of them is row {flip['row']}{distance}: {flip['reference']} became {flip['candidate']}"
            )
        elif lost := flips.lost_class(max(share, self.settings.class_flipped_share)):
            finding.fail(
                f"decisions of {output}: {flips.flipped} of {flips.rows} rows are decided otherwise, as few as is "
                f"allowed; but {lost} ([validation] class_flipped_share)"
            )

    def record_unmade_format(self, format: str, reason: str) -> None:
        """Records why a format has no file: one line, and a failed check."""
        finding = Finding(format, "made", "file", "", EXACT)
        self.findings[format, "made", "file", ""] = finding
        self.add_line(finding, text_line("", "", reason, False), False)
        finding.fail(f"{format} could not be made: {reason}")

    def record_weights(self, format: str, found: WeightsComparison) -> None:
        """Records the comparison of weights: a line for each variable."""
        absent = self._record_absent(format, found)
        if not found.variables and found.problem is None and absent is None:
            if not found.absent:
                self.skipped["weights"] = "the outputs need no variable"
            return
        dtypes = ", ".join(sorted({variable.dtype for variable in found.variables}))
        finding = Finding(format, "weights", "variables", dtypes, EXACT)
        self.findings[format, "weights", "variables", ""] = finding
        unequal = [variable for variable in found.variables if not variable.is_equal]
        finding.rows, finding.rows_failed = len(found.variables), len(unequal)
        finding.is_bit_equal = not any(variable.is_float16 for variable in found.variables)
        if found.problem is not None:
            finding.fail(f"weights: {found.problem}")
            return
        if absent is not None:
            finding.fail(absent)
        if not found.variables:
            return
        lines = [variable_line(variable) for variable in found.variables]
        self._write(finding, {column: [line[column] for line in lines] for column in lines[0]})
        figures = zip(*(largest_differences(variable) for variable in found.variables), strict=True)
        finding.max_abs_diff, finding.max_rel_diff, finding.max_ulp_diff = (
            max((value for value in values if value is not None), default=None) for values in figures
        )
        if unequal:
            _fail_with_worst(finding, unequal, found.unmatched)

    def _record_absent(self, format: str, found: WeightsComparison) -> str | None:
        """Reports variables that a third-party candidate may have folded; returns the reason if that is a failure."""
        renamed = [variable for variable in found.variables if variable.constant]
        if renamed:
            first = f"such as {renamed[0].name} as {renamed[0].constant}"
            self.note(format, f"{len(renamed)} variables are constants of other names, {first}")
        if not found.absent:
            return None
        reason = (
            "found neither by name nor by their bits among the constants: folded into others, it seems, so the outputs "
            "alone tell of them"
        )
        title = f"weights of {', '.join(found.absent[:_MAX_NAMED])}" + (
            f" and {len(found.absent) - _MAX_NAMED} more" if len(found.absent) > _MAX_NAMED else ""
        )
        if self.settings.is_every_check:
            self.skipped[title] = reason
            return None
        return f"weights was asked for ([validation] checks), and does not apply: {title}: {reason}"

    def _write(self, finding: Finding, columns: Mapping[str, Any]) -> None:
        self._file.write(finding.format, finding.check, columns, finding.output, finding.runtime)


def _fail_with_worst(finding: Finding, unequal: Sequence[VariableComparison], unmatched: int) -> None:
    """Fails the finding with the names of the unequal variables, and keeps the one with the largest difference."""
    distances = [variable.difference.largest[0] if variable.difference else None for variable in unequal]
    ranks = [np.inf if distance is None else distance for distance in distances]
    worst = unequal[ranks.index(max(ranks))]
    line = variable_line(worst)
    finding.worst = {
        "row": worst.name,
        "element": line["element"],
        "reference": str(line["reference"]),
        "candidate": str(line["candidate"]),
    }
    named = "; ".join(variable.sentence() for variable in unequal[:_MAX_NAMED])
    more = f"; and {len(unequal) - _MAX_NAMED} more" if len(unequal) > _MAX_NAMED else ""
    rest = f" (constants of the size of weights that are of no variable: {unmatched})" if unmatched else ""
    finding.fail(f"weights: {len(unequal)} of {finding.rows} variables are not the checkpoint's: {named}{more}{rest}")


def _difference_kinds(expected: Array, actual: Array, tolerance: Tolerance, overflows: Array) -> dict[str, float]:
    """Classifies the differences of one output; see `ResultsRecorder.difference_kinds`.

    Args:
        overflows: bool `[rows]`, see `_overflowing`.
    """
    differences, found = measure(expected, actual), dict[str, float]()
    is_off = ~within_tolerance(differences, tolerance)
    is_over = overflows[:, None] | ~(is_finite(expected) & is_finite(actual))
    is_near = is_rounding(differences, tolerance)
    kinds = {"overflow": is_over, "rounding": ~is_over & is_near, "values": ~is_over & ~is_near}
    for kind, is_kind in kinds.items():
        if (is_off & is_kind).any():
            found[kind] = float(differences.absolute[is_off & is_kind].max())
    return found


def _overflowing(outputs: Batch, rows: int) -> Array:
    """Finds the rows on which a kernel is about to overflow: bool `[rows]`.

    A row with a number whose square overflows, in any output, comes from sums with terms near the largest number. What
    is left of such terms depends on the order in which they are added.
    """
    found = np.zeros(rows, bool)
    for values in outputs.values():
        if values.dtype in (np.float32, np.float64) and values.shape[:1] == (rows,):
            found |= (np.abs(values.reshape(rows, -1)) > np.sqrt(np.finfo(values.dtype).max)).any(axis=1)
    return found
