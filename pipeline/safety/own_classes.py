"""Gives the commands for models with classes of the user's own: what names the code, or has it write a SavedModel."""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import PipelineError, this_command
from pipeline.inputs import is_keras_file

_MOST_FILES, _MOST_BYTES = 200, 1_000_000
_NAME = re.compile(r"[A-Za-z_]\w{0,80}")
_COPY = "my_layers"
_MATCHED = ".assert_existing_objects_matched().expect_partial()"


def code_commands(path: Path, names: Sequence[str], file: Path | None, kinds: Sequence[str] = ()) -> str:
    """Returns what to type for a Keras file whose model needs code that Keras does not have.

    Args:
        path: the Keras file.
        names: a class or function that Keras does not know; it is looked for beside the file, with the file's others.
        file: the user's code that was given; None if there was none.
        kinds: layers that are to be allowed although they run code that the file holds.
    """
    allowed = [*_given("--allow-ops"), *kinds]
    wanted = list(dict.fromkeys(_last(name) for name in (*names, *_own_names(path))))
    if "Lambda" not in kinds and "Lambda" in wanted and "Lambda" not in allowed:
        allowed.append("Lambda")
    wanted = [name for name in wanted if name != "Lambda"]
    changes: dict[str, str | None] = {"--allow-ops": ",".join(dict.fromkeys(allowed))} if allowed else {}
    if not names and (file is not None or not wanted):
        return f"If you trust the file's code, let it run: {this_command(changes)}"
    if file is not None:
        return f"Import {_last(names[0])} in {file.name}, and then: {this_command(changes)}"
    module = _file_of(path.absolute().parent, wanted)
    here = _beside(path, module) if module is not None else f"{_COPY}.py"
    command = this_command({"--model": here, **changes})
    if module is None:
        return f"Put {' and '.join(wanted)} into a file {here}, without the training, and then: {command}"
    return f"If you trust the code of {here}, let it run: {command}"


