"""Feeds a few rows to a checkpoint and a candidate again, and compares the outputs.

worst/worst.json      artifacts, and their bounds by check and output
worst/FORMAT.npz      input/NAME, reference/NAME and candidate/NAME `[rows, ...]`; and for every row its check,
                      outputs, row (its label in results.csv), batch (rows with the same number are fed together) and
                      is_worst (False for rows that only fill the batch of a worst row)
worst/reproduce.sh    script that feeds them again
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pipeline.data.generated import read_rows_together
from pipeline.data.npz import add_kind, load_arrays, object_array, of_kind, save_arrays
from pipeline.errors import DataError, PipelineError, RunnerError
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner, fixed_batch_size
from pipeline.signature import Array, Batch, Signature, batch_size_of
from pipeline.store.file_names import SIGNATURE_FILE, VALIDATION_ROWS_FILE, WORST_FILE
from pipeline.workers.child import Limits

from ..compare.decisions import decide
from ..compare.differences import by_row, disagreement, measure, worst_elements
from ..compare.tolerance import Tolerance, within_tolerance

_SCHEMA, _MAX_FAILURES = 1, 3
_ROW_ARRAYS = ("check", "outputs", "row", "batch", "is_worst")
Reply: TypeAlias = "Batch | str"  # outputs, or the text of a refusal


@dataclass(frozen=True)
class Case:
    """Batch of rows to feed again, with the positions of the rows to compare.

    Args:
        check: the check that failed.
        outputs: the outputs that differed.
        row: its label in results.csv.
        batch: by input name an array `[rows, ...]`.
        positions: indices in the batch.
        recorded: the recorded outputs of the batch, for the check `golden`.
    """

    check: str
    outputs: tuple[str, ...]
    row: str
    batch: Batch
    positions: tuple[int, ...]
    recorded: Batch = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of rows in the batch."""
        return len(next(iter(self.batch.values()))) if self.batch else 1


@dataclass(frozen=True)
class RowComparison:
    """Comparison of one row's output, as texts."""

    check: str
    row: str
    output: str
    element: str
    reference: str
    candidate: str
    difference: str
    is_equal: bool


class RestartingRunner(AbstractContextManager["RestartingRunner"]):
    """Runner of an artifact that starts a new process after a batch that ended the last one."""

    def __init__(self, format: str, artifact: Path, threads: int, limits: Limits | None = None) -> None:
        self.format = format
        self._artifact, self._threads, self._limits = artifact, threads, limits
        self._runner: SubprocessRunner | None = None
        self._failures: list[PipelineError] = []

    def run(self, batch: Batch) -> Batch | PipelineError:
        """Returns the outputs by name, or the error."""
        if len(self._failures) >= _MAX_FAILURES:
            return self._failures[-1]
        try:
            if self._runner is None:
                self._runner = SubprocessRunner(self.format, self._artifact, self._threads, self._limits)
            answer = self._runner.run(batch)
        except PipelineError as exc:
            self.close()
            self._failures.append(exc)
            return exc
        self._failures.clear()
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def run_case(
    case: Case, reference: RestartingRunner, candidate: RestartingRunner, size: int | None
) -> tuple[Reply, Reply]:
    """Runs a case's batch on both sides.

    For `stable` the reference is the candidate itself, with each row alone, or the same batch again if its size is
    fixed.

    Args:
        size: the fixed batch size; None if any size is accepted.
    """
    actual = candidate.run(case.batch)
    expected: Batch | PipelineError
    if case.check == "golden":
        expected = case.recorded
    elif case.check != "stable":
        expected = reference.run(case.batch)
    elif size is not None:
        expected = candidate.run(case.batch)
    else:
        expected = _run_rows_alone(case, candidate)
    return _to_reply(expected), _to_reply(actual)


def _run_rows_alone(case: Case, candidate: RestartingRunner) -> Batch | PipelineError:
    rows = []
    for row in range(case.size):
        answer = candidate.run({name: values[row : row + 1] for name, values in case.batch.items()})
        if isinstance(answer, PipelineError):
            return answer
        rows.append(answer)
    names = [name for name in rows[0] if all(row[name].ndim and len(row[name]) == 1 for row in rows)]
    names = [name for name in names if len({row[name].shape for row in rows}) == 1]
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def _to_reply(answer: Batch | PipelineError) -> Reply:
    if not isinstance(answer, PipelineError):
        return answer
    return f"refused: {answer.got or answer.what}" if isinstance(answer, RunnerError) else f"crashed: {answer}"


