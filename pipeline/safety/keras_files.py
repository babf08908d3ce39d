"""Finds dangers in a Keras model's file, without Keras and without unpacking it.

    .keras         a ZIP archive: names that lead out of it, and members that grow beyond all bounds
    .h5, .hdf5     one HDF5 file: see `hdf5_files`

A file can be both: a ZIP archive is found from its end, and HDF5 also behind a block of anything.
Python code in it (`Lambda`, unknown classes) is what Keras's own safe mode refuses; it stays on.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import h5py

from pipeline.errors import CheckpointError, UnsafeModel

from . import printable
from .hdf5_files import require_safe_hdf5, unseen
from .own_classes import code_commands
from .sizes import MOST_GROWN

_FACTOR = 200  # what honest members are compressed to at most, once they are large
_LAYERS = {
    "TFSMLayer": "run another SavedModel, which is not part of the file",
    "TorchModuleWrapper": "call Python code",
    "FlaxLayer": "call Python code",
    "JaxLayer": "call Python code",
}
_FUNCTION_MODULES = ("None", "builtins", "keras.activations", "keras.initializers", "keras.losses", "keras.metrics")
_FUNCTIONS = Path(__file__).with_name("keras2_functions.txt")  # of TensorFlow, which compute alone
_COMPUTING = ("math.", "nn.", "linalg.", "signal.", "image.", "bitwise.", "strings.", "__operators__.")
_NEVER = "Build the model in a file of your own, and give both: --model takes the weights from here"


def require_safe_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Checks an archive's members before any is unpacked.

    Raises:
        UnsafeModel: a name leads out of the archive or is there twice, or a member takes more than there is.
    """
    names = set[str]()
    for member in archive.infolist():
        place = PureWindowsPath(member.filename)  # which splits at both kinds of slashes
        if place.drive or place.root or ".." in place.parts or member.filename in names:
            what = "is there twice" if member.filename in names else "leads out of it"
            raise UnsafeModel(
                f"a name in the archive {what}",
                where=path,
                got=printable(repr(member.filename)),
                next_step="Do not open it",
            )
        names.add(member.filename)
    size = sum(member.file_size for member in archive.infolist())
    packed = sum(member.compress_size for member in archive.infolist())
    if size > packed * _FACTOR + MOST_GROWN:
        raise UnsafeModel(
            "this model could take more memory than there is: its archive grows when it is unpacked",
            where=path,
            got=f"{size / 1e9:.3g} GB of {packed:,} bytes",
            next_step="Do not open it",
        )


def is_archive(path: Path) -> bool:
    """Returns True for a file that can be opened as a ZIP archive, whatever else it is: weights may look like one."""
    try:
        with zipfile.ZipFile(path):
            return True
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return False


def is_hdf5(path: Path) -> bool:
    """Returns True for a file that can be opened as HDF5, whatever stands before: its start may be any power of 2."""
    return bool(h5py.is_hdf5(path))


def require_safe_file(path: Path) -> None:
    """Checks that a Keras file refers only to its own content; one that is two things at once is checked as both.

    Raises:
        UnsafeModel: a layer would run other code, a layer or its weights would read other files, or the file cannot be
            looked through to its end.
    """
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            require_safe_archive(archive, path)
            names = archive.namelist()
            if "config.json" in names:
                _require_safe_config(archive.read("config.json"), path)
            for name in (name for name in names if name.endswith((".h5", ".hdf5"))):
                with archive.open(name) as weights:
                    require_safe_hdf5(weights, archive.getinfo(name).file_size, path, _require_safe_config)
    if is_hdf5(path):
        with path.open("rb") as file:
            require_safe_hdf5(file, path.stat().st_size, path, _require_safe_config)


