"""A Dask cluster on the loopback: a scheduler and workers, each a process of its own in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from commands import BIN, PROJECT


@dataclass
class Cluster:
    """A scheduler and its workers.

    Args:
        workers: their processes, in the order in which they were started.
    """

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kill(self, number: int) -> None:
        """Kills a worker with a signal that nothing can catch."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()


@contextmanager
def cluster(folder: Path, workers: Sequence[Sequence[str]] = (["--no-nanny"], ["--nanny"])) -> Iterator[Cluster]:
    """Starts a scheduler and a worker of one thread for each list of its options; ends them all."""
    where, started = folder / "scheduler.json", list[subprocess.Popen[bytes]]()
    try:
        scheduler = _start(
            folder / "scheduler",
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where)),
        )
        started.append(scheduler)
        found = Cluster(_address(where, scheduler), scheduler)
        for number, options in enumerate(workers):
            command = ["worker", found.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", *options]
            found.workers.append(_start(folder / f"worker{number}", *command))
            started.append(found.workers[-1])
        yield found
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [str(BIN / "dask"), *command],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([*_path(), str(PROJECT), str(PROJECT / "tests" / "helpers")])},
        )


def _path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _address(where: Path, scheduler: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and scheduler.poll() is None:
        try:
            return str(json.loads(where.read_text())["address"])
        except (OSError, ValueError):  # it is not there yet, or not all of it
            time.sleep(0.05)
    raise AssertionError("the scheduler did not start")
