"""Feeds a few rows to a checkpoint and a candidate again, and compares what they answer.

worst/worst.json      which artifacts, their bounds by check and output
worst/FORMAT.npz      input/NAME, reference/NAME and candidate/NAME `[rows, ...]`; and of every row its check,
                      outputs, row (the label of results.csv), batch (rows of one number are fed together) and
                      is_worst (what is no worst row is there as its company)
worst/reproduce.sh    feeds them again
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pipeline.data.npz import load_arrays, of_kind, prefixed, save_arrays
from pipeline.errors import DataError, PipelineError, RunnerError
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner, fixed_batch
from pipeline.signature import Array, Batch, Signature, batch_size_of
from pipeline.store.files import SIGNATURE_FILE, WORST_FILE
from pipeline.workers.child import Limits

from ..compare import differences as compare
from ..compare.decisions import decide
from ..compare.differences import Tolerance

_SCHEMA, _MOST_FAILURES = 1, 3
_ROW_ARRAYS = ("check", "outputs", "row", "batch", "is_worst")
Answer: TypeAlias = "Batch | str"


@dataclass(frozen=True)
class Case:
    """Rows that are fed together, and which of them are looked at.

    Args:
        check: whose rows they are.
        outputs: those that were otherwise.
        row: the label in results.csv.
        batch: by input name an array `[rows, ...]`.
        positions: of the rows that are looked at.
        recorded: by output what was recorded for the batch, where the check is `golden`.
    """

    check: str
    outputs: tuple[str, ...]
    row: str
    batch: Batch
    positions: tuple[int, ...]
    recorded: Batch = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many rows are fed together."""
        return len(next(iter(self.batch.values()), ()))


@dataclass(frozen=True)
class Line:
    """How one row's answer compares now."""

    check: str
    row: str
    output: str
    element: str
    reference: str
    candidate: str
    difference: str
    is_equal: bool


class Side:
    """An artifact that is asked batch after batch, opened anew where a batch ended its process."""

    def __init__(self, format: str, artifact: Path, threads: int, limits: Limits | None = None) -> None:
        self.format = format
        self._artifact, self._threads, self._limits = artifact, threads, limits
        self._runner: SubprocessRunner | None = None
        self._failures: list[PipelineError] = []

    def run(self, batch: Batch) -> Batch | PipelineError:
        """The outputs by name, or why there are none."""
        if len(self._failures) >= _MOST_FAILURES:
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

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def answers(case: Case, reference: Side, candidate: Side, size: int | None) -> tuple[Answer, Answer]:
    """What both sides answer to a case's batch; what they say instead where they refuse it.

    For `stable` the reference is the candidate itself, asked for each row alone, or once more where batches are fixed.

    Args:
        size: of every batch; None where it is free.
    """
    theirs = candidate.run(case.batch)
    ours: Batch | PipelineError
    if case.check == "golden":
        ours = case.recorded
    elif case.check != "stable":
        ours = reference.run(case.batch)
    elif size is not None:
        ours = candidate.run(case.batch)
    else:
        ours = _alone(case, candidate)
    return _said(ours), _said(theirs)


def _alone(case: Case, candidate: Side) -> Batch | PipelineError:
    rows = []
    for row in range(case.size):
        answer = candidate.run({name: values[row : row + 1] for name, values in case.batch.items()})
        if isinstance(answer, PipelineError):
            return answer
        rows.append(answer)
    names = [name for name in rows[0] if all(row[name].ndim and len(row[name]) == 1 for row in rows)]
    return {name: np.concatenate([row[name] for row in rows]) for name in names if _are_alike(name, rows)}


def _are_alike(name: str, rows: Sequence[Batch]) -> bool:
    return len({row[name].shape for row in rows}) == 1


def _said(answer: Batch | PipelineError) -> Answer:
    if not isinstance(answer, PipelineError):
        return answer
    return f"refused: {answer.got or answer.what}" if isinstance(answer, RunnerError) else f"crashed: {answer}"


