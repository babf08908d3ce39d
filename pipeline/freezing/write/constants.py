"""Constants whose values are still in the checkpoint, and are streamed from it in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.bundle.tensor import StoredTensor
from pipeline.errors import FreezeError
from pipeline.graph.protos import DataType, FunctionDefLibrary, NodeDef, VersionDef

DT_HALF = DataType.Value("DT_HALF")
HALF_BYTES = 2
HALF_MAX = 65504.0  # the largest finite float16
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Constant:
    """A constant of the graph, to be filled from the checkpoint.

    Args:
        name: the node's.
        tensor: its value in the checkpoint.
        box: for a part of the tensor, start and end by axis.
        is_halved: its values, float32 or float64 in the checkpoint, are rounded to float16.
    """

    name: str
    tensor: StoredTensor
    box: tuple[tuple[int, int], ...] | None = None
    is_halved: bool = False

    @property
    def dtype(self) -> int:
        """TensorFlow's DataType of the constant."""
        return DT_HALF if self.is_halved else self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths, by axis."""
        return self.tensor.shape if self.box is None else tuple(end - start for start, end in self.box)

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The size of its content in bytes; 0 for strings."""
        return self.elements * (HALF_BYTES if self.is_halved else self.tensor.kind.size_bytes)


@dataclass(frozen=True)
class FrozenGraph:
    """A graph of constants whose values are still in the checkpoint."""

    nodes: Sequence[NodeDef | Constant]
    library: FunctionDefLibrary
    versions: VersionDef


def unused_name(wanted: str, taken: set[str]) -> str:
    """Returns a new name for a node and adds it to `taken`."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def names_of(graph: FrozenGraph) -> set[str]:
    """Returns the names of all nodes."""
    return {node.name for node in graph.nodes}


def content(constant: Constant, bundle: Bundle) -> Iterator[bytes]:
    """Yields the values in chunks of bytes, row-major and little-endian. Not for strings.

    Raises:
        CheckpointError: as `Bundle.stream`.
        FreezeError: the constant is halved, and a finite value lies beyond float16's range.
    """
    chunks = (
        bundle.stream(constant.tensor.key) if constant.box is None else _part(constant.tensor, constant.box, bundle)
    )
    return _halves(constant, chunks) if constant.is_halved else chunks


def strings(constant: Constant, bundle: Bundle) -> list[bytes]:
    """Returns the strings, in row-major order.

    Raises:
        CheckpointError: as `Bundle.strings`.
    """
    if constant.box is None:
        return bundle.strings(constant.tensor.key)
    cut: list[bytes] = bundle.read(constant.tensor.key)[_slices(constant.box)].ravel().tolist()
    return cut


def _slices(box: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)


def _part(tensor: StoredTensor, box: Sequence[tuple[int, int]], bundle: Bundle) -> Iterator[bytes]:
    """Yields a part of a tensor: a saved piece, or some of its rows, or a cut of the whole."""
    starts, shape = tuple(start for start, _ in box), tuple(end - start for start, end in box)
    for piece in tensor.pieces:
        if (piece.start, piece.shape) == (starts, shape):
            return piece.content(tensor, _CHUNK_BYTES)
    if shape[1:] == tensor.shape[1:]:
        row = math.prod(shape[1:]) * tensor.kind.size_bytes
        return _between(bundle.stream(tensor.key), box[0][0] * row, box[0][1] * row)
    cut = bundle.read(tensor.key)[_slices(box)].tobytes()
    return (cut[at : at + _CHUNK_BYTES] for at in range(0, len(cut), _CHUNK_BYTES))


def _between(chunks: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yields the bytes from `start` to `end`. All are read, because the checksum follows the last."""
    at = 0
    for chunk in chunks:
        wanted = chunk[max(0, start - at) : max(0, end - at)]
        at += len(chunk)
        if wanted:
            yield wanted


def _halves(constant: Constant, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the values as float16, rounded to the nearest, ties to even."""
    import numpy as np

    kind, rest = constant.tensor.kind, b""
    for chunk in chunks:
        rest += chunk
        whole = len(rest) - len(rest) % kind.size_bytes
        values = np.frombuffer(rest[:whole], kind.code)
        rest = rest[whole:]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # reported below, with the name
            halves = values.astype("<f2")
        beyond = np.isinf(halves) & np.isfinite(values)
        if beyond.any():
            raise FreezeError(
                "a value is beyond float16's range",
                where=f"variable {constant.name.rpartition('/')[0]}, key {constant.tensor.key}",
                got=repr(float(values[beyond][0])),
                wanted=f"at most {HALF_MAX} in size",
                next_step="Freeze it without --weights float16",
            )
        yield halves.tobytes()
