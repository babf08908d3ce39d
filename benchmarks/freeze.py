"""Freezing a checkpoint: our command against TensorFlow's, and against copying the checkpoint's bytes.

python benchmarks/freeze.py            all sizes; the large one needs 5 GB of disk and 7 GB of memory for its peer
python benchmarks/freeze.py --small    without the large one

All sides run in turn; what counts are the ratios. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

MAKE = """
import sys
import numpy as np
import tensorflow as tf
v1 = tf.compat.v1
layers, width, prefix = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with tf.Graph().as_default(), v1.Session() as session:
    x = y = v1.placeholder(tf.float32, [None, width], name="x")
    draw = np.random.default_rng(1)
    loads = []
    for layer in range(layers):
        w = v1.get_variable(f"w{layer}", [width, width], use_resource=False)
        y = tf.matmul(y, w)
        loads.append((w, layer))
    tf.identity(y, name="y")
    saver = v1.train.Saver()
    together = max(1, 2**28 // (4 * width * width))  # values fed at once: a run costs the more the larger the graph
    for start in range(0, layers, together):
        some = loads[start : start + together]
        feed = {w.initializer.inputs[1]: draw.standard_normal((width, width), dtype=np.float32) for w, _ in some}
        session.run([w.initializer for w, _ in some], feed)
    saver.save(session, prefix)
"""


@dataclass(frozen=True)
class Run:
    """One finished command."""

    seconds: float
    peak_mb: float


def run(*command: str) -> Run:
    """Runs a command; it must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(time.perf_counter() - started, usage.ru_maxrss / 1024)


def ours(prefix: Path) -> Run:
    """Our command."""
    return run(sys.executable, "-m", "pipeline", "freeze", str(prefix), "--outputs", "y", "-o", f"{prefix}.ours.pb")


def peer(prefix: Path) -> Run:
    """TensorFlow's command."""
    return run(
        *(sys.executable, "-m", "tensorflow.python.tools.freeze_graph", f"--input_meta_graph={prefix}.meta"),
        *(f"--input_checkpoint={prefix}", "--input_binary=true", "--output_node_names=y"),
        f"--output_graph={prefix}.peer.pb",
    )


def copy(prefix: Path) -> Run:
    """The checkpoint's bytes, copied."""
    return run("cp", f"{prefix}.data-00000-of-00001", f"{prefix}.copy")


def compare(title: str, prefix: Path, pairs: int, sides: dict[str, Callable[[Path], Run]]) -> None:
    """Prints the medians of all sides, and of our ratio to each of the others, pair by pair."""
    measured = {name: [] for name in sides}
    for _ in range(pairs + 1):  # the first of each warms the disk's cache and is not counted
        for name, side in sides.items():
            measured[name].append(side(prefix))
    counted = {name: runs[1:] for name, runs in measured.items()}
    print(f"\n{title} (median of {pairs})")
    for name, runs in counted.items():
        ratio = statistics.median(b.seconds / a.seconds for a, b in zip(counted["ours"], runs, strict=True))
        seconds = statistics.median(each.seconds for each in runs)
        memory = statistics.median(each.peak_mb for each in runs)
        print(f"  {name:<14} {seconds:8.2f} s   {ratio:6.2f} times ours   {memory:8.0f} MB", flush=True)
    mine, theirs = (Path(f"{prefix}.{name}.pb") for name in ("ours", "peer"))
    # Not read into this process: a child's peak begins with the memory of the process that started it.
    same = filecmp.cmp(mine, theirs, shallow=False)
    print(f"  same bytes as freeze_graph: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how many times each side runs")
    parser.add_argument("--small", action="store_true", help="leave out the checkpoint of 1.5 GB")
    given = parser.parse_args()
    cases = [("smallest: one weight of 2 x 2", 1, 2), ("3,000 variables of 4 x 4", 3000, 4)]
    cases += [] if given.small else [("1.5 GB: 22 layers of 4096 x 4096", 22, 4096)]
    for title, layers, width in cases:
        with tempfile.TemporaryDirectory(prefix="freeze-") as folder:
            prefix = Path(folder) / "model.ckpt"
            subprocess.run(
                [sys.executable, "-c", MAKE, str(layers), str(width), str(prefix)],
                env=QUIET,
                check=True,
                capture_output=True,
            )
            compare(title, prefix, given.pairs, {"ours": ours, "freeze_graph": peer, "cp": copy})


if __name__ == "__main__":
    main()
