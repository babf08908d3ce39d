"""Measures the costs of each format: size on disk, start, latency, throughput and memory, on the same rows in one run.

Each format runs in a process of its own, one after the other, so that memory and work of the others do not count. Those
that need TensorFlow start as copies of a process that has loaded it, unless new interpreters are asked for. A format
that cannot be measured gets a sentence instead of numbers, and does not stop the run.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.npz import NpzReader, save_arrays
from pipeline.errors import PipelineError, StageCrashed, logger
from pipeline.report.csv_cells import write_cells
from pipeline.settings import CostsSettings
from pipeline.signature import Signature, batch_size_of
from pipeline.store import file_names
from pipeline.workers.child import Child, Limits
from pipeline.workers.folders import run_folder
from pipeline.workers.machine import core_count, cpu_model
from pipeline.workers.progress import tell
from pipeline.workers.sandbox import kept_environment
from pipeline.workers.worker import WORKER_ENVIRONMENT

from ..registry import FORMATS, read_refusal
from ..row_bytes import bytes_of, spec_row_bytes
from ..runner import SubprocessRunner, fixed_batch_size
from .recommend import recommend
from .worker import BenchmarkRequest

_SCHEMA = 1
_ASK_FROM = 4_000_000  # bytes of a batch's inputs and outputs; below, inner tensors are taken to be small
_OF_FORMAT = ("import_seconds", "load_seconds", "first_answer_seconds", "rows_per_second", "is_stable", "peak_bytes")
_OF_BATCH = ("p50_ms", "p95_ms", "p99_ms", "runs", "rows_per_second", "is_stable")
_SAVED = ("model.", f"{file_names.SAVED_MODEL_FOLDER}/")  # the model files of a checkpoint, without rows and goldens
_METADATA = (file_names.SIGNATURE_FILE, file_names.MANIFEST_FILE)  # files of other artifacts that are not the model's
# Phase in which a process ended, by the last number that it reported.
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
    """Measures a checkpoint and the formats made from it, and writes `costs.json` and `costs.csv`.

    Args:
        checkpoint: the artifact of the checkpoint, with its signature and validation rows.
        candidates: the artifact's folder by format.
        folder: receives the two files.

    Returns:
        The content of costs.json.

    Raises:
        DataError: the validation rows cannot be read.
    """
    rows, formats = folder / "rows.npz", {}
    try:
        sizes, count = _write_rows(checkpoint, fixed_batch_size(candidates), settings, rows)
        for number, (format, artifact) in enumerate({"checkpoint": checkpoint, **candidates}.items()):
            tell(f"{format}: begins", number / (len(candidates) + 1))
            formats[format] = _measure_format(format, artifact, rows if count else None, sizes, settings)
            if settings.seconds and formats[format]["problem"] and not read_refusal(artifact):
                logger.warning("the costs of %s are not known: %s", format, formats[format]["problem"])
    finally:
        rows.unlink(missing_ok=True)
    costs = {
        "schema": _SCHEMA,
        "rows": count,
        "formats": formats,
        "recommendation": recommend(formats),
        "machine": _machine(),
    }
    (folder / file_names.COSTS_FILE).write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
    _write_table(folder / file_names.COSTS_TABLE_FILE, formats)
    return costs


def _write_rows(
    checkpoint: Path, batch: int | None, settings: CostsSettings, path: Path
) -> tuple[tuple[int, ...], int]:
    """Writes validation rows for the largest batch; returns the batch sizes, and the number of different rows."""
    signature = Signature.read(checkpoint / file_names.SIGNATURE_FILE)
    fixed = batch_size_of(signature) or batch
    sizes = (fixed,) if fixed else settings.sizes
    if not settings.seconds:
        return sizes, 0
    rows = NpzReader(checkpoint / file_names.VALIDATION_ROWS_FILE, "input")
    if not fixed and len(rows):
        most = _most_rows(checkpoint, signature, rows, settings)
        sizes = tuple(sorted({min(size, most) for size in sizes}))
    count = min(len(rows), max(sizes))
    if count:
        save_arrays(path, rows.take(np.arange(max(sizes)) % count))
    return sizes, count


def _most_rows(checkpoint: Path, signature: Signature, rows: NpzReader, settings: CostsSettings) -> int:
    """Returns how many rows fit into `batch_mb`; of rows that are not small the inner tensors count too."""
    row = bytes_of(rows.first) + sum(spec_row_bytes(spec) or 0 for spec in signature.outputs)
    if row * max(settings.sizes) >= _ASK_FROM:
        limits = Limits(settings.limit_seconds)
        with suppress(PipelineError), SubprocessRunner("checkpoint", checkpoint, settings.threads, limits) as reference:
            row += reference.inner_row_bytes()
    return max(1, int(settings.batch_mb * 1e6) // max(1, row))


def _measure_format(
    format: str, artifact: Path, rows: Path | None, sizes: tuple[int, ...], settings: CostsSettings
) -> dict[str, Any]:
    """Measures a format; returns its entry in costs.json."""
    measured: dict[str, Any] = {}
    refusal = read_refusal(artifact)
    problem = refusal
    if problem is None and not settings.seconds:
        problem = "not measured, for [costs] seconds is 0"
    elif problem is None and rows is None:
        problem = "there are no validation rows to measure it on"
    if problem is None:
        request = BenchmarkRequest(
            opener=FORMATS[format].opener,
            folder=str(artifact.absolute()),
            rows=str(rows and rows.absolute()),
            sizes=sizes,
            seconds=settings.seconds,
            threads=settings.threads,
            parent=os.getpid(),
        )
        is_shared = settings.processes == "shared" and not FORMATS[format].is_bare
        run = _run_child if is_shared else _run_interpreter
        measured, problem = run(request, settings.limit_seconds)
    if problem:  # an incomplete set of numbers must not be compared with complete ones
        measured = {"batches": {str(size): dict.fromkeys(_OF_BATCH) for size in sizes}}
    else:
        measured["rows_per_second"] = measured["batches"][str(max(sizes))]["rows_per_second"]
        measured["is_stable"] = all(batch["is_stable"] for batch in measured["batches"].values())
    numbers = {name: measured.get(name) for name in _OF_FORMAT}
    size_bytes = None if refusal else artifact_size(format, artifact)
    return {"size_bytes": size_bytes, **numbers, "batches": measured["batches"], "problem": problem}


def _run_child(request: BenchmarkRequest, limit_seconds: float) -> tuple[dict[str, Any], str | None]:
    """Runs the benchmark in a child of the fork server, which has loaded TensorFlow; returns as `_run_interpreter`."""
    measured: dict[str, Any] = {}
    ends = time.monotonic() + limit_seconds
    target = "pipeline.formats.benchmark.worker:measure_for_caller"
    with Child(target, request, talks=True, limits=Limits(limit_seconds), is_sandboxed=True) as child:
        try:
            while (values := child.receive(max(ends - time.monotonic(), 0.001))) is not None:
                measured |= values
        except StageCrashed:
            return measured, _problem(measured, child.exit_code, time.monotonic() >= ends, limit_seconds)
    return measured, _problem(measured, 0, False, limit_seconds)


def _run_interpreter(request: BenchmarkRequest, limit_seconds: float) -> tuple[dict[str, Any], str | None]:
    """Runs the benchmark in a new interpreter.

    Not with multiprocessing: children of the fork server have loaded TensorFlow already, and spawned children import
    Luigi, because it is the main module.

    Returns:
        The measured numbers, and the problem if some are missing.
    """
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    with (
        tempfile.TemporaryDirectory(prefix="costs-", dir=run_folder()) as home,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.formats.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if logger.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
            env={**WORKER_ENVIRONMENT, **kept_environment(os.environ), "PYTHONPATH": paths, "HOME": home},
            cwd=home,
            text=True,
        ) as process,
    ):
        try:
            output, _ = process.communicate(json.dumps(asdict(request)), timeout=limit_seconds)
            is_late = False
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            is_late = True
        finally:
            process.kill()
    measured: dict[str, Any] = {}
    for line in output.rpartition("\n")[0].splitlines():
        measured |= json.loads(line)
    return measured, _problem(measured, process.returncode, is_late, limit_seconds)


def _problem(measured: Mapping[str, Any], exit_code: int, is_late: bool, limit_seconds: float) -> str | None:
    """Returns why numbers are missing; None if none are."""
    phase = _PHASES[next(reversed([name for name in measured if name in _PHASES]), "")]
    if "problem" in measured:
        return str(measured["problem"])
    if is_late:
        return f"no answer within {limit_seconds:g} s {phase} ([costs] limit_seconds)"
    if exit_code or "peak_bytes" not in measured:
        return f"its process ended {_describe_exit(exit_code)} {phase}"
    return None


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by {name}{', mostly for lack of memory,' if name == 'SIGKILL' else ''}"


def artifact_size(format: str, folder: Path) -> int:
    """Returns the total size in bytes of the files that opening a format's artifact needs."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if format == "checkpoint":
        return sum(path.stat().st_size for name, path in paths.items() if name.startswith(_SAVED))
    return sum(path.stat().st_size for name, path in paths.items() if name not in _METADATA)


def _machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": core_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _write_table(path: Path, formats: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes one line per format and batch size; the numbers of a format are repeated on each of its lines."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        of_format = ["size_bytes", *(name for name in _OF_FORMAT if name not in _OF_BATCH)]
        writer.writerow(["format", *of_format, "batch_size", *_OF_BATCH, "problem"])
        for format, entry in formats.items():
            for size, batch in entry["batches"].items():
                numbers = [*(entry[name] for name in of_format), size, *(batch[name] for name in _OF_BATCH)]
                writer.writerow(write_cells([format, *numbers, entry["problem"]]))
