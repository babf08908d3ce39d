"""What has changed between two sets of fingerprint inputs, as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.hashing import CodeDigest, hash_values

_MEANING = {
    "settings": "setting {} changed: was {}, is {}",
    "files": "{} changed: sha256 was {}, is {}",
    "upstream": "{} changed: sha256 was {}, is {}",
    "code": "code of {} changed: sha256 was {}, is {}",
    "model": "the model's file {} changed: sha256 was {}, is {}",
    "accepted": "what was accepted of {} changed: was {}, is {}",
    "model_files": "the model's file {} changed: sha256 was {}, is {}",
    "model_links": "the model's link {} changed: was {}, is {}",
    "model_folders": "the names in the model's folder {} changed: sha256 was {}, is {}",
    "model_variables": "the model's environment variable {} changed: sha256 was {}, is {}",
    "graph_files": "the graph's file {} changed: sha256 was {}, is {}",
    "versions": "{} changed: version was {}, is {}",
}


@dataclass(frozen=True)
class Change:
    """A difference between two sets of fingerprint inputs; as text a sentence.

    Args:
        before, after: the values; None where there is none.
    """

    kind: str
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        sentence = _MEANING.get(self.kind, self.kind + " {} changed: was {}, is {}")
        subject = sentence.split(" changed")[0].format(self.key)
        if self.before is None:
            return f"{subject} is new: {_shorten(self.after)}"
        if self.after is None:
            return f"{subject} is gone: was {_shorten(self.before)}"
        return sentence.format(self.key, _shorten(self.before), _shorten(self.after))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield each difference between the old inputs and the new ones."""
    for kind in sorted({*old, *new}):
        before, after = _flatten(old.get(kind)), _flatten(new.get(kind))
        for key in sorted({*before, *after}):
            change = Change(kind, key, before.get(key), after.get(key))
            if key not in before or key not in after or not _are_equal(change.before, change.after):
                yield change


def _are_equal(before: Any, after: Any) -> bool:
    """Return True for values with equal fingerprints, and for code whose bytes are those that were recorded."""
    is_same_code = isinstance(after, CodeDigest) and before == after.of_bytes
    return is_same_code or hash_values("", before) == hash_values("", after)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {} if value is None else {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else key))
    return flat


def _shorten(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12] + "…"
    return repr(value) if isinstance(value, str) else str(value)
