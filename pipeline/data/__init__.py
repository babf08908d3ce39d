"""Rows: readers of data files, generated rows, edge cases.

A model's code may import `Examples` and the readers from here. They load NumPy, so they load on demand (PEP 562).
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pipeline.data.readers as readers  # `from . import readers` would call this function again

    return getattr(readers, name)
