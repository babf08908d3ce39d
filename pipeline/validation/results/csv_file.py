"""Writes `results.csv`: a line for each candidate format, check, output and row.

Texts are written as `pipeline.report.csv_cells` says: a spreadsheet that opens the file runs nothing.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.csv_cells import write_cell, write_cells
from pipeline.settings import FAILED, PASSED
from pipeline.signature import Array

from ..compare.weights import VariableComparison

_PLACE = ("model", "format", "check", "output", "row", "element")
COLUMNS = [*_PLACE, "reference", "candidate", "abs_diff", "rel_diff", "ulp_diff", "verdict", "runtime"]


class ResultsFile:
    """File `results.csv`, created with its header at once, so that it is a valid table even without lines.

    Args:
        path: the file to create.
        model: value of the column `model`.
        has_header: False for a part that is appended to another file.
    """

    def __init__(self, path: Path, model: str, has_header: bool = True) -> None:
        self.path, self._model = path, model
        self._file = path.open("w", encoding="utf-8", newline="")
        # csv writes floats by repr: the shortest text that is read as the same float64.
        self._writer = csv.writer(self._file, lineterminator="\n")
        if has_header:
            self._writer.writerow(COLUMNS)

    def write(self, format: str, check: str, columns: Mapping[str, Any], output: str = "", runtime: str = "") -> None:
        """Appends lines.

        Args:
            columns: the other columns by name, lists of one length; None for an empty cell.
            output: value of the column `output`, if `columns` lacks it.
            runtime: value of the column `runtime`: the other runtime that the candidate ran in.
        """
        constant = {"model": self._model, "format": format, "check": check, "output": output, "runtime": runtime}
        cells = [
            write_cells(columns[name]) if name in columns else repeat(write_cell(constant[name])) for name in COLUMNS
        ]
        self._writer.writerows(zip(*cells, strict=False))

    def append(self, part: Path) -> None:
        """Appends the lines of a part, a file without a header."""
        self._file.flush()
        with part.open("rb") as file:
            shutil.copyfileobj(file, self._file.buffer)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def text_line(label: str, reference: str, candidate: str, has_passed: bool) -> dict[str, Any]:
    """Builds a line that holds texts instead of values."""
    return {
        "row": label,
        "element": "",
        "reference": reference,
        "candidate": candidate,
        **dict.fromkeys(("abs_diff", "rel_diff", "ulp_diff"), ""),
        "verdict": PASSED if has_passed else FAILED,
    }


def variable_line(variable: VariableComparison) -> dict[str, Any]:
    """Builds a variable's line: the first element that differs."""
    found, figures = variable.difference, largest_differences(variable)
    measured = found.figures if found else figures
    return {
        "output": variable.name,
        "row": "weights",
        "element": found.first if found else "",
        "reference": found.reference if found else "",
        "candidate": found.candidate if found else variable.problem or "",
        **{
            column: "" if value is None else value
            for column, value in zip(("abs_diff", "rel_diff", "ulp_diff"), measured, strict=True)
        },
        "verdict": PASSED if variable.is_equal else FAILED,
    }


def largest_differences(variable: VariableComparison) -> tuple[float | None, float | None, float | None]:
    """Returns a variable's largest absolute, relative and ulp difference; None where undefined."""
    if variable.difference is not None:
        return variable.difference.largest
    if variable.problem is not None or variable.dtype == "string":
        return None, None, None
    return 0.0, 0.0, 0.0 if "float" in variable.dtype or "complex" in variable.dtype else None


def with_rows(array: Array, rows: int) -> Array:
    """Returns the array with rows as its first dimension; an output without rows becomes a single row."""
    return array if array.ndim and len(array) == rows else array.reshape(1, *array.shape)


def element_labels(worst: Array, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [""] * len(worst)
    return [";".join(map(str, np.unravel_index(index, shape))) if index >= 0 else "" for index in worst]


def value_cells(values: Array | None, rows: int) -> list[Any]:
    if values is None:
        return [""] * rows
    if values.dtype.kind in "OSU":
        return [
            value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value) for value in values
        ]
    # Widened to float64, the shortest text is exact for the original dtype and for float64.
    return list((values.astype(np.float64) if values.dtype.kind in "fV" else values).tolist())


def difference_cells(values: Array | None, reference: Array) -> list[Any]:
    is_measurable = values is not None and reference.dtype.kind not in "OSU"
    return values.tolist() if values is not None and is_measurable else [""] * len(reference)
