"""Short report in Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.settings import FAILED, PASSED
from pipeline.store.file_names import REPORT_FILE, RESULTS_FILE

from . import wording
from .costs import costs
from .facts import ReportFacts
from .figures import comparison
from .gist import Check
from .matrix import SKIPPED, matrix
from .verdict import (
    causes,
    checks,
    failed_checks,
    headline,
    is_check_passed,
    is_passed,
    metric_names,
    notes,
    reasons,
    skipped,
    title,
    tolerance,
    worst,
)

MOST_REASONS = 8
MOST_CHANGES = 6
MOST_CHECKS = 24

# An underscore inside a word is no markup (https://github.github.com/gfm/#left-flanking-delimiter-run): `multiply_add`
# stays as it is.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def summary(facts: ReportFacts) -> str:
    """Writes verdict, causes and reasons, checks by format, metrics, costs, changes, and files."""
    word = "✅ Passed" if is_passed(facts) else "❌ Failed"
    parts = [
        f"# {word}: {_escape(facts.name)}",
        f"**{_escape(headline(facts))}**",
        *_reasons(facts),
        *_matrix(facts),
        *_metrics(facts),
        *_costs(facts),
        *_comparison(facts),
        *_checks(facts),
        *_files(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _reasons(facts: ReportFacts) -> list[str]:
    sentences = [f"Cause: {wording.join_names(each.formats)}, {each.kind}: {each.sentence}" for each in causes(facts)]
    sentences += reasons(facts)
    lines = [f"- {_escape(wording.round_numbers(sentence))}" for sentence in sentences[:MOST_REASONS]]
    if len(sentences) > MOST_REASONS:
        lines.append(f"- and {len(sentences) - MOST_REASONS} more, see the report")
    return ["\n".join([*lines, *(f"- {_escape(note)}" for note in notes(facts))])]


def _matrix(facts: ReportFacts) -> list[str]:
    found = matrix(facts)
    signs = {PASSED: "✅ ", FAILED: "❌ ", SKIPPED: "⏭️ "}
    rows = [[format, *(f"{signs.get(cell.state, '')}{cell.text}" for cell in cells)] for format, cells in found.rows]
    left_out = ["\n".join(f"- Skipped: {_escape(each)}" for each in skipped(facts))] if skipped(facts) else []
    return ["## Checks", _table(["format", *found.columns], rows), *left_out] if rows else left_out


def _metrics(facts: ReportFacts) -> list[str]:
    metrics = facts.verdict.get("metrics") or {}
    rows = [[name, *(wording.metric(values.get(name)) for values in metrics.values())] for name in metric_names(facts)]
    rows += [
        ["decisions flipped", *(wording.difference(decisions.get(form, {}).get("flipped")) for form in metrics)]
        for decisions in [facts.verdict.get("decisions") or {}]
        if rows and decisions
    ]
    return ["## Metrics", _table(["metric", *metrics], rows)] if rows else []


def _costs(facts: ReportFacts) -> list[str]:
    found = costs(facts, with_drawings=False)
    if found is None:
        return []
    lead = [_escape(found.recommendation)] if found.recommendation else []
    return ["## Costs", *lead, _table(["format", *found.columns], [[name, *cells] for name, cells in found.rows])]


def _comparison(facts: ReportFacts) -> list[str]:
    """Lists the differences from the last report."""
    found = comparison(facts)
    if found is None:
        return []
    lines = [f"- {_escape(found.verdict)} (last report: {_escape(found.then)})"]
    for format, cells in found.rows:
        changed = [
            f"{column} {was} → {now}"
            for column, (was, now, differs) in zip(found.columns, cells, strict=True)
            if differs
        ]
        if changed:
            lines.append(f"- {_escape(format)}: {_escape(', '.join(changed))}")
    lines += [f"- {_escape(f'{what}: {was} → {now}')}" for what, was, now in found.changes[:MOST_CHANGES]]
    if len(found.changes) > MOST_CHANGES:
        lines.append(f"- and {len(found.changes) - MOST_CHANGES} more changes")
    return ["## Since the last report", "\n".join(lines)]


def _checks(facts: ReportFacts) -> list[str]:
    """Shows the numbers of the failed checks, and folded those of the passed checks if they are few."""
    failed = failed_checks(facts)
    passed = [check for check in checks(facts) if is_check_passed(check)]
    parts = ["## Failed checks", _check_table(failed)] if failed else []
    if passed and len(passed) <= MOST_CHECKS:
        title = f"<details><summary>{wording.count_noun(len(passed), 'check')} passed, in numbers</summary>"
        parts += [title, _check_table(passed), "</details>"]
    return parts


def _check_table(shown: Sequence[Check]) -> str:
    header = ["verdict", "format, check, output", "rows failed", "max diff", "max ulp", "tolerance", "worst row"]
    rows = [
        [
            "✅ passed" if is_check_passed(check) else "❌ failed",
            title(check),
            f"{wording.number(check.get('rows_failed', 0))} of {wording.number(check.get('rows', 0))}",
            wording.difference(check.get("max_abs_diff")),
            wording.difference(check.get("max_ulp_diff")),
            tolerance(check),
            "" if is_check_passed(check) else worst(check),
        ]
        for check in shown
    ]
    return _table(header, rows)


def _files(facts: ReportFacts) -> list[str]:
    files = [[name, f"{wording.size(count)} ({wording.number(count)})"] for name, count in facts.sizes.items()]
    files += [[name, ""] for name in (f"validation/{RESULTS_FILE}", f"report/{REPORT_FILE}") if name not in facts.sizes]
    return ["## Files", _table(["file", "size (bytes)"], files)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_escape(cell) for cell in row] for row in rows)]
    lines[0] = [_escape(cell) for cell in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(value: str) -> str:
    """Escapes a value, so that it is shown literally on one line, without markup or HTML."""
    line = " ".join(wording.printable(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda match: "\\" + match[0], line)
