"""Kills the chain at random moments, runs it again, and compares the bytes with those of an undisturbed run.

python tests/stress/kills.py --kills 50
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import BIN, PROJECT

# Small, and yet with everything that a kill can hit: saves, evaluations, moving averages, dropout.
COMMAND = [
    *(str(BIN / "luigi"), "--module", "pipeline", "WriteReport", "--model", "examples/fruit.py:Fruit"),
    *("--training-steps", "300", "--training-evaluate-every-steps", "10", "--training-save-every-steps", "10"),
    *("--graph-moving-average", "0.9", "--costs-seconds", "0.1"),
]
COMPARED = ("frozen/model.pb", "validation/results.csv")


def start(root: Path) -> subprocess.Popen[bytes]:
    """Starts the chain in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, "--output-root", str(root)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def results(root: Path) -> dict[str, bytes]:
    """The bytes that every run must end with."""
    return {name: (root / "fruit" / name).read_bytes() for name in COMPARED}


def undisturbed(root: Path) -> tuple[dict[str, bytes], float]:
    """Runs the chain once; its bytes, and how long it took."""
    started = time.monotonic()
    finish(root)
    return results(root), time.monotonic() - started


def finish(root: Path) -> None:
    """Runs the chain to its end.

    Raises:
        AssertionError: it fails.
    """
    process = start(root)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()


def kill_after(root: Path, seconds: float) -> None:
    """Starts the chain and kills its main process, alone, with a signal that nothing can catch.

    Raises:
        AssertionError: another process of the run lives on.
    """
    process = start(root)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 10
    while left := processes_of_session(process.pid):
        assert time.monotonic() < deadline, f"orphans go on: {left}"
        time.sleep(0.05)


def processes_of_session(session: int) -> list[str]:
    """The command lines of the processes of a session that are not zombies."""
    found, shared = [], from_shared_server(session)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): after the command in parentheses come state, parent, group, session.
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if (int(number) == session or int(stat.parent.name) in shared) and state != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def from_shared_server(session: int) -> set[int]:
    """The processes that a session has asked the shared fork server for: see `shared_server/sitecustomize.py`."""
    folder = os.environ.get("PIPELINE_TEST_FORK_SERVER")
    noted = Path(folder, f"session-{session}") if folder else Path(os.devnull)
    return {int(line) for line in noted.read_text().split()} if noted.exists() else set()


def leftovers(root: Path) -> list[str]:
    """Versions that no link names, and work that nobody does."""
    home = root / "fruit"
    linked = {path.resolve().name for path in home.iterdir() if path.is_symlink()}
    versions = [path.name for path in (home / ".versions").iterdir() if path.name not in linked]
    return versions + [str(path) for path in home.glob(".work/*/*")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments")
    given = parser.parse_args()
    moments = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        wanted, seconds = undisturbed(folder / "undisturbed")
        print(f"an undisturbed run takes {seconds:.1f} s")
        root = folder / "killed"
        for number in range(1, given.kills + 1):
            # Sometimes from nothing, sometimes on top of what the kill before left.
            if moments.random() < 0.5:
                shutil.rmtree(root, ignore_errors=True)
            moment = moments.uniform(0, seconds)
            kill_after(root, moment)
            finish_is_due = moments.random() < 0.7
            if finish_is_due:
                finish(root)
                assert results(root) == wanted, f"other bytes after a kill at {moment:.2f} s"
                assert not leftovers(root), leftovers(root)
            print(
                f"{number} of {given.kills}: killed at {moment:.2f} s{', same bytes' if finish_is_due else ''}",
                flush=True,
            )
        finish(root)
        assert results(root) == wanted
        print("every rerun ended with the bytes of the undisturbed run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
