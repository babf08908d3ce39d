"""Read the rows of a data file for the inputs of a signature, if no model's code reads it.

    .npz          an array `[rows, ...]` for each input, by name; optionally `labels`
    other files   a CSV table with a header: one column for an input with one value per row, columns `NAME_0`, `NAME_1`,
                  … for an input with several; optionally `labels`, whole numbers

Strings are UTF-8. Cells of a table are used unchanged. An `.npz` may also hold strings as NumPy text or bytes of fixed
width, which lose zero bytes at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.signature import Array, Signature, TensorSpec

from .npz import load_arrays, object_array
from .readers import numbers_of, read_cells

LABELS = "labels"
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def read_rows(path: Path, signature: Signature) -> dict[str, Array]:
    """Read the rows of a data file.

    Returns:
        By input name an array `[rows, ...]`; under `labels` the labels, if there are any.

    Raises:
        DataError: the file is missing, empty, or of another kind; an input is missing, or there are unknown names; a
            value does not have the dtype of its input.
    """
    rows = _read_npz(path, signature) if path.suffix.lower() == ".npz" else _read_csv(path, signature)
    if len({len(values) for values in rows.values()}) > 1:
        got = {name: len(values) for name, values in rows.items()}
        raise DataError("the arrays have different numbers of rows", where=path, got=got)
    if not any(map(len, rows.values())):
        raise DataError("the data has no rows", where=path, got="0 rows", wanted="at least one")
    return rows


def _read_npz(path: Path, signature: Signature) -> dict[str, Array]:
    arrays = load_arrays(path)
    wanted = {spec.name: spec for spec in signature.inputs}
    _require_names(path, "arrays", arrays, wanted)
    for name, spec in wanted.items():
        if spec.dtype == "string" and arrays[name].dtype.kind in "US":
            arrays[name] = _encode_texts(arrays[name])
        got = "string" if arrays[name].dtype == object else arrays[name].dtype.name
        if got != spec.dtype:
            raise DataError("an input of the data has the wrong dtype", where=f"{path}: {name}", got=got, wanted=spec)
    for name, values in arrays.items():
        if not values.ndim:
            raise DataError("an array has no rows", where=f"{path}: {name}", got="a single value", wanted="[rows, ...]")
    return arrays


def _encode_texts(texts: Array) -> Array:
    flat = [text.encode() if isinstance(text, str) else bytes(text) for text in texts.ravel().tolist()]
    return object_array(flat).reshape(texts.shape)


def _require_names(path: Path, kind: str, found: Iterable[str], wanted: Iterable[str]) -> None:
    names, known = list(found), list(wanted)
    for name in known:
        if name not in names:
            raise DataError(
                "an input is missing in the data",
                where=path,
                got=f"no {name} among its {kind}",
                wanted=", ".join(known),
                next_step=nearest(name, names),
            )
    extra = sorted(set(names) - {*known, LABELS})
    if extra:
        raise DataError(
            f"the data has {kind} that are not inputs", where=path, got=", ".join(extra), wanted=", ".join(known)
        )


def _read_csv(path: Path, signature: Signature) -> dict[str, Array]:
    frame, lines = read_cells(path)
    cells = {str(name): frame[name].tolist() for name in frame.columns}
    columns = {spec.name: _find_columns(path, spec, cells) for spec in signature.inputs}
    wanted = [column for names in columns.values() for column in names]
    if len(set(wanted)) < len(wanted) or (LABELS in wanted and LABELS in cells):
        raise DataError(
            "two inputs would use the same column", where=path, got=wanted, next_step="Give an .npz instead"
        )
    _require_names(path, "columns", cells, wanted)
    rows = {}
    for spec in signature.inputs:
        values = [_parse_column(path, cells[column], lines, column, spec) for column in columns[spec.name]]
        rows[spec.name] = values[0] if columns[spec.name] == [spec.name] else np.stack(values, axis=1)
    if LABELS in cells:
        rows[LABELS] = numbers_of(path, cells[LABELS], lines, LABELS, "int64")
    return rows


def _find_columns(path: Path, spec: TensorSpec, cells: Mapping[str, list[str]]) -> list[str]:
    rank = 1 if spec.shape is None else len(spec.shape)
    if rank == 1:
        return [spec.name]
    if spec.shape is None or rank != 2 or spec.dtype.startswith("complex"):
        raise DataError(
            "rows of this input do not fit a table",
            where=path,
            got=spec,
            wanted="one value per row, or a list of values",
            next_step="Give an .npz instead",
        )
    size = spec.shape[1]
    if size is None:  # all columns up to the first gap
        size = 1
        while f"{spec.name}_{size}" in cells:
            size += 1
    return [f"{spec.name}_{index}" for index in range(size)]


def _parse_column(path: Path, cells: list[str], lines: list[int], column: str, spec: TensorSpec) -> Array:
    if spec.dtype == "string":
        return object_array([cell.encode() for cell in cells])
    if spec.dtype == "bool":
        return _parse_bools(path, cells, lines, column)
    dtype = spec.dtype.removeprefix("q") if "int" in spec.dtype else spec.dtype
    return numbers_of(path, [cell.strip() for cell in cells], lines, column, np.dtype(getattr(ml_dtypes, dtype, dtype)))


def _parse_bools(path: Path, cells: list[str], lines: list[int], column: str) -> Array:
    for cell, line in zip(cells, lines, strict=True):
        if cell.strip().lower() not in _TRUTHS:
            raise DataError(
                f"column {column} has a value that is not bool",
                where=f"{path}:{line}",
                got=repr(cell),
                wanted="true, false, 1 or 0",
            )
    return np.array([_TRUTHS[cell.strip().lower()] for cell in cells], dtype=bool)
