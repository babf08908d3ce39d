"""Reads the tables of a flatbuffer without its schema: https://flatbuffers.dev/internals says how they lie there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST = 10_000_000  # entries of one list


class Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - read(data, "<i", at)
        self._size = read(data, "<H", self._fields)
        if self._size % 2 or self._size < 4:  # a runtime would see half a field more, and this reader not
            raise ValueError(f"a table of {self._size} bytes")

    def _place(self, field: int) -> int:
        """Returns the position of a field's value; 0 if it has none."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        offset = read(self._data, "<H", self._fields + entry)
        return self._at + offset if offset else 0

    def number(self, field: int, code: str) -> int:
        place = self._place(field)
        return read(self._data, code, place) if place else 0

    def _list(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + read(self._data, "<I", place)
        count = read(self._data, "<I", start)
        if count > min(_MOST, len(self._data)):
            raise ValueError(f"a list of {count} entries")
        return start + 4, count

    def text(self, field: int) -> str:
        start, size = self._list(field)
        return self._data[start : start + size].decode("utf-8", "replace")

    def table(self, field: int) -> Table | None:
        place = self._place(field)
        return Table(self._data, place + read(self._data, "<I", place)) if place else None

    def size(self, field: int) -> int:
        return self._list(field)[1]

    def content(self, field: int) -> bytes:
        start, size = self._list(field)
        return self._data[start : start + size]

    def numbers(self, field: int, code: str = "<i") -> list[int]:
        start, count = self._list(field)
        return [read(self._data, code, start + struct.calcsize(code) * index) for index in range(count)]

    def has(self, field: int) -> bool:
        return self._place(field) != 0

    def bytes_at(self, start: int, size: int) -> bytes:
        """Returns bytes of the whole file, of which some lie behind the flatbuffer."""
        return self._data[start : start + size]

    def tables(self, field: int) -> Iterator[Table]:
        start, count = self._list(field)
        for place in range(start, start + 4 * count, 4):
            yield Table(self._data, place + read(self._data, "<I", place))


def read(data: bytes, code: str, at: int) -> int:
    size = struct.calcsize(code)
    if not 0 <= at <= len(data) - size:
        raise ValueError(f"it points to byte {at}, and has {len(data)}")
    return int(struct.unpack_from(code, data, at)[0])
