"""What a run costs in which nothing is to do, against the least that Luigi itself takes for that.

python benchmarks/startup.py
python benchmarks/startup.py --from-nothing     also a clone: its set-up with uv and with pip, and each target's time

Both sides run in turn, pair by pair; what counts is the ratio, for the machine's speed drifts.
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
BIN = Path(sys.executable).parent

BARE = """
import luigi

class Nothing(luigi.WrapperTask):
    pass
"""


def seconds(*command: str, cwd: Path = PROJECT) -> float:
    """How long a command takes; it must succeed."""
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
    """Prints how long a fresh clone takes: to be set up, with empty caches and with full ones; then each target."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        seconds("git", "clone", "--quiet", str(PROJECT), str(clone))
        os.environ |= {"UV_CACHE_DIR": f"{folder}/uv", "PIP_CACHE_DIR": f"{folder}/pip"}
        for installer in ("pip", "uv"):
            for caches in ("empty", "full"):
                seconds("make", "clean", cwd=clone)
                took = seconds("make", ".venv/.installed", f"INSTALLER={installer}", cwd=clone)
                print(f"set-up, {installer:3}, caches {caches}  {took:.0f} s", flush=True)
        print(f"make run after that      {seconds('make', 'run', cwd=clone):.0f} s", flush=True)
        print(f"make run again           {seconds('make', 'run', cwd=clone):.2f} s", flush=True)
        seconds("make", ".venv/.installed-dev", cwd=clone)
        print(f"make check from nothing  {seconds('make', 'check', cwd=clone):.0f} s", flush=True)
        print(f"make check again         {seconds('make', 'check', cwd=clone):.0f} s", flush=True)
        print(f"make docs                {seconds('make', 'docs', cwd=clone):.0f} s", flush=True)
        print(f"make test                {seconds('make', 'test', cwd=clone):.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="how many times both sides run")
    parser.add_argument("--from-nothing", action="store_true", help="time a fresh clone too")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # set, it would have Python compile every module at every start
    compare_with_bare_luigi(given.pairs)
    if given.from_nothing:
        time_from_nothing()


if __name__ == "__main__":
    main()
