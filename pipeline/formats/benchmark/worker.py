"""What runs in the process of a measured format: opens its artifact and times it, and nothing else.

    python -m pipeline.formats.benchmark.worker

The order is on standard input, what is measured on standard output, as lines of JSON.

Nothing is imported before the clock runs but the standard library, so that time and memory are the format's own.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from pipeline.signature import Signature
from pipeline.store.files import SIGNATURE_FILE
from pipeline.workers.worker import as_ours, die_with_parent

_WINDOWS = 8  # at most, in the time there is; the last three have to agree
_KEPT = 3
_AGREEMENT = 0.05
_FEWEST_RUNS = 3  # of a window, as long as there is time


@dataclass(frozen=True)
class Order:
    """What to measure.

    Args:
        opener: `package.module:open_runner` of a format.
        folder: the artifact.
        rows: a file of arrays, by input name `[largest batch size, ...]`.
        sizes: rows per run, the smallest first.
        seconds: most seconds of runs for each size.
        threads: how many it computes with.
        asker: the process that wants to know; without it nothing is measured.
    """

    opener: str
    folder: str
    rows: str
    sizes: tuple[int, ...]
    seconds: float
    threads: int
    asker: int


def main() -> None:
    """Carries out the order on standard input."""
    die_with_parent()
    # Libraries write to standard output as they like: it becomes standard error, and what it was is for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = Order(**json.load(sys.stdin))
    if os.getppid() != order.asker:  # it ended before the kernel was asked to end this process with it
        return
    try:
        measure(order, lambda values: _tell(answers, values))
    except Exception as exc:  # The outermost door of this process: nothing may leave it as a bare crash.
        traceback.print_exc()
        _tell(answers, {"problem": str(as_ours(exc, order.opener))})
    os._exit(0)  # all is said: how long libraries take to clear up, or whether they crash at it, is no cost


def _tell(answers: IO[str], values: dict[str, Any]) -> None:
    with suppress(OSError):  # the other side may have hung up meanwhile
        print(json.dumps(values), file=answers, flush=True)


def measure(order: Order, tell: Callable[[dict[str, Any]], None]) -> None:
    """Opens an artifact and times it, from the import to the last run.

    Args:
        tell: is given each number as soon as it is known, by its name in costs.json.

    Raises:
        PipelineError: the artifact cannot be opened or run.
    """
    folder = Path(order.folder)
    signature = Signature.read(folder / SIGNATURE_FILE)
    module, _, name = order.opener.partition(":")
    started = perf_counter()
    opener = getattr(importlib.import_module(module), name)
    tell({"import_seconds": _since(started)})
    started = perf_counter()
    runner = opener(folder, signature, order.threads)
    tell({"load_seconds": _since(started)})
    from pipeline.data.npz import load_arrays  # and NumPy, which no format goes without

    rows = load_arrays(Path(order.rows))
    started = perf_counter()
    runner.run(_batch(rows, 0, order.sizes[0]))
    tell({"first_answer_seconds": _since(started)})
    batches = {}
    for size in order.sizes:
        batches[str(size)] = _time_batches(runner, rows, size, order.seconds)
        tell({"batches": batches})
    tell({"peak_bytes": peak_bytes()})


def _since(started: float) -> float:
    return round(perf_counter() - started, 6)


def _batch(rows: dict[str, Any], start: int, size: int) -> dict[str, Any]:
    return {name: values[start : start + size] for name, values in rows.items()}


def _time_batches(runner: Any, rows: dict[str, Any], size: int, seconds: float) -> dict[str, Any]:
    """Latencies at one batch size: every row has its turn, in the same order for each format."""
    largest = max((len(values) for values in rows.values()), default=size)
    batches = [_batch(rows, start, size) for start in range(0, largest - size + 1, size)]
    runner.run(batches[0])  # the first run at a size may prepare for it
    times, is_stable = time_runs(lambda number: runner.run(batches[number % len(batches)]), seconds)
    return {
        **{f"{name}_ms": round(value * 1000, 5) for name, value in _percentiles(times).items()},
        "runs": len(times),
        "rows_per_second": round(size * len(times) / sum(times), 1),
        "is_stable": is_stable,
    }


def _percentiles(times: list[float]) -> dict[str, float]:
    ranked = sorted(times)
    # The smallest time that so many of a hundred runs did not exceed: one that was measured, not one in between.
    return {f"p{share}": ranked[-(-share * len(ranked) // 100) - 1] for share in (50, 95, 99)}


def time_runs(
    run: Callable[[int], object], seconds: float, clock: Callable[[], float] = perf_counter
) -> tuple[list[float], bool]:
    """Times runs in windows until the medians of the last three agree within 5 %, or the time is over.

    Args:
        run: is given the number of the run.
        seconds: the most that all runs may take together; one run is made whatever it takes.
        clock: seconds since whenever.

    Returns:
        The times of the last three windows in seconds, and whether these agreed.
    """
    windows: list[list[float]] = []
    numbers, ends = count(), clock() + seconds
    while True:
        windows.append(_window(run, numbers, min(ends, clock() + seconds / _WINDOWS), ends, clock))
        kept = windows[-_KEPT:]
        medians = [statistics.median(times) for times in kept]
        is_stable = len(kept) == _KEPT and max(medians) - min(medians) <= _AGREEMENT * min(medians)
        if is_stable or clock() >= ends:
            return [time for times in kept for time in times], is_stable


def _window(
    run: Callable[[int], object], numbers: Iterator[int], enough: float, ends: float, clock: Callable[[], float]
) -> list[float]:
    times: list[float] = []
    now = clock()
    while not times or (now < ends and (now < enough or len(times) < _FEWEST_RUNS)):
        run(next(numbers))
        before, now = now, clock()
        times.append(now - before)
    return times


def peak_bytes() -> int:
    """The most memory that this process has had in use since it was started.

    On Linux not what getrusage tells: that begins with the memory of the process which started this one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None  # proc(5)
    if found is not None:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
