"""Read data files as examples, and split them by a seed into training and validation rows.

A reader returns every row of its file, or raises a DataError that names the line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.inputs import read_file
from pipeline.signature import Array

from .npz import object_array

if TYPE_CHECKING:
    import pandas as pd


HAM, SPAM = 0, 1
_LABELS = {
    **dict.fromkeys(("ham", "0", "false", "no", "legit", "not spam", "not_spam"), HAM),
    **dict.fromkeys(("spam", "1", "true", "yes", "junk"), SPAM),
}
_LABELS_WANTED = "ham or spam (or 0/1, false/true, no/yes)"
_TEXT_COLUMNS = ("text", "message", "sms", "body", "content", "v2")
_LABEL_COLUMNS = ("label", "class", "category", "target", "is_spam", "spam", "v1")


@dataclass(frozen=True)
class Examples:
    """Rows of data for the inputs of a model.

    Args:
        inputs: by input name an array `[rows, ...]`; strings as `object` arrays of `bytes`.
        labels: `[rows]` or `[rows, ...]`; None if there are no labels.
        keys: one string per row; rows with equal keys are always on the same side of a split. The row's own bytes if
            None.

    Raises:
        DataError: the arrays do not have the same number of rows.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    keys: Sequence[str] | None = None

    def __post_init__(self) -> None:
        counts = {f"input {name}": len(values) for name, values in self.inputs.items()}
        if self.labels is not None:
            counts["labels"] = len(self.labels)
        if self.keys is not None:
            counts["keys"] = len(self.keys)
        if len(set(counts.values())) != 1:
            raise DataError("examples need the same number of rows everywhere", got=counts)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Array) -> Examples:
        """Return the examples at `rows` (int indices or a bool mask), in that order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Examples(
            {name: values[index] for name, values in self.inputs.items()},
            None if self.labels is None else self.labels[index],
            None if self.keys is None else [self.keys[int(i)] for i in index],
        )


def split(examples: Examples, seed: int, validation_share: float) -> tuple[Examples, Examples]:
    """Split examples into training and validation rows by a seeded hash of each row's key.

    The side of a row depends only on its key, the seed and the share: added or reordered rows do not move other rows.

    Args:
        validation_share: the share of validation rows, between 0 and 1, met on average.

    Returns:
        Training and validation examples, each in file order.

    Raises:
        DataError: one side would be empty.
    """
    keys = examples.keys if examples.keys is not None else _row_keys(examples)
    mask = np.array([_fraction(seed, key) < validation_share for key in keys], dtype=bool)
    if mask.all() or not mask.any():
        raise DataError(
            "too few different rows to split into training and validation",
            got=f"{len(set(keys))} different rows of {len(examples)}",
            wanted=f"rows on both sides at a validation share of {validation_share}",
            next_step="Add rows, or change [split] validation_share",
        )
    return examples.take(~mask), examples.take(mask)


def _fraction(seed: int, key: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _row_keys(examples: Examples) -> list[str]:
    return [
        repr([values[row].tolist() if values.dtype != object else values[row] for values in examples.inputs.values()])
        for row in range(len(examples))
    ]


def normalized(text: str) -> str:
    """Remove case, punctuation and repeated white space from a text, so that near-duplicates become equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()


def read_messages(path: Path) -> Examples:
    """Read labelled messages.

    A `.csv` file has a header; its text and label columns are found by name, else by content. Any other file is
    tab-separated without a header, with a label and a text on each line, like the SMS Spam Collection.

    Returns:
        Input `text` (bytes, UTF-8, `[rows]`), labels int64 `[rows]` (0 ham, 1 spam), keys of the normalized texts.

    Raises:
        DataError: the file is missing, empty, not UTF-8, an HTML page, or a line is not a labelled message.
    """
    if path.suffix.lower() == ".csv":
        texts, labels, lines = _csv_messages(path)
    else:
        texts, labels, lines = _tsv_messages(path)
    values = np.empty(len(labels), dtype=np.int64)
    for row, (label, line) in enumerate(zip(labels, lines, strict=True)):
        known = _LABELS.get(label.strip().lower())
        if known is None:
            raise DataError(
                "unknown label",
                where=f"{path}:{line}",
                got=_shorten(label),
                wanted=_LABELS_WANTED,
                next_step="Correct the line, or remove it",
            )
        values[row] = known
    encoded = object_array([text.encode() for text in texts])
    return Examples({"text": encoded}, values, [normalized(text) for text in texts])


def read_table(path: Path, inputs: Mapping[str, str], label: str | None = None) -> Examples:
    """Read a CSV file with a header into one numeric input per column.

    Args:
        inputs: dtype by column, such as `{"x": "int32"}`; each becomes an input `[rows]` of that name.
        label: the column of the labels (int64); None if there is none.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or an HTML page, a column is missing, or a
            cell is not a number of its dtype.
    """
    frame, lines = read_cells(path)
    wanted = {**inputs, **({} if label is None else {label: "int64"})}
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(
            f"no column named {', '.join(missing)}", where=path, got=", ".join(frame.columns), wanted=", ".join(wanted)
        )
    columns = {name: numbers_of(path, frame[name].tolist(), lines, name, dtype) for name, dtype in wanted.items()}
    labels = columns.pop(label) if label is not None else None
    return Examples(columns, labels)


