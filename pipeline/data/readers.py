"""Read data files as examples, and split them by a seed into training and validation rows.

A reader returns every row of its file, or raises a DataError that names the line.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.signature import Array, TensorSpec

from .columns import Columns
from .delimited import add_header, is_numbers, read_table_of_text
from .files import kind_of, read_columns
from .text import read_text, shorten
from .values import array_of, labels_of

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
    fractions = [_fraction(seed, key) for key in keys]
    mask = np.array([fraction < validation_share for fraction in fractions], dtype=bool)
    if mask.all() or not mask.any():
        raise DataError(
            "too few different rows to split into training and validation",
            got=f"{len(set(keys))} different rows of {len(examples)}",
            wanted=f"rows on both sides at a validation share of {validation_share}",
            next_step=_share_that_splits(fractions),
        )
    return examples.take(~mask), examples.take(mask)


def _share_that_splits(fractions: Sequence[float]) -> str:
    """Return what to do where one side would be empty: the share of validation rows at which none is."""
    lowest = sorted(set(fractions))[:2]
    if len(lowest) < 2:
        return "Add other rows"
    between = sum(lowest) / 2
    digits = next(digits for digits in range(1, 18) if lowest[0] < round(between, digits) <= lowest[1])
    return f"Add rows, or give --split-validation-share {round(between, digits)}"


def _fraction(seed: int, key: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _row_keys(examples: Examples) -> list[str]:
    return [
        repr(
            [
                value.tolist() if isinstance(value := values[row], np.ndarray | np.generic) else value
                for values in examples.inputs.values()
            ]
        )
        for row in range(len(examples))
    ]


def normalized(text: str) -> str:
    """Remove case, punctuation and repeated white space from a text, so that near-duplicates become equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()


def read_messages(path: Path) -> Examples:
    """Read labelled messages.

    A `.csv` file has a header, as `.jsonl`, `.parquet` and `.tfrecord` have names; the text and label columns are found
    by name, else by content. Any other file is tab-separated with a label and a text on each line, like the SMS Spam
    Collection; it needs no header.

    Returns:
        Input `text` (bytes, UTF-8, `[rows]`), labels int64 `[rows]` (0 ham, 1 spam), keys of the normalized texts.

    Raises:
        DataError: the file is missing, empty, no text, an HTML page, or a line is not a labelled message.
    """
    if kind_of(path) == "text" and not path.name.lower().removesuffix(".gz").endswith(".csv"):
        content = read_text(path)
        columns = _messages_of_lines(path, content)
        if columns is None:
            columns = read_table_of_text(path, content)
    else:
        columns = read_columns(path)
    text, label = _find_message_columns(columns)
    values = np.empty(len(columns), dtype=np.int64)
    for row, cell in enumerate(columns.cells[label]):
        known = _LABELS.get(_plain(cell).strip().lower())
        if known is None:
            raise DataError(
                "unknown label",
                where=columns.where(row),
                got=shorten(_plain(cell)),
                wanted=_LABELS_WANTED,
                next_step="Correct the line, or remove it",
            )
        values[row] = known
    encoded = array_of(columns, text, "string").reshape(-1)
    return Examples({"text": encoded}, values, [normalized(each.decode("utf-8", "replace")) for each in encoded])


def read_table(
    path: Path, inputs: Mapping[str, str], label: str | None = None, classes: Sequence[str] = ()
) -> Examples:
    """Read a table with a header (or a `.jsonl`, `.parquet` or `.tfrecord`) into one input per column.

    Args:
        inputs: dtype by column, such as `{"x": "int32", "comment": "string"}`; each becomes an input `[rows]` of that
            name; one `[rows, values]` if its cells are lists.
        label: the column of the labels (int64); None if there is none.
        classes: the names of the classes in the order of their numbers, if the labels may be names. Whole numbers, and
            yes and no, need none.

    Raises:
        DataError: the file is missing, empty, no text or an HTML page, a column is missing, or a cell is not a value of
            its dtype.
        ModelError: a dtype is unknown.
    """
    columns = read_columns(path)
    wanted = [*inputs, *([] if label is None else [label])]
    require_columns(columns, wanted)
    shape = (None,) if columns.unit != "line" or not columns.separator else ()
    arrays = {name: _table_column(columns, TensorSpec(name, dtype), shape) for name, dtype in inputs.items()}
    return Examples(arrays, None if label is None else labels_of(columns, label, classes))


def _table_column(columns: Columns, spec: TensorSpec, shape: tuple[None, ...]) -> Array:
    values = array_of(columns, spec.name, spec.dtype, shape)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def require_columns(columns: Columns, wanted: Sequence[str]) -> None:
    """Check that there is a column of each name.

    Raises:
        DataError: one is missing.
    """
    missing = [name for name in wanted if name not in columns.cells]
    if not missing:
        return
    found = list(columns.cells)
    advice = nearest(missing[0], found, "the data has")
    if columns.separator and is_numbers(found):
        command = add_header(columns.path, wanted, columns.separator)
        advice = f"The first line holds values. Write the names of the columns before them: {command}"
    raise DataError(
        f"no column named {', '.join(missing)}",
        where=columns.path,
        got=", ".join(found),
        wanted=", ".join(wanted),
        next_step=advice,
    )


