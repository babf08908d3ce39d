"""What users give: existing files that a chain uses (a checkpoint, a warm start, a candidate), and lists in options."""

from __future__ import annotations

import errno
import math
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


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it, without hidden ones, in the order of their paths."""
    found: list[Path] = []
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


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


def parse_switch(flag: str, text: str) -> bool:
    """Returns whether an option that may be left out is switched on.

    Raises:
        SettingError: it is neither yes nor no.
    """
    if text.lower() not in ("", "yes", "true", "1", "no", "false", "0"):
        raise SettingError("not a switch", where=flag, got=text, wanted="yes or no")
    return text.lower() in ("yes", "true", "1")


_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " ", "colon": ":"}


def parse_separator(text: str) -> str | None:
    """Return the character that `--data-separator` names; None if it names none.

    Raises:
        SettingError: it is neither a name nor one character.
    """
    separator = _SEPARATORS.get(text.lower(), text)
    if len(separator) > 1 or separator in tuple('"\r\n'):
        raise SettingError(
            "not a separator",
            where="--data-separator",
            got=text,
            wanted=f"one character, or one of {', '.join(name for name in _SEPARATORS if name.isalpha())}",
        )
    return separator or None


def parse_range(text: str) -> tuple[float, float] | None:
    """Return the two numbers of `--data-range`; None if it is empty.

    Raises:
        SettingError: these are not two different numbers.
    """
    if not text:
        return None
    try:
        black, white = (float(part) for part in text.split(","))
        if not (math.isfinite(black) and math.isfinite(white) and black != white):
            raise ValueError("not two different numbers")
    except ValueError as exc:
        raise SettingError(
            "not a range", where="--data-range", got=text, wanted="two different numbers, such as 0,1 or -1,1"
        ) from exc
    return black, white


@dataclass(frozen=True)
class DataOptions:
    """How a data file is read, where its content leaves that open.

    Args:
        separator: the character between the cells of a table; None to see it in the header.
        range: the numbers that black and white pixels become; None if not given.
    """

    separator: str | None = None
    range: tuple[float, float] | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class DataSource:
    """A data file or folder of rows.

    Args:
        path: the file or folder.
        options: how it is read.
    """

    path: Path
    options: DataOptions = field(default_factory=DataOptions)

    def absolute(self) -> DataSource:
        """Return the same with an absolute path."""
        return DataSource(self.path.absolute(), self.options)


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
        path: a Saver checkpoint, a SavedModel or a GraphDef, as `freezing.freeze` takes it; or a Keras model file.
        inputs, outputs: names of tensors; empty to detect them.
        pins: placeholders that become constants, with their values.
        graph: the file of the graph, if it is not next to the checkpoint.
        signature: the signature to use, if a SavedModel has several.
        allow_ops: ops to allow in its graph although they can do more than compute.
        averages: take the moving averages of variables that the checkpoint holds beside them.
        inference: rewrite a graph that was built for training, so that it computes as the model is used.
        tags: those of the graph to take, if a SavedModel has several.
        options: what else was given with it on the command line, for messages that repeat the command.
    """

    path: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    graph: Path | None = None
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()
    averages: bool = False
    inference: bool = False
    tags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def is_keras(self) -> bool:
        """True if its name is that of a Keras file."""
        return is_keras_file(self.path)


def is_keras_file(place: Path | str) -> bool:
    """Return True if a file has the name of a Keras file: a model, or only weights."""
    return str(place).lower().endswith((".keras", ".h5", ".hdf5"))


@dataclass(frozen=True)
class Candidate:
    """An existing file or folder that is compared with the checkpoint, instead of formats made from it.

    Args:
        path: the file, or the folder of a SavedModel or of the format mmap.
        format: its format.
        names: the candidate's tensor by the name in the signature, where the two do not match.
        signature: the signature to use, if a SavedModel or TFLite file has several.
        allow_ops: ops to allow in it although they can do more than compute.
    """

    path: Path
    format: str
    names: Mapping[str, str] = field(default_factory=dict)
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The format without the precision of its weights, such as tflite."""
        return self.format.partition("_")[0]
