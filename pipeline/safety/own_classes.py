"""Gives the commands for a Keras file with classes of the user's own: Keras exports it where they are."""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import this_command

_MOST_FILES, _MOST_BYTES = 200, 1_000_000
_NAME = re.compile(r"[\w./-]{1,80}")
_COPY = "my_layers"


def export_commands(path: Path, name: str, *, is_keras2: bool, is_code: bool = False) -> str:
    """Returns what to type for a file whose model works only where its own code is.

    Args:
        path: the Keras file.
        name: the class or function that Keras does not know; it is looked for beside the file.
        is_keras2: True for `tf_keras` in place of Keras 3.
        is_code: True if the file itself holds or names code, which then runs.
    """
    library = "tf_keras" if is_keras2 else "keras"
    place, target = path.absolute(), f"{path.stem}_export"
    options = ["compile=False", *(["safe_mode=False"] if is_code else [])]
    module = _module_of(place.parent, name) if name else None
    start, said = f"import {library}; ", ""
    if module is not None:
        start = f"import sys; sys.path.insert(0, {str(place.parent)!r}); import {module}, {library}; "
    elif name:
        said = f"put {name} into a file {_COPY}.py of the current folder, without the training, and run "
        start = f"import sys; sys.path.insert(0, ''); import {_COPY}, {library}; "
    if name:
        options.insert(0, f"custom_objects=vars({module or _COPY})")
    loaded = f"{library}.models.load_model({str(place)!r}, {', '.join(options)})"
    names = [] if is_keras2 else _output_names(path)
    if names:  # as it answers, and not as it trains; the outputs keep their names
        outputs = f"dict(zip({names!r}, keras.tree.flatten(m(m.input, training=False))))"
        code = f"{start}m = {loaded}; keras.Model(m.input, {outputs}).export({target!r})"
    else:
        code = f"{start}{loaded}.export({target!r})"
    trust = "If you trust its code, which then runs: " if is_code else "Have Keras write a SavedModel: "
    return f"{trust}{said}python -c {_quoted(code)}, and then: {again(target)}"


def _output_names(path: Path) -> list[str]:
    """Returns the names of the outputs of a functional model in a Keras file; none if they do not tell them apart."""
    import h5py  # which loads numpy: not in Luigi's process

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                model = json.loads(archive.read("config.json"))
        else:
            with h5py.File(path, "r") as file:
                model = json.loads(file.attrs["model_config"])
        outputs = model["config"]["output_layers"] if model["class_name"] in ("Functional", "Model") else []
        outputs = [outputs] if outputs and isinstance(outputs[0], str) else outputs
        names = [str(output[0]) for output in outputs]
    except (OSError, KeyError, TypeError, ValueError, IndexError, zipfile.BadZipFile):
        return []
    is_plain = all(isinstance(output, list) and isinstance(output[0], str) for output in outputs)
    return names if is_plain and len(set(names)) == len(names) and all(map(_NAME.fullmatch, names)) else []


def export_built_commands(file: str, name: str) -> str:
    """Returns what to type for a class whose `build` returns a model of Keras 2.

    Args:
        file: the class's file.
        name: the class.
    """
    place = Path(file).absolute()
    code = f"import sys; sys.path.insert(0, {str(place.parent)!r}); import {place.stem}; {place.stem}.{name}().build()"
    target = f"{place.stem}_export"
    return (
        "If build loads the trained file (load_model), have it write a SavedModel: "
        f"python -c {_quoted(f'{code}.export({target!r})')}, and then: {again(target)}"
    )


def export_module_commands(file: Path, name: str) -> str:
    """Returns what to type for a class that is the model itself, a `tf.Module`, and describes no rows.

    Args:
        file: the class's file.
        name: the class.
    """
    words, target = [*sys.argv, ""], f"{file.stem}_export"
    prefix = next((words[at + 1] for at, word in enumerate(words) if word == "--checkpoint"), "") or "PREFIX"
    code = (
        f"import sys; sys.path.insert(0, {str(file.absolute().parent)!r}); import tensorflow as tf, {file.stem}; "
        f"net = {file.stem}.{name}(); tf.train.Checkpoint({name.lower()}=net).restore({prefix!r})"
        f".assert_existing_objects_matched().expect_partial(); tf.saved_model.save(net, {target!r})"
    )
    saved = f"tf.train.Checkpoint({name.lower()}=…)"
    return (
        f"Have TensorFlow write a SavedModel ({name.lower()} is the name in {saved} where it was saved): "
        f"python -c {_quoted(code)}\n{again(target)}"
    )


def _quoted(code: str) -> str:
    """Returns a shell's word, in double quotes where that reads better."""
    return shlex.quote(code) if re.search(r'["$`\\!]', code) else f'"{code}"'


def again(checkpoint: str) -> str:
    """Returns this run's command with another checkpoint, and without a model's class."""
    return this_command({"--model": None, "--checkpoint": checkpoint})


def _module_of(folder: Path, name: str) -> str | None:
    """Returns the module in a folder that defines a class or function, if importing it trains and writes nothing."""
    found: list[tuple[int, str]] = []
    with suppress(OSError):
        for file in islice(sorted(folder.glob("*.py")), _MOST_FILES):
            if not file.stem.isidentifier() or file.stat().st_size > _MOST_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            trains = re.search(r"^\S.*\.(?:fit|save|export)\(", text, re.MULTILINE) is not None
            if re.search(rf"^(?:class|def) {re.escape(name)}\b", text, re.MULTILINE) and not trains:
                found.append((len(text), file.stem))
    return min(found)[1] if found else None
