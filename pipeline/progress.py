"""How far the writing of a large file is: a bar in a terminal, one line in a log, nothing for small ones."""

from __future__ import annotations

import sys
from typing import Any

LARGE_BYTES = 100_000_000


class ByteProgress:
    """Told how many bytes are written, of how many in total; shows it on standard error.

    The first call decides: of less than `LARGE_BYTES` nothing is said.

    Args:
        what: is written, such as a path.
    """

    def __init__(self, what: object) -> None:
        self._what = what
        self._is_told = False
        self._done = 0
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not self._is_told:
            self._is_told = True
            self._begin(total)
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done

    def _begin(self, total: int) -> None:
        if total < LARGE_BYTES:
            return
        if not sys.stderr.isatty():
            print(f"writing {total} bytes ({total / 1e9:.2f} GB) to {self._what}", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm  # here, for it takes time to load, and most files are small

        self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=f"writing {self._what}", file=sys.stderr)

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()
