"""Temporary folders, which the next run removes if this one is killed.

All temporary folders of a run lie in one folder, which holds a locked file. The kernel drops the lock when the run and
its children have ended, however they ended. So a folder whose lock can be taken belongs to nobody any more.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from multiprocessing import util
from typing import Any

_PREFIX = "pipeline-"
_LOCK = "run.lock"


def run_folder() -> str:
    """Return this run's folder for temporary files; the first call makes it, and removes those of killed runs.

    Processes that this one starts through multiprocessing use the same folder, and so does multiprocessing itself.
    """
    # multiprocessing keeps its sockets in this folder, hands its name to its processes, and would make its own.
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    folder = config.get("tempdir")
    if folder is None:
        remove_leftovers()
        folder = config["tempdir"] = _make()
    return str(folder)


def _make() -> str:
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(os.path.join(folder, _LOCK)), os.fstat(lock)):
                # Runs at the end of a process of multiprocessing too, which knows no atexit; not in a fork of this one.
                util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
                return folder
        os.close(lock)  # another run took the lock first, and has removed the folder


def remove_leftovers() -> None:
    """Remove the temporary folders of runs that were killed: this user's, in the folder for temporary files."""
    with suppress(OSError):
        home = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(home):
                if name.startswith(_PREFIX):
                    with suppress(OSError):
                        _remove_if_free(home, name)
        finally:
            os.close(home)


def _remove_if_free(home: int, name: str) -> None:
    """Remove a folder if it is one of ours and its run has ended; nothing is opened or removed through a link."""
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=home)
    try:
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            found = os.fstat(lock)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(name, ignore_errors=True, dir_fd=home)
        finally:
            os.close(lock)
    finally:
        os.close(folder)
