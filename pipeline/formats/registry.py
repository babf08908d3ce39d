"""The formats that a model is made in and opened in, each by one module.

A format's module has one function that opens an artifact, and one that makes it where nothing else does:

    open_runner(folder: Path, signature: Signature, threads: int) -> Runner     # and is_plain, see Format.is_optimized
    make_…(origin: Path, folder: Path, **settings) -> notes for the manifest

A new format is one file and one line in `FORMATS`: from that the chain has its stage, its validation and its report.
A format that cannot carry a model has an artifact all the same, which holds the reason and nothing to open.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import FreezeError, StageCrashed
from pipeline.store.files import (
    CHECKPOINT_PREFIX,
    FROZEN_FILE,
    ONNX_FILE,
    REFUSAL_FILE,
    SAVED_MODEL_FOLDER,
    SIGNATURE_FILE,
    TFLITE_FILE,
)
from pipeline.workers.child import run_in_subprocess


@dataclass(frozen=True)
class Format:
    """A line of the table.

    Args:
        opener: `package.module:function` that opens an artifact as a runner.
        maker: `package.module:function` that fills an artifact's folder; None for what no stage of its own makes.
        origin: the stage whose artifact it is made from.
        reads: patterns of the files that it reads there.
        sections: the sections of tasks.cfg whose keys the maker takes.
        needs_subprocess: whether the maker needs TensorFlow, and so a process of its own.
        opened: the file that is opened, as a run tells it at its end; empty for the whole folder.
        extras: distributions that it needs besides TensorFlow's.
        bounds: whose bounds its floats are held to, such as `half`; empty for those of their dtype.
        is_optimized: whether TensorFlow's optimizer changes its graph before it is run; then its opener takes
            `is_plain=True`, which switches that off.
        is_bare: whether its runner does without TensorFlow, and so gets a process that has not loaded it.
        edges: `finite` where other kernels than TensorFlow's compute it, so that rows of NaN, infinities and what
            overflows may be answered otherwise.
    """

    opener: str
    maker: str | None = None
    origin: str = "checkpoint"
    reads: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    needs_subprocess: bool = False
    opened: str = ""
    extras: tuple[str, ...] = ()
    bounds: str = ""
    is_optimized: bool = False
    is_bare: bool = False
    edges: str = ""

    @property
    def family(self) -> str:
        """The module that it belongs to; what is to be installed for it is an extra of that name."""
        return self.opener.partition(":")[0].rpartition(".")[2]

    def make(self, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fills a folder.

        Args:
            origin: the artifact that it is made from.
            settings: the keys of `sections`, with their values.

        Returns:
            Notes for the manifest.

        Raises:
            FreezeError: it cannot be made of this.
            PipelineError: it could not be made now.
        """
        assert self.maker is not None  # others are no stage
        if not self.needs_subprocess:
            return call(self.maker, origin, folder, settings)
        try:
            return dict(
                run_in_subprocess(
                    "pipeline.formats.registry:call",
                    *(self.maker, origin.absolute(), folder.absolute(), settings),
                    is_confined=True,
                )
            )
        except StageCrashed as exc:
            if exc.got in _FATAL:
                raise FreezeError("its converter crashed over this model", where=self.maker, got=exc.got) from exc
            raise


# How a library's own check of its insides ends a process. A kernel that lacks memory does it by SIGKILL.
_FATAL = ("SIGABRT", "SIGSEGV")
_SAVED = (
    f"{CHECKPOINT_PREFIX}*",
    f"{SAVED_MODEL_FOLDER}/*",
    SIGNATURE_FILE,
)  # what freezing reads of a checkpoint's artifact
_FROZEN = (FROZEN_FILE, SIGNATURE_FILE)
_TFLITE = Format(
    "pipeline.formats.tflite:open_runner",
    "pipeline.formats.tflite:make_tflite",
    origin="frozen",
    reads=_FROZEN,
    needs_subprocess=True,
    opened=TFLITE_FILE,
    extras=("ai-edge-litert",),
    edges="finite",
    bounds="runtime",
    is_bare=True,
)
_ONNX = Format(
    "pipeline.formats.onnx:open_runner",
    "pipeline.formats.onnx:make_onnx",
    origin="frozen",
    reads=_FROZEN,
    needs_subprocess=True,
    opened=ONNX_FILE,
    extras=("tf2onnx", "onnx", "onnxruntime"),
    edges="finite",
    bounds="runtime",
    is_bare=True,
)
FORMATS = {
    "checkpoint": Format("pipeline.formats.checkpoint:open_runner", is_optimized=True),
    "frozen": Format(
        "pipeline.formats.frozen:open_runner",
        "pipeline.freezing.freeze:freeze_checkpoint",
        reads=_SAVED,
        sections=("freezing",),
        opened=FROZEN_FILE,
        is_optimized=True,
    ),
    "mmap": Format(
        "pipeline.formats.mmap:open_runner",
        "pipeline.freezing.freeze:map_checkpoint",
        reads=_SAVED,
        sections=("freezing",),
        is_optimized=True,
    ),
    "savedmodel": Format(
        "pipeline.formats.savedmodel:open_runner",
        "pipeline.formats.savedmodel:make_saved_model",
        origin="frozen",
        reads=_FROZEN,
        needs_subprocess=True,
        is_optimized=True,
    ),
    "tflite": _TFLITE,
    "tflite_float16": replace(_TFLITE, maker="pipeline.formats.tflite:make_tflite_float16", bounds="half"),
    "tflite_int8": replace(_TFLITE, maker="pipeline.formats.tflite:make_tflite_int8", bounds="int8"),
    "onnx": _ONNX,
    "onnx_float16": replace(_ONNX, maker="pipeline.formats.onnx:make_onnx_float16", bounds="half"),
    "onnx_int8": replace(_ONNX, maker="pipeline.formats.onnx:make_onnx_int8", bounds="int8"),
}
CANDIDATES = tuple(name for name, format in FORMATS.items() if format.maker is not None)


def call(maker: str, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Calls the maker of a format by its name; see `Format.make`."""
    module, _, name = maker.partition(":")
    notes: Mapping[str, Any] = getattr(importlib.import_module(module), name)(origin, folder, **settings)
    return notes


def refuse(format: str, reason: str, folder: Path) -> None:
    """Leaves in an artifact's folder, in the place of the format, why it cannot be made."""
    told = {"format": format, "reason": reason}
    (folder / REFUSAL_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def refusal_of(folder: Path) -> str | None:
    """Why an artifact holds no model in its format, as a sentence; None if it holds one.

    Args:
        folder: the artifact of a format's stage.
    """
    path = folder / REFUSAL_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.is_file() else None
