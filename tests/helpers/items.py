"""What the workers of a cluster are given to do in tests; nothing heavy is loaded for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pipeline.errors import DataError


def doubled(value: int) -> tuple[int, int]:
    """Twice the value, and the process that says so; 3 and 4 are errors."""
    if value == 3:
        raise DataError("three is not doubled", got=value)
    if value == 4:
        raise ZeroDivisionError("of ours this is none")
    return value * 2, os.getpid()


def die_once(value: int, mark: str) -> int:
    """The value; the process is killed the first time that this is called with 2."""
    if value == 2 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return value


def die(value: int) -> int:
    """The value; 1 kills the process each time."""
    if value == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return value
