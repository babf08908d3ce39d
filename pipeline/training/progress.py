"""Training progress: saved for resuming, and shown as a progress bar, log lines and TensorBoard summaries."""

from __future__ import annotations

import math
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tensorflow.compat import v1
from tqdm import tqdm

from pipeline.data.npz import load_arrays, save_arrays
from pipeline.errors import ModelError, logger
from pipeline.store.file_names import HISTORY_FILE, LOSSES_FILE
from pipeline.workers.progress import tell


@dataclass(frozen=True)
class Progress:
    """Losses of a training so far.

    Args:
        losses: the loss of every step so far, `[step]`.
        history: one `(step, mean loss since the previous evaluation, validation loss)` per evaluation.
    """

    losses: list[float]
    history: list[tuple[int, float, float]]

    @property
    def step(self) -> int:
        """Number of steps done."""
        return len(self.losses)

    @property
    def best_step(self) -> int:
        """The first step with the lowest validation loss; NaN counts as the highest."""
        return min(self.history, key=lambda row: math.inf if math.isnan(row[2]) else row[2])[0]

    def add_evaluation(self, validation_loss: float) -> bool:
        """Records an evaluation; returns True if its step is the best so far."""
        since = self.history[-1][0] if self.history else 0
        self.history.append((self.step, float(np.mean(self.losses[since:])), validation_loss))
        return self.best_step == self.step

    def up_to(self, step: int) -> Progress:
        """The progress as it was at an earlier step."""
        return Progress(self.losses[:step], [row for row in self.history if row[0] <= step])

    def write(self, folder: Path) -> None:
        """Saves the progress in a training's folder; each file is replaced atomically."""
        write_history(folder / HISTORY_FILE, self.history)
        save_arrays(folder / "losses.tmp", {"losses": np.array(self.losses, np.float64)})
        (folder / "losses.tmp").replace(folder / LOSSES_FILE)

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Reads saved progress; empty if there is none."""
        if not (folder / LOSSES_FILE).exists():
            return cls([], [])
        history = pd.read_csv(folder / HISTORY_FILE)
        rows = [(int(step), float(loss), float(validation)) for step, loss, validation in history.to_numpy()]
        return cls(load_arrays(folder / LOSSES_FILE)["losses"].tolist(), rows)


def require_finite(loss: float, what: str, step: int) -> None:
    """Stops a training whose loss is NaN or infinite.

    Raises:
        ModelError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise ModelError(
            "the training diverged", where=f"step {step}", got=f"{what} {loss}", next_step="Lower the learning rate"
        )


def write_history(path: Path, rows: list[tuple[int, float, float]]) -> None:
    """Writes history.csv atomically."""
    unfinished = path.with_suffix(".tmp")
    pd.DataFrame(rows, columns=["step", "loss", "validation_loss"]).to_csv(unfinished, index=False)
    unfinished.replace(path)


class Reporter(AbstractContextManager["Reporter"]):
    """Reports progress: a bar in a terminal, log lines elsewhere; TensorBoard summaries, and to luigid, always."""

    def __init__(self, folder: Path, done: int, steps: int) -> None:
        self._steps, self._done, self._started = steps, done, time.monotonic()
        self._step, self._losses = done, ""
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=done, unit="step", desc="training", disable=not self._is_terminal)
        self._writer = v1.summary.FileWriter(str(folder), v1.get_default_graph())

    def advance(self) -> None:
        """Counts one step as done."""
        self._bar.update()
        self._step += 1
        tell(f"step {self._step} of {self._steps}{self._losses}", self._step / self._steps)

    def report_evaluation(self, step: int, loss: float, validation_loss: float) -> None:
        """Shows the losses of an evaluation."""
        values = {"loss": loss, "validation_loss": validation_loss}
        summary = v1.Summary(value=[v1.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_summary(summary, step)
        self._losses = f": loss {loss:.4f}, validation loss {validation_loss:.4f}"
        self._bar.set_postfix(loss=f"{loss:.4f}", validation=f"{validation_loss:.4f}")
        if not self._is_terminal:
            rate = (step - self._done) / max(time.monotonic() - self._started, 1e-9)
            left = (self._steps - step) / rate if rate else math.inf
            logger.info(
                "step %d of %d: loss %.4f, validation loss %.4f, %.0f steps/s, %.0f s left",
                *(step, self._steps, loss, validation_loss, rate, left),
            )

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()
        self._writer.close()
