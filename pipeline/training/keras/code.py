"""What a Keras file may run: the classes and functions that the user gives, and the kinds of layers that he allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.inputs import ImportedCheckpoint

from ..models.source import ModelSource, load_code


@dataclass(frozen=True)
class Code:
    """Code that a Keras file's model needs, and that is not Keras's own.

    Args:
        objects: the user's classes and functions, by name.
        allowed: the layers to make although they run Python code in the file: `Lambda`.
        file: where the user's code is; None if none was given.
    """

    objects: Mapping[str, Any] = field(default_factory=dict)
    allowed: Collection[str] = ()
    file: Path | None = None

    @classmethod
    def of(cls, imported: ImportedCheckpoint, source: ModelSource | None) -> Code:
        """Imports the code that was given with a file.

        Raises:
            ModelError: it cannot be imported.
        """
        if source is None:
            return cls(allowed=imported.allow_ops)
        return cls(load_code(source), imported.allow_ops, source.file)

    @property
    def classes(self) -> dict[str, Any]:
        """The classes and functions, as Keras takes them."""
        return {name: one for name, one in self.objects.items() if callable(one) and not name.startswith("__")}

    def allows(self, kind: str) -> bool:
        """Returns True if layers of a kind may be made."""
        return kind in self.allowed


NO_CODE = Code()
