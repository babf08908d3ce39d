"""Pair the names in a data file with the inputs of a signature, and say what to do where they do not pair.

A graph names an input with its scopes (`import/data`, `obs/stock:0`), a file often by the last part alone (`data`). A
name of the file stands for an input if one is the end of the other, part by part, and neither pairs with anything else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, nearest, this_command
from pipeline.signature import TensorSpec

from .columns import CellsOnDemand, Columns, report
from .delimited import add_header, is_numbers

LABELS = "labels"
LABEL_NAMES = (LABELS, "label")
_MOST_COLUMNS = 40  # in a command
_ALIKE = 0.5  # of names, as `difflib` compares them


def pair_names(inputs: Iterable[TensorSpec], found: Iterable[str], others: Collection[str] = ()) -> dict[str, str]:
    """Return by input the name in the file that stands for it, where that is another one.

    Args:
        found: the names in the file.
        others: names that mean something else in the model's graph.
    """
    specs, names = list(inputs), list(found)
    known = {spec.name for spec in specs}
    free = [name for name in names if name and name not in {*known, *others, *LABEL_NAMES}]
    meant = {spec.name: [name for name in free if _is_meant(name, spec)] for spec in specs}
    pairs = {name: fits[0] for name, fits in meant.items() if len(fits) == 1 and name not in names}
    uses = [name for fits in meant.values() for name in fits]
    return {name: column for name, column in pairs.items() if uses.count(column) == 1}


def pair_arrays(
    path: Path, inputs: Sequence[TensorSpec], found: Collection[str], others: Collection[str] = ()
) -> dict[str, str]:
    """Return the names of a file's arrays by those that the inputs have; the log says which were paired."""
    pairs = pair_names(inputs, found, others)
    _tell(path, pairs)
    back = {column: name for name, column in pairs.items()}
    return {back.get(name, name): name for name in found}


def pair_columns(columns: Columns, inputs: Sequence[TensorSpec], others: Collection[str] = ()) -> Columns:
    """Return columns under the names that the inputs have; `NAME_0`, `NAME_1`, … are paired by `NAME`."""
    names = list(columns.cells)
    stems = [name[:-2] for name in names if name.endswith("_0") and name[:-2] not in names]
    own = {name: name for name in names}
    told = dict[str, str]()
    open_inputs = [spec for spec in inputs if f"{spec.name}_0" not in names]
    for name, stem in pair_names(open_inputs, [*names, *stems], others).items():
        is_apart = stem not in names
        members = [one for one in names if re.fullmatch(rf"{re.escape(stem)}_\d+", one)] if is_apart else [stem]
        new = {name + one[len(stem) :]: one for one in members}
        if own.keys().isdisjoint(new):
            own = {key: one for key, one in own.items() if one not in members} | new
            told[name] = f"{stem}_0, …" if is_apart else stem
    _tell(columns.path, told)
    return replace(columns, cells=Renamed(columns.cells, own)) if told else columns


class Renamed(CellsOnDemand):
    """Cells by other names of their columns."""

    def __init__(self, cells: Mapping[str, Sequence[Any]], own: Mapping[str, str]) -> None:
        self._cells, self._own, self._names = cells, own, list(own)

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self._cells[self._own.get(name, name)]


def _is_meant(name: str, spec: TensorSpec) -> bool:
    """Return True if a name of the file and one of an input are the end of each other, part by part."""
    own = _parts(name)
    for known in (_parts(spec.name), _parts(spec.tensor_name)):
        short, long = sorted((own, known), key=len)
        if long[-len(short) :] == short:
            return True
    return False


def _parts(name: str) -> list[str]:
    return re.sub(r":\d+$", "", name).strip("/").split("/")


def _tell(path: Path, pairs: Mapping[str, str]) -> None:
    if pairs:
        told = ", ".join(f"{column} is {name}" for name, column in pairs.items())
        report(path, f"names are paired with the inputs by their last parts: {told}")


# Names that do not pair.


def require_names(path: Path, kind: str, found: Iterable[str], wanted: Iterable[str], advice: str = "") -> None:
    """Check that a file has the names of the inputs, labels, and no others.

    Args:
        kind: what has the names, such as `columns`.

    Raises:
        DataError: one is missing, or is of no input.
    """
    names, known = list(found), list(wanted)
    for name in known:
        if name not in names:
            raise DataError(
                "an input is missing in the data",
                where=path,
                got=f"no {name} among its {kind} {', '.join(names)}"[:200],
                wanted=", ".join(known),
                next_step=advice or nearest(name, names, "the data has"),
            )
    extra = sorted(set(names) - {*known, LABELS})
    if extra:
        raise DataError(
            f"the data has {kind} that are not inputs",
            where=path,
            got=", ".join(extra),
            wanted=", ".join(known),
            next_step=advice or None,
        )


def advise_arrays(path: Path, own: Mapping[str, str], wanted: Sequence[str], pickled: bool) -> str:
    """Return the command that writes an .npz with the wanted arrays, and the next one; empty if there is none.

    Args:
        own: the arrays' names in the file, by those that `pair_arrays` gave them.
        pickled: arrays hold objects.
    """
    label = next((name for name in LABEL_NAMES if name in own and name not in wanted), None)
    pairs = _guess([name for name in own if name != label], wanted)
    if not pairs or path.suffix != ".npz":
        return ""
    kept = {name: own[found] for name, found in pairs.items()} | ({LABELS: own[label]} if label else {})
    return _offer(pairs, copy_arrays(path, kept, pickled))


