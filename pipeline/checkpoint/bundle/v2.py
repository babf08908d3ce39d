"""Checkpoints of the V2 format: `PREFIX.index` lists the position of each tensor in `PREFIX.data-…`.

The layout is tensorflow/core/util/tensor_bundle/tensor_bundle.cc's. The index is a table: under the empty
key a BundleHeaderProto, under each tensor's key a BundleEntryProto. A partitioned tensor's entry lists its
slices, and each slice has an entry of its own under an encoded key, which begins with a zero byte.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from pipeline.errors import CheckpointError
from pipeline.graph.dtypes import VARIANT, DType
from pipeline.graph.protos import BundleEntryProto, BundleHeaderProto, DecodeError
from pipeline.inputs import open_file

from ..file_kinds import broken_file, unreadable_file
from .leveldb import Table, unmask_crc
from .ordered_code import slice_key
from .packing import unpack_strings, variants_crc
from .tensor import StoredTensor, box_of, check_cover, extents_of, require_dtype, require_shape, require_version

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Extent:
    """A piece that is a range of bytes in a data file."""

    path: Path
    start: tuple[int, ...]
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    crc: int

    def content(self, tensor: StoredTensor, chunk_bytes: int) -> Iterator[bytes]:
        crc, left = 0, self.size_bytes
        try:
            with open_file(self.path, buffering=0) as file:
                file.seek(self.offset)
                while left:
                    chunk = file.read(min(left, chunk_bytes))
                    if not chunk:
                        raise broken_file(
                            self.path, f"{tensor.key!r} is cut off", got=self.size_bytes - left, wanted=self.size_bytes
                        )
                    left -= len(chunk)
                    crc = google_crc32c.extend(crc, chunk)
                    yield chunk
        except OSError as exc:
            raise unreadable_file(self.path, exc) from exc
        self._check_crc(tensor, crc)

    def strings(self, tensor: StoredTensor) -> list[bytes]:
        try:
            strings, crc = unpack_strings(self._bytes(tensor), math.prod(self.shape))
        except ValueError as exc:
            raise broken_file(self.path, f"{tensor.key!r} is damaged: {exc}") from exc
        self._check_crc(tensor, crc)
        return strings

    def verify(self, tensor: StoredTensor) -> None:
        if tensor.is_string:
            self.strings(tensor)
        elif tensor.dtype == VARIANT.number:
            try:
                self._check_crc(tensor, variants_crc(self._bytes(tensor), math.prod(self.shape)))
            except ValueError as exc:
                raise broken_file(self.path, f"{tensor.key!r} is damaged: {exc}") from exc
        else:
            for _ in self.content(tensor, _CHUNK_BYTES):
                pass

    def _bytes(self, tensor: StoredTensor) -> bytes:
        try:
            with open_file(self.path, buffering=0) as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as exc:
            raise unreadable_file(self.path, exc) from exc
        if len(data) != self.size_bytes:
            raise broken_file(self.path, f"{tensor.key!r} is cut off", got=len(data), wanted=self.size_bytes)
        return data

    def _check_crc(self, tensor: StoredTensor, got: int) -> None:
        if got != self.crc:
            raise broken_file(
                self.path, f"{tensor.key!r} is damaged: CRC-32C", got=f"{got:#010x}", wanted=f"{self.crc:#010x}"
            )


def read_tensors(prefix: Path | str) -> dict[str, StoredTensor]:
    """Returns the tensors of a checkpoint by key, in key order. Data files are not read, only their sizes.

    Raises:
        CheckpointError: a file is missing, another kind of file, truncated or damaged; the index contradicts
            itself or the data files.
    """
    records = iter(Table(Path(f"{prefix}.index")))
    index = _Index(prefix, next(records, None))
    for key, value in records:
        index.add(key, value)
    index.check_slices()
    _check_places(index.tensors)
    return index.tensors


class _Index:
    """Collects the entries of an index into tensors.

    The keys of slices sort before those of tensors, so that a tensor's slices are there when it comes.
    """

    def __init__(self, prefix: Path | str, header: tuple[bytes, memoryview] | None) -> None:
        self.prefix = prefix
        self.path = Path(f"{prefix}.index")
        self.tensors: dict[str, StoredTensor] = {}
        self.slices: dict[bytes, Any] = {}
        self.used: set[bytes] = set()
        self.files: dict[int, Path] = {}
        if header is None or header[0]:
            raise broken_file(
                self.path, "not the index of a checkpoint", got="no header", wanted="one under the key ''"
            )
        found = self._parse(BundleHeaderProto, *header)
        if found.endianness:
            raise CheckpointError(
                "the checkpoint comes from a big-endian machine",
                where=self.path,
                wanted="little-endian",
                next_step="Restore it with TensorFlow and save it on this machine",
            )
        require_version(self.path, found.version)
        self.shards = found.num_shards

    def _parse(self, kind: Any, key: bytes, value: memoryview) -> Any:
        try:
            return kind.FromString(value)
        except DecodeError as exc:
            raise broken_file(self.path, f"the entry of {key!r} is not a {kind.DESCRIPTOR.name}") from exc

    def add(self, key: bytes, value: memoryview) -> None:
        """Adds the next entry, in key order."""
        entry = self._parse(BundleEntryProto, key, value)
        if key.startswith(b"\0"):
            self.slices[key] = entry
            return
        try:
            name = key.decode()
        except UnicodeDecodeError as exc:
            raise broken_file(self.path, "a key is not UTF-8", got=key[:80]) from exc
        self.tensors[name] = self._tensor(name, entry)

    def _tensor(self, key: str, entry: Any) -> StoredTensor:
        """Returns the tensor of an entry, assembled from its slices if it has any."""
        dtype = require_dtype(self.path, key, entry.dtype)
        shape = require_shape(self.path, key, entry.shape)
        if not entry.slices:
            extent = self._extent(key, dtype, entry, (0,) * len(shape), shape)
            return StoredTensor(key, dtype.number, shape, extent.size_bytes, (extent,))
        slices = sorted((self._slice(key, entry, dtype, shape, proto) for proto in entry.slices), key=lambda e: e.start)
        check_cover(self.path, key, slices, shape)
        return StoredTensor(key, dtype.number, shape, sum(extent.size_bytes for extent in slices), tuple(slices))

    def _slice(self, key: str, whole: Any, dtype: DType, shape: tuple[int, ...], proto: Any) -> Extent:
        extents = extents_of(proto)
        start, size = box_of(self.path, key, extents, shape)
        encoded = slice_key(key, extents)
        entry = self.slices.get(encoded)
        if entry is None:
            raise broken_file(self.path, f"a slice of {key!r} is missing", got=list(extents)[:8])
        if entry.slices or entry.dtype != whole.dtype or require_shape(self.path, key, entry.shape) != size:
            raise broken_file(self.path, f"a slice of {key!r} does not fit it", wanted=f"{dtype.name} {list(size)[:8]}")
        self.used.add(encoded)
        return self._extent(key, dtype, entry, start, size)

    def _extent(self, key: str, dtype: DType, entry: Any, start: tuple[int, ...], shape: tuple[int, ...]) -> Extent:
        elements = math.prod(shape)
        # Strings take a length and a checksum at least; so the bytes on disk bound how many there can be.
        is_right = entry.size == elements * dtype.size_bytes if dtype.size_bytes else entry.size >= elements
        if entry.offset < 0 or not is_right:
            raise broken_file(
                self.path,
                f"the place of {key!r} does not fit its shape",
                got=f"{entry.size} bytes at {entry.offset}",
                wanted=f"{elements * dtype.size_bytes or f'{elements} or more'} bytes: {dtype.name} {list(shape)[:8]}",
            )
        if not 0 <= entry.shard_id < self.shards:
            raise broken_file(
                self.path, f"{key!r} lies in a shard that does not exist", got=entry.shard_id, wanted=f"< {self.shards}"
            )
        path = self.files.get(entry.shard_id)
        if path is None:
            path = Path(f"{self.prefix}.data-{entry.shard_id:05d}-of-{self.shards:05d}")
            self.files[entry.shard_id] = path
        return Extent(path, start, shape, entry.offset, entry.size, unmask_crc(entry.crc32c))

    def check_slices(self) -> None:
        """Checks that every slice belongs to a tensor."""
        lost = self.slices.keys() - self.used
        if lost:
            raise broken_file(self.path, "a slice belongs to no tensor", got=min(lost)[:80])


def _check_places(tensors: Mapping[str, StoredTensor]) -> None:
    """Checks that the extents are inside their data files and that no two overlap."""
    by_file: dict[Path, list[tuple[int, int, str]]] = {}
    for key, tensor in tensors.items():
        for piece in tensor.pieces:
            assert isinstance(piece, Extent)
            by_file.setdefault(piece.path, []).append((piece.offset, piece.size_bytes, key))
    for path, places in by_file.items():
        size_bytes, end, before = _size_of(path), 0, ""
        for offset, size, key in sorted(places):
            if offset + size > size_bytes:
                raise broken_file(
                    path, f"{key!r} lies outside the file", got=f"{size_bytes} bytes", wanted=f">= {offset + size}"
                )
            if offset < end and size:
                raise broken_file(path, f"{before!r} and {key!r} overlap", got=offset, wanted=f">= {end}")
            if size:
                end, before = offset + size, key


def _size_of(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as exc:
        raise unreadable_file(path, exc) from exc
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError("not a file", where=path, wanted="a file of the checkpoint, and no folder, link or pipe")
    return found.st_size
