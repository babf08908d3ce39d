"""Executor on a Dask cluster: a running cluster, or one that is started on this machine.

Workers need exactly the same code of this package, and access to the files that an item names. If a worker is lost, the
scheduler gives its items to another one. An item that crashes its workers repeatedly fails, and only that item.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing
import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from pipeline.errors import SettingError, StageCrashed
from pipeline.hashing import hash_file, hash_values

from ..child import Limits
from ..worker import as_pipeline_error, without_script
from .interface import Ended, Started
from .local import Slot

_PACKAGE = Path(__file__).resolve().parents[2]
_WHERE = "[engine] address"
_CONNECT_SECONDS, _WORKER_SECONDS, _LOOK_SECONDS = 20.0, 60.0, 2.0
_MOST_UNDERWAY = 256  # items that the scheduler knows of at a time
_PROCESS_NAME = "Dask Worker process (from Nanny)"  # as Dask names them
# A worker is a process that may start subprocesses, and it holds only the items that it is working on. So if an item
# crashes its worker, no other item is blamed.
_SETTINGS = {
    "distributed.worker.daemon": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.active-memory-manager.start": False,
}


class DaskExecutor:
    """Executor on a Dask cluster; see `interface.Executor`.

    Args:
        address: address of the scheduler, such as `tcp://host:8786`; empty to start a cluster on this machine, which
            runs as long as the executor is open.
        workers: processes of a cluster on this machine; 0 for one per processor.
        limits: limits of an item. With limits, each worker calls functions in a subprocess (`local.Slot`), so an item
            that crashes or exceeds a limit does not end the worker. None to call functions in the worker's process.

    Raises:
        SettingError: on entering, if Dask is not installed, no scheduler answers, or its workers have other code.
        StageCrashed: on entering, if the cluster has no worker.
    """

    def __init__(self, address: str = "", workers: int = 0, limits: Limits | None = None) -> None:
        self._address, self._workers, self._limits = address, workers, limits
        self._opened = ExitStack()
        self._client: Any = None

    def __enter__(self) -> Self:
        try:
            import dask
            import distributed
        except ImportError as exc:
            raise SettingError(
                "Dask is not installed",
                where="[engine] kind",
                got="dask",
                next_step="install it with pip install 'freeze-pipeline[distributed]'",
            ) from exc
        with ExitStack() as opened:
            address = self._address
            if not address:
                opened.enter_context(dask.config.set(_SETTINGS))
                opened.enter_context(without_script(_PROCESS_NAME))
                cluster = distributed.LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=self._workers or len(os.sched_getaffinity(0)),
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=None,
                )
                address = opened.enter_context(cluster).scheduler_address
            self._client = opened.enter_context(_client(address))
            self._check_workers()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError, TimeoutError):  # the scheduler may have ended
            self._opened.close()

    def _check_workers(self) -> None:
        """Wait for a worker, and compare the code of all workers with the code of this process."""
        try:
            self._client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as exc:
            raise _no_worker(self._address) from exc
        try:
            found = self._client.run(own_code)
        except Exception as exc:  # any error, if a worker cannot load this module
            raise SettingError(
                "a worker does not have this package",
                where=_WHERE,
                got=f"{type(exc).__name__}: {exc}",
                next_step="Install the same freeze-pipeline on all workers",
            ) from exc
        for worker, code in found.items():
            if code != own_code():
                raise _other_code(worker, code)

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        """Call a function on many items; see `interface.Executor.map`.

        Raises:
            StageCrashed: the scheduler is lost, or all workers are lost and no new one comes.
        """
        client, run = self._client, f"{function.rpartition(':')[2]}-{uuid.uuid4().hex[:12]}"
        events: SimpleQueue[Started | int] = SimpleQueue()
        waiting, underway = deque(enumerate(items)), dict[int, Any]()
        client.subscribe_topic(run, lambda event: events.put(Started(event[1])))
        try:
            while waiting or underway:
                while waiting and len(underway) < _MOST_UNDERWAY:
                    number, item = waiting.popleft()
                    future = client.submit(
                        *(_call, function, item, own_code(), run, number, self._limits),
                        key=f"{run}-{number}",
                        pure=False,
                    )
                    underway[number] = future
                    future.add_done_callback(lambda _, number=number: events.put(number))
                event = self._next(events, underway)
                if isinstance(event, Started):
                    if event.number in underway:
                        yield event
                elif event in underway:
                    yield Ended(event, self._result(function, underway.pop(event)))
        finally:
            with suppress(OSError, TimeoutError, RuntimeError):  # the scheduler may have ended
                client.cancel(list(underway.values()), force=True)
                client.unsubscribe_topic(run)

    def _next(self, events: SimpleQueue[Started | int], underway: Mapping[int, Any]) -> Started | int:
        """Wait for the next event of the futures, by item number, as long as the cluster can produce one."""
        alone_since = None
        while True:
            try:
                return events.get(timeout=_LOOK_SECONDS)
            except Empty:
                done = next((number for number, future in underway.items() if future.done()), None)
            if done is not None:  # its callback was lost; do not wait for it
                return done
            try:
                has_workers = self._client.status == "running" and bool(self._client.nthreads())
            except (OSError, TimeoutError, RuntimeError) as exc:
                raise _lost(self._address) from exc
            if self._client.status != "running":
                raise _lost(self._address)
            alone_since = None if has_workers else alone_since or time.monotonic()
            if alone_since is not None and time.monotonic() > alone_since + _WORKER_SECONDS:
                raise _no_worker(self._address)

    def _result(self, function: str, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as exc:
            return StageCrashed(
                "every worker that ran it crashed",
                where=function,
                got=f"the last was {exc.last_worker.address}",
                next_step="Read the log of that worker; it may need more memory",
            )
        except Exception as exc:  # any error that Dask raises for a lost future
            if self._client.status != "running" or future.cancelled():
                raise _lost(self._address) from exc
            return as_pipeline_error(exc, function)


def _client(address: str) -> Any:
    from distributed import Client

    try:
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as exc:
        problem = f"{address}: {exc}"
    # The failed client closes itself when it is garbage-collected, and waits for ever if that happens while another
    # client starts. So it is collected now. The error would keep a reference to it, so it is dropped first.
    gc.collect()
    raise SettingError(
        "no Dask scheduler answers",
        where=_WHERE,
        got=problem,
        wanted="the address of a scheduler, such as tcp://host:8786",
        next_step="Start one with `dask scheduler`, or leave the address empty",
    )


def _lost(address: str) -> StageCrashed:
    return StageCrashed(
        "the Dask scheduler is lost",
        where=address or "a cluster of this machine",
        next_step="Start it and run again: finished work is kept",
    )


def _no_worker(address: str) -> StageCrashed:
    return StageCrashed(
        "the Dask cluster has no worker",
        where=address or "a cluster of this machine",
        wanted=f"one within {_WORKER_SECONDS:.0f} s",
        next_step="Start some with `dask worker ADDRESS --nthreads 1`",
    )


def _other_code(worker: str, code: str) -> SettingError:
    return SettingError(
        "a worker has other code or libraries than this process, so its results could differ",
        where=worker,
        got=code,
        wanted=own_code(),
        next_step="Install the same freeze-pipeline, Python, TensorFlow and NumPy on all workers, and restart them",
    )


@lru_cache(maxsize=1)
def own_code() -> str:
    """Describe the code of this process: versions, and a hash of the package's source."""
    files = {path.relative_to(_PACKAGE).as_posix(): hash_file(path) for path in sorted(_PACKAGE.rglob("*.py"))}
    libraries = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "numpy"))
    return f"{hash_values('package', files)[:12]}…, Python {platform.python_version()}, {libraries}"


