"""Read and write named arrays, including strings, in one `.npz` file; the same arrays give the same bytes.

NumPy stores strings of bytes only as pickles, or with a fixed width that drops zero bytes at the end. So an array of
strings is stored as two arrays: all bytes joined together, and the length of each string.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import ml_dtypes
import numpy as np

from pipeline.errors import DataError
from pipeline.inputs import open_file
from pipeline.signature import Array

# Errors that NumPy and zipfile raise for a file that is damaged or has another format; a header is Python's syntax.
BROKEN = (
    *(
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        OverflowError,
    ),
    *(zipfile.BadZipFile, zlib.error, SyntaxError, TokenError, struct.error),
)
BYTES, LENGTHS, BFLOAT16 = "//bytes", "//lengths", "//bfloat16"


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name; an `object` array must contain `bytes`.

    Raises:
        TypeError: an `object` array contains something else.
    """
    plain: dict[str, Array] = {}
    for name, array in sorted(arrays.items()):
        if array.dtype == object:
            plain[name + BYTES] = np.frombuffer(b"".join(array.ravel().tolist()), np.uint8)
            plain[name + LENGTHS] = np.array([len(item) for item in array.ravel()], np.int64).reshape(array.shape)
        elif array.dtype == ml_dtypes.bfloat16:  # NumPy's file format has no such dtype
            plain[name + BFLOAT16] = array.view(np.uint16)
        else:
            plain[name] = array
    # np.savez would take a name such as "file" for its own parameter, so the arrays are written one by one.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in plain.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)


def load_arrays(path: Path) -> dict[str, Array]:
    """Read a file that `save_arrays` wrote.

    Raises:
        DataError: the file is missing, damaged or has another format.
    """
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            _require_sound(archive.zip)
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


def load_given_arrays(path: Path) -> dict[str, Array]:
    """Read an `.npz` or `.npy` that others wrote: as `load_arrays`, and arrays of objects that are bytes or text.

    NumPy stores such objects as a pickle. Of one, only what makes an array is called.

    Returns:
        The arrays by name; the array of an `.npy` under the name `""`.

    Raises:
        DataError: the file is missing, damaged or has another format, or an array holds other objects.
    """
    try:
        with open_file(path) as file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                return {"": _read_array(file)}
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                _require_sound(archive)
                objects = {
                    info.filename.removesuffix(".npy"): _read_array(member)
                    for info in archive.infolist()
                    if _holds_objects(archive, info)
                    for member in [archive.open(info)]
                }
    except (*BROKEN, pickle.UnpicklingError, AttributeError, IndexError) as exc:
        raise DataError("no readable arrays", where=path, got=exc, wanted="an .npz file") from exc
    return load_arrays(path) if not objects else _load_plain(path, objects)


def _load_plain(path: Path, objects: Mapping[str, Array]) -> dict[str, Array]:
    """Read the arrays of a file besides those of objects."""
    with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
        return {name: objects[name] if name in objects else archive[name] for name in archive.files}