def _require_safe_config(text: bytes | str, path: Path) -> None:
    with suppress(ValueError):  # Keras says what is wrong with it
        try:
            config = json.loads(text)
        except RecursionError as exc:
            raise unseen(path, "layers within layers without an end") from exc
        for layer in _objects(config):
            kind = re.split("[.>]", str(layer.get("class_name")))[-1]  # Keras also takes layers.TFSMLayer
            inner = layer.get("config")
            options = inner if isinstance(inner, dict) else {}
            if kind in _LAYERS:
                raise UnsafeModel(f"this model could {_LAYERS[kind]}: layer {kind}", where=path, next_step=_NEVER)
            for name in ("vocabulary", "idf_weights"):
                if isinstance(options.get(name), str):
                    raise UnsafeModel(
                        f"this model could read the file {printable(options[name])}: {name} of layer {printable(kind)}",
                        where=path,
                        next_step="Save the model again with the words themselves",
                    )


def require_known_objects(
    path: Path,
    known: Collection[str],
    own: Collection[str] = (),
    allowed: Collection[str] = (),
    file: Path | None = None,
) -> None:
    """Checks what a file of Keras 2 names: its reader would import any module, and run Python code in it.

    Args:
        path: a file that `require_safe_file` has passed.
        known: the names of the classes that may be made.
        own: the names of the classes and functions that the user gives: the reader takes these, whatever module the
            file names.
        allowed: the kinds of layers that may run Python code of the file, or do more than compute.
        file: where the user's classes are; None if they were not given.

    Raises:
        UnsafeModel: it holds Python code, names what lies in a module that is not Keras's, or calls a function of
            TensorFlow that does more than compute.
        CheckpointError: it names a class that is not Keras's own.
    """
    for found in (thing for text in _configs(path) for thing in _objects(json.loads(text))):
        kind = re.split("[.>]", str(found.get("class_name")))[-1]
        module = found.get("module")
        name = str(found.get("config")) if kind == "function" else kind
        if name in own:
            continue
        if kind in ("Lambda", "__lambda__"):
            if "Lambda" in allowed:
                continue
            raise UnsafeModel(
                "the file holds Python code, a Lambda layer, which is not run",
                where=path,
                next_step=code_commands(path, (), file, ("Lambda",)),
            )
        if not _is_keras_module(module):
            raise UnsafeModel(
                f"this model could run code of the module {printable(str(module))}: {printable(name)}",
                where=path,
                next_step=code_commands(path, (name,), file),
            )
        if kind == "function" and str(module) not in _FUNCTION_MODULES:
            raise UnsafeModel(
                f"this model could call a function of {printable(str(module))}: {printable(name)}",
                where=path,
                next_step=code_commands(path, (name,), file),
            )
        if kind not in known:
            raise CheckpointError(
                "the file names a class that is not Keras's own",
                where=path,
                got=printable(kind),
                next_step=code_commands(path, (name,), file),
            )
        options = found.get("config")
        if kind in ("TFOpLambda", "SlicingOpLambda") and kind not in allowed and not _computes(options):
            function = options.get("function") if isinstance(options, dict) else options
            raise UnsafeModel(
                f"this model could do more than compute: it calls tf.{printable(str(function))}",
                where=path,
                next_step=code_commands(path, (), file, (kind,)),
            )


def _configs(path: Path) -> Iterator[bytes | str]:
    """Yields the descriptions of models in a file, wherever a reader may look for one."""
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                yield archive.read("config.json")
    if is_hdf5(path):
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if isinstance(text, (bytes, str)):
                yield text


def _is_keras_module(module: Any) -> bool:
    parts = str(module).split(".")
    return module is None or module == "builtins" or (parts[0] in ("keras", "tf_keras") and "utils" not in parts)


def _computes(options: Any) -> bool:
    """Returns True for a function of TensorFlow that only computes, by its name in the API."""
    name = str(options.get("function")) if isinstance(options, dict) else ""
    return name.startswith(_COMPUTING) or name in _FUNCTIONS.read_text(encoding="utf-8").split()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class_name" in one:
                yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
