"""All errors of the pipeline, as one small tree.

    PipelineError                 base class: anything that the pipeline rejects or cannot finish
    ├── SettingError              a parameter, setting or key of tasks.cfg is unknown or out of range
    ├── ModelError                a model cannot be found or imported, or does not match its own signature
    ├── DataError                 a data file is missing, unreadable, or does not have the expected content
    ├── CheckpointError           a checkpoint is missing, damaged, or does not fit the graph
    ├── CandidateError            a file to compare is not a model, or does not have the checkpoint's inputs and outputs
    ├── FreezeError               this graph cannot become a correct .pb
    ├── UnsafeModel               a third-party model could do more than compute, or use more memory than there is
    ├── RunnerError               an opened artifact could not compute a batch
    ├── ValidationFailed          the candidate is not proven equal to its checkpoint
    ├── BatchFailed               some models of a batch did not pass
    ├── StoreError                an artifact cannot be written, or its folder is not an artifact
    │   └── DamagedArtifact       the bytes of an artifact changed after it was finished
    └── StageCrashed              the process that did the work ended without an answer

A message says what went wrong and where, what was found, what was expected, and what to do next.
The same values are attributes, for programs.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# Characters that XML 1.0 forbids (https://www.w3.org/TR/xml/#charsets), lone surrogates, which UTF-8 cannot encode,
# control characters, which can rewrite what a terminal shows, and marks that change the direction of text.
_UNPRINTABLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"

logger = logging.getLogger("pipeline")  # of all messages that are no errors


class PipelineError(Exception):
    """Anything that the pipeline rejects or cannot finish.

    Args:
        what: what went wrong, as a sentence without a full stop.
        where: the file, node, setting or row concerned.
        got: the value that was found there.
        wanted: the value that was expected.
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
        return printable(text if not self.next_step else f"{text}. {self.next_step[0].upper()}{self.next_step[1:]}")

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes, and exceptions lose keyword-only arguments in the default pickling.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[PipelineError], values: dict[str, object]) -> PipelineError:
    error = kind.__new__(kind)
    error.__dict__.update(values)
    Exception.__init__(error, error._sentence())
    return error


class SettingError(PipelineError):
    """A parameter, a setting or a key of tasks.cfg is unknown or out of its range."""


class ModelError(PipelineError):
    """A model cannot be found, cannot be imported, or does not match its own signature."""


class DataError(PipelineError):
    """A data file is missing, unreadable, or does not have the expected content."""


class CheckpointError(PipelineError):
    """A checkpoint is missing, damaged, or does not fit the graph into which it is restored."""


class CandidateError(PipelineError):
    """A file to compare is not a model, or does not have the checkpoint's inputs and outputs."""


class FreezeError(PipelineError):
    """This graph cannot become a .pb that computes the same as its checkpoint."""


class UnsafeModel(PipelineError):
    """A third-party model could do more than compute, or use more memory than there is."""


class RunnerError(PipelineError):
    """An opened artifact could not compute a batch."""


class ValidationFailed(PipelineError):
    """The candidate is not proven equal to its checkpoint."""


class BatchFailed(PipelineError):
    """Some models of a batch did not pass."""


class StoreError(PipelineError):
    """An artifact cannot be written, or its folder is not an artifact."""


class DamagedArtifact(StoreError):
    """The bytes of an artifact changed after it was finished."""


class StageCrashed(PipelineError):
    """The process that did the work ended without an answer."""


def printable(text: str) -> str:
    """Replaces characters that a terminal, HTML or XML must not get by visible ones, such as ␀ for a zero byte."""
    return re.sub(_UNPRINTABLE, lambda found: _stand_in(ord(found[0])), text)


def _stand_in(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


_MOST_NAMES = 12


_LONGEST_SENTENCE = 600
# Colours, and names of the runtime's own. All patterns are compiled when an error is told, not at the import.
_TAGS = "\x1b\\[[0-9;]*m|\\{\\{function_node [^}]*\\}\\} ?| ?\\[Op:[^]]*\\]"
_NODE = r"(?m)(?:^Node: |^Detected at node |\{\{node )'?([^'\s}]+)"
_IN_KERAS = r"(?s)Exception encountered when calling [^\n]*\n(.*?)(?:\n *(?:Arguments received|Call arguments)|\Z)"
_IN_USER_CODE = r"(?ms)^ *\w*(?:Error|Exception): (.*)"
_PREAMBLE = ("Graph execution error", "Detected at node", "File ", "<stack traces", "Node: ", "Original stack trace")
_AFTERMATH = ("[[", "Original stack trace", "Traceback (most recent", "Stack trace")


def first_line(error: object) -> str:
    """Returns the sentence of an error that tells what went wrong, in one line of at most 600 characters.

    It is the first line; but TensorFlow and Keras begin with where it happened, over many lines, and the sentence comes
    after that. The name of the node is added. All texts of foreign errors come from this one function.
    """
    text = re.sub(_TAGS, "", str(error)).strip() or type(error).__name__
    sentence = _sentence_in(text)
    return sentence if len(sentence) <= _LONGEST_SENTENCE else f"{sentence[: _LONGEST_SENTENCE - 1]}…"


def _sentence_in(text: str) -> str:
    if (inner := re.search(_IN_KERAS, text)) and inner[1].strip():
        return _sentence_in(inner[1].strip())
    if text.startswith("in user code:") and (inner := re.search(_IN_USER_CODE, text)):
        return _sentence_in(inner[1].strip())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines[0].startswith("Graph execution error"):
        number = next((number for number, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
        return " ".join(lines[: number + 1])
    named = [number for number, line in enumerate(lines[:-1]) if line.startswith("Node: ")]
    sentence: list[str] = []
    for line in lines[named[-1] + 1 if named else 1 :]:
        if sentence and line.startswith(_AFTERMATH):
            break
        if sentence or not (line.startswith((*_PREAMBLE, "[[")) or line.endswith("root error(s) found.")):
            sentence.append(line.removeprefix("(0) "))
    node = re.search(_NODE, text)
    told = " ".join(sentence) or " ".join(lines)
    return f"{told} (node {node[1]})" if node else told


def nearest(name: str, known: Iterable[str], there_are: str = "known are") -> str:
    """Suggest known names that are similar to `name`, for the end of an error message.

    Args:
        there_are: how the list of all names begins.

    Returns:
        `did you mean 'spam'?` if a name is similar, else the first known names.
    """
    import difflib  # only for error messages

    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(n) for n in close)}?"
    if not names:
        return "none is known"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{there_are} {', '.join(names[:_MOST_NAMES])}{more}"


def this_command(changes: Mapping[str, str | None]) -> str:
    """Returns the command of this run with other options, for the end of an error message.

    Args:
        changes: values by option; None for an option that is left out.
    """
    words = sys.argv if Path(sys.argv[0]).name == "luigi" else ["luigi", "--module", "pipeline", "WriteReport"]
    kept, waiting = ["luigi"], iter(words[1:])
    for word in waiting:
        if word.partition("=")[0] not in changes:
            kept.append(word)
        elif "=" not in word:
            next(waiting, None)
    return shlex.join([*kept, *(part for pair in changes.items() if pair[1] is not None for part in pair if part)])
