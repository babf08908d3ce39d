"""Worker process: receives calls over a pipe, runs them, and returns their results.

It ends together with the process that started it.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, StageCrashed, StoreError, first_line, logger, printable

from .progress import Listener, listen

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from .reads import Watch

# Python and TensorFlow read these when they start. Values that the environment already has take precedence.
WORKER_ENVIRONMENT = {
    # oneDNN selects other kernels: results of a checkpoint and its frozen graph could differ in the last bits.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # TensorFlow reports errors as exceptions; most of its log messages are about missing accelerators.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Otherwise a set of strings has another order in each run, and so has what a model's code builds from it.
    "PYTHONHASHSEED": "0",
}
_PR_SET_PDEATHSIG = 1  # prctl(2)
TOO_MUCH_MEMORY = 87  # exit code of a process that exceeded its memory limit
_MEMORY_POLL_SECONDS = 0.1
HANG_UP = "hang up"
UNEXPECTED = "an unexpected error"
PROGRESS = "progress"  # an answer that others follow
_PROCESS_NAME = "pipeline worker"
_WITHOUT_SCRIPT = {_PROCESS_NAME}  # names of processes
_own_memory_limit = 0  # memory limit of this process, in bytes; 0 for none


class Server:
    """A worker process, seen from the process that starts it.

    Args:
        is_bare: True for a new interpreter, False for a child of the fork server.
        has_children: True if it may start processes of its own.
        is_sandboxed: True to run it in an empty folder, with a reduced environment.
        memory_bytes: its memory limit; 0 for none.
    """

    def __init__(self, is_bare: bool, has_children: bool, is_sandboxed: bool, memory_bytes: int) -> None:
        context = multiprocessing.get_context("spawn") if is_bare else _fork_server()
        _replace_preparation()
        self.calls = 0
        from .folders import run_folder  # needed only by who starts a process

        self._folder = tempfile.mkdtemp(prefix="sandbox-", dir=run_folder()) if is_sandboxed else None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve,
            args=(theirs, logger.getEffectiveLevel(), memory_bytes, self._folder),
            daemon=not has_children,
            name=_PROCESS_NAME,
        )
        self._start()
        theirs.close()

    def _start(self) -> None:
        try:
            self.process.start()
        except (EOFError, ConnectionError, FileNotFoundError) as exc:
            self._remove_folder()
            raise StageCrashed(
                "the process that starts the workers was ended",
                where="the fork server",
                got=type(exc).__name__,
                next_step="Run it again; if it happens again, look whether the machine ran out of memory",
            ) from exc

    def empty_folder(self) -> None:
        """Remove the files that a call left in the folder."""
        for left in Path(self._folder).iterdir() if self._folder is not None else ():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def close(self, seconds: float = 0) -> None:
        """End the process.

        Args:
            seconds: time for it to clean up before it is killed.
        """
        self.connection.close()
        if seconds:
            self.process.join(seconds)
        self.process.kill()
        self.process.join()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def own_memory_limit() -> int:
    """Return the memory limit of this process in bytes; 0 for none."""
    return _own_memory_limit


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (only on Linux)."""
    if sys.platform == "linux":
        import ctypes  # not needed in a run in which everything is complete

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _die_with_caller(folder: str | None) -> None:
    """End this process when its caller ends, and remove its folder.

    The caller is not the parent: the parent is the fork server, which lives as long as any process that it started.
    """
    from multiprocessing.connection import wait

    caller = multiprocessing.parent_process()
    assert caller is not None  # this runs only in a child of multiprocessing

    def watch() -> None:
        wait([caller.sentinel])
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _enforce_memory_limit(limit_bytes: int) -> None:
    page, statm = os.sysconf("SC_PAGE_SIZE"), Path("/proc/self/statm")
    if not limit_bytes or not statm.exists():
        return

    def watch() -> None:
        while int(statm.read_bytes().split()[1]) * page <= limit_bytes:
            time.sleep(_MEMORY_POLL_SECONDS)
        os._exit(TOO_MUCH_MEMORY)

    threading.Thread(target=watch, daemon=True).start()


def _fork_server() -> multiprocessing.context.ForkServerContext:
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from .folders import run_folder

    run_folder()  # the server's socket is in it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.workers.preload"])
    return context


