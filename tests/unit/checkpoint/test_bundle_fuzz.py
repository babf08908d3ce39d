"""Whatever the files hold, they are read or refused by our own error, in bounded time and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import leveldb_tables
import numpy as np
import pytest
from checkpoints import HEADER, SMALL_ONES, cut_in_four, data_of, save, save_parts, save_v1
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import tensor_bundle_pb2

from pipeline.checkpoint.bundle import Bundle, open_checkpoint
from pipeline.checkpoint.bundle.leveldb import Table
from pipeline.checkpoint.bundle.ordered_code import slice_key
from pipeline.errors import CheckpointError
from pipeline.graph import protos

MOST_BYTES = 4 << 20  # the files of these tests are smaller than 4 kB, the shapes in them are not
fuzzed = settings(max_examples=250, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def everything(prefix: Path) -> dict[str, Any] | None:
    """All that can be read of a checkpoint, None if it is refused."""
    found: dict[str, Any] = {}
    with bounded_memory():
        try:
            bundle = open_checkpoint(prefix)
            for key, tensor in bundle.tensors.items():
                found[key] = contents(bundle, key), tensor.dtype, tensor.shape
            bundle.verify()
        except CheckpointError:
            return None
    return found


def contents(bundle: Bundle, key: str) -> Any:
    if bundle.tensors[key].is_string:
        return bundle.strings(key)
    content = b"".join(bundle.stream(key, chunk_bytes=64))
    assert len(content) == bundle.tensors[key].size_bytes
    with suppress(CheckpointError):  # an empty tensor of huge lengths is none that numpy can hold
        assert bundle.read(key).tobytes() == content
    return content


@cache
def originals(folder: Path) -> dict[str, bytes]:
    """The files of small checkpoints by name: plain ones, partitioned ones, and of the V1 format."""
    save(folder / "plain", SMALL_ONES)
    _, parts, slices = cut_in_four("int8")
    save_parts(folder / "parts", parts, slices)
    save_v1(folder / "old", SMALL_ONES)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restored(folder: Path) -> dict[str, bytes]:
    files = originals(folder)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


@st.composite
def edits(draw: st.DrawFn, most: int = 4) -> list[tuple[float, int, bytes]]:
    """Places (as a part of the length), how many bytes go there, and what comes instead."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12))
    return draw(st.lists(edit, min_size=1, max_size=most))