def compare_case(
    case: Case, expected: Reply, actual: Reply, bounds: Mapping[str, Sequence[float]], signature: Signature
) -> Iterator[RowComparison]:
    """Compares the replies to a case; yields a line for each of its outputs and positions.

    Args:
        bounds: relative and absolute tolerance by output.
    """
    for output in case.outputs:
        line = partial(RowComparison, case.check, case.row, output)
        if isinstance(expected, str) or isinstance(actual, str):
            both_refuse = isinstance(expected, str) and isinstance(actual, str)
            texts = [side if isinstance(side, str) else "answered" for side in (expected, actual)]
            yield line("", texts[0], texts[1], "", both_refuse)
        elif output not in expected or output not in actual:
            texts = ["answered" if output in side else "no such output" for side in (expected, actual)]
            yield line("", texts[0], texts[1], "", False)
        elif case.check == "decisions" and signature.decision is not None:
            name = signature.decision.output
            classes = [decide(side[name], signature.decision) for side in (expected, actual)]
            for one, other in ((int(side[position]) for side in classes) for position in case.positions):
                yield line("", str(one), str(other), "", one == other)
        else:
            tolerance = Tolerance(*bounds.get(output, (0.0, 0.0)))
            yield from _compare_values(case, line, expected[output], actual[output], tolerance)


def _compare_values(
    case: Case, line: Callable[..., RowComparison], expected: Array, actual: Array, tolerance: Tolerance
) -> Iterator[RowComparison]:
    problem = disagreement(expected, actual)
    if problem is not None:
        yield line("", f"{expected.dtype} {list(expected.shape)}", problem, "", False)
        return
    has_rows = bool(expected.ndim) and len(expected) == case.size
    sides = [side if has_rows else side.reshape(1, *side.shape) for side in (expected, actual)]
    differences = measure(sides[0], sides[1])
    is_within = within_tolerance(differences, tolerance)
    worst = worst_elements(differences, is_within)
    for position in case.positions if has_rows else (0,):
        element = int(worst[position])
        if element < 0:
            continue
        texts = [_to_text(by_row(side)[position, element]) for side in sides]
        shape = (*sides[0].shape[1:], *((2,) if np.iscomplexobj(sides[0]) else ()))
        index = ";".join(map(str, np.unravel_index(element, shape))) if shape else ""
        distance = f"{differences.absolute[position, element]:g}"
        yield line(index, texts[0], texts[1], distance, bool(is_within[position].all()))


def _to_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value.item() if isinstance(value, np.generic) and value.dtype.kind in "biu" else value)


def save_cases(path: Path, cases: Sequence[tuple[Case, Reply, Reply]]) -> None:
    """Writes cases and both sides' replies into one file.

    Outputs without one value for each row, or with different shapes in different cases, are left out.
    """
    rows = [(case, number, row) for number, (case, _, _) in enumerate(cases) for row in range(case.size)]
    labels: dict[str, Any] = {
        "check": [case.check.encode() for case, _, _ in rows],
        "outputs": [",".join(case.outputs).encode() for case, _, _ in rows],
        "row": [case.row.encode() for case, _, _ in rows],
    }
    arrays = {name: object_array(values) for name, values in labels.items()}
    arrays["batch"] = np.array([number for _, number, _ in rows], np.int64)
    arrays["is_worst"] = np.array([row in case.positions for case, _, row in rows], bool)
    sizes = [case.size for case, _, _ in cases]
    arrays |= add_kind("input", _concatenate([case.batch for case, _, _ in cases], sizes))
    for side, replies in (
        ("reference", [expected for _, expected, _ in cases]),
        ("candidate", [actual for _, _, actual in cases]),
    ):
        arrays |= add_kind(side, _concatenate([{} if isinstance(each, str) else each for each in replies], sizes))
    for number, (case, _, _) in enumerate(cases):
        arrays |= add_kind(f"recorded/{number}", case.recorded)
    save_arrays(path, arrays)


def _concatenate(parts: Sequence[Batch], sizes: Sequence[int]) -> dict[str, Array]:
    """Concatenates the arrays that all parts have, with one value for each row."""
    names = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
    kept = [
        name
        for name in names
        if all(part[name].ndim and len(part[name]) == size for part, size in zip(parts, sizes, strict=True))
        and len({(part[name].dtype, part[name].shape[1:]) for part in parts}) == 1
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in kept}


