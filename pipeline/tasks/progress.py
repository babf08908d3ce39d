"""What luigid shows of a running task: a line, a percentage, and a link to its report."""

from __future__ import annotations

from pathlib import Path

import luigi
from luigi.rpc import RPCError

from pipeline.errors import logger
from pipeline.store.artifact import is_url


def show_progress(task: luigi.Task, line: str, percent: int) -> None:
    """Show how far a task is."""
    _notify(task, set_status_message=line, set_progress_percentage=percent)


def show_link(task: luigi.Task, report: str) -> None:
    """Show a link to the report of a task, which is a path or a URL."""
    _notify(task, set_tracking_url=report if is_url(report) else Path(report).absolute().as_uri())


def _notify(task: luigi.Task, **values: object) -> None:
    for name, value in values.items():
        notify = getattr(task, name)
        if notify is None:  # only while Luigi's worker runs the task it gives it these
            continue
        try:
            notify(value)
        except RPCError as exc:  # the work goes on; whether the scheduler is still there is found out at its end
            logger.debug("the scheduler was not told of the progress: %s", exc)
