"""Data files as Excel and others write them: read as they are meant, or refused with the command that helps."""

from __future__ import annotations

import base64
import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from tensorboard.compat.proto.summary_pb2 import Summary

from pipeline.data.npz import load_given_arrays, save_arrays
from pipeline.data.readers import read_messages, read_table, split
from pipeline.data.table import read_rows
from pipeline.errors import DataError, PipelineError, SettingError
from pipeline.inputs import DataOptions, DataSource, parse_range, parse_separator
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.training.examples import read_given_rows

Write = Callable[[str, bytes | str], Path]
OUTPUT = TensorSpec("y", "float32", (None,))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def of(name: str, dtype: str, *row: int | None) -> Signature:
    return Signature([TensorSpec(name, dtype, (None, *row))], [OUTPUT])


def messages(path: Path) -> list[tuple[int, bytes]]:
    examples = read_messages(path)
    assert examples.labels is not None
    return list(zip(examples.labels.tolist(), examples.inputs["text"].tolist(), strict=True))


def refused(read: Callable[[], Any]) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        read()
    return caught.value


def run_the_command_of(error: PipelineError, cwd: Path | None = None) -> None:
    """Types the command that an error gives: what stands between a colon and the end or `, and name`."""
    assert error.next_step is not None
    command = error.next_step.partition(": ")[2].partition(", and name")[0]
    subprocess.run(["sh", "-c", command], check=True, cwd=cwd)


# Messages

BOTH = [(0, b"see you at six, bring tea"), (1, b"WIN; now")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", 'label;text\r\nham;see you at six, bring tea\r\nspam;"WIN; now"\r\n'),
        ("m.csv", '\ufefflabel;text\r\nham;see you at six, bring tea\r\nspam;"WIN; now"\r\n'),
        ("m.csv", 'sep=;\r\nlabel;text\r\nham;see you at six, bring tea\r\nspam;"WIN; now"\r\n'),
        ("m.csv", "text\tlabel\nsee you at six, bring tea\tham\nWIN; now\tspam\n"),
        ("m.txt", "label\ttext\nham\tsee you at six, bring tea\nspam\tWIN; now\n".encode("utf-16")),
        ("m.tsv", "ham\tsee you at six, bring tea\r\nspam\tWIN; now\r\n".encode("utf-16")),
        ("m.txt", 'label,text\nham,"see you at six, bring tea"\nspam,WIN; now\n'),
        ("m.csv.gz", gzip.compress(b'label,text\nham,"see you at six, bring tea"\nspam,WIN; now\n', mtime=0)),
        ("m.csv", 'spam,text\nno,"see you at six, bring tea"\nyes,WIN; now\n'),
        ("m.jsonl", '{"text": "see you at six, bring tea", "label": "ham"}\n\n{"text": "WIN; now", "label": 1}\n'),
        ("m.json", json.dumps([{"text": text.decode(), "label": label} for label, text in BOTH], indent=1)),
        ("m.jsonl", json.dumps([{"text": text.decode(), "label": bool(label)} for label, text in BOTH], indent=1)),
    ],
)
def test_messages_are_read_from_what_people_save(write: Write, name: str, content: bytes | str) -> None:
    assert messages(write(name, content)) == BOTH


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_first_message_is_not_swallowed_as_a_header(write: Write, separator: str, start: bytes) -> None:
    text = "\n".join(separator.join(row) for row in [("ham", '"you, at ""six"""'), ("spam", "win")]) + "\n"
    content = text.encode("utf-16") if start == b"utf-16" else start + text.encode()
    path = write("some.csv", content)
    error = refused(lambda: read_messages(path))
    assert (error.what, error.where) == ("the first line is a message, and not the names of the columns", f"{path}:1")
    run_the_command_of(error, path.parent)
    assert messages(path.with_name("some.named.csv")) == [(0, b'you, at "six"'), (1, b"win")]


def test_columns_beside_the_messages_get_names_too(write: Write) -> None:
    error = refused(lambda: read_messages(write("some.csv", "1,ham,hi\n2,spam,yo\n")))
    assert "column1,label,text" in str(error)


