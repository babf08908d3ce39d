"""Compares reading a checkpoint, with all CRCs checked, with `cat` of its data and with TensorFlow's own reader.

python benchmarks/read_checkpoint.py
python benchmarks/read_checkpoint.py --mebibytes 1500 --pairs 3

The sides run alternately, each in its own process. The result is the ratio, because the machine's speed varies.
The checkpoint is written to a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TENSORS = 20

WRITE = """
import sys, numpy, tensorflow as tf
prefix, mebibytes, tensors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = mebibytes * 256 // tensors
values = {f"layer_{k}/kernel": numpy.full([rows, 1024], k, numpy.float32) for k in range(tensors)}
tf.raw_ops.SaveV2(
    prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * tensors, tensors=list(values.values())
)
"""
OURS = """
import sys, pathlib
from pipeline.checkpoint.bundle import open_checkpoint
bundle = open_checkpoint(pathlib.Path(sys.argv[1]))
assert sum(len(chunk) for key in bundle.tensors for chunk in bundle.stream(key)) == int(sys.argv[2]) << 20
"""
THEIRS = """
import sys, tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
for key in reader.get_variable_to_shape_map():
    reader.get_tensor(key)
"""


def measure(*command: str) -> tuple[float, float]:
    """Returns seconds and peak MiB of a command, which must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def compare(prefix: Path, mebibytes: int, pairs: int) -> None:
    """Prints the medians of each side, and the medians of the ratios to `cat`."""
    python = sys.executable
    sides = {
        "cat": ("sh", "-c", f"cat '{prefix}'.data-* > /dev/null"),
        "ours": (python, "-c", OURS, str(prefix), str(mebibytes)),
        "ours, start alone": (python, "-c", "import pipeline.checkpoint.bundle"),
        "tensorflow's reader": (python, "-c", THEIRS, str(prefix)),
        "tensorflow, start alone": (python, "-c", "import tensorflow"),
    }
    rounds = [{name: measure(*command) for name, command in sides.items()} for _ in range(pairs)]
    for name in sides:
        seconds = statistics.median(taken[name][0] for taken in rounds)
        ratio = statistics.median(taken[name][0] / taken["cat"][0] for taken in rounds)
        peak = statistics.median(taken[name][1] for taken in rounds)
        print(f"{name:24} {seconds:7.3f} s {ratio:8.1f} x cat {peak:8.0f} MiB peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=300, help="size of the checkpoint, a multiple of 20")
    parser.add_argument("--pairs", type=int, default=5, help="how many times all sides run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "model"
        measure(sys.executable, "-c", WRITE, str(prefix), str(args.mebibytes), str(TENSORS))
        print(f"{args.mebibytes} MiB in {TENSORS} tensors, medians of {args.pairs} rounds")
        compare(prefix, args.mebibytes, args.pairs)


if __name__ == "__main__":
    main()
