"""Lets the processes of the tests share one fork server, in which TensorFlow is loaded already.

Python imports this file at its start where its folder is on PYTHONPATH. Each command that a test runs, and each worker
of it, would start a fork server of its own and load TensorFlow there, which takes several seconds of a processor. With
this, their stages still run each in a fresh process, forked from a server that has loaded the same and runs nothing;
it only was started once, by the first that asked. A process whose environment, package or list of modules differ from
the server's starts one of its own, as it would without this file.

What the server forks belongs to the server's session. So each process writes its number into a file that is named
after the session which asked for it, where `kills.processes_of_session` finds it.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import re
import sys
from importlib.abc import MetaPathFinder
from types import SimpleNamespace
from typing import Any

# What stages import when they run: the server has it beside what the pipeline gives its own, so that none of the many
# processes of the tests imports it anew.
_OF_STAGES = [
    *("pipeline.training.graphs", "pipeline.training.train", "pipeline.training.export", "pipeline.training.examples"),
    *("pipeline.training.import_checkpoint", "pipeline.formats.runner_process", "pipeline.formats.session"),
    *("pipeline.validation.validate", "pipeline.report.html"),
]
FOLDER, FLAG = "PIPELINE_TEST_FORK_SERVER", "PIPELINE_TEST_IS_FORK_SERVER"
# What changes nothing in the processes that the server forks: our own switches, pytest's, make's and the shell's.
_UNREAD = re.compile(
    rf"PYTHONPATH|{FOLDER}|{FLAG}|LUIGI_CONFIG_PATH|PYTEST_\w+|M(AKE)?FLAGS|MAKE\w+|VENV|START|NIGHT_PARAMS|ARGS"
    r"|PWD|OLDPWD|SHLVL|TERM|LINES|COLUMNS|_|PYTHONUNBUFFERED|PYTHONDONTWRITEBYTECODE|AWS_\w+"
    # These TensorFlow sets itself where it is loaded.
    r"|TF2_BEHAVIOR|TPU_ML_PLATFORM\w*|ENABLE_RUNTIME_UPTIME_TELEMETRY|HDF5_PLUGIN_PATH|KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)"
)
# What must be there as well if the server has it: the libraries read it.
_OF_LIBRARIES = re.compile(r"(TF|OMP|MKL|KMP|OPENBLAS|XLA|CUDA|KERAS|ORT|MPL|MALLOC|LD|PYTHON)_?\w*")


def is_fit(mine: dict[str, str], servers: dict[str, str]) -> bool:
    """Whether a process with an environment may use a server with another one."""
    wanted = {name: value for name, value in mine.items() if not _UNREAD.fullmatch(name)}
    read = {name for name in servers if _OF_LIBRARIES.fullmatch(name) and not _UNREAD.fullmatch(name)}
    return read <= wanted.keys() and wanted.items() <= servers.items()


def describe(folder: str, package: str, environments: list[dict[str, str]]) -> None:
    """Writes what the servers of a folder are to be like: one for each environment, started when one asks for it."""
    # What the pipeline gives its own.
    own = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}
    described = {
        "package": package,
        "modules": ["pipeline.workers.preload"],
        "environments": [own | each for each in environments],
    }
    with open(f"{folder}/servers.json", "w", encoding="utf-8") as file:
        json.dump(described, file)
    os.mkfifo(f"{folder}/alive")


def _started(folder: str, described: dict[str, Any], number: int) -> str:
    """The address of a server, which is started unless another process has done so."""
    import socket
    import subprocess

    address, new = f"{folder}/socket{number}", f"{folder}/new{number}"
    with open(f"{folder}/lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(address):
            return address
        # The server ends when the other end of this is closed, whatever ends pytest.
        alive = os.open(f"{folder}/alive", os.O_RDONLY | os.O_NONBLOCK)
        environment = described["environments"][number]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(new)
            listener.listen(64)
            arguments = f"{listener.fileno()}, {alive}, {described['modules'] + _OF_STAGES!r}"
            code = f"from multiprocessing.forkserver import main; main({arguments})"
            server = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=os.path.dirname(os.path.dirname(described["package"])),
                env=environment | {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__)), FOLDER: folder, FLAG: "1"},
                pass_fds=(listener.fileno(), alive),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        os.close(alive)
        server.returncode = 0  # nobody here waits for it
        os.rename(new, address)
    return address


def share(module: Any, folder: str) -> None:
    """Changes multiprocessing.forkserver."""
    server, start, serve_one = module._forkserver, module._forkserver.ensure_running, module._serve_one
    ask, receive = server.connect_to_new_process, module.reduction.recvfds
    with open(f"{folder}/servers.json", encoding="utf-8") as file:
        described = json.load(file)
    session: list[str] = [str(os.getsid(0))]
    shared: list[str] = [""]

    def fit() -> int | None:
        package = sys.modules.get("pipeline")
        if server._preload_modules != described["modules"] or getattr(package, "__file__", "") != described["package"]:
            return None
        environments = enumerate(described["environments"])
        return next((number for number, servers in environments if is_fit(dict(os.environ), servers)), None)

    def ensure_running() -> None:
        number = fit() if server._forkserver_pid is None else None
        if number is not None:
            module.resource_tracker.ensure_running()
            shared[0] = server._forkserver_address = _started(folder, described, number)
            if server._forkserver_alive_fd is None:
                server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)
        else:
            shared[0] = ""
            start()

    def connect_to_new_process(fds: list[int]) -> tuple[int, int]:
        ensure_running()
        if not shared[0]:
            return ask(fds)  # type: ignore[no-any-return]
        noted = os.open(f"{folder}/session-{session[0]}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            return ask([*fds, 1, 2, noted])  # type: ignore[no-any-return]
        finally:
            os.close(noted)

    def received(connection: Any, most: int) -> list[int]:
        try:
            return receive(connection, most)  # type: ignore[no-any-return]
        except (EOFError, RuntimeError) as exc:  # it was killed while it asked, which costs the others nothing
            raise ConnectionAbortedError(errno.ECONNABORTED, str(exc)) from exc

    def _serve_one(child_r: int, fds: list[int], unused_fds: list[int], handlers: Any) -> int:
        *fds, out, err, noted = fds
        os.dup2(out, 1)
        os.dup2(err, 2)
        session[0] = os.readlink(f"/proc/self/fd/{noted}").rpartition("-")[2]
        os.write(noted, f"{os.getpid()}\n".encode())
        for fd in (out, err, noted):
            os.close(fd)
        return int(serve_one(child_r, fds, unused_fds, handlers))

    server.ensure_running = module.ensure_running = ensure_running
    server.connect_to_new_process = module.connect_to_new_process = connect_to_new_process
    if FLAG in os.environ:
        module._serve_one = _serve_one
        module.reduction = SimpleNamespace(recvfds=received, sendfds=module.reduction.sendfds)
        del os.environ[FLAG]


class _Finder(MetaPathFinder):
    """Changes multiprocessing.forkserver when it is imported, and notes that TensorFlow is."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        folder = os.environ.get(FOLDER, "")
        if fullname == "tensorflow" and os.path.isdir(folder):
            open(f"{folder}/tensorflow", "w").close()
        if fullname != "multiprocessing.forkserver":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        sys.meta_path.insert(0, self)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            share(module, folder)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _is_asked_for() -> bool:
    return os.path.exists(f"{os.environ.get(FOLDER)}/servers.json")


if __name__ == "sitecustomize" and _is_asked_for():
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]
    sys.meta_path.insert(0, _Finder())
