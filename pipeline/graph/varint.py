"""Variable-length numbers of protobuf and LevelDB: seven bits a byte, the lowest first."""

from __future__ import annotations


class CutOffError(ValueError):
    """The bytes end within a number or a field."""


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns a number in protobuf's and LevelDB's variable-length encoding, and the position of the next byte.

    Raises:
        CutOffError: it is cut off.
        ValueError: it is over 64 bits, or longer than needed: TensorFlow writes each value in one way only.
    """
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or (byte == 0 and shift):
                raise ValueError("a number is written in more bytes than it needs")
            return value, position + 1
        shift += 7
    if len(data) - at < 10:
        raise CutOffError("a number is cut off")
    raise ValueError("a number is longer than 64 bits")


def encode_varint(value: int) -> bytes:
    """Returns the encoding of a number (0 or more)."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def varint_size(value: int) -> int:
    """Returns the size in bytes of a number (0 or more)."""
    return max(1, -(-value.bit_length() // 7))
