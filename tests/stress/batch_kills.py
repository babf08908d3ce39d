"""Kills a batch at random moments, whole or one of its workers, runs it again, and compares the bytes.

python tests/stress/batch_kills.py --kills 30
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import batches
from commands import BIN, PROJECT
from kills import from_shared_server, processes_of_session

MODELS = 12
COMPARED = ("frozen/model.pb", "validation/results.csv", "validation/verdict.json")


def make(folder: Path, models: int = MODELS) -> Path:
    """A list of small models, one of which cannot be converted."""
    prefixes = batches.make_checkpoints(folder / "runs", models)
    batches.cut(Path(f"{prefixes[1]}.data-00000-of-00001"))
    return batches.write_list(folder / "models.csv", [{"name": "", "checkpoint": "runs/*/model.ckpt.index"}])


def start(manifest: Path, root: Path) -> subprocess.Popen[bytes]:
    """Starts the batch in a session of its own."""
    command = [str(BIN / "luigi"), "--module", "pipeline", "ConvertBatch", "--manifest", str(manifest)]
    command += ["--output-root", str(root), "--workers", "2", "--costs-seconds", "0"]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(manifest: Path, root: Path) -> None:
    """Runs the batch to its end.

    Raises:
        AssertionError: it ends otherwise than with the one model that cannot be converted.
    """
    process = start(manifest, root)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 30, stderr.decode()


def results(root: Path) -> dict[str, bytes]:
    """The bytes that every run must end with, but for the output root that a sentence may name."""
    files = [root / "batch" / "models" / "results.csv"]
    files += sorted(path for file in COMPARED for path in root.glob(f"*/{file}"))
    return {str(path.relative_to(root)): path.read_bytes().replace(str(root).encode(), b"ROOT") for path in files}


def leftovers(root: Path) -> list[str]:
    """Versions that no link names, and work that nobody does."""
    left = [str(path) for path in root.glob("*/.work/*/*")]
    for home in (path for path in root.iterdir() if (path / ".versions").is_dir()):
        linked = {path.resolve().name for path in home.iterdir() if path.is_symlink()}
        left += [str(path) for path in (home / ".versions").iterdir() if path.name not in linked]
    return left


def undisturbed(manifest: Path, root: Path) -> tuple[dict[str, bytes], float]:
    """Runs the batch once; its bytes, and how long it took."""
    started = time.monotonic()
    finish(manifest, root)
    return results(root), time.monotonic() - started


def workers_of(main: int) -> list[int]:
    """The processes that the run has started, and theirs: those that convert, and those that run models."""
    parents, shared = {}, from_shared_server(main)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == main or int(stat.parent.name) in shared:
                parents[int(stat.parent.name)] = int(fields[1])
    return sorted(pid for pid in parents if pid != main)


def kill_one(manifest: Path, root: Path, seconds: float, choice: random.Random, is_whole: bool) -> str:
    """Starts the batch and kills all of it, or one of its processes, after so many seconds.

    Returns:
        What was killed.

    Raises:
        AssertionError: a process of the run lives on after its end.
    """
    process = start(manifest, root)
    killed = "nothing"
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        workers = workers_of(process.pid)
        if is_whole or not workers:
            process.send_signal(signal.SIGKILL)
            killed = "the whole run"
        else:
            with suppress(ProcessLookupError):
                os.kill(choice.choice(workers), signal.SIGKILL)
            killed = "a worker"
        process.communicate(timeout=600)
    deadline = time.monotonic() + 20
    while left := processes_of_session(process.pid):
        assert time.monotonic() < deadline, f"orphans go on: {left}"
        time.sleep(0.05)
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="how often something is killed")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments")
    given = parser.parse_args()
    choice = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="batch-kills-") as name:
        folder = Path(name)
        manifest = make(folder)
        wanted, seconds = undisturbed(manifest, folder / "undisturbed")
        print(f"an undisturbed batch of {MODELS} models takes {seconds:.1f} s", flush=True)
        root = folder / "killed"
        for number in range(1, given.kills + 1):
            if choice.random() < 0.6 and root.exists():
                root.rename(folder / f"old-{number}")  # from nothing; else on top of what the kill before left
            moment = choice.uniform(0, seconds)
            killed = kill_one(manifest, root, moment, choice, is_whole=choice.random() < 0.5)
            finish(manifest, root)
            assert results(root) == wanted, f"other bytes after a kill at {moment:.2f} s"
            assert not leftovers(root), leftovers(root)
            print(f"{number} of {given.kills}: {killed} killed at {moment:.2f} s, same bytes", flush=True)
        print("every rerun ended with the bytes of the undisturbed batch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
