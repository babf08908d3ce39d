"""The formats that a model is made in and opened in, each by one module.

A format's module has one function that opens an artifact, and one that makes it where nothing else does:

    open_runner(folder: Path, signature: Signature, threads: int) -> Runner
    make_…(origin: Path, folder: Path, **settings) -> notes for the manifest

A new format is one file and one line in `FORMATS`: from that the chain has its stage, its validation and its report.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import PipelineError, RunnerError
from ..process import Child, run_apart

if TYPE_CHECKING:
    import numpy as np  # tasks know the table below, and Luigi loads them at every start

Array: TypeAlias = "np.ndarray[Any, Any]"
Batch: TypeAlias = "Mapping[str, Array]"


@dataclass(frozen=True)
class Format:
    """A line of the table.

    Args:
        opener: `package.module:function` that opens an artifact as a runner.
        maker: `package.module:function` that fills an artifact's folder; None for what no stage of its own makes.
        origin: the stage whose artifact it is made from.
        reads: patterns of the files that it reads there.
        sections: the sections of tasks.cfg whose keys the maker takes.
        is_apart: whether the maker needs TensorFlow, and so a process of its own.
        opened: the file that is opened, as a run tells it at its end; empty for the whole folder.
        extras: distributions that it needs besides TensorFlow's.
        bounds: whose bounds its floats are held to, such as `float16`; empty for those of their dtype.
    """

    opener: str
    maker: str | None = None
    origin: str = "checkpoint"
    reads: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    is_apart: bool = False
    opened: str = ""
    extras: tuple[str, ...] = ()
    bounds: str = ""

    def make(self, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fills a folder.

        Args:
            origin: the artifact that it is made from.
            settings: the keys of `sections`, with their values.

        Returns:
            Notes for the manifest.

        Raises:
            PipelineError: it cannot be made of this.
        """
        assert self.maker is not None  # others are no stage
        if self.is_apart:
            return dict(run_apart("pipeline.formats:call", self.maker, origin, folder, settings))
        return call(self.maker, origin, folder, settings)


_SAVED = ("model.ckpt*", "saved_model/*", "signature.json")  # what freezing reads of a checkpoint's artifact
FORMATS = {
    "checkpoint": Format("pipeline.formats.checkpoint:open_runner"),
    "frozen": Format(
        "pipeline.formats.frozen:open_runner",
        "pipeline.freezing:freeze_checkpoint",
        reads=_SAVED,
        sections=("freezing",),
        opened="model.pb",
    ),
    "mmap": Format(
        "pipeline.formats.mmap:open_runner", "pipeline.freezing:map_checkpoint", reads=_SAVED, sections=("freezing",)
    ),
    "savedmodel": Format(
        "pipeline.formats.savedmodel:open_runner",
        "pipeline.formats.savedmodel:make_saved_model",
        origin="frozen",
        reads=("model.pb", "signature.json"),
        is_apart=True,
    ),
}
CANDIDATES = tuple(name for name, format in FORMATS.items() if format.maker is not None)


def call(maker: str, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Calls the maker of a format by its name; see `Format.make`."""
    module, _, name = maker.partition(":")
    notes: Mapping[str, Any] = getattr(importlib.import_module(module), name)(origin, folder, **settings)
    return notes


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
        self._child = Child("pipeline.formats.serving:serve", FORMATS[format].opener, folder, threads, talks=True)

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