def edited(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for part, gone, new in changes:
        at = int(part * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


@fuzzed
@given(name=st.sampled_from(["plain.index", "plain.data-00000-of-00001", "parts.index", "old"]), changes=edits())
def test_an_edited_file_holds_the_same_or_is_refused(folder: Path, name: str, changes: Any) -> None:
    files = restored(folder)
    prefix = folder / name.split(".")[0]
    wanted = everything(prefix)
    assert wanted
    (folder / name).write_bytes(edited(files[name], changes))
    assert everything(prefix) in (None, wanted)


@fuzzed
@given(data=st.binary(max_size=300), with_footer=st.booleans())
def test_any_bytes_are_refused(folder: Path, data: bytes, with_footer: bool) -> None:
    data += leveldb_tables.MAGIC if with_footer else b""
    for name in ("any.index", "any-v1"):
        (folder / name).write_bytes(data)
        with pytest.raises(CheckpointError):
            open_checkpoint(folder / name.removesuffix(".index"))


@fuzzed
@given(name=st.sampled_from(["plain.index", "parts.index", "old"]), changes=edits(), kind=st.sampled_from([0, 0, 1]))
def test_a_block_edited_and_sealed_again_is_read_or_refused(folder: Path, name: str, changes: Any, kind: int) -> None:
    restored(folder)
    block = leveldb_tables.block([(key, bytes(value)) for key, value in Table(folder / name)])
    (folder / name).write_bytes(leveldb_tables.table([edited(block, changes)], [b"\xff"], [kind]))
    everything(folder / name.removesuffix(".index"))


@fuzzed
@given(name=st.sampled_from(["plain.index", "parts.index", "old"]), changes=edits(), which=st.integers(0, 9))
def test_an_entry_edited_and_sealed_again_is_read_or_refused(folder: Path, name: str, changes: Any, which: int) -> None:
    restored(folder)
    entries = [(key, bytes(value)) for key, value in Table(folder / name)]
    key, value = entries[which % len(entries)]
    entries[which % len(entries)] = key, edited(value, changes)
    (folder / name).write_bytes(leveldb_tables.table_of(entries))
    everything(folder / name.removesuffix(".index"))


numbers = st.sampled_from([0, 1, 2, 3, 8, -1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)])
few = st.integers(0, 4)
small = st.sampled_from([0, 1, 7, 14, 19, 21, 6]) | st.integers(-1, 40)
extents = st.lists(st.lists(st.tuples(few | numbers, few | numbers), max_size=3), max_size=4)


@st.composite
def entries_of_bundles(draw: st.DrawFn) -> Any:
    made = tensor_bundle_pb2.BundleEntryProto(
        dtype=draw(small),
        shard_id=draw(st.sampled_from([0, 0, 0, 1, -1])),
        offset=draw(few | numbers),
        size=draw(few | numbers),
        crc32c=draw(st.sampled_from([0, leveldb_tables.mask_crc(0), leveldb_tables.mask_crc(0x527D5351)])),
    )
    for size in draw(st.lists(few | numbers, max_size=4)):
        made.shape.dim.add(size=size)
    for extent in draw(st.just([]) | extents):
        added = made.slices.add()
        for start, length in extent:
            added.extent.add(start=start, length=length)
    return made


keys = st.sampled_from([b"v", b"w", *(slice_key("w", [(a, b)]) for a in (0, 1, 2) for b in (-1, 0, 1, 2)), b"\0w"])


@fuzzed
@given(entries=st.dictionaries(keys, entries_of_bundles(), max_size=6), data=st.binary(max_size=8))
def test_entries_of_any_numbers_are_read_or_refused(folder: Path, entries: Mapping[bytes, Any], data: bytes) -> None:
    rows = {b"": HEADER, **entries}
    encoded = [(key, row.SerializeToString()) for key, row in sorted(rows.items())]
    (folder / "made.index").write_bytes(leveldb_tables.table_of(encoded))
    data_of(folder / "made").write_bytes(data)
    everything(folder / "made")


@st.composite
def old_files(draw: st.DrawFn) -> bytes:
    meta = protos.SavedTensorSliceMeta()
    for name in draw(st.lists(st.sampled_from(["v", "w"]), max_size=3)):
        shape = protos.TensorShapeProto(dim=[{"size": size} for size in draw(st.lists(few | numbers, max_size=3))])
        slices = draw(st.just([[]]) | extents)
        meta.tensor.add(
            name=name,
            type=draw(small),
            shape=shape,
            slice=[{"extent": [{"start": a, "length": b} for a, b in extent]} for extent in slices],
        )
    values = st.lists(few, max_size=4)
    data = protos.TensorProto(
        float_val=draw(values), int_val=draw(values), half_val=draw(values), string_val=draw(st.lists(st.binary()))
    )
    records = {b"": protos.SavedTensorSlices(meta=meta)}
    for key in draw(st.lists(keys | st.just(slice_key("w", [])), max_size=3)):
        records[key] = protos.SavedTensorSlices(data={"name": "w", "data": data.SerializeToString()})
    return leveldb_tables.table_of([(key, record.SerializeToString()) for key, record in sorted(records.items())])


@fuzzed
@given(data=old_files())
def test_old_files_of_any_numbers_are_read_or_refused(folder: Path, data: bytes) -> None:
    (folder / "made-v1").write_bytes(data)
    everything(folder / "made-v1")


@fuzzed
@given(data=st.binary(max_size=60), count=st.integers(0, 8), dtype=st.sampled_from([7, 21]), crc=st.booleans())
def test_any_bytes_as_strings_or_variants_are_read_or_refused(
    folder: Path, data: bytes, count: int, dtype: int, crc: bool
) -> None:
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=dtype, size=len(data), shape={"dim": [{"size": count}]})
    entry.crc32c = leveldb_tables.mask_crc(int(np.uint32(crc)))
    (folder / "s.index").write_bytes(
        leveldb_tables.table_of([(b"", HEADER.SerializeToString()), (b"s", entry.SerializeToString())])
    )
    data_of(folder / "s").write_bytes(data)
    everything(folder / "s")
