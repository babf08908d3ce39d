"""Tell the kind of a data file, and read its rows as columns.

    .csv, other text    a table with a header; commas, or what its header is separated by
    .jsonl, .json       an object for each row
    .parquet            a table
    .tfrecord           tf.Examples

Kinds are recognized by their content where it tells, else by the name of the file.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError

from .columns import Columns
from .delimited import read_table_of_text
from .json_lines import read_json
from .parquet import read_parquet
from .text import is_record_file, read_start
from .tfrecord import read_examples_of

_JSON = (".jsonl", ".ndjson", ".json")


def kind_of(path: Path) -> str:
    """Return the kind of a data file: npz, npy, tfrecord, parquet, json, folder or text."""
    if path.is_dir():
        return "folder"
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".npz", ".npy")):
        return name[-3:]
    start = read_start(path)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if is_record_file(start) or name.endswith((".tfrecord", ".tfrecords")):
        return "tfrecord"
    if start.startswith(b"PAR1") or name.endswith((".parquet", ".pq")):
        return "parquet"
    return "json" if name.endswith(_JSON) else "text"


def read_columns(path: Path) -> Columns:
    """Read the rows of a file.

    Raises:
        DataError: the file is missing, empty, damaged, or no table.
    """
    kind = kind_of(path)
    if kind == "text":
        return read_table_of_text(path)
    if kind == "json":
        return read_json(path)
    if kind == "parquet":
        return read_parquet(path)
    if kind == "tfrecord":
        return read_examples_of(path)
    raise DataError(
        "not a file but a folder" if kind == "folder" else f"no table, but an .{kind}",
        where=path,
        wanted="a file with rows: .csv, .jsonl, .parquet or .tfrecord",
    )
