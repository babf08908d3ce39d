"""Work that runs in a process of its own.

Luigi's process never imports TensorFlow: it starts every run, and it may fork, which a process that
has run a TensorFlow session must not do (the child hangs). Work that needs TensorFlow runs in a
child of a fork server that has imported TensorFlow once and runs nothing itself, so each stage
starts in a fresh process without paying for the import again.

A child dies with the process that asked for it, and only that process commits results: a killed run
leaves no orphan that goes on. Where many models are served one after the other, the processes that only open artifacts
may be kept from one to the next: see `keeping_processes`.
"""

from __future__ import annotations

import ctypes
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
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from .confinement import confine
from .errors import PipelineError, StageCrashed, StoreError

logger = logging.getLogger("pipeline")

# Read by TensorFlow when it is imported, unless the environment says otherwise already.
TENSORFLOW_ENVIRONMENT = {
    # oneDNN picks other kernels, which may differ in the last bits between a checkpoint's session and its frozen graph.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # What TensorFlow cannot do comes as an exception; what it logs is mostly about accelerators that are not there.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_PR_SET_PDEATHSIG = 1  # prctl(2)
_CLEARING_UP_SECONDS = 10
_TOO_MUCH_MEMORY = 87  # the exit code of a process that took more than its limit
_MEMORY_POLL_SECONDS = 0.1


def run_apart(target: str, *args: Any, limits: Limits | None = None, is_confined: bool = False) -> Any:
    """Calls a function in a process of its own and returns its result.

    Args:
        target: `package.module:function`, imported in the child alone.
        args: its arguments; they and the result must pickle.
        limits: what its process may take.
        is_confined: whether it opens what strangers made; see `Child`.

    Raises:
        PipelineError: whatever the function raised of ours.
        StoreError: the function met an error of the operating system, such as a full disk.
        StageCrashed: the function raised a foreign error, or its process ended without an answer or passed a limit.
    """
    with Child(target, *args, limits=limits, is_confined=is_confined) as child:
        return child.receive()


@dataclass(frozen=True)
class Limits:
    """What a process may take before it is ended.

    Args:
        seconds: for one answer; 0 for any time.
        memory_bytes: resident memory; 0 for any. Watched on Linux alone.
    """

    seconds: float = 0.0
    memory_bytes: int = 0


class Child:
    """A process that runs `package.module:function(*args)` and answers through a pipe.

    The function gets a `Channel` as keyword argument `channel` if `talks` is set, and then may answer many times,
    until the channel's `recv` raises EOFError; otherwise its result is the one answer. With `is_bare` it runs in a new
    interpreter instead of a child of the fork server, where TensorFlow is loaded already. With `has_children` it may
    start such processes itself. With `is_confined` it runs in an empty folder, gone at its end, and without what the
    environment holds besides what it needs: paths that it is given must be absolute. With `is_reusable` its process may
    serve another call later: for functions that leave nothing behind.
    """

    def __init__(
        self,
        target: str,
        *args: Any,
        talks: bool = False,
        limits: Limits | None = None,
        is_bare: bool = False,
        has_children: bool = False,
        is_confined: bool = False,
        is_reusable: bool = False,
    ) -> None:
        self._target, self._talks, self._is_done, self._has_failed = target, talks, False, False
        limits = limits or Limits()
        # Whoever may take only so much may not have others take more for it.
        memory_bytes = min((most for most in (limits.memory_bytes, _own_memory_bytes) if most), default=0)
        self._limits = Limits(limits.seconds, memory_bytes)
        self._is_reusable = is_reusable
        self._kind = (is_bare, has_children, is_confined, self._limits.memory_bytes)
        kept = _idle.get(self._kind, []) if _idle is not None and is_reusable else []
        self._server = kept.pop() if kept else _Server(*self._kind)
        self._server.calls += 1
        self._connection, self._process = self._server.connection, self._server.process
        self.send((target, args, talks))

    def send(self, message: Any) -> None:
        """Sends a message to the function's channel."""
        with suppress(OSError):  # if the child is gone, `receive` says why
            self._connection.send(message)

    def receive(self, is_timed: bool = True) -> Any:
        """The next answer.

        Args:
            is_timed: whether the time limit holds for it.

        Raises:
            PipelineError: as `run_apart`.
            StageCrashed: besides, where a limit is passed.
        """
        if is_timed and self._limits.seconds and not self._connection.poll(self._limits.seconds):
            self._has_failed = True
            self._process.kill()
            raise StageCrashed(
                "it gave no answer in time",
                where=self._target,
                wanted=f"an answer within {self._limits.seconds:g} s",
                next_step="Raise the time limit if it may take longer",
            )
        try:
            kind, value, trace = self._connection.recv()
        except (EOFError, OSError):
            self._has_failed = True
            self._process.join()
            raise self._crash() from None
        self._is_done = kind == "ended" or not self._talks
        if kind != "error":
            return value
        self._is_done = self._has_failed = True
        if trace:
            logger.debug("in the process of %s:\n%s", self._target, trace)
        raise value

    def _crash(self) -> StageCrashed:
        code = self._process.exitcode
        if code == _TOO_MUCH_MEMORY:
            return StageCrashed(
                "it took more memory than it may",
                where=self._target,
                wanted=f"at most {self._limits.memory_bytes / 1e9:.1f} GB",
                next_step="Raise the memory limit if it may take more",
            )
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "SIGKILL is mostly the kernel's answer to a lack of memory" if name == "SIGKILL" else None
            return StageCrashed(
                "its process was ended by a signal", where=self._target, got=name, next_step=hint or "Run it again"
            )
        return StageCrashed("its process ended without an answer", where=self._target, got=f"exit code {code}")

    def close(self) -> None:
        """Ends the process: at once if it is at work, else when it has cleared up; or keeps it for another call."""
        if _idle is not None and self._is_reusable and self._server.calls < _MOST_CALLS and self._has_hung_up():
            self._server.empty_folder()
            _idle.setdefault(self._kind, []).append(self._server)
        else:
            self._server.close(_CLEARING_UP_SECONDS if self._is_done else 0)

    def _has_hung_up(self) -> bool:
        """Has the function end; False if it has failed, or does not end soon."""
        if self._has_failed or not self._talks:
            return False
        self.send(_HANG_UP)
        until = time.monotonic() + _CLEARING_UP_SECONDS
        try:
            while self._connection.poll(max(0.0, until - time.monotonic())):
                if self._connection.recv()[0] == "ended":
                    return True
        except (EOFError, OSError):
            pass
        return False

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Server:
    """A process that waits for calls, and its end of the pipe.

    Args:
        is_bare: a new interpreter, not a child of the fork server.
        has_children: whether it may start processes of its own.
        is_confined: whether it runs in an empty folder, with little of the environment.
        memory_bytes: what it may take; 0 for any.
    """

    def __init__(self, is_bare: bool, has_children: bool, is_confined: bool, memory_bytes: int) -> None:
        context = multiprocessing.get_context("spawn") if is_bare else _fork_server()
        self.calls = 0
        self._folder = tempfile.mkdtemp(prefix="pipeline-") if is_confined else None
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


_MOST_CALLS = 200  # TensorFlow keeps a little of every graph that it has run
_HANG_UP = "hang up"
# The processes that wait for another call, by their kind; None where none are kept.
_idle: dict[tuple[bool, bool, bool, int], list[_Server]] | None = None
_own_memory_bytes = 0  # what this process itself may take


@contextmanager
def keeping_processes() -> Iterator[None]:
    """Keeps processes that have done their work for the next call of their kind, until the end of the block."""
    global _idle
    _idle = {}
    try:
        yield
    finally:
        for servers in _idle.values():
            for server in servers:
                server.close()
        _idle = None


def load_tensorflow() -> None:
    """Has the fork server of this process load TensorFlow, so that what comes next does not wait for it."""
    run_apart("pipeline.process:die_with_parent")


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _die_with_asker(folder: str | None) -> None:
    """Ends this process when the one that asked for it ends, and removes the folder that it was given.

    That is not its parent: the fork server is, and it lives as long as any process that it has started.
    """
    asker = multiprocessing.parent_process()
    assert asker is not None  # this runs in a child of multiprocessing only

    def watch() -> None:
        wait([asker.sentinel])
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _die_of_greed(most_bytes: int) -> None:
    """Ends this process when it takes more memory than it may."""
    page, statm = os.sysconf("SC_PAGE_SIZE"), Path("/proc/self/statm")
    if not most_bytes or not statm.exists():
        return

    def watch() -> None:
        while int(statm.read_bytes().split()[1]) * page <= most_bytes:
            time.sleep(_MEMORY_POLL_SECONDS)
        os._exit(_TOO_MUCH_MEMORY)

    threading.Thread(target=watch, daemon=True).start()


class DieWithParent:
    """Luigi's `[worker] task_process_context`: its forked workers end with the main process."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __enter__(self) -> None:
        if self._process.use_multiprocessing:
            die_with_parent()

    def __exit__(self, *exc_info: object) -> Literal[False]:
        return False


def _fork_server() -> multiprocessing.context.ForkServerContext:
    for name, value in TENSORFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.preload"])
    return context


class Channel:
    """The pipe of a function that talks: its `recv` ends where the other side has hung up or wants it to end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def recv(self) -> Any:
        message = self._connection.recv()
        if isinstance(message, str) and message == _HANG_UP:
            raise EOFError
        return message

    def send(self, message: Any) -> None:
        self._connection.send(message)


def _serve(connection: Connection, log_level: int, memory_bytes: int, folder: str | None) -> None:
    """Answers call after call, until the other side hangs up."""
    global _own_memory_bytes
    _own_memory_bytes = memory_bytes
    _die_with_asker(folder)
    _die_of_greed(memory_bytes)
    set_up_logging(log_level)
    if folder is not None:
        confine(Path(folder))
    while True:
        target = "its arguments"
        try:
            target, args, talks = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as exc:  # arguments that cannot be unpickled here
            answer = _told(exc, target)
        else:
            answer = _called(target, args, Channel(connection) if talks else None)
        try:
            connection.send(answer)
        except OSError:  # the other side has hung up meanwhile
            return
        except (AttributeError, TypeError, pickle.PicklingError) as exc:
            connection.send(_told(exc, target))


def _called(target: str, args: tuple[Any, ...], channel: Channel | None) -> tuple[str, Any, str | None]:
    """The answer to one call."""
    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        if channel is None:
            return "result", function(*args), None
        return "ended", function(*args, channel=channel), None
    except Exception as exc:  # The outermost door of this process: nothing may leave it as a bare crash.
        return _told(exc, target)


def _told(exc: Exception, target: str) -> tuple[str, Any, str | None]:
    return "error", as_ours(exc, target), traceback.format_exc()


def as_ours(exc: Exception, where: str) -> PipelineError:
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
