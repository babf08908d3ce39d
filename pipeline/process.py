"""Work that runs in a process of its own.

Luigi's process never imports TensorFlow: it starts every run, and it may fork, which a process that
has run a TensorFlow session must not do (the child hangs). Work that needs TensorFlow runs in a
child of a fork server that has imported TensorFlow once and runs nothing itself, so each stage
starts in a fresh process without paying for the import again.

A child dies with the process that asked for it, and only that process commits results: a killed run
leaves no orphan that goes on.
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
from collections.abc import Callable
from contextlib import suppress
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

    The function gets a `Connection` as keyword argument `channel` if `talks` is set, and then may
    answer many times; otherwise its result is the one answer. With `is_bare` it runs in a new interpreter instead of
    a child of the fork server, where TensorFlow is loaded already. With `is_confined` it runs in an empty folder, gone
    at its end, and without what the environment holds besides what it needs: paths that it is given must be absolute.
    """

    def __init__(
        self,
        target: str,
        *args: Any,
        talks: bool = False,
        limits: Limits | None = None,
        is_bare: bool = False,
        is_confined: bool = False,
    ) -> None:
        context = multiprocessing.get_context("spawn") if is_bare else _fork_server()
        self._target, self._talks, self._is_done = target, talks, False
        self._limits = limits or Limits()
        self._folder = tempfile.mkdtemp(prefix="pipeline-") if is_confined else None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, target, args, talks, logger.getEffectiveLevel(), self._limits.memory_bytes, self._folder),
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Sends a message to the function's channel."""
        with suppress(OSError):  # if the child is gone, `receive` says why
            self._connection.send(message)

    def receive(self) -> Any:
        """The next answer.

        Raises:
            PipelineError: as `run_apart`.
            StageCrashed: besides, where a limit is passed.
        """
        if self._limits.seconds and not self._connection.poll(self._limits.seconds):
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
            self._process.join()
            raise self._crash() from None
        self._is_done = not self._talks
        if kind == "result":
            return value
        self._is_done = True
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
        """Ends the process: at once if it is at work, else when it has cleared up."""
        self._connection.close()
        if self._is_done:
            self._process.join(_CLEARING_UP_SECONDS)
        self._process.kill()
        self._process.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _die_with_asker() -> None:
    """Ends this process when the one that asked for it ends.

    That is not its parent: the fork server is, and it lives as long as any process that it has started.
    """
    asker = multiprocessing.parent_process()
    assert asker is not None  # this runs in a child of multiprocessing only

    def watch() -> None:
        wait([asker.sentinel])
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


def _serve(
    channel: Connection,
    target: str,
    args: tuple[Any, ...],
    talks: bool,
    log_level: int,
    memory_bytes: int,
    folder: str | None,
) -> None:
    _die_with_asker()
    _die_of_greed(memory_bytes)
    set_up_logging(log_level)
    answer: tuple[str, Any, str | None]
    try:
        if folder is not None:
            confine(Path(folder))
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        answer = ("result", function(*args, channel=channel) if talks else function(*args), None)
    except Exception as exc:  # The outermost door of this process: nothing may leave it as a bare crash.
        answer = ("error", as_ours(exc, target), traceback.format_exc())
    with suppress(OSError):  # the other side may have hung up meanwhile
        try:
            channel.send(answer)
        except (AttributeError, TypeError, pickle.PicklingError) as exc:
            channel.send(("error", as_ours(exc, target), traceback.format_exc()))


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
