"""What an artifact says of itself: what it holds, what decided it, and what has changed since."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, StoreError
from pipeline.hashing import hash_values

from .files import MANIFEST_FILE


@dataclass(frozen=True)
class FileEntry:
    """A finished file: its bytes, and its time stamp as a sign that they are untouched."""

    size_bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds, and everything that decided it.

    Args:
        ingredients: nested values by kind (settings, files, upstream, code, versions); the
            fingerprint is their hash.
        notes: what is good to know and decides nothing: the command, seconds, seeds.
    """

    stage: str
    ingredients: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.stage, self.ingredients)

    def digests(self, *patterns: str) -> dict[str, str]:
        """The sha256 of each file whose path matches a pattern (`*` crosses folders)."""
        return {
            path: entry.sha256
            for path, entry in sorted(self.files.items())
            if any(fnmatch(path, pattern) for pattern in patterns)
        }

    @property
    def content_digest(self) -> str:
        """One hash over all files: equal artifacts have equal ones."""
        return hash_values("artifact", self.digests("*"))

    def to_json(self) -> str:
        """The text of `manifest.json`; its `seal` is the hash of everything else in it."""
        values = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
            "ingredients": self.ingredients,
            "notes": self.notes,
        }
        return json.dumps({**values, "seal": hash_values("manifest", values)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the manifest of an artifact.

        Raises:
            StoreError: there is no manifest.
            DamagedArtifact: a byte of it is not as it was written.
        """
        path = folder / MANIFEST_FILE
        try:
            text = path.read_bytes().decode()  # read_text would take one line end for another
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise StoreError("not an artifact", where=folder, got=f"no {MANIFEST_FILE}") from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise DamagedArtifact("the manifest cannot be read", where=path, got=exc) from exc
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, path: str) -> Manifest:
        """Reads the text of a manifest.

        Args:
            path: where it comes from, for the message.

        Raises:
            DamagedArtifact: a byte of it is not as it was written.
        """
        try:
            values = json.loads(text)
            files = {name: FileEntry(**entry) for name, entry in values["files"].items()}
            manifest = cls(values["stage"], values["ingredients"], files, values["notes"])
            # Written again, every byte must agree: this also notices a flip that JSON forgives.
            is_intact = manifest.to_json() == text
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
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


def fingerprint(stage: str, ingredients: Mapping[str, Any]) -> str:
    """The hash of everything that decides an artifact."""
    return hash_values(f"stage {stage}", ingredients)


_MEANING = {
    "settings": "setting {} changed: was {}, is {}",
    "files": "{} changed: sha256 was {}, is {}",
    "upstream": "{} changed: sha256 was {}, is {}",
    "code": "code of {} changed: sha256 was {}, is {}",
    "model": "the model's file {} changed: sha256 was {}, is {}",
    "versions": "{} changed: version was {}, is {}",
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs between the ingredients of then and now, a sentence for each."""
    if _spelled(old) == _spelled(new):  # mostly, and much faster to see than by each value
        return
    for kind in sorted({*old, *new}):
        sentence = _MEANING.get(kind, kind + " {} changed: was {}, is {}")
        before, after = _flat(old.get(kind)), _flat(new.get(kind))
        for key in sorted({*before, *after}):
            if key not in before:
                yield f"{_thing(kind, key)} is new: {_short(after[key])}"
            elif key not in after:
                yield f"{_thing(kind, key)} is gone: was {_short(before[key])}"
            elif hash_values("", before[key]) != hash_values("", after[key]):  # as the fingerprint sees them
                yield sentence.format(key, _short(before[key]), _short(after[key]))


def _spelled(ingredients: Mapping[str, Any]) -> str:
    """The ingredients as JSON, in which what the fingerprint tells apart is apart too."""
    return json.dumps(ingredients, sort_keys=True)


def _thing(kind: str, key: str) -> str:
    return _MEANING.get(kind, kind + " {} changed").split(" changed")[0].format(key)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {} if value is None else {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else key))
    return flat


def _short(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12] + "…"
    return repr(value) if isinstance(value, str) else str(value)
