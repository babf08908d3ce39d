"""Pair the names in a data file with the outputs of one node, such as a data set's iterator, which have only numbers.

tf.data gives a dictionary in the sorted order of its keys (`tf.nest.flatten`, as `tf.train.batch` does), so the sorted
names of the file are the outputs, one by one, if each has the dtype and shape of its own. The names of a tuple are
unknown: its order may be that of the file. Where both orders fit, only the user knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from pipeline.errors import DataError
from pipeline.signature import Array, TensorSpec, shapes_fit

from .columns import Columns, report
from .names import LABEL_NAMES, LABELS, Renamed, copy_arrays, copy_columns
from .values import array_of

# Says why a file's values are not those of an input, or nothing; and the command that writes them under other names.
Misfit: TypeAlias = Callable[[str, TensorSpec], str]
Copy: TypeAlias = Callable[[Mapping[str, str]], str]


def order_arrays(
    path: Path, inputs: Sequence[TensorSpec], arrays: Mapping[str, Array], own: Mapping[str, str]
) -> dict[str, str]:
    """Return the names of a file's arrays by those that the inputs have, with the outputs of one node by their order.

    Args:
        arrays: by their names so far.
        own: the names in the file, by the same names.

    Raises:
        DataError: which array is which output is not clear.
    """
    outputs = _numbered_outputs(inputs, own)
    names = _free(inputs, own)
    if not outputs:
        return dict(own)
    kept = [*(spec.name for spec in inputs), *LABEL_NAMES]
    others = {LABELS if name in LABEL_NAMES else name: own[name] for name in kept if name in own}
    pickled = any(values.dtype == object for values in arrays.values())

    def copy(pairs: Mapping[str, str]) -> str:
        return copy_arrays(path, {name: own[one] for name, one in pairs.items()} | others, pickled)

    back = {column: name for name, column in _pair(path, "arrays", outputs, names, _misfit_of(arrays), copy).items()}
    return {back.get(name, name): column for name, column in own.items()}


def order_columns(columns: Columns, inputs: Sequence[TensorSpec]) -> Columns:
    """Return columns under the names that the inputs have, with the outputs of one node by their order.

    Raises:
        DataError: which column is which output is not clear.
    """
    names = list(columns.cells)
    outputs = _numbered_outputs(inputs, {*names, *(name.removesuffix("_0") for name in names)})
    if not outputs:
        return columns
    members = {name: [name] for name in _free(inputs, names)}
    if any(len(spec.shape or ()) > 1 for spec in outputs):
        members = _joined(members)

    def renamed(pairs: Mapping[str, str]) -> dict[str, str]:
        """Return all columns that are kept by their new names, in the order of the file."""
        new = {
            column: name + (column[len(unit) :] if column != unit else "")
            for name, unit in pairs.items()
            for column in members[unit]
        }
        units = {column for group in members.values() for column in group}
        return {new.get(column, column): column for column in names if column in new or column not in units}

    def misfit(unit: str, spec: TensorSpec) -> str:
        shape = None if spec.shape is None else spec.shape[1:]
        try:
            if members[unit] == [unit]:
                array_of(columns, unit, spec.dtype, shape)
            else:
                parts = [array_of(columns, name, spec.dtype) for name in members[unit]]
                if not shapes_fit((len(parts),), shape):
                    return f"{unit} has {len(parts)} columns, and is no {_described([spec])}"
        except DataError as exc:
            return f"{unit} has {exc.got}, and is no {_described([spec])}"
        return ""

    pairs = _pair(
        columns.path, "columns", outputs, list(members), misfit, lambda one: copy_columns(columns, renamed(one))
    )
    return replace(columns, cells=Renamed(columns.cells, renamed(pairs)))


def _numbered_outputs(inputs: Sequence[TensorSpec], found: Collection[str]) -> list[TensorSpec]:
    """Return the inputs that are outputs of one node under its name, in their order, if the file names none of them.

    There are none if another input is missing in the file too.
    """
    missing = [spec for spec in inputs if spec.name not in found]
    nodes = {spec.tensor_name.partition(":")[0] for spec in missing}
    are_plain = all(spec.name == spec.tensor_name.removesuffix(":0") for spec in missing)
    known = [spec for spec in inputs if spec.tensor_name.partition(":")[0] in nodes]
    if len(nodes) != 1 or len(missing) < 2 or not are_plain or len(known) != len(missing):
        return []
    return sorted(missing, key=lambda spec: int(spec.tensor_name.partition(":")[2]))


def _free(inputs: Sequence[TensorSpec], names: Collection[str]) -> list[str]:
    """Return the names that stand for no input, and for no labels."""
    known = {*(spec.name for spec in inputs), *LABEL_NAMES}
    return [name for name in names if name not in known and re.sub(r"_\d+$", "", name) not in known]


def _joined(members: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the columns `NAME_0`, `NAME_1`, … as one unit of that name."""
    units: dict[str, list[str]] = {}
    for name in members:
        stem = re.sub(r"_\d+$", "", name)
        unit = stem if f"{stem}_0" in members and stem not in members else name
        units.setdefault(unit, []).append(name)
    return units


