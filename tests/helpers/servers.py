"""Servers for tests, on the loopback interface: started when they are needed, and ended with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from commands import BIN, PROJECT, clean
from kills import from_shared_server


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(is_so: Callable[[], bool], seconds: float = 120, what: str = "it") -> None:
    """Waits until something is so.

    Raises:
        AssertionError: it does not become so in time.
    """
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"{what} took more than {seconds:.0f} s"
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a server answers."""
    with suppress(URLError, OSError), urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def start(*command: str, cwd: Path, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, in an environment without anything of ours."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command, cwd=cwd, env=clean(environment), stdout=file, stderr=file, start_new_session=True
        )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a process, its group, and those that it has asked the shared fork server for."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for pid in from_shared_server(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Ends a process and all of its session."""
    send(process, number)
    process.wait(60)


@contextmanager
def running(*command: str, cwd: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end of the block."""
    process = start(*command, cwd=cwd, log=log, **environment)
    try:
        yield process
    finally:
        end(process)


@contextmanager
def central_scheduler(folder: Path) -> Iterator[str]:
    """A luigid with the settings that the project brings; its address."""
    port = free_port()
    command = [
        str(BIN / "luigid"),
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        "--state-path",
        str(folder / "state"),
    ]
    settings = {"LUIGI_CONFIG_PATH": str(PROJECT / "deploy" / "luigid.cfg")}
    with running(*command, cwd=folder, log=folder / "luigid.log", **settings):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(url + "/static/visualiser/index.html"), what="luigid")
        yield url
