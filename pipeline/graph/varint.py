"""Numbers in the variable-length encoding that protobuf and LevelDB share: seven bits a byte, the lowest first."""

from __future__ import annotations


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number in protobuf's and LevelDB's variable-length encoding, and where the next byte stands.

    Raises:
        ValueError: it is cut off, over 64 bits, or written in more bytes than it needs: TensorFlow never does
            that, and there is one way only to write a value.
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


def varint_size(value: int) -> int:
    """How many bytes a number (0 or more) takes."""
    return max(1, -(-value.bit_length() // 7))
