"""Read TFRecord files without TensorFlow: records, and the tf.Examples in them.

A record is its length, a CRC-32C of that, its bytes, and a CRC-32C of these (tensorflow/core/lib/io/record_writer.h). A
tf.Example maps names to lists of bytes, floats or integers (tensorflow/core/example/example.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pipeline.errors import DataError, nearest

from .columns import WHOLE, CellsOnDemand, Columns
from .text import masked_crc, opened

_HEADER = struct.Struct("<QI")  # length, its masked CRC-32C
_FOOTER = struct.Struct("<I")
_CHUNK = 1 << 20


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file; one that gzip has compressed, too.

    Raises:
        DataError: the file is missing, or its bytes are not what was written.
    """
    with opened(path) as file:
        number = 0
        while header := file.read(_HEADER.size):
            number += 1
            length, crc = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, -1)
            if masked_crc(header[:8]) != crc:
                raise _damaged(path, number, "a wrong checksum of its length")
            record = b"".join(_read(file, length))
            footer = file.read(_FOOTER.size)
            if len(record) != length or len(footer) != _FOOTER.size:
                raise _damaged(path, number, "no end: the file is cut off")
            if masked_crc(record) != _FOOTER.unpack(footer)[0]:
                raise _damaged(path, number, "a wrong checksum of its bytes")
            yield record


def _read(file: IO[bytes], length: int) -> Iterator[bytes]:
    while length > 0 and (chunk := file.read(min(length, _CHUNK))):
        length -= len(chunk)
        yield chunk


def _damaged(path: Path, number: int, what: str) -> DataError:
    return DataError(
        "the TFRecord file is damaged, or is none",
        where=f"{path}, record {number}",
        got=what,
        next_step="Copy the file again; if it is of another kind, name it so",
    )


def read_examples_of(path: Path) -> Columns:
    """Read tf.Examples as columns: the features of the first one, each with a list of values for each record.

    The column without a name has the records themselves.

    Raises:
        DataError: the file is missing, empty or damaged.
    """
    records = list(read_records(path))
    if not records:
        raise DataError("the file is empty", where=path, got="0 records", wanted="at least one row")
    return Columns(path, _Features(path, records), range(1, len(records) + 1), "record", is_loose=True)


class _Features(CellsOnDemand):
    """The features of records by name; parsed when one is asked for."""

    def __init__(self, path: Path, records: list[bytes]) -> None:
        self._path, self._records = path, records
        first = _parse(records[0])
        self._names = [] if first is None else sorted(first)

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name == WHOLE:
            return self._records
        if name not in self._names:
            raise KeyError(name)
        values = []
        for number, record in enumerate(self._records, start=1):
            features = _parse(record)
            if features is None or name not in features:
                raise DataError(
                    f"a record has no feature {name}",
                    where=f"{self._path}, record {number}",
                    got="no tf.Example" if features is None else ", ".join(sorted(features)),
                    next_step=None if features is None else nearest(name, features),
                )
            values.append(_list_of(features[name]))
        return values


def _parse(record: bytes) -> dict[str, Any] | None:
    """Return the features of a tf.Example by name; None if the record is none."""
    try:
        example = _example_class().FromString(record)
    except DecodeError:
        return None
    return {entry.key: entry.value for entry in example.features.feature} or None


def _list_of(feature: Any) -> Any:
    if feature.HasField("floats"):
        return np.array(feature.floats.value, np.float32)
    if feature.HasField("integers"):
        return np.array(feature.integers.value, np.int64)
    return list(feature.bytes.value)


@cache
def _example_class() -> Any:
    """Build the message class; in a pool of its own, because TensorFlow brings the same message."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="rows", syntax="proto3")
    field, many = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

    def add(message: str, *fields: tuple[str, int, int | str, bool]) -> None:
        described = file.message_type.add(name=message)
        for name, number, kind, is_repeated in fields:
            added = described.field.add(name=name, number=number, label=many if is_repeated else field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".rows.{kind}"
            else:
                added.type = kind

    add("Bytes", ("value", 1, field.TYPE_BYTES, True))
    add("Floats", ("value", 1, field.TYPE_FLOAT, True))
    add("Integers", ("value", 1, field.TYPE_INT64, True))
    add("Feature", ("bytes", 1, "Bytes", False), ("floats", 2, "Floats", False), ("integers", 3, "Integers", False))
    add("Entry", ("key", 1, field.TYPE_STRING, False), ("value", 2, "Feature", False))  # of a map
    add("Features", ("feature", 1, "Entry", True))
    add("Example", ("features", 1, "Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rows.Example"))
