"""The page of a batch: one file that works offline, with a table to sort and filter."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from pipeline.report.html import templates
from pipeline.report.templates import TEMPLATES
from pipeline.settings import FAILED, PASSED
from pipeline.store.file_names import JUNIT_FILE, REPORT_FILE, RESULTS_FILE, SUMMARY_FILE

from .outcome import ERROR
from .tables import Table, command_of, junit, report_of, summary, write_results

_HERE = Path(__file__).parent
_ORDER = {FAILED: 0, ERROR: 1, PASSED: 2}


def write_tables(folder: Path, table: Table) -> None:
    """Write the four files of a batch."""
    write_results(folder / RESULTS_FILE, table)
    for name, text in ((SUMMARY_FILE, summary(table)), (JUNIT_FILE, junit(table)), (REPORT_FILE, page(table))):
        (folder / name).write_text(text, encoding="utf-8")


def page(table: Table) -> str:
    """Render the page as HTML; models that did not pass come first."""
    script = (_HERE / "table.js").read_text(encoding="utf-8")
    pairs = sorted(zip(table.rows, table.outcomes, strict=True), key=lambda pair: _ORDER[pair[1].verdict])
    text = (
        _templates()
        .get_template("batch.html.j2")
        .render(
            table=table,
            pairs=pairs,
            report_of=report_of,
            command_of=command_of,
            script=script,
            # The page may run this script only.
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            seconds=sum(sum(outcome.seconds.values()) for outcome in table.outcomes),
            comparisons=sum(outcome.comparisons for outcome in table.outcomes),
            size_bytes=sum(outcome.size_bytes for outcome in table.outcomes),
        )
    )
    return text if text.endswith("\n") else text + "\n"


@cache
def _templates() -> Environment:
    return templates().overlay(loader=FileSystemLoader([_HERE, TEMPLATES]))
