"""Executor on this machine: long-lived processes that take one item after the other and are replaced when they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from queue import SimpleQueue
from typing import Any

from pipeline.errors import PipelineError

from ..child import Child, Limits, keep_processes, load_tensorflow
from ..worker import Channel, as_pipeline_error
from .interface import Ended, Started


class Slot:
    """A place for one process, which calls functions one after the other; a new process replaces one that ended.

    Args:
        limits: limits of one call: its time, and the memory of the process and of each process that it starts.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: Child | None = None

    def call(self, function: str, *args: Any) -> Any:
        """Call `package.module:function(*args)` in the process.

        Raises:
            PipelineError: the function raised it.
            StageCrashed: the function raised another error, or the process ended without an answer or exceeded a limit.
        """
        if is_new := self._child is None:
            # This process needs no TensorFlow: it starts a fork server of its own, which loads it for its children.
            self._child = Child(
                "pipeline.workers.executor.local:serve",
                talks=True,
                limits=self._limits,
                is_bare=True,
                has_children=True,
            )
        try:
            if is_new:
                self._child.receive(seconds=0)  # it is ready now; its start does not count as an item's time
            self._child.send((function, args))
            result = self._child.receive()
        except PipelineError:
            self.close()
            raise
        if isinstance(result, PipelineError):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None


def serve(channel: Channel) -> None:
    """Answer calls in a slot's process until the caller hangs up."""
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
            except Exception as exc:  # only this item fails; the process goes on
                result = as_pipeline_error(exc, function)
            channel.send(("result", result, None))


class LocalExecutor(AbstractContextManager["LocalExecutor"]):
    """Several slots, each with a thread of this process that gives it items.

    Args:
        workers: number of items processed at the same time.
        limits: see `Slot`.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self._slots = [Slot(limits) for _ in range(workers)]
        self._is_closed = False

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        waiting: SimpleQueue[int | None] = SimpleQueue()
        events: SimpleQueue[Started | Ended | None] = SimpleQueue()
        for number in range(len(items)):
            waiting.put(number)

        def work(slot: Slot) -> None:
            while (number := waiting.get()) is not None and not self._is_closed:
                events.put(Started(number))
                try:
                    result = slot.call(function, *items[number])
                except Exception as exc:  # any error belongs to this item
                    result = as_pipeline_error(exc, function)
                events.put(Ended(number, result))
            events.put(None)

        slots = self._slots[: max(1, len(items))]
        for slot in slots:
            waiting.put(None)
            threading.Thread(target=work, args=(slot,), daemon=True).start()
        at_work = len(slots)
        while at_work:
            event = events.get()
            if event is None:
                at_work -= 1
            else:
                yield event

    def __exit__(self, *exc_info: object) -> None:
        self._is_closed = True  # threads take no more items after their slot is closed
        for slot in self._slots:
            slot.close()