def load_cases(path: Path) -> list[Case]:
    """Reads a file of `save_cases`.

    Raises:
        DataError: the file is missing, or was not written by it.
    """
    arrays = load_arrays(path)
    inputs = of_kind("input", arrays)
    missing = [name for name in _ROW_ARRAYS if name not in arrays]
    count = len(arrays.get("batch", ()))
    if missing or any(len(values) != count for values in (*inputs.values(), *(arrays[name] for name in _ROW_ARRAYS))):
        got = f"no {missing[0]}" if missing else "arrays with different numbers of rows"
        raise DataError("not a file of worst rows", where=path, got=got, wanted=", ".join(_ROW_ARRAYS))
    cases = []
    for number in sorted(set(arrays["batch"].tolist())):
        where = np.flatnonzero(arrays["batch"] == number)
        check, outputs, row = (arrays[name][where[0]].decode() for name in ("check", "outputs", "row"))
        positions = tuple(int(at) for at in np.flatnonzero(arrays["is_worst"][where]))
        batch = {name: values[where] for name, values in inputs.items()}
        recorded = of_kind(f"recorded/{number}", arrays)
        cases.append(Case(check, tuple(outputs.split(",")), row, batch, positions, recorded))
    return cases


def locate_artifact(artifact: Path, folder: Path) -> dict[str, str]:
    """Describes an artifact's location: by its stage, or by its relative path if it is not part of a chain.

    Args:
        folder: the folder of `worst.json`.
    """
    if artifact.parent.name == ".versions":  # the stage's link leads to the newest version
        return {"stage": artifact.name.rsplit("-", 2)[0]}
    return {"path": os.path.relpath(artifact, folder)}


def write_notes(
    folder: Path, checkpoint: Path, threads: int, limits: Limits, formats: Mapping[str, tuple[Path, Mapping[str, Any]]]
) -> None:
    """Writes `worst.json`.

    Args:
        limits: those of candidates' processes.
        formats: by format the artifact, and its bounds by check and output.
    """
    notes = {
        "schema": _SCHEMA,
        "checkpoint": locate_artifact(checkpoint, folder),
        "threads": threads,
        "limits": asdict(limits),
        "formats": {
            format: {"artifact": locate_artifact(artifact, folder), "bounds": bounds}
            for format, (artifact, bounds) in formats.items()
        },
    }
    (folder / WORST_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def rerun(folder: Path) -> Iterator[tuple[str, RowComparison]]:
    """Feeds the worst rows of a validation again, format by format.

    Args:
        folder: the folder of `worst.json`.

    Yields:
        The format, and the comparison of one row.

    Raises:
        DataError: the folder has no such file, a file is damaged, or an artifact is missing.
    """
    notes = _read_notes(folder)
    checkpoint = _find_artifact(folder, notes["checkpoint"])
    signature = Signature.read(checkpoint / SIGNATURE_FILE)
    artifacts = {format: _find_artifact(folder, note["artifact"]) for format, note in notes["formats"].items()}
    size, threads = batch_size_of(signature) or fixed_batch_size(artifacts), int(notes["threads"])
    if size is None and (together := read_rows_together(checkpoint / VALIDATION_ROWS_FILE) or 1) > 1:
        size = together
    for format, note in notes["formats"].items():
        if format not in FORMATS:
            raise DataError("unknown format", where=folder / WORST_FILE, got=format, wanted=", ".join(FORMATS))
        cases = load_cases(folder / f"{format}.npz")
        runner = RestartingRunner(format, artifacts[format], threads, Limits(**notes["limits"]))
        with RestartingRunner("checkpoint", checkpoint, threads) as reference, runner as candidate:
            for case in cases:
                expected, actual = run_case(case, reference, candidate, size)
                for line in compare_case(case, expected, actual, note["bounds"].get(case.check, {}), signature):
                    yield format, line


def _read_notes(folder: Path) -> dict[str, Any]:
    path = folder / WORST_FILE
    try:
        notes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if notes["schema"] != _SCHEMA:
            raise ValueError(f"schema {notes['schema']}")
        for location in (notes["checkpoint"], *(note["artifact"] for note in notes["formats"].values())):
            if not set(location) & {"stage", "path"}:
                raise ValueError(f"an artifact without stage or path: {location}")
        int(notes["threads"])
        Limits(**notes["limits"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        got = exc.strerror if isinstance(exc, OSError) else exc
        raise DataError(
            "no worst rows to feed again", where=path, got=got, wanted="the folder worst/ of a validation that failed"
        ) from exc
    return notes


def _find_artifact(folder: Path, location: Mapping[str, str]) -> Path:
    """Finds an artifact by the location that `locate_artifact` wrote, or raises a DataError."""
    if "path" in location:
        folders = [folder / location["path"]]
    else:
        parents = [*folder.absolute().parents, *folder.resolve().parents]
        folders = [parent / location["stage"] for parent in parents]
    for path in folders:
        if (path / SIGNATURE_FILE).is_file():
            return path.resolve()
    raise DataError(
        "a compared artifact is missing",
        where=folder,
        got=f"no {location.get('stage') or location.get('path')} beside the validation",
        next_step="Run the chain again",
    )