def numbers_of(path: Path, cells: list[str], lines: list[int], name: str, dtype: np.dtype[Any] | str) -> Array:
    """Parse the numbers in the cells of a column.

    Args:
        lines: the line of each row, for error messages.
        name: the name of the column.

    Raises:
        DataError: a cell is not a number of the dtype.
    """
    kind = np.dtype(dtype)
    values = np.empty(len(cells), dtype=kind)
    for row, (cell, line) in enumerate(zip(cells, lines, strict=True)):
        try:
            with np.errstate(over="raise"):
                values[row] = int(cell.replace("_", "x")) if kind.kind in "iu" else float(cell.replace("_", "x"))
        except (ValueError, OverflowError, FloatingPointError) as exc:
            raise DataError(
                f"column {name} has a value that is not {dtype}",
                where=f"{path}:{line}",
                got=_shorten(cell),
                wanted=f"a number of {dtype}",
            ) from exc
    return values


def _tsv_messages(path: Path) -> tuple[list[str], list[str], list[int]]:
    texts, labels, numbers = [], [], []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.split("\t")  # quotes inside messages are not balanced
        if len(fields) != 2:
            raise DataError(
                "a line is not a label, a tab and a text",
                where=f"{path}:{number}",
                got=f"{len(fields)} field{'s' * (len(fields) != 1)} in {_shorten(line)}",
                wanted="2 fields",
                next_step="Correct the line, or name the file .csv if it has a header and commas",
            )
        labels.append(fields[0])
        texts.append(fields[1].rstrip("\r"))
        numbers.append(number)
    return texts, labels, numbers


def _csv_messages(path: Path) -> tuple[list[str], list[str], list[int]]:
    frame, lines = read_cells(path)
    label = _find_column(frame, _LABEL_COLUMNS) or _find_label_column(frame)
    text = _find_column(frame, _TEXT_COLUMNS) or _find_text_column(frame, label)
    if label is None or text is None or label == text:
        raise DataError(
            "no text and label columns found",
            where=path,
            got=", ".join(frame.columns),
            wanted=f"a text column ({', '.join(_TEXT_COLUMNS)}) and a label column ({', '.join(_LABEL_COLUMNS)})",
            next_step="Rename the columns",
        )
    return frame[text].tolist(), frame[label].tolist(), lines


def read_cells(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """Read the cells of a CSV file as strings by column, and the line on which each row starts.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or an HTML page; a quote is not closed, a column is named
            twice, or a row is not as long as the header.
    """
    import pandas as pd

    # The reader of pandas shortens a first row that is too long, fills one that is too short, and accepts a quote that
    # opens in one row and closes in another.
    text = _read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default limit of a cell is 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines, last = [], [], 0
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                rows.append(row)
                lines.append(last + 1)
            last = reader.line_num
    except csv.Error as exc:
        raise DataError(
            "not a CSV table", where=f"{path}:{last + 1}", got=exc, wanted="quotes that are closed"
        ) from exc
    if len(rows) < 2:
        raise DataError("the table has a header but no rows", where=path, got="0 rows", wanted="at least one")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) != len(header):
        raise DataError("a column is named twice", where=f"{path}:{lines[0]}", got=", ".join(header))
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                "a row is not as long as the header",
                where=f"{path}:{line}",
                got=f"{len(row)} cells",
                wanted=f"{len(header)}",
                next_step="Correct the line; a cell with a comma must be in quotes",
            )
    return pd.DataFrame(rows[1:], columns=header, dtype=str), lines[1:]


def _find_column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    found = {str(name).lower(): str(name) for name in frame.columns}
    return next((found[name] for name in names if name in found), None)


def _find_label_column(frame: pd.DataFrame) -> str | None:
    fits = [str(name) for name in frame.columns if frame[name].str.strip().str.lower().isin(list(_LABELS)).all()]
    return fits[0] if len(fits) == 1 else None


def _find_text_column(frame: pd.DataFrame, label: str | None) -> str | None:
    others = [str(name) for name in frame.columns if name != label]
    return others[0] if len(others) == 1 else None


def _read_text(path: Path) -> str:
    """Read a file that must be UTF-8 text and not empty."""
    if not path.exists():
        raise DataError("no such file", where=path, next_step="Give the data file with --data")
    try:
        raw = read_file(path)
    except OSError as exc:
        raise DataError("the file cannot be read", where=path, got=exc.strerror) from exc
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        # `exc.object`, not `raw`: the codec counts from behind a byte order mark.
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise DataError(
            "not UTF-8 text",
            where=f"{path}:{line}",
            got=f"byte 0x{exc.object[exc.start]:02x}",
            wanted="UTF-8",
            next_step="Convert the file, for example with iconv",
        ) from exc
    if not text.strip():
        raise DataError("the file is empty", where=path, got=f"{len(raw)} bytes", wanted="at least one row")
    if re.match(r"\s*<(!doctype|html|head|\?xml)", text, re.IGNORECASE):
        raise DataError(
            "an HTML page, not a table", where=f"{path}:1", got=_shorten(text), next_step="Download the file itself"
        )
    return text


def _shorten(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    return repr(line if len(line) <= 60 else line[:57] + "...")
