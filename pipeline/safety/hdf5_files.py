"""Walks through all of an HDF5 file before its weights are read, and refuses it where the walk cannot go on.

Everything that a name leads to must be in the file itself, and no larger than the file can hold: no links to other
files, no data in other files, no views of others' data, no links of unknown kinds, no references past the names.
Soft links lead from name to name of the same file, and so to what is walked through anyway.
The parts of a file are described in support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from pipeline.errors import UnsafeModel

from . import printable
from .sizes import MOST_GROWN

_FACTOR = 200  # what honest data is compressed to at most, once it is large
_ATTRIBUTE = 1 << 16  # bytes of an attribute that are not counted
_MOST_OBJECTS = 1_000_000
_LINKS = (h5py.HardLink, h5py.SoftLink)


def require_safe_hdf5(
    file: IO[bytes], size_bytes: int, path: Path, require_config: Callable[[bytes | str, Path], None]
) -> None:
    """Checks that an HDF5 file holds its own content.

    Args:
        file: the file, or the member of an archive.
        size_bytes: its size.
        path: of the file that is told of.
        require_config: checks the description of the model in it.

    Raises:
        UnsafeModel: something lies elsewhere, takes more memory than there is, or cannot be visited.
    """
    try:
        root = h5py.File(file, "r")
    except (OSError, RuntimeError, KeyError, ValueError):
        return  # nobody can open it: Keras reads with the same library, and says so
    with root:
        try:
            _walk(root, size_bytes, path)
            text = root.attrs.get("model_config")
        except UnsafeModel:
            raise
        except Exception as exc:  # the library may raise anything on a crafted file, and what is unseen is not safe
            raise unseen(path, exc) from exc
        if isinstance(text, (bytes, str)):
            require_config(text, path)
        elif text is not None:
            raise unseen(path, f"a model_config of the type {type(text).__name__}")


def unseen(path: Path, got: Any) -> UnsafeModel:
    """Returns the error for a file whose content cannot be known."""
    return UnsafeModel(
        "the file cannot be looked through to its end",
        where=path,
        got=printable(str(got)),
        next_step="Do not open it; save the model again if it is your own",
    )


def _walk(root: h5py.File, size_bytes: int, path: Path) -> None:
    grown, seen, waiting = 0, set[tuple[int, int]](), [("", root)]
    while waiting:
        name, item = waiting.pop()
        info = h5py.h5o.get_info(item.id)
        if (info.fileno, info.addr) in seen:  # a group may contain itself
            continue
        seen.add((info.fileno, info.addr))
        if len(seen) > _MOST_OBJECTS:
            raise unseen(path, f"more than {_MOST_OBJECTS:,} objects")
        if not isinstance(item, h5py.Datatype):
            _require_small_attributes(item, name, size_bytes, path)
        if isinstance(item, h5py.Dataset):
            grown += _bytes_of(item, name, size_bytes, path)
            if grown > size_bytes * _FACTOR + MOST_GROWN:
                raise _too_large(name, grown, size_bytes, path)
        elif isinstance(item, h5py.Group):
            waiting += _children(item, name, path)
        elif not isinstance(item, h5py.Datatype):
            raise unseen(path, f"{name} is a {type(item).__name__}")


def _children(group: h5py.Group, name: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Yields what the hard links of a group lead to."""
    for key in group:
        place = f"{name}/{key}".lstrip("/")
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(place, link.filename, path)
        if not isinstance(link, _LINKS):
            raise unseen(path, f"{place} is a link of an unknown kind")
        if isinstance(link, h5py.HardLink):
            yield place, group[key]


def _require_small_attributes(item: Any, name: str, size_bytes: int, path: Path) -> None:
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        _require_no_references(attribute.dtype, f"{name}@{key}", path)
        size = attribute.get_space().get_simple_extent_npoints() * attribute.dtype.itemsize
        if size > size_bytes + _ATTRIBUTE:  # attributes are stored as they are
            raise _too_large(f"{name}@{key}", size, size_bytes, path)


def _bytes_of(item: h5py.Dataset, name: str, size_bytes: int, path: Path) -> int:
    """Returns the bytes that a data set takes in memory."""
    for file, *_ in item.external or ():
        raise _elsewhere(name, str(file), path)
    if item.is_virtual:
        raise _elsewhere(name, "a virtual data set", path)
    _require_no_references(item.dtype, name, path)
    if item.shape is None:  # it is declared to be empty
        return 0
    elements = item.id.get_space().get_simple_extent_npoints()
    # Each element of a variable length may be the same one, as long as the file.
    longest = size_bytes if item.dtype.hasobject else 0
    return int(elements * (item.dtype.itemsize + longest))


def _require_no_references(dtype: np.dtype[Any], name: str, path: Path) -> None:
    """Checks that no element points to an object, which may have no name."""
    waiting = [dtype]
    while waiting:
        one = waiting.pop()
        if h5py.check_ref_dtype(one) is not None:
            raise unseen(path, f"{name} holds references to objects")
        inner = h5py.check_vlen_dtype(one)
        waiting += [inner] if isinstance(inner, np.dtype) else []
        waiting += [one.subdtype[0]] if one.subdtype else []
        waiting += [field[0] for field in (one.fields or {}).values()]


def _too_large(name: str, size: int, size_bytes: int, path: Path) -> UnsafeModel:
    return UnsafeModel(
        f"this model could take more memory than there is: weights {printable(name)}",
        where=path,
        got=f"{size / 1e9:.3g} GB of {size_bytes:,} bytes",
        next_step="Do not open it",
    )


def _elsewhere(name: str, file: str, path: Path) -> UnsafeModel:
    return UnsafeModel(
        f"this model could read files: weights {printable(name)} lie in another file",
        where=path,
        got=printable(file),
        next_step="Save the model again with its own weights",
    )
