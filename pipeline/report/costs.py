"""Costs of the formats: a table, and bar charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .facts import ReportFacts
from .plots import Bar, draw_bars
from .verdict import refused_formats
from .wording import NOTHING, duration, milliseconds, number, size

Format = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One measured quantity.

    Args:
        name: title of the column.
        value: returns the number of a format; None if it was not measured.
        text: formats a number for readers.
        bar: returns the length of a format's bar; None if the column has no chart.
        thin_bar: returns a second number, drawn as a thinner bar behind the first.
    """

    name: str
    value: Callable[[Format], float | None]
    text: Callable[[Any], str]
    bar: Callable[[Format], float | None] | None = None
    thin_bar: Callable[[Format], float | None] | None = None


def _of(key: str) -> Callable[[Format], float | None]:
    return lambda format: format.get(key)


def _latency(batch: str, share: str) -> Callable[[Format], float | None]:
    return lambda format: ((format.get("batches") or {}).get(batch) or {}).get(share)


def _start(format: Format) -> float | None:
    """Returns seconds from the import of the library to the first output."""
    load, answer = format.get("load_seconds"), format.get("first_answer_seconds")
    return None if load is None or answer is None else load + answer


_BEFORE = (
    Column("Size", _of("size_bytes"), size, _of("size_bytes")),
    Column("Import", _of("import_seconds"), duration),
    Column("Load", _of("load_seconds"), duration),
    Column("First answer", _of("first_answer_seconds"), duration, _start),
)
_BEHIND = (
    Column("Rows/s", _of("rows_per_second"), lambda value: number(round(value)), _of("rows_per_second")),
    Column("Peak memory", _of("peak_bytes"), size, _of("peak_bytes")),
)
_TITLES = {
    "Size": "Size on disk",
    "First answer": "Load and first answer",
    "Rows/s": "Rows per second",
    "Peak memory": "Peak memory",
}


def _latencies(formats: Mapping[str, Format]) -> Iterator[Column]:
    """Yields two columns for each batch size that was measured."""
    for count in sorted({int(each) for format in formats.values() for each in format.get("batches") or {}}):
        rows = f"{count} row{'s' * (count > 1)}"
        p50, p99 = _latency(str(count), "p50_ms"), _latency(str(count), "p99_ms")
        yield Column(f"p50, {rows}", p50, milliseconds, p50, p99)
        yield Column(f"p99, {rows}", p99, milliseconds)


@dataclass(frozen=True)
class Costs:
    """Costs as a report shows them.

    Args:
        columns: titles of the columns with a number for any format.
        rows: format, and its numbers as text in the order of the columns.
        problems: format, and the reason why its numbers are missing.
        drawings: SVG charts.
        machine: the machine that it was measured on, as one phrase.
    """

    recommendation: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    problems: Sequence[tuple[str, str]]
    drawings: Sequence[Markup]
    machine: str


def costs(facts: ReportFacts, with_drawings: bool = True) -> Costs | None:
    """Prepares the costs for the report; None if nothing was measured."""
    refused = refused_formats(facts)  # these cannot be measured
    formats: Mapping[str, Format] = (facts.costs or {}).get("formats") or {}
    measured = {name: format for name, format in formats.items() if name not in refused}
    if facts.costs is None or not measured:
        return None
    all_columns = [*_BEFORE, *_latencies(measured), *_BEHIND]
    columns = [
        column for column in all_columns if any(column.value(format) is not None for format in measured.values())
    ]
    return Costs(
        recommendation=str(facts.costs.get("recommendation") or ""),
        columns=[column.name for column in columns],
        rows=[
            (name, [_number_text(column, column.value(format)) for column in columns])
            for name, format in measured.items()
        ],
        problems=[(name, str(format["problem"])) for name, format in measured.items() if format.get("problem")],
        drawings=[_drawing(column, all_columns.index(column), measured) for column in columns if column.bar]
        if with_drawings
        else [],
        machine=_machine(facts.costs),
    )


def _number_text(column: Column, value: float | None) -> str:
    return NOTHING if value is None else column.text(value)


def _machine(costs: Mapping[str, Any]) -> str:
    machine = costs.get("machine") or {}
    parts = [f"{number(costs['rows'])} rows"] if costs.get("rows") else []
    parts += [str(machine["cpu"])] if machine.get("cpu") else []
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    parts += [f"{size(machine['memory_bytes'])} of memory"] if machine.get("memory_bytes") else []
    return ", ".join(parts)


def _drawing(column: Column, position: int, measured: Mapping[str, Format]) -> Markup:
    length = column.bar or column.value
    bars = [
        Bar(
            name,
            length(format),
            column.thin_bar(format) if column.thin_bar else None,
            _number_text(column, length(format)),
        )
        for name, format in measured.items()
    ]
    title = _TITLES.get(column.name, f"Latency of {column.name.removeprefix('p50, ')}, p50 (thin: p99)")
    words = f"{title}: {', '.join(f'{bar.name} {bar.text}' for bar in bars)}"
    return Markup(draw_bars(bars, title, f"cost-{position}", words))
