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
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pipeline.errors import FreezeError, PipelineError, RunnerError, StageCrashed
from pipeline.workers.child import Child, Limits, run_apart

if TYPE_CHECKING:
    import numpy as np  # tasks know the table below, and Luigi loads them at every start

    from pipeline.rowfile import RowFile
    from pipeline.signature import Signature

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
    is_apart: bool = False
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
        if not self.is_apart:
            return call(self.maker, origin, folder, settings)
        try:
            return dict(
                run_apart(
                    "pipeline.formats.registry:call",
                    *(self.maker, origin.absolute(), folder.absolute(), settings),
                    is_confined=True,
                )
            )
        except StageCrashed as exc:
            if exc.got in _FATAL:
                raise FreezeError("its converter crashed over this model", where=self.maker, got=exc.got) from exc
            raise


_REFUSAL = "refusal.json"
# How a library's own check of its insides ends a process. A kernel that lacks memory does it by SIGKILL.
_FATAL = ("SIGABRT", "SIGSEGV")
_SAVED = ("model.ckpt*", "saved_model/*", "signature.json")  # what freezing reads of a checkpoint's artifact
_FROZEN = ("model.pb", "signature.json")
_TFLITE = Format(
    "pipeline.formats.tflite:open_runner",
    "pipeline.formats.tflite:make_tflite",
    origin="frozen",
    reads=_FROZEN,
    is_apart=True,
    opened="model.tflite",
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
    is_apart=True,
    opened="model.onnx",
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
        opened="model.pb",
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
        is_apart=True,
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
    (folder / _REFUSAL).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def refusal_of(folder: Path) -> str | None:
    """Why an artifact holds no model in its format, as a sentence; None if it holds one.

    Args:
        folder: the artifact of a format's stage.
    """
    path = folder / _REFUSAL
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.is_file() else None


@dataclass(frozen=True)
class Wanted:
    """Rows of a file, which the runner's process reads for itself.

    Args:
        start, stop: the numbers of the first row, and of the one after the last.
    """

    rows: RowFile
    start: int
    stop: int


def fixed_batch(candidates: Mapping[str, Path]) -> int | None:
    """The number of rows that a candidate takes at once which the pipeline did not make, where that is fixed.

    Args:
        candidates: the artifact's folder by format.
    """
    from pipeline.data.generated import batch_size_of  # which needs NumPy, and tasks do not
    from pipeline.signature import Signature

    for path in (place / "signature.json" for place in candidates.values()):
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        size = batch_size_of(Signature.from_dict(told)) if "candidate" in told.get("origin", {}) else None
        if size is not None:
            return size
    return None


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


def checked_batch(signature: Signature, batch: Batch) -> Batch:
    """The batch, if it is one of the signature's inputs: libraries would convert dtypes without a word.

    Raises:
        RunnerError: an input is missing, is not of its dtype, or is none of the signature's.
    """
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    missing = sorted(set(dtypes) - set(batch))
    if missing:
        raise RunnerError("a batch lacks an input", got=sorted(batch), wanted=", ".join(missing))
    extra = sorted(set(batch) - set(dtypes))
    if extra:
        raise RunnerError("a batch has inputs that the signature lacks", got=", ".join(extra))
    for name, dtype in dtypes.items():
        got = "string" if batch[name].dtype.kind in "OSU" else batch[name].dtype.name
        if got != dtype:
            raise RunnerError("an input is not of the signature's dtype", where=name, got=got, wanted=dtype)
    return batch


class ApartRunner:
    """A runner in a process of its own, which knows the artifact's folder and nothing of the model's code.

    Args:
        format: a key of `FORMATS`.
        folder: the artifact; its `signature.json` says what is fed and fetched.
        limits: what its process may take.
        is_plain: TensorFlow's optimizer is off, where the format has it.

    Attributes:
        has_ended: whether its process is gone, or could not open the artifact.
        last_error: the last one that `answer` raised.
    """

    def __init__(
        self, format: str, folder: Path, threads: int, limits: Limits | None = None, is_plain: bool = False
    ) -> None:
        self.format, self.has_ended = format, False
        self.last_error: PipelineError | None = None
        self._unanswered = 0
        self._how = (folder, threads, limits)
        line = FORMATS[format]
        how = {"is_plain": True} if is_plain and line.is_optimized else {}
        self._child = Child(
            "pipeline.formats.runner_process:serve",
            *(line.opener, folder.absolute(), threads, how),
            talks=True,
            is_confined=True,
            limits=limits,
            is_bare=line.is_bare,
            is_reusable=True,
        )

    def ask(self, batch: Batch | Wanted) -> None:
        """Sends a batch, or which rows of a file it is; `answer` waits for what it gives.

        So two runners can work at the same time. Of batches only one may be on its way, for both sides might wait for
        the other to read; of wanted rows several may.
        """
        self._child.send(batch if isinstance(batch, Wanted) else dict(batch))
        self._unanswered += 1

    def answer(self) -> dict[str, Array]:
        """The outputs of the oldest batch that was asked.

        Raises:
            RunnerError: the artifact could not answer; the runner lives on.
            StageCrashed: its process ended, or passed a limit.
        """
        self._unanswered -= 1
        try:
            outputs: dict[str, Array] | PipelineError = self._child.receive()
        except PipelineError as exc:
            self.has_ended, self.last_error = True, exc
            raise
        if isinstance(outputs, PipelineError):
            self.last_error = outputs
            raise outputs
        return outputs

    def forget(self) -> None:
        """Waits for answers that nobody will take, so that nobody takes them for those to a later question."""
        while self._unanswered and not self.has_ended:
            with suppress(PipelineError):
                self.answer()

    def plain(self) -> ApartRunner:
        """Another runner of the same artifact, with TensorFlow's optimizer off."""
        folder, threads, limits = self._how
        return ApartRunner(self.format, folder, threads, limits, is_plain=True)

    def run(self, batch: Batch | Wanted) -> dict[str, Array]:
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
