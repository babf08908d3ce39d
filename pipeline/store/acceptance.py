"""What a finished artifact was kept under, although it was made with something else: a note in its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .changes import Change
from .manifest import ACCEPTANCE_TEXTS, ACCEPTED, Manifest


@dataclass(frozen=True)
class Acceptance:
    """A time when an artifact was kept although what it was made with had changed; as text a phrase.

    Args:
        when: ISO 8601.
        changes: what had changed.
    """

    when: str
    user: str
    machine: str
    command: str
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        return f"kept under changed code or libraries, accepted {self.when} by {self.user} on {self.machine}"

    def to_note(self) -> dict[str, Any]:
        """Return the form for the manifest."""
        listed = [{"kind": each.kind, "name": each.key, "from": each.before, "to": each.after} for each in self.changes]
        return {**{name: getattr(self, name) for name in ACCEPTANCE_TEXTS}, "changes": listed}

    @classmethod
    def read_all(cls, manifest: Manifest) -> list[Acceptance]:
        """Return those of an artifact, the oldest first."""
        found = []
        for note in manifest.notes.get(ACCEPTED, ()):
            listed = tuple(Change(each["kind"], each["name"], each["from"], each["to"]) for each in note["changes"])
            found.append(cls(note["when"], note["user"], note["machine"], note["command"], listed))
        return found
