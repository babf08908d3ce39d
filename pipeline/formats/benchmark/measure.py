"""What each format costs: size on disk, start, latency, throughput and memory, measured on the same rows in one run.

Each format has a fresh process to itself, one after the other, so that no other's libraries, memory or work count. What
cannot be measured has a sentence in the place of its numbers, and never ends the run.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.npz import NpzReader, save_arrays
from pipeline.settings import CostsSettings
from pipeline.signature import Signature, batch_size_of
from pipeline.store.files import (
    COSTS_FILE,
    COSTS_TABLE_FILE,
    MANIFEST_FILE,
    SAVED_MODEL_FOLDER,
    SIGNATURE_FILE,
    VALIDATION_ROWS_FILE,
)
from pipeline.workers.sandbox import kept_environment
from pipeline.workers.worker import TENSORFLOW_ENVIRONMENT

from ..registry import FORMATS, refusal_of
from ..runner import fixed_batch
from .recommend import recommend
from .worker import Order

logger = logging.getLogger("pipeline")

_SCHEMA = 1
_OF_FORMAT = ("import_seconds", "load_seconds", "first_answer_seconds", "rows_per_second", "is_stable", "peak_bytes")
_OF_BATCH = ("p50_ms", "p95_ms", "p99_ms", "runs", "rows_per_second", "is_stable")
_SAVED = ("model.", f"{SAVED_MODEL_FOLDER}/")  # what is opened of a checkpoint's artifact, and no rows, goldens, names
_BESIDE = (SIGNATURE_FILE, MANIFEST_FILE)  # what lies beside what is opened of any other
# What a process was at when it ended, by the last number that it had told.
_PHASES = {
    "": "while its libraries were imported",
    "import_seconds": "while it was opened",
    "load_seconds": "at its first answer",
    "first_answer_seconds": "while it was timed",
    "batches": "while it was timed",
}


def measure_costs(
    checkpoint: Path, candidates: Mapping[str, Path], settings: CostsSettings, folder: Path
) -> dict[str, Any]:
    """Measures a checkpoint and what was made of it, and writes `costs.json` and `costs.csv`.

    Args:
        checkpoint: the artifact of the checkpoint, with its signature and validation rows.
        candidates: the artifact's folder by format.
        folder: where the two files are written.

    Returns:
        The content of costs.json.

    Raises:
        DataError: the validation rows cannot be read.
    """
    rows, formats = folder / "rows.npz", {}
    try:
        sizes, count = _write_rows(checkpoint, fixed_batch(candidates), settings, rows)
        for format, place in {"checkpoint": checkpoint, **candidates}.items():
            formats[format] = _measured(format, place, rows if count else None, sizes, settings)
            if settings.seconds and formats[format]["problem"] and not refusal_of(place):
                logger.warning("what %s costs is not known: %s", format, formats[format]["problem"])
    finally:
        rows.unlink(missing_ok=True)
    costs = {
        "schema": _SCHEMA,
        "rows": count,
        "formats": formats,
        "recommendation": recommend(formats),
        "machine": _machine(),
    }
    (folder / COSTS_FILE).write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
    _write_table(folder / COSTS_TABLE_FILE, formats)
    return costs


def _write_rows(
    checkpoint: Path, batch: int | None, settings: CostsSettings, path: Path
) -> tuple[tuple[int, ...], int]:
    """Writes as many validation rows as the largest batch has, again from the first one where there are fewer.

    Args:
        batch: the size that a candidate wants, where the checkpoint leaves it open.

    Returns:
        The batch sizes to measure, and how many different rows there are in the file.
    """
    fixed = batch_size_of(Signature.read(checkpoint / SIGNATURE_FILE)) or batch
    sizes = (fixed,) if fixed else settings.sizes
    if not settings.seconds:
        return sizes, 0
    rows = NpzReader(checkpoint / VALIDATION_ROWS_FILE, "input")
    count = min(len(rows), max(sizes))
    if count:
        save_arrays(path, rows.take(np.arange(max(sizes)) % count))
    return sizes, count


def _measured(
    format: str, place: Path, rows: Path | None, sizes: tuple[int, ...], settings: CostsSettings
) -> dict[str, Any]:
    """A format's line of costs.json."""
    told: dict[str, Any] = {}
    refusal = refusal_of(place)
    problem = refusal or _why_not(rows, settings)
    if problem is None:
        order = Order(
            opener=FORMATS[format].opener,
            folder=str(place.absolute()),
            rows=str(rows and rows.absolute()),
            sizes=sizes,
            seconds=settings.seconds,
            threads=settings.threads,
            asker=os.getpid(),
        )
        told, problem = _carry_out(order, settings.limit_seconds)
    if problem:  # some numbers without the others would be compared with whole ones
        told = {"batches": {str(size): dict.fromkeys(_OF_BATCH) for size in sizes}}
    else:
        told["rows_per_second"] = told["batches"][str(max(sizes))]["rows_per_second"]
        told["is_stable"] = all(batch["is_stable"] for batch in told["batches"].values())
    numbers = {name: told.get(name) for name in _OF_FORMAT}
    size_bytes = None if refusal else size_of(format, place)
    return {"size_bytes": size_bytes, **numbers, "batches": told["batches"], "problem": problem}


