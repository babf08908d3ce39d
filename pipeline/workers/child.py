"""Work that runs in a process of its own.

Luigi's process never imports TensorFlow: it starts every run, and it may fork, which a process that
has run a TensorFlow session must not do (the child hangs). Work that needs TensorFlow runs in a
child of a fork server that has imported TensorFlow once and runs nothing itself, so each stage
starts in a fresh process without paying for the import again.

A child dies with the process that asked for it, and only that process commits results: a killed run
leaves no orphan that goes on. Where many models are served one after the other, the processes that only open artifacts
may be kept from one to the next: see `keep_processes`.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StageCrashed

from .worker import HANG_UP, TOO_MUCH_MEMORY, Server, own_memory_limit

logger = logging.getLogger("pipeline")

_CLEARING_UP_SECONDS = 10


def run_in_subprocess(target: str, *args: Any, limits: Limits | None = None, is_sandboxed: bool = False) -> Any:
    """Calls a function in a process of its own and returns its result.

    Args:
        target: `package.module:function`, imported in the child alone.
        args: its arguments; they and the result must pickle.
        limits: what its process may take.
        is_sandboxed: whether it opens what strangers made; see `Child`.

    Raises:
        PipelineError: whatever the function raised of ours.
        StoreError: the function met an error of the operating system, such as a full disk.
        StageCrashed: the function raised a foreign error, or its process ended without an answer or passed a limit.
    """
    with Child(target, *args, limits=limits, is_sandboxed=is_sandboxed) as child:
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
    start such processes itself. With `is_sandboxed` it runs in an empty folder, gone at its end, and without what the
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
        is_sandboxed: bool = False,
        is_reusable: bool = False,
    ) -> None:
        self._target, self._talks, self._is_done, self._has_failed = target, talks, False, False
        limits = limits or Limits()
        # Whoever may take only so much may not have others take more for it.
        memory_bytes = min((most for most in (limits.memory_bytes, own_memory_limit()) if most), default=0)
        self._limits = Limits(limits.seconds, memory_bytes)
        self._is_reusable = is_reusable
        self._kind = (is_bare, has_children, is_sandboxed, self._limits.memory_bytes)
        kept = _idle.get(self._kind, []) if _idle is not None and is_reusable else []
        self._server = kept.pop() if kept else Server(*self._kind)
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
            PipelineError: as `run_in_subprocess`.
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
        if code == TOO_MUCH_MEMORY:
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
        if _idle is not None and self._is_reusable and self._server.calls < _MOST_CALLS and self._end_call():
            self._server.empty_folder()
            _idle.setdefault(self._kind, []).append(self._server)
        else:
            self._server.close(_CLEARING_UP_SECONDS if self._is_done else 0)

    def _end_call(self) -> bool:
        """Has the function end; False if it has failed, or does not end soon."""
        if self._has_failed or not self._talks:
            return False
        self.send(HANG_UP)
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


_MOST_CALLS = 200  # TensorFlow keeps a little of every graph that it has run
# The processes that wait for another call, by their kind; None where none are kept.
_idle: dict[tuple[bool, bool, bool, int], list[Server]] | None = None


@contextmanager
def keep_processes() -> Iterator[None]:
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
    run_in_subprocess("pipeline.workers.worker:own_memory_limit")
