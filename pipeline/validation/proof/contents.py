"""Contents of constants: equal contents get one number, however they are stored.

Two contents are equal if dtype, shape and all bits are. Large ones are compared only with those of the same dtype and
shape whose samples agree, piece by piece, straight from the files: hashing all of them would take longer than reading.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.bundle.v2 import Extent
from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.protos import TensorProto
from pipeline.graph.tensors import content_of, shape_of, strings_of
from pipeline.inputs import open_file
from pipeline.signature import Array

_SMALL = 4096  # bytes, up to which a content is its own key
_SAMPLES, _SAMPLE_BYTES = 16, 64
_PIECE = 1 << 20

Raw = bytes | memoryview


@dataclass(frozen=True)
class Content:
    """The elements of a constant or of a variable.

    Args:
        dtype: TensorFlow's DataType.
        shape: all lengths are known.
        size_bytes: of the elements; of strings, with their lengths.
        read: returns the elements' bytes, row-major and little-endian; of strings, see `join_strings`.
        name: of the constant or variable, for messages.
    """

    dtype: int
    shape: tuple[int, ...]
    size_bytes: int
    read: Callable[[], Raw]
    name: str = ""

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        dtype = DTYPES[self.dtype].name if self.dtype in DTYPES else str(self.dtype)
        return f"{dtype} {list(self.shape)}"


def join_strings(strings: Sequence[bytes]) -> bytes:
    """Returns strings as bytes from which they can be told apart: each behind its length."""
    return b"".join(len(string).to_bytes(8, "little") + string for string in strings)


def content_of_tensor(proto: TensorProto, content: memoryview | None = None, name: str = "") -> Content:
    """Returns the content of a constant.

    Args:
        content: its `tensor_content`, if that is not in the message.

    Raises:
        DataError: the message is broken.
    """
    shape = shape_of(proto)
    if proto.dtype == STRING.number:
        joined = join_strings(strings_of(proto))
        return Content(proto.dtype, shape, len(joined), lambda: joined, name)
    raw = content_of(proto, content)
    return Content(proto.dtype, shape, len(raw), lambda: raw, name)


def content_of_array(array: Array, dtype: int, name: str = "") -> Content:
    """Returns the content of an array of numbers."""
    raw = np.ascontiguousarray(array).tobytes()
    return Content(dtype, array.shape, len(raw), lambda: raw, name)


def content_of_variable(bundle: Bundle, key: str, part: str, name: str) -> Content:
    """Returns the content of a variable, which is read from its file where it is compared.

    Args:
        part: of a partitioned variable, `start,length` or `-` per axis, joined by `:`; empty for the whole.

    Raises:
        CheckpointError: the checkpoint has no such key.
        ValueError: the part is malformed.
    """
    tensor = bundle.tensor(key)
    box = _box_of(part, tensor.shape)
    shape = tuple(stop - start for start, stop in box)
    if tensor.is_string:
        strings = np.asarray(bundle.strings(key), object).reshape(tensor.shape)
        joined = join_strings(np.asarray(strings[tuple(slice(*side) for side in box)], object).reshape(-1).tolist())
        return Content(tensor.dtype, shape, len(joined), lambda: joined, name)
    size_bytes = math.prod(shape) * tensor.kind.size_bytes

    @cache
    def read() -> Raw:
        piece = tensor.pieces[0] if len(tensor.pieces) == 1 else None
        if shape != tensor.shape:
            return bundle.read(key)[tuple(slice(*side) for side in box)].tobytes()
        if isinstance(piece, Extent) and size_bytes:
            return _mapped(piece.path)[piece.offset : piece.offset + size_bytes]
        return b"".join(bundle.stream(key))

    return Content(tensor.dtype, shape, size_bytes, read, name)


def _box_of(part: str, shape: Sequence[int]) -> list[tuple[int, int]]:
    """Parses the part of a partitioned variable (tensorflow/core/framework/tensor_slice.h) to starts and stops."""
    sides = part.split(":") if part else ["-"] * len(shape)
    if len(sides) != len(shape):
        raise ValueError(f"{part!r} is no part of {list(shape)}")
    pairs = [(0, size) if side == "-" else tuple(map(int, side.split(","))) for side, size in zip(sides, shape)]  # noqa: B905
    return [
        (first, second) if side == "-" else (first, first + second)
        for side, (first, second) in zip(sides, pairs, strict=True)
    ]


@cache
def _mapped(path: Path) -> memoryview:
    with open_file(path) as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class ContentTable:
    """Numbers of contents: two contents have the same number exactly if they are equal."""

    def __init__(self) -> None:
        self.contents: list[Content] = []
        self._small: dict[tuple[int, tuple[int, ...], bytes], int] = {}
        self._large: dict[tuple[int, tuple[int, ...], int, bytes], list[int]] = {}

    def number(self, content: Content) -> int:
        """Returns the number of a content."""
        if content.size_bytes <= _SMALL:
            key = (content.dtype, content.shape, bytes(content.read()))
            if key not in self._small:
                self._small[key] = self._add(content)
            return self._small[key]
        alike = self._large.setdefault((content.dtype, content.shape, content.size_bytes, _sample(content)), [])
        for number in alike:
            if _is_same(self.contents[number].read(), content.read()):
                return number
        alike.append(self._add(content))
        return alike[-1]

    def _add(self, content: Content) -> int:
        self.contents.append(content)
        return len(self.contents) - 1

    def array(self, number: int) -> Array | None:
        """Returns a small content as an array, None if it is large, or if numpy lacks its dtype."""
        content = self.contents[number]
        kind = DTYPES.get(content.dtype)
        if kind is None or not kind.size_bytes or content.size_bytes > _SMALL:
            return None
        return np.frombuffer(bytes(content.read()), kind.numpy()).reshape(content.shape)

    def strings(self, number: int) -> list[bytes]:
        """Returns the elements of a content of strings."""
        joined, strings, at = bytes(self.contents[number].read()), list[bytes](), 0
        while at < len(joined):
            size = int.from_bytes(joined[at : at + 8], "little")
            strings.append(joined[at + 8 : at + 8 + size])
            at += 8 + size
        return strings


def tensor_of_content(contents: ContentTable, number: int) -> TensorProto:
    """Returns a content as the message that a constant has."""
    content = contents.contents[number]
    tensor = TensorProto(dtype=content.dtype)
    tensor.tensor_shape.SetInParent()
    for size in content.shape:
        tensor.tensor_shape.dim.add(size=size)
    if content.dtype == STRING.number:
        tensor.string_val.extend(contents.strings(number))
    else:
        tensor.tensor_content = bytes(content.read())
    return tensor


def _sample(content: Content) -> bytes:
    raw = content.read()
    step = max(1, (len(raw) - _SAMPLE_BYTES) // (_SAMPLES - 1))
    return b"".join(bytes(raw[at : at + _SAMPLE_BYTES]) for at in range(0, len(raw), step))[: 2 * _SAMPLES * 64]


def _is_same(one: Raw, other: Raw) -> bool:
    if one is other:
        return True
    return all(
        np.array_equal(_bytes(one[at : at + _PIECE]), _bytes(other[at : at + _PIECE]))
        for at in range(0, len(one), _PIECE)
    )


def _bytes(piece: Raw) -> np.ndarray[Any, Any]:
    return np.frombuffer(piece, "<u8" if len(piece) % 8 == 0 else "u1")
