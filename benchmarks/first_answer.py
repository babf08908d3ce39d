"""Compares the time to the first output of a graph with mapped weights with the .pb of the same checkpoint.

python benchmarks/first_answer.py               1.5 GB: 22 layers of 4096 x 4096; the .pb needs 17 GB of memory
python benchmarks/first_answer.py --layers 4    0.27 GB

Each run is a new process. The clock starts after the import of TensorFlow, and stops at the first output; the memory is
the increase of the peak in that time. Both sides use a session's default settings, except the option that the format
mmap needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from freeze import MAKE, PROJECT, QUIET

BOUND_TIME, BOUND_MEMORY = 20, 10
WIDTH = 4096

ANSWER = """
import json, re, sys, time
import numpy as np
import tensorflow as tf
v1 = tf.compat.v1
path, later, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

x = {"x:0": np.ones((1, width), np.float32)}
if not path.endswith(".pb"):
    from pipeline.formats.mmap import load_mmap
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here: proc(5)
before, started = status("VmRSS"), time.perf_counter()
if path.endswith(".pb"):
    graph_def = v1.GraphDef.FromString(open(path, "rb").read())
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.import_graph_def(graph_def, name="")
    del graph_def
else:
    session = load_mmap(path)
answer = session.run("y:0", x)
first, peak = time.perf_counter() - started, status("VmHWM") - before
times = []
for _ in range(later):
    started = time.perf_counter()
    session.run("y:0", x)
    times.append(time.perf_counter() - started)
print(json.dumps([first, peak, sorted(times)[len(times) // 2], answer.ravel()[:8].tolist()]), flush=True)
if len(sys.argv) > 4:  # until its time is up
    ends = time.perf_counter() + float(sys.argv[4])
    while time.perf_counter() < ends:
        session.run("y:0", x)
"""

ENVIRONMENT = QUIET | {"PYTHONPATH": str(PROJECT)}


def run_session(path: Path, later: int) -> list[Any]:
    """Returns seconds to the first output, peak MB, seconds of a later run, and the first values of the output."""
    command = [sys.executable, "-c", ANSWER, str(path), str(later), str(WIDTH)]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return list(json.loads(done.stdout))


def freeze(prefix: Path, folder: Path) -> None:
    """Writes `model.pb` and `mapped/`."""
    from pipeline.freezing.run_passes import freeze_checkpoint_files
    from pipeline.freezing.write.mmap import write_mmap
    from pipeline.freezing.write.pb import write_pb

    graph, bundle = freeze_checkpoint_files(prefix, ["y"], ["x"])
    (folder / "mapped").mkdir()
    started = time.perf_counter()
    write_mmap(graph, bundle, folder / "mapped")
    between = time.perf_counter()
    write_pb(graph, bundle, folder / "model.pb")
    print(f"written: mapped {between - started:.1f} s, .pb {time.perf_counter() - between:.1f} s", flush=True)


def compare(folder: Path, pairs: int, later: int) -> bool:
    """Prints both sides and their ratios; returns True if the ratios keep their bounds."""
    sides: dict[str, list[list[Any]]] = {"mapped": [], "model.pb": []}
    run_session(folder / "mapped", 1)  # warms the disk's cache for TensorFlow and the weights; not counted
    for _ in range(pairs):
        for name, runs in sides.items():
            runs.append(run_session(folder / name, later))
            print(f"  {name:<9} first {runs[-1][0]:8.3f} s  {runs[-1][1]:8.0f} MB", flush=True)
    for name, runs in sides.items():
        seconds, memory, again = (statistics.median(run[k] for run in runs) for k in range(3))
        print(f"{name:<9} first answer {seconds:8.3f} s   peak {memory:8.0f} MB   later answers {again:.4f} s")
    both = list(zip(sides["model.pb"], sides["mapped"], strict=True))
    same = all(pb[3] == mapped[3] for pb, mapped in both)
    faster, smaller, later_ratio = (
        statistics.median(pb[k] / max(mapped[k], 1e-9) for pb, mapped in both) for k in range(3)
    )
    print(f"first answer     {faster:6.1f} times faster       bound {BOUND_TIME}     (median of {pairs})")
    print(f"memory           {smaller:6.1f} times less         bound {BOUND_MEMORY}     (median of {pairs})")
    print(f"a later answer   {1 / later_ratio:6.2f} times the .pb's time")
    print(f"same answers     {same}")
    return faster >= BOUND_TIME and smaller >= BOUND_MEMORY


def share(folder: Path) -> None:
    """Prints how much of the weights two processes share that run at the same time, as the kernel counts it.

    A layer is mapped only while it is used, so shared memory shows when both processes use the same layer.
    """
    os.sync()  # pages that wait for the disk would count as changed
    command = [sys.executable, "-c", ANSWER, str(folder / "mapped"), "1", str(WIDTH), "12"]
    both = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in "ab"]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    most: dict[str, int] = {}
    ends = time.perf_counter() + 8
    while time.perf_counter() < ends:
        for process in both:
            for name, size in weights_in(process.pid).items():
                most[name] = max(most.get(name, 0), size)
    for process in both:
        process.communicate()
    text = ", ".join(
        f"{name} {most.get(name, 0) / 1024:.0f} MB" for name in ("Rss", "Pss", "Shared_Clean", "Private_Dirty")
    )
    print(f"two processes at once, of each one's mapped weights at most: {text}")


def weights_in(pid: int) -> dict[str, int]:
    """Returns the kB of mapped weight files in a process, by field of smaps: proc(5)."""
    sums: dict[str, int] = {}
    is_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if " " in name:
            is_weights = "/weights/" in line
        elif is_weights and rest.endswith("kB"):
            sums[name] = sums.get(name, 0) + int(rest.split()[0])
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=22, help="of 67 MB each")
    parser.add_argument("--pairs", type=int, default=3, help="how many times each side answers")
    parser.add_argument("--later", type=int, default=10, help="answers after the first one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmap-") as name:
        folder = Path(name)
        prefix = folder / "model.ckpt"
        made = [sys.executable, "-c", MAKE, str(args.layers), str(WIDTH), str(prefix)]
        subprocess.run(made, env=os.environ | QUIET, check=True, capture_output=True)
        print(
            f"{args.layers} layers of {WIDTH} x {WIDTH}: {args.layers * WIDTH * WIDTH * 4 / 1e9:.2f} GB",
            flush=True,
        )
        freeze(prefix, folder)
        share(folder)
        is_right = compare(folder, args.pairs, args.later)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
