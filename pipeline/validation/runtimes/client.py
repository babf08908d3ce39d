"""Opens artifacts in other interpreters: each is sent the one file `server.py`, and needs nothing else of ours."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.errors import RunnerError, SettingError, StageCrashed, first_line
from pipeline.signature import Array, Batch, Signature
from pipeline.workers.child import Limits
from pipeline.workers.sandbox import kept_environment
from pipeline.workers.worker import WORKER_ENVIRONMENT

from . import server
from .requests import LIBRARIES, OpenRequest

SETTING = "[validation] runtimes"
_START = "import sys;n=int(sys.stdin.buffer.readline());exec(compile(sys.stdin.buffer.read(n),'runtime','exec'))"
_PART_BYTES = 1 << 22


@dataclass
class Runtime(AbstractContextManager["Runtime"]):
    """Another interpreter, which opens one artifact after the other.

    Args:
        command: what starts it: the path of a Python, or a command to which Python's arguments are appended.
        limits: of each answer and of its memory.

    Raises:
        SettingError: it cannot be started, or is no Python.
    """

    command: str
    limits: Limits
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _opened: int = 0

    def __post_init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._folder = tempfile.TemporaryDirectory(prefix="runtime-")

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [*program_of(self.command), "-I", "-c", _START]
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=self._folder.name,
                env=_environment(),
            )
        except OSError as exc:
            raise _not_started(self.command, exc.strerror or exc) from exc
        source = Path(server.__file__).read_bytes() + b"\nmain()\n"
        with suppress(BrokenPipeError):  # the next answer tells that it has ended
            stdin = cast(BinaryIO, process.stdin)
            stdin.write(b"%d\n" % len(source) + source)
            stdin.flush()
        return process

    def _ask(self, request: Mapping[str, Any], arrays: Batch | None = None) -> dict[str, Any]:
        """Sends a request and returns the answer, with its arrays under `arrays`.

        Raises:
            RunnerError: the library's sentence.
            StageCrashed: the process has ended, or gives no answer in time.
        """
        if self._process is None:
            self._process = self._start()
        process = self._process
        try:
            server.write_message(cast(BinaryIO, process.stdin), request, arrays)
            self._wait(process)
            answer, found, _ = server.read_message(cast(BinaryIO, process.stdout))
        except (BrokenPipeError, EOFError, ValueError):
            raise self._crash(process) from None
        if "error" in answer:
            raise RunnerError("it answers", got=first_line(answer["error"]))
        return {**answer, "arrays": found}

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        seconds = self.limits.seconds
        ready, _, _ = select.select([cast(BinaryIO, process.stdout)], [], [], seconds or None)
        if not ready:
            process.kill()
            raise StageCrashed(
                "it gave no answer in time", where=self.command, wanted=f"an answer within {seconds:g} s"
            )

    def _crash(self, process: subprocess.Popen[bytes]) -> StageCrashed:
        process.kill()
        code = process.wait()
        if code == server.TOO_MUCH_MEMORY:
            most = self.limits.most_memory / 1e9
            return StageCrashed("it took more memory than it may", where=self.command, wanted=f"at most {most:.1f} GB")
        self._log.seek(0)
        said = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return StageCrashed(
            "its process ended without an answer", where=self.command, got=said[-1] if said else f"exit code {code}"
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The versions of its Python and its libraries.

        Raises:
            SettingError: it cannot be started, or is no Python.
        """
        try:
            return self._describe({}, 0)
        except (StageCrashed, RunnerError) as exc:
            raise _not_started(self.command, exc.got or exc.what) from exc

    def _describe(self, ops: Mapping[str, Sequence[str]], consumer: int) -> dict[str, Any]:
        request = {"do": "describe", "memory_bytes": self.limits.most_memory, "ops": ops, "consumer": consumer}
        return self._ask(request)

    def require_library(self, kinds: Sequence[str]) -> None:
        """Checks that it can open at least one of these kinds of files.

        Raises:
            SettingError: it cannot be started, or has no library for any of them.
        """
        if kinds and not any(map(self.library_of, kinds)):
            wanted = " or ".join(dict.fromkeys(name for kind in kinds for name in LIBRARIES[kind]))
            raise _not_started(self.command, f"it has no {wanted}")

    def library_of(self, kind: str) -> str | None:
        """Returns the library that opens a kind of file, with its version; None if it has none."""
        found = self.facts["libraries"]
        return next((f"{name} {found[name]}" for name in LIBRARIES[kind] if name in found), None)

    def unknown(self, ops: Mapping[str, Sequence[str]], consumer: int) -> list[str]:
        """Returns sentences on the ops and attributes of a graph that are newer than its TensorFlow."""
        return [str(sentence) for sentence in self._describe(ops, consumer)["unknown"]]

    def open(self, request: OpenRequest, signature: Signature) -> RuntimeRunner:
        """Sends it an artifact, and has it open it.

        Raises:
            RunnerError: its library cannot open the file.
            StageCrashed: its process ended over the file.
        """
        if self._process is None or self._process.poll() is not None:
            self.restart()
        _ = self.facts
        process, self._opened = cast("subprocess.Popen[bytes]", self._process), self._opened + 1
        try:
            for path in request.files:
                name = path.relative_to(request.folder).as_posix()
                self._send(cast(BinaryIO, process.stdin), path, f"{self._opened}/{name}")
        except BrokenPipeError:
            raise self._crash(process) from None
        self._ask({"do": "open", "folder": str(self._opened), **request.to_message()})
        return RuntimeRunner(self, signature)

    def _send(self, stream: BinaryIO, path: Path, name: str) -> None:
        with path.open("rb") as file:
            while True:
                content = file.read(_PART_BYTES)
                server.write_message(stream, {"do": "file", "path": name}, content=content)
                if len(content) < _PART_BYTES:
                    return

    def run(self, batch: Batch) -> dict[str, Array]:
        """Computes the outputs for a batch; see `Runner.run`."""
        return dict(self._ask({"do": "run"}, batch)["arrays"])

    def restart(self) -> None:
        """Ends its process; the next request starts another one."""
        if self._process is not None:
            _end(self._process)
        self._process = None
        self.__dict__.pop("facts", None)

    def close(self) -> None:
        """Ends its process."""
        self.restart()
        self._log.close()
        self._folder.cleanup()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RuntimeRunner:
    """An artifact that another interpreter has opened."""

    def __init__(self, runtime: Runtime, signature: Signature) -> None:
        self._runtime, self._names = runtime, [spec.name for spec in signature.inputs]

    def run(self, batch: Batch) -> dict[str, Array]:
        """Computes the outputs for a batch; see `Runner.run`."""
        return self._runtime.run({name: batch[name] for name in self._names})


def program_of(command: str) -> list[str]:
    """Returns the words of a command, the program's path in full.

    Raises:
        SettingError: there is no such program.
    """
    words = shlex.split(command)
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise _not_started(command, "no such program, or it may not be run")
    return [str(Path(program).absolute()), *words[1:]]


def _not_started(command: str, cause: object) -> SettingError:
    return SettingError(
        "a runtime does not start",
        where=SETTING,
        got=f"{command}: {cause}",
        wanted="the path of a Python 3.8 or newer with NumPy and TensorFlow, LiteRT or onnxruntime",
        next_step=f"Try it: {command} -c 'import numpy'. `make runtimes` installs three that have TensorFlow",
    )


def _environment() -> dict[str, str]:
    """Returns the environment of the interpreter: no secrets, no settings of Python, none of our own workers."""
    kept = {name: value for name, value in kept_environment(os.environ).items() if not name.startswith("PYTHON")}
    for name in WORKER_ENVIRONMENT:  # which this process may have set for its own workers
        kept.pop(name, None)
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": kept.get("TF_CPP_MIN_LOG_LEVEL", "3")}


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        cast(BinaryIO, process.stdin).close()
    until = time.monotonic() + 1
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    cast(BinaryIO, process.stdout).close()
