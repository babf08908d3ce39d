"""Read rows of JSON: an object on each line, or one list of objects, as TensorFlow Serving takes them."""

from __future__ import annotations

import base64
import binascii
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

from .columns import WHOLE, Columns
from .text import read_text, shorten


def read_json(path: Path) -> Columns:
    """Read an object for each row: one on each line, or a list of them, perhaps under the key `instances`.

    `{"b64": "…"}` stands for bytes, as in requests to TensorFlow Serving. Rows that are no objects have one value
    without a name.

    Raises:
        DataError: the file is missing, empty, not JSON, or the rows do not have the same names.
    """
    text = read_text(path)
    rows, places, unit = _rows(path, text)
    if not rows:
        raise DataError("the data has no rows", where=path, got="0 rows", wanted="at least one")
    if not all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        if any(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
            raise DataError("some rows are objects and some are not", where=path, wanted="an object for each row")
        return Columns(path, {WHOLE: [_value(path, row) for row in rows]}, places, unit)
    names = list(rows[0])
    columns = Columns(path, {}, places, unit)
    for number, row in enumerate(rows):
        if set(row) != set(names):
            raise DataError(
                "a row has other names than the first one",
                where=columns.where(number),
                got=", ".join(row),
                wanted=", ".join(names),
                next_step="Give each row the same names",
            )
    cells = {name: [_value(path, row[name]) for row in rows] for name in names}
    return Columns(path, cells, places, unit, is_loose=True)


def _rows(path: Path, text: str) -> tuple[list[Any], list[int], str]:
    """Return the rows, and where each is."""
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        whole = _parse(path, text, None)
        rows = whole.get("instances", whole) if isinstance(whole, dict) else whole
        if isinstance(rows, dict) and isinstance(rows.get("inputs"), dict):
            return _turned(path, rows["inputs"])
        if not isinstance(rows, list):
            raise DataError(
                "no list of rows",
                where=path,
                got=shorten(text),
                wanted='[{"NAME": VALUE, …}, …], or the same under "instances"',
                next_step="Name the file .jsonl if each line is an object",
            )
        return rows, list(range(1, len(rows) + 1)), "row"
    with suppress(ValueError, RecursionError):  # one text after all
        whole = json.loads(text)
        if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
            return whole, list(range(1, len(whole) + 1)), "row"
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [_parse(path, line, number) for number, line in lines], [number for number, _ in lines], "line"


def _turned(path: Path, columns: dict[str, Any]) -> tuple[list[Any], list[int], str]:
    """Return the rows of a request that has a list for each input."""
    counts = {name: len(values) if isinstance(values, list) else -1 for name, values in columns.items()}
    if len(set(counts.values())) != 1 or -1 in counts.values():
        raise DataError('the lists of "inputs" have different numbers of rows', where=path, got=counts)
    names = list(columns)
    rows: list[Any] = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, list(range(1, len(rows) + 1)), "row"


def _parse(path: Path, text: str, line: int | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        number = line if line is not None else getattr(exc, "lineno", 1)
        raise DataError(
            "not JSON",
            where=f"{path}:{number}",
            got=f"{exc} in {shorten(text)}" if line is not None else exc,
            wanted='an object on each line, {"NAME": VALUE, …}' if line is not None else "one JSON text",
            next_step="Correct the line"
            if line is not None
            else "Correct it; name the file .jsonl if each line is an object",
        ) from exc


def _value(path: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_value(path, part) for part in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as exc:
            raise DataError("not base64", where=path, got=shorten(value["b64"])) from exc
    return value
