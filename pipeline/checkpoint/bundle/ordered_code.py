"""Keys of the slices of partitioned tensors.

    0, name, rank, then start and length of each axis

as tensorflow/core/util/saved_tensor_slice_util.cc (EncodeTensorNameSlice) writes them in the encoding of
tensorflow/core/lib/strings/ordered_code.cc, whose bytes sort as the values do.
"""

from __future__ import annotations

from collections.abc import Sequence

FULL_EXTENT = (0, -1)  # start and length of an axis that is not partitioned


def slice_key(name: str, extents: Sequence[tuple[int, int]]) -> bytes:
    """Returns the key of one slice.

    Args:
        name: the whole tensor's key.
        extents: start and length by axis, `FULL_EXTENT` for a whole axis.
    """
    numbers = b"".join(_signed(number) for extent in extents for number in extent)
    # Escaped, and ended by 0 1. The byte 255 would be escaped too, but no UTF-8 holds it.
    escaped = name.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x01"
    return _unsigned(0) + escaped + _unsigned(len(extents)) + numbers


def _unsigned(value: int) -> bytes:
    """One byte with the number of bytes, then these, the highest first."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _signed(value: int) -> bytes:
    """The sign (1 for 0 and more) and as many equal bits as bytes follow the first; after a bit of the other kind
    the value in two's complement."""
    bits = (value if value >= 0 else ~value).bit_length() + 1
    size = -(-bits // 7)
    leading = ((1 << size) - 1) << (8 * size - size)  # sign and size bits
    return ((value & ((1 << 8 * size) - 1)) ^ leading).to_bytes(size, "big")
