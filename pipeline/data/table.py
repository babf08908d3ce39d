"""Read the rows of a data file for the inputs of a signature, if no model's code reads it.

.npz, .npy                 an array `[rows, ...]` for each input, by name; optionally `labels`
.csv, other text           a table with a header: one column for an input with one value per row, columns `NAME_0`,
                           `NAME_1`, … for an input with several; optionally `labels`
.jsonl, .json, .parquet    rows with names; lists for inputs with several values
.tfrecord                  tf.Examples with a feature for each input; or, for one input of strings, the records
a folder                   images, or several files of one of these kinds

An input with one value for all rows may be that value in an .npz. Of inputs that are one value together, a row is such
a value; an .npz may hold a single one, as a model is fed it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.errors import DataError
from pipeline.signature import Array, Signature, TensorSpec, by_rows, shapes_fit, whole_inputs

from .columns import WHOLE, Columns, others, report
from .files import kind_of, read_columns
from .names import LABEL_NAMES, LABELS, advise_arrays, advise_columns, pair_arrays, pair_columns, require_names
from .npz import load_given_arrays, object_array
from .order import order_arrays, order_columns
from .values import array_of, labels_of, numpy_dtype

_OTHER_KINDS = ".jsonl, .parquet or .tfrecord"


def read_rows(path: Path, signature: Signature, is_part: bool = False) -> dict[str, Array]:
    """Read the rows of a data file or folder.

    Args:
        is_part: the file is one of several, so the names of its classes alone do not tell their numbers.

    Returns:
        By input name an array `[rows, ...]`; under `labels` the labels, if there are any.

    Raises:
        DataError: the file is missing, empty, or of another kind; an input is missing, or there are unknown names; a
            value does not have the dtype of its input.
    """
    kind = kind_of(path)
    if signature.is_whole and kind == "npz":
        return _read_whole(path, signature)
    own, signature = signature, by_rows(signature)
    if kind == "folder":
        from .images import is_folder_of_images, read_images

        rows = read_images(path, signature) if is_folder_of_images(path) else _read_parts(path, signature)
    elif kind in ("npz", "npy"):
        rows = _read_arrays(path, signature, is_part, {} if own.is_whole else _single_ranks(own))
    else:
        rows = _read_columns(read_columns(path), signature, is_part)
    if len({len(values) for values in rows.values()}) > 1:
        got = {name: len(values) for name, values in rows.items()}
        raise DataError("the arrays have different numbers of rows", where=path, got=got)
    if not any(map(len, rows.values())):
        raise DataError("the data has no rows", where=path, got="0 rows", wanted="at least one")
    return rows


def names_of_rows(path: Path) -> list[str]:
    """Return the names of the arrays of an `.npz`, or the columns of a table; none for other kinds."""
    kind = kind_of(path)
    if kind == "npz":
        return list(load_given_arrays(path))
    return [] if kind in ("folder", "npy") else list(read_columns(path).cells)


def _read_whole(path: Path, signature: Signature) -> dict[str, Array]:
    """Read inputs that are one value together: one such value, or several of one size, `[values, ...]`."""
    arrays = _read_arrays(path, signature, is_part=False)
    are_several = any(
        spec.shape is not None and arrays[spec.name].ndim == len(spec.shape) + 1 for spec in signature.inputs
    )
    rows = arrays if are_several else {name: values[np.newaxis] for name, values in arrays.items() if name != LABELS}
    for spec in signature.inputs:
        found, wanted = rows[spec.name].shape[1:], spec.shape
        if not shapes_fit(found, wanted) or len(rows[spec.name]) != len(next(iter(rows.values()))):
            raise DataError(
                "an input of the data has the wrong shape",
                where=f"{path}: {spec.name}",
                got=list(arrays[spec.name].shape),
                wanted=spec,
                next_step="The inputs are one value together: give one array for each, as the model is fed it",
            )
    return rows


def _read_parts(folder: Path, signature: Signature) -> dict[str, Array]:
    """Read the files of a folder one after the other, in the order of their names."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    kinds = {kind_of(path) for path in files}
    if len(kinds) != 1:
        raise DataError(
            "neither a folder of images nor of data files of one kind",
            where=folder,
            got=", ".join(path.name for path in files[:5]) or "no files",
            wanted=f"images, or only files of one kind: .csv, .npz, {_OTHER_KINDS}",
            next_step="Name one file with --data",
        )
    parts = [read_rows(path, signature, is_part=True) for path in files]
    names = {frozenset(part) for part in parts}
    sizes = {tuple(values.shape[1:] for _, values in sorted(part.items())) for part in parts}
    if len(names) != 1 or len(sizes) != 1:
        raise DataError("the files of the folder have rows of different sizes or names", where=folder)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _classes(signature: Signature) -> Sequence[str]:
    return () if signature.decision is None else signature.decision.labels


