"""`results.csv` while it is written: a line for each candidate format, check, output and row."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

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