@pytest.mark.parametrize("content", ["a,b\n1,2\n0,5\n", "a,b\n3,2.5\n0,5\n", "a;b;c\n1;2,5;3\n0;5;6\n"])
def test_columns_of_numbers_are_no_messages(write: Write, content: str) -> None:
    error = refused(lambda: read_messages(write("some.csv", content)))
    assert error.what == "these are no messages"
    assert "--model" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull --include m.csv"),
        ("m.xlsx", b"PK\x03\x04\x14", "CSV UTF-8"),
        ("m.csv", b"\x80\x04\x95", "a pickle"),
        ("m.csv.gz", gzip.compress(b"label,text\n" * 99, mtime=0)[:-9], "damaged"),
        ("m.jsonl", '{"text": "a", "label": 0}\n{"text": \n', r"m\.jsonl:2: not JSON"),
        ("m.jsonl", '{"text": "a", "label": 0}\n{"text": "b"}\n', r"m\.jsonl:2: a row has other names"),
        ("m.csv", "label;text\nham;a;b\nspam;c\n", r"m\.csv:2: .*got 3 cells between semicolons, wanted 2"),
    ],
)
def test_what_is_no_table_of_messages_is_told_by_its_kind(
    write: Write, name: str, content: bytes | str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_messages(write(name, content))


def test_another_encoding_comes_with_the_command_that_converts_it(write: Write) -> None:
    path = write("my file.csv", "label;text\nham;café\n".encode("cp1252"))
    run_the_command_of(refused(lambda: read_messages(path)))
    assert messages(path.with_name("my file.utf8.csv")) == [(0, "café".encode())]


def test_a_share_that_splits_few_rows_is_given(write: Write) -> None:
    rows = read_messages(write("m.csv", "label,text\n" + "ham,a\nspam,b\nham,c\n" * 5))
    error = refused(lambda: split(rows, 7, 0.0001))
    assert error.next_step is not None
    assert all(map(len, split(rows, 7, float(error.next_step.split()[-1]))))


# Tables of a model's own code


def test_text_and_named_classes_are_columns_of_a_table(write: Write) -> None:
    path = write("t.csv", "comment,stars,pet\ngood; really,5,dog\n,1,Cat \n")
    table = read_table(path, {"comment": "string", "stars": "int32"}, label="pet", classes=["cat", "dog"])
    assert table.inputs["comment"].tolist() == [b"good; really", b""]
    assert table.inputs["stars"].tolist() == [5, 1]
    assert table.labels is not None
    assert (table.labels.dtype, table.labels.tolist()) == (np.int64, [1, 0])
    error = refused(lambda: read_table(path, {"stars": "int32"}, label="pet", classes=["cat", "doge"]))
    assert (error.what, error.where, error.got) == ("column pet has a value that is no class", f"{path}:2", "'dog'")
    assert "classes=[" in str(refused(lambda: read_table(path, {"stars": "int32"}, label="pet")))


@pytest.mark.parametrize(
    "content",
    [
        ",x,y\n0,5,a\n1,6,b\n",  # pandas: DataFrame.to_csv
        ",x,y\n0,5.0,a\n1,6.0,b\n",  # where one value was missing before
        "x,y,,\n5,a,,\n6,b,,\n,,,\n",  # Excel: cells that were used once
        "x,y\r5,a\r6,b\r",  # Excel for the Mac
    ],
)
def test_what_programs_add_to_a_table_is_no_data(write: Write, content: str) -> None:
    signature = Signature([TensorSpec("x", "int32", (None,)), TensorSpec("y", "string", (None,))], [OUTPUT])
    rows = read_rows(write("t.csv", content), signature)
    assert (rows["x"].tolist(), rows["y"].tolist()) == ([5, 6], [b"a", b"b"])


@pytest.mark.parametrize("content", [",x\n7,5\n8,6\n", "x,\n5,1\n6,\n"])
def test_a_column_without_a_name_that_holds_something_is_not_dropped(write: Write, content: str) -> None:
    with pytest.raises(DataError, match="columns that are not inputs"):
        read_rows(write("t.csv", content), of("x", "int32"))


@pytest.mark.parametrize(("words", "labels"), [("yes no", [1, 0]), ("FALSE True", [0, 1]), ("3 7", [3, 7])])
def test_yes_and_no_are_labels_of_two_classes(write: Write, words: str, labels: list[int]) -> None:
    path = write("t.csv", "x,label\n" + "".join(f"1,{word}\n" for word in words.split()))
    table = read_table(path, {"x": "bool"}, label="label", classes=["absent", "present"])
    assert table.labels is not None
    assert table.labels.tolist() == labels


def test_a_table_of_a_model_may_be_json_lines_with_lists(write: Write) -> None:
    table = read_table(
        write("t.jsonl", '{"x": [1, 2], "k": 5}\n{"x": [3, 4], "k": 6}\n'), {"x": "float32", "k": "int8"}
    )
    assert {name: values.tolist() for name, values in table.inputs.items()} == {"x": [[1, 2], [3, 4]], "k": [5, 6]}


# Numbers as Excel writes them


def test_decimal_commas_are_read_where_semicolons_separate(write: Write) -> None:
    path = write("d.csv", "a;b\n1,5;2\n-0,25;3\n1,000;4\n")
    table = read_table(path, {"a": "float64", "b": "int32"})
    assert table.inputs["a"].tolist() == [1.5, -0.25, 1.0]


def test_commas_that_may_stand_between_thousands_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("d.csv", "a;b\n1,500;2\n2,000;3\n")
    error = refused(lambda: read_table(path, {"a": "float32"}))
    assert error.where == f"{path}:2"
    monkeypatch.chdir(path.parent)
    run_the_command_of(error, path.parent)
    assert read_table(Path("points.csv"), {"a": "float32"}).inputs["a"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("content", ['a,b\n"1,5",2\n', "a;b\n1.500,5;2\n"])
def test_other_commas_in_numbers_get_a_sentence(write: Write, content: str) -> None:
    assert "Write a point" in str(refused(lambda: read_table(write("d.csv", content), {"a": "float32"})))


@pytest.mark.parametrize(
    ("given", "separator"), [("semicolon", ";"), ("tab", "\t"), ("\\t", "\t"), ("|", "|"), ("Comma", ","), ("", None)]
)
def test_a_separator_is_a_character_or_its_name(given: str, separator: str | None) -> None:
    assert parse_separator(given) == separator


@pytest.mark.parametrize("given", ["tabs", '"', "\n", ";;"])
def test_what_is_no_separator_is_refused(given: str) -> None:
    with pytest.raises(SettingError, match="--data-separator"):
        parse_separator(given)


@pytest.mark.parametrize("given", ["1", "0,0", "a,b", "0,inf", "0,1,2"])
def test_what_is_no_range_is_refused(given: str) -> None:
    with pytest.raises(SettingError, match="--data-range"):
        parse_range(given)


def test_a_given_separator_is_used_where_the_header_does_not_tell(write: Write) -> None:
    path = write("c.csv", "a:b\n1:2\n")
    source = DataSource(path, DataOptions(":"))
    signature = Signature([TensorSpec(name, "int32", (None,)) for name in "ab"], [OUTPUT])
    assert {name: values.tolist() for name, values in read_given_rows(source, signature).items()} == {
        "a": [1],
        "b": [2],
    }


def test_an_option_that_a_file_does_not_use_is_refused(write: Write) -> None:
    path = write("r.jsonl", '{"x": 1}\n')
    for options in (DataOptions(separator=";"), DataOptions(range=(0, 1))):
        with pytest.raises(SettingError, match="does not use it"):
            read_given_rows(DataSource(path, options), of("x", "int32"))


# Rows of a signature


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"instances": [{"x": [1, 2.5]}, {"x": [3, 4]}]}, [[1, 2.5], [3, 4]]),
        ({"instances": [[1, 2.5], [3, 4]]}, [[1, 2.5], [3, 4]]),
        ({"inputs": {"x": [[1, 2.5], [3, 4]]}}, [[1, 2.5], [3, 4]]),
        ([{"x": [1, 2]}, {"x": [3, float("nan")]}], [[1, 2], [3, np.nan]]),
    ],
)
def test_requests_to_a_server_are_rows(write: Write, content: Any, rows: Any) -> None:
    found = read_rows(write("r.json", json.dumps(content)), of("x", "float32", 2))["x"]
    assert found.dtype == np.float32
    assert np.array_equal(found, rows, equal_nan=True)


