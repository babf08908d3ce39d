"""Errors of ours are one sentence in Luigi's log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest

from pipeline.errors import PipelineError
from pipeline.store import folder  # noqa: F401  # defines errors of its own
from pipeline.tasks import console


def kinds(kind: type[PipelineError] = PipelineError) -> Iterator[type[PipelineError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_an_error_of_ours_is_logged_without_its_traceback_wherever_its_class_stands(kind: type[PipelineError]) -> None:
    try:
        raise kind("it is broken")
    except PipelineError as exc:
        text = "".join(traceback.format_exception(exc))
    said = f"Will not run X or any dependencies due to error in complete() method:\n{text}"  # as Luigi says it
    logging.getLogger("at the usual level").setLevel(logging.INFO)
    record = logging.LogRecord("at the usual level", logging.WARNING, __file__, 1, said, None, None)
    assert console._Sentences().filter(record)
    assert "Traceback" not in record.getMessage()
    assert "complete() method:\nit is broken" in record.getMessage()


def test_luigis_summary_names_our_tasks_without_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "\n===== Luigi Execution Summary =====\n\n* 1 ran successfully:\n    - 1 FreezeModel(...)\n"
    for is_ours, line in ((True, "    - 1 FreezeModel\n"), (False, "    - 1 FreezeModel(...)\n")):
        monkeypatch.setattr(console, "runs_our_command", lambda is_ours=is_ours: is_ours)
        record = logging.LogRecord("at the usual level", logging.INFO, __file__, 1, said, None, None)
        assert console._Sentences().filter(record)
        assert record.getMessage().endswith(line)