def _given(option: str) -> list[str]:
    """Returns the comma-separated values that an option of this run has."""
    words = [part for word in sys.argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return next((words[at + 1].split(",") for at, word in enumerate(words[:-1]) if word == option), [])


def _beside(path: Path, file: Path) -> str:
    """Returns a file's path as it is typed where the Keras file beside it was named: this process may be elsewhere."""
    typed = Path(next(iter(_given("--checkpoint")), ""))
    return str(typed.parent / file.name if typed.name == path.name else file)


def _last(name: str) -> str:
    """Returns the name of a class without its package, as Keras registers it (`mine>Scale`)."""
    return re.split("[.>]", name)[-1]


def _own_names(path: Path) -> list[str]:
    """Returns the classes and functions that a file itself says are not Keras's own; `Lambda` for code in it."""
    import h5py  # which loads numpy: not in Luigi's process

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                waiting = [json.loads(archive.read("config.json"))]
        else:
            with h5py.File(path, "r") as file:
                waiting = [json.loads(file.attrs["model_config"])]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return []
    found: list[str] = []
    while waiting:
        one = waiting.pop()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if isinstance(one, dict) and isinstance(one.get("class_name"), str):
            kind, registered = one["class_name"], one.get("registered_name")
            if kind == "Lambda" or kind == "__lambda__":
                found.append("Lambda")
            elif kind == "function":
                is_own = "module" in one and not str(one["module"]).startswith("keras") and registered != "function"
                found += [str(one.get("config"))] if is_own else []
            elif ">" in kind or (registered is not None and not str(one.get("module")).startswith(("keras", "tf_"))):
                found.append(_last(kind))
    return [name for name in found if _NAME.fullmatch(name)]


def export_built_commands(file: str, name: str) -> str:
    """Returns what to type for a class whose `build` returns a model of Keras 2.

    Args:
        file: the class's file.
        name: the class.
    """
    place = Path(file).absolute()
    weights, target = next(iter(_given("--checkpoint")), ""), f"{place.stem}_export"
    if is_keras_file(weights) and not weights.endswith(".weights.h5"):
        return f"The file brings the model, so leave the class out: {this_command({'--model': str(place)})}"
    start = f"import sys; sys.path.insert(0, {str(place.parent)!r}); import tensorflow as tf, {place.stem}; "
    code = f"{start}m = {place.stem}.{name}().build(); {_loading(weights)}m.export({target!r})"
    first = (
        "Have it write a SavedModel"
        if weights
        else "If build loads the trained file (load_model), have it write a SavedModel"
    )
    return f"{first}: python -c {_quoted(code)}\n{again(target)}"


def _loading(weights: str) -> str:
    """Returns the code that gives a model of Keras 2 the weights of a file, or of a checkpoint of its objects."""
    if not weights or is_keras_file(weights):
        return f"m.load_weights({weights!r}); " if weights else ""
    prefix, holder = _stored(weights)
    if not holder:  # as save_weights writes it
        return f"m.load_weights({prefix!r}){_MATCHED}; "
    return f"tf.train.Checkpoint({holder}=m).restore({prefix!r}){_MATCHED}; "


def _stored(weights: str) -> tuple[str, str]:
    """Returns the newest prefix of a checkpoint of objects, and the name that the model has in it; empty for its root.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    from pipeline.checkpoint.objects import is_of_training, read_objects, variables_below
    from pipeline.checkpoint.values import find_checkpoint

    bundle = find_checkpoint(weights)
    objects = read_objects(bundle)
    held = {
        name: sum(1 for _ in variables_below(objects, number))
        for name, number in (objects[0].children.items() if objects else ())
        if not is_of_training(name)
    }
    is_root = "root" in held or not any(held.values())
    return str(bundle.prefix), "" if is_root else max(held, key=lambda name: held[name])


def export_module_commands(file: Path, name: str) -> str:
    """Returns what to type for a class that is the model itself, a `tf.Module`, and describes no rows.

    Args:
        file: the class's file.
        name: the class.
    """
    words, target = [*sys.argv, ""], f"{file.stem}_export"
    prefix = next((words[at + 1] for at, word in enumerate(words) if word == "--checkpoint"), "") or "PREFIX"
    holder = name.lower()
    with suppress(PipelineError):
        prefix, found = _stored(prefix)
        holder = found or holder
    code = (
        f"import sys; sys.path.insert(0, {str(file.absolute().parent)!r}); import tensorflow as tf, {file.stem}; "
        f"net = {file.stem}.{name}(); tf.train.Checkpoint({holder}=net).restore({prefix!r}){_MATCHED}; "
        f"tf.saved_model.save(net, {target!r})"
    )
    saved = f"tf.train.Checkpoint({holder}=…)"
    return (
        f"Have TensorFlow write a SavedModel ({holder} is the name in {saved} where it was saved): "
        f"python -c {_quoted(code)}\n{again(target)}"
    )


def _quoted(code: str) -> str:
    """Returns a shell's word, in double quotes where that reads better."""
    return shlex.quote(code) if re.search(r'["$`\\!]', code) else f'"{code}"'


def again(checkpoint: str) -> str:
    """Returns this run's command with another checkpoint, and without a model's class."""
    return this_command({"--model": None, "--checkpoint": checkpoint})


def _file_of(folder: Path, names: Sequence[str]) -> Path | None:
    """Returns the file in a folder that defines most of the names, if importing it trains and writes nothing."""
    found: list[tuple[int, int, Path]] = []
    with suppress(OSError):
        for file in islice(sorted(folder.glob("*.py")), _MOST_FILES):
            if not file.stem.isidentifier() or file.stat().st_size > _MOST_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            trains = re.search(r"^\S.*\.(?:fit|save|export)\(", text, re.MULTILINE) is not None
            defined = sum(bool(re.search(rf"^(?:class|def) {re.escape(name)}\b", text, re.MULTILINE)) for name in names)
            if defined and not trains:
                found.append((-defined, len(text), file))
    return min(found)[2] if found else None
