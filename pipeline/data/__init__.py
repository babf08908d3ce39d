"""Rows: readers of data files, generated rows, edge cases.

Model code imports `Examples` and the readers from here. They need NumPy, so they are loaded on demand.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".readers", __name__), name)