def start_fork_server() -> None:
    """Start the fork server, if it does not run, and do not wait until it has loaded TensorFlow."""
    _fork_server()
    from multiprocessing.forkserver import ensure_running

    ensure_running()


@contextmanager
def without_script(name: str) -> Iterator[None]:
    """Make processes of a name start without the script that runs here.

    Multiprocessing imports it again in each process, for functions that are defined there. Ours are not; and a script
    that calls `luigi.build` without a guard would do so in every process, each of which would wait for another one.
    """
    _replace_preparation()
    is_new = name not in _WITHOUT_SCRIPT
    _WITHOUT_SCRIPT.add(name)
    try:
        yield
    finally:
        if is_new:
            _WITHOUT_SCRIPT.discard(name)


@cache
def _replace_preparation() -> None:
    from multiprocessing import spawn  # not needed in a run in which everything is complete

    prepare = spawn.get_preparation_data

    def prepare_without_script(name: str) -> dict[str, Any]:
        data = prepare(name)
        if name in _WITHOUT_SCRIPT:
            data = {key: value for key, value in data.items() if not key.startswith("init_main_from_")}
        return data

    spawn.get_preparation_data = prepare_without_script


class Channel:
    """The pipe of a function that sends several answers: `recv` raises EOFError when the caller has finished."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def recv(self) -> Any:
        message = self._connection.recv()
        if isinstance(message, str) and message == HANG_UP:
            raise EOFError
        return message

    def send(self, message: Any) -> None:
        self._connection.send(message)


def _serve(connection: Connection, log_level: int, memory_bytes: int, folder: str | None) -> None:
    """Answer calls until the caller hangs up."""
    global _own_memory_limit
    _own_memory_limit = memory_bytes
    _die_with_caller(folder)
    _enforce_memory_limit(memory_bytes)
    set_up_logging(log_level)
    if folder is not None:
        from .sandbox import enter_sandbox

        enter_sandbox(Path(folder))
    while True:
        target = "its arguments"
        try:
            target, args, talks, watch = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as exc:  # arguments that cannot be unpickled
            answer = _error_answer(exc, target)
        else:
            with listen(None if talks else _tell_caller(connection)):
                answer = _answer_call(target, args, Channel(connection) if talks else None, watch)
        try:
            connection.send(answer)
        except OSError:  # the caller has hung up in the meantime
            return
        except (AttributeError, TypeError, pickle.PicklingError) as exc:
            connection.send(_error_answer(exc, target))


def _tell_caller(connection: Connection) -> Listener:
    """Return a listener that sends the progress of a call to whoever waits for its result."""

    def send(line: str, share: float) -> None:
        with suppress(OSError):  # the caller has hung up: this process ends soon
            connection.send((PROGRESS, (line, share), None))

    return send


def _answer_call(
    target: str, args: tuple[Any, ...], channel: Channel | None, watch: Watch | None
) -> tuple[str, Any, str | None]:
    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        if watch is not None:
            from .reads import call_recorded

            return "result", call_recorded(function, watch, *args), None
        if channel is None:
            return "result", function(*args), None
        return "ended", function(*args, channel=channel), None
    except Exception as exc:  # outermost handler of this process: every error becomes an answer
        return _error_answer(exc, target)


def _error_answer(exc: Exception, target: str) -> tuple[str, Any, str | None]:
    return "error", as_pipeline_error(exc, target), traceback.format_exc()


def as_pipeline_error(exc: Exception, where: str) -> PipelineError:
    """Convert any error to a PipelineError."""
    if isinstance(exc, PipelineError):
        return exc
    if isinstance(exc, OSError) and exc.strerror:
        return StoreError(exc.strerror, where=exc.filename or where, next_step="Free space or correct the permissions")
    if "No space left on device" in str(exc):
        return StoreError(
            "no space left on device", where=where, got=first_line(exc), next_step="Free space and run it again"
        )
    return StageCrashed(
        UNEXPECTED,
        where=where,
        got=f"{type(exc).__name__}: {first_line(exc)}",
        next_step="Run it with --log-level DEBUG for the traceback",
    )


class _PrintableFormatter(logging.Formatter):
    """Formats messages for a terminal: names come from strangers' files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging(level: int) -> None:
    """Send the pipeline's log to standard error; calling this again changes only the level."""
    logger.setLevel(level)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_PrintableFormatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