def compared(
    case: Case, ours: Answer, theirs: Answer, bounds: Mapping[str, Sequence[float]], signature: Signature
) -> Iterator[Line]:
    """How the answers to a case compare, a line for each of its outputs and rows that are looked at.

    Args:
        bounds: relative and absolute tolerance by output.
    """
    for output in case.outputs:
        if isinstance(ours, str) or isinstance(theirs, str):
            are_both = isinstance(ours, str) and isinstance(theirs, str)
            said = [side if isinstance(side, str) else "answered" for side in (ours, theirs)]
            yield Line(case.check, case.row, output, "", said[0], said[1], "", are_both)
        elif output not in ours or output not in theirs:
            said = ["answered" if output in side else "no such output" for side in (ours, theirs)]
            yield Line(case.check, case.row, output, "", said[0], said[1], "", False)
        elif case.check == "decisions" and signature.decision is not None:
            yield from _decided(case, output, ours, theirs, signature)
        else:
            yield from _measured(case, output, ours[output], theirs[output], Tolerance(*bounds.get(output, (0.0, 0.0))))


def _decided(case: Case, output: str, ours: Batch, theirs: Batch, signature: Signature) -> Iterator[Line]:
    assert signature.decision is not None  # it is what was asked
    name = signature.decision.output
    classes = [decide(side[name], signature.decision) for side in (ours, theirs)]
    for position in case.positions:
        one, other = (int(side[position]) for side in classes)
        yield Line(case.check, case.row, output, "", str(one), str(other), "", one == other)


def _measured(case: Case, output: str, ours: Array, theirs: Array, tolerance: Tolerance) -> Iterator[Line]:
    problem = compare.disagreement(ours, theirs)
    if problem is not None:
        yield Line(case.check, case.row, output, "", f"{ours.dtype} {list(ours.shape)}", problem, "", False)
        return
    has_rows = bool(ours.ndim) and len(ours) == case.size
    sides = [side if has_rows else side.reshape(1, *side.shape) for side in (ours, theirs)]
    differences = compare.measure(sides[0], sides[1])
    is_within = compare.judge(differences, tolerance)
    worst = compare.worst_elements(differences, is_within)
    for position in case.positions if has_rows else (0,):
        element = int(worst[position])
        if element < 0:
            continue
        values = [compare.by_row(side)[position, element] for side in sides]
        shape = (*sides[0].shape[1:], *((2,) if np.iscomplexobj(sides[0]) else ()))
        index = ";".join(map(str, np.unravel_index(element, shape))) if shape else ""
        apart = f"{differences.absolute[position, element]:g}"
        shown = [_text(value) for value in values]
        yield Line(case.check, case.row, output, index, shown[0], shown[1], apart, bool(is_within[position].all()))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value.item() if isinstance(value, np.generic) and value.dtype.kind in "biu" else value)


def save_cases(path: Path, cases: Sequence[tuple[Case, Answer, Answer]]) -> None:
    """Writes cases, with what both sides answered to them, into one file.

    An output that has not one answer for each row, or not of one shape in all cases, is left out: asking again shows
    it.
    """
    rows = [(case, number, row) for number, (case, _, _) in enumerate(cases) for row in range(case.size)]
    labels: dict[str, Any] = {
        "check": [case.check.encode() for case, _, _ in rows],
        "outputs": [",".join(case.outputs).encode() for case, _, _ in rows],
        "row": [case.row.encode() for case, _, _ in rows],
    }
    arrays = {name: _objects(values) for name, values in labels.items()}
    arrays["batch"] = np.array([number for _, number, _ in rows], np.int64)
    arrays["is_worst"] = np.array([row in case.positions for case, _, row in rows], bool)
    sizes = [case.size for case, _, _ in cases]
    arrays |= prefixed("input", _joined([case.batch for case, _, _ in cases], sizes))
    for side, told in (
        ("reference", [ours for _, ours, _ in cases]),
        ("candidate", [theirs for _, _, theirs in cases]),
    ):
        arrays |= prefixed(side, _joined([{} if isinstance(each, str) else each for each in told], sizes))
    for number, (case, _, _) in enumerate(cases):
        arrays |= prefixed(f"recorded/{number}", case.recorded)
    save_arrays(path, arrays)


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _joined(parts: Sequence[Batch], sizes: Sequence[int]) -> dict[str, Array]:
    """The arrays of all parts one after the other, of those that every part has with as many rows as it has."""
    names = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
    kept = [
        name
        for name in names
        if all(part[name].ndim and len(part[name]) == size for part, size in zip(parts, sizes, strict=True))
        and len({(part[name].dtype, part[name].shape[1:]) for part in parts}) == 1
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in kept}


