"""Loads a Keras model file, and runs no code in it that the user has not allowed.

    .keras         a ZIP archive of config.json, metadata.json and model.weights.h5 (keras/src/saving/saving_lib.py)
    .h5, .hdf5     the older format: one HDF5 file with the attribute `model_config`

A layer may be any Python function (`Lambda`), or a class that Keras does not know. Both are refused, unless the user
allows the one (`--allow-ops Lambda`) and gives the other (`--model layers.py`).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

import h5py
import keras

from pipeline.checkpoint.file_kinds import broken_file, unreadable_file
from pipeline.errors import CheckpointError
from pipeline.inputs import open_file
from pipeline.safety.keras_files import is_archive, is_hdf5, require_safe_archive, require_safe_file

from . import keras2
from .adapter import NamedModel
from .code import NO_CODE, Code
from .failures import keras_errors
from .subclassed import is_open, named_by_call

_AGAIN = "Copy the file again from where it was written"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PARTS = ("config.json", "model.weights.h5")


def load_file(path: Path, code: Code = NO_CODE) -> NamedModel:
    """Loads a model without its compile settings, which only training needs.

    A file of Keras 2 is read with tf_keras, if that is installed, and else with Keras 3 as far as it can.

    Args:
        code: what the user has given and allowed beside what is Keras's own.

    Raises:
        CheckpointError: the file is missing, damaged, no Keras file, or has only weights; or it names code that is
            not Keras's own.
        ModelError: its inputs or outputs have no names of their own.
        UnsafeModel: it names other files or models, or needs more memory than there is.
    """
    require_intact(path)
    require_safe_file(path)
    with keras_errors(path, code), named_by_content(path) as named:
        if keras2.is_keras2(path) and keras2.is_installed():
            loaded = keras2.load_model(named, code)
            return named_by_call(loaded) if is_open(loaded) else keras2.NamedKeras2Model.from_own_names(loaded)
        code.share_names()
        model = keras.saving.load_model(
            named, custom_objects=code.classes, compile=False, safe_mode=not code.allows("Lambda")
        )
    if not isinstance(model, keras.Model):
        raise CheckpointError("the file holds no model", where=path, got=type(model).__name__, wanted="a keras.Model")
    return named_by_call(model) if is_open(model) else NamedModel.from_own_names(model)


def require_intact(path: Path, *, is_model: bool = True) -> None:
    """Checks that a file is a complete Keras file; only an archive has checksums, which are verified.

    Args:
        is_model: True if the file must have a model, False if weights are enough.

    Raises:
        CheckpointError: it is missing, damaged, another kind of file, or has only weights.
    """
    try:
        with open_file(path) as file:
            head = file.read(8)
    except OSError as exc:
        raise unreadable_file(path, exc) from exc
    is_zip = is_archive(path)
    if is_zip:
        _require_archive(path)
    # An archive stores weights as they are, so they may be found in it.
    if head == _HDF5 or (is_hdf5(path) and not (is_zip and path.suffix == ".keras")):
        _require_hdf5(path, is_model)
    elif not is_zip and zipfile.is_zipfile(path):
        raise CheckpointError("the archive is damaged", where=path, got="no list of its members", next_step=_AGAIN)
    elif not is_zip and head.startswith(b"PK"):
        raise CheckpointError("the file is cut off", where=path, next_step=_AGAIN)
    elif not is_zip:
        raise broken_file(path, "not a Keras file, or a damaged one", wanted="a .keras archive, or an HDF5 file")


def _require_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            require_safe_archive(archive, path)
            names, damaged = archive.namelist(), archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, EOFError) as exc:
        raise CheckpointError("the archive is damaged", where=path, got=exc, next_step=_AGAIN) from exc
    if damaged is not None:
        raise CheckpointError("the archive is damaged", where=path, got=f"wrong bytes in {damaged}", next_step=_AGAIN)
    missing = [part for part in _PARTS if part not in names]
    if missing:
        raise CheckpointError(
            "not a Keras model's archive",
            where=path,
            got=f"no {missing[0]}",
            wanted=" and ".join(_PARTS),
            next_step="Give the file that model.save('model.keras') wrote",
        )


def _require_hdf5(path: Path, is_model: bool) -> None:
    try:
        with h5py.File(path, "r") as file:
            has_model = "model_config" in file.attrs
    except (OSError, KeyError, RuntimeError) as exc:
        raise CheckpointError("the file is damaged or cut off", where=path, got=exc, next_step=_AGAIN) from exc
    if is_model and not has_model:
        raise CheckpointError(
            "the file has only weights, and no model",
            where=path,
            next_step="Give the file that model.save wrote; or write a class with build (docs/own_model.md), and give "
            f"both: luigi --module pipeline WriteReport --model FILE.py:CLASS --checkpoint {quote(str(path))}",
        )


@contextmanager
def named_by_content(path: Path) -> Iterator[Path]:
    """Yields a name of the file that ends as its content is: Keras tells its formats apart by the name alone."""
    wanted = ".h5" if _starts_as_hdf5(path) else ".keras"
    if path.suffix == wanted or (wanted == ".h5" and path.suffix == ".hdf5"):
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"{path.stem}{wanted}"
        link.symlink_to(path.absolute())
        yield link


def _starts_as_hdf5(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(8) == _HDF5 or not is_archive(path)
