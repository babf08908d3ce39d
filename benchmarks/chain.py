"""Compare the default chain for `examples/fruit.py` with a script written by hand that does the same work.

python benchmarks/chain.py

The script, `bare_chain.py`, trains, saves, freezes, restores both, compares row by row and writes a CSV file. All three
run by turns; the result is the median of the ratios, because the machine's speed varies.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from startup import BIN, PROJECT, measure

TASKS = ("ValidateModel", "WriteReport")


def compare(rounds: int) -> None:
    """Print the medians of the seconds, and of the ratios to the script."""
    script = [sys.executable, str(PROJECT / "benchmarks/bare_chain.py")]
    times: dict[str, list[float]] = {name: [] for name in ("script", *TASKS)}
    for number in range(rounds + 1):  # the first round fills caches, and does not count
        with tempfile.TemporaryDirectory() as folder:
            taken = {"script": measure(*script, folder).wall}
            for task in TASKS:
                run = [str(BIN / "luigi"), "--module", "pipeline", task, "--model", "examples/fruit.py:Fruit"]
                taken[task] = measure(*run, "--output-root", str(Path(folder) / task)).wall
        for name, seconds in taken.items():
            times[name] += [seconds] if number else []
    print(f"{'script by hand':<16} {statistics.median(times['script']):5.1f} s")
    for task in TASKS:
        ratio = statistics.median(a / b for a, b in zip(times[task], times["script"], strict=True))
        print(f"{task:<16} {statistics.median(times[task]):5.1f} s   {ratio:.2f} times (median of {rounds})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how many times each of the three runs")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, Python compiles every module at every start
    compare(args.rounds)


if __name__ == "__main__":
    main()
