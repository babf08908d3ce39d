"""Measures validation: speed and memory of comparing rows, and speed of comparing weights.

python benchmarks/validate.py                     all three
python benchmarks/validate.py rows --rows 100000  the check `equal` on the spam model, against two bare session loops
python benchmarks/validate.py memory              1,000,000 rows against 10,000
python benchmarks/validate.py weights             a checkpoint of 1.5 GB and its .pb, against `cmp` of two such files

The baseline of `rows` is the least possible work: the sessions of the checkpoint and the .pb run the same batches, one
after the other, with the rows in memory, without comparing or writing. Imports and loading count for `validate`, but
not for the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from freeze import MAKE, PROJECT, QUIET

from pipeline.data.npz import save_arrays
from pipeline.data.readers import read_messages

BOUND_ROWS, BOUND_MEMORY_MB, BOUND_WEIGHTS = 1.25, 50, 3.0
BATCH, THREADS = 256, 2
ENVIRONMENT = QUIET | {"PYTHONPATH": str(PROJECT), "TF_ENABLE_ONEDNN_OPTS": "0"}

OURS = """
import json, os, sys, threading, time
from pathlib import Path
from pipeline.settings import ValidationSettings
from pipeline.validation.validate import validate
checkpoint, frozen, folder = map(Path, sys.argv[1:4])