def _call(function: str, item: tuple[Any, ...], code: str, run: str, number: int, limits: Limits | None = None) -> Any:
    """Run on a Dask worker for one item: report that it has started, and call the function."""
    from distributed import get_worker

    worker = get_worker()
    if code != own_code():  # this worker may have joined after the check of the others
        return _other_code(worker.address, own_code())
    worker.log_event(run, number)
    return _call_on_worker(function, item, limits)


def _call_on_worker(function: str, item: tuple[Any, ...], limits: Limits | None) -> Any:
    """Call the function in this worker's process, or in its slot; an error becomes a PipelineError that is returned."""
    # A nanny starts its worker as a daemon, and multiprocessing allows a daemon no children. Our children always end
    # together with this process: see `child.Child`.
    multiprocessing.current_process().daemon = False
    module, _, name = function.partition(":")
    try:
        if limits is not None:
            return _slot_of(threading.get_ident(), limits).call(function, *item)
        return getattr(importlib.import_module(module), name)(*item)
    except Exception as exc:  # outermost handler of this item: the error is its result
        return as_pipeline_error(exc, function)


@cache
def _slot_of(thread: int, limits: Limits) -> Slot:
    slot = Slot(limits)
    atexit.register(slot.close)  # otherwise Python would wait for it when the worker ends
    return slot
