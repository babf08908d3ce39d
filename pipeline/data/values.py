"""Turn the cells of a column into an array of a dtype: exactly, or not at all."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.signature import Array, Shape

from .columns import Columns, report
from .npz import object_array
from .text import shorten

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
_WORDS = {"no": 0, "false": 0, "yes": 1, "true": 1}  # labels of two classes
_DECIMAL_COMMA = r"[+-]?\d*,\d+([eE][+-]?\d+)?|[+-]?\d+,([eE][+-]?\d+)?"
_THOUSANDS = r"[+-]?[1-9]\d{0,2}(,\d{3})+"


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return NumPy's dtype of a dtype of TensorFlow; `object` for strings."""
    plain = dtype.removeprefix("q") if "int" in dtype else dtype
    return np.dtype(object if dtype == "string" else getattr(ml_dtypes, plain, plain))


def array_of(columns: Columns, name: str, dtype: str, shape: Shape | None = ()) -> Array:
    """Turn a column into an array `[rows, ...]`.

    Args:
        dtype: TensorFlow's name of the dtype.
        shape: the shape of a row, None for open dimensions, to which a flat list of as many values is brought; None for
            any shape.

    Raises:
        DataError: a value is not of the dtype or shape, or is missing.
    """
    cells = columns.cells[name]
    kind = numpy_dtype(dtype)
    if not len(cells) or not isinstance(cells[0], list | np.ndarray):
        flat = _parse(columns, name, cells, range(len(columns)), dtype, kind)
        return flat.reshape(-1, *_fit(columns, name, (), 1, shape))
    block = _as_block(cells, kind)
    size = _size_of_rows(columns, name, cells) if block is None else block.shape[1:]
    count = math.prod(size)
    if block is None:
        rows = [row for row in range(len(cells)) for _ in range(count)]
        block = _parse(columns, name, [value for cell in cells for value in _leaves(cell)], rows, dtype, kind)
    return block.reshape(len(cells), *_fit(columns, name, size, count, shape))


def _as_block(cells: Sequence[Any], kind: np.dtype[Any]) -> Array | None:
    """Convert all numbers at once; None if they have to be looked at one by one, such as to name the wrong one."""
    try:
        block = np.asarray(cells)
    except (ValueError, TypeError, OverflowError):  # of different sizes, or no numbers
        return None
    is_whole = kind.kind in "iu"
    if block.dtype.kind not in ("iu" if is_whole else "iuf") or kind.kind in "ObSU":
        return None
    if is_whole and block.size and not (np.iinfo(kind).min <= block.min() and block.max() <= np.iinfo(kind).max):
        return None
    with np.errstate(over="ignore"):
        values = block.astype(kind)
    return values if is_whole or np.array_equal(np.isfinite(block), np.isfinite(values)) else None


def _size_of_rows(columns: Columns, name: str, cells: Sequence[Any]) -> tuple[int, ...]:
    """Return the size of each row, if all have the same."""
    first: tuple[int, ...] | None = None
    for row, cell in enumerate(cells):
        size = _shape(cell)
        first = size if row == 0 else first
        if size is None or size != first:
            raise DataError(
                f"{name} has values of different sizes",
                where=columns.where(row),
                got="lists of different lengths" if size is None else list(size),
                wanted=f"{list(first or ())}, as in the first row",
                next_step="Pad or cut the values to one size",
            )
    assert first is not None  # there is a row
    return first


def _shape(cell: Any) -> tuple[int, ...] | None:
    """Return the shape of nested lists; None if lists that stand side by side have different ones."""
    if not isinstance(cell, list | np.ndarray):
        return ()
    if isinstance(cell, np.ndarray):
        return tuple(cell.shape)
    inner = {_shape(part) for part in cell} or {()}
    only = inner.pop()
    return None if inner or only is None else (len(cell), *only)


def _leaves(cell: Any) -> list[Any]:
    if isinstance(cell, np.ndarray):
        return cell.ravel().tolist()
    return [leaf for part in cell for leaf in _leaves(part)] if isinstance(cell, list) else [cell]


