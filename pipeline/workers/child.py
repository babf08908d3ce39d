"""Run functions in subprocesses.

Luigi's process never imports TensorFlow: it must start fast, and it forks, which a process that has run a TensorFlow
session must not do (its child hangs). Work that needs TensorFlow runs in a child of a fork server, which has imported
TensorFlow once and runs nothing itself. So each stage starts in a new process without a new import.

A child ends together with its caller, and only the caller publishes results: a killed run leaves no process behind.
`keep_processes` keeps children that only open artifacts for later calls.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.errors import StageCrashed, logger

from .memory import machine_memory
from .progress import pass_on
from .worker import HANG_UP, PROGRESS, TOO_MUCH_MEMORY, Server, own_memory_limit, start_fork_server

if TYPE_CHECKING:
    from .reads import Watch

_CLEARING_UP_SECONDS = 10


def run_in_subprocess(
    target: str, *args: Any, limits: Limits | None = None, is_sandboxed: bool = False, watch: Watch | None = None
) -> Any:
    """Call a function in a subprocess and return its result.

    Args:
        target: `package.module:function`, imported only in the child.
        args: its arguments; they and the result must be picklable.
        limits: limits of the process.
        is_sandboxed: True if the function opens untrusted files; see `Child`.
        watch: what to record of its reads; then the result is a pair, the function's own result and the reads.

    Raises:
        PipelineError: the function raised it.
        StoreError: the function raised an error of the operating system, such as a full disk.
        StageCrashed: the function raised another error, or its process ended without an answer or exceeded a limit.
    """
    with Child(target, *args, limits=limits, is_sandboxed=is_sandboxed, watch=watch) as child:
        return child.receive()


@dataclass(frozen=True)
class Limits:
    """Limits of a process; it is killed if it exceeds one.

    Args:
        seconds: time for one answer; 0 for no limit.
        memory_bytes: resident memory; 0 for no limit. Enforced only on Linux.
        memory_share: the same as a share of the memory of the machine, or of the container, where the process runs.
    """

    seconds: float = 0.0
    memory_bytes: int = 0
    memory_share: float = 0.0

    @property
    def most_memory(self) -> int:
        """The lower of both limits of memory on this machine, in bytes; 0 for none."""
        return min((most for most in (self.memory_bytes, int(self.memory_share * machine_memory())) if most), default=0)


class Child(AbstractContextManager["Child"]):
    """A subprocess that runs `package.module:function(*args)` and answers over a pipe.

    Args:
        target: the function, `package.module:function`.
        args: its arguments.
        talks: True if the function takes a `Channel` as keyword argument `channel` and may answer many times, until
            the channel's `recv` raises EOFError; False if its result is the only answer.
        limits: limits of the process.
        is_bare: True to run in a new interpreter, False to run in a child of the fork server, which has TensorFlow.
        has_children: True if the function may start subprocesses itself.
        is_sandboxed: True to run in an empty folder, which is removed afterwards, with only the environment variables
            that it needs; paths among the arguments must be absolute.
        is_reusable: True if the process may serve another call later: for functions that leave no state behind.
        watch: what to record of the function's reads; see `run_in_subprocess`.
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
        watch: Watch | None = None,
    ) -> None:
        self._target, self._talks, self._is_done, self._has_failed = target, talks, False, False
        limits = limits or Limits()
        # A process with a memory limit must not start a child with a higher one.
        memory_bytes = min((most for most in (limits.most_memory, own_memory_limit()) if most), default=0)
        self._limits = Limits(limits.seconds, memory_bytes)
        self._is_reusable = is_reusable
        self._kind = (is_bare, has_children, is_sandboxed, self._limits.memory_bytes)
        kept = _idle.get(self._kind, []) if _idle is not None and is_reusable else []
        self._server = kept.pop() if kept else Server(*self._kind)
        self._server.calls += 1
        self._connection, self._process = self._server.connection, self._server.process
        self.send((target, args, talks, watch))

    def send(self, message: Any) -> None:
        """Send a message to the function's channel."""
        with suppress(OSError):  # if the child has ended, `receive` raises the reason
            self._connection.send(message)

    @property
    def exit_code(self) -> int:
        """The exit code of the process if it has ended; minus a signal's number if one ended it."""
        return self._process.exitcode or 0

    def receive(self, seconds: float | None = None) -> Any:
        """Return the next answer.

        Args:
            seconds: time limit for this answer, if not that of the process; 0 for none.

        Raises:
            PipelineError: as `run_in_subprocess`.
            StageCrashed: the process ended without an answer or exceeded a limit.
        """
        kind = PROGRESS
        while kind == PROGRESS:
            kind, value, trace = self._receive(self._limits.seconds if seconds is None else seconds)
            if kind == PROGRESS:
                pass_on(*value)
        self._is_done = kind == "ended" or not self._talks
        if kind != "error":
            return value
        self._is_done = self._has_failed = True
        if trace:
            logger.debug("in the process of %s:\n%s", self._target, trace)
        raise value

    def _receive(self, seconds: float) -> tuple[str, Any, str | None]:
        if seconds and not self._connection.poll(max(0.0, seconds)):
            self._has_failed = True
            self._process.kill()
            self._process.join()
            raise StageCrashed(
                "it gave no answer in time",
                where=self._target,
                wanted=f"an answer within {seconds:g} s",
                next_step="Raise the time limit if it may take longer",
            )
        try:
            answer: tuple[str, Any, str | None] = self._connection.recv()
        except (EOFError, OSError):
            self._has_failed = True
            self._process.join()
            raise self._crash() from None
        return answer

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
            hint = "SIGKILL usually means that the machine ran out of memory" if name == "SIGKILL" else None
            return StageCrashed(
                "its process was ended by a signal", where=self._target, got=name, next_step=hint or "Run it again"
            )
        return StageCrashed("its process ended without an answer", where=self._target, got=f"exit code {code}")

    def close(self) -> None:
        """End the process, immediately if it is still working, or keep it for another call."""
        if _idle is not None and self._is_reusable and self._server.calls < _MOST_CALLS and self._end_call():
            self._server.empty_folder()
            _idle.setdefault(self._kind, []).append(self._server)
        else:
            self._server.close(_CLEARING_UP_SECONDS if self._is_done else 0)

    def _end_call(self) -> bool:
        """End the function's call; return False if it has failed or does not end in time."""
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

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_MOST_CALLS = 200  # TensorFlow leaks some memory for each graph that it has run
# Processes that wait for another call, by kind; None if none are kept.
_idle: dict[tuple[bool, bool, bool, int], list[Server]] | None = None


@contextmanager
def keep_processes() -> Iterator[None]:
    """Keep finished processes for the next call of the same kind, until the end of the block."""
    global _idle
    before, _idle = _idle, {}
    try:
        yield
    finally:
        for servers in _idle.values():
            for server in servers:
                server.close()
        _idle = before


def load_meanwhile(modules: Iterable[str]) -> None:
    """Start the fork server, which takes seconds to load TensorFlow, and import what this process needs meanwhile."""
    start_fork_server()
    for module in modules:
        import_module(module)


def load_tensorflow() -> None:
    """Make the fork server of this process load TensorFlow in advance."""
    run_in_subprocess("pipeline.workers.worker:own_memory_limit")
