"""Tables: what TensorFlow writes is read, and nothing that is damaged."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import google_crc32c
import leveldb_tables
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveldb_tables import block, entry, finished, sealed, table, table_of, varint, with_restarts, write

from pipeline.checkpoint.bundle.leveldb import Table, mask_crc, unmask_crc
from pipeline.checkpoint.bundle.snappy import decompress
from pipeline.errors import CheckpointError
from pipeline.graph.varint import read_varint, varint_size

# The `.index` of TensorFlow's half-plus-two, whose first block TensorFlow 1.0 compressed.
COMPRESSED = bytes.fromhex(
    "646c00000608011a02080100010b61080112002804350638271f01010d32010f0420040d110c00010d6205112c082804"
    "3510fd784f00010d6305111c0c280435efd682c315333c10280435efd682c300000000010000000103da3e1d"
)
ENTRIES = [(b"", b"header"), (b"a", b""), (b"a/b", b"1"), (b"a/c", b"22"), (b"b", b"3" * 300)]


def read(path: Path) -> list[tuple[bytes, bytes]]:
    return [(key, bytes(value)) for key, value in Table(path)]


def refused(path: Path, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        list(Table(path))
    assert str(path) in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=200), max_size=60), st.integers(1, 60))
def test_what_is_written_is_read_in_order_and_found_by_key(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, bytes], per_block: int
) -> None:
    path = write(tmp_path_factory.mktemp("table") / "t", table_of(sorted(entries.items()), per_block))
    assert read(path) == sorted(entries.items())
    opened = Table(path)
    for key, value in entries.items():
        assert opened.get(key) == value
        assert opened.get(key + b"\0") == entries.get(key + b"\0")


def test_a_compressed_block_is_read(tmp_path: Path) -> None:
    content, kind, crc = COMPRESSED[:-5], COMPRESSED[-5], COMPRESSED[-4:]
    assert sealed(content, kind)[-4:] == crc
    found = read(write(tmp_path / "t", table([content], [b"d"], [kind])))
    assert [key for key, _ in found] == [b"", b"a", b"a2", b"b", b"c", b"c2"]
    assert found[-1][1] == bytes.fromhex("080112002010280435efd682c3")


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (b"\x46\xf0\x45" + bytes(range(70)), bytes(range(70))),  # a literal whose length takes a byte of its own
        (b"\x07\x00a\x09\x01", b"aaaaaaa"),  # a copy that overlaps itself, offset in 11 bits
        (b"\x08\x04ab\x16\x02\x00", b"abababab"),  # offset in 16 bits
        (b"\x08\x04ab\x17\x02\x00\x00\x00", b"abababab"),  # offset in 32 bits
    ],
)
def test_snappy_s_elements(compressed: bytes, plain: bytes) -> None:
    assert decompress(memoryview(compressed)) == plain


def test_a_copy_may_reach_back_over_255_bytes_in_its_short_form() -> None:
    literal = bytes(40) + b"bcde" + bytes(256)
    compressed = varint(304) + b"\xf4" + struct.pack("<H", 299) + literal + b"\x21\x04"  # 4 bytes from 260 back
    assert decompress(memoryview(compressed)) == literal + b"bcde"


@pytest.mark.parametrize(
    "compressed",
    [
        b"",
        b"\x80",
        b"\x04\x08abc",  # too few
        b"\x02\x08abc",  # too many
        b"\x03\x08ab",  # cut off
        b"\x02\x08ab",
        b"\x03\xf0",
        b"\x04\x01\x01",  # a copy of nothing
        b"\x05\x00a\x01\x00",  # offset 0
        b"\x05\x00a\x01\x02",  # before the start
        b"\x05\x00a\x01",
        b"\x09\x00a\x1e\x01",
        b"\xff\xff\xff\xff\x0f\x00a",  # 4 GiB
    ],
)
def test_damaged_snappy_is_refused(compressed: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decompress(memoryview(compressed))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_decompressed_or_refused_within_bounds(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(decompress(memoryview(data))) <= 22 * len(data)


def test_crcs_are_masked_as_leveldb_masks_them() -> None:
    metaindex = bytes.fromhex("0000000001000000 00 c0f2a1b0")  # of every checkpoint: no entries, one restart
    assert struct.pack("<I", mask_crc(google_crc32c.value(metaindex[:-4]))) == metaindex[-4:]
    for crc in (0, 1, 0x8A9136AA, 0xFFFFFFFF):
        assert unmask_crc(mask_crc(crc)) == crc != mask_crc(crc)


@given(st.integers(0, 2**64 - 1))
def test_numbers_come_back_from_their_varints(value: int) -> None:
    assert read_varint(varint(value) + b"\xff", 0) == (value, len(varint(value)))
    assert varint_size(value) == len(varint(value))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x81\x00", b"\x80\x80\x00", b"\xff" * 9 + b"\x02", b"\x80" * 11])
def test_a_number_that_no_writer_makes_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a number is"):
        read_varint(data, 0)


def test_every_byte_of_a_table_counts(tmp_path: Path) -> None:
    whole = table_of(ENTRIES, per_block=2)
    path = write(tmp_path / "t", whole)
    assert read(path) == ENTRIES
    for at in range(len(whole)):
        for bit in (1, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(CheckpointError):
                read(path)


def test_a_table_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = table_of(ENTRIES, per_block=2)
    path = tmp_path / "t"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read(path)


def wrong_block(content: bytes, last_key: bytes = b"z") -> bytes:
    return table([content], [last_key])


FOOTER_ONLY = b"\0" * 60 + (b"\0\x08" + varint(2**60) + b"\x08").ljust(40, b"\0") + leveldb_tables.MAGIC
A, A_B = entry(0, b"a", b""), entry(0, b"a", b"1") + entry(1, b"b", b"")
AB, A_A, BA = entry(0, b"a", b"1") + entry(0, b"b", b"2"), entry(0, b"a", b"1") * 2, block([(b"b", b""), (b"a", b"")])
SEVENTEEN = b"".join(entry(0, bytes([k]), b"") for k in range(17))

# CRCs are right in all of these: somebody made them so.
HOSTILE = {
    "magic": (table_of(ENTRIES)[:-8] + b"\0" * 8, "not a checkpoint's table"),
    "padding": (table_of(ENTRIES)[:-9] + b"\1" + table_of(ENTRIES)[-8:], "footer is damaged"),
    "footer's numbers": (b"\0" * 60 + b"\xff" * 40 + leveldb_tables.MAGIC, "footer is damaged"),
    "index outside": (FOOTER_ONLY, "damaged|outside"),
    "block outside": (finished(b"", [(b"a", varint(0) + varint(2**62))]), "outside the table"),
    "huge offset": (finished(b"", [(b"a", varint(2**63) + varint(8))]), "outside the table"),
    "cut handle": (finished(b"", [(b"a", b"\x80")]), "handle is damaged"),
    "long handle": (finished(sealed(block([])), [(b"a", b"\0\x08\0")]), "handle is damaged"),
    "a block twice": (finished(sealed(block([])), [(b"a", b"\0\x08"), (b"b", b"\0\x08")]), "overlap"),
    "index not in order": (table([block([]), block([])], [b"b", b"a"]), "index is not in order"),
    "metaindex": (table([block(ENTRIES)], [b"b"], metaindex=block([(b"filter", b"\0\0")])), "metaindex"),
    "compression": (table([block(ENTRIES)], [b"b"], [2]), "unknown compression"),
    "bad snappy": (table([block(ENTRIES)], [b"b"], [1]), "is damaged"),
    "keys not in order": (wrong_block(BA), "keys are not in order"),
    "a key twice": (wrong_block(A_A + with_restarts([0])), "keys are not in order"),
    "keys beyond the index": (wrong_block(block([(b"zz", b"")])), "not where the index has it"),
    "keys before the index": (table([block([(b"a", b"")]), block([(b"b", b"")])], [b"b", b"c"]), "not where the index"),
    "no restarts": (wrong_block(AB + b"\0" * 4), "restarts in"),
    "many restarts": (wrong_block(AB + b"\xff" * 4), "restarts in"),
    "short block": (wrong_block(b"\0\0"), "too short for a block"),
    "restart inside an entry": (wrong_block(AB + with_restarts([0, 3])), "into an entry"),
    "restart behind": (wrong_block(AB + with_restarts([0, 8, 99])), "into an entry"),
    "first restart skipped": (wrong_block(AB + with_restarts([5])), "restart is missing"),
    "sharing at a restart": (wrong_block(A_B + with_restarts([0, 5])), "shares its beginning"),
    "restart missing": (wrong_block(SEVENTEEN + with_restarts([0])), "restart is missing"),
    "sharing too much": (wrong_block(entry(1, b"b", b"") + with_restarts([0])), "reaches beyond|shares"),
    "sharing more than there is": (wrong_block(A + entry(2, b"", b"") + with_restarts([0])), "reaches beyond"),
    "value behind the block": (wrong_block(b"\0\x01\x7fa" + with_restarts([0])), "reaches beyond"),
    "huge value": (wrong_block(b"\0\x01" + varint(2**63) + b"a" + with_restarts([0])), "reaches beyond"),
    "cut lengths": (wrong_block(b"\0" + with_restarts([0])), "cut off"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_table_made_to_mislead_is_refused(tmp_path: Path, case: str) -> None:
    data, says = HOSTILE[case]
    refused(write(tmp_path / "t", data), says)


def test_an_entry_of_another_block_is_not_found(tmp_path: Path) -> None:
    opened = Table(write(tmp_path / "t", table([block([(b"a", b"1")]), block([(b"c", b"3")])], [b"b", b"d"])))
    assert [opened.get(key) for key in (b"", b"a", b"b", b"c", b"d", b"e")] == [None, b"1", None, b"3", None, None]


def test_the_index_of_a_key_is_checked_when_it_is_looked_up(tmp_path: Path) -> None:
    opened = Table(write(tmp_path / "t", table([block([(b"zz", b"")])], [b"z"])))
    with pytest.raises(CheckpointError, match="not where the index"):
        opened.get(b"a")


@pytest.mark.parametrize(
    ("data", "kind", "next_step"),
    [
        (b"", "an empty file", "again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "an HTML page", "not the page"),
        (b"<HTML>", "an HTML page", "not the page"),
        (b"<?xml version='1.0'?><Error/>", "an XML document", "server"),
        (b'{"message": "Not Found"}', "a JSON text", "server"),
        (b"PK\x03\x04" + b"\1" * 60, "a ZIP archive", "[Uu]npack"),
        (b"\x1f\x8b" + b"\1" * 60, "a gzip archive", "[Uu]npack"),
        (b"\1" * 257 + b"ustar" + b"\1" * 60, "a tar archive", "[Uu]npack"),
        (b"\x89HDF\r\n\x1a\n" + b"\1" * 60, "an HDF5 file", "Keras"),
        (b"\x93NUMPY" + b"\1" * 60, "a NumPy file", "Saver"),
        (struct.pack("<Q", 99) + b'{"a":' + b" " * 60, "a safetensors file", "model.keras"),
        (b"model_checkpoint_path: 'x'", "a `checkpoint` state file", "its folder"),
        (b"\0" * 600, "a file of zeros", "again"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, data: bytes, kind: str, next_step: str) -> None:
    with pytest.raises(CheckpointError, match=f"{kind} in place of a checkpoint's file.*{next_step}"):
        Table(write(tmp_path / "t", data))


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is missing")
    refused(tmp_path, "not a file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a file")


def test_a_file_that_shrinks_under_the_reader_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", table_of(ENTRIES))
    opened = Table(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError):
        list(opened)


def test_keys_cannot_be_made_to_grow_with_the_square_of_the_file(tmp_path: Path) -> None:
    long = entry(0, b"k" * 20_000, b"")
    content = long + b"".join(entry(20_000 - 2, struct.pack(">I", 2**31 + k), b"") for k in range(2000))
    assert len(content) < 50_000  # and its keys are 40 MB
    refused(write(tmp_path / "t", wrong_block(content + with_restarts([0]))), "restart is missing")
