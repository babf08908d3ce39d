"""Asks an artifact in a fresh process in which oneDNN's kernels are what they are not here: on, or off.

TensorFlow reads the switch once, when it is loaded, so that no process that has it can change it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.data.npz import load_arrays, save_arrays
from pipeline.errors import RunnerError
from pipeline.signature import Array
from pipeline.store.files import SIGNATURE_FILE
from pipeline.workers.sandbox import kept_environment

SWITCH = "TF_ENABLE_ONEDNN_OPTS"
_SECONDS = 600


def is_on() -> bool:
    """Whether oneDNN's kernels are on in the processes that answer here."""
    return os.environ.get(SWITCH, "0") != "0"


def answers_with(is_on: bool, opener: str, folder: Path, batch: Mapping[str, Array], threads: int) -> dict[str, Array]:
    """What an artifact answers with oneDNN's kernels on or off.

    Args:
        opener: `package.module:open_runner` of its format.
        batch: by input name an array `[rows, ...]`.

    Raises:
        RunnerError: the process ended without an answer.
    """
    project = str(Path(__file__).resolve().parents[3])
    told = {SWITCH: str(int(is_on)), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": project}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as empty:
        given, answered = Path(place) / "given.npz", Path(place) / "answered.npz"
        save_arrays(given, batch)
        command = [
            sys.executable,
            "-m",
            __name__,
            opener,
            str(folder.absolute()),
            str(threads),
            str(given),
            str(answered),
        ]
        try:
            done = subprocess.run(
                command,
                env={**kept_environment(os.environ), **told, "HOME": empty},
                cwd=empty,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise RunnerError("a process did not answer in time", where=folder, got=f"{_SECONDS} s") from exc
        if done.returncode or not answered.is_file():
            got = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            raise RunnerError("a fresh process could not answer", where=folder, got=got)
        return load_arrays(answered)


def _answer(opener: str, folder: Path, threads: int, given: Path, answered: Path) -> None:
    """What the fresh process does."""
    import importlib

    from pipeline.signature import Signature
    from pipeline.workers.worker import die_with_parent

    die_with_parent()
    module, _, name = opener.partition(":")
    runner = getattr(importlib.import_module(module), name)(folder, Signature.read(folder / SIGNATURE_FILE), threads)
    save_arrays(answered, runner.run(load_arrays(given)))


if __name__ == "__main__":
    _answer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