def _pair(
    path: Path, kind: str, outputs: Sequence[TensorSpec], names: Sequence[str], misfit: Misfit, copy: Copy
) -> dict[str, str]:
    """Return by output of the node the name in the file that stands for it; the log says which.

    Args:
        kind: what has the names, such as `columns`.
        outputs: of the node, in their order.
        names: that could stand for them, in the order of the file.

    Raises:
        DataError: the names are more or fewer, or in which order they stand for the outputs is not clear.
    """
    node = outputs[0].tensor_name.partition(":")[0]
    if len(names) != len(outputs):
        raise _of_another_number(path, kind, outputs, names, misfit, copy)
    by_name, by_file = _pairs(outputs, sorted(names)), _pairs(outputs, names)
    wrong, wrong_in_file = _first_misfit(outputs, by_name, misfit), _first_misfit(outputs, by_file, misfit)
    if not wrong and (by_name == by_file or wrong_in_file):
        told = ", ".join(f"{column} is {name}" for name, column in by_name.items())
        report(path, f"the {kind} in the sorted order of their names are the outputs of {node}: {told}")
        return by_name
    dictionary = f"If {node} gives a dictionary, its keys are sorted ({_listed(by_name)}): {copy(by_name)}"
    in_file = f"If it gives a tuple in the order of the file ({_listed(by_file)}): {copy(by_file)}"
    if wrong and wrong_in_file:
        raise DataError(
            f"the {kind} fit the outputs of {node} neither in the sorted order of their names nor in that of the file",
            where=path,
            got=f"sorted: {wrong}; as they are: {wrong_in_file}",
            wanted=_described(outputs),
            next_step=f"Name the {kind} as the inputs",
        )
    raise DataError(
        f"the outputs of {node} have no names, so which of the {kind} each of them is is not clear",
        where=path,
        got=", ".join(names) + (f"; they do not fit in the sorted order of their names: {wrong}" if wrong else ""),
        wanted=_described(outputs),
        next_step=in_file if wrong else f"{dictionary}. {in_file}",
    )


def _misfit_of(arrays: Mapping[str, Array]) -> Misfit:
    """Return what compares arrays with inputs; numbers may be of another width."""

    def misfit(name: str, spec: TensorSpec) -> str:
        values = arrays[name]
        shape = None if spec.shape is None else spec.shape[1:]
        kind = {"O": "string", "S": "string", "U": "string"}.get(values.dtype.kind, values.dtype.name)
        if kind.strip("0123456789uq") != spec.dtype.strip("0123456789uq") or not shapes_fit(values.shape[1:], shape):
            return f"{name} is {kind} {list(values.shape)}, and no {_described([spec])}"
        return ""

    return misfit


def _of_another_number(
    path: Path, kind: str, outputs: Sequence[TensorSpec], names: Sequence[str], misfit: Misfit, copy: Copy
) -> DataError:
    """Return the error for names that are too many or too few; those at one end of the file may be the labels."""
    node, count = outputs[0].tensor_name.partition(":")[0], len(outputs)
    step = f"Give the {count} {kind} alone" if len(names) > count else "Add what is missing"
    for kept in (names[:count], names[-count:]) if len(names) > count else ():
        pairs = _pairs(outputs, sorted(kept))
        if not _first_misfit(outputs, pairs, misfit):
            rest = [name for name in names if name not in kept]
            are = "is no input" if len(rest) == 1 else "are no inputs"
            step = f"If {', '.join(rest)} {are}, and {node} gives a dictionary, its keys are sorted: {copy(pairs)}"
            break
    return DataError(
        f"the {kind} are not as many as the outputs of {node}",
        where=path,
        got=f"{len(names)}: {', '.join(names)}",
        wanted=f"{count}: {_described(outputs)}",
        next_step=step,
    )


def _pairs(outputs: Sequence[TensorSpec], names: Sequence[str]) -> dict[str, str]:
    return {spec.name: name for spec, name in zip(outputs, names, strict=True)}


def _first_misfit(outputs: Sequence[TensorSpec], pairs: Mapping[str, str], misfit: Misfit) -> str:
    return next(filter(None, (misfit(pairs[spec.name], spec) for spec in outputs)), "")


def _listed(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{column} is {name}" for name, column in pairs.items())


def _described(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(replace(spec, tensor=None)) for spec in specs)