# Arrays


def _single_ranks(signature: Signature) -> dict[str, int]:
    """Return the ranks of inputs that have one value for all rows: a file may have that value once."""
    whole = whole_inputs(signature)
    return {spec.name: len(spec.shape or ()) for spec in signature.inputs if spec.name in whole}


def _read_arrays(
    path: Path, signature: Signature, is_part: bool, single: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Array]:
    """Read the arrays of a file.

    Args:
        single: the ranks of inputs that may be given as one value for all rows.
    """
    arrays = load_given_arrays(path)
    wanted = {spec.name: spec for spec in signature.inputs}
    if len(arrays) == len(wanted) == 1 and set(arrays) <= {WHOLE, "arr_0"}:  # an .npy, or NumPy's name for no name
        arrays = {next(iter(wanted)): next(iter(arrays.values()))}
    own = pair_arrays(path, signature.inputs, arrays, others())
    own = order_arrays(path, signature.inputs, {name: arrays[column] for name, column in own.items()}, own)
    arrays = {name: arrays[column] for name, column in own.items()}
    is_pickled = any(values.dtype == object for values in arrays.values())
    advice = advise_arrays(path, own, list(wanted), is_pickled)
    _name_labels(arrays, wanted)
    require_names(path, "arrays", arrays, wanted, advice)
    given = {name for name, rank in single.items() if arrays[name].ndim == rank}
    count = next((len(values) for name, values in arrays.items() if name not in given and values.ndim), 1)
    arrays |= {name: np.repeat(arrays[name][np.newaxis], count, axis=0) for name in given}
    for name, values in arrays.items():
        if not values.ndim and not signature.is_whole:
            raise DataError("an array has no rows", where=f"{path}: {name}", got="a single value", wanted="[rows, ...]")
    for name, spec in wanted.items():
        if spec.dtype == "string" and arrays[name].dtype.kind in "US":
            arrays[name] = _encode_texts(path, name, arrays[name])
    _require_dtypes(path, arrays, wanted, own)
    if LABELS in arrays and arrays[LABELS].dtype.kind in "OUS":
        labels = Columns(path, {LABELS: arrays[LABELS].tolist()}, range(1, len(arrays[LABELS]) + 1), "row")
        arrays[LABELS] = labels_of(labels, LABELS, _classes(signature), is_open=not is_part)
    return arrays


def _require_dtypes(
    path: Path, arrays: Mapping[str, Array], wanted: Mapping[str, TensorSpec], own: Mapping[str, str]
) -> None:
    """Check the dtypes of arrays; the message has one command for all that are wrong.

    Args:
        own: the arrays' names in the file, by those of the inputs.
    """
    found = {name: "string" if arrays[name].dtype == object else arrays[name].dtype.name for name in wanted}
    wrong = {name: got for name, got in found.items() if got != wanted[name].dtype.removeprefix("q")}
    if wrong:
        name, *others = wrong
        more = f"; and {', '.join(f'{other} {wrong[other]}' for other in others)}" if others else ""
        dtypes = {own.get(each, each): _dtype_name(wanted[each]) for each in wrong}
        raise DataError(
            "an input of the data has the wrong dtype",
            where=f"{path}: {name}",
            got=f"{wrong[name]}{more}",
            wanted=", ".join(str(wanted[each]) for each in wrong),
            next_step=_cast(path, dtypes),
        )


def _cast(path: Path, dtypes: Mapping[str, str]) -> str:
    """Return the command that writes a copy of an .npz with some arrays in other dtypes."""
    if path.suffix != ".npz":
        dtype = next(iter(dtypes.values()))
        return f"Write it as an array of {dtype}: array.astype({dtype!r})"
    copy = path.with_name(f"{path.stem}.{next(iter(dtypes.values())) if len(dtypes) == 1 else 'cast'}.npz")
    casts = "; ".join(f"rows[{name!r}] = rows[{name!r}].astype({dtype!r})" for name, dtype in dtypes.items())
    code = f"import numpy; rows = dict(numpy.load({str(path)!r})); {casts}; numpy.savez({str(copy)!r}, **rows)"
    return f"If that loses nothing that counts: python -c {shlex.quote(code)}, and name that file"


def _dtype_name(spec: TensorSpec) -> str:
    return "object" if spec.dtype == "string" else spec.dtype.removeprefix("q")


def _name_labels(arrays: dict[str, Array], inputs: Iterable[str]) -> None:
    if "label" in arrays and "label" not in inputs and LABELS not in arrays:
        arrays[LABELS] = arrays.pop("label")


