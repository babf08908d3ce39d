"""What users give: existing files that a chain uses (a checkpoint, a warm start, a candidate), and lists in options."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from .errors import SettingError

State = tuple[int, ...]  # of a file: device, inode, size, time of change, time of change of its inode
FOLDER: State = ()  # of a folder, whose time of change is that of the names in it


def open_file(path: Path | str, buffering: int = -1) -> BufferedReader | FileIO:
    """Opens a file for reading, as `open` does, but never waits: a pipe without a writer would take for ever.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a folder, a pipe, a device or a socket.
    """
    found = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        os.close(found)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"not a file but {kind}", str(path))
    opened: Any = os.fdopen(found, "rb", buffering)
    file: BufferedReader | FileIO = opened
    return file


def state_of(path: str) -> State | None:
    """Returns the state of a file; `FOLDER` for a folder, None if there is nothing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return FOLDER
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_file(path: Path | str) -> bytes:
    """Returns the content of a file. Raises: as `open_file`."""
    with open_file(path) as file:
        return file.read()


def split_list(text: str | None) -> list[str]:
    """Splits a comma-separated list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def parse_pairs(flag: str, text: str | None) -> dict[str, str]:
    """Splits a comma-separated list of pairs, `name=value,name=value`.

    Args:
        flag: the option that holds the list, for the error message.

    Raises:
        SettingError: a part is not a pair.
    """
    pairs = [part.partition("=") for part in split_list(text)]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise SettingError("not a pair", where=flag, got=name + equals + value, wanted="NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True)
class WarmStart:
    """The checkpoint that gives a training its initial weights.

    Args:
        prefix: a checkpoint, as `checkpoint.files.find_prefix` takes it; for a Keras model also a Keras file.
        keys: the checkpoint's key by variable name, where the two differ.
    """

    prefix: Path
    keys: Mapping[str, str]


@dataclass(frozen=True)
class ImportedCheckpoint:
    """An existing checkpoint that a chain starts from, instead of its own training.

    Args:
        place: a Saver checkpoint, a SavedModel or a GraphDef, as `freezing.freeze` takes it; or a Keras model file.
        inputs, outputs: names of tensors; empty to detect them.
        pins: placeholders that become constants, with their values.
        graph: the file of the graph, if it is not next to the checkpoint.
        signature: the signature to use, if a SavedModel has several.
        allow_ops: ops to allow in its graph although they can do more than compute.
    """

    place: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    graph: Path | None = None
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def is_keras(self) -> bool:
        """True if its name is that of a Keras file."""
        return is_keras_file(self.place)


def is_keras_file(place: Path | str) -> bool:
    """Return True if a file has the name of a Keras file: a model, or only weights."""
    return str(place).lower().endswith((".keras", ".h5", ".hdf5"))


@dataclass(frozen=True)
class Candidate:
    """An existing file or folder that is compared with the checkpoint, instead of formats made from it.

    Args:
        place: the file, or the folder of a SavedModel or of the format mmap.
        format: its format.
        names: the candidate's tensor by the name in the signature, where the two do not match.
        signature: the signature to use, if a SavedModel or TFLite file has several.
        allow_ops: ops to allow in it although they can do more than compute.
    """

    place: Path
    format: str
    names: Mapping[str, str] = field(default_factory=dict)
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The format without the precision of its weights, such as tflite."""
        return self.format.partition("_")[0]