def _why_not(rows: Path | None, settings: CostsSettings) -> str | None:
    """Why nothing is measured at all."""
    if not settings.seconds:
        return "not measured, for [costs] seconds is 0"
    return "there are no validation rows to measure it on" if rows is None else None


def _carry_out(order: Order, limit_seconds: float) -> tuple[dict[str, Any], str | None]:
    """Has an order carried out in a fresh process.

    Not by multiprocessing: the fork server's children have TensorFlow already, and spawned ones import Luigi, for that
    is the main module.

    Returns:
        What was measured, and why not all of it was.
    """
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-") as place,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.formats.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if logger.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
            env={**TENSORFLOW_ENVIRONMENT, **kept_environment(os.environ), "PYTHONPATH": paths, "HOME": place},
            cwd=place,
            text=True,
        ) as process,
    ):
        try:
            answers, _ = process.communicate(json.dumps(asdict(order)), timeout=limit_seconds)
            is_late = False
        except subprocess.TimeoutExpired:
            process.kill()
            answers, _ = process.communicate()
            is_late = True
        finally:
            process.kill()
    told: dict[str, Any] = {}
    for line in answers.rpartition("\n")[0].splitlines():
        told |= json.loads(line)
    phase = _PHASES[next(reversed([name for name in told if name in _PHASES]), "")]
    if "problem" in told:
        return told, str(told["problem"])
    if is_late:
        return told, f"no answer within {limit_seconds:g} s {phase} ([costs] limit_seconds)"
    if process.returncode or "peak_bytes" not in told:
        return told, f"its process ended {_manner(process.returncode)} {phase}"
    return told, None


def _manner(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by {name}{', mostly for lack of memory,' if name == 'SIGKILL' else ''}"


def size_of(format: str, folder: Path) -> int:
    """The bytes of all files that are needed to open a format's artifact."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if format == "checkpoint":
        return sum(path.stat().st_size for name, path in files.items() if name.startswith(_SAVED))
    return sum(path.stat().st_size for name, path in files.items() if name not in _BESIDE)


def _machine() -> dict[str, Any]:
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE) if cpus.exists() else None
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _write_table(path: Path, formats: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a line for each format and batch size; what belongs to a format alone stands in each of its lines."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        alone = ["size_bytes", *(name for name in _OF_FORMAT if name not in _OF_BATCH)]
        writer.writerow(["format", *alone, "batch_size", *_OF_BATCH, "problem"])
        for format, entry in formats.items():
            for size, batch in entry["batches"].items():
                numbers = [*(entry[name] for name in alone), size, *(batch[name] for name in _OF_BATCH)]
                writer.writerow([format, *numbers, entry["problem"]])
