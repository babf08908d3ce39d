"""The report in short, as Markdown for a CI job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.store.files import REPORT_FILE, RESULTS_FILE

from . import wording
from .costs import costs
from .facts import ReportFacts
from .figures import comparison
from .matrix import FAILED, PASSED, SKIPPED, matrix
from .verdict import (
    Check,
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
    """Verdict, causes and reasons, checks by format, metrics, costs, and where the files are."""
    word = "✅ Passed" if is_passed(facts) else "❌ Failed"
    parts = [
        f"# {word}: {_text(facts.name)}",
        f"**{_text(headline(facts))}**",
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
    told = [f"Cause: {each.formats}, {each.kind}: {each.sentence}" for each in causes(facts)]
    told += reasons(facts)
    lines = [f"- {_text(reason)}" for reason in told[:MOST_REASONS]]
    if len(told) > MOST_REASONS:
        lines.append(f"- and {len(told) - MOST_REASONS} more, which the report tells")
    return ["\n".join([*lines, *(f"- {_text(note)}" for note in notes(facts))])]


def _matrix(facts: ReportFacts) -> list[str]:
    found = matrix(facts)
    signs = {PASSED: "✅ ", FAILED: "❌ ", SKIPPED: "⏭️ "}
    rows = [[format, *(f"{signs.get(cell.state, '')}{cell.text}" for cell in cells)] for format, cells in found.rows]
    left_out = ["\n".join(f"- Skipped: {_text(each)}" for each in skipped(facts))] if skipped(facts) else []
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
    found = costs(facts, is_drawn=False)
    if found is None:
        return []
    lead = [_text(found.recommendation)] if found.recommendation else []
    return ["## Costs", *lead, _table(["format", *found.columns], [[name, *cells] for name, cells in found.rows])]


def _comparison(facts: ReportFacts) -> list[str]:
    """What differs from the last report, on a few lines."""
    found = comparison(facts)
    if found is None:
        return []
    lines = [f"- {_text(found.verdict)} (last report: {_text(found.then)})"]
    for format, cells in found.rows:
        changed = [
            f"{column} {was} → {now}"
            for column, (was, now, differs) in zip(found.columns, cells, strict=True)
            if differs
        ]
        if changed:
            lines.append(f"- {_text(format)}: {_text(', '.join(changed))}")
    lines += [f"- {_text(f'{what}: {was} → {now}')}" for what, was, now in found.changes[:MOST_CHANGES]]
    if len(found.changes) > MOST_CHANGES:
        lines.append(f"- and {len(found.changes) - MOST_CHANGES} more changes")
    return ["## Since the last report", "\n".join(lines)]


def _checks(facts: ReportFacts) -> list[str]:
    """Every check in its numbers: what failed in sight, the rest folded away, and left to the page if there is much."""
    failed = failed_checks(facts)
    passed = [check for check in checks(facts) if is_check_passed(check)]
    parts = ["## What failed", _check_table(failed)] if failed else []
    if passed and len(passed) <= MOST_CHECKS:
        title = f"<details><summary>{wording.counted(len(passed), 'check')} passed, in numbers</summary>"
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
    lines = [header, ["---"] * len(header), *([_text(cell) for cell in row] for row in rows)]
    lines[0] = [_text(cell) for cell in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """A value that is shown as it is: no markup, no HTML, one line."""
    line = " ".join(wording.visible(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda match: "\\" + match[0], line)
