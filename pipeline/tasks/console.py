"""Console output of a run: errors as sentences in the log, and a summary at the end."""

from __future__ import annotations

import concurrent.futures.thread  # loaded here: see `_register_before_shutdown`
import json
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import luigi
import luigi.configuration
import luigi.interface
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import TaskClassException

from pipeline.errors import PipelineError, printable
from pipeline.workers.worker import die_with_parent, set_up_logging

from .command_line import runs_our_command
from .external import MustExist

# In texts, and compiled by the first error: most runs have none.
_OUR_ERROR = r"(?s)Traceback \(most recent call last\):.*?\npipeline\.[\w.]+: (.*)"
# What Luigi says of the parameters of a range is a sentence too.
_PARAMETER_ERROR = r"(?s)Traceback \(most recent call last\):.*?\nluigi\.parameter\.\w+: (.*)"


class _Sentences(logging.Filter):
    """Log the pipeline's own errors as one sentence, without a traceback, unless somebody asked for DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG) and _is_level_given():
            return True
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PipelineError):
            record.msg, record.args = "%s: %s", (record.getMessage().strip(), error)
            record.exc_info = record.exc_text = None
        elif "Traceback" in str(record.msg):
            message = re.sub(_OUR_ERROR, r"\1", record.getMessage())
            record.msg = re.sub(_PARAMETER_ERROR, r"\1", message) if runs_our_command() else message
            record.args = None
        elif "Luigi Execution Summary" in str(record.msg) and runs_our_command():
            # Luigi leaves out the parameters where their names are long: all of ours, as there are so many.
            record.msg, record.args = record.getMessage().replace("(...)", ""), None
        return True


def _is_level_given() -> bool:
    """Return True if a file or the command line sets the log level: Luigi's own default is DEBUG."""
    command = CmdlineParser.get_instance()
    if command is not None and getattr(command.known_args, "core_log_level", None):
        return True
    config: Any = luigi.configuration.get_config()
    return bool(config.has_option("core", "log_level"))


class _Failures:
    """The failed tasks of a run, with their sentences, in a file without a name.

    Luigi's workers are forked, and report a failed task to their parent without its error. They inherit the file. On
    Linux it is in memory, because a full disk may be what failed.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = (
            os.fdopen(os.memfd_create("failures"), "w+b", buffering=0)
            if sys.platform == "linux"
            else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as this process lives
        )

    def note(self, task: luigi.Task, error: BaseException) -> None:
        """Note a failed task; this is Luigi's handler of the event."""
        if isinstance(error, PipelineError):
            self._write(f"{task.task_family}: {error}")

    def note_missing(self, task: luigi.Task) -> None:
        """Note a file that a run starts from and that is missing; this is Luigi's handler of the event."""
        if isinstance(task, MustExist) and (problem := task.find_problem(Path(task.path))) is not None:
            self._write(problem)

    def _write(self, sentence: str) -> None:
        self._file.write(json.dumps(sentence).encode() + b"\n")

    def sentences(self) -> list[str]:
        """Return the sentences noted so far, by this process and its workers."""
        self._file.seek(0)
        return [json.loads(line) for line in self._file.read().splitlines()]


def _close(summary_lines: Callable[[], list[str]], failures: _Failures, exits_zero: Callable[[], bool]) -> None:
    """Print the summary to standard output; exit with 0 if `exits_zero` says so, regardless of Luigi's exit code."""
    is_zero = False
    try:
        lines = summary_lines()
        is_zero = exits_zero()
    except PipelineError as exc:
        lines = [f"failed       {exc}"]
    for line in [*lines, *(f"failed       {failure}" for failure in failures.sentences())]:
        print(printable(line))
    sys.stdout.flush()
    if is_zero:
        sys.stderr.flush()
        os._exit(0)


def set_up() -> None:
    """Make Luigi report our own errors, and its command an unknown task, in one sentence."""
    logging.getLogger("luigi-interface").addFilter(_Sentences())
    if Path(sys.argv[0]).name != "luigi":
        return
    former = sys.excepthook

    def print_unknown_task(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, TaskClassException):
            print(" ".join(str(error).split()), file=sys.stderr)
        else:
            former(kind, error, trace)

    sys.excepthook = print_unknown_task


def start_run(summary_lines: Callable[[], list[str]], exits_zero: Callable[[], bool] = lambda: False) -> None:
    """Prepare a run from the command line when its root task is known.

    Args:
        summary_lines: returns the lines to print at the end.
        exits_zero: called after that; True to exit with 0 even if Luigi would not, because other hosts did some of
            the work.
    """
    set_up_logging(logging.getLevelName(luigi.interface.core().log_level))
    failures = _Failures()
    luigi.Task.event_handler(luigi.Event.FAILURE)(failures.note)
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_MISSING)(failures.note_missing)
    _register_before_shutdown(lambda: _close(summary_lines, failures, exits_zero))


def _register_before_shutdown(close: Callable[[], None]) -> None:
    """Call a function at the end of this process, while thread pools still work.

    `atexit` is too late: object storage resolves its host in a thread pool, and Python ends thread pools before. Both
    register here, and the last to register is called first.
    """
    process = os.getpid()

    def close_once() -> None:
        if os.getpid() == process:  # Luigi's forked workers come here too
            close()

    assert concurrent.futures.thread
    threading._register_atexit(close_once)  # type: ignore[attr-defined]


class DieWithParent:
    """Luigi's `[worker] task_process_context`: forked workers end together with the main process."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __enter__(self) -> None:
        if self._process.use_multiprocessing:
            die_with_parent()

    def __exit__(self, *exc_info: object) -> Literal[False]:
        return False
