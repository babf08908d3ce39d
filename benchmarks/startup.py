"""Compare the time of a run with nothing to do with a bare complete Luigi run.

python benchmarks/startup.py
python benchmarks/startup.py --from-nothing     also a clone: its set-up with uv and with pip, and each target's time

Both sides run alternately. The result is the ratio, because the machine's speed varies.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

BARE = """
import luigi

class Nothing(luigi.WrapperTask):
    pass
"""


class Cost(NamedTuple):
    """What a command costs: elapsed seconds, and seconds of CPU (user and system) of all its processes."""

    wall: float
    cpu: float


def measure(*command: str, cwd: Path = PROJECT) -> Cost:
    """Run a command, which must succeed, as most machines do: Python keeps its bytecode."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def compare_with_bare_luigi(pairs: int) -> None:
    """Print the medians of a complete `make run` and of a bare `luigi`, and the medians of their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare.py").write_text(BARE)
        bare = ("env", f"PYTHONPATH={folder}", str(BIN / "luigi"), "--module", "bare", "Nothing", "--local-scheduler")
        for _ in range(2):  # the first run builds what is missing, and both write their bytecode and caches
            measure("make", "run")
            measure(*bare, cwd=Path(folder))
        measured = [(measure("make", "run"), measure(*bare, cwd=Path(folder))) for _ in range(pairs)]
    for kind in Cost._fields:
        ours, theirs = ([getattr(cost, kind) for cost in side] for side in zip(*measured, strict=True))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"make run, all complete   {statistics.median(ours):.3f} s {kind}")
        print(f"bare luigi, complete     {statistics.median(theirs):.3f} s {kind}")
        print(f"ratio                    {ratio:.2f} {kind} (median of {pairs} pairs)")


def time_from_nothing() -> None:
    """Print how long a fresh clone takes: to be set up, with empty caches and with full ones; then each target."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        measure("git", "clone", "--quiet", str(PROJECT), str(clone))
        os.environ |= {"UV_CACHE_DIR": f"{folder}/uv", "PIP_CACHE_DIR": f"{folder}/pip"}
        for installer in ("pip", "uv"):
            for caches in ("empty", "full"):
                measure("make", "clean", "clean-output", "YES=1", cwd=clone)
                took = measure("make", ".venv/.installed", f"INSTALLER={installer}", cwd=clone).wall
                print(f"set-up, {installer:3}, caches {caches}  {took:.0f} s", flush=True)
        print(f"make run after that      {measure('make', 'run', cwd=clone).wall:.0f} s", flush=True)
        print(f"make run again           {measure('make', 'run', cwd=clone).wall:.2f} s", flush=True)
        measure("make", ".venv/.installed-dev", cwd=clone)
        print(f"make check from nothing  {measure('make', 'check', cwd=clone).wall:.0f} s", flush=True)
        print(f"make check again         {measure('make', 'check', cwd=clone).wall:.0f} s", flush=True)
        print(f"make docs                {measure('make', 'docs', cwd=clone).wall:.0f} s", flush=True)
        print(f"make test                {measure('make', 'test', cwd=clone).wall:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="how many times both sides run")
    parser.add_argument("--from-nothing", action="store_true", help="time a fresh clone too")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, Python compiles every module at every start
    compare_with_bare_luigi(args.pairs)
    if args.from_nothing:
        time_from_nothing()


if __name__ == "__main__":
    main()