def _messages_of_lines(path: Path, content: str) -> Columns | None:
    """Read a label, a tab and a text from each line; None if the first line is the header of a table."""
    texts, labels, numbers = list[str](), list[str](), list[int]()
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")  # quotes inside messages are not balanced
        if not numbers and _is_header(line):
            return None
        if len(fields) != 2:
            raise DataError(
                "a line is not a label, a tab and a text",
                where=f"{path}:{number}",
                got=f"{len(fields)} field{'s' * (len(fields) != 1)} in {shorten(line)}",
                wanted="2 fields",
                next_step="Correct the line, or name the file .csv if it has a header",
            )
        labels.append(fields[0])
        texts.append(fields[1])
        numbers.append(number)
    return Columns(path, {"label": labels, "text": texts}, numbers)


def _is_header(line: str) -> bool:
    """Return True if a line names both columns of messages."""
    names = {name.strip(' "\r').lower() for name in re.split(r"[,;\t|]", line)}
    return bool(names & set(_TEXT_COLUMNS)) and bool(names & set(_LABEL_COLUMNS))


def _find_message_columns(columns: Columns) -> tuple[str, str]:
    """Return the names of the columns with the texts and the labels."""
    named_label, named_text = _find_column(columns, _LABEL_COLUMNS), _find_column(columns, _TEXT_COLUMNS)
    label = named_label or _find_label_column(columns)
    text = named_text or _find_text_column(columns, label)
    _require_header(columns, label, named_text)
    if named_text is None:
        _require_texts(columns, label, text)
    if label is None or text is None or label == text:
        raise DataError(
            "no text and label columns found",
            where=columns.path,
            got=", ".join(columns.cells),
            wanted=f"a text column ({', '.join(_TEXT_COLUMNS)}) and a label column ({', '.join(_LABEL_COLUMNS)})",
            next_step="Rename the columns; or if these are no messages, name the model that reads them with --model",
        )
    return text, label


def _require_texts(columns: Columns, label: str | None, text: str | None) -> None:
    """Refuse a table in which nothing but numbers could be the texts."""
    candidates = [text] if text is not None else [name for name in columns.cells if name != label]
    if not candidates or not all(_is_numeric(columns, name) for name in candidates):
        return
    raise DataError(
        "these are no messages",
        where=columns.path,
        got=f"columns {', '.join(columns.cells)}, with nothing but numbers in {', '.join(candidates)}",
        wanted=f"a column of texts ({', '.join(_TEXT_COLUMNS)})",
        next_step="Name the model that reads these columns with --model; without it the model is spam",
    )


def _is_numeric(columns: Columns, name: str) -> bool:
    return is_numbers([_plain(cell) for cell in columns.cells[name]])


def _require_header(columns: Columns, label: str | None, named_text: str | None) -> None:
    """Refuse a table whose first line is a message: it would be lost as a header."""
    if not columns.separator:
        return
    first = label if label is not None and label.lower() in _LABELS else None
    if first is None and label is None:
        first = next((name for name in columns.cells if name.lower() in _LABELS), None)
    if first is None or named_text is not None:
        return
    words = {_plain(cell).strip().lower() for cell in columns.cells[first]}
    if first.lower() in _LABEL_COLUMNS and not words & {"ham", "spam"}:
        return  # a column named spam, of 0 and 1
    texts = [name for name in columns.cells if name != first and not _is_numeric(columns, name)]
    known = {first: "label", **({texts[0]: "text"} if len(texts) == 1 else {})}
    names = [known.get(name, f"column{number}") for number, name in enumerate(columns.cells, start=1)]
    command = add_header(columns.path, names, columns.separator)
    raise DataError(
        "the first line is a message, and not the names of the columns",
        where=f"{columns.path}:1",
        got=shorten(columns.separator.join(columns.cells)),
        wanted="a header, such as label,text",
        next_step=f"Write one before it: {command}, and name that file"
        if len(texts) == 1
        else "Write a line with the names of the columns before it",
    )


def _find_column(columns: Columns, names: Sequence[str]) -> str | None:
    found = {name.lower(): name for name in columns.cells}
    return next((found[name] for name in names if name in found), None)


def _find_label_column(columns: Columns) -> str | None:
    fits = [
        name for name, cells in columns.cells.items() if all(_plain(cell).strip().lower() in _LABELS for cell in cells)
    ]
    return fits[0] if len(fits) == 1 else None


def _find_text_column(columns: Columns, label: str | None) -> str | None:
    others = [name for name in columns.cells if name != label]
    return others[0] if len(others) == 1 else None


def _plain(cell: object) -> str:
    """Return the text of a cell, whatever kind of file it comes from."""
    if isinstance(cell, list | np.ndarray) and len(cell) == 1:
        return _plain(cell[0])
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
