"""The list of a batch: a CSV file with a line for each model.

    name,checkpoint[,model,inputs,outputs,data,formats,…]

`name` is the folder of the model under the output root. A checkpoint with `*`, `?` or `[` is a pattern: each checkpoint
that it matches is a model, named by its path, after the line's name if there is one. Other columns are parameters of
the tasks, such as `warm_start` for `--warm-start`; an empty cell is a parameter that is not given. Paths are relative
to the file.
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
from pipeline.inputs import read_file, split_list
from pipeline.store.artifact import ArtifactPaths, is_url

from ..chain.job import folder_name, known_format
from ..chain.parameters import Parameters

REQUIRED = ("name", "checkpoint")
COLUMNS = tuple(item.name for item in fields(Parameters) if item.name != "output_root")
TABLES = "batch"  # the folder under the output root for the tables of batches
_PATHS = ("checkpoint", "graph_file", "candidate", "data", "warm_start")
_MAX_FAULTS = 50
_MAX_NAME_LENGTH = 100


@dataclass(frozen=True)
class Row:
    """A model of a batch.

    Args:
        line: the line of the list, from 1.
        checkpoint: as written in the list, or the match of its pattern.
    """

    line: int
    parameters: Parameters
    checkpoint: str

    @property
    def name(self) -> str:
        """The folder of the model under the output root."""
        return self.parameters.name


def read_list(path: Path, output_root: str, formats: str = "") -> list[Row]:
    """Read a list and check all of it.

    Args:
        formats: the formats of lines that name none.

    Returns:
        At least one row; the names differ by more than upper and lower case.

    Raises:
        DataError: the file cannot be read, or a line is wrong; the message names every fault with its line.
    """
    faults: list[str] = []
    rows: list[Row] = []
    # Absolute paths: workers run in other folders, and error sentences have to be the same.
    folder, root = path.absolute().parent, output_root if is_url(output_root) else str(Path(output_root).absolute())
    for line, cells in _lines(path):
        parameters = Parameters(**{**dict(cells), "output_root": root, "formats": cells.get("formats") or formats})
        try:
            found = list(_rows_of(line, _resolve_paths(parameters, folder), cells["checkpoint"]))
        except PipelineError as exc:
            faults.append(f"line {line}: {exc}")
            continue
        faults += [f"line {line}: {fault}" for row in found[:1] for fault in _find_faults(row)]
        rows += found
    faults += _find_duplicates(rows)
    if not rows and not faults:
        faults.append("there is no model in it")
    if faults:
        more = f"\n  and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise DataError(
            "the list is wrong; nothing was run:\n  " + "\n  ".join(faults[:_MAX_FAULTS]) + more, where=path
        )
    return rows


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the lines of the file, as cells by column."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except OSError as exc:
        raise DataError(
            "the list cannot be read", where=path, got=exc.strerror, next_step="Name a CSV file with --manifest"
        ) from exc
    except UnicodeDecodeError as exc:
        raise DataError("the list is not UTF-8 text", where=path, got=f"byte {exc.start}") from exc
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    "a line has another number of cells than the header",
                    where=f"{path}, line {reader.line_num}",
                    got=len(cells),
                    wanted=len(header),
                )
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as exc:
        raise DataError("the list is not CSV", where=f"{path}, line {reader.line_num}", got=exc) from exc


def _check_header(path: Path, header: list[str]) -> None:
    if "<" in "".join(header):
        raise DataError("this is HTML or XML, not CSV", where=f"{path}, line 1", wanted=",".join(REQUIRED) + ",…")
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


def _resolve_paths(parameters: Parameters, folder: Path) -> Parameters:
    """Resolve relative paths from the folder of the list, not from the working directory."""
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
    for path in paths:
        shown = path.removeprefix(folder)
        yield Row(
            line,
            replace(parameters, checkpoint=path, name=plain_name([parameters.name, *re.split(r"[/\\]+", shown)])),
            shown,
        )


def plain_name(parts: list[str]) -> str:
    """Make a folder name of a path: drop characters that are not allowed, and shorten a long name.

    Args:
        parts: the parts of the path; empty ones, `.` and `..` do not count.
    """
    whole = "-".join(part for part in parts if part not in ("", ".", ".."))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", whole).lstrip("._-")
    if name and name == whole and len(name) <= _MAX_NAME_LENGTH:
        return name
    # Different paths may look the same without these characters.
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{name[: _MAX_NAME_LENGTH - 13] or 'model'}-{digest}"


def _find_faults(row: Row) -> Iterator[str]:
    """Yield what is wrong with a line; its files are checked when it runs."""
    parameters = row.parameters
    if not parameters.checkpoint and not parameters.model:
        yield "neither a checkpoint nor a model"
    try:
        ArtifactPaths(Path(), row.name)
    except PipelineError as exc:
        yield f"name: {exc}"
    if row.name.casefold() == TABLES:
        yield f"name: {row.name} is the folder for the tables of batches"
    for format in split_list(parameters.formats):
        try:
            known_format("formats", format)
        except PipelineError as exc:
            yield str(exc)
    if parameters.formats and not split_list(parameters.formats):
        yield f"formats: none (wanted some of {', '.join(CANDIDATES)})"


def _find_duplicates(rows: list[Row]) -> list[str]:
    """Find names that are one folder on some file systems, because they differ only in case."""
    first: dict[str, Row] = {}
    faults = []
    for row in rows:
        before = first.setdefault(row.name.casefold(), row)
        if before is not row:
            of = f"line {before.line} has it" if before.line != row.line else "another checkpoint of this line has it"
            faults.append(f"line {row.line}: the name {row.name} is taken: {of}")
    return faults
