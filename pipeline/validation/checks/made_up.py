"""Rows that were made up and prove nothing of a candidate: the model refuses them, or they are beyond its range."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from pipeline.errors import RunnerError
from pipeline.formats.calibration import Range, calibrated_ranges
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Batch, Signature
from pipeline.store.file_names import TFLITE_FILE

from ..results.recorder import ResultsRecorder
from .material import Material
from .unoptimized import Answer, Answers

_REFUSING = re.compile(r"\(node ([^()\s]+)\)$")


def is_no_row(format: str, answers: Answers, material: Material) -> bool:
    """Returns True if the checkpoint alone refuses a made-up row, and no candidate of this format can refuse it too.

    Kernels that are not TensorFlow's may answer an index beyond a table. A .pb answers what an op refuses that no .pb
    carries, such as the update of a variable that the outputs wait for. What an op refuses that the outputs are
    computed from, such as a check of the numbers, a .pb has to refuse too.
    """
    expected, actual = answers
    if not isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
        return False
    if FORMATS[format].edge_cases == "finite":
        return True
    refusing = _REFUSING.search(sentence_of(expected))
    if refusing is None or not material.carried_nodes:
        return False
    parts = refusing[1].split("/")  # inside a function, its calls stand before the node's own name
    return not any("/".join(parts[start:]) in material.carried_nodes for start in range(len(parts)))


def is_refused_by_both(answers: Answers) -> bool:
    """Returns True if both sides refuse a batch."""
    return all(isinstance(answer, RunnerError) for answer in answers)


def note_refused(recorder: ResultsRecorder, format: str, check: str, refused: Mapping[str, Answer], count: int) -> None:
    """Notes the made-up rows or batches that the checkpoint itself refuses.

    Args:
        refused: the errors by row or batch.
        count: of all rows or batches.
    """
    if refused:
        what = "rows" if check == "edge" else "batches"
        recorder.note(
            format,
            f"{check}: {len(refused)} of {count} {what} ({', '.join(refused)}) are none that this model takes, so they "
            f"prove nothing: {sentence_of(next(iter(refused.values())))}",
        )


def note_empty(recorder: ResultsRecorder, format: str, answers: Batch) -> None:
    """Notes outputs that have no elements for rows that were made up: nothing of them is compared."""
    empty = sorted(name for name, values in answers.items() if not values.size)
    if empty:
        recorder.note(
            format,
            f"equal: {', '.join(empty)} has no elements for the rows that were made up, as where a signal is shorter "
            "than its window, so nothing of it is compared: give rows of your own with --data",
        )


def sentence_of(answer: Answer) -> str:
    """Returns what a side says that refuses a batch."""
    return (answer.got or answer.what) if isinstance(answer, RunnerError) else ""


def ranges_of(candidate: SubprocessRunner, signature: Signature) -> dict[str, Range]:
    """Returns the ranges that a candidate was calibrated for, by input; empty if it is not quantized."""
    if FORMATS[candidate.format].model_file != TFLITE_FILE:
        return {}
    with suppress(OSError, ValueError, IndexError):  # what opens and can't be read here has no ranges to tell of
        found = calibrated_ranges(candidate.folder / TFLITE_FILE)
        names = {spec.name: spec.name if spec.name in found else spec.tensor_name for spec in signature.inputs}
        return {name: found[own] for name, own in names.items() if own in found}
    return {}


def note_beyond(
    recorder: ResultsRecorder, format: str, check: str, ranges: Mapping[str, Range], beyond: int, count: int
) -> str | None:
    """Notes the made-up rows that no quantized file can answer; returns why the check does not apply if all are so."""
    told = ", ".join(f"{name} from {low:.3g} to {high:.3g}" for name, (low, high) in ranges.items())
    if beyond and beyond == count:
        return f"all rows that were made up are beyond the range that {format} was calibrated for ({told})"
    if beyond:
        recorder.note(
            format,
            f"{check}: {beyond} of {count} made-up rows are beyond the range that {format} was calibrated for "
            f"({told}): it cuts their numbers off, and that is not held against it",
        )
    return None
