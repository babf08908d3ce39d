"""The report in short, as Markdown for a CI job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from . import wording
from .facts import ReportFacts
from .verdict import (
    checks,
    headline,
    is_check_passed,
    is_passed,
    metric_names,
    reasons,
    skipped,
    title,
    tolerance,
    worst,
)

# An underscore inside a word is no markup (https://github.github.com/gfm/#left-flanking-delimiter-run): `multiply_add`
# stays as it is.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def summary(facts: ReportFacts) -> str:
    """Verdict, reasons, metrics, checks, and where the files are."""
    word = "✅ Passed" if is_passed(facts) else "❌ Failed"
    parts = [
        f"# {word}: {_text(facts.name)}",
        f"**{_text(headline(facts))}**",
        "\n".join(f"- {_text(reason)}" for reason in reasons(facts)),
        *_metrics(facts),
        *_checks(facts),
        *_files(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(facts: ReportFacts) -> list[str]:
    metrics = facts.verdict.get("metrics") or {}
    rows = [[name, *(wording.metric(values.get(name)) for values in metrics.values())] for name in metric_names(facts)]
    return ["## Metrics", _table(["metric", *metrics], rows)] if rows else []


def _checks(facts: ReportFacts) -> list[str]:
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
        for check in checks(facts)
    ]
    left_out = ["\n".join(f"- Skipped: {_text(each)}" for each in skipped(facts))] if skipped(facts) else []
    return ["## Checks", _table(header, rows), *left_out] if rows else left_out


def _files(facts: ReportFacts) -> list[str]:
    files = [[name, f"{wording.size(count)} ({wording.number(count)})"] for name, count in facts.sizes.items()]
    files += [[name, ""] for name in ("validation/results.csv", "report/report.html") if name not in facts.sizes]
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
