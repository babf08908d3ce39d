"""Compares freezing a checkpoint with TensorFlow's freeze_graph, and with copying the checkpoint's bytes.

python benchmarks/freeze.py            all sizes: 1.5 GB needs 5 GB of disk, and freeze_graph 7 GB of memory; TensorFlow
                                       takes minutes to make the checkpoint of 30,000 variables
python benchmarks/freeze.py --small    without these two
python benchmarks/freeze.py --only 000 those cases whose title holds this text: 3,000 and 30,000 variables

All sides run alternately; the bounds are for the ratios of their times. Peak memory is that of the whole process.
CPU is user and system time: its ratios are steadier than those of seconds on a machine that others use too.
The exit code is 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
    cpu_seconds: float
    peak_mb: float


def run(*command: str) -> Run:
    """Runs a command, which must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.perf_counter() - started
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def ours(prefix: Path) -> Run:
    """Runs our command."""
    return run(sys.executable, "-m", "pipeline", "freeze", str(prefix), "--outputs", "y", "-o", f"{prefix}.ours.pb")


def peer(prefix: Path) -> Run:
    """Runs TensorFlow's command."""
    return run(
        *(sys.executable, "-m", "tensorflow.python.tools.freeze_graph", f"--input_meta_graph={prefix}.meta"),
        *(f"--input_checkpoint={prefix}", "--input_binary=true", "--output_node_names=y"),
        f"--output_graph={prefix}.peer.pb",
    )


def copy(prefix: Path) -> Run:
    """Copies the checkpoint's data file."""
    return run("cp", f"{prefix}.data-00000-of-00001", f"{prefix}.copy")


@dataclass(frozen=True)
class Case:
    """A checkpoint, and the bounds for our command on it.

    Args:
        sides: the commands to compare with, by name.
        times_ours: lower bound of another side's time, as a multiple of our time.
        ours_times: upper bound of our time, as a multiple of another side's time.
        most_mb: upper bound of our peak memory.
    """

    title: str
    layers: int
    width: int
    sides: Mapping[str, Callable[[Path], Run]]
    times_ours: Mapping[str, float] = field(default_factory=dict)
    ours_times: Mapping[str, float] = field(default_factory=dict)
    most_mb: float | None = None

    def save(self, folder: Path) -> Path:
        """Makes the checkpoint and returns its prefix."""
        prefix = folder / f"{self.layers}-{self.width}"
        make = [sys.executable, "-c", MAKE, str(self.layers), str(self.width), str(prefix)]
        subprocess.run(make, env=QUIET, check=True, capture_output=True)
        return prefix


def compare(case: Case, prefix: Path, pairs: int) -> bool:
    """Prints the medians of all sides and of the ratios of each pair; returns True if no bound is missed."""
    sides = {"ours": ours, **case.sides}
    measured: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(pairs + 1):  # the first run warms the disk's cache and is not counted
        for name, side in sides.items():
            measured[name].append(side(prefix))
    counted = {name: runs[1:] for name, runs in measured.items()}
    ratios = {
        name: statistics.median(b.seconds / a.seconds for a, b in zip(counted["ours"], runs, strict=True))
        for name, runs in counted.items()
    }
    print(f"\n{case.title} (median of {pairs})")
    for name, runs in counted.items():
        seconds = statistics.median(each.seconds for each in runs)
        cpu = statistics.median(each.cpu_seconds for each in runs)
        cpu_ratio = cpu / statistics.median(each.cpu_seconds for each in counted["ours"])
        memory = statistics.median(each.peak_mb for each in runs)
        print(
            f"  {name:<18} {seconds:8.2f} s   {ratios[name]:6.2f} times ours   "
            f"CPU {cpu:8.2f} s   {cpu_ratio:6.2f} times ours   peak {memory:6.0f} MB"
        )
    memory = statistics.median(each.peak_mb for each in counted["ours"])
    return all(
        [
            *(
                check_bound(f"{name} to ours", ratios[name], "at least", least)
                for name, least in case.times_ours.items()
            ),
            *(
                check_bound(f"ours to {name}", 1 / ratios[name], "at most", most)
                for name, most in case.ours_times.items()
            ),
            case.most_mb is None or check_bound("our peak in MB", memory, "at most", case.most_mb),
        ]
    )


def check_bound(what: str, got: float, side: str, bound: float) -> bool:
    """Prints a figure and its bound; returns True if the bound is kept."""
    is_kept = got >= bound if side == "at least" else got <= bound
    print(f"  {what}: {got:.2f}, wanted {side} {bound:g}: {'kept' if is_kept else 'MISSED'}", flush=True)
    return is_kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how many times each side runs")
    parser.add_argument("--small", action="store_true", help="leave out 1.5 GB and 30,000 variables")
    parser.add_argument("--only", default="", help="only the cases whose title holds this text")
    parser.add_argument("--peer-of-many", action="store_true", help="let freeze_graph freeze 30,000 variables too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freeze-") as folder:
        bounds_kept = [
            compare(case, case.save(Path(folder)), args.pairs)
            for case in cases(Path(folder), args.small, args.peer_of_many)
            if args.only in case.title
        ]
    sys.exit(not all(bounds_kept))


def cases(folder: Path, is_small: bool, has_peer_of_many: bool) -> Iterator[Case]:
    """Yields the checkpoints, from small to large."""
    both = {"freeze_graph": peer, "cp": copy}
    yield Case("smallest: one weight of 2 x 2", 1, 2, both, times_ours={"freeze_graph": 15})
    some = Case("3,000 variables of 4 x 4", 3000, 4, both, times_ours={"freeze_graph": 14})
    yield some
    if is_small:
        return
    fewer = folder / f"{some.layers}-{some.width}"  # still there
    sides = {"ours, 3,000": lambda _: ours(fewer), **({"freeze_graph": peer} if has_peer_of_many else {})}
    yield Case("30,000 variables of 4 x 4", 30000, 4, sides, ours_times={"ours, 3,000": 12}, most_mb=500)
    title = "1.5 GB: 22 layers of 4096 x 4096"
    yield Case(title, 22, 4096, both, times_ours={"freeze_graph": 12}, ours_times={"cp": 2}, most_mb=80)


if __name__ == "__main__":
    main()
