"""What a Keras file may run: the classes and functions that the user gives, and the kinds of layers that he allows."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.inputs import ImportedCheckpoint

from ..models.source import ModelSource, load_code

# The modules in which Keras makes functions of a Lambda's code, and the library that they are part of.
_MAKERS = {
    "keras.src.utils.python_utils": "keras",
    "tf_keras.src.utils.generic_utils": "tf_keras",
    "tf_keras.src.layers.core.lambda_layer": "tf_keras",
}


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

    def share_names(self) -> None:
        """Gives the code of Lambda layers the names that it uses, for this process, which is for one model.

        A file holds such code without what its own file imports. Keras runs it among the names of the module that makes
        a function of it; there, the usual names and those of the user's file are added.
        """
        for place, library in _MAKERS.items():
            if self.allows("Lambda") and place in sys.modules:
                names = vars(sys.modules[place])
                for name, value in {**self.objects, **_usual_names(library)}.items():
                    names.setdefault(name, value)


def _usual_names(library: str) -> dict[str, Any]:
    own = sys.modules[library]
    parts = {name: getattr(own, name) for name in ("layers", "backend", "ops") if hasattr(own, name)}
    return {"tf": tf, "tensorflow": tf, "np": np, "numpy": np, "math": math, "keras": own, "K": own.backend, **parts}


NO_CODE = Code()
