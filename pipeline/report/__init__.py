"""Reports on a verdict: an HTML page, a Markdown summary for CI, JUnit XML, and key figures for the next report.

A report shows the results of validation and makes no judgement of its own. It calls a model proven equal only
if the verdict and every check say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.store.file_names import JUNIT_FILE, REPORT_FIGURES_FILE, REPORT_FILE, SUMMARY_FILE

if TYPE_CHECKING:
    from .facts import ReportFacts


def write_report(folder: Path, facts: ReportFacts) -> None:
    """Writes `report.html`, `summary.md`, `junit.xml` and `report.json`; the same facts give the same bytes.

    Args:
        folder: an existing folder.
        facts: the content of the report.

    Raises:
        StoreError: the folder does not exist, or cannot be written to.
        DataError: `results.csv` or `history.csv` is missing, unreadable, or lacks a column.
    """
    # Imported here: matplotlib, jinja2 and pandas take a second to import.
    from .figures import report_json
    from .html import page
    from .junit import junit
    from .summary import summary

    if not folder.is_dir():
        raise StoreError("the report's folder does not exist", where=folder, next_step="Create it first")
    texts = {
        REPORT_FILE: page(facts),
        SUMMARY_FILE: summary(facts),
        JUNIT_FILE: junit(facts),
        REPORT_FIGURES_FILE: report_json(facts),
    }
    for name, text in texts.items():
        try:
            (folder / name).write_bytes(text.encode("utf-8"))
        except OSError as exc:
            raise StoreError("the report cannot be written", where=folder / name, got=exc) from exc
