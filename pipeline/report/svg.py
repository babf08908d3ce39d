"""Renders matplotlib charts as inline SVG with the page's colours and fonts.

The page sets the colours, light or dark: matplotlib draws in placeholder colours, which are replaced by variables of
the page's style.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

TEXT, LINE, FIRST, SECOND, BAD, CARD = (f"#00010{digit}" for digit in range(1, 7))
_VARIABLES = {TEXT: "--muted", LINE: "--line", FIRST: "--first", SECOND: "--second", BAD: "--bad", CARD: "--card"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": TEXT,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "ytick.major.size": 0,
    "text.color": TEXT,
    "legend.frameon": False,
}


def render_svg(draw: Callable[[Axes], None], name: str, label: str, inches: tuple[float, float] = (4.4, 2.8)) -> str:
    """Renders a chart as SVG.

    Args:
        draw: draws on the axes, in the placeholder colours above.
        name: prefix of the ids, unique on the page.
        label: the chart in words, for screen readers.
        inches: width and height; text keeps its size, and the page scales the chart.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches, dpi=72, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        for background in (figure.patch, axes.patch):
            background.set_visible(False)
        output = StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(output)  # savefig would draw everything twice
    svg = output.getvalue()
    # The prologue and the metadata have external addresses and the date, and the style would apply to the whole page.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # the page sets it
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # two decimals are enough
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    start, rest = svg.split(">", 1)
    start = re.sub(r' (?:width|height)="[^"]*"', "", start)
    return f'{start} role="img" aria-label="{html.escape(label)}">{rest}'
