"""Identifies files found in place of a checkpoint's file."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.inputs import open_file

_AGAIN = "Copy the checkpoint again from where it was written"
_UNPACK = "Unpack it and give the checkpoint inside"
_EXPORT = "Give it to the chain, which has Keras export it: luigi --module pipeline FreezeModel --checkpoint FILE"

# Where the mark stands, the mark, what such a file is, and what to do about it. Text is compared in lower case.
_KINDS: list[tuple[int, bytes, str, str]] = [
    (0, b"version https://git-lfs", "a Git LFS pointer", "Fetch the file itself with `git lfs pull`"),
    (0, b"<!doctype html", "an HTML page", "Download the file itself, not the page about it"),
    (0, b"<html", "an HTML page", "Download the file itself, not the page about it"),
    (0, b"<?xml", "an XML document", "Download the file itself: this is likely a server's error message"),
    (0, b'{"', "a JSON text", "Download the file itself: this is likely a server's error message"),
    (0, b"model_checkpoint_path:", "a `checkpoint` state file", "Give the prefix that it names, or its folder"),
    (30, b"metadata.json", "a Keras model's file", _EXPORT),  # the first in the archive
    (0, b"pk\x03\x04", "a ZIP archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"bzh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zxz\0", "an xz archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89hdf\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (0, b"\x93numpy", "a NumPy file", "Give the checkpoint that TensorFlow's Saver wrote"),
    (0, b"\x80\x02", "a Python pickle", "Give the checkpoint that TensorFlow's Saver wrote"),
    (8, b'{"', "a safetensors file", "Give the checkpoint that TensorFlow's Saver wrote"),
    (4, b"tfl3", "a TensorFlow Lite model", "Give the checkpoint that it was converted from"),
    (0, b"\0" * 512, "a file of zeros", _AGAIN),
]


def foreign_kind(path: Path) -> tuple[str, str] | None:
    """Returns the kind of a file, by its first bytes, and the next step; None if it is unknown."""
    try:
        with open_file(path) as file:
            head = file.read(512).lower()
    except OSError:
        return None
    if not head:
        return "an empty file", _AGAIN
    for offset, mark, kind, next_step in _KINDS:
        if head.startswith(mark, offset):
            return kind, next_step
    return None


def broken_file(path: Path, what: str, *, got: object = None, wanted: object = None) -> CheckpointError:
    """Returns the error for a malformed file; if the file is of another kind, it names the kind."""
    kind = foreign_kind(path)
    if kind is not None:
        return CheckpointError(f"{kind[0]} in place of a checkpoint's file", where=path, next_step=kind[1])
    return CheckpointError(what, where=path, got=got, wanted=wanted, next_step=_AGAIN)


def unreadable_file(path: Path, error: OSError) -> CheckpointError:
    """Returns the error for a file that is missing or cannot be read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError("a file of the checkpoint is missing", where=path, next_step="Copy the whole checkpoint")
    return CheckpointError("the file cannot be read", where=path, got=error.strerror)
