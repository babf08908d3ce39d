"""The report's page, `report.html`: one file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.store.file_names import FROZEN_FILE

from . import verdict, wording
from .costs import costs
from .facts import ReportFacts
from .figures import comparison
from .matrix import matrix
from .plots import draw_differences, draw_training, draw_values
from .results import History, Results, Spread, read_history, read_results
from .scores import confusion_matrices, draw_scores
from .templates import TEMPLATES

MOST_CHECKS = 12  # with more checks, the passed ones are folded
MOST_REASONS = 3

CHECK_DESCRIPTIONS = {
    "made": "the format's file could be made",
    "graph": "from the files alone: each output is the same function of the inputs as the checkpoint's",
    "weights": "every constant of a variable has the bits of the checkpoint's tensor, or of its rounding to float16",
    "equal": "on every validation row, the same outputs as the checkpoint",
    "edge": "the same on edge cases, such as empty text, extreme values and NaN",
    "generated": "the same on random rows, in batches of several sizes",
    "stable": "the same outputs for the same rows again, in another order and in other batches",
    "golden": "the same as the outputs recorded when the model was trained",
    "sizes": "on rows of the data in batches of many sizes, the same outputs as the checkpoint",
    "ladders": "the same on rows over the whole range of magnitudes, lengths, ids, table entries and Unicode",
    "boundary": "the same on rows around the edge between two decisions, found by search",
    "repeated": "the same outputs after a thousand calls, and behind unusual rows",
    "runtime": "in another interpreter, such as the server's, the same outputs as the checkpoint",
    "decisions": "on every validation row, the same class as the checkpoint",
}


def page(facts: ReportFacts) -> str:
    """Renders the report as HTML.
    Raises:
        DataError: `results.csv` or `history.csv` is missing, unreadable, or lacks a column.
    """
    decision = facts.signature.decision
    names = {str(check["check"]) for check in verdict.checks(facts)}
    speeds = (facts.verdict.get("rows_per_second") or {}).items()  # of the check `equal`, by format
    results = read_results(facts.results, decision.output if decision is not None else None)
    text = (
        templates()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            verdict=facts.verdict,
            most_checks=MOST_CHECKS,
            most_reasons=MOST_REASONS,
            checks=verdict.checks(facts),
            matrix=matrix(facts),
            check_descriptions=[item for item in CHECK_DESCRIPTIONS.items() if item[0] in names],
            skipped=verdict.skipped(facts),
            speeds=wording.join_names([f"{name} {wording.number(round(speed))}" for name, speed in speeds if speed]),
            metrics=facts.verdict.get("metrics") or {},
            decisions=facts.verdict.get("decisions") or {},
            confusion_matrices=confusion_matrices(facts.verdict.get("metrics") or {}),
            scores=draw_scores(facts),
            costs=costs(facts),
            comparison=comparison(facts),
            tiles=_tiles(facts),
            results=results,
            differences=_differences(facts, results),
            training=_training(read_history(facts.history) if facts.history else History([], [])),
        )
    )
    return text if text.endswith("\n") else text + "\n"


@cache
def templates() -> Environment:
    """Returns the environment of the templates, with their filters and functions; created once per process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = ("number", "difference", "metric", "size", "duration", "shorten", "date", "whole", "count_noun")
    environment.filters |= {name: getattr(wording, name) for name in (*filters, "printable")}
    environment.filters |= {"fold": fold_numbers, "join_names": wording.join_names}
    functions = ("headline", "reasons", "reason", "tolerance", "worst", "is_passed", "is_check_passed", "metric_names")
    environment.globals |= {name: getattr(verdict, name) for name in (*functions, "causes", "notes")}
    return environment


def _make_printable(value: Any) -> Any:
    return wording.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def fold_numbers(text: Any, beside: Any = "") -> Markup:
    """Rounds numbers of many decimals; each has all of its digits in its title, and behind it when it is clicked.

    Args:
        beside: a text whose numbers must not look the same if they are others.
    """
    printable, separator = wording.printable(str(text)), "\0"
    folded = wording.round_numbers(
        f"{printable}{separator}{wording.printable(str(beside))}",
        lambda full, short: full if len(full) <= len(short) + 1 else f"\1{full}\2{short}\3",
    ).split(separator)[0]
    marked = str(escape(folded)).replace("\1", '<abbr tabindex="0" title="').replace("\2", '">')
    return Markup(marked.replace("\3", "</abbr>"))