def copy_arrays(path: Path, kept: Mapping[str, str], pickled: bool) -> str:
    """Return the command that writes an .npz of these arrays, and the next one.

    Args:
        kept: the arrays' names in the file, by those in the copy.
        pickled: arrays hold objects.
    """
    copy = f"{path.stem}.named.npz"
    taken = ", ".join(f"{name!r}: rows[{column!r}]" for name, column in kept.items())
    load = f"numpy.load({str(path)!r}{', allow_pickle=True' if pickled else ''})"
    code = f"import numpy; rows = {load}; numpy.savez({copy!r}, **{{{taken}}})"
    return f"python -c {shlex.quote(code)}, and then: {this_command({'--data': copy})}"


def advise_columns(columns: Columns, wanted: Sequence[str], label: str | None) -> str:
    """Return the command that makes the table one that has the wanted columns, and the next one; empty if none does."""
    names, path = list(columns.cells), columns.path
    if len(wanted) > _MOST_COLUMNS:
        return ""
    if columns.separator and is_numbers(names):
        return f"The first line holds values. {add_header(path, wanted, columns.separator)} and name that file"
    pairs = _guess([name for name in names if name != label], wanted)
    kept = [*wanted, *([label] if label else [])]
    if columns.separator and len(names) == len(kept) and names[len(wanted) :] == kept[len(wanted) :]:
        own = dict(zip([*wanted, *([LABELS] if label else [])], names, strict=True))
        if list(pairs.values()) == names[: len(wanted)] and set(wanted).isdisjoint(names):
            return f"If they are in this order: {copy_columns(columns, own)}"
    command = copy_columns(columns, {**pairs, **({label: label} if label else {})}) if pairs else ""
    return _offer(pairs, command) if command else ""


def copy_columns(columns: Columns, kept: Mapping[str, str]) -> str:
    """Return the command that writes a table of these columns, and the next one; empty if there is none.

    Args:
        kept: the columns' names, by those in the copy.
    """
    names, path = list(columns.cells), columns.path
    copy = f"{path.stem}.named{path.suffix}"
    command = ""
    if columns.separator and list(kept.values()) == names:
        header = re.sub(r"([/&\\])", r"\\\1", columns.separator.join(kept))
        command = f"sed {shlex.quote(f'1s/.*/{header}/')} {shlex.quote(str(path))} > {shlex.quote(copy)}"
    else:
        read, write = _pandas(columns)
        own = columns.cells._own if isinstance(columns.cells, Renamed) else {name: name for name in names}
        changed = {own[column]: name for name, column in kept.items() if name != own[column]}
        rename = f".rename(columns={changed!r})" if changed else ""
        code = f"import pandas; pandas.{read}{rename}[{list(kept)!r}].{write.format(copy=repr(copy))}" if read else ""
        command = f"python -c {shlex.quote(code)}" if code else ""
    return command and f"{command}, and then: {this_command({'--data': copy})}"


def _pandas(columns: Columns) -> tuple[str, str]:
    """Return how pandas reads and writes a file of a kind, as text where it is text; empty if it does not."""
    path = str(columns.path)
    if columns.separator:
        sep = f"sep={columns.separator!r}"
        return f"read_csv({path!r}, dtype=str, keep_default_na=False, {sep})", f"to_csv({{copy}}, index=False, {sep})"
    if columns.path.suffix in (".parquet", ".pq"):
        return f"read_parquet({path!r})", "to_parquet({copy})"
    if columns.path.suffix in (".jsonl", ".ndjson"):
        options = "orient='records', lines=True"
        return f"read_json({path!r}, {options}, dtype=False, convert_dates=False)", f"to_json({{copy}}, {options})"
    return "", ""


def _guess(found: Collection[str], wanted: Sequence[str]) -> dict[str, str]:
    """Return by wanted name the one in the file that is most like it; nothing if there are too few."""
    pairs = {name: name for name in wanted if name in found}
    missing = [name for name in wanted if name not in pairs]
    free = [name for name in found if name and name not in {*pairs, LABELS}]
    if len(free) < len(missing):
        return {}
    likeness = {
        (name, one): SequenceMatcher(None, name.lower(), one.lower()).ratio() for name in missing for one in free
    }
    for name, one in sorted(likeness, key=lambda pair: -likeness[pair]):
        if name not in pairs and one not in pairs.values() and likeness[name, one] >= _ALIKE:
            pairs[name] = one
    rest = [one for one in free if one not in pairs.values()]
    unlike = [name for name in missing if name not in pairs]
    if unlike and len(rest) != len(unlike):  # a name like none of the inputs' is no guess
        return {}
    pairs |= dict(zip(unlike, rest, strict=False))
    return {name: pairs[name] for name in wanted}


def _offer(pairs: Mapping[str, str], command: str) -> str:
    renamed = [f"{column} is {name}" for name, column in pairs.items() if name != column]
    start = f"If {', '.join(renamed)}, write" if renamed else "Write"
    what = "a copy with these names" if renamed else "a copy without them"
    return f"{start} {what}: {command}"
