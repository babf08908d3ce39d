"""Read tables of text: comma-separated, or as Excel writes them where the comma is the decimal sign."""

from __future__ import annotations

import codecs
import csv
import io
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import DataError

from .columns import Columns, option, report
from .text import UTF_16, read_start, read_text

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
_NUMBER = r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?"


def read_table_of_text(path: Path, text: str | None = None) -> Columns:
    """Read a table with a header as columns of text, with the line on which each row starts.

    Args:
        text: the text of the file, if it was read before.

    Raises:
        DataError: the file is missing, empty, not text or an HTML page; a quote is not closed, a column is named
            twice, or a row is not as long as the header.
    """
    text = read_text(path) if text is None else text
    text, declared = _without_declaration(text)
    given = option("separator") or declared
    separators = [given] if given else _separators_of_header(text)
    problem: DataError | None = None
    for separator in separators:
        try:
            columns = _read_cells(path, text, separator)
        except DataError as exc:
            problem = problem or exc
        else:
            if not given and separator != ",":
                report(path, f"its cells are separated by {_NAMES[separator]}, as its header is")
            return columns
    assert problem is not None  # there is a separator
    raise problem


def _read_cells(path: Path, text: str, separator: str) -> Columns:
    # The reader of pandas shortens a first row that is too long, fills one that is too short, and accepts a quote that
    # opens in one row and closes in another.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default limit of a cell is 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines, last = [], [], 0
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                rows.append(row)
                lines.append(last + 1)
            last = reader.line_num
    except csv.Error as exc:
        raise DataError(
            "not a CSV table",
            where=f"{path}:{last + 1}",
            got=exc,
            wanted="quotes that are closed",
            next_step='Close the quote; a quote inside of a cell is written twice ("")',
        ) from exc
    _drop_phantoms(path, rows, lines)
    header = [name.strip() for name in rows[0]] if rows else []
    if len(rows) < 2:
        raise DataError("the table has a header but no rows", where=path, got="0 rows", wanted="at least one")
    if len(set(header)) != len(header):
        raise DataError(
            "a column is named twice", where=f"{path}:{lines[0]}", got=", ".join(header), next_step=_first_line(rows[0])
        )
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise _of_another_length(path, line, row, header, separator)
    cells = list(zip(*rows[1:], strict=True))
    return Columns(path, dict(zip(header, cells, strict=True)), lines[1:], separator=separator)


def _drop_phantoms(path: Path, rows: list[list[str]], lines: list[int]) -> None:
    """Take out what programs add to a table: empty rows at its end, empty columns, the numbers of its rows (pandas)."""
    while len(rows) > 1 and len(rows[-1]) > 1 and not any(cell.strip() for cell in rows[-1]):
        del rows[-1], lines[-1]
    if len({len(row) for row in rows}) != 1 or len(rows) < 2:
        return
    nameless = [place for place, name in enumerate(rows[0]) if not name.strip()]
    empty = [place for place in nameless if not any(row[place].strip() for row in rows[1:])]
    if nameless[:1] == [0] and all(row[0] == str(number) for number, row in enumerate(rows[1:])):
        empty.insert(0, 0)
        report(path, "its first column has no name, and numbers the rows: it is left out")
    if empty and len(empty) < len(rows[0]):
        rows[:] = [[cell for place, cell in enumerate(row) if place not in empty] for row in rows]


def _without_declaration(text: str) -> tuple[str, str | None]:
    """Take out a first line `sep=;`, which Excel reads and writes; an empty line stays, so lines keep their numbers."""
    found = re.match(r'"?sep=(.)"?\r?(?=\n)', text)
    return (text[found.end() :], found[1]) if found else (text, None)


def _separators_of_header(text: str) -> list[str]:
    """Return what may separate the names in the header, outside of quotes; a comma first."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return [sign for sign in (",", ";", "\t", "|") if sign in bare] or [","]


def _of_another_length(path: Path, line: int, row: Sequence[str], header: Sequence[str], separator: str) -> DataError:
    name = _NAMES.get(separator, repr(separator))
    others = [sign for sign in _NAMES if sign not in (separator, " ") and sign in "".join(row)]
    advice = f"Correct the line; a cell with {'a comma' if separator == ',' else name} must be in quotes"
    if len(header) == 1 and others:
        advice += f". If {_NAMES[others[0]]} separate the cells: --data-separator {_NAMES[others[0]].rstrip('s')}"
    return DataError(
        "a row is not as long as the header",
        where=f"{path}:{line}",
        got=f"{len(row)} cell{'s' * (len(row) != 1)} between {name}",
        wanted=f"{len(header)}",
        next_step=advice,
    )


def _first_line(row: Sequence[str]) -> str:
    if is_numbers(row):
        return "The first line holds values: write a line with the names of the columns before it"
    return "Rename one of them"


def is_numbers(cells: Sequence[str]) -> bool:
    """Return True if all cells are numbers."""
    return all(re.fullmatch(_NUMBER, cell.strip()) for cell in cells)


def add_header(path: Path, names: Sequence[str], separator: str) -> str:
    """Return the command that writes a copy of a file with a header, as UTF-8."""
    header = (separator or ",").join(names)
    copy, start = shlex.quote(f"{path.stem}.named{path.suffix}"), read_start(path, 3)
    place = shlex.quote(str(path))
    content = f"tail -c +4 {place}" if start == codecs.BOM_UTF8 else f"cat {place}"
    if start[:2] in UTF_16:
        content = f"iconv -f UTF-16 -t UTF-8 {place}"
    return f"(printf '%s\\n' {shlex.quote(header)}; {content}) > {copy}"
