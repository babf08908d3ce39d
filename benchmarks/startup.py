"""Compares the time of a run with nothing to do with a bare Luigi run.

python benchmarks/startup.py
python benchmarks/startup.py --from-nothing     also a clone, its installation, `make run` and `make test`

Both sides run alternately. The result is the ratio, because the machine's speed varies.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

BARE = """
import luigi

class Nothing(luigi.WrapperTask):
    pass
"""


def seconds(*command: str, cwd: Path = PROJECT) -> float:
    """Returns the duration of a command, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - started


def compare_with_bare_luigi(pairs: int) -> None:
    """Prints the medians of a complete `make run` and of a bare `luigi`, and the median of their ratios."""
    subprocess.run(["make", "run"], cwd=PROJECT, check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare.py").write_text(BARE)
        bare = ("env", f"PYTHONPATH={folder}", str(BIN / "luigi"), "--module", "bare", "Nothing", "--local-scheduler")
        measured = [(seconds("make", "run"), seconds(*bare, cwd=Path(folder))) for _ in range(pairs)]
    ours, theirs = (statistics.median(side) for side in zip(*measured, strict=True))
    ratio = statistics.median(a / b for a, b in measured)
    print(f"make run, all complete   {ours:.3f} s")
    print(f"bare luigi, complete     {theirs:.3f} s")
    print(f"ratio                    {ratio:.2f} (median of {pairs} pairs)")


def time_from_nothing() -> None:
    """Prints the time from a new clone to its first report, and of its tests."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        seconds("git", "clone", "--quiet", str(PROJECT), str(clone))
        print(f"make run from nothing    {seconds('make', 'run', cwd=clone):.0f} s", flush=True)
        print(f"make run again           {seconds('make', 'run', cwd=clone):.2f} s", flush=True)
        print(f"make test after that     {seconds('make', 'test', cwd=clone):.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="how many times both sides run")
    parser.add_argument("--from-nothing", action="store_true", help="time a fresh clone too")
    args = parser.parse_args()
    compare_with_bare_luigi(args.pairs)
    if args.from_nothing:
        time_from_nothing()


if __name__ == "__main__":
    main()
