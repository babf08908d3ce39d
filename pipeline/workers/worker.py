"""The other side of `process`: what runs in a process that works for another one.

It answers call after call through a pipe, and ends with the process that asked for it.
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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, StageCrashed, StoreError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

logger = logging.getLogger("pipeline")

# Read by TensorFlow when it is imported, unless the environment says otherwise already.
TENSORFLOW_ENVIRONMENT = {
    # oneDNN picks other kernels, which may differ in the last bits between a checkpoint's session and its frozen graph.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # What TensorFlow cannot do comes as an exception; what it logs is mostly about accelerators that are not there.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_PR_SET_PDEATHSIG = 1  # prctl(2)
TOO_MUCH_MEMORY = 87  # the exit code of a process that took more than its limit
_MEMORY_POLL_SECONDS = 0.1
HANG_UP = "hang up"
_own_memory_limit = 0  # what this process itself may take


class Server:
    """A process that waits for calls, and its end of the pipe.

    Args:
        is_bare: a new interpreter, not a child of the fork server.
        has_children: whether it may start processes of its own.
        is_sandboxed: whether it runs in an empty folder, with little of the environment.
        memory_bytes: what it may take; 0 for any.
    """

    def __init__(self, is_bare: bool, has_children: bool, is_sandboxed: bool, memory_bytes: int) -> None:
        context = multiprocessing.get_context("spawn") if is_bare else _fork_server()
        self.calls = 0
        self._folder = tempfile.mkdtemp(prefix="pipeline-") if is_sandboxed else None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve,
            args=(theirs, logger.getEffectiveLevel(), memory_bytes, self._folder),
            daemon=not has_children,
        )
        self.process.start()
        theirs.close()

    def empty_folder(self) -> None:
        """Removes what a call has left in the folder."""
        for left in Path(self._folder).iterdir() if self._folder is not None else ():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def close(self, seconds: float = 0) -> None:
        """Ends the process.

        Args:
            seconds: how long it may clear up.
        """
        self.connection.close()
        if seconds:
            self.process.join(seconds)
        self.process.kill()
        self.process.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def own_memory_limit() -> int:
    """What this process itself may take; 0 for any."""
    return _own_memory_limit


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        import ctypes  # not needed in a run in which everything is complete

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _die_with_caller(folder: str | None) -> None:
    """Ends this process when the one that asked for it ends, and removes the folder that it was given.

    That is not its parent: the fork server is, and it lives as long as any process that it has started.
    """
    from multiprocessing.connection import wait

    asker = multiprocessing.parent_process()
    assert asker is not None  # this runs in a child of multiprocessing only

    def watch() -> None:
        wait([asker.sentinel])
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _enforce_memory_limit(most_bytes: int) -> None:
    """Ends this process when it takes more memory than it may."""
    page, statm = os.sysconf("SC_PAGE_SIZE"), Path("/proc/self/statm")
    if not most_bytes or not statm.exists():
        return

    def watch() -> None:
        while int(statm.read_bytes().split()[1]) * page <= most_bytes:
            time.sleep(_MEMORY_POLL_SECONDS)
        os._exit(TOO_MUCH_MEMORY)

    threading.Thread(target=watch, daemon=True).start()


def _fork_server() -> multiprocessing.context.ForkServerContext:
    for name, value in TENSORFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.workers.preload"])
    return context


class Channel:
    """The pipe of a function that talks: its `recv` ends where the other side has hung up or wants it to end."""

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
    """Answers call after call, until the other side hangs up."""
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
            target, args, talks = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as exc:  # arguments that cannot be unpickled here
            answer = _error_answer(exc, target)
        else:
            answer = _answer_call(target, args, Channel(connection) if talks else None)
        try:
            connection.send(answer)
        except OSError:  # the other side has hung up meanwhile
            return
        except (AttributeError, TypeError, pickle.PicklingError) as exc:
            connection.send(_error_answer(exc, target))


def _answer_call(target: str, args: tuple[Any, ...], channel: Channel | None) -> tuple[str, Any, str | None]:
    """The answer to one call."""
    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        if channel is None:
            return "result", function(*args), None
        return "ended", function(*args, channel=channel), None
    except Exception as exc:  # The outermost door of this process: nothing may leave it as a bare crash.
        return _error_answer(exc, target)


def _error_answer(exc: Exception, target: str) -> tuple[str, Any, str | None]:
    return "error", as_pipeline_error(exc, target), traceback.format_exc()


def as_pipeline_error(exc: Exception, where: str) -> PipelineError:
    """The error as one of ours, with its sentence."""
    if isinstance(exc, PipelineError):
        return exc
    if isinstance(exc, OSError) and exc.strerror:
        return StoreError(exc.strerror, where=exc.filename or where, next_step="Free space or correct the permissions")
    last_line = str(exc).strip().split("\n", 1)[0][:300]
    if "No space left on device" in str(exc):
        return StoreError(
            "no space left on device", where=where, got=last_line, next_step="Free space and run it again"
        )
    return StageCrashed(
        "an unexpected error",
        where=where,
        got=f"{type(exc).__name__}: {last_line}",
        next_step="Run it with --log-level DEBUG for the traceback",
    )


def set_up_logging(level: int) -> None:
    """Lets the pipeline's own log lines go to standard error, once."""
    logger.setLevel(level)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
