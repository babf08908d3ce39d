"""Benchmark process of one format: opens its artifact and times it, and does nothing else.

It is a child of the fork server, which has loaded TensorFlow (`measure_for_caller`), or an interpreter of its own:

    python -m pipeline.formats.benchmark.worker

That one reads a request from standard input and writes the numbers to standard output, as lines of JSON. Only the
standard library is imported before its clock starts, so that time and memory are the format's own.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any

from pipeline.signature import Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.memory import peak_bytes, resident_files
from pipeline.workers.worker import as_pipeline_error, die_with_parent

if TYPE_CHECKING:
    from pipeline.workers.worker import Channel

_WINDOWS = 8  # at most; the last `_LAST` windows have to agree
_LAST = 3
_AGREEMENT = 0.05
_FEWEST_RUNS = 3  # per window, unless the time is over


@dataclass(frozen=True)
class BenchmarkRequest:
    """Settings of one benchmark.

    Args:
        opener: `package.module:open_runner` of a format.
        folder: the artifact.
        rows: an `.npz` with an array `[largest batch size, ...]` by input name.
        sizes: batch sizes, the smallest first.
        seconds: maximum time of all runs of a batch size.
        threads: number of threads of the runner.
        parent: process id of the parent; nothing is measured if it has ended.
    """

    opener: str
    folder: str
    rows: str
    sizes: tuple[int, ...]
    seconds: float
    threads: int
    parent: int


def main() -> None:
    """Runs the benchmark that standard input requests."""
    die_with_parent()
    # Libraries may write to standard output: it is redirected to standard error, and only numbers go to the original.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = BenchmarkRequest(**json.load(sys.stdin))
    if os.getppid() != request.parent:  # it ended before `die_with_parent` took effect
        return
    try:
        measure(request, lambda values: _send(output, values))
    except Exception as exc:  # Outermost handler of this process: every error is reported as a problem.
        traceback.print_exc()
        _send(output, {"problem": str(as_pipeline_error(exc, request.opener))})
    os._exit(0)  # the clean-up of libraries, or a crash in it, is not a cost


def measure_for_caller(request: BenchmarkRequest, channel: Channel) -> None:
    """Runs a benchmark in a child of the fork server, and sends each number to the caller.

    TensorFlow was loaded once, for all of them: how long that took, and the memory of its libraries that this process
    has not touched since, are added, so that the numbers are those of a process that does nothing else.
    """
    from pipeline.workers.preload import IMPORT_SECONDS, LIBRARY_BYTES

    def send(values: dict[str, Any]) -> None:
        if "import_seconds" in values:
            values = {"import_seconds": round(IMPORT_SECONDS + values["import_seconds"], 6)}
        if "peak_bytes" in values:
            mine = resident_files()
            untouched = sum(size - mine.get(path, 0) for path, size in LIBRARY_BYTES.items())
            values = {"peak_bytes": values["peak_bytes"] + max(0, untouched)}
        channel.send(("result", values, None))

    try:
        measure(request, send)
    except Exception as exc:  # as in `main`
        send({"problem": str(as_pipeline_error(exc, request.opener))})


def _send(output: IO[str], values: dict[str, Any]) -> None:
    with suppress(OSError):  # the parent may have closed the pipe
        print(json.dumps(values), file=output, flush=True)


def measure(request: BenchmarkRequest, report: Callable[[dict[str, Any]], None]) -> None:
    """Opens an artifact and times it, from the import to the last run.

    Args:
        report: called with each number as soon as it is known, by its name in costs.json.

    Raises:
        PipelineError: the artifact cannot be opened or run.
    """
    folder = Path(request.folder)
    signature = Signature.read(folder / SIGNATURE_FILE)
    module, _, name = request.opener.partition(":")
    started = perf_counter()
    opener = getattr(importlib.import_module(module), name)
    report({"import_seconds": _since(started)})
    started = perf_counter()
    opened = opener(folder, signature, request.threads)
    report({"load_seconds": _since(started)})
    from pipeline.data.npz import load_arrays  # and NumPy, which every format needs

    from ..whole_inputs import run_by_rows

    runner = run_by_rows(opened, signature)
    rows = load_arrays(Path(request.rows))
    started = perf_counter()
    runner.run(_batch(rows, 0, request.sizes[0]))
    report({"first_answer_seconds": _since(started)})
    batches = {}
    for size in request.sizes:
        batches[str(size)] = _time_batches(runner, rows, size, request.seconds)
        report({"batches": batches})
    report({"peak_bytes": peak_bytes()})


def _since(started: float) -> float:
    return round(perf_counter() - started, 6)


def _batch(rows: dict[str, Any], start: int, size: int) -> dict[str, Any]:
    return {name: values[start : start + size] for name, values in rows.items()}


def _time_batches(runner: Any, rows: dict[str, Any], size: int, seconds: float) -> dict[str, Any]:
    """Measures latencies at one batch size; the batches go through all rows, in the same order for each format."""
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
    # The nearest-rank percentile: a measured time, not an interpolated one.
    return {f"p{share}": ranked[-(-share * len(ranked) // 100) - 1] for share in (50, 95, 99)}


def time_runs(
    run: Callable[[int], object], seconds: float, clock: Callable[[], float] = perf_counter
) -> tuple[list[float], bool]:
    """Times runs in windows until the medians of the last three agree within 5 %, or the time is over.

    Args:
        run: called with the index of the run.
        seconds: time limit for all runs together; at least one run is made.
        clock: returns seconds.

    Returns:
        The times in seconds of the last three windows, and True if these agreed.
    """
    windows: list[list[float]] = []
    numbers, ends = count(), clock() + seconds
    while True:
        windows.append(_window(run, numbers, min(ends, clock() + seconds / _WINDOWS), ends, clock))
        last = windows[-_LAST:]
        medians = [statistics.median(times) for times in last]
        is_stable = len(last) == _LAST and max(medians) - min(medians) <= _AGREEMENT * min(medians)
        if is_stable or clock() >= ends:
            return [time for times in last for time in times], is_stable


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


if __name__ == "__main__":
    main()