def load_cases(path: Path) -> list[Case]:
    """Reads what `save_cases` wrote.

    Raises:
        DataError: the file is missing, or is no such file.
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


def note_artifact(artifact: Path, folder: Path) -> dict[str, str]:
    """How an artifact is found again from a folder: by its stage, or, where it is none of a chain, by its path.

    Args:
        folder: the one that `worst.json` is written into.
    """
    if artifact.parent.name == ".versions":  # the link beside it leads to the last version
        return {"stage": artifact.name.rsplit("-", 2)[0]}
    return {"path": os.path.relpath(artifact, folder)}


def write_notes(
    folder: Path,
    checkpoint: Path,
    threads: int,
    limits: Limits,
    formats: Mapping[str, tuple[Path, Mapping[str, Any]]],
) -> None:
    """Writes `worst.json`.

    Args:
        limits: what a candidate's process may take.
        formats: by format the artifact, and its bounds by check and output.
    """
    notes = {
        "schema": _SCHEMA,
        "checkpoint": note_artifact(checkpoint, folder),
        "threads": threads,
        "limits": asdict(limits),
        "formats": {
            format: {"artifact": note_artifact(artifact, folder), "bounds": bounds}
            for format, (artifact, bounds) in formats.items()
        },
    }
    (folder / WORST_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def rerun(folder: Path) -> Iterator[tuple[str, Line]]:
    """Feeds the worst rows of a validation again, format by format.

    Args:
        folder: the one with `worst.json`.

    Yields:
        The format, and how one row compares now.

    Raises:
        DataError: it is no such folder, a file of it is damaged, or an artifact is gone.
    """
    notes = _read_notes(folder)
    checkpoint = _find(folder, notes["checkpoint"])
    signature = Signature.read(checkpoint / SIGNATURE_FILE)
    artifacts = {format: _find(folder, told["artifact"]) for format, told in notes["formats"].items()}
    size, threads = batch_size_of(signature) or fixed_batch(artifacts), int(notes["threads"])
    for format, told in notes["formats"].items():
        if format not in FORMATS:
            raise DataError("a format that is none", where=folder / WORST_FILE, got=format, wanted=", ".join(FORMATS))
        cases = load_cases(folder / f"{format}.npz")
        side = Side(format, artifacts[format], threads, Limits(**notes["limits"]))
        with Side("checkpoint", checkpoint, threads) as reference, side as candidate:
            for case in cases:
                ours, theirs = answers(case, reference, candidate, size)
                for line in compared(case, ours, theirs, told["bounds"].get(case.check, {}), signature):
                    yield format, line


def _read_notes(folder: Path) -> dict[str, Any]:
    path = folder / WORST_FILE
    try:
        notes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if notes["schema"] != _SCHEMA:
            raise ValueError(f"schema {notes['schema']}")
        for told in (notes["checkpoint"], *(each["artifact"] for each in notes["formats"].values())):
            if not set(told) & {"stage", "path"}:
                raise ValueError(f"an artifact without a place: {told}")
        int(notes["threads"])
        Limits(**notes["limits"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(
            "no worst rows to feed again",
            where=path,
            got=exc,
            wanted="the folder worst/ of a validation that failed",
        ) from exc
    return notes


def _find(folder: Path, told: Mapping[str, str]) -> Path:
    """An artifact's folder.

    Raises:
        DataError: it is not there.
    """
    if "path" in told:
        places = [folder / told["path"]]
    else:
        above = [*folder.absolute().parents, *folder.resolve().parents]
        places = [parent / told["stage"] for parent in above]
    for place in places:
        if (place / SIGNATURE_FILE).is_file():
            return place.resolve()
    raise DataError(
        "an artifact that was compared is not there",
        where=folder,
        got=f"no {told.get('stage') or told.get('path')} beside the validation",
        next_step="Run the chain again",
    )
