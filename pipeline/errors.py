"""Everything that can go wrong, as one small tree.

    PipelineError                 anything the pipeline refuses or gives up on
    ├── SettingError              a parameter, a setting or a key of tasks.cfg is unknown or out of range
    ├── ModelError                a model cannot be found, imported, or does not keep its own signature
    ├── DataError                 a data file is missing, unreadable or not what its reader wants
    ├── CheckpointError           a checkpoint is missing, broken, or does not fit the graph
    ├── CandidateError            a file to compare is no model, or has not the checkpoint's inputs and outputs
    ├── FreezeError               this graph cannot become a right .pb
    ├── UnsafeModel               a stranger's model could do more than compute, or take more than there is
    ├── RunnerError               an opened artifact could not answer a batch
    ├── ValidationFailed          the candidate is not proven equal to its checkpoint
    ├── BatchFailed               some models of a batch did not pass
    ├── StoreError                an artifact cannot be written, or its folder is not ours
    │   └── DamagedArtifact       bytes on disk are not the bytes that were finished
    └── StageCrashed              the process that did the work ended without an answer

A message says what went wrong and where, what was found, what was wanted, and what to do next.
The same values are attributes, for programs.
"""

from __future__ import annotations

from collections.abc import Iterable


class PipelineError(Exception):
    """Something the pipeline refuses or gives up on.

    Args:
        what: what went wrong, as a sentence without its final stop.
        where: the file, node, setting or row concerned.
        got: what was found there.
        wanted: what would have been right.
        next_step: what the reader can do now, as an imperative.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        wanted: object = None,
        next_step: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.got = None if got is None else str(got)
        self.wanted = None if wanted is None else str(wanted)
        self.next_step = next_step
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        facts = [
            f"{label} {value}" for label, value in (("got", self.got), ("wanted", self.wanted)) if value is not None
        ]
        if facts:
            text = f"{text} ({', '.join(facts)})"
        return text if not self.next_step else f"{text}. {self.next_step[0].upper()}{self.next_step[1:]}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling of exceptions, and errors travel between processes.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[PipelineError], values: dict[str, object]) -> PipelineError:
    error = kind.__new__(kind)
    error.__dict__.update(values)
    Exception.__init__(error, error._sentence())
    return error


class SettingError(PipelineError):
    """A parameter, a setting or a key of tasks.cfg is unknown or out of its range."""


class ModelError(PipelineError):
    """A model cannot be found, cannot be imported, or does not keep its own signature."""


class DataError(PipelineError):
    """A data file is missing, unreadable, or not what its reader wants."""


class CheckpointError(PipelineError):
    """A checkpoint is missing, broken, or does not fit the graph it is restored into."""


class CandidateError(PipelineError):
    """A file that is to be compared with a checkpoint is no model, or has not the checkpoint's inputs and outputs."""


class FreezeError(PipelineError):
    """This graph cannot become a .pb that gives what its checkpoint gives."""


class UnsafeModel(PipelineError):
    """A model that somebody else made could do more than compute, or is made to take more than there is."""


class RunnerError(PipelineError):
    """An opened artifact could not answer a batch."""


class ValidationFailed(PipelineError):
    """The candidate is not proven equal to its checkpoint."""


class BatchFailed(PipelineError):
    """Some models of a batch did not pass."""


class StoreError(PipelineError):
    """An artifact cannot be written, or what stands in its place is not an artifact."""


class DamagedArtifact(StoreError):
    """The bytes on disk are not the bytes that were finished."""


class StageCrashed(PipelineError):
    """The process that did the work ended without an answer."""


_MOST_NAMES = 12


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which known names are like `name`, for the end of an error message.

    Returns:
        `did you mean 'spam'?` where something is close, else what is known, as far as it fits a sentence.
    """
    import difflib  # for messages alone: not loaded where nothing goes wrong

    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(n) for n in close)}?"
    if not names:
        return "none is known"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"known are {', '.join(names[:_MOST_NAMES])}{more}"
