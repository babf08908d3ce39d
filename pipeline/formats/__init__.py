"""The formats that an artifact can be opened in, each by one module.

A format's module has one function:

    open_runner(folder: Path, signature: Signature, threads: int) -> Runner

A new format is one file and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import PipelineError, RunnerError
from ..process import Child

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]

FORMATS = {
    "checkpoint": "pipeline.formats.checkpoint:open_runner",
    "frozen": "pipeline.formats.frozen:open_runner",
}


class Runner(Protocol):
    """An opened artifact of one format."""

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch.

        Args:
            batch: by input name an array `[rows, ...]`; strings as `object` arrays of `bytes`.

        Returns:
            By output name an array.

        Raises:
            RunnerError: the artifact could not answer.
        """
        ...


class ApartRunner:
    """A runner in a process of its own, which knows the artifact's folder and nothing of the model's code.

    Args:
        format: a key of `FORMATS`.
        folder: the artifact; its `signature.json` says what is fed and fetched.
    """

    def __init__(self, format: str, folder: Path, threads: int) -> None:
        self.format = format
        self._child = Child("pipeline.formats.serving:serve", FORMATS[format], folder, threads, talks=True)

    def ask(self, batch: Batch) -> None:
        """Sends a batch; `answer` waits for what it gives. So two runners can work at the same time."""
        self._child.send(dict(batch))

    def answer(self) -> dict[str, Array]:
        """The outputs of the batch that was asked last.

        Raises:
            RunnerError: the artifact could not answer; the runner lives on.
            StageCrashed: its process ended.
        """
        outputs: dict[str, Array] | PipelineError = self._child.receive()
        if isinstance(outputs, RunnerError):
            raise outputs
        assert isinstance(outputs, dict)  # nothing else is sent by `serve`
        return outputs

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        self.ask(batch)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self._child.close()

    def __enter__(self) -> ApartRunner:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
