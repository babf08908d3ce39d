"""Manifest of an artifact: its files, and everything that decided them; `changes` says what has changed since."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, StoreError
from pipeline.hashing import hash_values

from .file_names import MANIFEST_FILE
from .folder import NotRegular, read_file

ACCEPTED = "accepted"  # the note on what an artifact was kept under, although it was made with something else
# What was read while an artifact was made, by kind: known only afterwards.
RECORDED = ("model_files", "model_links", "model_folders", "model_variables")
MOST_BYTES = 2**26  # of a manifest: room for 300,000 files
_MOST_FOLDERS = 64  # of a file's path
_HEX_DIGITS = frozenset("0123456789abcdef")
# What may stand in no path: a backslash and a drive are separators elsewhere, the others change what people see.
_MISLEADING = r"[\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|^[A-Za-z]:"


def require_inner_path(path: str) -> None:
    """Refuse a path that could lead out of a folder, or that is not written in its only form.

    Args:
        path: read from a manifest, which somebody else may have written.

    Raises:
        StoreError: it is empty, absolute or not normalised, nested too deep, or holds `..`, a backslash, a drive, a
            control character, or what is no text.
    """
    parts = path.split("/")
    is_inner = not {"", ".", ".."} & set(parts) and len(parts) <= _MOST_FOLDERS
    if not is_inner or _is_misleading(path):
        raise StoreError(
            "not the path of a file in a folder",
            got=ascii(path[:200]),
            wanted="a relative path with slashes, without .. and control characters",
        )


def _is_misleading(path: str) -> bool:
    if path.isascii() and path.isprintable() and "\\" not in path and path[1:2] != ":":  # nearly all; no pattern needed
        return False
    return bool(re.search(_MISLEADING, path)) or not _is_encodable(path)


def _is_encodable(path: str) -> bool:
    try:
        return bool(os.fsencode(path))
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class FileEntry:
    """A finished file: size, hash, and the time stamp by which an unchanged file is recognized.

    Raises:
        StoreError: a value is not of its kind, or out of its range.
    """

    size_bytes: int
    sha256: str
    mtime_ns: int

    def __post_init__(self) -> None:
        are_numbers = type(self.size_bytes) is int and type(self.mtime_ns) is int  # not bool
        if not are_numbers or not (0 <= self.size_bytes < 2**63 and -(2**63) <= self.mtime_ns < 2**63):
            raise StoreError("not the size and time stamp of a file", got=f"{self.size_bytes!r}, {self.mtime_ns!r}")
        if not isinstance(self.sha256, str) or len(self.sha256) != 64 or not _HEX_DIGITS.issuperset(self.sha256):
            raise StoreError("not a sha256", got=ascii(self.sha256)[:200], wanted="64 hex digits")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_acceptance(value: object) -> bool:
    """Return True for the form of `Acceptance.to_note`."""
    if not isinstance(value, Mapping) or not all(map(_is_text, map(value.get, ACCEPTANCE_TEXTS))):
        return False
    listed = value.get("changes")
    return isinstance(listed, list) and all(
        isinstance(each, Mapping)
        and {"from", "to"} <= set(each)
        and _is_text(each.get("kind"))
        and _is_text(each.get("name"))
        for each in listed
    )


ACCEPTANCE_TEXTS = ("when", "user", "machine", "command")
# What decides a stage, by kind, as far as it is values by name.
_MAPPINGS = ("settings", "files", "upstream", "code", "model", "versions", *RECORDED)
# The notes that every stage may have, and what each of them is.
_NOTES: Mapping[str, Callable[[Any], bool]] = {
    "command": _is_text,
    "commit": _is_text,
    "host": _is_text,
    "made": _is_text,
    "refused": _is_text,
    "seconds": _is_number,
    "rows_per_second": lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
    "unwatched": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    ACCEPTED: lambda value: isinstance(value, list) and all(map(_is_acceptance, value)),
}


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact, and everything that decided them.

    What is written and what is read pass the same checks: a manifest may come from a bucket or a folder that others can
    write to, and its paths are read and written.

    Args:
        fingerprint_inputs: nested values by kind (settings, files, upstream, code, versions); the fingerprint is their
            hash. In `manifest.json` they are called `ingredients`.
        notes: facts that decide nothing: the command, seconds, seeds.

    Raises:
        StoreError: a value is not of its kind (notes that no other code reads may be of any); the path of a file leads
            out of the artifact, is the manifest's own, or is at the same time a folder of another file.
    """

    stage: str
    fingerprint_inputs: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.stage, str) or not all(
            isinstance(part, Mapping) for part in (self.fingerprint_inputs, self.files, self.notes)
        ):
            raise StoreError("not a manifest", wanted="a stage, ingredients, files and notes")
        for path in self.files:
            require_inner_path(path)
            folder = path.rpartition("/")[0]
            while folder:
                if folder in self.files:
                    raise StoreError("a file and a folder have the same name", got=folder)
                folder = folder.rpartition("/")[0]
        for kind in _MAPPINGS:
            if not isinstance(self.fingerprint_inputs.get(kind) or {}, Mapping):
                raise StoreError("not what decides a stage", where=kind, wanted="values by name")
        for name, is_note in _NOTES.items():
            if name in self.notes and not is_note(self.notes[name]):
                raise StoreError("not a note of a manifest", where=name, got=ascii(self.notes[name])[:200])
        if MANIFEST_FILE in self.files:
            raise StoreError("a manifest does not list itself", got=MANIFEST_FILE)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.stage, self.fingerprint_inputs)

    def digests(self, *patterns: str) -> dict[str, str]:
        """Return the sha256 of each file whose path matches a pattern (`*` crosses folders)."""
        return {
            path: entry.sha256
            for path, entry in sorted(self.files.items())
            if any(fnmatch(path, pattern) for pattern in patterns)
        }

    @property
    def content_digest(self) -> str:
        """The hash of all files: equal artifacts have equal digests."""
        return hash_values("artifact", self.digests("*"))

    def to_json(self) -> str:
        """Return the text of `manifest.json`; its `seal` is the hash of everything else in it."""
        values = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
            "ingredients": self.fingerprint_inputs,
            "notes": self.notes,
        }
        return json.dumps({**values, "seal": hash_values("manifest", values)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an artifact.

        Raises:
            StoreError: there is no manifest.
            DamagedArtifact: the manifest was changed after it was written.
        """
        path = folder / MANIFEST_FILE
        try:
            text = read_file(path, MOST_BYTES).decode()  # reading as text would translate line ends
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise StoreError("not an artifact", where=folder, got=f"no {MANIFEST_FILE}") from exc
        except (OSError, UnicodeDecodeError, NotRegular) as exc:
            raise DamagedArtifact("the manifest cannot be read", where=path, got=exc) from exc
        return cls.parse(text, str(path))

    @classmethod
    @lru_cache(maxsize=1)  # a stage that records what it reads is looked at twice in a row
    def parse(cls, text: str, path: str) -> Manifest:
        """Parse the text of a manifest.

        Args:
            path: the path of the text, for the message.

        Raises:
            DamagedArtifact: the text was changed after it was written, or is no manifest: see `Manifest`.
        """
        try:
            values = json.loads(text)
            files = {name: FileEntry(**entry) for name, entry in values["files"].items()}
            manifest = cls(values["stage"], values["ingredients"], files, values["notes"])
            # Compare the text with the manifest written again: this also notices changes that JSON ignores, and keys
            # that stand in it twice.
            is_intact = manifest.to_json() == text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError) as exc:
            raise _damaged_manifest(path, str(exc)) from exc
        if not is_intact:
            raise _damaged_manifest(path, "its seal does not fit its content")
        return manifest


def _damaged_manifest(path: str, got: str) -> DamagedArtifact:
    return DamagedArtifact(
        "the manifest was changed after it was finished",
        where=path,
        got=got,
        next_step=f"Find out why; then delete {path.rpartition('/')[0]} and run again",
    )


def fingerprint(stage: str, fingerprint_inputs: Mapping[str, Any]) -> str:
    """Hash everything that decides an artifact."""
    return hash_values(f"stage {stage}", fingerprint_inputs)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each difference between the old inputs and the new ones."""
    # The usual case, much faster than comparing each value: different fingerprints give different JSON.
    if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
        return []
    from .changes import changes

    return list(map(str, changes(old, new)))
