"""Compares validation on a Dask cluster of two workers, of one worker, and without a cluster: a million rows.

python benchmarks/two_workers.py
python benchmarks/two_workers.py --rows 100000

Scheduler and workers, with one thread each, are processes on this machine. Before the clock starts, a validation of
few rows makes them load TensorFlow. The check is `equal` on the spam model. All variants write the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freeze import PROJECT, QUIET
from validate import spam, write_rows

from pipeline.settings import ValidationSettings
from pipeline.validation.sharding import Sharding
from pipeline.validation.validate import validate
from pipeline.workers.executor.dask import DaskExecutor

BOUND = 1.6
_FEW = 70_000  # four shards of the smallest size
DASK = str(Path(sys.executable).parent / "dask")
ENVIRONMENT = QUIET | {"PYTHONPATH": str(PROJECT), "TF_ENABLE_ONEDNN_OPTS": "0"}


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """Starts a scheduler and workers of one thread each; yields the scheduler's address."""
    path, started = folder / "scheduler.json", list[subprocess.Popen[bytes]]()

    def start(*command: str) -> None:
        with (folder / "log").open("ab") as log:
            started.append(subprocess.Popen([DASK, *command], cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log))

    folder.mkdir()
    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(path))
        while not path.exists() or not path.read_text().endswith("}"):
            time.sleep(0.1)
        address = json.loads(path.read_text())["address"]
        for _ in range(workers):
            start("worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def time_validation(checkpoint: Path, frozen: Path, folder: Path, sharding: Sharding | None) -> tuple[float, str]:
    """Runs a validation; returns its duration and the hash of its files."""
    folder.mkdir()
    started = time.perf_counter()
    settings = ValidationSettings(checks="equal")
    verdict = validate("spam", checkpoint, {"frozen": frozen}, settings, 1, folder, sharding=sharding)
    seconds = time.perf_counter() - started
    assert verdict["verdict"] == "passed", verdict["reasons"]
    digest = hashlib.sha256()
    for name in ("verdict.json", "results.csv"):
        digest.update((folder / name).read_bytes())
    return seconds, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard-rows", type=int, default=0, help="a twentieth of the rows, if not given")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    shard = options.shard_rows or max(1, options.rows // 20)
    print(f"{os.cpu_count()} cores, {options.rows:,} rows, shards of about {shard:,}")
    with tempfile.TemporaryDirectory() as work:
        checkpoint, frozen = spam(Path(work))
        few = Path(work) / "few"
        shutil.copytree(checkpoint, few)
        write_rows(few, _FEW)
        write_rows(checkpoint, options.rows)
        times: dict[int, list[float]] = {workers: [] for workers in (1, 2, 0)}
        digests = set()
        for repeat in range(options.repeats):
            for workers in times:
                path = Path(work) / f"{workers}-{repeat}"
                with cluster(Path(work) / f"cluster{workers}-{repeat}", workers) as address:
                    sharding = Sharding(lambda address=address: DaskExecutor(address), shard) if workers else None
                    if sharding is not None:
                        time_validation(few, frozen, path.with_suffix(".few"), Sharding(sharding.open_executor, 1))
                    seconds, digest = time_validation(checkpoint, frozen, path, sharding)
                times[workers].append(seconds)
                digests.add(digest)
                print(f"  {f'{workers} workers' if workers else 'this process alone'}: {seconds:.1f} s", flush=True)
        assert len(digests) == 1, "the bytes differ"
        one, two, none = (statistics.median(times[workers]) for workers in (1, 2, 0))
        print(
            f"validation of {options.rows:,} rows, one thread each: 2 workers {two:.1f} s, 1 worker {one:.1f} s: "
            f"{one / two:.2f} times as fast (bound {BOUND}); without an engine, its three processes on all cores, "
            f"{none:.1f} s. The same bytes each time"
        )


if __name__ == "__main__":
    main()