Tile = tuple[str, str, str, bool]


def _tiles(facts: ReportFacts) -> list[Tile]:
    """Returns the most important numbers: label, number, explanation, and True if the number is bad."""
    count = wording.number(verdict.comparisons(facts))
    tiles = [("Comparisons", count, "one a line of results.csv", False), _difference_tile(facts)]
    decisions = facts.verdict.get("decisions") or {}
    if decisions:
        flipped = sum(decision["flipped"] for decision in decisions.values())
        decided = sum(decision["rows"] for decision in decisions.values())
        tiles.append(("Decisions flipped", wording.number(flipped), f"of {wording.number(decided)}", flipped > 0))
    tiles += _metric_tiles(facts.verdict.get("metrics") or {})
    if f"frozen/{FROZEN_FILE}" in facts.sizes:
        size_bytes = facts.sizes[f"frozen/{FROZEN_FILE}"]
        tiles.append((FROZEN_FILE, wording.size(size_bytes), f"{wording.number(size_bytes)} bytes", False))
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
            others = {form: value for form, value in values.items() if value != values[main]}
            rest = "".join(f"; {form} {value}" for form, value in others.items())
            same = "every format" if not others and len(values) > 1 else main
            tiles.append((name.capitalize(), values[main], f"{same}{rest}", False))
    return tiles


@dataclass(frozen=True)
class Differences:
    """Differences of one format, in words and in charts."""

    format: str
    words: str
    drawings: list[Markup]
    is_open: bool


def _differences(facts: ReportFacts, results: Results) -> list[Differences]:
    """Prepares the differences by format; open are those with failures, or else the first with a chart."""
    found: list[Differences] = []
    for index, (name, spread) in enumerate(results.spreads.items()):
        words, drawings = _spread_in_words(spread), []
        if spread.passed_by_size or spread.failed_by_size:
            own = (check for check in verdict.checks(facts) if check["format"] == name and check["check"] != "weights")
            atols = {float(check["atol"]) for check in own if check.get("atol")}
            atol = atols.pop() if len(atols) == 1 else None
            label = f"{wording.printable(name)}: {words}"
            drawings.append(Markup(draw_differences(spread, atol, f"differences-{index}", label)))
        if spread.zero < spread.rows:
            drawings += _draw_value_charts(results, name, f"values-{index}")
        found.append(Differences(name, words, drawings, bool(drawings) and spread.failed > 0))
    if not any(one.is_open for one in found):
        first = next((index for index, one in enumerate(found) if one.drawings), 0)
        found[first : first + 1] = [replace(one, is_open=bool(one.drawings)) for one in found[first : first + 1]]
    return found


def _draw_value_charts(results: Results, name: str, prefix: str) -> list[Markup]:
    drawings = []
    for number, (output, values) in enumerate(results.values.get(name, {}).items()):
        points = len(values.passed.finite) + len(values.failed.finite)
        if points:
            shown = wording.printable(output)
            every = f", one in {values.passed.stride} of those that passed" if values.passed.stride > 1 else ""
            label = (
                f"{wording.printable(name)}: {shown} of the checkpoint against the candidate, {points:,} rows{every}"
            )
            drawings.append(Markup(draw_values(values, shown, f"{prefix}-{number}", label)))
    return drawings


def _spread_in_words(spread: Spread) -> str:
    if spread.zero == spread.rows:
        return "No answer differs at all: there is nothing to draw."
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
    return f"Answers: {wording.join_names(parts)}; {failed}."


def _training(history: History) -> tuple[str, Markup | None]:
    """Describes the training in a sentence, with a chart if there are any points."""
    if not history.loss and not history.validation_loss:
        return "Nothing was trained: the weights are as they were given.", None
    sentences = []
    for name, points in (("Loss", history.loss), ("Validation loss", history.validation_loss)):
        if points:
            (first, start), (last, end) = points[0], points[-1]
            sentences.append(f"{name} from {start:.4g} at step {first:,.0f} to {end:.4g} at step {last:,.0f}.")
    text = " ".join(sentences)
    return text, Markup(draw_training(history, "training", text))
