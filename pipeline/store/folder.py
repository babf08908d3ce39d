"""Folders that are held open: their files are looked up in the folder itself, wherever its path leads meanwhile.

Somebody else who can write to an output root can put a link in the place of a folder or a file, at any moment. A path
that was checked may lead elsewhere when it is used; a descriptor cannot. So nothing is followed below the folder that
was opened: a link on the way is an error, and so is anything but a regular file where a file is read (a FIFO would
wait for ever).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.errors import StoreError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(StoreError):
    """Something else is in the place of a regular file or of a folder: a link, a FIFO, a device."""


class Folder:
    """A folder that is held open; a context that closes it.

    Args:
        path: where it was found, for messages only.
        descriptor: the open folder.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self._open: tuple[str, int] | None = None  # the inner folder that was used last: a listing goes by folders

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        self._close_inner()
        os.close(self.descriptor)

    def _close_inner(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    @classmethod
    def open(cls, path: Path, create: bool = False) -> Folder:
        """Open a folder; links on the way to it are followed, because its user has chosen that way.

        Raises:
            OSError: it cannot be opened, or made.
        """
        if create:
            path.mkdir(parents=True, exist_ok=True)
        return cls(path, os.open(path, _FOLDER))

    def inner(self, name: str, create: bool = False) -> Folder:
        """Open a folder in this one.

        Args:
            name: one name, without a slash.

        Raises:
            NotRegular: a link or a file is in its place.
            OSError: it cannot be opened, or made.
        """
        return Folder(self.path / name, self._enter(self.descriptor, name, create))

    def _enter(self, parent: int, name: str, create: bool = False) -> int:
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._not_regular(parent, name, "a folder") from exc
            raise

    def _not_regular(self, parent: int, name: str, wanted: str) -> NotRegular:
        state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        got = _KINDS.get(stat.S_IFMT(state.st_mode), "a file")
        if stat.S_ISLNK(state.st_mode):
            got = f"a link to {os.readlink(name, dir_fd=parent)!r}"
        return NotRegular(
            f"something else is in the place of {wanted} of the pipeline",
            where=self.path / name,
            got=got,
            next_step="Find out who put it there; then remove it and run again",
        )

    def _parent_of(self, path: str, create: bool = False) -> tuple[int, str]:
        """Return the open folder of a path in this one, and the name in it."""
        folder, _, name = path.rpartition("/")
        if not folder:
            return self.descriptor, name
        if self._open is None or self._open[0] != folder:
            self._close_inner()
            current = os.dup(self.descriptor)
            try:
                for part in folder.split("/"):
                    entered = self._enter(current, part, create)
                    os.close(current)
                    current = entered
            except BaseException:
                os.close(current)
                raise
            self._open = (folder, current)
        return self._open[1], name

    def state(self, path: str) -> os.stat_result:
        """Return the state of a regular file.

        Args:
            path: below this folder, with slashes.

        Raises:
            NotRegular: it is no regular file, or a link is on the way.
            OSError: it is missing, or cannot be looked up.
        """
        parent, name = self._parent_of(path)
        state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode):
            raise self._not_regular(parent, name, "a file")
        return state

    def open_file(self, path: str) -> io.BufferedReader:
        """Open a regular file for reading. Args, Raises: as `state`."""
        return os.fdopen(self._open_regular(*self._parent_of(path), os.O_RDONLY), "rb")

    def open_lock(self, name: str) -> int:
        """Open a regular file in this folder for locking, and make it if it is not there. Raises: as `state`."""
        return self._open_regular(self.descriptor, name, os.O_WRONLY | os.O_CREAT)

    def _open_regular(self, parent: int, name: str, flags: int) -> int:
        try:
            descriptor = os.open(name, flags | _FILE, 0o666, dir_fd=parent)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a socket or FIFO, a folder
                raise self._not_regular(parent, name, "a file") from exc
            raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise self._not_regular(parent, name, "a file")

    def create_file(self, path: str, is_instead: bool = False) -> io.BufferedWriter:
        """Open a new file for writing, and make the folders on the way.

        Args:
            is_instead: remove what is in its place first.

        Raises:
            NotRegular: a link or a file is in the place of a folder.
            OSError: it exists (as this file system compares names), or cannot be written.
        """
        parent, name = self._parent_of(path, create=True)
        if is_instead:
            self._remove(name, parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(name, flags, 0o666, dir_fd=parent), "wb")

    def replace_file(self, name: str, content: bytes, is_durable: bool = True) -> None:
        """Write a file in this folder in one step, instead of whatever is in its place.

        Args:
            is_durable: flush it to the disk before it replaces what is there.

        Raises:
            OSError: it cannot be written.
        """
        fresh = f".{name}.{os.getpid()}"
        self.remove(fresh)
        with self.create_file(fresh) as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def move(self, name: str, other: Folder, new: str) -> None:
        """Move a name in this folder to another one.

        Raises:
            OSError: it cannot be moved.
        """
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=other.descriptor)

    def remove(self, name: str) -> None:
        """Remove a name in this folder, if it is there, and all that is in it; where a link leads, nothing is touched.

        Raises:
            StoreError: its folders are nested too deep.
            OSError: it cannot be removed; of what is in a folder, all that can be removed is.
        """
        self._remove(name, self.descriptor)

    def _remove(self, name: str, parent: int) -> None:
        try:
            if is_folder(name, parent):
                shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except RecursionError as exc:
            raise StoreError("its folders are nested too deep", where=self.path / name, next_step="Remove it") from exc

    def link_target(self, name: str) -> str | None:
        """Return where a link in this folder leads; None if there is no link of this name."""
        try:
            return os.readlink(name, dir_fd=self.descriptor)
        except OSError:
            return None

    def flush(self) -> None:
        """Write the names in this folder to the disk."""
        os.fsync(self.descriptor)

    def flush_all(self) -> None:
        """Write the names in this folder and in its folders to the disk."""
        for *_, descriptor in os.fwalk(".", dir_fd=self.descriptor):
            os.fsync(descriptor)

    def files(self) -> Iterator[str]:
        """Yield the paths of all that is in this folder and its folders, links too, except these folders themselves."""
        for path, folders, files, descriptor in os.fwalk(".", dir_fd=self.descriptor):
            links = [name for name in folders if not is_folder(name, descriptor)]
            for name in (*files, *links):
                yield os.path.normpath(os.path.join(path, name))

    def hash(self, path: str) -> str:
        """Return the sha256 of a regular file, as 64 hex digits. Args, Raises: as `state`."""
        with self.open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def names(self) -> list[str]:
        """Return the names in this folder, sorted."""
        return sorted(os.listdir(self.descriptor))


