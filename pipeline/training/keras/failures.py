"""Says why Keras cannot load a file: the whole cause, and for each kind of cause its own next step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from pipeline.errors import CheckpointError, PipelineError
from pipeline.safety.own_classes import again, code_commands

from . import keras2
from .code import NO_CODE, Code

_UNKNOWN = re.compile(
    r"(?:Could not locate \w+|Unknown \w+(?: \w+)?:|Could not interpret [\w ]+ identifier:) '?([\w.>:]+)'?"
)
_MOST = 400  # letters of a cause
# What Keras says: what that means, and what to do.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"infer the shape of the Lambda|name '\w+' is not defined",
        "the code of a Lambda layer does not run here",
        "Give the file whose names it uses (--model FILE.py); or save the model with output_shape of that layer",
    ),
    (
        r"Unable to revive model|returned config contains all items",
        "a class of the file cannot be made again from what the file holds of it",
        "Let its __init__ take **options and hand them to super().__init__(**options), and its get_config return its "
        "own arguments; or write a class whose build returns the model (docs/own_model.md)",
    ),
    (r"Unrecognized keyword arguments|unexpected keyword argument", "a layer has options that this Keras lacks", ""),
    (
        r"expected \d+ (?:variables|weights)|could not be loaded|[Ss]hape mismatch|incompatible|count mismatch",
        "the weights in the file are not those of its layers",
        "Save the model again with model.save where it works, or build it in your own file (--model)",
    ),
    (
        r"(?:No such file|does not exist|not found|doesn't exist)",
        "the file needs another one, which is not in it",
        "Save the model again with its vocabulary and other files in it: model.save('model.keras')",
    ),
)


@contextmanager
def keras_errors(path: Path, code: Code = NO_CODE) -> Iterator[None]:
    """Converts all errors that Keras raises for a file to CheckpointError; those of the pipeline stay.

    Args:
        code: what the user has given for the file.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as exc:  # Keras looks up whatever the file names, so it may raise anything.
        raise _failure(path, exc, code) from exc


def _failure(path: Path, exc: Exception, code: Code) -> CheckpointError:
    text = str(exc)
    if "unsafe deserialization" in text or "safe_mode" in text:
        return CheckpointError(
            "the file holds Python code, a Lambda layer, which is not run",
            where=path,
            next_step=code_commands(path, (), code.file, ("Lambda",)),
        )
    got, written = f"{type(exc).__name__}: {_cause(text)}", keras2.version_of_file(path)
    if keras2.is_keras2(path) and not keras2.is_installed():
        return CheckpointError(
            f"Keras 3 cannot load this file of Keras {written}", where=path, got=got, next_step=keras2.INSTALL
        )
    unknown = _UNKNOWN.search(text)
    if unknown and _is_operation(unknown[1]):
        return CheckpointError(
            f"Keras cannot read its own operation {unknown[1]} from {path.suffix or 'this file'}",
            where=path,
            next_step="Where the model works, save it as .keras (model.save('model.keras')), and give that file",
        )
    if unknown:
        return CheckpointError(
            "the file names a class that is not Keras's own",
            where=path,
            got=unknown[1],
            next_step=code_commands(path, (unknown[1],), code.file),
        )
    for pattern, what, next_step in _CAUSES:
        if re.search(pattern, text):
            return CheckpointError(what, where=path, got=got, next_step=next_step or _other_version(written))
    return CheckpointError("Keras cannot load the file", where=path, got=got, next_step=_other_version(written))


def _is_operation(name: str) -> bool:
    """Returns True for the class of a function in keras.ops: what an operator on tensors becomes in a model."""
    waiting = [keras.Operation]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == name and kind.__module__.startswith("keras.src.ops."):
            return True
        waiting += kind.__subclasses__()
    return False


def _cause(text: str) -> str:
    """Returns the cause within a message of Keras, which repeats the configuration of each layer before it."""
    causes = re.split(r"Exception encountered:|The error was:", text)
    cause = " ".join(causes[-1].split())
    return cause if len(cause) <= _MOST else f"{cause[:_MOST]} …"


def _other_version(written: str) -> str:
    """Returns the next step where another version of Keras may read the file."""
    if _numbers(written) > _numbers(keras.__version__):
        return f"Run pip install keras=={written}, which wrote it, and then this again"
    return "Where Keras opens it: load_model(FILE).export('exported'), and then here: " + again("exported")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
