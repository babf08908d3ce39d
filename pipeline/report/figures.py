"""Key figures of a report, stored in `report.json` for comparison with the next report.

    {"schema": 1, "figures": {…}, "before": [figures of the previous reports, the newest first]}

A new report replaces the last one, so it takes over the figures of the previous reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.settings import FAILED, PASSED

from . import wording
from .facts import ReportFacts
from .verdict import against_reference, candidates, checks, comparisons, headline, is_check_passed, is_passed, severity

SCHEMA = 1
MOST_KEPT = 10

Figures = Mapping[str, Any]


def report_json(facts: ReportFacts) -> str:
    """Returns the text of `report.json`."""
    content = {"schema": SCHEMA, "figures": figures(facts), "before": previous_figures(facts)}
    return json.dumps(content, indent=1, default=str) + "\n"


def figures(facts: ReportFacts) -> dict[str, Any]:
    """Collects the key figures of this report, as plain values."""
    formats = [*candidates(facts)]
    reference = [name for name in (facts.verdict.get("metrics") or {}) if name not in formats]
    return {
        "made": next((stage.made for stage in reversed(facts.stages) if stage.made), None),
        "verdict": PASSED if is_passed(facts) else FAILED,
        "headline": headline(facts),
        "comparisons": comparisons(facts),
        "formats": {name: _format_figures(facts, name) for name in (*formats, *reference)},
        "settings": facts.settings,
        "versions": facts.versions,
        "inputs": facts.inputs,
        "digests": _digests(facts),
    }


def previous_figures(facts: ReportFacts) -> list[Figures]:
    """Returns the figures of the previous reports, the newest first; empty if they cannot be read.

    A report on the same artifacts as the last one replaces it, and is compared with the report before that.
    """
    last = facts.previous or {}
    if last.get("schema") != SCHEMA or not isinstance(last.get("figures"), Mapping):
        return []
    previous = [last["figures"], *(last.get("before") or ())]
    if previous[0].get("digests") == _digests(facts):
        del previous[0]
    return previous[:MOST_KEPT]


def _digests(facts: ReportFacts) -> dict[str, str]:
    return {stage.stage: stage.digest for stage in facts.stages}


def _format_figures(facts: ReportFacts, name: str) -> dict[str, Any]:
    own = [check for check in checks(facts) if check["format"] == name]
    sizes = [check["max_abs_diff"] for check in against_reference(facts) if check["format"] == name]
    measured = [size for size in sizes if size is not None]
    metrics = (facts.verdict.get("metrics") or {}).get(name) or {}
    decisions = (facts.verdict.get("decisions") or {}).get(name) or {}
    costs = ((facts.costs or {}).get("formats") or {}).get(name) or {}
    files = [count for file, count in facts.sizes.items() if file.startswith(f"{name}/")]
    return {
        "verdict": (PASSED if all(map(is_check_passed, own)) else FAILED) if own else None,
        "max_abs_diff": max(measured, key=severity, default=None),
        "flipped": decisions.get("flipped"),
        "accuracy": metrics.get("accuracy"),
        "f1": metrics.get("f1"),
        "size_bytes": sum(files) if files else None,
        "first_answer_seconds": costs.get("first_answer_seconds"),
        "p50_ms": ((costs.get("batches") or {}).get("1") or {}).get("p50_ms"),
    }


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "verdict": ("Verdict", str),
    "max_abs_diff": ("Largest difference", wording.difference),
    "flipped": ("Decisions flipped", wording.difference),
    "accuracy": ("Accuracy", wording.metric),
    "f1": ("F1", wording.metric),
    "size_bytes": ("Size", wording.size),
    "first_answer_seconds": ("First answer", wording.duration),
    "p50_ms": ("p50, 1 row", wording.milliseconds),
}


@dataclass(frozen=True)
class Comparison:
    """Comparison of this report with the previous one.

    Args:
        then, now: times of both reports, as text.
        verdict: both verdicts as a sentence.
        columns: titles of the figures that either report has.
        rows: format, and for each column the old value, the new value, and True if they differ.
        changes: name, old and new value of settings, versions and inputs that differ.
        changed_stages, unchanged_stages: stages whose artifacts have other bytes, or the same.
        trend: time, verdict and figures of the last reports, the newest first.
    """

    then: str
    now: str
    verdict: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str, bool]]]]
    changes: Sequence[tuple[str, str, str]]
    changed_stages: Sequence[str]
    unchanged_stages: Sequence[str]
    trend: Sequence[tuple[str, str, Sequence[str]]]


def comparison(facts: ReportFacts) -> Comparison | None:
    """Compares this report with the previous one; None if there is none."""
    before = previous_figures(facts)
    if not before:
        return None
    then, now = before[0], figures(facts)
    ours, theirs = now["formats"], then.get("formats") or {}
    names = [*ours, *(name for name in theirs if name not in ours)]
    known = [*ours.values(), *theirs.values()]
    columns = [key for key in _COLUMNS if any(own.get(key) is not None for own in known)]
    changed_stages, unchanged_stages = _compare_stages(then, now)
    rows = [
        (name, [_compare_figure(theirs.get(name) or {}, ours.get(name) or {}, key) for key in columns])
        for name in names
    ]
    return Comparison(
        then=wording.date(then.get("made")),
        now=wording.date(now["made"]),
        verdict=_verdicts(str(then.get("verdict")), now["verdict"]),
        columns=[_COLUMNS[key][0] for key in columns],
        rows=rows,
        changes=list(_changes(then, now)),
        changed_stages=changed_stages,
        unchanged_stages=unchanged_stages,
        trend=[_trend_row(one) for one in (now, *before)] if len(before) > 1 else [],
    )


def _verdicts(then: str, now: str) -> str:
    if then == now:
        return f"The last report {now} too."
    return "It passes now; the last report failed." if now == PASSED else "It fails now; the last report passed."


def _compare_figure(then: Figures, now: Figures, key: str) -> tuple[str, str, bool]:
    text = _COLUMNS[key][1]
    was, is_ = (wording.NOTHING if own.get(key) is None else text(own[key]) for own in (then, now))
    return was, is_, was != is_


def _trend_row(one: Figures) -> tuple[str, str, Sequence[str]]:
    formats = one.get("formats") or {}
    own: Figures = next(iter(formats.values()), {})
    keys = ("max_abs_diff", "accuracy", "f1", "size_bytes")
    shown = [wording.NOTHING if own.get(key) is None else _COLUMNS[key][1](own[key]) for key in keys]
    return wording.date(one.get("made")), str(one.get("verdict")), shown


def _changes(then: Figures, now: Figures) -> Iterator[tuple[str, str, str]]:
    """Lists name, old and new value of settings, versions and inputs that differ."""
    for title, key in (("", "settings"), ("", "versions"), ("bytes of ", "inputs")):
        # Converted to JSON and back, like the values of the last report: a tuple becomes a list.
        was, is_ = (_flat(json.loads(json.dumps(side.get(key) or {}, default=str))) for side in (then, now))
        for name in [*is_, *(name for name in was if name not in is_)]:
            if was.get(name) != is_.get(name):
                yield f"{title}{name}", _value_text(was.get(name), key), _value_text(is_.get(name), key)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _value_text(value: Any, key: str) -> str:
    if value is None:
        return wording.NOTHING
    return f"{str(value)[:12]}…" if key == "inputs" else str(value)


def _compare_stages(then: Figures, now: Figures) -> tuple[list[str], list[str]]:
    """Lists changed and unchanged stages; not validation, whose artifact differs every time by its durations."""
    was, is_ = (side.get("digests") or {} for side in (then, now))
    stages = [stage for stage in is_ if stage != "validation"]
    return [stage for stage in stages if was.get(stage) != is_[stage]], [
        stage for stage in stages if was.get(stage) == is_[stage]
    ]
