"""Progress of a batch: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from pipeline.errors import printable

from .outcome import Outcome

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Count the models of a batch as they start and end, and show the progress.

    Args:
        total: the number of models to run.
        finished: the number of models that are complete already.
        notify: called with a line and a percentage now and then, for example to set Luigi's status message.
        stream: the stream to write to.
    """

    def __init__(
        self,
        total: int,
        finished: int,
        notify: Callable[[str, int], None] = lambda line, percent: None,
        stream: TextIO | None = None,
    ) -> None:
        self._total, self._finished, self._notify = total, finished, notify
        self._stream = stream or sys.stderr
        self._running: set[int] = set()
        self._done = self._failed = 0
        self._started = self._shown = self._first_end = time.monotonic()
        self._bar: Any = None
        if total and self._stream.isatty():
            from tqdm import tqdm  # slow to load

            shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            self._bar = tqdm(total=total, unit="model", desc="batch", file=self._stream, bar_format=shape)
        elif total:
            there = f", {finished} complete already" if finished else ""
            self._print(f"batch: {total} to convert or to look at{there}")
        if total:
            self._notify_line()

    def start(self, number: int) -> None:
        """Note that a model has started, or started again."""
        self._running.add(number)
        self._show()

    def end(self, number: int, outcome: Outcome) -> None:
        """Note that a model has ended."""
        self._running.discard(number)
        self._done += 1
        if self._done == 1:
            self._first_end = time.monotonic()
        if not outcome.has_passed:
            self._failed += 1
            line = f"{outcome.name}: {outcome.kind}: {outcome.reason}".splitlines()[0]
            self._print(line) if self._bar is None else self._bar.write(printable(line), file=self._stream)
        if self._bar is not None:
            self._bar.update()
        self._show(is_last=self._done == self._total)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()

    def line(self) -> str:
        """Return the progress as a line."""
        seconds = time.monotonic() - self._started
        line = f"{self._done} of {self._total} done, {self._failed} failed, {len(self._running)} running"
        if self._done == self._total:
            return f"{line}, {_format_duration(seconds)}"
        # Leave out the first model for the rate: it waits until TensorFlow is loaded.
        since_first = time.monotonic() - self._first_end
        if self._done > 1 and since_first > 0:
            rate = (self._done - 1) / since_first
            line += f", {rate:.1f} a second, {_format_duration((self._total - self._done) / rate)} left"
        return line

    def _show(self, is_last: bool = False) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._failed} failed, {len(self._running)} running")
        if now - self._shown < (1.0 if self._bar is not None else _SECONDS_BETWEEN_LINES) and not is_last:
            return
        self._shown = now
        self._notify_line()
        if self._bar is None:
            self._print(f"batch: {self.line()}")

    def _notify_line(self) -> None:
        everything = self._total + self._finished
        self._notify(self.line(), 100 * (self._done + self._finished) // max(1, everything))

    def _print(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
