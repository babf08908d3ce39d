"""Reads sorted tables of keys and values: the `.index` of a checkpoint, and whole checkpoints of the V1 format.

The layout is LevelDB's (google/leveldb, doc/table_format.md) as tensorflow/core/lib/io/format.cc,
block.cc and table_builder.cc write it:

    data blocks, metaindex block, index block, footer

    block      entries, restarts[n] uint32, n uint32      then 1 byte: 0 plain, 1 snappy
                                                          then the masked CRC-32C of block and byte, uint32
    entry      shared, unshared, size: varints            then the key's unshared bytes, then the value
    handle     offset, size: varints
    index      an entry per data block: a key not before its last, its handle
    footer     48 bytes: handle of the metaindex block, handle of the index block, zeros, magic uint64

Every number is little-endian. A key shares its beginning with the key before it; at a restart it shares none.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from pipeline.graph.varint import read_varint
from pipeline.inputs import open_file

from ..file_kinds import broken_file, unreadable_file
from .snappy import decompress

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # type and CRC behind each block
_MAGIC = 0xDB4775248B80FB57
_RESTART_INTERVAL = 16  # TensorFlow writes a complete key after this many; see parse_block

_MASK_DELTA = 0xA282EAD8

_Handle = tuple[int, int]  # offset and size of a block, its trailer not counted


def mask_crc(crc: int) -> int:
    """Returns the stored form of a CRC-32C (tensorflow/core/lib/hash/crc32c.h): a CRC of bytes with CRCs is weak."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def unmask_crc(masked: int) -> int:
    """Returns the CRC-32C of a stored one."""
    rotated = (masked - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


class Table:
    """A sorted table on disk. Opening it checks footer and index; reading a data block checks the block.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is missing, another kind of file, truncated, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.size_bytes = os.fstat(file.fileno()).st_size
            metaindex, index = self._footer(file)
            if len(self._block(file, metaindex)) != 8:
                raise broken_file(path, "the table's metaindex is not empty")
            blocks = [(key, self._handle(value)) for key, value in self._entries(index, self._block(file, index))]
        self._last_keys = [key for key, _ in blocks]
        self._handles = [handle for _, handle in blocks]
        self._check_order()

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        """Yields keys and values in key order, which is the file's order. A value is a view into its block.

        Raises:
            CheckpointError: a block is damaged.
        """
        before = None
        with self._open() as file:
            for number in range(len(self._handles)):
                for key, value in self._data_block(file, number):
                    if before is not None and key <= before:
                        raise broken_file(self.path, "the table's keys are not in order")
                    before = key
                    yield key, value

    def get(self, key: bytes) -> memoryview | None:
        """Returns the value of a key, None if there is none. Reads only the block that may hold it.

        Raises:
            CheckpointError: that block is damaged.
        """
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        with self._open() as file:
            return dict(self._data_block(file, number)).get(key)

    def _open(self) -> BinaryIO:
        try:
            return open_file(self.path, buffering=0)
        except OSError as exc:
            raise unreadable_file(self.path, exc) from exc

    def _read(self, file: BinaryIO, offset: int, size: int) -> bytes:
        """Some bytes of the file; a damaged offset or size is caught before anything is allocated for it."""
        if offset + size > self.size_bytes:
            raise broken_file(
                self.path, "a block lies outside the table", got=f"{offset} + {size}", wanted=f"<= {self.size_bytes}"
            )
        try:
            file.seek(offset)
            data = file.read(size)
        except OSError as exc:
            raise unreadable_file(self.path, exc) from exc
        if len(data) != size:
            raise broken_file(self.path, "the table ends too early", got=len(data), wanted=size)
        return data

    def _footer(self, file: BinaryIO) -> tuple[_Handle, _Handle]:
        """The handles of the metaindex and of the index block."""
        if self.size_bytes < _FOOTER_BYTES:
            raise broken_file(
                self.path, "too short for a table", got=f"{self.size_bytes} bytes", wanted=f">= {_FOOTER_BYTES}"
            )
        footer = self._read(file, self.size_bytes - _FOOTER_BYTES, _FOOTER_BYTES)
        (magic,) = struct.unpack("<Q", footer[-8:])
        if magic != _MAGIC:
            raise broken_file(self.path, "not a checkpoint's table", got=f"magic {magic:#x}", wanted=f"{_MAGIC:#x}")
        try:
            numbers, at = [], 0
            for _ in range(4):
                number, at = read_varint(footer, at)
                numbers.append(number)
        except ValueError as exc:
            raise broken_file(self.path, f"the table's footer is damaged: {exc}") from exc
        if any(footer[at:-8]):
            raise broken_file(self.path, "the table's footer is damaged", got=footer[at:-8].hex(), wanted="zeros")
        return (numbers[0], numbers[1]), (numbers[2], numbers[3])

    def _handle(self, value: memoryview) -> _Handle:
        try:
            offset, at = read_varint(value, 0)
            size, at = read_varint(value, at)
        except ValueError as exc:
            raise broken_file(self.path, f"a block's handle is damaged: {exc}") from exc
        if at != len(value):
            raise broken_file(self.path, "a block's handle is damaged", got=f"{len(value)} bytes", wanted=at)
        return offset, size

    def _check_order(self) -> None:
        """Checks that blocks follow one another: no byte is read twice, so the time is bounded by the file's size."""
        if any(key >= after for key, after in zip(self._last_keys, self._last_keys[1:], strict=False)):
            raise broken_file(self.path, "the table's index is not in order")
        end = 0
        for offset, size in self._handles:
            if offset < end:
                raise broken_file(self.path, "two blocks of the table overlap", got=offset, wanted=f">= {end}")
            end = offset + size + _TRAILER_BYTES

    def _block(self, file: BinaryIO, handle: _Handle) -> memoryview:
        """Returns the content of a block: CRC checked, decompressed."""
        offset, size = handle
        data = self._read(file, offset, size + _TRAILER_BYTES - 4)  # a V1 block may be large: not copied for its CRC
        (masked,) = struct.unpack("<I", self._read(file, offset + len(data), 4))
        got, wanted = google_crc32c.value(data), unmask_crc(masked)
        if got != wanted:
            raise broken_file(
                self.path, f"the block at {offset} is damaged: CRC-32C", got=f"{got:#010x}", wanted=f"{wanted:#010x}"
            )
        kind, content = data[size], memoryview(data)[:size]
        if kind > 1:
            raise broken_file(self.path, f"unknown compression of the block at {offset}", got=kind, wanted="0 or 1")
        try:
            return memoryview(decompress(content)) if kind else content
        except ValueError as exc:
            raise broken_file(self.path, f"the block at {offset} is damaged: {exc}") from exc

    def _data_block(self, file: BinaryIO, number: int) -> Iterator[tuple[bytes, memoryview]]:
        """Yields the entries of a block; their keys must be in the range given by the index."""
        handle = self._handles[number]
        low, high = self._last_keys[number - 1] if number else None, self._last_keys[number]
        for key, value in self._entries(handle, self._block(file, handle)):
            if key > high or (low is not None and key <= low):
                raise broken_file(self.path, f"a key of the block at {handle[0]} is not where the index has it")
            yield key, value

    def _entries(self, handle: _Handle, block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        try:
            yield from parse_block(block)
        except ValueError as exc:
            raise broken_file(self.path, f"the block at {handle[0]} is damaged: {exc}") from exc


def parse_block(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The entries of a block.

    Restarts are not needed for reading on from the first entry, but TensorFlow jumps to them, so they must
    lead to what stands there. Between two of them lie 16 entries at most: keys of a block that share their
    beginnings come to 16 times its bytes then, and never to their square.

    Raises:
        ValueError: the block is not what TensorFlow writes.
    """
    restarts, end = _restarts(block)
    data = block[:end]
    at, key, number, since = 0, b"", 0, 0
    while at < end:
        start = at
        shared, unshared, size, at = _lengths(data, at)
        if number < len(restarts) and restarts[number] == start:
            if shared:
                raise ValueError("a key at a restart shares its beginning with another")
            number, since = number + 1, 0
        since += 1
        if not number or since > _RESTART_INTERVAL:
            raise ValueError("a restart is missing")
        if shared > len(key) or at + unshared + size > end:
            raise ValueError("an entry reaches beyond its block")
        key = key[:shared] + bytes(data[at : at + unshared])
        at += unshared
        yield key, data[at : at + size]
        at += size
    if number != len(restarts) and (end or restarts != (0,)):
        raise ValueError("a restart leads into an entry")


def _restarts(block: memoryview) -> tuple[tuple[int, ...], int]:
    """Returns the restarts of a block, and the end of its entries."""
    if len(block) < 8:
        raise ValueError("too short for a block")
    (count,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * count
    if not count or end < 0:
        raise ValueError(f"{count} restarts in {len(block)} bytes")
    return struct.unpack_from(f"<{count}I", block, end), end


def _lengths(data: memoryview, at: int) -> tuple[int, int, int, int]:
    """Returns shared and unshared bytes of the key, bytes of the value, and the start of the key's bytes."""
    if at + 3 <= len(data) and data[at] | data[at + 1] | data[at + 2] < 128:
        return data[at], data[at + 1], data[at + 2], at + 3
    shared, at = read_varint(data, at)
    unshared, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return shared, unshared, size, at
