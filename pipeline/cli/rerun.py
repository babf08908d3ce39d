"""`python -m pipeline rerun FOLDER`: run the worst rows of a failed validation again."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import DataError, printable
from pipeline.store.file_names import VERDICT_FILE, WORST_FOLDER
from pipeline.validation.replay.feed import RowComparison, rerun

_TITLES = ("format", "check", "row", "output", "element", "reference", "candidate", "difference", "verdict")
_WIDTH = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="such as output/spam/validation/worst, or its parent")


def run(given: argparse.Namespace) -> int:
    """Run the rows again and print how the answers compare now.

    Returns:
        0 if all agree, or there are none because none failed; 1 if one still differs.

    Raises:
        DataError: the folder holds no worst rows, or an artifact is missing.
    """
    folder: Path = given.folder
    worst = folder / WORST_FOLDER if (folder / WORST_FOLDER).is_dir() else folder
    if (folder / VERDICT_FILE).is_file() and worst == folder:
        print(f"{folder}: this validation kept no rows, because none of its rows failed")
        return 0
    found = list(rerun(worst))
    if not found:
        raise DataError("no row to run again", where=worst)
    rows = [_TITLES, *(_cells(format, line) for format, line in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        print(printable("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
    differing = sum(not line.is_equal for _, line in found)
    print(f"{differing} of {len(found)} answers differ" if differing else f"all {len(found)} answers agree")
    return int(bool(differing))


def _cells(format: str, line: RowComparison) -> tuple[str, ...]:
    verdict = "agrees" if line.is_equal else "differs"
    cells = (line.row, line.output, line.element, line.reference, line.candidate, line.difference, verdict)
    return format, line.check, *(_shorten(cell) for cell in cells)


def _shorten(text: str) -> str:
    plain = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return plain if len(plain) <= _WIDTH else f"{plain[: _WIDTH - 1]}…"