def _fit(columns: Columns, name: str, size: tuple[int, ...], count: int, shape: Shape | None) -> tuple[int, ...]:
    """Return the shape of a row whose values are `count` in the shape `size`."""
    if shape is None:
        return size
    if not size and all(want in (None, 1) for want in shape):
        return (1,) * len(shape)
    if len(size) == len(shape) and all(want in (None, got) for want, got in zip(shape, size, strict=True)):
        return size
    known = math.prod(want for want in shape if want is not None)
    is_flat = len(size) == 1 and shape.count(None) <= 1 and known > 0
    if is_flat and (count % known == 0 if None in shape else count == known):
        return tuple(count // known if want is None else want for want in shape)
    raise DataError(
        f"{name} has another shape",
        where=columns.where(0),
        got=list(size),
        wanted=["?" if want is None else want for want in shape],
    )


def _parse(
    columns: Columns, name: str, cells: Sequence[Any], rows: Sequence[int], dtype: str, kind: np.dtype[Any]
) -> Array:
    if dtype == "string":
        return object_array([_bytes(columns, name, cell, row) for cell, row in zip(cells, rows, strict=True)])
    if dtype == "bool":
        return np.array([_truth(columns, name, cell, row) for cell, row in zip(cells, rows, strict=True)], bool)
    commas = _decimal_commas(columns, name, cells, rows) if kind.kind not in "iu" else False
    values = np.empty(len(cells), dtype=kind)
    for place, (cell, row) in enumerate(zip(cells, rows, strict=True)):
        try:
            with np.errstate(over="raise"):
                values[place] = _number(cell.replace(",", ".") if commas and isinstance(cell, str) else cell, kind)
        except (ValueError, TypeError, OverflowError, FloatingPointError) as exc:
            raise DataError(
                f"column {name} has a value that is not {dtype}",
                where=columns.where(row),
                got=shorten(cell) if isinstance(cell, str) else repr(cell),
                wanted=f"a number of {dtype}",
                next_step=_advice(cell),
            ) from exc
    return values


def _number(cell: Any, kind: np.dtype[Any]) -> Any:
    if isinstance(cell, str):
        text = cell.strip().replace("_", "x")  # Python reads 1_000
        if kind.kind == "c":
            return complex(text)
        return int(re.sub(r"\.0*$", "", text)) if kind.kind in "iu" else float(text)  # 3.0, as pandas writes it
    if cell is None or isinstance(cell, bool | bytes | list | dict):
        raise TypeError("not a number")
    if kind.kind in "iu" and cell != int(cell):
        raise ValueError("not a whole number")
    return int(cell) if kind.kind in "iu" else cell if kind.kind == "c" else float(cell)


def _advice(cell: Any) -> str | None:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "Fill the cell, or leave the row out"
    if isinstance(cell, str) and re.fullmatch(r"[+-]?[\d.]*,[\d.,]+", cell.strip()):
        return "Write a point as the decimal sign, and no sign between thousands"
    return None


def _decimal_commas(columns: Columns, name: str, cells: Sequence[Any], rows: Sequence[int]) -> bool:
    """Return True if the commas of a column are decimal signs, as in files whose cells other signs separate.

    Raises:
        DataError: they may as well stand between thousands.
    """
    if columns.separator in ("", ","):
        return False
    commas = [place for place, cell in enumerate(cells) if isinstance(cell, str) and "," in cell]
    if not commas or not all(re.fullmatch(_DECIMAL_COMMA, cells[place].strip()) for place in commas):
        return False
    if all(re.fullmatch(_THOUSANDS, cells[place].strip()) for place in commas):
        raise DataError(
            f"column {name} has commas that may be decimal signs or stand between thousands",
            where=columns.where(rows[commas[0]]),
            got=shorten(cells[commas[0]]),
            next_step=f"Where they are decimal signs: sed 's/,/./g' {shlex.quote(str(columns.path))} > points.csv, and "
            "name that file; where they stand between thousands, the same with 's/,//g'",
        )
    return True


def _bytes(columns: Columns, name: str, cell: Any, row: int) -> bytes:
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogatepass")
    if isinstance(cell, bytes):
        return cell
    raise DataError(
        f"column {name} has a value that is no text",
        where=columns.where(row),
        got=repr(cell),
        wanted="text, or bytes",
        next_step=_advice(cell),
    )


def _truth(columns: Columns, name: str, cell: Any, row: int) -> bool:
    known = _TRUTHS.get(str(cell).strip().lower()) if isinstance(cell, bool | int | str) else None
    if known is None:
        raise DataError(
            f"column {name} has a value that is not bool",
            where=columns.where(row),
            got=repr(cell),
            wanted="true, false, 1 or 0",
        )
    return known


def labels_of(columns: Columns, name: str, classes: Sequence[str] = (), is_open: bool = False) -> Array:
    """Turn a column of labels into the numbers of the classes, int64 `[rows]`.

    Args:
        classes: the names of the classes, by number.
        is_open: number other names in alphabetical order if there is no list of classes, and say so.

    Raises:
        DataError: a label is no class.
    """
    raw = [_single(cell) for cell in columns.cells[name]]
    texts = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in raw]
    cells = [cell.strip() if isinstance(cell, str) else cell for cell in texts]
    names = {label: number for number, label in enumerate(classes)}
    if not any(isinstance(cell, str) and cell in names and not _is_whole(cell) for cell in cells):
        words = [cell.lower() if isinstance(cell, str) else str(cell).lower() for cell in cells]
        if all(word in _WORDS for word in words):
            return np.array([_WORDS[word] for word in words], np.int64)
        if all(map(_is_whole, cells)):
            return _parse(columns, name, cells, range(len(cells)), "int64", np.dtype(np.int64))
        if not classes and is_open and all(isinstance(cell, str) and cell and not _is_whole(cell) for cell in cells):
            names = {label: number for number, label in enumerate(sorted(set(cells)))}
            numbered = ", ".join(f"{label} is {number}" for label, number in names.items())
            report(columns.path, f"there is no list of classes: labels are numbered by the alphabet, {numbered}")
    folded = {label.casefold(): number for label, number in names.items()}
    values = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        number = names.get(str(cell), folded.get(str(cell).casefold()))
        if number is None:
            raise _unknown_label(columns, name, row, cell, list(names))
        values[row] = number
    return values


def _single(cell: Any) -> Any:
    """Return the one value of a list; anything else as it is."""
    values = cell.tolist() if isinstance(cell, np.ndarray) else cell
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _is_whole(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(re.fullmatch(r"[+-]?\d+", cell))
    return isinstance(cell, int | np.integer) and not isinstance(cell, bool)


def _unknown_label(columns: Columns, name: str, row: int, cell: Any, names: Sequence[str]) -> DataError:
    if names:
        return DataError(
            f"column {name} has a value that is no class",
            where=columns.where(row),
            got=shorten(cell),
            wanted=f"one of {', '.join(names)}",
            next_step=nearest(str(cell), names),
        )
    return DataError(
        f"column {name} has a value that is not int64",
        where=columns.where(row),
        got=shorten(cell),
        wanted="a whole number for each class, or yes and no",
        next_step="Give the names of the classes in the order of their numbers: read_table(path, …, classes=[…])",
    )
