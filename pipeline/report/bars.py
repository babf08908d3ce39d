"""Horizontal bars, one for each format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from .svg import FIRST, TEXT, drawn
from .verdict import REFERENCE
from .wording import visible

_INCHES, _INCHES_EACH, _INCHES_AROUND = 3.3, 0.24, 0.34


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        value: its length; None where nothing was measured.
        beyond: how far the thin bar behind it goes.
        text: what stands at its end.
    """

    name: str
    value: float | None
    beyond: float | None
    text: str


def draw_bars(bars: Sequence[Bar], title: str, name: str, label: str) -> str:
    """Bars from zero, each with its number; the checkpoint's in another colour.

    Args:
        bars: at least one with a value.
        name, label: as `drawn` takes them.
    """

    def draw(axes: Axes) -> None:
        longest = max(max(bar.value or 0, bar.beyond or 0) for bar in bars) or 1
        for place, bar in enumerate(bars):
            length = bar.value or 0
            if bar.beyond:
                axes.barh(place, bar.beyond, 0.12, color=TEXT, linewidth=0)
            axes.barh(place, length, 0.62, color=TEXT if bar.name == REFERENCE else FIRST, linewidth=0)
            end = max(length, bar.beyond or 0)
            axes.annotate(bar.text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(bars)), [visible(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, longest * 1.3)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title, loc="left", fontsize=9, color=TEXT)

    return drawn(draw, name, label, (_INCHES, _INCHES_AROUND + _INCHES_EACH * len(bars)))
