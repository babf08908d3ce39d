"""Runners: opened artifacts that compute outputs for batches of rows, in this process or in a subprocess."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import PipelineError, RunnerError, StageCrashed
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of, read_origin
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.child import Child, Limits
from pipeline.workers.worker import UNEXPECTED

from .registry import FORMATS

if TYPE_CHECKING:
    from pipeline.data.npz import NpzReader

NOT_RESTORED = "the model could not run the batch: a variable or a table has no value"


@dataclass(frozen=True)
class RowRange:
    """A range of rows in a file, which the runner's process reads itself.

    Args:
        start, stop: index of the first row, and of the row after the last.
    """

    rows: NpzReader
    start: int
    stop: int


class RowBytesQuestion:
    """Asks a runner's process for the bytes of one row in its largest node."""


@dataclass(frozen=True)
class RepeatedBatch:
    """Asks a runner's process for the same batch again and again."""

    batch: Batch
    calls: int


def fixed_batch_size(candidates: Mapping[str, Path]) -> int | None:
    """Returns the fixed batch size of a third-party candidate; None if there is none, or its batch size is open.

    Args:
        candidates: the artifact's folder by format.
    """
    for path in (folder / SIGNATURE_FILE for folder in candidates.values()):
        size = batch_size_of(Signature.read(path)) if "candidate" in read_origin(path) else None
        if size is not None:
            return size
    return None


class Runner(Protocol):
    """An opened artifact of one format."""

    def run(self, batch: Batch) -> dict[str, Array]:
        """Computes the outputs for a batch.

        Args:
            batch: an array `[rows, ...]` by input name; strings as `object` arrays of `bytes`.

        Returns:
            An array by output name.

        Raises:
            RunnerError: the artifact failed on this batch.
        """
        ...


def check_batch(signature: Signature, batch: Batch) -> None:
    """Checks a batch against the signature, because libraries would convert dtypes silently.

    Raises:
        RunnerError: an input is missing, has another dtype, or is not in the signature.
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


def find_tensor(spec: TensorSpec, dtypes: Mapping[str, str]) -> str:
    """Finds a model's tensor for an input or output of the signature.

    Args:
        dtypes: the model's tensors: dtype by name.

    Raises:
        RunnerError: there is none, or it has another dtype.
    """
    name = next((name for name in (spec.tensor_name, spec.name) if name in dtypes), None)
    if name is None:
        raise RunnerError("the model lacks a tensor of the signature", where=spec.name, got=", ".join(dtypes))
    if dtypes[name] != spec.dtype:
        got = dtypes[name]
        raise RunnerError("a tensor is not of the signature's dtype", where=spec.name, got=got, wanted=spec.dtype)
    return name


class SubprocessRunner(AbstractContextManager["SubprocessRunner"]):
    """Runs an artifact in a subprocess, which needs only the artifact's folder and not the model's code.

    Args:
        format: a key of `FORMATS`.
        folder: the artifact; its `signature.json` has the inputs and outputs.
        limits: limits of the subprocess.
        is_unoptimized: switches TensorFlow's optimizer off, if the format uses it.

    Attributes:
        folder: the artifact.
        has_ended: True if the process has ended, or could not open the artifact.
        has_opened: True if the process has opened the artifact, and answered.
        last_error: the last error that `answer` raised.
    """

    def __init__(
        self, format: str, folder: Path, threads: int, limits: Limits | None = None, is_unoptimized: bool = False
    ) -> None:
        self.format, self.folder, self.has_ended, self.has_opened = format, folder, False, False
        self.last_error: PipelineError | None = None
        self._pending = 0
        self._arguments = (folder, threads, limits)
        self._options = {"is_unoptimized": True} if is_unoptimized and FORMATS[format].is_optimized else {}
        self._child = self._start()

    def _start(self) -> Child:
        folder, threads, limits = self._arguments
        entry = FORMATS[self.format]
        return Child(
            "pipeline.formats.runner_process:serve",
            *(entry.opener, folder.absolute(), threads, self._options),
            talks=True,
            is_sandboxed=True,
            limits=limits,
            is_bare=entry.is_bare,
            is_reusable=True,
        )

    def restart(self) -> None:
        """Starts the process again, after it has ended."""
        self.close()
        self.has_ended, self.last_error, self._pending = False, None, 0
        self._child = self._start()

    def ask(self, batch: Batch | RowRange) -> None:
        """Sends a batch, or a range of rows, without waiting; `answer` waits for its outputs.

        So two runners can work at the same time. Only one batch may be pending, because otherwise both sides could wait
        for the other to read; row ranges are small, so several may be pending.
        """
        self._child.send(batch if isinstance(batch, RowRange) else dict(batch))
        self._pending += 1

    def answer(self) -> dict[str, Array]:
        """Waits for the outputs of the oldest pending batch.

        Raises:
            RunnerError: the artifact failed on the batch; the runner can still be used.
            StageCrashed: its process ended, or exceeded a limit.
        """
        outputs: dict[str, Array] = self._receive()
        return outputs

    def _receive(self) -> Any:
        self._pending -= 1
        try:
            reply = self._child.receive()
        except PipelineError as exc:
            self.has_ended, self.last_error = True, exc
            raise
        self.has_opened = True
        if isinstance(reply, PipelineError):
            self.last_error = reply
            raise reply
        return reply

    def discard_pending(self) -> None:
        """Receives and drops all pending outputs, so that they are not mistaken for those of a later batch.

        The error that was raised stays the last one: who caught it asks whose it is.
        """
        raised = self.last_error
        while self._pending and not self.has_ended:
            with suppress(PipelineError):
                self.answer()
        self.last_error = raised or self.last_error

    def refuses_rows(self, error: PipelineError) -> bool:
        """Returns True if an error is this artifact's answer to the rows, and not one of opening or restoring it."""
        has_ended = isinstance(error, StageCrashed) and error.what != UNEXPECTED
        return error is self.last_error and (self.has_opened or has_ended) and error.what != NOT_RESTORED

    def unoptimized(self) -> SubprocessRunner:
        """Opens another runner of the same artifact, with TensorFlow's optimizer off."""
        folder, threads, limits = self._arguments
        return SubprocessRunner(self.format, folder, threads, limits, is_unoptimized=True)

    def run(self, batch: Batch | RowRange) -> dict[str, Array]:
        """Computes the outputs for a batch; see `Runner.run`."""
        self.ask(batch)
        return self.answer()

    def run_repeatedly(self, batch: Batch, calls: int) -> dict[int, dict[str, Array]]:
        """Runs a batch a number of times, one after the other.

        Returns:
            By the number of the call, from 1 on, the answers that are not the same to the bit as any before (the first
            few), and the last.

        Raises: as `answer`.
        """
        self._child.send(RepeatedBatch(dict(batch), calls))
        self._pending += 1
        found: dict[int, dict[str, Array]] = self._receive()
        return found

    def inner_row_bytes(self) -> int:
        """Asks for the bytes of one row in the largest node, inputs and outputs together; 0 if that is not known.

        Raises: as `answer`.
        """
        self._child.send(RowBytesQuestion())
        self._pending += 1
        return int(self.answer()["bytes"])

    def close(self) -> None:
        """Ends the process."""
        self._child.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()
