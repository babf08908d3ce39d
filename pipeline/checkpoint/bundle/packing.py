"""Layout of elements of varying length in a data file: strings and variants.

The layouts are WriteStringTensor's and WriteVariantTensor's in tensorflow/core/util/tensor_bundle/tensor_bundle.cc.
Masked CRC-32Cs of what came before lie among the elements, beside the one in the index over all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import google_crc32c

from pipeline.graph.varint import read_varint, varint_size

from .leveldb import mask_crc

_CRC_BYTES = 4


def packed_size(strings: Iterable[bytes]) -> int:
    """Returns the bytes that strings take in a data file."""
    return _CRC_BYTES + sum(varint_size(len(string)) + len(string) for string in strings)


def unpack_strings(data: bytes, count: int) -> tuple[list[bytes], int]:
    """Returns the strings of a tensor, and the CRC-32C that the index should have for it.

        lengths: varints, then the masked CRC-32C of the lengths as uint32 each, then the strings

    The CRC-32C over all runs on from the lengths' to their checksum as stored and to the strings.

    Raises:
        ValueError: the lengths do not fill the bytes, or do not match their CRC-32C.
    """
    if not data and not count:
        return [], 0
    lengths, at = [], 0
    for _ in range(count):
        length, at = read_varint(data, at)
        lengths.append(length)
    crc = google_crc32c.value(_counted(lengths))
    crc = _check(data, at, crc)
    at += _CRC_BYTES
    if at + sum(lengths) != len(data):
        raise ValueError(f"its {count} strings take {at + sum(lengths)} bytes of {len(data)}")
    crc = google_crc32c.extend(crc, data[at:])
    strings = []
    for length in lengths:
        strings.append(data[at : at + length])
        at += length
    return strings, crc


def _counted(lengths: Sequence[int]) -> bytes:
    """Lengths as their CRC-32C counts them: four bytes each, eight where four are too few."""
    if max(lengths, default=0) >> 32:
        return b"".join(length.to_bytes(8 if length >> 32 else 4, "little") for length in lengths)
    return struct.pack(f"<{len(lengths)}I", *lengths)


def variants_crc(data: bytes, count: int) -> int:
    """Returns the CRC-32C that the index should have for a tensor of variants.

        for each: its length as a varint, its bytes, the masked CRC-32C up to here

    The CRC-32C runs over each length as uint64, the bytes, and the checksums as stored.

    Raises:
        ValueError: the variants do not fill the bytes, or do not match a CRC-32C.
    """
    crc = at = 0
    for _ in range(count):
        length, at = read_varint(data, at)
        crc = google_crc32c.extend(crc, struct.pack("<Q", length) + data[at : at + length])
        at += length
        crc = _check(data, at, crc)
        at += _CRC_BYTES
    if at != len(data):
        raise ValueError(f"its {count} variants take {at} bytes of {len(data)}")
    return crc


def _check(data: bytes, at: int, crc: int) -> int:
    """A CRC-32C run on over its own checksum, which must stand there."""
    stored, wanted = data[at : at + _CRC_BYTES].hex(), struct.pack("<I", mask_crc(crc)).hex()
    if stored != wanted:
        raise ValueError(f"a CRC-32C among its bytes is {stored or 'cut off'} instead of {wanted}")
    extended: int = google_crc32c.extend(crc, data[at : at + _CRC_BYTES])
    return extended
