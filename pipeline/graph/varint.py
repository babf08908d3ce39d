"""Variable-length numbers of protobuf and LevelDB: seven bits a byte, the lowest first."""

from __future__ import annotations


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns a number in protobuf's and LevelDB's variable-length encoding, and the position of the next byte.

    Raises:
        ValueError: it is cut off, over 64 bits, or longer than needed: TensorFlow writes each value in one way only.
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
    raise ValueError("a number is cut off")


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
