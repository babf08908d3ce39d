"""Batches: our command against a shell loop of TensorFlow's freeze_graph, and how a batch grows.

python benchmarks/batch.py                 200 and 2,000 checkpoints; the loop freezes 20 of them, and what the rest
                                           would take is reckoned from these, for a whole one takes a quarter of an hour
python benchmarks/batch.py --loop 200      a whole loop

Ours freezes, validates and reports each model with two workers; the loop only freezes. What a batch of 2,000 costs, in
time and in memory of the processes that hand out work, is told as a multiple of one of 200. It ends with 1 if a bound
is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from freeze import PROJECT, QUIET, told

MAKE = """
import sys
sys.path.insert(0, "tests")
import pathlib, batches
batches.make_checkpoints(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Run:
    """A finished batch."""

    seconds: float
    parents_mb: float
    loaded_tensorflow: bool


def batch(manifest: Path, root: Path) -> Run:
    """Runs a batch; it must succeed. The peak is that of Luigi's process and the one that it forks for the task."""
    command = [str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", "ConvertBatch"]
    command += ["--manifest", str(manifest), "--output-root", str(root), "--workers", "2", "--costs-seconds", "0"]
    started, peak, has_tensorflow = time.perf_counter(), 0.0, False
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=QUIET, stdout=log, stderr=log)
        while process.poll() is None:
            for pid in family(process.pid):
                with suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    has_tensorflow |= "tensorflow" in Path(f"/proc/{pid}/maps").read_text()
                    if is_luigi(pid):
                        kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
                        peak = max(peak, int(kilobytes) / 1024)
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            raise SystemExit(log.read().decode())
    return Run(seconds, peak, has_tensorflow)


def is_luigi(pid: int) -> bool:
    return b"ConvertBatch" in Path(f"/proc/{pid}/cmdline").read_bytes()


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def loop(prefixes: list[Path], folder: Path) -> float:
    """A shell loop of freeze_graph; its seconds."""
    command = f"{sys.executable} -m tensorflow.python.tools.freeze_graph --input_binary=true"
    lines = [
        f"{command} --input_meta_graph={prefix}.meta --input_checkpoint={prefix} "
        f"--output_node_names=probabilities --output_graph={folder}/{number}.pb || exit 1"
        for number, prefix in enumerate(prefixes)
    ]
    started = time.perf_counter()
    subprocess.run(["sh", "-c", "\n".join(lines)], env=QUIET, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", type=int, default=20, help="how many checkpoints freeze_graph freezes")
    parser.add_argument("--few", type=int, default=200, help="how many models the small batch has")
    parser.add_argument("--many", type=int, default=2000, help="how many models the large batch has")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-") as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-c", MAKE, str(folder / "runs"), str(given.many)],
            env=QUIET,
            check=True,
            capture_output=True,
            cwd=PROJECT,
        )
        prefixes = [path.with_suffix("") for path in sorted(folder.glob("runs/*/model.ckpt.index"))]
        for size in (given.few, given.many):
            lines = [f"{prefix.parent.name},{prefix}" for prefix in prefixes[:size]]
            (folder / f"{size}.csv").write_text("\n".join(["name,checkpoint", *lines]) + "\n")
        few = batch(folder / f"{given.few}.csv", folder / "few")
        per_model = loop(prefixes[: given.loop], folder) / given.loop
        print(f"{given.few} models: {few.seconds:.1f} s, {few.parents_mb:.0f} MB of the processes that hand out work")
        print(
            f"freeze_graph: {per_model:.2f} s for each of {given.loop}, {per_model * given.few:.0f} s for {given.few}"
        )
        kept = [told("freeze_graph to ours", per_model * given.few / few.seconds, "at least", 15)]
        many = batch(folder / f"{given.many}.csv", folder / "many")
        print(f"{given.many} models: {many.seconds:.1f} s, {many.parents_mb:.0f} MB")
        kept.append(told(f"{given.many} to {given.few}", many.seconds / few.seconds, "at most", 11))
        kept.append(told("MB of memory on top", many.parents_mb - few.parents_mb, "at most", 150))
        again = batch(folder / f"{given.many}.csv", folder / "many")
        print(f"again, all finished: {again.seconds:.1f} s, TensorFlow loaded: {again.loaded_tensorflow}")
        kept.append(told("seconds of a rerun", again.seconds, "at most", 15))
        kept.append(not again.loaded_tensorflow)
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
