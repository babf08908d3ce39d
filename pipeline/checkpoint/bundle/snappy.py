"""Snappy decompression: TensorFlow 1.0 and 1.1 wrote the index of a checkpoint compressed.

The layout is google/snappy's format_description.txt.
"""

from __future__ import annotations

from pipeline.graph.varint import read_varint

# The best that three bytes can do is to repeat 64.
MOST_PER_BYTE = 22


def decompress(data: memoryview) -> bytes:
    """Returns the content of a compressed block.

    Time and memory are bounded by `MOST_PER_BYTE` times the block, whatever size it announces.

    Raises:
        ValueError: the block is not what a compressor writes.
    """
    size, at = read_varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length, at = _literal_length(data, tag, at)
            if at + length > len(data):
                raise ValueError("a literal of the compressed block is cut off")
            out += data[at : at + length]
            at += length
        else:
            length, offset, at = _copy(data, tag, at)
            if at > len(data) or not 0 < offset <= len(out):
                raise ValueError("a copy in the compressed block is cut off, or starts before it")
            start = len(out) - offset
            pattern = out[start : start + length]  # repeats itself where it is shorter than the copy
            out += (pattern * (length // len(pattern) + 1))[:length]
        if len(out) > size:
            break
    if len(out) != size:
        raise ValueError(f"a compressed block does not hold the {size} bytes that it announces")
    return bytes(out)


def _literal_length(data: memoryview, tag: int, at: int) -> tuple[int, int]:
    """Returns the length of a literal, and the start of its bytes. 60 to 63 stand for lengths of 1 to 4 bytes."""
    length = tag >> 2
    extra = max(0, length - 59)
    return (int.from_bytes(data[at : at + extra], "little") if extra else length) + 1, at + extra


def _copy(data: memoryview, tag: int, at: int) -> tuple[int, int, int]:
    """Returns length and offset (back from the end) of a copy, and the start of the next element."""
    if tag & 3 == 1:
        return 4 + (tag >> 2 & 7), tag >> 5 << 8 | int.from_bytes(data[at : at + 1], "little"), at + 1
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little"), at + width
