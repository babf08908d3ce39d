"""Progress of long work: told by the function that works, in whichever process, to whoever waits for its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, float], None]  # called with a line, and the share of the work that is done, from 0 to 1

_SECONDS_BETWEEN = 1.0  # two lines of the same work
_listener: Listener | None = None
_due = 0.0


@contextmanager
def listen(listener: Listener | None) -> Iterator[None]:
    """Hear of the progress of the work in this block; None to hear nothing."""
    global _listener, _due
    before, _listener, _due = _listener, listener, 0.0
    try:
        yield
    finally:
        _listener = before


@contextmanager
def part(what: str, first: float, last: float) -> Iterator[None]:
    """Tell the progress of the work in this block as that of a part of the whole.

    Args:
        what: the part, which each line begins with.
        first, last: the shares of the whole that are done before and after it.
    """
    outer = _listener

    def tell_whole(line: str, share: float) -> None:
        if outer is not None:
            outer(f"{what}: {line}", first + (last - first) * share)

    with listen(None if outer is None else tell_whole):
        yield


def tell(line: str, share: float) -> None:
    """Tell how far the work is, if somebody listens, and not more than once a second.

    Args:
        share: the share that is done, from 0 to 1.
    """
    global _due
    if _listener is not None and (now := time.monotonic()) >= _due:
        _due = now + _SECONDS_BETWEEN
        _listener(line, share)


def pass_on(line: str, share: float) -> None:
    """Tell what a function in another process has told."""
    if _listener is not None:
        _listener(line, share)
