"""The rows of a data file as columns by name, whatever kind of file it is, and the options with which it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SettingError, logger
from pipeline.inputs import DataOptions, DataSource

WHOLE = ""  # the name of the one column of a file whose rows have no names


@dataclass(frozen=True)
class Columns:
    """The rows of a file, by column.

    Args:
        cells: by name a value for each row: text from a text file, else numbers, text, bytes or lists of these.
        places: where each row is: the number of its line or record.
        unit: what these numbers count.
        separator: what separates the cells of a text file; empty for other files.
        is_loose: whether the file may have further columns, as files that were not made for this do.
    """

    path: Path
    cells: Mapping[str, Sequence[Any]]
    places: Sequence[int]
    unit: str = "line"
    separator: str = ""
    is_loose: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int) -> str:
        """Return the place of a row, for a message."""
        number = self.places[row]
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}, {self.unit} {number}"


class CellsOnDemand(Mapping[str, Sequence[Any]]):
    """Cells by column, of a file whose columns are read when they are asked for."""

    _names: Sequence[str]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # that of Mapping would read the column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class _Reading:
    options: DataOptions = field(default_factory=DataOptions)
    others: Collection[str] = ()
    used: set[str] = field(default_factory=set)


_reading: ContextVar[_Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(source: DataSource, others: Collection[str] = ()) -> Iterator[None]:
    """Read data with its options in this block, also where a model's own code calls the readers.

    Args:
        others: names that mean something else in the model's graph than an input, so they stand for none.

    Raises:
        SettingError: nothing has asked for an option that was given.
    """
    state = _Reading(source.options, others)
    token = _reading.set(state)
    try:
        yield
    finally:
        _reading.reset(token)
    for name, value in source.options.given().items():
        if name not in state.used:
            raise SettingError(
                "the model's own reader, or this kind of file, does not use it",
                where=f"--data-{name}",
                got=repr(value),
                next_step=f"Leave --data-{name} out; or read the file in the model's `examples` with read_table, "
                "which uses it",
            )


def option(name: str) -> Any:
    """Return an option of the data that is read; None if it was not given."""
    state = _reading.get()
    if state is None:
        return None
    state.used.add(name)
    return state.options.given().get(name)


def others() -> Collection[str]:
    """Return the names that stand for no input in the data that is read."""
    state = _reading.get()
    return () if state is None else state.others


def report(path: Path, sentence: str) -> None:
    """Say in the log how a file was understood."""
    logger.info("data: %s: %s", path, sentence)
