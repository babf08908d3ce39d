"""The page of the nights: one file that works offline, with a line for each night and charts over the dates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report.templates import TEMPLATES
from pipeline.store.file_names import DRIFT_FILE, NIGHTS_PAGE_FILE, REPORT_FILE

from .history import Night, missing_dates
from .paths import NIGHT, Nights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (4.4, 2.7)  # so that the letters stay legible on a phone
_MAX_LINES = 3  # in one chart
_MAX_ROWS = 400  # of the table


@dataclass(frozen=True)
class Line:
    """A line of a chart: values by date."""

    label: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Span:
    """The dates of a chart: failed nights, dates without a night, and the current night."""

    first: date
    last: date
    failed: Sequence[str]
    missing: Sequence[str]
    current: str | None

    def day(self, night: str) -> int:
        """return the days since the first date."""
        return (date.fromisoformat(night) - self.first).days

    def in_words(self) -> str:
        """Describe failed and missing nights for people who cannot see the chart."""
        parts = [f"failed: {', '.join(self.failed)}"] if self.failed else []
        parts += [f"no night: {', '.join(self.missing)}"] if self.missing else []
        return "; ".join(parts)


def write_page(nights: Nights, history: Mapping[str, Night], changed_share: float) -> None:
    """Write nights.html in one step.

    Args:
        history: at least one night, in the order of dates.
        changed_share: the threshold to draw.

    Raises: as `write_history`.
    """
    nights.write(NIGHTS_PAGE_FILE, page(nights, history, changed_share).encode())


def page(nights: Nights, history: Mapping[str, Night], changed_share: float) -> str:
    """Render the page as HTML; see `write_page`."""
    from jinja2 import FileSystemLoader  # slow imports, needed only to write a page

    from pipeline.report.html import templates

    environment = templates().overlay(loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]))
    dates, kept, current = list(history), set(nights.kept()), nights.current
    gaps = [Night(night, "no night") for night in missing_dates(dates)]
    return environment.get_template("nights.html.j2").render(
        name=nights.name,
        newest=history[dates[-1]],
        current=current,
        nights=sorted([*history.values(), *gaps], key=lambda night: night.date, reverse=True)[:_MAX_ROWS],
        left_out=max(0, len(history) + len(gaps) - _MAX_ROWS),
        links={night: _links(nights, night) for night in dates if night in kept},
        metric_names=_names(night.metrics for night in history.values()),
        threshold=changed_share,
        drawings=drawings(history, current, changed_share),
    )


def _links(nights: Nights, night: str) -> dict[str, str]:
    """Return the files of a night that the page links to, by label."""
    files = {"report": f"report/{REPORT_FILE}", "what changed": f"{NIGHT}/{DRIFT_FILE}"}
    return {label: f"{night}/{file}" for label, file in files.items() if nights.has(night, file)}


def _names(groups: Iterable[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def drawings(history: Mapping[str, Night], current: str | None, changed_share: float) -> list[Any]:
    """Draw changed decisions, metrics, sizes and latencies over the dates as inline SVG; leave out what was never
    measured."""
    from markupsafe import Markup

    dates = list(history)
    span = Span(
        date.fromisoformat(dates[0]),
        date.fromisoformat(dates[-1]),
        [night.date for night in history.values() if not night.has_passed],
        missing_dates(dates),
        current if current in history else None,
    )
    shares = {night.date: night.changed_share for night in history.values()}
    changed = Line("decisions changed", {night: 100 * share for night, share in shares.items() if share is not None})
    drawn = [_draw("changed", "decisions changed, %", [changed], span, 100 * changed_share)]
    for name, group, title, scale in (
        ("metrics", "metrics", "metric", 1.0),
        ("sizes", "sizes", "size, KiB", 1 / 1024),
        ("latencies", "latencies", "latency, ms", 1.0),
        ("seconds", "seconds", "seconds", 1.0),
    ):
        lines = _lines(history, group, scale)
        for start in range(0, len(lines), _MAX_LINES):
            drawn.append(_draw(f"{name}-{start}", title, lines[start : start + _MAX_LINES], span))
    return [Markup(svg) for svg in drawn]


def _lines(history: Mapping[str, Night], group: str, scale: float) -> list[Line]:
    """Return a line for each name of a group; for the seconds of the stages, only their sum."""
    measured = {night.date: getattr(night, group) for night in history.values() if getattr(night, group)}
    if group == "seconds":
        return [Line("whole chain", {night: sum(parts.values()) for night, parts in measured.items()})]
    names = _names(measured.values())
    shown = ["f1", "accuracy"] if group == "metrics" else names
    return [
        Line(name, {night: values[name] * scale for night, values in measured.items() if name in values})
        for name in shown
        if name in names
    ]


def _draw(name: str, title: str, lines: Sequence[Line], span: Span, threshold: float | None = None) -> str:
    from pipeline.report.svg import render_svg

    words = [f"{title} from {span.first} to {span.last}"]
    words += [f"threshold {threshold:g}"] if threshold is not None else []
    label = "; ".join(filter(None, [*words, span.in_words(), f"current: {span.current}" if span.current else ""]))
    return render_svg(_plot(title, lines, span, threshold), name, label, _INCHES)


def _plot(title: str, lines: Sequence[Line], span: Span, threshold: float | None) -> Callable[[Axes], None]:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from pipeline.report.svg import BAD, FIRST, LINE, SECOND, TEXT

    styles = [(FIRST, "-"), (SECOND, "--"), (TEXT, ":")]

    def draw(axes: Axes) -> None:
        width = span.day(span.last.isoformat())
        for night in span.missing:
            axes.axvspan(span.day(night) - 0.5, span.day(night) + 0.5, color=LINE, linewidth=0, zorder=0)
        for number, line in enumerate(lines):
            colour, style = styles[number]
            days = range(width + 1)
            by_day = {span.day(night): value for night, value in line.values.items()}
            # The line breaks where a night is missing.
            axes.plot(days, [by_day.get(day, float("nan")) for day in days], style, color=colour,
                      label=line.label, linewidth=1.6, marker="o", markersize=3)  # fmt: skip
            bad = [span.day(night) for night in span.failed if night in line.values]
            axes.plot(bad, [by_day[day] for day in bad], "x", color=BAD, markersize=9, markeredgewidth=2,
                      label="failed" if bad and number == 0 else None)  # fmt: skip
        for night in span.failed:
            axes.axvline(span.day(night), color=BAD, linewidth=0.8, zorder=1)
        if span.current is not None:
            axes.axvline(span.day(span.current), color=FIRST, linewidth=0.8, linestyle=(0, (2, 2)), label="current")
        if threshold is not None:
            axes.axhline(threshold, color=TEXT, linewidth=1.2, linestyle=(0, (4, 3)), label=f"threshold {threshold:g}")
            axes.set_ylim(bottom=0)
        axes.set_xlim(-0.6, width + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        first = span.first.toordinal()
        dates = FuncFormatter(lambda position, _: date.fromordinal(first + round(position)).isoformat())
        axes.xaxis.set_major_formatter(dates)
        axes.set_ylabel(title)
        axes.grid(axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return draw
