"""Rows: readers of data files, generated rows, edge cases.

`Examples` and the readers are available here for the code of models. They load NumPy, so they are loaded on demand.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".readers", __name__), name)