def _encode_texts(path: Path, name: str, texts: Array) -> Array:
    """Return text and bytes of a fixed width as strings; the zero bytes at the end of such bytes are only padding."""
    width = texts.dtype.itemsize
    flat = [text.encode() if isinstance(text, str) else bytes(text) for text in texts.ravel().tolist()]
    if texts.dtype.kind == "S":
        shorter = [item for item in flat if len(item) < width]
        binary = sum(not _is_text(item) for item in shorter)
        if binary:
            raise DataError(
                "bytes of a fixed width lose the zero bytes at their end, so these rows may not be whole",
                where=f"{path}: {name}",
                got=f"{binary} of {len(flat)} rows that are no text and shorter than the width of {width} bytes",
                wanted="an array of objects",
                next_step=f"Write numpy.savez({path.name!r}, {name}=numpy.array(rows, object)), or a .tfrecord",
            )
        if shorter:
            report(path, f"{name} is bytes of a fixed width: zero bytes at the end of a text would not be in it")
    return object_array(flat).reshape(texts.shape)


def _is_text(item: bytes) -> bool:
    try:
        text = item.decode()
    except UnicodeDecodeError:
        return False
    return all(char >= " " or char in "\t\n\r" for char in text)


# Columns


def _read_columns(columns: Columns, signature: Signature, is_part: bool) -> dict[str, Array]:
    columns = pair_columns(columns, signature.inputs, others())
    columns = _as_named(order_columns(columns, signature.inputs), signature)
    names = {spec.name: _find_columns(columns, spec) for spec in signature.inputs}
    wanted = [column for found in names.values() for column in found]
    label = next((name for name in LABEL_NAMES if name in columns.cells and name not in wanted), None)
    if len(set(wanted)) < len(wanted) or (LABELS in wanted and LABELS in columns.cells):
        raise DataError(
            "two inputs would use the same column", where=columns.path, got=wanted, next_step="Give an .npz instead"
        )
    found = [LABELS if name == label else name for name in columns.cells]
    advice = advise_columns(columns, wanted, label)
    if columns.is_loose and set(wanted) <= set(found):
        if left_out := sorted(set(found) - {*wanted, LABELS}):
            report(columns.path, f"{', '.join(left_out)} {'is no input' if len(left_out) == 1 else 'are no inputs'}")
        found = [name for name in found if name in wanted]
    require_names(columns.path, "features" if columns.unit == "record" else "columns", found, wanted, advice)
    rows = {spec.name: _column(columns, spec, names[spec.name]) for spec in signature.inputs}
    if label is not None:
        try:
            rows[LABELS] = labels_of(columns, label, _classes(signature), is_open=not is_part)
        except DataError as exc:
            if not columns.is_loose:
                raise
            report(columns.path, f"{label} is left out: {exc}")
    return rows


def _as_named(columns: Columns, signature: Signature) -> Columns:
    """Give rows without names, or records that a graph parses itself, the name of the one input."""
    inputs = signature.inputs
    if list(columns.cells) == [WHOLE] and len(inputs) == 1:
        return replace(columns, cells={inputs[0].name: columns.cells[WHOLE]})
    has_features = all(spec.name in columns.cells for spec in inputs)
    is_one_string = len(inputs) == 1 and inputs[0].dtype == "string" and len(inputs[0].shape or (None,)) == 1
    if columns.unit != "record" or has_features or not is_one_string:
        return columns
    report(columns.path, f"each record is a row of {inputs[0].name}, for the graph to parse")
    labels = {name: columns.cells[name] for name in LABEL_NAMES if name in columns.cells}
    return replace(columns, cells={inputs[0].name: columns.cells[WHOLE], **labels})


def _find_columns(columns: Columns, spec: TensorSpec) -> list[str]:
    """Return the columns of an input: one of its name, or several `NAME_0`, `NAME_1`, …."""
    rank = 1 if spec.shape is None else len(spec.shape)
    is_text = bool(columns.separator)
    if rank == 1 or (spec.name in columns.cells and (not is_text or (spec.shape or ())[1:] in ((1,), (None,)))):
        return [spec.name]
    if not is_text and f"{spec.name}_0" not in columns.cells:
        return [spec.name]  # a list of values
    if spec.shape is None or rank != 2 or spec.dtype.startswith("complex"):
        raise DataError(
            "rows of this input do not fit a table",
            where=columns.path,
            got=spec,
            wanted="one value per row, or a list of values",
            next_step=f"Give an .npz instead, or {_OTHER_KINDS} with lists",
        )
    size = spec.shape[1]
    if size is None:  # all columns up to the first gap
        size = 1
        while f"{spec.name}_{size}" in columns.cells:
            size += 1
    return [f"{spec.name}_{index}" for index in range(size)]


def _column(columns: Columns, spec: TensorSpec, names: Sequence[str]) -> Array:
    shape = None if spec.shape is None else spec.shape[1:]
    if list(names) == [spec.name]:
        return array_of(columns, spec.name, spec.dtype, shape).astype(numpy_dtype(spec.dtype), copy=False)
    return np.stack([array_of(columns, name, spec.dtype) for name in names], axis=1)
