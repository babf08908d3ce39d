"""Walks the fields of a protobuf message, for whoever reads one without parsing it.

The layout is that of https://protobuf.dev/programming-guides/encoding. All walks here are this one, and it is narrower
than protobuf: what protobuf would write in another way is an error. So whatever is read by a walk has one reading only;
protobuf itself takes the last of several values, and merges several messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .varint import CutOffError, encode_varint, read_varint

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}
_MOST_NUMBER = (1 << 29) - 1


class Field(NamedTuple):
    """A field of a message, by its places in the message.

    Args:
        kind: the wire type.
        start: of its tag.
        content: where its bytes begin, behind the tag and, if it has one, the length.
        end: of its bytes.
    """

    number: int
    kind: int
    start: int
    content: int
    end: int


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yields the fields of a message; a walk that breaks off must not use what came before.

    Raises:
        CutOffError: the message ends within a field; the field comes first.
        ValueError: a number has more bytes than it needs or is cut off, a field's number is out of range, or a field is
            of a kind that proto3 does not know (such as a group).
    """
    at, size = 0, len(message)
    while at < size:
        start = at
        tag, at = read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        content = at
        if kind == VARINT:
            _, at = read_varint(message, at)
        elif kind == LENGTH_DELIMITED:
            length, content = read_varint(message, at)
            at = content + length
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if not 1 <= number <= _MOST_NUMBER:
            raise ValueError(f"a field of the impossible number {number}")
        yield Field(number, kind, start, content, at)
        if at > size:
            raise CutOffError(f"a field that begins at byte {start} needs {at} bytes, the file has {size}")


def contents_of(message: bytes | memoryview, number: int) -> list[memoryview]:
    """Returns the bytes of all fields of a number: of texts, messages, and lists of numbers.

    Raises:
        ValueError: the message is broken, or such a field is of another kind: in the older form of a list each number
            has a field of its own.
    """
    view, found = memoryview(message), list[memoryview]()
    for field in fields(view):
        if field.number == number:
            if field.kind != LENGTH_DELIMITED:
                raise ValueError(f"the field {number} is of the kind {field.kind}, in place of {LENGTH_DELIMITED}")
            found.append(view[field.content : field.end])
    return found


def encode_field(number: int, content: bytes) -> bytes:
    """Returns a field of bytes, such as a message."""
    return encode_varint(number << 3 | LENGTH_DELIMITED) + encode_varint(len(content)) + content