def is_folder(name: str, parent: int) -> bool:
    """Return True for a folder in an open one, False for anything else, a link to a folder too.

    Raises:
        FileNotFoundError: there is nothing of this name.
    """
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def is_same(name: str | Path, descriptor: int, folder: Folder | None = None) -> bool:
    """Return True if a name still leads to what is open, without a link.

    Args:
        folder: where to look up the name; as a path if not given.
    """
    try:
        now = os.stat(name, dir_fd=None if folder is None else folder.descriptor, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(now, os.fstat(descriptor))


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a small regular file.

    Args:
        path: links on the way to it are followed, but it is none.
        most_bytes: more are an error.

    Raises:
        NotRegular: it is no regular file.
        OSError: it cannot be read, or is larger.
    """
    with Folder.open(path.parent) as folder, folder.open_file(path.name) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", str(path))
    return content


def write_file(path: Path, content: bytes, root: Path) -> None:
    """Write a file that may be lost in one step, instead of whatever is in its place.

    Args:
        root: a folder on the way; below it no link is followed, and folders are made.

    Raises:
        NotRegular: a link or a file is in the place of a folder.
        OSError: it cannot be written.
    """
    with _open_below(root, path, create=True) as folder:
        folder.replace_file(path.name, content, is_durable=False)


def remove_file(path: Path, root: Path) -> None:
    """Remove a file, if it is there. Args, Raises: as `write_file`."""
    with suppress(FileNotFoundError), _open_below(root, path) as folder:
        folder.remove(path.name)


@contextmanager
def _open_below(root: Path, path: Path, create: bool = False) -> Iterator[Folder]:
    with ExitStack() as held:
        folder = held.enter_context(Folder.open(root, create))
        for name in path.relative_to(root).parts[:-1]:
            folder = held.enter_context(folder.inner(name, create))
        yield folder
