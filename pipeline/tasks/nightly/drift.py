"""Compare the answers of a night's model with those of another night's model, on that night's rows.

A model that was trained again gives other values everywhere; its users notice the decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.npz import NpzReader, add_kind, load_arrays, of_kind, save_arrays
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Array, Batch, Decision, Signature, TensorSpec, batch_size_of
from pipeline.store.file_names import SIGNATURE_FILE, VALIDATION_ROWS_FILE
from pipeline.validation.compare.decisions import decide, has_decisions
from pipeline.validation.compare.differences import disagreement, measure

_MAX_SHOWN = 10


@dataclass
class AnswerDifferences:
    """Differences between the answers of two models on some rows.

    Args:
        rows: the number of rows.
        changed: the number of rows with another decision; None if the model decides nothing.
        largest_difference: of any output; infinite where only one of two values is a number.
        shown: the first ten changed rows: their numbers, and the decisions then and now.
    """

    rows: int = 0
    changed: int | None = None
    largest_difference: float = 0.0
    shown: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of drift.json, where infinity is a text."""
        largest = self.largest_difference
        return {**asdict(self), "largest_difference": largest if math.isfinite(largest) else str(largest)}


def write_answers(runner: SubprocessRunner, checkpoint: Path, batch_size: int, most: int, path: Path) -> int:
    """Write the answers of a model to its own validation rows, for the next night.

    Args:
        checkpoint: the artifact with the rows.
        most: the largest number of rows to write.

    Returns:
        The number of rows written; without rows, no file is written.
    """
    signature = Signature.read(checkpoint / SIGNATURE_FILE)
    rows = NpzReader(checkpoint / VALIDATION_ROWS_FILE, "input")
    fixed = batch_size_of(signature)
    count = min(most, len(rows)) // (fixed or 1) * (fixed or 1)
    if not count:
        return 0
    inputs = rows.read(0, count)
    answers = [runner.run(batch) for _, batch in _batches(inputs, fixed or batch_size)]
    names = [
        spec.name
        for spec in signature.outputs
        if all(answer[spec.name].ndim for answer in answers)
        and sum(len(answer[spec.name]) for answer in answers) == count
    ]
    outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in names}
    save_arrays(path, {**add_kind("input", inputs), **add_kind("output", outputs)})
    return count


def compare_answers(
    runner: SubprocessRunner,
    recorded: Path,
    decisions: tuple[Decision | None, Decision | None],
    batch_size: int,
    is_fixed: bool = False,
) -> AnswerDifferences:
    """Run a model on the rows that another model answered, and compare the answers.

    Args:
        recorded: the goldens or `answers.npz` of the other model.
        decisions: of the other model, and of this one.
        is_fixed: the model accepts only whole batches; the remaining rows are left out.

    Raises:
        RunnerError: the model fails on these rows.
    """
    arrays = load_arrays(recorded)
    inputs, outputs = of_kind("input", arrays), of_kind("output", arrays)
    found = AnswerDifferences()
    for numbers, batch in _batches(inputs, batch_size):
        if is_fixed and len(numbers) < batch_size:
            break
        answers = runner.run(batch)
        found.rows += len(numbers)
        for name, then in outputs.items():
            then = then[numbers.start : numbers.stop]
            now = answers[name]
            if disagreement(then, now) is None:
                far = measure(then, now).absolute
                found.largest_difference = max(found.largest_difference, float(far.max(initial=0.0)))
            else:
                found.largest_difference = math.inf
            if all(decision is not None and decision.output == name for decision in decisions):
                _add_decisions(found, then, now, decisions, numbers)
    return found


def _add_decisions(
    found: AnswerDifferences,
    then: Array,
    now: Array,
    decisions: tuple[Decision | None, Decision | None],
    numbers: range,
) -> None:
    sides = [(then, decisions[0]), (now, decisions[1])]
    decided = [
        decide(output, decision)
        for output, decision in sides
        if decision is not None and has_decisions(output, decision, len(numbers))
    ]
    if len(decided) < len(sides):
        return
    rows = np.flatnonzero(decided[0] != decided[1])
    found.changed = (found.changed or 0) + len(rows)
    found.shown += [{"row": numbers[row], "then": int(decided[0][row]), "now": int(decided[1][row])} for row in rows]
    del found.shown[_MAX_SHOWN:]


def _batches(inputs: Batch, size: int) -> Iterator[tuple[range, Batch]]:
    count = len(next(iter(inputs.values()), ()))
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield numbers, {name: values[numbers.start : numbers.stop] for name, values in inputs.items()}


def describe_signature_changes(then: Signature, now: Signature) -> list[str]:
    """Return what callers of the model would have to change, as sentences; tensor names and thresholds do not count."""
    changes = [*_spec_changes("input", then.inputs, now.inputs), *_spec_changes("output", then.outputs, now.outputs)]
    decisions = [decision and (decision.output, decision.labels) for decision in (then.decision, now.decision)]
    if decisions[0] != decisions[1]:
        was, is_now = (f"{each[0]} ({', '.join(each[1])})" if each else "none" for each in decisions)
        changes.append(f"the output that decides was {was}, is {is_now}")
    return changes


def _spec_changes(kind: str, then: Iterable[TensorSpec], now: Iterable[TensorSpec]) -> Iterator[str]:
    was, is_now = (
        {spec.name: TensorSpec(spec.name, spec.dtype, spec.shape) for spec in specs} for specs in (then, now)
    )
    for name in sorted({*was, *is_now}):
        if name not in is_now:
            yield f"the {kind} {was[name]} is gone"
        elif name not in was:
            yield f"the {kind} {is_now[name]} is new"
        elif was[name] != is_now[name]:
            yield f"the {kind} {name} was {was[name]}, is {is_now[name]}"
