"""Named arrays in one `.npz` file, strings included; the same arrays give the same bytes.

NumPy keeps bytes only as pickles or at a fixed width that drops trailing zero bytes, so an array of
strings is kept as two: all its bytes in a row, and the length of each.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.errors import DataError

Array = np.ndarray[Any, Any]

# What NumPy and zipfile raise at a file that is broken, or is something else.
BROKEN = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
BYTES, LENGTHS, BFLOAT16 = "//bytes", "//lengths", "//bfloat16"


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name; an `object` array must hold `bytes`.

    Raises:
        TypeError: an `object` array holds something else.
    """
    plain: dict[str, Array] = {}
    for name, array in sorted(arrays.items()):
        if array.dtype == object:
            plain[name + BYTES] = np.frombuffer(b"".join(array.ravel().tolist()), np.uint8)
            plain[name + LENGTHS] = np.array([len(item) for item in array.ravel()], np.int64).reshape(array.shape)
        elif array.dtype == ml_dtypes.bfloat16:  # NumPy's format has no name for it
            plain[name + BFLOAT16] = array.view(np.uint16)
        else:
            plain[name] = array
    # A name such as "file" would be taken for np.savez's own parameter, hence the writer below it.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in plain.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)


def load_arrays(path: Path) -> dict[str, Array]:
    """Reads what `save_arrays` wrote.

    Raises:
        DataError: the file is missing or is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            plain = {name: archive[name] for name in archive.files}
        strings = {
            name.removesuffix(LENGTHS): split_strings(
                plain.pop(name.removesuffix(LENGTHS) + BYTES).tobytes(), plain.pop(name)
            )
            for name in list(plain)
            if name.endswith(LENGTHS)
        }
        narrow = {
            name.removesuffix(BFLOAT16): plain.pop(name).view(ml_dtypes.bfloat16)
            for name in list(plain)
            if name.endswith(BFLOAT16)
        }
    except BROKEN as exc:
        raise DataError("no readable arrays", where=path, got=exc, wanted="an .npz file") from exc
    return plain | strings | narrow


def split_strings(joined: bytes, lengths: Array) -> Array:
    """Strings from all their bytes in a row, and the length of each: `object` of `bytes`, of the lengths' shape."""
    ends = np.cumsum(lengths.ravel())
    items = np.empty(lengths.size, dtype=object)
    items[:] = [joined[end - length : end] for end, length in zip(ends, lengths.ravel(), strict=True)]
    return items.reshape(lengths.shape)


def prefixed(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays under `kind/name`, to keep several kinds in one file."""
    return {f"{kind}/{name}": array for name, array in arrays.items()}


def of_kind(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays that stand under `kind/`, by their own names."""
    return {name.removeprefix(f"{kind}/"): array for name, array in arrays.items() if name.startswith(f"{kind}/")}
