"""Changes messages of protobuf as a file can be changed: every way in which two readers could take the same bytes."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any

from leveldb_tables import varint

from pipeline.graph.wire import LENGTH_DELIMITED, VARINT, fields

_UNKNOWN = 999  # a field's number that no message has


@dataclass
class Part:
    """A field of a message; one that is a message itself has parts of its own."""

    number: int
    kind: int
    content: bytes
    message: Any = None
    parts: list[Part] = field(default_factory=list)
    tag: bytes = b""
    length: bytes = b""

    def encode(self) -> bytes:
        tag = self.tag or varint(self.number << 3 | self.kind)
        content = b"".join(part.encode() for part in self.parts) if self.message is not None else self.content
        length = (self.length or varint(len(content))) if self.kind == LENGTH_DELIMITED else b""
        return tag + length + content


def parse(raw: bytes, message: Any) -> list[Part]:
    """Takes a message apart, by its descriptor."""
    known, found = {one.number: one for one in message.fields}, []
    for one in fields(raw):
        content, inner = raw[one.content : one.end], known.get(one.number)
        inside = inner.message_type if inner is not None and one.kind == LENGTH_DELIMITED else None
        found.append(Part(one.number, one.kind, content, inside, parse(content, inside) if inside else []))
    return found


def mutant(raw: bytes, message: Any, draw: random.Random) -> bytes:
    """Returns the message with a few changes."""
    parts = parse(raw, message)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        _change(parts, message, draw)
    made = b"".join(part.encode() for part in parts)
    match draw.randrange(30):
        case 0:
            return made[: draw.randrange(len(made) + 1)]
        case 1:
            return made + draw.randbytes(draw.randrange(1, 4))
        case 2 if made:
            at = draw.randrange(len(made))
            return made[:at] + draw.randbytes(1) + made[at + 1 :]
    return made


def _change(parts: list[Part], message: Any, draw: random.Random) -> None:
    where, inside = parts, message
    while True:  # down to any depth
        deeper = [part for part in where if part.parts]
        if not deeper or draw.random() < 0.2:
            break
        chosen = draw.choice(deeper)
        where, inside = chosen.parts, chosen.message
    if not where:
        return
    at = draw.randrange(len(where))
    part = where[at]
    match draw.randrange(12):
        case 0 | 1 | 2:  # twice, the copy changed: before or behind, next to it or far away
            where.insert(draw.choice([at, at + 1, 0, len(where)]), _other(part, draw))
        case 3:
            where.insert(draw.randrange(len(where) + 1), _copy(part))
        case 4 if part.message is not None:  # a message in two parts, which protobuf merges
            cut, second = draw.randrange(len(part.parts) + 1), _copy(part)
            part.parts, second.parts = part.parts[:cut], second.parts[cut:]
            where.insert(at + 1, second)
        case 5:
            part.tag = _longer(varint(part.number << 3 | part.kind))
        case 6 if part.kind == LENGTH_DELIMITED and part.message is None:
            part.length = _longer(varint(len(part.content)))
        case 7 if part.kind == VARINT:
            part.content = _longer(part.content)
        case 8:  # a group, or a field of a kind or number that is unknown
            odd = [
                Part(_UNKNOWN, 3, b"\x08\x01" + varint(_UNKNOWN << 3 | 4)),
                Part(_UNKNOWN, LENGTH_DELIMITED, draw.randbytes(3)),
                Part(_UNKNOWN, 6, b""),
                Part(0, VARINT, b"\x01"),
                Part(part.number, VARINT, b"\x01"),
                Part(part.number, 5, b"\0\0\x80?"),
            ]
            where.insert(draw.randrange(len(where) + 1), draw.choice(odd))
        case 9:
            _unpack(where, at, inside)
        case 10 if len(where) > 1:
            where.insert(draw.randrange(len(where)), where.pop(at))
        case _:
            where[at] = _other(part, draw)


def _other(part: Part, draw: random.Random) -> Part:
    """Another value of the same field."""
    made = _copy(part)
    if made.parts:
        inner = draw.randrange(len(made.parts))
        made.parts[inner] = _other(made.parts[inner], draw)
    elif made.kind == VARINT:
        made.content = varint(draw.choice([0, 1, 2, 3, 7, 2**31, 2**63]))
    elif made.content:
        at = draw.randrange(len(made.content))
        made.content = made.content[:at] + draw.choice([b"\0", b"1", b"\xff"]) + made.content[at + 1 :]
    return made


def _copy(part: Part) -> Part:
    return Part(part.number, part.kind, part.content, part.message, [_copy(one) for one in part.parts])


def _longer(number: bytes) -> bytes:
    return number[:-1] + bytes([number[-1] | 0x80]) + b"\0"


def _unpack(where: list[Part], at: int, message: Any) -> None:
    """Writes a list of float32 as the older form has it: each number is a field of its own."""
    known = {one.number: one for one in message.fields} if message is not None else {}
    part = where[at]
    kind = known.get(part.number)
    if kind is None or kind.type != kind.TYPE_FLOAT or part.kind != LENGTH_DELIMITED or len(part.content) % 4:
        return
    numbers = struct.iter_unpack("4s", part.content)
    where[at : at + 1] = [Part(part.number, 5, number) for (number,) in numbers]
