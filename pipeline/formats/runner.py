"""Runner: an opened artifact that answers batches of rows, in this process or in one of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import PipelineError, RunnerError
from pipeline.signature import Array, Batch
from pipeline.store.files import SIGNATURE_FILE
from pipeline.workers.child import Child, Limits

from .registry import FORMATS

if TYPE_CHECKING:
    from pipeline.data.npz import NpzReader
    from pipeline.signature import Signature


@dataclass(frozen=True)
class RowRange:
    """Rows of a file, which the runner's process reads for itself.

    Args:
        start, stop: the numbers of the first row, and of the one after the last.
    """

    rows: NpzReader
    start: int
    stop: int


def fixed_batch(candidates: Mapping[str, Path]) -> int | None:
    """The number of rows that a candidate takes at once which the pipeline did not make, where that is fixed.

    Args:
        candidates: the artifact's folder by format.
    """
    from pipeline.signature import Signature, batch_size_of

    for path in (place / SIGNATURE_FILE for place in candidates.values()):
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


class SubprocessRunner:
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

    def ask(self, batch: Batch | RowRange) -> None:
        """Sends a batch, or which rows of a file it is; `answer` waits for what it gives.

        So two runners can work at the same time. Of batches only one may be on its way, for both sides might wait for
        the other to read; of wanted rows several may.
        """
        self._child.send(batch if isinstance(batch, RowRange) else dict(batch))
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

    def plain(self) -> SubprocessRunner:
        """Another runner of the same artifact, with TensorFlow's optimizer off."""
        folder, threads, limits = self._how
        return SubprocessRunner(self.format, folder, threads, limits, is_plain=True)

    def run(self, batch: Batch | RowRange) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        self.ask(batch)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self._child.close()

    def __enter__(self) -> SubprocessRunner:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