def test_base64_is_bytes(write: Write) -> None:
    rows = [base64.b64encode(each).decode() for each in (b"\0\1\0", b"")]
    path = write("r.json", json.dumps({"instances": [{"x": {"b64": each}} for each in rows]}))
    assert read_rows(path, of("x", "string"))["x"].tolist() == [b"\0\1\0", b""]


def test_large_integers_are_exact(write: Write) -> None:
    path = write("r.jsonl", '{"x": 9007199254740993}\n{"x": -1}\n')
    assert read_rows(path, of("x", "int64"))["x"].tolist() == [2**53 + 1, -1]


@pytest.mark.parametrize(
    ("dtype", "row", "lines", "said"),
    [
        ("int32", (), ["1", "null"], r":2: column x has a value that is not int32 .got None"),
        ("int32", (), ["1", "1.5"], ":2: column x has a value that is not int32 .got 1.5"),
        ("uint8", (2,), ["[1, 2]", "[3, 256]"], ":2: column x has a value that is not uint8 .got 256"),
        ("float32", (), ["1", "true"], ":2: column x has a value that is not float32 .got True"),
        ("float16", (2,), ["[1, 2]", "[3, 70000]"], ":2: column x has a value that is not float16"),
        ("float32", (None,), ["[1, 2]", "[1]"], ":2: x has values of different sizes"),
        ("float32", (2,), ["[1, 2]", "[1, [2]]"], ":2: x has values of different sizes"),
        ("float32", (3,), ["[1, 2]"], "x has another shape .got .2., wanted .3."),
        ("float32", (3,), ["1"], "x has another shape"),
        ("string", (), ['"a"', "5"], ":2: column x has a value that is no text .got 5"),
    ],
)
def test_a_value_that_is_no_row_is_named_by_its_line(
    write: Write, dtype: str, row: tuple[int | None, ...], lines: list[str], said: str
) -> None:
    path = write("r.jsonl", "".join(f'{{"x": {line}}}\n' for line in lines))
    with pytest.raises(DataError, match=f"r.jsonl{said}" if said.startswith(":") else said):
        read_rows(path, of("x", dtype, *row))


