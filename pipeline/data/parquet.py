"""Read Parquet files; their library is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.inputs import open_file

from .columns import CellsOnDemand, Columns


def read_parquet(path: Path) -> Columns:
    """Read a Parquet file; a column is read when it is asked for.

    Raises:
        DataError: the file is missing, damaged, has no rows, or PyArrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise DataError(
            "what reads Parquet is not installed",
            where=path,
            got=exc,
            next_step="install it with pip install 'freeze-pipeline[parquet]', or write the rows as .jsonl or .npz",
        ) from exc
    try:
        with open_file(path) as file:
            metadata = parquet.ParquetFile(file).metadata
            names = list(parquet.ParquetFile(file).schema_arrow.names)
    except (OSError, ValueError) as exc:
        raise DataError("no readable Parquet file", where=path, got=exc, next_step="Copy it again") from exc
    if not metadata.num_rows:
        raise DataError("the data has no rows", where=path, got="0 rows", wanted="at least one")
    return Columns(path, _Cells(path, names), range(1, metadata.num_rows + 1), "row", is_loose=True)


class _Cells(CellsOnDemand):
    """The columns of a file by name, read one by one."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._names:
            raise KeyError(name)
        from pyarrow import parquet

        try:
            with open_file(self._path) as file:
                cells: list[Any] = parquet.ParquetFile(file).read(columns=[name]).column(0).to_pylist()
        except (OSError, ValueError) as exc:
            raise DataError("no readable Parquet file", where=f"{self._path}: {name}", got=exc) from exc
        return cells
