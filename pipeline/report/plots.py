"""Drawings as inline SVG that follow the page's colours and fonts.

The page sets the colours, light or dark, so that a drawing may not hold any: matplotlib draws in stand-in colours,
and each is replaced by a variable of the page's style.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .results import STEPS_PER_DECADE, History, Spread

MOST_BARS = 16
MOST_POINTS = 800

_TEXT, _LINE, _FIRST, _SECOND, _BAD, _CARD = (f"#00010{digit}" for digit in range(1, 7))
_VARIABLES = {_TEXT: "--muted", _LINE: "--line", _FIRST: "--first", _SECOND: "--second", _BAD: "--bad", _CARD: "--card"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _TEXT,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "ytick.major.size": 0,
    "text.color": _TEXT,
    "legend.frameon": False,
}


def draw_training(history: History, name: str, label: str) -> str:
    """Loss and validation loss by step.

    Args:
        history: at least one point.
        name: prefix of the drawing's ids, unlike that of any other drawing on the page.
        label: the drawing in words, for those who cannot see it.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        values = [value for points in (history.loss, history.validation_loss) for _, value in points]
        if min(values) > 0 and max(values) / min(values) > 100:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        for points, text, colour, style in (
            (history.loss, "loss", _FIRST, "-"),
            (history.validation_loss, "validation loss", _SECOND, "--"),
        ):
            thin = _thinned(points)
            marker = "o" if len(thin) <= 20 else None
            steps, losses = [step for step, _ in thin], [loss for _, loss in thin]
            if points:
                axes.plot(steps, losses, style, label=text, color=colour, linewidth=1.8, marker=marker, markersize=4)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.grid(axis="y")
        axes.legend(loc="upper right")
        return _svg(figure, name, label)


def draw_differences(spread: Spread, atol: float | None, name: str, label: str) -> str:
    """How many rows differ by how much, on a logarithmic scale; rows without a difference are left out.

    Args:
        spread: at least one finite difference above zero.
        atol: the absolute tolerance, drawn as a line; None where the checks have no single one.
        name: prefix of the drawing's ids, unlike that of any other drawing on the page.
        label: the drawing in words, for those who cannot see it.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        sizes = {*spread.passed_by_size, *spread.failed_by_size}
        width = _bar_width(sizes)
        _draw_bars(axes, spread, width)
        # Powers of ten stand at multiples of STEPS_PER_DECADE.
        low, high = min(sizes) // width * width, (max(sizes) // width + 1) * width
        if atol:
            place = STEPS_PER_DECADE * math.log10(atol)
            low, high = min(low, math.floor(place)), max(high, math.ceil(place))
            axes.axvline(place, color=_TEXT, linewidth=1.2, linestyle=(0, (4, 3)))
            side = "right" if place > (low + high) / 2 else "left"
            gap = -4 if side == "right" else 4
            axes.annotate(
                f"atol {atol:g}", (place, 0.97), (gap, 0), ("data", "axes fraction"), "offset points", ha=side, va="top"
            )
        axes.set_xlim(low - 0.3, high + 0.3)
        decades = range(math.ceil(low / STEPS_PER_DECADE), math.floor(high / STEPS_PER_DECADE) + 1)
        shown = decades[:: max(1, math.ceil(len(decades) / 7))]
        axes.set_xticks([STEPS_PER_DECADE * decade for decade in shown], [f"1e{decade}" for decade in shown])
        axes.set_xlabel("|difference|")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.grid(axis="y")
        return _svg(figure, name, label)


def _draw_bars(axes: Axes, spread: Spread, width: int) -> None:
    passed, failed = (_merged(counts, width) for counts in (spread.passed_by_size, spread.failed_by_size))
    tallest = max(passed.get(place, 0) + failed.get(place, 0) for place in {*passed, *failed})
    # A single failed row among thousands must stay visible.
    least = tallest * 0.012
    for place in sorted({*passed, *failed}):
        good, bad = passed.get(place, 0), failed.get(place, 0)
        heights = [max(count, least) if count else 0 for count in (good, bad)]
        middle, thickness = place + width / 2, width * 0.86
        if good:
            axes.bar(middle, heights[0], thickness, color=_FIRST, linewidth=0)
        if bad:
            axes.bar(middle, heights[1], thickness, heights[0], color=_BAD, edgecolor=_CARD, hatch="////", linewidth=0)
        text = f"{bad:,} failed" if bad and not good else f"{good + bad:,}" + (f"\n{bad:,} failed" if bad else "")
        colour = _BAD if bad else _TEXT
        above = (middle, sum(heights))
        axes.annotate(text, above, (0, 2), textcoords="offset points", ha="center", fontsize=8, color=colour)
    axes.set_ylim(0, tallest * 1.2)


def _bar_width(sizes: set[int]) -> int:
    width = 1
    while (max(sizes) - min(sizes)) / width > MOST_BARS:
        width *= 2
    return width


def _merged(counts: dict[int, int], width: int) -> dict[int, int]:
    merged: dict[int, int] = {}
    for place, count in counts.items():
        merged[place // width * width] = merged.get(place // width * width, 0) + count
    return merged


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    # Counted from the end: the last point is the one that was exported.
    return points[::-stride][::-1]


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str, label: str) -> str:
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True)
    svg = written.getvalue()
    # The prologue and the metadata name foreign addresses and the date, and the style would apply to the whole page.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    start, rest = svg.split(">", 1)
    start = re.sub(r' (?:width|height)="[^"]*"', "", start)
    return f'{start} role="img" aria-label="{html.escape(label)}">{rest}'
