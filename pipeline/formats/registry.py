"""Registry of the model formats; each format is one module.

A format's module has one function that opens an artifact, and in most cases one that makes it:

    open_runner(folder: Path, signature: Signature, threads: int) -> Runner     # see also Format.is_optimized
    make_…(origin: Path, folder: Path, **settings) -> notes for the manifest

A new format is one file and one entry in `FORMATS`: the chain then makes, validates and reports it.
If a format cannot express a model, its artifact has the reason instead of a model.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import FreezeError, StageCrashed
from pipeline.store import file_names


@dataclass(frozen=True)
class Format:
    """One entry of the registry.

    Args:
        opener: `package.module:function` that opens an artifact as a runner.
        maker: `package.module:function` that fills an artifact's folder; None if no stage makes the format.
        origin: the stage whose artifact it is made from.
        reads: patterns of the files that the maker reads there.
        sections: the sections of tasks.cfg whose keys the maker takes.
        needs_subprocess: True if the maker needs TensorFlow, and so runs in a subprocess.
        model_file: the file to open, as the summary of a run shows it; empty for the whole folder.
        extras: distributions that it needs in addition to TensorFlow's.
        tolerance_class: name of the tolerances for its float outputs, such as `half`; empty for those of their dtype.
        is_optimized: True if TensorFlow's optimizer changes the graph before it runs; the opener then takes
            `is_unoptimized=True` to switch the optimizer off.
        is_bare: True if its runner does not need TensorFlow, and so runs in a process without it.
        edge_cases: `finite` if its kernels are not TensorFlow's, so that its outputs for NaN, infinities and overflow
            may differ.
    """

    opener: str
    maker: str | None = None
    origin: str = "checkpoint"
    reads: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    needs_subprocess: bool = False
    model_file: str = ""
    extras: tuple[str, ...] = ()
    tolerance_class: str = ""
    is_optimized: bool = False
    is_bare: bool = False
    edge_cases: str = ""

    @property
    def family(self) -> str:
        """Name of its module, and of the extra that installs its libraries."""
        return self.opener.partition(":")[0].rpartition(".")[2]

    def make(self, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Makes the format in a folder.

        Args:
            origin: the artifact that it is made from.
            settings: the keys of `sections`, with their values.

        Returns:
            Notes for the manifest.

        Raises:
            FreezeError: this model cannot be made in the format.
            PipelineError: making it failed for another reason.
        """
        assert self.maker is not None  # formats without a maker have no stage
        if not self.needs_subprocess:
            return call(self.maker, origin, folder, settings)
        from pipeline.workers.child import run_in_subprocess  # not needed in a run in which everything is complete

        try:
            return dict(
                run_in_subprocess(
                    "pipeline.formats.registry:call",
                    *(self.maker, origin.absolute(), folder.absolute(), settings),
                    is_sandboxed=True,
                )
            )
        except StageCrashed as exc:
            if exc.got in _FATAL:
                raise FreezeError("its converter crashed over this model", where=self.maker, got=exc.got) from exc
            raise


# Signals of a failed assertion inside a library. (The kernel sends SIGKILL if memory runs out.)
_FATAL = ("SIGABRT", "SIGSEGV")
# The files of a checkpoint's artifact that freezing reads.
_SAVED = (f"{file_names.CHECKPOINT_PREFIX}*", f"{file_names.SAVED_MODEL_FOLDER}/*", file_names.SIGNATURE_FILE)
_FROZEN = (file_names.FROZEN_FILE, file_names.SIGNATURE_FILE)
_TFLITE = Format(
    "pipeline.formats.tflite:open_runner",
    "pipeline.formats.tflite:make_tflite",
    origin="frozen",
    reads=_FROZEN,
    needs_subprocess=True,
    model_file=file_names.TFLITE_FILE,
    extras=("ai-edge-litert",),
    edge_cases="finite",
    tolerance_class="runtime",
    is_bare=True,
)
_ONNX = Format(
    "pipeline.formats.onnx:open_runner",
    "pipeline.formats.onnx:make_onnx",
    origin="frozen",
    reads=_FROZEN,
    needs_subprocess=True,
    model_file=file_names.ONNX_FILE,
    extras=("tf2onnx", "onnx", "onnxruntime"),
    edge_cases="finite",
    tolerance_class="runtime",
    is_bare=True,
)
FORMATS = {
    "checkpoint": Format("pipeline.formats.checkpoint:open_runner", is_optimized=True),
    "frozen": Format(
        "pipeline.formats.frozen:open_runner",
        "pipeline.freezing.freeze:freeze_checkpoint",
        reads=_SAVED,
        sections=("freezing",),
        model_file=file_names.FROZEN_FILE,
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
    "tflite_float16": replace(_TFLITE, maker="pipeline.formats.tflite:make_tflite_float16", tolerance_class="half"),
    "tflite_int8": replace(_TFLITE, maker="pipeline.formats.tflite:make_tflite_int8", tolerance_class="int8"),
    "onnx": _ONNX,
    "onnx_float16": replace(_ONNX, maker="pipeline.formats.onnx:make_onnx_float16", tolerance_class="half"),
    "onnx_int8": replace(_ONNX, maker="pipeline.formats.onnx:make_onnx_int8", tolerance_class="int8"),
}
CANDIDATES = tuple(name for name, format in FORMATS.items() if format.maker is not None)


def call(maker: str, origin: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Calls the maker of a format by its name; see `Format.make`."""
    module, _, name = maker.partition(":")
    notes: Mapping[str, Any] = getattr(importlib.import_module(module), name)(origin, folder, **settings)
    return notes


def refuse(format: str, reason: str, folder: Path) -> None:
    """Writes to an artifact's folder the reason why the format cannot be made, instead of a model."""
    content = {"format": format, "reason": reason}
    (folder / file_names.REFUSAL_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_refusal(folder: Path) -> str | None:
    """Reads the reason why an artifact has no model, as a sentence; None if it has one.

    Args:
        folder: the artifact of a format's stage.
    """
    path = folder / file_names.REFUSAL_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.is_file() else None
