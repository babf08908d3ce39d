"""Checkpoints of the V1 format: one file (or one per shard) with index and content.

The file is a table of SavedTensorSlices (tensorflow/core/util/saved_tensor_slice.proto): under the empty key
the names, shapes and slices of all tensors; under each slice's encoded key its values, in the typed fields of a
TensorProto, as tensorflow/core/util/saved_tensor_slice_util.h (Fill) puts them there.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.graph.dtypes import STRING
from pipeline.graph.protos import DecodeError, SavedTensorSlices, TensorProto
from pipeline.graph.wire import contents_of

from ..file_kinds import broken_file
from .leveldb import Table
from .ordered_code import slice_key
from .packing import packed_size
from .snappy import MOST_PER_BYTE
from .tensor import StoredTensor, box_of, check_cover, extents_of, require_dtype, require_shape, require_version

# Fields of saved_tensor_slice.proto.
_DATA, _SLICE_DATA = 2, 3
# The field that holds the values of a dtype. Those of one size on the wire lie there as in memory: float_val,
# double_val, scomplex_val, dcomplex_val. By way of Python's floats a signalling NaN would come back as a quiet one. ...
_AS_IN_MEMORY = {1: 5, 2: 6, 8: 9, 18: 12}
# ... the others as varints; with the code of Python's arrays for their bits.
_AS_VARINTS = {
    **dict.fromkeys((3, 13), ("int_val", "i")),
    **dict.fromkeys((5, 15), ("int_val", "h")),
    **dict.fromkeys((16, 17), ("int_val", "H")),
    **dict.fromkeys((6, 11), ("int_val", "b")),
    **dict.fromkeys((4, 12), ("int_val", "B")),
    10: ("bool_val", "B"),
    19: ("half_val", "H"),
    9: ("int64_val", "q"),
    22: ("uint32_val", "I"),
    23: ("uint64_val", "Q"),
}


@dataclass(frozen=True)
class Record:
    """A piece that is a record of a table."""

    table: Table
    start: tuple[int, ...]
    shape: tuple[int, ...]
    key: bytes

    @property
    def path(self) -> Path:
        return self.table.path

    def content(self, tensor: StoredTensor, chunk_bytes: int) -> Iterator[bytes]:
        data = self._data(tensor)
        try:
            content = _decoded(tensor.dtype, data)
        except (DecodeError, OverflowError, ValueError) as exc:
            raise broken_file(self.path, f"{tensor.key!r} is damaged: {exc}") from exc
        wanted = math.prod(self.shape) * tensor.kind.size_bytes
        if len(content) != wanted:
            raise self._miscounted(tensor, f"{len(content)} bytes", f"{wanted}")
        view = memoryview(content)
        for at in range(0, len(view), chunk_bytes):
            yield bytes(view[at : at + chunk_bytes])

    def strings(self, tensor: StoredTensor) -> list[bytes]:
        try:
            strings = list(TensorProto.FromString(self._data(tensor)).string_val)
        except DecodeError as exc:
            raise broken_file(self.path, f"{tensor.key!r} is damaged: {exc}") from exc
        if len(strings) != math.prod(self.shape):
            raise self._miscounted(tensor, f"{len(strings)} strings", f"{math.prod(self.shape)}")
        return strings

    def verify(self, tensor: StoredTensor) -> None:
        if tensor.is_string:
            self.strings(tensor)
        else:
            for _ in self.content(tensor, 1 << 20):
                pass

    def _data(self, tensor: StoredTensor) -> bytes:
        """The serialized TensorProto."""
        record = self.table.get(self.key)
        if record is None:
            raise broken_file(self.path, f"a record of {tensor.key!r} is missing", wanted=self.key[:80])
        saved = _parse(self.path, record).data
        if saved.name != tensor.key:
            raise broken_file(self.path, "a record is another tensor's", got=repr(saved.name), wanted=repr(tensor.key))
        try:
            return bytes(_only(_only(record, _DATA), _SLICE_DATA))
        except ValueError as exc:
            raise broken_file(self.path, f"{tensor.key!r} is damaged: {exc}") from exc

    def _miscounted(self, tensor: StoredTensor, got: str, wanted: str) -> CheckpointError:
        return broken_file(self.path, f"a record of {tensor.key!r} does not fit its shape", got=got, wanted=wanted)


def _only(message: memoryview, number: int) -> memoryview:
    """Returns the bytes of a message within a message; several would be merged, which no writer relies on."""
    found = contents_of(message, number)
    if len(found) > 1:
        raise ValueError("a value is written in two parts")
    return found[0] if found else memoryview(b"")


def _decoded(dtype: int, data: bytes) -> bytes:
    """Returns the values of a serialized TensorProto as bytes in memory."""
    if dtype in _AS_IN_MEMORY:
        return b"".join(contents_of(data, _AS_IN_MEMORY[dtype]))
    field, code = _AS_VARINTS[dtype]
    return array(code, getattr(TensorProto.FromString(data), field)).tobytes()


def _parse(path: Path, record: memoryview) -> Any:
    try:
        return SavedTensorSlices.FromString(record)
    except DecodeError as exc:
        raise broken_file(path, "a record is not a SavedTensorSlices") from exc


def read_tensors(paths: Sequence[Path]) -> dict[str, StoredTensor]:
    """Returns the tensors of a checkpoint by key, in key order. Reads no content except strings.

    Args:
        paths: its file, or its shards.

    Raises:
        CheckpointError: a file is missing, another kind of file, truncated or damaged, or contradicts itself.
    """
    metas: dict[str, tuple[tuple[int, ...], int]] = {}
    records: dict[str, list[Record]] = {}
    for path in paths:
        table = Table(path)
        for meta in _contents(table):
            shape = require_shape(path, meta.name, meta.shape)
            first = metas.setdefault(meta.name, (shape, meta.type))
            if first != (shape, meta.type):
                raise broken_file(path, f"two shards disagree on {meta.name!r}", got=(shape, meta.type), wanted=first)
            records.setdefault(meta.name, []).extend(_records(table, meta, shape))
    return {key: _tensor(key, *metas[key], records[key]) for key in sorted(metas)}


def _contents(table: Table) -> Sequence[Any]:
    """Returns the tensors listed by the record under the empty key."""
    record = table.get(b"")
    if record is None:
        raise broken_file(table.path, "not a checkpoint", got="no table of contents", wanted="one under the key ''")
    parsed = _parse(table.path, record)
    if not parsed.HasField("meta"):
        raise broken_file(table.path, "not a checkpoint of the V1 format", got="a first record without its contents")
    require_version(table.path, parsed.meta.versions)
    listed: Sequence[Any] = parsed.meta.tensor
    return listed


def _records(table: Table, meta: Any, shape: tuple[int, ...]) -> Iterator[Record]:
    # A value takes a byte of its record at least, which a shape that is made up cannot have.
    if math.prod(shape) > table.size_bytes * MOST_PER_BYTE:
        raise broken_file(table.path, f"{meta.name!r} cannot lie in {table.size_bytes} bytes", got=list(shape)[:8])
    for proto in meta.slice:
        extents = extents_of(proto)
        yield Record(table, *box_of(table.path, meta.name, extents, shape), slice_key(meta.name, extents))


def _tensor(key: str, shape: tuple[int, ...], dtype: int, records: list[Record]) -> StoredTensor:
    if not records:
        raise CheckpointError(f"{key!r} has no slices", wanted=list(shape))
    path = records[0].path
    kind = require_dtype(path, key, dtype)
    if dtype not in _AS_IN_MEMORY and dtype not in _AS_VARINTS and dtype != STRING.number:
        raise CheckpointError("the V1 format has no such dtype", where=f"{path}: {key!r}", got=kind.name)
    records.sort(key=lambda record: record.start)
    check_cover(path, key, records, shape)
    tensor = StoredTensor(key, dtype, shape, math.prod(shape) * kind.size_bytes, tuple(records))
    if tensor.is_string:
        size = packed_size(string for record in records for string in record.strings(tensor))
        return StoredTensor(key, dtype, shape, size, tensor.pieces)
    return tensor
