"""Rows: readers of data files, generated rows, edge cases.

A model's code finds `Examples` and the readers here; they load NumPy, so that a name is loaded when it is asked for.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    from . import readers

    return getattr(readers, name)
