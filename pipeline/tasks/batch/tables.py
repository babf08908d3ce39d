"""The tables of a batch: all its models, for programs, for a CI job, and for people.

results.csv    a line for each model, in the list's order; the same models give the same bytes
summary.md     what failed, for a CI job's summary
junit.xml      a test suite for each model, a test case for each of its checks
report.html    a page to sort and filter, written by `page`
"""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.report.csv_cells import read_cell, write_cell
from pipeline.report.wording import count_noun, printable
from pipeline.settings import FAILED, PASSED
from pipeline.store.file_names import REPORT_FILE, RESULTS_FILE

from ..chain.parameters import Parameters
from .listing import Row
from .outcome import ERROR, Outcome

_MAX_IN_SUMMARY = 100
_MARKUP = re.compile(r"([\\`*_\[\]|~<>])")


@dataclass(frozen=True)
class Table:
    """All models of a list with their outcomes.

    Args:
        name: the name of the batch.
        rows, outcomes: in the order of the list.
    """

    name: str
    rows: Sequence[Row]
    outcomes: Sequence[Outcome]

    @property
    def counts(self) -> dict[str, int]:
        """The number of models that passed, that failed, and that stopped with an error."""
        counts = Counter(outcome.verdict for outcome in self.outcomes)
        return {verdict: counts[verdict] for verdict in (PASSED, FAILED, ERROR)}

    @property
    def kinds(self) -> dict[str, int]:
        """The number of models for each class of error, the most frequent first."""
        return dict(Counter(outcome.kind for outcome in self.outcomes if outcome.kind).most_common())

    @property
    def has_passed(self) -> bool:
        return self.counts[PASSED] == len(self.outcomes)

    @property
    def headline(self) -> str:
        """The result of the batch in a sentence."""
        if self.has_passed:
            return f"{count_noun(len(self.outcomes), 'model')}, each proven equal to its checkpoint."
        missed = len(self.outcomes) - self.counts[PASSED]
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{missed} of {count_noun(len(self.outcomes), 'model')} did not pass: {kinds}."


def write_results(path: Path, table: Table) -> None:
    """Write results.csv."""
    lines = [
        {name: write_cell(value) for name, value in _line(row, outcome).items()}
        for row, outcome in zip(table.rows, table.outcomes, strict=True)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_results(folder: Path) -> list[dict[str, str]]:
    """Return the lines of results.csv, by column."""
    with (folder / RESULTS_FILE).open(encoding="utf-8", newline="") as file:
        return [{name: read_cell(cell) for name, cell in line.items()} for line in csv.DictReader(file)]


def report_of(outcome: Outcome) -> str:
    """Return the path of the model's own report below the output root; empty if it has none."""
    return "" if outcome.verdict == ERROR else f"{outcome.name}/report/{REPORT_FILE}"


def command_of(row: Row) -> str:
    """Return the command that runs a model of the list alone."""
    given = ((item.name, getattr(row.parameters, item.name)) for item in fields(Parameters))
    options = (f"--{name.replace('_', '-')}={value}" for name, value in given if value)
    return shlex.join(["luigi", "--module", "pipeline", "WriteReport", *options])


def _line(row: Row, outcome: Outcome) -> dict[str, Any]:
    figures = {name: getattr(outcome, name) for name in ("comparisons", "max_abs_diff", "flipped", "size_bytes")}
    return {
        "name": outcome.name,
        "checkpoint": row.checkpoint,
        "model": row.parameters.model,
        "verdict": outcome.verdict,
        "error": outcome.kind,
        "reason": " ".join(outcome.reason.split()),
        "formats": " ".join(outcome.formats),
        **(figures if outcome.verdict != ERROR else dict.fromkeys(figures)),
        "sha256": outcome.digest,
        "report": report_of(outcome),
    }


def summary(table: Table) -> str:
    """Return a short summary as Markdown: which models failed, and how many passed."""
    word = "✅ Passed" if table.has_passed else "❌ Failed"
    parts = [f"# {word}: {_escape(table.name)}", f"**{_escape(table.headline)}**"]
    missed = [outcome for outcome in table.outcomes if not outcome.has_passed]
    if missed:
        lines = ["| model | verdict | error | reason |", "|---|---|---|---|"]
        lines += [
            f"| {_escape(outcome.name)} | {outcome.verdict} | {outcome.kind} | {_escape(outcome.reason)} |"
            for outcome in missed[:_MAX_IN_SUMMARY]
        ]
        parts.append("\n".join(lines))
        if len(missed) > _MAX_IN_SUMMARY:
            parts.append(f"And {len(missed) - _MAX_IN_SUMMARY} more: see results.csv.")
    parts.append(f"{count_noun(table.counts[PASSED], 'model')} passed.")
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(printable(text).split()))


def junit(table: Table) -> str:
    """Return a JUnit `testsuites` document for CI servers; a model that could not be compared is an error."""
    root = ElementTree.Element("testsuites", {"name": printable(table.name)})
    totals: Counter[str] = Counter()
    for outcome in table.outcomes:
        suite = ElementTree.SubElement(root, "testsuite", {"name": printable(outcome.name)})
        counts: Counter[str] = Counter()
        for name, kind, message in _cases(outcome):
            case = ElementTree.SubElement(suite, "testcase", classname=printable(outcome.name), name=printable(name))
            counts["tests"] += 1
            if kind:
                problem = ElementTree.SubElement(case, kind, message=printable(message), type=outcome.kind)
                problem.text = printable(message)
                counts[f"{kind}s"] += 1
        seconds = sum(outcome.seconds.values())
        totals += counts
        _set_counts(suite, counts, seconds)
    _set_counts(root, totals, sum(sum(outcome.seconds.values()) for outcome in table.outcomes))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _set_counts(element: ElementTree.Element, counts: Counter[str], seconds: float) -> None:
    for name in ("tests", "failures", "errors"):
        element.set(name, str(counts[name]))
    element.set("time", f"{seconds:.3f}")


def _cases(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Yield the test cases of a model: name, `failure` or `error` if it did not pass, and the message."""
    if outcome.verdict == ERROR:
        yield "convert", "error", outcome.reason
        return
    for check in outcome.checks:
        has_failed = check["verdict"] != PASSED
        yield check["name"], "failure" if has_failed else "", check["reason"]
    if outcome.verdict == FAILED and all(check["verdict"] == PASSED for check in outcome.checks):
        yield "verdict", "failure", outcome.reason
