"""The list of a batch: a CSV file with a line for each model.

    name,checkpoint[,model,inputs,outputs,data,formats,…]

`name` is the model's folder under the output root. A checkpoint with `*`, `?` or `[` stands for every checkpoint that
it matches, named by their paths, behind the line's name if it has one. Further columns are parameters of the tasks by
their names, `warm_start` for `--warm-start`; an empty cell is one that is not given. Paths are relative to the file.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from glob import glob, has_magic
from pathlib import Path

from pipeline.errors import DataError, PipelineError, nearest
from pipeline.formats.registry import CANDIDATES
from pipeline.settings import split_list
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.remote import is_url

from ..chain.job import folder_name, known_format
from ..chain.parameters import Parameters

REQUIRED = ("name", "checkpoint")
COLUMNS = tuple(item.name for item in fields(Parameters) if item.name != "output_root")
TABLES = "batch"  # the folder under the output root where the tables of batches are
_PATHS = ("checkpoint", "graph_file", "candidate", "data", "warm_start")
_MOST_FAULTS = 50
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Row:
    """A model of a batch.

    Args:
        line: the line of the list that it stands in, from 1.
        checkpoint: as the list has it, or the match of its pattern.
    """

    line: int
    parameters: Parameters
    checkpoint: str

    @property
    def name(self) -> str:
        """The model's folder under the output root."""
        return self.parameters.name


def read_list(path: Path, output_root: str, formats: str = "") -> list[Row]:
    """Reads a list and checks all of it.

    Args:
        formats: those of lines that name none.

    Returns:
        At least one row; names differ, whatever their case.

    Raises:
        DataError: the file is missing or unreadable, or a line is not right; every fault is named with its line.
    """
    faults: list[str] = []
    rows: list[Row] = []
    # Whoever works on a model, and from whichever folder, finds it; and sentences on it are the same.
    folder, root = path.absolute().parent, output_root if is_url(output_root) else str(Path(output_root).absolute())
    for line, cells in _lines(path):
        parameters = Parameters(**{**dict(cells), "output_root": root, "formats": cells.get("formats") or formats})
        try:
            found = list(_rows_of(line, _with_paths(parameters, folder), cells["checkpoint"]))
        except PipelineError as exc:
            faults.append(f"line {line}: {exc}")
            continue
        faults += [f"line {line}: {fault}" for row in found[:1] for fault in _faults_of(row)]
        rows += found
    faults += _doubled(rows)
    if not rows and not faults:
        faults.append("there is no model in it")
    if faults:
        more = f"\n  and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise DataError(
            "the list is not right; nothing was run:\n  " + "\n  ".join(faults[:_MOST_FAULTS]) + more, where=path
        )
    return rows


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The lines of the file, as cells by column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise DataError(
            "the list cannot be read", where=path, got=exc.strerror, next_step="Name a CSV file with --manifest"
        ) from exc
    except UnicodeDecodeError as exc:
        raise DataError("the list is no text in UTF-8", where=path, got=f"byte {exc.start}") from exc
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    "a line has not as many cells as the header",
                    where=f"{path}, line {reader.line_num}",
                    got=len(cells),
                    wanted=len(header),
                )
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as exc:
        raise DataError("the list is no CSV", where=f"{path}, line {reader.line_num}", got=exc) from exc


def _check_header(path: Path, header: list[str]) -> None:
    if "<" in "".join(header):
        raise DataError(
            "this is a page of HTML or XML, not CSV", where=f"{path}, line 1", wanted=",".join(REQUIRED) + ",…"
        )
    faults = [f"the column {name} is missing" for name in REQUIRED if name not in header]
    faults += [f"unknown column {name!r}: {nearest(name, COLUMNS)}" for name in header if name not in COLUMNS]
    faults += [f"the column {name} is there twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    if faults:
        raise DataError(
            "; ".join(faults),
            where=f"{path}, line 1",
            got=",".join(header)[:200] or "nothing",
            wanted="name,checkpoint",
        )


def _with_paths(parameters: Parameters, folder: Path) -> Parameters:
    """Relative paths are the file's, not those of wherever it is run."""
    given = {name: getattr(parameters, name) for name in _PATHS}
    return replace(parameters, **{name: str(folder / value) for name, value in given.items() if value})


def _rows_of(line: int, parameters: Parameters, pattern: str) -> Iterator[Row]:
    if not has_magic(pattern) or Path(parameters.checkpoint).exists():
        own = folder_name(parameters.checkpoint) if parameters.checkpoint and not parameters.model else ""
        yield Row(line, replace(parameters, name=parameters.name or own or parameters.model), pattern)
        return
    suffix = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")  # the files of a checkpoint share what is before it
    paths = sorted({suffix.sub("", place) for place in glob(parameters.checkpoint, recursive=True)})
    if not paths:
        raise DataError("no file matches", where=f"checkpoint {pattern}", wanted="at least one")
    folder = parameters.checkpoint.removesuffix(pattern)
    for place in paths:
        shown = place.removeprefix(folder)
        yield Row(
            line,
            replace(parameters, checkpoint=place, name=plain_name([parameters.name, *re.split(r"[/\\]+", shown)])),
            shown,
        )


def plain_name(parts: list[str]) -> str:
    """A folder's name that tells a path: what may not stand in one is left out, and a long one is shortened.

    Args:
        parts: of the path; empty ones and those that lead up do not count.
    """
    whole = "-".join(part for part in parts if part not in ("", ".", ".."))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", whole).lstrip("._-")
    if name and name == whole and len(name) <= _LONGEST_NAME:
        return name
    # Another path may look the same without them.
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{name[: _LONGEST_NAME - 13] or 'model'}-{digest}"


def _faults_of(row: Row) -> Iterator[str]:
    """What is wrong with a line in itself; whether its files are any good is seen when it runs."""
    parameters = row.parameters
    if not parameters.checkpoint and not parameters.model:
        yield "neither a checkpoint nor a model"
    try:
        ArtifactPaths(Path(), row.name)
    except PipelineError as exc:
        yield f"name: {exc}"
    if row.name.casefold() == TABLES:
        yield f"name: {row.name} is where the tables of batches are"
    for format in split_list(parameters.formats):
        try:
            known_format("formats", format)
        except PipelineError as exc:
            yield str(exc)
    if parameters.formats and not split_list(parameters.formats):
        yield f"formats: none (wanted some of {', '.join(CANDIDATES)})"


def _doubled(rows: list[Row]) -> list[str]:
    """Names that differ in their case alone would be one folder on some file systems."""
    first: dict[str, Row] = {}
    faults = []
    for row in rows:
        before = first.setdefault(row.name.casefold(), row)
        if before is not row:
            of = f"line {before.line} has it" if before.line != row.line else "another checkpoint of this line has it"
            faults.append(f"line {row.line}: the name {row.name} is taken: {of}")
    return faults
