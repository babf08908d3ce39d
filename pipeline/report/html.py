"""The page: one file that opens offline, readable in a minute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import verdict, wording
from .facts import ReportFacts
from .plots import draw_differences, draw_training
from .results import History, Results, Spread, read_history, read_results

MOST_CLASSES = 12

CHECKS_IN_WORDS = {
    "made": "the format's file could be made",
    "weights": "every constant of a variable has the bits of the checkpoint's tensor, or of its rounding to float16",
    "equal": "on every validation row, the same outputs as the checkpoint",
    "edge": "the same on rows made to be awkward",
    "generated": "the same on random rows, in batches of several sizes",
    "stable": "the same answers when asked again, in another order and other batches",
    "golden": "the same as the outputs recorded when the model was trained",
}


def page(facts: ReportFacts) -> str:
    """The report as HTML.

    Raises:
        DataError: `results.csv` or `history.csv` is missing, unreadable, or lacks a column.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = ("number", "difference", "metric", "size", "duration", "shortened")
    environment.filters |= {name: getattr(wording, name) for name in words}
    judged = ("headline", "reasons", "reason", "tolerance", "worst", "is_passed", "is_check_passed", "metric_names")
    environment.globals |= {name: getattr(verdict, name) for name in judged}
    results = read_results(facts.results)
    text = environment.get_template("template.html.j2").render(
        facts=facts,
        verdict=facts.verdict,
        checks=verdict.checks(facts),
        checks_in_words=[(name, CHECKS_IN_WORDS[name]) for name in CHECKS_IN_WORDS if name in _check_names(facts)],
        skipped=verdict.skipped(facts),
        metrics=facts.verdict.get("metrics") or {},
        decisions=facts.verdict.get("decisions") or {},
        confusions=_confusions(facts.verdict.get("metrics") or {}),
        tiles=_tiles(facts),
        results=results,
        differences=_differences(facts, results),
        training=_training(read_history(facts.history) if facts.history else History([], [])),
    )
    return text if text.endswith("\n") else text + "\n"


def _visible(value: Any) -> Any:
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _check_names(facts: ReportFacts) -> set[str]:
    return {str(check["check"]) for check in verdict.checks(facts)}


Tile = tuple[str, str, str, bool]


def _tiles(facts: ReportFacts) -> list[Tile]:
    """The numbers that most readers come for: label, number, explanation, and whether it is bad news."""
    rows: Mapping[str, int] = facts.verdict.get("rows") or {}
    kinds = ", ".join(f"{wording.number(count)} {kind}" for kind, count in rows.items())
    tiles = [("Rows compared", wording.number(sum(rows.values())), kinds, False), _difference_tile(facts)]
    decisions = facts.verdict.get("decisions") or {}
    if decisions:
        flipped = sum(decision["flipped"] for decision in decisions.values())
        decided = sum(decision["rows"] for decision in decisions.values())
        tiles.append(("Decisions flipped", wording.number(flipped), f"of {wording.number(decided)}", flipped > 0))
    tiles += _metric_tiles(facts.verdict.get("metrics") or {})
    if "frozen/model.pb" in facts.sizes:
        size_bytes = facts.sizes["frozen/model.pb"]
        tiles.append(("model.pb", wording.size(size_bytes), f"{wording.number(size_bytes)} bytes", False))
    return tiles


def _difference_tile(facts: ReportFacts) -> Tile:
    label, check = "Largest difference", verdict.largest(facts)
    if check is None:
        return label, wording.NOTHING, "no output is a number", False
    if check["max_abs_diff"] == 0:
        is_exact = all(each.get("bit_equal") for each in verdict.against_reference(facts))
        return label, "0", "bit-equal" if is_exact else "equal, not everywhere bit for bit", False
    explanation = f"allowed {verdict.tolerance(check)}"
    return label, wording.difference(check["max_abs_diff"]), explanation, not verdict.is_check_passed(check)


def _metric_tiles(metrics: Mapping[str, Mapping[str, Any]]) -> list[Tile]:
    tiles = []
    for name in ("accuracy", "f1"):
        values = {form: wording.metric(found[name]) for form, found in metrics.items() if name in found}
        if values:
            main = next((form for form in values if form != verdict.REFERENCE), next(iter(values)))
            rest = "".join(f"; {form} {value}" for form, value in values.items() if form != main)
            tiles.append((name.capitalize(), values[main], f"{main}{rest}", False))
    return tiles


def _differences(facts: ReportFacts, results: Results) -> list[tuple[str, str, Markup | None]]:
    """By format: its name, its differences as a sentence, and a drawing where there is any."""
    found = []
    for index, (name, spread) in enumerate(results.spreads.items()):
        text, drawing = _spread_in_words(spread), None
        if spread.passed_by_size or spread.failed_by_size:
            own = (check for check in verdict.checks(facts) if check["format"] == name)
            atols = {float(check["atol"]) for check in own if check.get("atol")}
            atol = atols.pop() if len(atols) == 1 else None
            drawing = Markup(draw_differences(spread, atol, f"differences-{index}", f"{wording.visible(name)}: {text}"))
        found.append((name, text, drawing))
    return found


def _spread_in_words(spread: Spread) -> str:
    compared = f"{wording.counted(spread.rows, 'row')} compared"
    if spread.zero == spread.rows:
        return f"{compared}, all without any difference: there is nothing to draw."
    parts = [f"{wording.number(spread.zero)} without any difference"]
    sized = sum(spread.passed_by_size.values()) + sum(spread.failed_by_size.values())
    if sized:
        low, high = wording.difference(spread.smallest), wording.difference(spread.largest)
        parts.append(f"{wording.number(sized)} {f'by {low}' if low == high else f'between {low} and {high}'}")
    if spread.infinite:
        parts.append(f"{wording.number(spread.infinite)} by infinity")
    if spread.unmeasured:
        parts.append(f"{wording.number(spread.unmeasured)} without a number (text, or not a number)")
    failed = f"{wording.number(spread.failed)} failed" if spread.failed else "none failed"
    return f"{compared}: {wording.listed(parts)}; {failed}."


def _training(history: History) -> tuple[str, Markup | None]:
    """The training as a sentence, and a drawing where there is any point."""
    if not history.loss and not history.validation_loss:
        return "Nothing was trained: the weights are as they were given.", None
    sentences = []
    for name, points in (("Loss", history.loss), ("Validation loss", history.validation_loss)):
        if points:
            (first, start), (last, end) = points[0], points[-1]
            sentences.append(f"{name} from {start:.4g} at step {first:,.0f} to {end:.4g} at step {last:,.0f}.")
    text = " ".join(sentences)
    return text, Markup(draw_training(history, "training", text))


def _confusions(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By format with a confusion matrix: its labels, its rows, and for many classes only the commonest mistakes."""
    found = []
    for name, values in metrics.items():
        matrix = values.get("confusion")
        if not matrix:
            continue
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
        found.append({"format": name, "labels": labels, "rows": rows if is_small else None, "mistakes": mistakes})
    return found


def _cell(count: int, row: list[int], is_right: bool) -> dict[str, Any]:
    return {"count": count, "percent": round(100 * count / max(1, sum(row))), "is_right": is_right}
