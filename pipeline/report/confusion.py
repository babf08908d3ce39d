"""Confusion matrices as a page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .wording import listed

MOST_CLASSES = 12


def confusions(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For all formats with the same matrix: its labels, its rows, and for many classes only the commonest mistakes.

    Args:
        metrics: as they stand in the verdict, by format.
    """
    groups: list[tuple[list[str], Mapping[str, Any]]] = []
    for name, values in metrics.items():
        alike = (names for names, own in groups if (own["confusion"], own.get("labels")) == _told(values))
        if names := next(alike, None):
            names.append(name)
        elif values.get("confusion"):
            groups.append(([name], values))
    return [_confusion(listed(names), values) for names, values in groups]


def _told(values: Mapping[str, Any]) -> tuple[Any, Any]:
    return values.get("confusion"), values.get("labels")


def _confusion(format: str, values: Mapping[str, Any]) -> dict[str, Any]:
    matrix = values["confusion"]
    labels = [str(label) for label in values.get("labels") or ()]
    labels += [str(index) for index in range(len(labels), len(matrix))]
    mistakes = [
        (count, labels[true], labels[given])
        for true, row in enumerate(matrix)
        for given, count in enumerate(row)
        if count and true != given
    ]
    mistakes.sort(key=lambda mistake: -mistake[0])
    rows = [
        {"label": labels[true], "cells": [_cell(count, row, true == given) for given, count in enumerate(row)]}
        for true, row in enumerate(matrix)
    ]
    is_small = len(matrix) <= MOST_CLASSES
    return {"format": format, "labels": labels, "rows": rows if is_small else None, "mistakes": mistakes}


def _cell(count: int, row: list[int], is_right: bool) -> dict[str, Any]:
    return {"count": count, "percent": round(100 * count / max(1, sum(row))), "is_right": is_right}
