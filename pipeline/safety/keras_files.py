"""Finds dangers in a Keras model's file, without Keras and without unpacking it.

    .keras         a ZIP archive: names that lead out of it, and members that grow beyond all bounds
    .h5, .hdf5     one HDF5 file: links to other files, and data sets that no file holds

Python code in it (`Lambda`, unknown classes) is what Keras's own safe mode refuses; it stays on.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import h5py

from pipeline.errors import UnsafeModel

from . import printable
from .sizes import MOST_GROWN

_FACTOR = 200  # what honest members are compressed to at most, once they are large
_LAYERS = {
    "TFSMLayer": "run another SavedModel, which is not part of the file",
    "TorchModuleWrapper": "call Python code",
    "FlaxLayer": "call Python code",
    "JaxLayer": "call Python code",
}
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


def require_safe_file(path: Path) -> None:
    """Checks that a Keras file refers only to its own content.

    Raises:
        UnsafeModel: a layer would run other code, or a layer or its weights would read other files.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" in names:
                _require_safe_config(archive.read("config.json"), path)
            for name in (name for name in names if name.endswith((".h5", ".hdf5"))):
                with archive.open(name) as weights:
                    _require_safe_hdf5(weights, path)
    else:
        with path.open("rb") as file:
            _require_safe_hdf5(file, path)


def _require_safe_config(text: bytes | str, path: Path) -> None:
    with suppress(ValueError, RecursionError):  # Keras says what is wrong with it
        for layer in _objects(json.loads(text)):
            kind = str(layer.get("class_name"))
            inner = layer.get("config")
            config = inner if isinstance(inner, dict) else {}
            if kind in _LAYERS:
                raise UnsafeModel(f"this model could {_LAYERS[kind]}: layer {kind}", where=path, next_step=_NEVER)
            for name in ("vocabulary", "idf_weights"):
                if isinstance(config.get(name), str):
                    raise UnsafeModel(
                        f"this model could read the file {printable(config[name])}: {name} of layer {printable(kind)}",
                        where=path,
                        next_step="Save the model again with the words themselves",
                    )


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


def _require_safe_hdf5(file: IO[bytes], path: Path) -> None:
    with suppress(OSError, RuntimeError, KeyError), h5py.File(file, "r") as root:  # which Keras will say
        if "model_config" in root.attrs:
            _require_safe_config(root.attrs["model_config"], path)
        wrong = root.visititems_links(lambda name, link: next(_of_link(root, name, link, path), None))
        if wrong is not None:  # the walk ends there
            raise wrong


def _of_link(root: h5py.File, name: str, link: Any, path: Path) -> Iterator[UnsafeModel]:
    """Returns what is wrong with the object behind a name."""
    if isinstance(link, h5py.ExternalLink):
        yield _elsewhere(name, link.filename, path)
    elif isinstance(link, h5py.HardLink) and isinstance(item := root[name], h5py.Dataset):
        for file, *_ in item.external or ():
            yield _elsewhere(name, str(file), path)
        if item.is_virtual:
            yield _elsewhere(name, "a virtual data set", path)
        if item.nbytes > item.id.get_storage_size() * _FACTOR + MOST_GROWN:
            yield UnsafeModel(
                f"this model could take more memory than there is: weights {printable(name)}",
                where=path,
                got=f"{item.nbytes / 1e9:.3g} GB of {item.id.get_storage_size():,} bytes",
                next_step="Do not open it",
            )


def _elsewhere(name: str, file: str, path: Path) -> UnsafeModel:
    return UnsafeModel(
        f"this model could read files: weights {printable(name)} lie in another file",
        where=path,
        got=printable(file),
        next_step="Save the model again with its own weights",
    )