def family():  # the resident megabytes of this process, and of all that descend from it
    parents, sizes = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            sizes[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * 4096 / 2**20
        except OSError:
            continue
    inside = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return sum(sizes[pid] for pid in inside)

peaks = []

def watch():
    while True:
        peaks.append(family())
        time.sleep(0.2)

threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
verdict = validate("spam", checkpoint, {"frozen": frozen}, ValidationSettings(checks="equal"), int(sys.argv[4]), folder)
seconds = time.perf_counter() - started
assert verdict["verdict"] == "passed", verdict["reasons"]
print(json.dumps([seconds, max(peaks)]))
"""

BARE = """
import json, sys, time
import tensorflow as tf
from pipeline.data.npz import load_arrays
v1 = tf.compat.v1
path, rows, batch, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
session = v1.Session(graph=tf.Graph(), config=config)
with session.graph.as_default():
    if path.endswith(".pb"):
        tf.import_graph_def(v1.GraphDef.FromString(open(path, "rb").read()), name="")
    else:
        v1.train.import_meta_graph(path + ".meta").restore(session, path)
texts = load_arrays(rows)["input/text"]
started = time.perf_counter()
for start in range(0, len(texts), batch):
    session.run({"probability": "probability:0"}, {"text:0": texts[start : start + batch]})
print(json.dumps([time.perf_counter() - started]))
"""

PROOF = """
import json, sys, time
from pathlib import Path
from pipeline.validation.compare.weights import compare_weights
started = time.perf_counter()
found = compare_weights(Path(sys.argv[1]), Path(sys.argv[2]))
assert found.problem is None and found.variables and all(one.is_equal for one in found.variables)
print(json.dumps([time.perf_counter() - started]))
"""


def run_and_read(code: str, *arguments: object) -> list[float]:
    """Runs code in a new process; returns the numbers that it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return list(json.loads(done.stdout))


def spam(root: Path) -> tuple[Path, Path]:
    """Trains the bundled spam model on its sample; returns the artifacts checkpoint and frozen."""
    luigi = [str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", "FreezeModel"]
    subprocess.run([*luigi, "--output-root", str(root)], cwd=PROJECT, check=True, capture_output=True)
    folder = root / "checkpoint"
    shutil.copytree(root / "spam" / "checkpoint", folder)
    return folder, root / "spam" / "frozen"


def write_rows(folder: Path, count: int) -> None:
    """Writes messages of the sample with different numbers appended as validation rows, so that no two are equal."""
    examples = read_messages(PROJECT / "data" / "spam.tsv")
    texts = np.empty(count, object)
    sample = examples.inputs["text"]
    texts[:] = [sample[row % len(sample)] + b" %d" % row for row in range(count)]
    save_arrays(folder / "validation.npz", {"input/text": texts})


def bench_rows(rows: int, pairs: int) -> None:
    """Compares the check `equal` with two bare session loops over the same batches."""
    with tempfile.TemporaryDirectory() as work:
        checkpoint, frozen = spam(Path(work))
        write_rows(checkpoint, rows)
        ours, bare = [], []
        for pair in range(pairs):
            folder = Path(work) / f"results{pair}"
            folder.mkdir()
            ours.append(run_and_read(OURS, checkpoint, frozen, folder, THREADS)[0])
            lines = sum(1 for _ in (folder / "results.csv").open("rb")) - 1
            paths = (checkpoint / "model.ckpt", frozen / "model.pb")
            loops = [run_and_read(BARE, path, checkpoint / "validation.npz", BATCH, THREADS)[0] for path in paths]
            bare.append(sum(loops))
            print(
                f"  {rows:,} rows: ours {ours[-1]:.2f} s ({lines:,} lines), bare loops {loops[0]:.2f} + "
                f"{loops[1]:.2f} s"
            )
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        print(
            f"check equal, {rows:,} rows: {statistics.median(ours):.1f} s, two bare session loops "
            f"{statistics.median(bare):.1f} s: {ratio:.2f} times their time (bound {BOUND_ROWS})"
        )


def bench_memory(few: int, many: int) -> None:
    """Compares the peak memory of the validation and its runners for few rows and for many."""
    with tempfile.TemporaryDirectory() as work:
        checkpoint, frozen = spam(Path(work))
        peaks = []
        for count in (few, many):
            write_rows(checkpoint, count)
            folder = Path(work) / f"results{count}"
            folder.mkdir()
            seconds, peak = run_and_read(OURS, checkpoint, frozen, folder, THREADS)
            peaks.append(peak)
            print(f"  {count:,} rows: {peak:.0f} MB, {seconds:.1f} s, {count / seconds:,.0f} rows/s")
        print(f"memory at {many:,} rows against {few:,}: {peaks[1] - peaks[0]:+.0f} MB (bound +{BOUND_MEMORY_MB})")


def bench_weights(layers: int, pairs: int) -> None:
    """Compares the check of the weights with `cmp` of two files of that size."""
    with tempfile.TemporaryDirectory() as work:
        folder, frozen = Path(work) / "checkpoint", Path(work) / "frozen"
        folder.mkdir()
        frozen.mkdir()
        subprocess.run(
            [sys.executable, "-c", MAKE, str(layers), "4096", str(folder / "model.ckpt")], env=ENVIRONMENT, check=True
        )
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "freeze",
            str(folder),
            "--outputs",
            "y",
            "-o",
            str(frozen / "model.pb"),
        ]
        subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, check=True, capture_output=True)
        shutil.copy(frozen / "signature.json", folder)
        twin = frozen / "twin.pb"
        shutil.copy(frozen / "model.pb", twin)
        ours, peers = [], []
        for _ in range(pairs):
            ours.append(run_and_read(PROOF, folder, frozen)[0])
            started = time.perf_counter()
            subprocess.run(["cmp", str(frozen / "model.pb"), str(twin)], check=True)
            peers.append(time.perf_counter() - started)
        size = (frozen / "model.pb").stat().st_size
        ratio = statistics.median(a / b for a, b in zip(ours, peers, strict=True))
        print(
            f"weights of a {size / 1e9:.2f} GB pair: {statistics.median(ours):.2f} s, cmp "
            f"{statistics.median(peers):.2f} s: {ratio:.2f} times its time (bound {BOUND_WEIGHTS})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["rows", "memory", "weights"], help="all, if not given")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=22, help="of 4096 x 4096 for the weights: 22 are 1.5 GB")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    if options.what in (None, "rows"):
        bench_rows(options.rows, options.pairs)
    if options.what in (None, "memory"):
        bench_memory(10_000, options.many)
    if options.what in (None, "weights"):
        bench_weights(options.layers, options.pairs)


if __name__ == "__main__":
    main()