def test_lists_may_be_nested_or_flat(write: Write) -> None:
    for row in ([[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6]):
        path = write("r.jsonl", json.dumps({"x": row}))
        assert read_rows(path, of("x", "int8", 2, 3))["x"].tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_a_column_may_be_an_input_of_one_value_in_a_list(write: Write) -> None:
    path = write("r.csv", "text,label\nhi,cat\nyo,ant\n")
    rows = read_rows(path, of("text", "string", 1))
    assert rows["text"].tolist() == [[b"hi"], [b"yo"]]
    assert rows["labels"].tolist() == [1, 0]  # by the alphabet, where no decision names the classes
    decided = Signature(
        [TensorSpec("text", "string", (None,))],
        [TensorSpec("y", "float32", (None, 2))],
        Decision("y", labels=("cat", "ant")),
    )
    assert read_rows(path, decided)["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [("1,2\n3,4\n", [[1, 2], [3, 4]]), ("u,v\n1,2\n", [[1, 2]]), ("id;x_0;x_1\n7;1;2\n", [[1, 2]])],
)
def test_a_table_that_lacks_a_header_or_has_another_gets_the_command_that_helps(
    write: Write, content: str, wanted: list[list[int]]
) -> None:
    path, signature = write("r.csv", content), of("x", "int32", 2)
    command = str(refused(lambda: read_rows(path, signature)).next_step)
    command = command[min(at for start in ("(printf", "sed ", "python -c") if (at := command.find(start)) >= 0) :]
    path_of_environment = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # activated, as the README says
    command, _, again = command.partition(", and then: ")
    assert again in ("", "luigi --module pipeline WriteReport --data r.named.csv")
    typed = ["sh", "-c", command.removesuffix(" and name that file")]
    subprocess.run(typed, check=True, cwd=path.parent, env={**os.environ, "PATH": path_of_environment})
    assert read_rows(path.with_name("r.named.csv"), signature)["x"].tolist() == wanted


# NumPy's files


def test_rows_that_may_have_lost_zero_bytes_are_refused_and_objects_are_whole(tmp_path: Path) -> None:
    rows = [b"\n\x04\0\0", b"\n\x04\1\1", b"\n\x04\0\2"]
    np.savez(tmp_path / "r.npz", x=np.array(rows))
    error = refused(lambda: read_rows(tmp_path / "r.npz", of("x", "string")))
    assert error.got == "1 of 3 rows that are no text and shorter than the width of 4 bytes"
    np.savez(tmp_path / "r.npz", x=np.array(rows, object), label=np.array(["b", "a", "b"]))
    found = read_rows(tmp_path / "r.npz", of("x", "string"))
    assert found["x"].tolist() == rows
    assert found["labels"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("value", [Path("a"), {"a": 1}, print, 1.5])
def test_objects_that_are_neither_bytes_nor_text_are_not_unpickled(tmp_path: Path, value: object) -> None:
    array = np.empty(1, object)
    array[0] = value
    np.savez(tmp_path / "r.npz", x=array)
    with pytest.raises(DataError, match="neither bytes nor text"):
        load_given_arrays(tmp_path / "r.npz")


def test_given_arrays_are_those_that_were_saved(tmp_path: Path) -> None:
    texts = np.array([["a\0", "é"], [b"\0", b""]], object)
    np.savez(tmp_path / "r.npz", t=texts, n=np.arange(3))
    found = load_given_arrays(tmp_path / "r.npz")
    assert found["t"].tolist() == [[b"a\0", "é".encode()], [b"\0", b""]]
    assert found["n"].tolist() == [0, 1, 2]
    ours = np.array([b"a\0", None], object)[:1]
    save_arrays(tmp_path / "own.npz", {"x": ours})
    assert load_given_arrays(tmp_path / "own.npz")["x"].tolist() == [b"a\0"]


def test_one_array_is_the_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.ones((3, 2), np.float32))
    assert read_rows(tmp_path / "r.npy", of("x", "float32", 2))["x"].shape == (3, 2)
    np.savez(tmp_path / "r.npz", np.ones((3, 2)))
    error = refused(lambda: read_rows(tmp_path / "r.npz", of("x", "float32", 2)))
    assert error.got == "float64"
    np.savez(tmp_path / "r.npz", x=np.full((3, 2), 0.5))
    run_the_command_of(refused(lambda: read_rows(tmp_path / "r.npz", of("x", "float32", 2))))
    assert read_rows(tmp_path / "r.float32.npz", of("x", "float32", 2))["x"].tolist() == [[0.5, 0.5]] * 3


# TFRecord


def framed(records: list[bytes]) -> bytes:
    """The bytes of a TFRecord file, as record_writer.h describes them."""

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    lengths = [struct.pack("<Q", len(record)) for record in records]
    return b"".join(n + masked(n) + record + masked(record) for n, record in zip(lengths, records, strict=True))


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def example(**features: list[bytes] | list[float] | list[int]) -> bytes:
    """A tf.Example by hand, from example.proto and feature.proto."""
    entries = []
    for name, values in features.items():
        if isinstance(values[0], bytes):
            kind = field(1, b"".join(field(1, value) for value in values))  # type: ignore[arg-type]
        elif isinstance(values[0], float):
            kind = field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            kind = field(3, field(1, bytes(values)))  # type: ignore[arg-type]  # below 128: a byte each
        entries.append(field(1, field(1, name.encode()) + field(2, kind)))
    return field(1, b"".join(entries))


RECORDS = [example(a=[1, 0], label=[b"dog"]), example(a=[2, 0], label=[b"cat"])]


@pytest.mark.parametrize("name", ["r.tfrecord", "train-00000-of-00001", "r.tfrecord.gz"])
def test_a_record_is_a_row_for_a_graph_that_parses_it(write: Write, name: str) -> None:
    content = framed(RECORDS)
    path = write(name, gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    rows = read_rows(path, of("serialized", "string"))
    assert rows["serialized"].tolist() == RECORDS
    assert rows["labels"].tolist() == [1, 0]


def test_features_are_inputs_of_their_names(write: Write) -> None:
    records = [example(a=[1, 0], b=[0.5], t=[b"x\0"], id=[7]), example(a=[2, 5], b=[-1.0], t=[b""], id=[8])]
    specs = [
        TensorSpec("a", "int32", (None, 2)),
        TensorSpec("b", "float64", (None,)),
        TensorSpec("t", "string", (None, 1)),
    ]
    rows = read_rows(write("r.tfrecord", framed(records)), Signature(specs, [OUTPUT]))
    assert {name: values.tolist() for name, values in rows.items()} == {
        "a": [[1, 0], [2, 5]],
        "b": [0.5, -1.0],
        "t": [[b"x\0"], [b""]],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:-1], "record 2: .*cut off"),
        (lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:], "record 1: .*checksum of its bytes"),
        (lambda raw: raw + b"more", "record 3: .*checksum of its length"),
        (lambda raw: b"", "the file is empty"),
    ],
)
def test_a_damaged_record_is_named(write: Write, change: Callable[[bytes], bytes], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_rows(write("r.tfrecord", change(framed(RECORDS))), of("serialized", "string"))


def test_a_feature_that_a_record_lacks_is_named(write: Write) -> None:
    path = write("r.tfrecord", framed([*RECORDS, example(b=[1])]))
    with pytest.raises(DataError, match=r"record 3: a record has no feature a .got b"):
        read_rows(path, of("a", "int32", 2))
    other = write("s.tfrecord", framed([Summary(value=[Summary.Value(tag="t")]).SerializeToString()]))
    with pytest.raises(DataError, match="an input is missing in the data"):
        read_rows(other, of("a", "int32", 2))


def test_a_feature_that_is_the_last_part_of_an_inputs_name_is_its(write: Write) -> None:
    rows = read_rows(write("r.tfrecord", framed(RECORDS)), of("obs/a", "int64", 2))
    assert rows["obs/a"].tolist() == [[1, 0], [2, 0]]


def test_the_files_of_a_folder_are_read_one_after_the_other(write: Write, tmp_path: Path) -> None:
    for number, record in enumerate(RECORDS):
        write(f"parts/part-{number}.tfrecord", framed([record]))
    write("parts/_SUCCESS", b"")
    rows = read_rows(tmp_path / "parts", of("a", "int64", 2))
    assert rows["a"].tolist() == [[1, 0], [2, 0]]
    assert "labels" not in rows  # names of classes in one part do not tell the numbers of all
    write("parts/notes.csv", "a\n1\n")
    with pytest.raises(DataError, match="neither a folder of images nor of data files of one kind"):
        read_rows(tmp_path / "parts", of("a", "int64", 2))


# Parquet


def test_parquet_columns_are_inputs_and_messages(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"text": ["hi", "yo\0"], "x": [[1.5, 2], [3, 4]], "raw": [b"\0", b"\1"], "label": ["ham", "spam"]}
    parquet.write_table(arrow.table(table), tmp_path / "r.parquet")
    specs = [TensorSpec("x", "float32", (None, 2)), TensorSpec("raw", "string", (None,))]
    rows = read_rows(tmp_path / "r.parquet", Signature(specs, [OUTPUT]))
    assert (rows["x"].tolist(), rows["raw"].tolist()) == ([[1.5, 2], [3, 4]], [b"\0", b"\1"])
    assert rows["labels"].tolist() == [0, 1]
    assert messages(tmp_path / "r.parquet") == [(0, b"hi"), (1, b"yo\0")]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "r.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match="no readable Parquet file"):
        read_rows(tmp_path / "cut.parquet", Signature(specs, [OUTPUT]))


def test_without_its_library_parquet_is_refused_with_the_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'freeze-pipeline\[parquet\]'"):
        read_rows(write("r.parquet", b"PAR1"), of("x", "int32"))
