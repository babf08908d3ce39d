"""Saves and restores the checkpoints of a training, which may be interrupted at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.checkpoint.files import complete_prefixes, name_of, step_of
from pipeline.checkpoint.values import find_checkpoint
from pipeline.errors import CheckpointError, logger
from pipeline.settings import TrainingSettings
from pipeline.store.file_names import CHECKPOINT_PREFIX


class Checkpoints:
    """The checkpoints of a training: which are complete, when the next is due, how many are kept.

    Args:
        variables: the variables to save, by name; None for all of the current graph. Variables of no graph (eager ones)
            are saved and restored without a session.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, variables: Mapping[str, tf.Variable] | None = None
    ) -> None:
        self._folder, self._settings = folder, settings
        self._saver = v1.train.Saver(
            variables,
            max_to_keep=settings.keep or None,
            keep_checkpoint_every_n_hours=settings.keep_every_hours or 1e9,
            save_relative_paths=True,
        )
        self._saved_at = time.monotonic()

    def restore(self, session: v1.Session | None) -> int:
        """Restores the newest intact checkpoint and removes the files of interrupted saves.

        Returns:
            Its step, 0 if there is none.
        """
        intact = [prefix for prefix in complete_prefixes(self._folder) if _is_intact(prefix)]
        intact.sort(key=step_of)
        newest = intact[-self._settings.keep :]
        if not self._settings.keep_every_hours:
            intact = newest  # an interrupted run may have left one too many
        older = intact[: -len(newest)]
        for path in self._folder.glob("*"):
            if path.name != "checkpoint" and not any(path.name.startswith(f"{name_of(prefix)}.") for prefix in intact):
                path.unlink()
        if not intact:
            return 0
        # A new Saver does not know the files of the previous one, and would never delete them.
        self._saver.set_last_checkpoints_with_time([(p, _saved_at(p)) for p in newest])
        if older:
            # It does not know the time of the last hourly checkpoint either; TensorFlow has no public API to set it.
            self._saver._next_checkpoint_time = _saved_at(older[-1]) + self._settings.keep_every_hours * 3600
        self._saver.restore(session, intact[-1])
        return step_of(intact[-1])

    def is_due(self, step: int) -> bool:
        """Returns True if a checkpoint is due after this step: by number, by time, or because it is the last."""
        every, minutes = self._settings.save_every_steps, self._settings.save_every_minutes
        by_time = bool(minutes) and time.monotonic() - self._saved_at >= minutes * 60
        return step == self._settings.steps or bool(every and step % every == 0) or by_time

    def save(self, session: v1.Session | None, step: int) -> None:
        """Saves the variables, with the step in the file name and without the graph (see `write_graph`)."""
        self._saver.save(session, str(self._folder / CHECKPOINT_PREFIX), global_step=step, write_meta_graph=False)
        self._saved_at = time.monotonic()

    def write_graph(self) -> None:
        """Writes the `.meta` file that all checkpoints of this training share."""
        self._saver.export_meta_graph(str(self._folder / f"{CHECKPOINT_PREFIX}.meta"))


def _saved_at(prefix: str) -> float:
    return Path(f"{prefix}.index").stat().st_mtime


def _is_intact(prefix: str) -> bool:
    try:
        find_checkpoint(prefix).verify()
    except CheckpointError as exc:
        logger.warning("skipping a damaged checkpoint: %s", exc)
        return False
    return True
