"""Compares ConvertBatch with a shell loop of TensorFlow's freeze_graph, and a large batch with a small one.

python benchmarks/batch.py                 200 and 2,000 checkpoints; the loop freezes 20 of them, and the time of a
                                           whole loop (15 minutes) is extrapolated
python benchmarks/batch.py --loop 200      runs a whole loop

ConvertBatch freezes, validates and reports each model with two workers; the loop only freezes. Time and memory of the
scheduling processes for 2,000 models are compared with those for 200. The exit code is 1 if a bound is missed.
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

from freeze import PROJECT, QUIET, check_bound

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
    scheduler_mb: float
    loaded_tensorflow: bool


def batch(manifest: Path, root: Path) -> Run:
    """Runs a batch, which must succeed. The peak is that of Luigi's process and the one that it forks for the task."""
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
    """Returns a process id and the ids of all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def loop(prefixes: list[Path], folder: Path) -> float:
    """Runs a shell loop of freeze_graph; returns its seconds."""
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
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-") as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-c", MAKE, str(folder / "runs"), str(args.many)],
            env=QUIET,
            check=True,
            capture_output=True,
            cwd=PROJECT,
        )
        prefixes = [path.with_suffix("") for path in sorted(folder.glob("runs/*/model.ckpt.index"))]
        for size in (args.few, args.many):
            lines = [f"{prefix.parent.name},{prefix}" for prefix in prefixes[:size]]
            (folder / f"{size}.csv").write_text("\n".join(["name,checkpoint", *lines]) + "\n")
        few = batch(folder / f"{args.few}.csv", folder / "few")
        per_model = loop(prefixes[: args.loop], folder) / args.loop
        print(f"{args.few} models: {few.seconds:.1f} s, {few.scheduler_mb:.0f} MB of the scheduling processes")
        print(f"freeze_graph: {per_model:.2f} s for each of {args.loop}, {per_model * args.few:.0f} s for {args.few}")
        bounds_kept = [check_bound("freeze_graph to ours", per_model * args.few / few.seconds, "at least", 15)]
        many = batch(folder / f"{args.many}.csv", folder / "many")
        print(f"{args.many} models: {many.seconds:.1f} s, {many.scheduler_mb:.0f} MB")
        bounds_kept.append(check_bound(f"{args.many} to {args.few}", many.seconds / few.seconds, "at most", 11))
        bounds_kept.append(check_bound("MB of memory on top", many.scheduler_mb - few.scheduler_mb, "at most", 150))
        again = batch(folder / f"{args.many}.csv", folder / "many")
        print(f"again, all finished: {again.seconds:.1f} s, TensorFlow loaded: {again.loaded_tensorflow}")
        bounds_kept.append(check_bound("seconds of a rerun", again.seconds, "at most", 15))
        bounds_kept.append(not again.loaded_tensorflow)
    sys.exit(not all(bounds_kept))


if __name__ == "__main__":
    main()
