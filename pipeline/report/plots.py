"""Charts of the training, the differences, the values and the costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .results import STEPS_PER_DECADE, FloatArray, History, Spread, Values
from .svg import BAD, CARD, FIRST, LINE, SECOND, TEXT, render_svg
from .verdict import REFERENCE
from .wording import printable

MOST_BARS = 16
MOST_POINTS = 800
DOTS_ACROSS = 160  # resolution of a chart of values: overlapping points are drawn once


def draw_training(history: History, name: str, label: str) -> str:
    """Draws loss and validation loss by step.

    Args:
        history: at least one point.
        name, label: see `render_svg`.
    """

    def draw(axes: Axes) -> None:
        values = [value for points in (history.loss, history.validation_loss) for _, value in points]
        if min(values) > 0 and max(values) / min(values) > 100:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        for points, text, colour, style in (
            (history.loss, "loss", FIRST, "-"),
            (history.validation_loss, "validation loss", SECOND, "--"),
        ):
            stride = max(1, math.ceil(len(points) / MOST_POINTS))
            thin = points[::-stride][::-1]  # counted from the end, to keep the last point
            marker = "o" if len(thin) <= 20 else None
            steps, losses = [step for step, _ in thin], [loss for _, loss in thin]
            if points:
                axes.plot(steps, losses, style, label=text, color=colour, linewidth=1.6, marker=marker, markersize=4)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.grid(axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return render_svg(draw, name, label)


def draw_differences(spread: Spread, atol: float | None, name: str, label: str) -> str:
    """Draws a histogram of the differences on a logarithmic scale, without the rows that do not differ.

    Args:
        spread: at least one finite difference above zero.
        atol: the absolute tolerance, drawn as a line; None if the checks have several.
        name, label: see `render_svg`.
    """

    def draw(axes: Axes) -> None:
        sizes = {*spread.passed_by_size, *spread.failed_by_size}
        width = _bar_width(sizes)
        _draw_bars(axes, spread, width)
        # Powers of ten are at multiples of STEPS_PER_DECADE.
        low, high = min(sizes) // width * width, (max(sizes) // width + 1) * width
        if atol:
            x = STEPS_PER_DECADE * math.log10(atol)
            low, high = min(low, math.floor(x)), max(high, math.ceil(x))
            axes.axvline(x, color=TEXT, linewidth=1.2, linestyle=(0, (4, 3)))
            side = "right" if x > (low + high) / 2 else "left"
            gap = -4 if side == "right" else 4
            axes.annotate(
                f"atol {atol:g}", (x, 0.99), (gap, 0), ("data", "axes fraction"), "offset points", ha=side, va="top"
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

    return render_svg(draw, name, label)


def _draw_bars(axes: Axes, spread: Spread, width: int) -> None:
    passed, failed = (_merge_bins(counts, width) for counts in (spread.passed_by_size, spread.failed_by_size))
    tallest = max(passed.get(x, 0) + failed.get(x, 0) for x in {*passed, *failed})
    # A single failed row among thousands must stay visible.
    least = tallest * 0.012
    for x in sorted({*passed, *failed}):
        good, bad = passed.get(x, 0), failed.get(x, 0)
        heights = [max(count, least) if count else 0 for count in (good, bad)]
        middle, thickness = x + width / 2, width * 0.86
        if good:
            axes.bar(middle, heights[0], thickness, color=FIRST, linewidth=0)
        if bad:
            axes.bar(middle, heights[1], thickness, heights[0], color=BAD, edgecolor=CARD, hatch="////", linewidth=0)
        text = f"{good + bad:,}" + (f"\n{bad:,} failed" if good and bad else "")
        colour = BAD if bad else TEXT
        above = (middle, sum(heights))
        axes.annotate(text, above, (0, 2), textcoords="offset points", ha="center", fontsize=8, color=colour)
    axes.set_ylim(0, tallest * 1.25)
    if failed:
        kinds = [Patch(color=FIRST, label="passed")] if passed else []
        kinds.append(Patch(facecolor=BAD, edgecolor=CARD, hatch="////", linewidth=0, label="failed"))
        axes.legend(handles=kinds, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _bar_width(sizes: set[int]) -> int:
    width = 1
    while (max(sizes) - min(sizes)) / width > MOST_BARS:
        width *= 2
    return width


def _merge_bins(counts: dict[int, int], width: int) -> dict[int, int]:
    merged: dict[int, int] = {}
    for x, count in counts.items():
        merged[x // width * width] = merged.get(x // width * width, 0) + count
    return merged


def draw_values(values: Values, output: str, name: str, label: str) -> str:
    """Draws reference against candidate, with the diagonal on which both are equal.

    Args:
        values: at least one finite point.
        output: name of the output.
        name, label: see `render_svg`.
    """

    def draw(axes: Axes) -> None:
        every = np.concatenate([values.passed.finite, values.failed.finite])
        low, high = float(every.min()), float(every.max())
        gap = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        low, high = low - gap, high + gap
        axes.plot([low, high], [low, high], color=LINE, linewidth=1.2, zorder=1)
        for points, colour, size in ((values.passed.finite, FIRST, 3.6), (values.failed.finite, BAD, 5.0)):
            _draw_dots(axes, _remove_overlaps(points, low, high), colour, size)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(f"{output}, checkpoint")
        axes.set_ylabel("candidate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        axes.grid()

    return render_svg(draw, name, label)


def _remove_overlaps(points: FloatArray, low: float, high: float) -> FloatArray:
    """Keeps one of the points that would overlap in the drawing."""
    _, first = np.unique(np.round((points - low) / (high - low) * DOTS_ACROSS), axis=0, return_index=True)
    return points[np.sort(first)]


def _draw_dots(axes: Axes, points: FloatArray, colour: str, size: float) -> None:
    """Draws all dots as one path of zero-length lines with round ends: a tenth of the bytes of markers."""
    if len(points):
        codes = np.tile([Path.MOVETO, Path.LINETO], len(points))
        path = Path(np.repeat(points, 2, axis=0), codes.astype(Path.code_type))
        path.should_simplify = False  # else it drops zero-length lines
        axes.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=size, capstyle="round", zorder=3))


_INCHES, _INCHES_EACH, _INCHES_AROUND = 3.3, 0.24, 0.34


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        value: its length; None if nothing was measured.
        thin: length of the thin bar behind it; None if it has none.
        text: label at its end.
    """

    name: str
    value: float | None
    thin: float | None
    text: str


def draw_bars(bars: Sequence[Bar], title: str, name: str, label: str) -> str:
    """Draws bars from zero, each with its number; the checkpoint's in another colour.

    Args:
        bars: at least one with a value.
        name, label: see `render_svg`.
    """

    def draw(axes: Axes) -> None:
        longest = max(max(bar.value or 0, bar.thin or 0) for bar in bars) or 1
        for y, bar in enumerate(bars):
            length = bar.value or 0
            if bar.thin:
                axes.barh(y, bar.thin, 0.12, color=TEXT, linewidth=0)
            axes.barh(y, length, 0.62, color=TEXT if bar.name == REFERENCE else FIRST, linewidth=0)
            end = max(length, bar.thin or 0)
            axes.annotate(bar.text, (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(bars)), [printable(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, longest * 1.3)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title, loc="left", fontsize=9, color=TEXT)

    return render_svg(draw, name, label, (_INCHES, _INCHES_AROUND + _INCHES_EACH * len(bars)))
