"""Files that a model names: each must be a plain file of the model's own folder.

A model names files in many places: the external data of ONNX tensors, the mapped weights of an ImmutableConst, the
links in a folder. Whatever opens one of them asks here first, so that no model reads another file of this machine, or
waits for ever at a pipe.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from pipeline.errors import UnsafeModel

from . import printable

_COPY = "If that is what the model needs, copy it with what it links to: cp -rL"


def require_beside(folder: Path, name: str, what: str, model: Path) -> Path:
    """Returns the path of a file that a model names; it may be missing.

    Args:
        folder: the model's folder.
        name: the path in the model's file.
        what: what lies there, for messages, such as `tensor w`.
        model: the model's file, for messages.

    Raises:
        UnsafeModel: it is no relative path within the folder, leads out of it by a link, or is no plain file.
    """
    place = PureWindowsPath(name)  # which splits at both kinds of slashes
    is_away = place.is_absolute() or place.drive or place.root or ".." in place.parts
    if is_away or not place.name or not name.isprintable() or "*" in name:
        raise UnsafeModel(
            f"this model could read files: {what} lies outside of the model's folder",
            where=model,
            got=repr(printable(name)),
            wanted="a file beside the model",
        )
    path = folder / name
    _require_inside(path, folder, f"{what} lies behind a link that leads out of the model's folder", model)
    if path.is_dir():
        raise UnsafeModel(f"{what} is a folder", where=model, got=repr(name), wanted="a file beside the model")
    _require_plain(path, model)
    return path


def require_own_content(folder: Path) -> None:
    """Checks that a model's folder contains its own files and folders, and nothing else.

    Raises:
        UnsafeModel: a link leads out of the folder; or there is a pipe, a device or a socket.
    """
    for path in _walk(folder):
        shown = folder / printable(path.relative_to(folder).as_posix())
        _require_inside(path, folder, "a link leads out of the model's folder", shown)
        _require_plain(path, shown)


def require_own_file(path: Path, folder: Path) -> Path:
    """Returns the path of a file that was found in a folder. Raises: as `require_own_content`."""
    _require_inside(path, folder, "a link leads out of the model's folder", path)
    _require_plain(path, path)
    return path


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place) / name for name in (*folders, *files))


def _require_inside(path: Path, folder: Path, what: str, shown: Path) -> None:
    try:
        target, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as exc:  # links that lead to each other
        raise UnsafeModel("a link leads nowhere", where=shown, got=str(exc)) from exc
    if not target.is_relative_to(root):
        got = printable(str(target))
        raise UnsafeModel(what, where=shown, got=got, wanted="files of its own", next_step=_COPY)


def _require_plain(path: Path, shown: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # missing: for the reader to tell
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsafeModel(
            "this model could stall the process: a pipe, a device or a socket in place of a file",
            where=shown,
            wanted="files and folders",
        )
