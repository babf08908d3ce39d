"""Runs an artifact in a new process with oneDNN's kernels on or off.

TensorFlow reads the switch once, when it is loaded, so a process that has loaded it cannot change it.
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
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.folders import run_folder
from pipeline.workers.sandbox import kept_environment

SWITCH = "TF_ENABLE_ONEDNN_OPTS"
_SECONDS = 600


def is_on() -> bool:
    """Returns True if oneDNN's kernels are on in this validation's processes."""
    return os.environ.get(SWITCH, "0") != "0"


def run_with(is_on: bool, opener: str, folder: Path, batch: Mapping[str, Array], threads: int) -> dict[str, Array]:
    """Runs a batch with oneDNN's kernels on or off.

    Args:
        opener: `package.module:open_runner` of its format.
        batch: by input name an array `[rows, ...]`.

    Raises:
        RunnerError: the process ended without an answer.
    """
    project = str(Path(__file__).resolve().parents[3])
    environment = {SWITCH: str(int(is_on)), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": project}
    home = run_folder()
    with tempfile.TemporaryDirectory(dir=home) as files, tempfile.TemporaryDirectory(dir=home) as empty:
        inputs_path, outputs_path = Path(files) / "given.npz", Path(files) / "answered.npz"
        save_arrays(inputs_path, batch)
        arguments = (opener, folder.absolute(), threads, inputs_path, outputs_path)
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__, *map(str, arguments)],
                env={**kept_environment(os.environ), **environment, "HOME": empty},
                cwd=empty,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise RunnerError("a process did not answer in time", where=folder, got=f"{_SECONDS} s") from exc
        if done.returncode or not outputs_path.is_file():
            got = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            raise RunnerError("a fresh process could not answer", where=folder, got=got)
        return load_arrays(outputs_path)


def _serve(opener: str, folder: Path, threads: int, inputs_path: Path, outputs_path: Path) -> None:
    """Runs the batch in the new process."""
    import importlib

    from pipeline.signature import Signature
    from pipeline.workers.worker import die_with_parent

    die_with_parent()
    module, _, name = opener.partition(":")
    runner = getattr(importlib.import_module(module), name)(folder, Signature.read(folder / SIGNATURE_FILE), threads)
    save_arrays(outputs_path, runner.run(load_arrays(inputs_path)))


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
