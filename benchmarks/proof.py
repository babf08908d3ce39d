"""Compares the proof that a .pb is its checkpoint's function with freezing, and with `cmp` of two files of its size.

python benchmarks/proof.py            all sizes: 1.5 GB needs 5 GB of disk, 30,000 variables some minutes
python benchmarks/proof.py --small    3,000 variables alone

Each proof is a process of its own, Python's start included. CPU is user and system time. The exit code is 1 if a bound
is missed: 1.5 times `cmp` for 1.5 GB, and half of freezing for 30,000 variables.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from freeze import Case, Run, check_bound, ours, run

PROVE = """
import sys
from pathlib import Path
from pipeline.checkpoint.source import open_source
from pipeline.graph.lazy import load_lazily
from pipeline.validation.proof.model import Model, model_of_files
from pipeline.validation.proof.prove import compare_models
prefix, path = sys.argv[1:]
frozen = load_lazily(Path(path))
reference = model_of_files("checkpoint", open_source(prefix), ["x"], ["y"])
candidate = Model("candidate", frozen.graph, {"x:0": "x"}, {"y": "y:0"}, contents=frozen.contents)
assert compare_models(reference, candidate).word == "proved"
"""


def prove(prefix: Path) -> Run:
    """Proves the .pb that was frozen from a checkpoint."""
    return run(sys.executable, "-c", PROVE, str(prefix), f"{prefix}.ours.pb")


def cmp(prefix: Path) -> Run:
    """Compares the .pb with a copy of it."""
    return run("cmp", f"{prefix}.ours.pb", f"{prefix}.twin.pb")


def measure(case: Case, folder: Path, pairs: int, bounds: Mapping[str, float]) -> bool:
    """Prints the medians of all sides, and of the ratios of each pair; returns True if no bound is missed.

    Args:
        bounds: upper bound of the proof's CPU time, as a multiple of another side's.
    """
    prefix = case.save(folder)
    ours(prefix)
    shutil.copyfile(f"{prefix}.ours.pb", f"{prefix}.twin.pb")
    sides = {"proof": prove, "freezing": ours, "cmp": cmp}
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(pairs + 1):  # the first warms the disk's cache and is not counted
        for name, side in sides.items():
            runs[name].append(side(prefix))
    print(f"\n{case.title} (median of {pairs})")
    kept = True
    for name, measured in runs.items():
        counted, proofs = measured[1:], runs["proof"][1:]
        seconds, cpu = (statistics.median(getattr(one, key) for one in counted) for key in ("seconds", "cpu_seconds"))
        ratios = [
            statistics.median(
                getattr(a, key) / max(getattr(b, key), 0.001) for a, b in zip(proofs, counted, strict=True)
            )
            for key in ("seconds", "cpu_seconds")
        ]
        peak = statistics.median(one.peak_mb for one in counted)
        print(
            f"  {name:<10} {seconds:7.2f} s   proof {ratios[0]:5.2f} times   CPU {cpu:7.2f} s   proof {ratios[1]:5.2f} "
            f"times   peak {peak:6.0f} MB"
        )
        if name in bounds:
            kept &= check_bound(f"proof to {name}", min(ratios), "at most", bounds[name])
    for path in folder.glob(f"{prefix.name}*"):
        path.unlink()
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how many times each side runs")
    parser.add_argument("--small", action="store_true", help="3,000 variables alone")
    args = parser.parse_args()
    cases = [(Case("3,000 variables of 4 x 4", 3000, 4, {}), {})]
    if not args.small:
        cases += [
            (Case("30,000 variables of 4 x 4", 30000, 4, {}), {"freezing": 0.5}),
            (Case("1.5 GB: 22 layers of 4096 x 4096", 22, 4096, {}), {"cmp": 1.5}),
        ]
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        kept = [measure(case, Path(folder), args.pairs, bounds) for case, bounds in cases]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
