"""The engine of this machine: long-lived processes; each serves item after item, and is replaced when it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from queue import SimpleQueue
from typing import Any

from pipeline.errors import PipelineError

from ..child import Child, Limits, keep_processes, load_tensorflow
from ..worker import Channel, as_pipeline_error
from .interface import Ended, Started


class Slot:
    """A process that calls functions one after the other; another one takes its place when it ends.

    Args:
        limits: what one call may take: its time, and the memory of this process and of each that it starts.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: Child | None = None

    def call(self, function: str, *args: Any) -> Any:
        """Calls `package.module:function(*args)` in the process.

        Raises:
            PipelineError: whatever the function raised of ours; a foreign error is a StageCrashed.
            StageCrashed: besides, the process ended without an answer or passed a limit.
        """
        if is_new := self._child is None:
            # Without TensorFlow, which is loaded once by the fork server that this process starts for its own children.
            self._child = Child(
                "pipeline.workers.executor.local:serve",
                talks=True,
                limits=self._limits,
                is_bare=True,
                has_children=True,
            )
        try:
            if is_new:
                self._child.receive(is_timed=False)  # it is ready: no item pays for that
            self._child.send((function, args))
            result = self._child.receive()
        except PipelineError:
            self.close()
            raise
        if isinstance(result, PipelineError):
            raise result
        return result

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.close()
            self._child = None


def serve(channel: Channel) -> None:
    """Runs in a slot's process: answers calls until the other side hangs up."""
    load_tensorflow()
    channel.send(("result", None, None))
    with keep_processes():
        while True:
            try:
                function, args = channel.recv()
            except (EOFError, OSError):
                return
            module, _, name = function.partition(":")
            try:
                result = getattr(import_module(module), name)(*args)
            except Exception as exc:  # one item is lost by it, and none of those that follow
                result = as_pipeline_error(exc, function)
            channel.send(("result", result, None))


class LocalExecutor:
    """So many slots, each fed by a thread of this process.

    Args:
        workers: how many items are worked on at the same time.
        limits: see `Slot`.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self._slots = [Slot(limits) for _ in range(workers)]
        self._is_closed = False

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        """See `Engine.map`."""
        waiting: SimpleQueue[int | None] = SimpleQueue()
        told: SimpleQueue[Started | Ended | None] = SimpleQueue()
        for number in range(len(items)):
            waiting.put(number)

        def work(slot: Slot) -> None:
            while (number := waiting.get()) is not None and not self._is_closed:
                told.put(Started(number))
                try:
                    result = slot.call(function, *items[number])
                except Exception as exc:  # whatever it is, it is this item's
                    result = as_pipeline_error(exc, function)
                told.put(Ended(number, result))
            told.put(None)

        slots = self._slots[: max(1, len(items))]
        for slot in slots:
            waiting.put(None)
            threading.Thread(target=work, args=(slot,), daemon=True).start()
        at_work = len(slots)
        while at_work:
            event = told.get()
            if event is None:
                at_work -= 1
            else:
                yield event

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_closed = True  # threads whose slots are closed now take no more items
        for slot in self._slots:
            slot.close()
