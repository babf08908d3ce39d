"""Writes tables of keys and values, right ones and wrong ones, and takes them apart."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c

from pipeline.checkpoint.bundle.leveldb import mask_crc

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
Entries = Iterable[tuple[bytes, bytes]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def entry(shared: int, unshared: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(unshared)) + varint(len(value)) + unshared + value


def block(entries: Entries, interval: int = 16) -> bytes:
    """The content of a block: keys share what they can, but at every `interval`-th."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += entry(shared, key[shared:], value)
        before = key
    return out + with_restarts(restarts or [0])


def with_restarts(restarts: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def sealed(content: bytes, kind: int = 0) -> bytes:
    """A block with its type and a CRC that is right."""
    content += bytes([kind])
    return content + struct.pack("<I", mask_crc(google_crc32c.value(content)))


def table(
    blocks: Sequence[bytes], last_keys: Sequence[bytes], kinds: Sequence[int] = (), metaindex: bytes = b""
) -> bytes:
    """A table around the contents of its data blocks."""
    out, handles = b"", []
    for number, content in enumerate(blocks):
        handles.append(varint(len(out)) + varint(len(content)))
        out += sealed(content, kinds[number] if kinds else 0)
    return finished(out, list(zip(last_keys, handles, strict=True)), metaindex)


def finished(blocks: bytes, index_entries: Sequence[tuple[bytes, bytes]], metaindex: bytes = b"") -> bytes:
    """A table behind its data blocks, with an index of one's own making."""
    metaindex = metaindex or block([])
    index = block(index_entries, interval=1)
    meta_handle = varint(len(blocks)) + varint(len(metaindex))
    out = blocks + sealed(metaindex)
    footer = meta_handle + varint(len(out)) + varint(len(index))
    return out + sealed(index) + footer.ljust(40, b"\0") + MAGIC


def table_of(entries: Entries, per_block: int = 1000) -> bytes:
    """A table of entries, which must be sorted."""
    rows = list(entries)
    groups = [rows[at : at + per_block] for at in range(0, len(rows), per_block)]
    return table([block(group) for group in groups], [group[-1][0] for group in groups])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
