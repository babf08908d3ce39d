"""Runners with known costs, each in a module for the benchmark process: they sleep, allocate memory, fail."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.npz import save_arrays
from pipeline.formats.registry import FORMATS, Format
from pipeline.signature import Signature, TensorSpec

# Each takes itself for a runner: `run` answers with its input.
PLAIN = """
class Runner:
    def run(self, batch):
        return {"y": batch["x"]}

def open_runner(folder, signature, threads):
    return Runner()
"""
# 1.2 s to import, 0.6 s to open, 0.3 s for the first answer, 20 ms for any other.
SLOW = """
import time
time.sleep(1.2)

class Runner:
    is_first = True

    def run(self, batch):
        time.sleep(0.3 if self.is_first else 0.02)
        self.is_first = False
        return {"y": batch["x"]}

def open_runner(folder, signature, threads):
    time.sleep(0.6)
    return Runner()
"""
# Takes 200 MB for the moment that it takes to open it.
LARGE = PLAIN.replace("    return Runner()", "    bytearray(b'x') * 200_000_000\n    return Runner()")


def artifact(folder: Path, batch: int | None = None) -> Path:
    """Writes an artifact that has only a signature, with one input `x`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = TensorSpec("x", "float32", [batch, 2])
    Signature([spec], [TensorSpec("y", "float32", [batch, 2])]).write(folder / "signature.json")
    return folder


def checkpoint(folder: Path, rows: int = 100, batch: int | None = None) -> Path:
    """Writes a checkpoint's artifact with validation rows whose values are their indices."""
    x = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 2, axis=1)
    save_arrays(artifact(folder, batch) / "validation.npz", {"input/x": x, "labels": np.zeros(rows, np.int64)})
    return folder


def register(folder: Path, patch: pytest.MonkeyPatch, is_bare: bool = True, **sources: str) -> None:
    """Registers formats with runners from source texts, which need no TensorFlow unless `is_bare` is False."""
    for format, source in sources.items():
        (folder / f"measured_{format}.py").write_text(textwrap.dedent(source))
        patch.setitem(FORMATS, format, Format(f"measured_{format}:open_runner", is_bare=is_bare))
    patch.syspath_prepend(folder)
