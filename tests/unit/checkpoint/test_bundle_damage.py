"""Checkpoints that are damaged, cut off, or contradict themselves are refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import google_crc32c
import leveldb_tables
import numpy as np
import pytest
import tensorflow as tf
from checkpoints import (
    SMALL_ONES,
    assert_holds,
    cut,
    data_of,
    flip,
    in_session,
    on_two_devices,
    proto,
    save,
    save_v1,
    values,
    write_index,
)
from tensorflow.core.protobuf import tensor_bundle_pb2

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.bundle.ordered_code import slice_key
from pipeline.errors import CheckpointError

v1 = tf.compat.v1
PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("file", ["model.index", "model.data-00000-of-00001", "old"])
def test_every_flipped_byte_is_noticed(tmp_path: Path, file: str) -> None:
    save(tmp_path / "model", SMALL_ONES)
    save_v1(tmp_path / "old", SMALL_ONES)
    path = tmp_path / file
    prefix = tmp_path / file.split(".")[0]
    whole = path.read_bytes()
    assert_holds(open_checkpoint(prefix), SMALL_ONES)
    for at in range(len(whole)):
        for bits in (1, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
            with pytest.raises(CheckpointError):
                open_checkpoint(prefix).verify()


@pytest.mark.parametrize("file", ["model.index", "model.data-00000-of-00001", "old"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, file: str) -> None:
    save(tmp_path / "model", SMALL_ONES)
    save_v1(tmp_path / "old", SMALL_ONES)
    path = tmp_path / file
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=file):
            open_checkpoint(tmp_path / file.split(".")[0])


def test_a_damaged_tensor_is_named_with_its_file_and_both_crcs(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model", {"a": values("float32", (600_000,)), "z": np.float32(1)})
    bundle = open_checkpoint(prefix)
    flip(data_of(prefix), 2_399_999)
    chunks = bundle.stream("a", 1 << 20)
    assert [len(next(chunks)) for _ in range(3)] == [1 << 20, 1 << 20, 2_400_000 - (2 << 20)]
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001: 'a' is damaged: CRC-32C \(got 0x\w{8}, wanted 0x"):
        next(chunks)
    assert bundle.read("z") == 1
    with pytest.raises(CheckpointError, match="'a' is damaged"):
        bundle.read("a")


def test_a_file_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model", SMALL_ONES)
    bundle = open_checkpoint(prefix)
    data_of(prefix).write_bytes(b"")
    for key in SMALL_ONES:
        with pytest.raises(CheckpointError, match="an empty file"):
            bundle.read(key)
    data_of(prefix).unlink()
    for key in SMALL_ONES:
        with pytest.raises(CheckpointError, match="missing"):
            bundle.read(key)


def test_a_pointer_in_place_of_the_data_is_named(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model", {"a": np.float32([1, 2])})
    data_of(prefix).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8\n")
    with pytest.raises(CheckpointError, match=r"a Git LFS pointer.*git lfs pull"):
        open_checkpoint(prefix).verify()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    in_session(on_two_devices, tmp_path / "model", sharded=True)
    (tmp_path / "model.data-00001-of-00002").unlink()
    with pytest.raises(CheckpointError, match=r"data-00001-of-00002: a file of the checkpoint is missing"):
        open_checkpoint(tmp_path / "model")


FIRST, SECOND, ALL = slice_key("w", [(0, 2)]), slice_key("w", [(2, 2)]), slice_key("w", [(0, 4)])
CORNER = slice_key("w", [(0, 1)] * 9)
WRONG_ENTRIES: dict[str, tuple[dict[bytes, Any], str]] = {
    "outside": ({b"w": proto(offset=9)}, r"'w' lies outside the file \(got 16 bytes, wanted >= 17"),
    "far outside": ({b"w": proto(offset=2**63 - 9)}, "lies outside"),
    "negative offset": ({b"w": proto(offset=-1)}, "does not fit its shape"),
    "negative size": ({b"w": proto(size=-8)}, "does not fit its shape"),
    "negative size of strings": ({b"w": proto(dtype=7, size=-8, shape=[0])}, "does not fit its shape"),
    "size": ({b"w": proto(size=4)}, r"does not fit its shape \(got 4 bytes at 0, wanted 8 bytes: float32 \[2\]"),
    "overlap": ({b"v": proto(), b"w": proto(offset=4)}, "'v' and 'w' overlap"),
    "the same place": ({b"v": proto(), b"w": proto()}, "'v' and 'w' overlap"),
    "huge": ({b"w": proto(shape=[2**40, 2**40])}, "too large"),
    "huge and empty": ({b"w": proto(shape=[2**62])}, "does not fit its shape"),
    "more strings than bytes": ({b"w": proto(dtype=7, shape=[2**40])}, "does not fit its shape"),
    "unknown length": ({b"w": proto(shape=[-1])}, "not known"),
    "unknown rank": ({b"w": proto(shape=[]).__class__(dtype=1, size=4, shape={"unknown_rank": True})}, "not known"),
    "many axes": ({b"w": proto(shape=[1] * 255)}, "not known"),
    "no dtype": ({b"w": proto(dtype=0)}, "unknown dtype"),
    "resource": ({b"w": proto(dtype=20)}, "unknown dtype"),
    "reference": ({b"w": proto(dtype=101)}, "unknown dtype"),
    "later dtype": ({b"w": proto(dtype=99)}, "unknown dtype"),
    "shard": ({b"w": proto(shard_id=1)}, "shard that does not exist"),
    "negative shard": ({b"w": proto(shard_id=-1)}, "shard that does not exist"),
    "not a proto": ({b"w": b"\xff\xff"}, "is not a BundleEntryProto"),
    "not text": ({b"\xff": proto()}, "not UTF-8"),
    "no such slice": ({b"w": cut([(0, 2)], [(2, 2)], shape=[4]), FIRST: proto()}, "a slice of 'w' is missing"),
    "a gap": ({b"w": cut([(0, 2)], shape=[4]), FIRST: proto()}, "do not cover"),
    "twice": ({b"w": cut([(0, 2)], [(0, 2)], shape=[4]), FIRST: proto()}, "do not cover"),
    "outside the tensor": ({b"w": cut([(2, 2)], shape=[3])}, "lies outside it"),
    "before the tensor": ({b"w": cut([(-1, 2)], shape=[1])}, "lies outside it"),
    "other rank": ({b"w": cut([(0, 2), (0, 1)], shape=[4])}, "lies outside it"),
    "slice's shape": ({b"w": cut([(0, 4)], shape=[4]), ALL: proto()}, r"a slice of 'w' does not fit it \("),
    "slice's dtype": ({b"w": cut([(0, 2)], shape=[2]), FIRST: proto(dtype=3)}, r"a slice of 'w' does not fit it \("),
    "slice of a slice": ({b"w": cut([(0, 2)], shape=[2]), FIRST: cut([(0, 2)])}, r"a slice of 'w' does not fit it \("),
    "lost slice": ({b"w": proto(), SECOND: proto(offset=8)}, "belongs to no tensor"),
    "cut along many axes": ({b"w": cut([(0, 1)] * 9, shape=[2] * 9), CORNER: proto(shape=[1] * 9, size=4)}, "9 axes"),
}


@pytest.mark.parametrize("case", WRONG_ENTRIES)
def test_an_index_that_contradicts_itself_or_its_data_is_refused(tmp_path: Path, case: str) -> None:
    entries, says = WRONG_ENTRIES[case]
    write_index(tmp_path / "model", entries)
    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(tmp_path / "model")


def test_the_entries_of_these_tests_are_right_but_for_what_they_change(tmp_path: Path) -> None:
    write_index(tmp_path / "model", {b"v": proto(), b"w": cut([(0, 2)], shape=[2]), FIRST: proto(offset=8)})
    assert_holds(open_checkpoint(tmp_path / "model"), {"v": np.float32([0, 0]), "w": np.float32([0, 0])})


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"endianness": 1, "num_shards": 1}, "big-endian"),
        (
            {"num_shards": 1, "version": {"producer": 9, "min_consumer": 2}},
            "version 9 for readers from 2",
        ),
        ({"num_shards": 1, "version": {"producer": 1, "bad_consumers": [1]}}, "later reader"),
        ({"num_shards": 0}, "shard that does not exist"),
        ({"num_shards": 2**31 - 1}, "of-2147483647: a file of the checkpoint is missing"),
    ],
)
def test_a_header_that_this_reader_cannot_follow_is_refused(tmp_path: Path, header: Any, says: str) -> None:
    write_index(tmp_path / "model", {b"w": proto()}, tensor_bundle_pb2.BundleHeaderProto(**header))
    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(tmp_path / "model")


def test_an_index_without_a_header_is_refused(tmp_path: Path) -> None:
    leveldb_tables.write(tmp_path / "model.index", leveldb_tables.table_of([(b"w", proto().SerializeToString())]))
    with pytest.raises(CheckpointError, match="not the index of a checkpoint"):
        open_checkpoint(tmp_path / "model")
    leveldb_tables.write(tmp_path / "model.index", leveldb_tables.table_of([(b"", b"\xff")]))
    with pytest.raises(CheckpointError, match="not a BundleHeaderProto"):
        open_checkpoint(tmp_path / "model")


def test_an_empty_tensor_is_never_put_together(tmp_path: Path) -> None:
    extents = [[(0, 0), (0, 2**61)], [(0, 0), (2**61, 2**61)]]
    empty = proto(shape=[0, 2**61], size=0, crc32c=leveldb_tables.mask_crc(0))
    slices = {slice_key("w", extent): empty for extent in extents}
    write_index(tmp_path / "model", slices | {b"w": cut(*extents, shape=[0, 2**62])})
    assert list(open_checkpoint(tmp_path / "model").stream("w")) == []


def test_an_empty_tensor_of_huge_lengths_costs_nothing(tmp_path: Path) -> None:
    write_index(tmp_path / "model", {b"w": proto(shape=[0, 2**62], size=0, crc32c=leveldb_tables.mask_crc(0))})
    bundle = open_checkpoint(tmp_path / "model")
    assert list(bundle.stream("w")) == []
    with pytest.raises(CheckpointError, match="numpy cannot hold this shape"):
        bundle.read("w")


def test_many_slices_are_checked_in_time_that_grows_as_they_do(tmp_path: Path) -> None:
    count = 20_000
    entries = {slice_key("w", [(k, 1)]): proto(shape=[1], size=1, dtype=6, offset=k) for k in range(count)}
    write_index(tmp_path / "model", entries | {b"w": cut(*([(k, 1)] for k in range(count)), shape=[count], dtype=6)})
    data_of(tmp_path / "model").write_bytes(bytes(count))
    assert len(open_checkpoint(tmp_path / "model").tensors["w"].pieces) == count


def packed(kind: str, *elements: bytes, flaw: int = 0, tail: bytes = b"") -> tuple[bytes, int]:
    """Strings or variants as they lie in a data file, flawed or not, and the CRC-32C over all of it."""
    if kind == "strings":
        counted = b"".join(struct.pack("<I", len(element)) for element in elements)
        check = struct.pack("<I", leveldb_tables.mask_crc(google_crc32c.value(counted)) ^ flaw)
        rest = check + b"".join(elements) + tail
        return b"".join(leveldb_tables.varint(len(e)) for e in elements) + rest, google_crc32c.value(counted + rest)
    data = counted = b""
    for element in elements:
        counted += struct.pack("<Q", len(element)) + element
        check = struct.pack("<I", leveldb_tables.mask_crc(google_crc32c.value(counted)) ^ flaw)
        counted += check
        data += leveldb_tables.varint(len(element)) + element + check
    return data + tail, google_crc32c.value(counted + tail)


@pytest.mark.parametrize(("kind", "dtype"), [("strings", 7), ("variants", 21)])
def test_a_flaw_among_strings_or_variants_is_noticed_where_the_crc_over_all_is_right(
    tmp_path: Path, kind: str, dtype: int
) -> None:
    flaws: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"flaw": 1}, "a CRC-32C among its bytes is"),
        ({"tail": b"x"}, "bytes of"),
    ]
    for change, says in flaws:
        data, crc = packed(kind, b"a", b"", b"c" * 200, **change)
        write_index(
            tmp_path / "m", {b"s": proto(dtype=dtype, shape=[3], size=len(data), crc32c=leveldb_tables.mask_crc(crc))}
        )
        data_of(tmp_path / "m").write_bytes(data)
        bundle = open_checkpoint(tmp_path / "m")
        if says:
            with pytest.raises(CheckpointError, match=f"'s' is damaged: .*{says}"):
                bundle.verify()
        else:
            bundle.verify()


def test_no_strings_may_take_no_bytes(tmp_path: Path) -> None:
    write_index(tmp_path / "m", {b"s": proto(dtype=7, shape=[0], size=0, crc32c=leveldb_tables.mask_crc(0))})
    assert open_checkpoint(tmp_path / "m").strings("s") == []
