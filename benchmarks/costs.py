"""Measures the costs of the checkpoint and all formats for a model with large weights, in one run; prints a table.

python benchmarks/costs.py                      100 MB: 6 layers of 2048 x 2048
python benchmarks/costs.py --layers 24          400 MB; the .pb needs 5 GB of memory
python benchmarks/costs.py --formats frozen,mmap,savedmodel

Ratios are relative to the checkpoint: start (loading and the first output), latency of one row, peak memory. The exit
code is 1 if a format could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freeze import MAKE, QUIET

from pipeline.formats.registry import CANDIDATES
from pipeline.inputs import ImportedCheckpoint, split_list
from pipeline.settings import CostsSettings, Settings
from pipeline.store.artifact import ArtifactPaths
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain

WIDTH = 2048
WANTED = ("frozen", "mmap", "tflite", "onnx")


def measure(layers: int, formats: tuple[str, ...], seconds: float, folder: Path) -> dict[str, Any]:
    """Makes a model of dense layers and its formats, and measures them; returns the content of costs.json."""
    prefix = folder / "made" / "model.ckpt"
    prefix.parent.mkdir()
    made = [sys.executable, "-c", MAKE, str(layers), str(WIDTH), str(prefix)]
    subprocess.run(made, env=os.environ | QUIET, check=True, capture_output=True)
    job = Job(
        source=None,
        paths=ArtifactPaths(folder, "dense"),
        data=None,
        warm_start=None,
        formats=formats,
        settings=Settings(costs=CostsSettings(seconds=seconds)),
        imported=ImportedCheckpoint(str(prefix), inputs=("x",), outputs=("y",)),
    )
    for stage in Chain(job).up_to("costs"):
        Chain(job).build(stage)
    costs: dict[str, Any] = json.loads((job.folder("costs") / "costs.json").read_text())
    return costs


def print_costs(costs: Mapping[str, Any]) -> None:
    """Prints the table and the recommendation."""
    formats = costs["formats"]
    print(f"{'':<12} {'disk':>8} {'import':>8} {'load':>8} {'first':>8} {'batch 1':>9} {'batch 64':>9} {'peak':>8}")
    for format, entry in formats.items():
        if entry["problem"]:
            print(f"{format:<12} {entry['problem']}")
            continue
        one, many = (entry["batches"][size]["p50_ms"] for size in ("1", "64"))
        print(
            f"{format:<12} {entry['size_bytes'] / 1e6:>5.0f} MB {entry['import_seconds']:>6.2f} s "
            f"{entry['load_seconds']:>6.2f} s {entry['first_answer_seconds']:>6.2f} s {one:>6.2f} ms {many:>6.1f} ms "
            f"{entry['peak_bytes'] / 1e6:>5.0f} MB{'' if entry['is_stable'] else '   not settled'}"
        )
    reference = formats["checkpoint"]
    for format, entry in formats.items():
        if format != "checkpoint" and not entry["problem"] and not reference["problem"]:
            start, latency, memory = (ours / theirs for ours, theirs in zip(_of(entry), _of(reference), strict=True))
            print(f"{format:<12} start {start:.2f}, latency {latency:.2f}, memory {memory:.2f} of the checkpoint's")
    print(costs["recommendation"], flush=True)


def _of(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    start = entry["load_seconds"] + entry["first_answer_seconds"]
    return start, entry["batches"]["1"]["p50_ms"], entry["peak_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6, help="of 17 MB each")
    parser.add_argument(
        "--formats", default=",".join(name for name in WANTED if name in CANDIDATES), help="comma-separated"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of runs, for each format and batch size")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="costs-") as name:
        print(
            f"{args.layers} layers of {WIDTH} x {WIDTH}: {args.layers * WIDTH * WIDTH * 4 / 1e6:.0f} MB",
            flush=True,
        )
        costs = measure(args.layers, tuple(split_list(args.formats)), args.seconds, Path(name))
        print_costs(costs)
    sys.exit(1 if any(entry["problem"] for entry in costs["formats"].values()) else 0)


if __name__ == "__main__":
    main()
