"""`results.csv` while it is written: a line for each candidate format, check, output and row."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.settings import FAILED, PASSED
from pipeline.signature import Array

from ..compare.weights import Weights

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


class ResultsFile:
    """The file, which is made with its header at once: no line at all is still a table.

    Args:
        path: a file that is not there yet.
        model: what stands in the column of that name.
        has_header: a part of such a file has none.
    """

    def __init__(self, path: Path, model: str, has_header: bool = True) -> None:
        self.path, self._model = path, model
        self._file = path.open("w", encoding="utf-8", newline="")
        # Floats are written by repr: the shortest text that gives the same float64 when it is read.
        self._writer = csv.writer(self._file, lineterminator="\n")
        if has_header:
            self._writer.writerow(COLUMNS)

    def write(self, format: str, check: str, columns: Mapping[str, Any], output: str = "") -> None:
        """Appends lines.

        Args:
            columns: the other columns by name, each a list of one length; None stands for an empty cell.
            output: what stands in that column, where `columns` has none.
        """
        constant = {"model": self._model, "format": format, "check": check, "output": output}
        cells = [columns[name] if name in columns else repeat(constant[name]) for name in COLUMNS]
        self._writer.writerows(zip(*cells, strict=False))

    def append(self, part: Path) -> None:
        """Appends the lines of another such file, one without a header."""
        self._file.flush()
        with part.open("rb") as file:
            shutil.copyfileobj(file, self._file.buffer)

    def flush(self) -> None:
        """Lets others read what was written so far."""
        self._file.flush()

    def close(self) -> None:
        """Ends the writing."""
        self._file.close()


def told_line(label: str, reference: str, candidate: str, has_passed: bool) -> dict[str, Any]:
    """A line on something other than values."""
    return {
        "row": label,
        "element": "",
        "reference": reference,
        "candidate": candidate,
        **dict.fromkeys(("abs_diff", "rel_diff", "ulp_diff"), ""),
        "verdict": PASSED if has_passed else FAILED,
    }


def weights_line(weights: Weights) -> dict[str, Any]:
    """A variable's line of results.csv: the first element that differs."""
    found, figures = weights.difference, largest_of(weights)
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


def largest_of(weights: Weights) -> tuple[float | None, float | None, float | None]:
    """A variable's largest absolute, relative and ulp difference; None for what has none."""
    if weights.difference is not None:
        return weights.difference.largest
    if weights.problem is not None or weights.dtype == "string":
        return None, None, None
    return 0.0, 0.0, 0.0 if "float" in weights.dtype or "complex" in weights.dtype else None


def with_rows(array: Array, rows: int) -> Array:
    """The array with the batch as its first dimension; an output that has none is one single row."""
    return array if array.ndim and len(array) == rows else array.reshape(1, *array.shape)


def element_labels(worst: Array, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [""] * len(worst)
    return [";".join(map(str, np.unravel_index(index, shape))) if index >= 0 else "" for index in worst]


def value_cells(values: Array | None, rows: int) -> list[Any]:
    if values is None:
        return [""] * rows
    if values.dtype.kind in "OSU":
        return [_text(value) for value in values]
    # Widened, a float's shortest text is exact for the original dtype and for float64 alike.
    return list((values.astype(np.float64) if values.dtype.kind in "fV" else values).tolist())


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def difference_cells(values: Array | None, reference: Array) -> list[Any]:
    is_measurable = values is not None and reference.dtype.kind not in "OSU"
    return values.tolist() if values is not None and is_measurable else [""] * len(reference)
