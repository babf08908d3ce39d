"""Tensors of a checkpoint: dtype, shape, and the pieces with their content."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import CheckpointError
from pipeline.graph.dtypes import DTYPES, STRING, DType

from ..file_kinds import broken_file
from .ordered_code import FULL_EXTENT

# TensorFlow's own bounds: tensorflow/core/framework/tensor_shape.h, and an int64 that counts the elements.
_MOST_AXES = 254
_MOST_ELEMENTS = 2**63 - 1
_VERSION = 1  # kTensorBundleVersion, and TF_CHECKPOINT_VERSION of the V1 format
_MOST_PARTITIONED_AXES = 8  # partitioners of TensorFlow cut along one


class Piece(Protocol):
    """A tensor, or a box cut out of it, stored at one position of one file.

    Every method that reads raises a CheckpointError if the content is missing, cut off or damaged, or does not hold the
    elements of its shape; a wrong CRC-32C may be found only after the last element.
    """

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def start(self) -> tuple[int, ...]:
        """The start of the box, by axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The box's lengths, by axis."""

    def content(self, tensor: StoredTensor, chunk_bytes: int) -> Iterator[bytes]:
        """The elements in row-major order, little-endian, a few at a time. Not for strings."""

    def strings(self, tensor: StoredTensor) -> list[bytes]:
        """The elements of a string tensor, in row-major order."""

    def verify(self, tensor: StoredTensor) -> None:
        """Reads everything that is stored and checks it, of any dtype."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint; a partitioned one is a whole here.

    Attributes:
        key: its name in the checkpoint.
        dtype: number of TensorFlow's DataType enum.
        shape: all lengths are known, all are 0 or more.
        size_bytes: of the content. For strings: a varint with the length of each, 4 bytes, and the strings.
        pieces: its stored parts. They cover the shape, each element once; ordered by their start.
    """

    key: str
    dtype: int
    shape: tuple[int, ...]
    size_bytes: int
    pieces: tuple[Piece, ...]

    @property
    def kind(self) -> DType:
        """The dtype's row in the table of dtypes."""
        return DTYPES[self.dtype]

    @property
    def dtype_name(self) -> str:
        """The dtype's name, as in `tf.DType.name`."""
        return self.kind.name

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_string(self) -> bool:
        """True if its elements are strings, which have no fixed size."""
        return self.dtype == STRING.number

    @property
    def is_in_rows(self) -> bool:
        """True if the contents of the pieces, one after the other, are the tensor's content."""
        return 0 in self.shape or all(piece.shape[1:] == self.shape[1:] for piece in self.pieces)


def require_dtype(path: Path, key: str, number: int) -> DType:
    """Returns the dtype of a number.

    Raises:
        CheckpointError: no tensor of this dtype can be stored.
    """
    if number not in DTYPES:
        raise CheckpointError("unknown dtype", where=f"{path}: {key!r}", got=number, wanted="a DataType with a value")
    return DTYPES[number]


def require_shape(path: Path, key: str, proto: Any) -> tuple[int, ...]:
    """Returns the shape in a TensorShapeProto. Nothing is allocated, however large the shape is.

    Raises:
        CheckpointError: it is unknown, or larger than a tensor can be.
    """
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise broken_file(path, f"the shape of {key!r} is not known", got=_shown(shape), wanted="lengths of 0 and more")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise broken_file(path, f"the shape of {key!r} is too large", got=_shown(shape), wanted="< 2**63 elements")
    return shape


def require_version(path: Path, proto: Any) -> None:
    """Checks that a VersionDef allows this reader (tensorflow/core/framework/versions.h, CheckVersions).

    Raises:
        CheckpointError: the file was written for later readers.
    """
    if proto.min_consumer > _VERSION or _VERSION in proto.bad_consumers:
        raise CheckpointError(
            "the checkpoint needs a later reader",
            where=path,
            got=f"version {proto.producer} for readers from {proto.min_consumer}",
            wanted=f"readers of version {_VERSION}",
        )


def _shown(shape: tuple[int, ...]) -> str:
    return f"{list(shape[:8])}{' and more' if len(shape) > 8 else ''}"


def extents_of(proto: Any) -> tuple[tuple[int, int], ...]:
    """Returns start and length by axis of a TensorSliceProto; an axis without a length is complete."""
    return tuple((extent.start, extent.length) if extent.HasField("length") else FULL_EXTENT for extent in proto.extent)


def box_of(
    path: Path, key: str, extents: Sequence[tuple[int, int]], shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the start of a slice's box, and its lengths.

    Raises:
        CheckpointError: the slice lies outside its tensor.
    """
    if len(extents) == len(shape):
        pairs = [(0, size) if extent == FULL_EXTENT else extent for extent, size in zip(extents, shape, strict=True)]
        if all(start >= 0 and 0 <= length <= size - start for (start, length), size in zip(pairs, shape, strict=True)):
            return tuple(start for start, _ in pairs), tuple(length for _, length in pairs)
    raise broken_file(path, f"a slice of {key!r} lies outside it", got=list(extents)[:8], wanted=list(shape)[:8])


def check_cover(path: Path, key: str, pieces: Sequence[Piece], shape: Sequence[int]) -> None:
    """Checks that boxes cover a shape, every element once.

    A box is the sum of its corners with alternating signs (its indicator's mixed difference), so boxes add up to
    the whole exactly where their corners do. That takes time in proportion to the boxes, not to their square.

    Raises:
        CheckpointError: they do not.
    """
    cut = [
        axis
        for axis, size in enumerate(shape)
        if any(piece.start[axis] != 0 or piece.shape[axis] != size for piece in pieces)
    ]
    if len(cut) > _MOST_PARTITIONED_AXES:
        raise broken_file(path, f"{key!r} is partitioned along {len(cut)} axes", wanted=f"<= {_MOST_PARTITIONED_AXES}")
    corners: Counter[tuple[int, ...]] = Counter()
    _add_corners(corners, [(0, shape[axis]) for axis in cut], -1)
    for piece in pieces:
        _add_corners(corners, [(piece.start[axis], piece.start[axis] + piece.shape[axis]) for axis in cut], 1)
    if any(corners.values()):
        raise broken_file(
            path,
            f"the {len(pieces)} slices of {key!r} do not cover it, each element once",
            got=[(piece.start, piece.shape) for piece in itertools.islice(pieces, 4)],
            wanted=list(shape),
        )


def _add_corners(corners: Counter[tuple[int, ...]], sides: Sequence[tuple[int, int]], weight: int) -> None:
    for ends in itertools.product((0, 1), repeat=len(sides)):
        corner = tuple(side[end] for side, end in zip(sides, ends, strict=True))
        corners[corner] += -weight if sum(ends) % 2 else weight
