"""Locks: `<output-root>/<name>/.locks/<stage>`, held by the process that makes the stage.

The kernel frees a lock however its process ends (flock). A lock is a file: whoever removes it lets a second process in.
So a process looks again whether its lock is still there before it publishes what it made.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError, logger

from .folder import Folder, is_same


class Lock:
    """A lock that this process holds, or does not hold.

    Args:
        path: its file.
        descriptor: the open file; None if another process holds the lock.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor = path, descriptor

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def require(self) -> None:
        """Check that the lock was not taken away.

        Raises:
            StoreError: its file was removed, so another run may have worked in the same folder.
        """
        assert self._descriptor is not None
        if not is_same(self.path, self._descriptor):
            raise StoreError(
                "the lock was removed while this run held it",
                where=self.path,
                got="another run may have worked in the same folder",
                next_step="Run again, and leave .locks alone while a run lasts",
            )


@contextmanager
def hold_lock(path: Path, wait: bool = True) -> Iterator[Lock]:
    """Hold a lock file.

    Args:
        path: `<home>/.locks/<stage>`; nothing below the folder that holds `<home>` may be a link.
        wait: False to give up if another process holds it.

    Raises:
        NotRegular: a link is in the place of the model's folder, of `.locks`, or of the lock.
        OSError: it cannot be made.
    """
    locks, name = path.parent, path.name
    with (
        Folder.open(locks.parent.parent, create=True) as root,
        root.inner(locks.parent.name, create=True) as home,
    ):
        descriptor = _acquire(home, locks.name, name, wait)
        try:
            yield Lock(path, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)


@contextmanager
def hold(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file. Args, Raises: as `hold_lock`.

    Yields:
        True if the lock is held; False if `wait` is False and another process holds it.
    """
    with hold_lock(path, wait) as lock:
        yield lock.is_held


def _acquire(home: Folder, locks: str, name: str, wait: bool) -> int | None:
    """Lock a file that is still there once it is locked; return None if another process holds it."""
    while True:
        with home.inner(locks, create=True) as folder:
            try:
                descriptor = folder.open_lock(name)
            except FileNotFoundError:  # the folder was removed meanwhile
                continue
            try:
                if not _lock(descriptor, name, wait):
                    os.close(descriptor)
                    return None
                if is_same(name, descriptor, folder) and is_same(locks, folder.descriptor, home):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was removed before it was locked: lock the one that others see


def _lock(descriptor: int, name: str, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        logger.info("another run is making %s: waiting for it", name)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True