def _holds_objects(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    with archive.open(info) as member:
        return bool(_read_header(member)[2].hasobject)


def _read_array(file: IO[bytes]) -> Array:
    shape, is_fortran, dtype = _read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        plain: Array = np.lib.format.read_array(file, allow_pickle=False)
        return plain
    found = _ArrayUnpickler(file).load()
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise ValueError("no array of objects")
    items = [item.encode() if isinstance(item, str) else item for item in found.ravel().tolist()]
    for item in items:
        if not isinstance(item, bytes):
            raise ValueError(f"an array holds objects that are neither bytes nor text: {type(item).__name__}")
    return object_array([bytes(item) for item in items]).reshape(shape, order="F" if is_fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays of bytes and text, and nothing else."""

    _ALLOWED = frozenset(
        [("numpy", "ndarray"), ("numpy", "dtype")]
        + [(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"an array holds objects that are neither bytes nor text: {module}.{name}")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def split_strings(joined: bytes, lengths: Array) -> Array:
    """Split joined bytes into strings of the given lengths: an `object` array of `bytes` with the shape of lengths."""
    ends = np.cumsum(lengths.ravel())
    items = [joined[end - length : end] for end, length in zip(ends, lengths.ravel(), strict=True)]
    return object_array(items).reshape(lengths.shape)


def object_array(values: Sequence[bytes]) -> Array:
    """Build an `object` array `[n]` of byte strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def add_kind(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Name the arrays `kind/name`, to store several kinds in one file."""
    return {f"{kind}/{name}": array for name, array in arrays.items()}


def of_kind(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays with names `kind/name`, by name."""
    return {name.removeprefix(f"{kind}/"): array for name, array in arrays.items() if name.startswith(f"{kind}/")}


_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field (PKWARE's APPNOTE, 4.3.7)
_BLOCK = 4096  # rows per block; the offset of the first string of each block is remembered


@dataclass(frozen=True)
class _Member:
    """An array in the archive, whose first element is at `offset` in the file."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, file: IO[bytes], start: int, stop: int) -> Array:
        """Read some of its rows."""
        per_row = math.prod(self.shape[1:])
        file.seek(self.offset + start * per_row * self.dtype.itemsize)
        count = max(0, stop - start) * per_row
        content = file.read(count * self.dtype.itemsize)
        if len(content) != count * self.dtype.itemsize:
            raise EOFError("the file is cut off")
        return np.frombuffer(content, self.dtype).reshape(max(0, stop - start), *self.shape[1:]).copy()


class NpzReader:
    """Reads the arrays of one kind in a file by rows, without loading all of them.

    Args:
        path: a file that `save_arrays` wrote.
        kind: reads the arrays named `kind/name`; all arrays if empty.

    Raises:
        DataError: the file is missing, damaged or compressed, or its arrays have different numbers of rows.
    """

    def __init__(self, path: Path, kind: str = "") -> None:
        self.path, self.kind = path, kind
        prefix = f"{kind}/" if kind else ""
        with self._open() as file:
            members = _members(file)
        self._members = {name.removeprefix(prefix): one for name, one in members.items() if name.startswith(prefix)}
        self.names = list(dict.fromkeys(name.split("//")[0] for name in self._members))
        counts = {name: one.shape[0] for name, one in self._members.items() if one.shape and not name.endswith(BYTES)}
        if len(set(counts.values())) > 1:
            raise DataError("the arrays have different numbers of rows", where=path, got=counts)
        self._count = next(iter(counts.values()), 0 if self._members else 1)  # a model without inputs has one row
        self._starts: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path.absolute(), self.kind)  # the other process may have another working folder

    @cached_property
    def first(self) -> dict[str, Array]:
        """The first row by name, for dtypes and shapes; arrays without rows if there is none."""
        return self.read(0, min(1, len(self)))

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Read consecutive rows, by name `[stop - start, ...]`; fewer at the end.

        Raises:
            DataError: the file is cut off or gone.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        with self._open() as file:
            return {name: self._column(file, name, start, stop) for name in self.names}

    def take(self, numbers: Sequence[int] | Array) -> dict[str, Array]:
        """Read rows by their numbers, in that order. Raises: as `read`."""
        parts = [self.read(start, stop) for start, stop in _runs(numbers)] or [self.read(0, 0)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    def batches(self, size: int) -> Iterator[range]:
        """Return the row numbers of each batch."""
        return (range(start, min(start + size, len(self))) for start in range(0, len(self), size))

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            with open_file(self.path) as file:
                yield file
        except BROKEN as exc:
            wanted = "an .npz file, uncompressed"
            raise DataError("no readable arrays", where=self.path, got=exc, wanted=wanted) from exc

    def _column(self, file: IO[bytes], name: str, start: int, stop: int) -> Array:
        if name in self._members:
            return self._members[name].read(file, start, stop)
        if name + BFLOAT16 in self._members:
            return self._members[name + BFLOAT16].read(file, start, stop).view(ml_dtypes.bfloat16)
        lengths, content = self._members[name + LENGTHS], self._members[name + BYTES]
        wanted = lengths.read(file, start, stop)
        block = start // _BLOCK
        before = lengths.read(file, block * _BLOCK, start)
        first = self._block_starts(file, name)[block] + int(before.sum())
        return split_strings(content.read(file, first, first + int(wanted.sum())).tobytes(), wanted)

    def _block_starts(self, file: IO[bytes], name: str) -> list[int]:
        """Return the offset of the first string of each block of rows."""
        if name not in self._starts:
            lengths, starts = self._members[name + LENGTHS], [0]
            for start in range(0, len(self), _BLOCK):
                starts.append(starts[-1] + int(lengths.read(file, start, min(start + _BLOCK, len(self))).sum()))
            self._starts[name] = starts
        return self._starts[name]


@lru_cache(maxsize=4)
def _reopen(path: Path, kind: str) -> NpzReader:
    """Open a file that another process named; it stays open from batch to batch, with the offsets of its blocks."""
    return NpzReader(path, kind)


def _members(file: IO[bytes]) -> dict[str, _Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _require_sound(archive)
    return {info.filename.removesuffix(".npy"): _member(file, info) for info in infos}


def _require_sound(archive: zipfile.ZipFile) -> None:
    """Checks that each array stands in an archive once, and is as large as its shape; before anything is allocated."""
    counts = Counter(name.removesuffix(".npy") for name in archive.namelist())
    for name, count in counts.items():
        if count > 1:
            raise ValueError(f"the array {name!r} stands in it {count} times")
    for info in archive.infolist():
        with archive.open(info) as member:  # which compares what stands before the array with the list at the end
            shape, _, dtype = _read_header(member)
            size = member.tell() + math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and (size != info.file_size or min(shape, default=0) < 0):
            raise ValueError(f"{info.filename} is of another size than its shape")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _member(file: IO[bytes], info: zipfile.ZipInfo) -> _Member:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    file.seek(info.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(name + extra, 1)
    shape, is_fortran, dtype = _read_header(file)
    if dtype.hasobject or (is_fortran and len(shape) > 1):
        raise ValueError(f"{info.filename} contains Python objects, or is in Fortran order")
    return _Member(file.tell(), dtype, shape)


def _runs(numbers: Sequence[int] | Array) -> Iterator[tuple[int, int]]:
    """Yield ranges of consecutive numbers."""
    values = np.asarray(numbers, np.int64)
    for run in np.split(values, np.flatnonzero(np.diff(values) != 1) + 1):
        if len(run):
            yield int(run[0]), int(run[-1]) + 1
