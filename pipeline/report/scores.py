"""Charts of the decisions: distribution of the scores by label, calibration; and confusion matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pipeline.signature import Decision

from .facts import ReportFacts
from .results import FloatArray
from .svg import CARD, FIRST, LINE, SECOND, TEXT, render_svg
from .verdict import REFERENCE
from .wording import count_noun, join_names, printable

MOST_CURVES = 5
_MOST_LABELS = 2  # more labels are drawn as one distribution
_ALL = "all rows"
_STYLES = ("-", "--", ":", "-.", (0, (1, 3)))


@dataclass(frozen=True)
class Drawing:
    """A chart with its title and its content in words."""

    title: str
    words: str
    svg: Markup


def draw_scores(facts: ReportFacts) -> list[Drawing]:
    """Draws the distributions, one for all formats with the same counts; then the calibration.

    Empty if the model makes no decision.
    """
    found: Mapping[str, Mapping[str, Any]] = facts.verdict.get("scores") or {}
    scores = {name: found[name] for name in sorted(found, key=lambda name: name != REFERENCE)}  # the checkpoint first
    drawings = []
    for index, (names, own) in enumerate(_group_equal(scores, lambda own: _rounded(own.get("by_label")))):
        edges, counts = own.get("edges") or (), _counts(own.get("by_label") or {})
        if any(map(sum, counts.values())) and len(edges) == len(next(iter(counts.values()))) + 1:
            title, words = f"Scores of {join_names(names)}", _distribution_in_words(counts, facts.signature.decision)
            drawing = _draw_distribution(edges, counts, facts.signature.decision, f"scores-{index}", words)
            drawings.append(Drawing(title, words, Markup(drawing)))
    calibrated = _group_equal(scores, lambda own: _rounded(own.get("calibration")))
    curves = [(names, bins) for names, own in calibrated if (bins := _nonempty_bins(own))]
    if curves:
        words = f"{_calibration_in_words(curves, facts.signature.decision)}"
        drawings.append(Drawing("Calibration", words, Markup(_draw_calibration(curves[:MOST_CURVES], words))))
    return drawings


Group = tuple[list[str], Mapping[str, Any]]


def _group_equal(scores: Mapping[str, Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> list[Group]:
    """Groups formats with equal keys."""
    groups: list[Group] = []
    for name, own in scores.items():
        names = next((names for names, other in groups if key(other) == key(own)), None)
        if names is None:
            groups.append(([name], own))
        else:
            names.append(name)
    return groups


def _rounded(value: Any) -> Any:
    """Rounds a value to the digits that a chart can show."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def _counts(by_label: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Returns counts by label; a single sum if there are no labels or too many."""
    if not 1 < len(by_label) <= _MOST_LABELS:
        return {_ALL: [sum(counts) for counts in zip(*by_label.values(), strict=True)]} if by_label else {}
    return {str(label): list(counts) for label, counts in by_label.items()}


def _distribution_in_words(counts: Mapping[str, Sequence[int]], decision: Decision | None) -> str:
    rows = join_names(
        [f"{count_noun(sum(own), 'row')}{'' if label == _ALL else f' of {label}'}" for label, own in counts.items()]
    )
    line = "; the dashed line is the threshold" if decision is not None and decision.threshold is not None else ""
    return printable(f"Number of rows by score: {rows}{line}.")


def _draw_distribution(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]], decision: Decision | None, name: str, words: str
) -> str:
    def draw(axes: Axes) -> None:
        left, width = np.asarray(edges[:-1], float), np.diff(np.asarray(edges, float))
        share = 0.88 / len(counts)
        for index, (label, own) in enumerate(counts.items()):
            colour, hatch = ((FIRST, ""), (SECOND, "////"))[index]
            starts = left + width * (0.06 + share * index)
            axes.bar(starts, own, width * share, align="edge", color=colour, edgecolor=CARD, hatch=hatch, linewidth=0,
                     label=printable(label))  # fmt: skip
        most = max(max(own) for own in counts.values())
        _scale(axes, most)
        if decision is not None and decision.threshold is not None:
            axes.axvline(decision.threshold, color=TEXT, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("score" if decision is None else f"score ({printable(decision.output)})")
        axes.set_ylabel("rows")
        axes.grid(axis="y")
        if len(counts) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return render_svg(draw, name, words)


def _scale(axes: Axes, most: int) -> None:
    """Uses a logarithmic scale for many rows, to show the few between the ends, whose decisions flip first."""
    if most > 50:
        axes.set_yscale("log")
        axes.set_ylim(0.7, most * 1.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))


def _nonempty_bins(own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in own.get("calibration") or () if one["rows"] and one["mean_score"] is not None]


def _calibration_in_words(
    curves: Sequence[tuple[list[str], list[Mapping[str, Any]]]], decision: Decision | None
) -> str:
    kind = "of positive rows" if decision is not None and decision.threshold is not None else "of right decisions"
    sentences = [f"Of rows with a score, the share {kind}; on the diagonal a score is a probability."]
    for names, bins in curves:
        rows = sum(one["rows"] for one in bins)
        error = sum(one["rows"] * abs(one["mean_score"] - one["share"]) for one in bins) / rows
        sentences.append(f"{join_names(names)}: off by {error:.3f} on average (expected calibration error).")
    return printable(" ".join(sentences))


def _draw_calibration(curves: Sequence[tuple[list[str], list[Mapping[str, Any]]]], words: str) -> str:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.2, zorder=1)
        for index, (names, bins) in enumerate(curves):
            style, colour = _STYLES[index], (FIRST, SECOND, TEXT)[index % 3]
            points: FloatArray = np.array([(one["mean_score"], one["share"]) for one in bins], float)
            rows = np.array([one["rows"] for one in bins], float)
            scores, shares = points.T
            axes.plot(scores, shares, linestyle=style, color=colour, linewidth=1.6, label=printable(join_names(names)))
            sizes = 12 + 60 * rows / rows.max()
            axes.scatter(scores, shares, s=sizes, color=colour, edgecolor=CARD, linewidth=0.8, zorder=3)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("mean score")
        axes.set_ylabel("share")
        axes.grid()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0))

    return render_svg(draw, "calibration", words)


MOST_CLASSES = 12


def confusion_matrices(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prepares one confusion matrix for all formats with the same one; for many classes only the mistakes.

    Args:
        metrics: metrics of the verdict, by format.
    """
    shown = {name: values for name, values in metrics.items() if values.get("confusion")}
    groups = _group_equal(shown, lambda values: (values["confusion"], values.get("labels")))
    return [_confusion_matrix(join_names(names), values) for names, values in groups]


def _confusion_matrix(format: str, values: Mapping[str, Any]) -> dict[str, Any]:
    matrix = values["confusion"]
    labels = [str(label) for label in values.get("labels") or ()]
    labels += [str(index) for index in range(len(labels), len(matrix))]
    mistakes = [
        (count, labels[true], labels[predicted])
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    mistakes.sort(key=lambda mistake: -mistake[0])
    rows = [
        {"label": labels[true], "cells": [_cell(count, row, true == predicted) for predicted, count in enumerate(row)]}
        for true, row in enumerate(matrix)
    ]
    is_small = len(matrix) <= MOST_CLASSES
    return {"format": format, "labels": labels, "rows": rows if is_small else None, "mistakes": mistakes}


def _cell(count: int, row: list[int], is_right: bool) -> dict[str, Any]:
    return {"count": count, "percent": round(100 * count / max(1, sum(row))), "is_right": is_right}
