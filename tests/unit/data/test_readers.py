"""Readers that lose no row, and a split that keeps its word."""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.readers import Examples, normalized, read_messages, read_table, split
from pipeline.errors import DataError

COLLECTION = Path(__file__).resolve().parents[4] / "shared" / "data" / "sms_spam" / "SMSSpamCollection"

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, raw: bytes) -> Path:
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return write_file


def messages(path: Path) -> list[tuple[int, bytes]]:
    examples = read_messages(path)
    assert examples.labels is not None
    assert examples.labels.dtype == np.int64
    return list(zip(examples.labels.tolist(), examples.inputs["text"].tolist(), strict=True))


# Tab-separated messages


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (b"ham\thi\nspam\tyo\n", [(0, b"hi"), (1, b"yo")]),
        (b"ham\thi\nspam\tyo", [(0, b"hi"), (1, b"yo")]),
        (b"ham\thi\r\nspam\tyo\r\n", [(0, b"hi"), (1, b"yo")]),
        (b"\xef\xbb\xbfham\thi\nspam\tyo\n", [(0, b"hi"), (1, b"yo")]),
        (b'ham\t"hi\nspam\tyo"\n', [(0, b'"hi'), (1, b'yo"')]),
        (b'"ham\thi\n', None),
        (b"ham\t'hi\nspam\t'\n", [(0, b"'hi"), (1, b"'")]),
        (b"ham\thi\n\n \n\t\nspam\tyo\n\n", [(0, b"hi"), (1, b"yo")]),
        (b"ham\thi\r\n\r\nspam\tyo\r\n\r\n", [(0, b"hi"), (1, b"yo")]),
        (b"ham\t#hi\nspam\tNA\nham\tnull\nham\t1.50\n", [(0, b"#hi"), (1, b"NA"), (0, b"null"), (0, b"1.50")]),
        (b"ham\ta\x00b\n", [(0, b"a\x00b")]),
        (b"ham\ta\rb\n", [(0, b"a\rb")]),
        ("ham\ta\u2028b\x85c\x0cd\n".encode(), [(0, "a\u2028b\x85c\x0cd".encode())]),
        (b"ham\t\nspam\t \n", [(0, b""), (1, b" ")]),
        (b" HAM \thi\n", [(0, b"hi")]),
        (b"ham\thi \\n there\\\n", [(0, b"hi \\n there\\")]),
    ],
)
def test_every_line_becomes_a_row_byte_by_byte(write: Write, raw: bytes, rows: list[tuple[int, bytes]] | None) -> None:
    path = write("some.tsv", raw)
    if rows is None:
        with pytest.raises(DataError):
            read_messages(path)
    else:
        assert messages(path) == rows


texts = st.text(st.characters(exclude_characters="\n\t\r", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["ham", "spam"]), texts), min_size=1, max_size=6))
def test_whatever_text_stands_behind_a_tab_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.tsv"
    path.write_bytes("".join(f"{label}\t{text}\n" for label, text in rows).encode())
    assert messages(path) == [(int(label == "spam"), text.encode()) for label, text in rows]


@pytest.mark.parametrize(
    ("word", "label"), [("ham", 0), ("Spam", 1), ("0", 0), ("1", 1), ("FALSE", 0), ("true", 1), ("no", 0), ("yes", 1)]
)
def test_labels_are_known_in_many_words(write: Write, word: str, label: int) -> None:
    assert messages(write("some.tsv", f"{word}\thi\n".encode())) == [(label, b"hi")]


@pytest.mark.parametrize(
    ("raw", "line", "sentence"),
    [
        (b"ham\thi\nhum\tyo\n", 2, "unknown label"),
        (b"ham\thi\n\n\r\nhum\tyo\n", 4, "unknown label"),
        (b"ham\thi\n\thi\n", 2, "unknown label"),
        (b"ham\thi\nspam yo\n", 2, "1 field in"),
        (b"ham\thi\n\nspam\tyo\tyo\n", 3, "3 fields in"),
        (b"ham\thi\nspam\t\xff\n", 2, "byte 0xff"),
        (b"h\0a\0m\0\t\0", 1, "iconv -f UTF-16LE -t UTF-8"),
        (b"\xff\xfeh\0u\0m\0\t\0", 1, "unknown label"),
        (b"\xef\xbb\xbfham\thi\n\xffspam\tyo\n", 2, "byte 0xff"),
        (b"ham\thi\nspam\tcaf\xc3", 2, "byte 0xc3"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(write: Write, raw: bytes, line: int, sentence: str) -> None:
    path = write("some.tsv", raw)
    with pytest.raises(DataError, match=sentence) as caught:
        read_messages(path)
    assert caught.value.where == f"{path}:{line}"


# What is no data file at all


def read_numbers(path: Path) -> Examples:
    return read_table(path, {"x": "int32"})


@pytest.mark.parametrize("name", ["some.tsv", "some.csv", "some.CSV", "some.txt"])
@pytest.mark.parametrize("read", [read_messages, read_numbers])
@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "the file is empty"),
        (b" \n\n\t\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page, not a table"),
        (b"\xef\xbb\xbf\n <HTML lang='en'>", "an HTML page, not a table"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused(
    write: Write, read: Callable[[Path], Examples], name: str, raw: bytes, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        read(write(name, raw))


@pytest.mark.parametrize("name", ["absent.tsv", "absent.csv", "folder", "folder.csv"])
@pytest.mark.parametrize("read", [read_messages, read_numbers])
def test_a_place_that_is_no_file_is_refused(tmp_path: Path, read: Callable[[Path], Examples], name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"no such file|not a file but a folder") as caught:
        read(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


# CSV messages


@pytest.mark.parametrize(
    "header",
    ["text,label", "message,class", "Body, Category ", "id,text,label", "text,label,id", "v1x,SMS,Spam", "x,label"],
)
def test_columns_are_found_by_name(write: Write, header: str) -> None:
    names = [name.strip().lower() for name in header.split(",")]
    is_label = [name in ("label", "class", "category", "spam") for name in names]
    is_other = [name in ("id", "v1x") for name in names]
    cells = ["spam" if a else "7" if b else "hi" for a, b in zip(is_label, is_other, strict=True)]
    assert messages(write("some.csv", f"{header}\n{','.join(cells)}\n".encode())) == [(1, b"hi")]


@pytest.mark.parametrize("raw", [b"a,b\nham,hi\nspam,yo\n", b"a,b\nhi,ham\nyo,spam\n"])
def test_columns_are_found_by_content(write: Write, raw: bytes) -> None:
    assert messages(write("some.csv", raw)) == [(0, b"hi"), (1, b"yo")]


@pytest.mark.parametrize(
    "raw", [b"a,b\nham,spam\nspam,ham\n", b"a,b,c\nhi,yo,ham\n", b"a,b\nhi,yo\n", b"label\nham\n", b"a\nhi\n"]
)
def test_columns_that_cannot_be_told_apart_are_refused(write: Write, raw: bytes) -> None:
    with pytest.raises(DataError, match="no text and label columns found"):
        read_messages(write("some.csv", raw))


def test_a_header_without_rows_is_refused(write: Write) -> None:
    for raw in (b"text,label\n", b"text,label", b"text,label\n\n\n", b'""\n'):
        with pytest.raises(DataError, match="no rows"):
            read_messages(write("some.csv", raw))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(cells, st.sampled_from(["ham", "spam"])), min_size=1, max_size=5))
def test_what_a_csv_writer_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    sheet = io.StringIO()
    writer = csv.writer(sheet, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *rows])
    path.write_bytes(sheet.getvalue().encode())
    assert messages(path) == [(int(label == "spam"), text.encode()) for text, label in rows]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"text,label\nhi,ham\nyo,hum\n", 3),
        (b'text,label\n"a\nb\nc",ham\nyo,hum\n', 5),
        (b'text,label\r\n"a\r\nb",ham\r\n"yo\r\n",hum\r\n', 4),
        (b"text,label\nhi,ham\n\n\nyo,hum\n", 5),
        (b'"text",label,"an\nother"\nhi,ham,\nyo,hum,\n', 4),
        (b"text,label\nhi,\n", 2),
    ],
)
def test_a_wrong_label_is_named_by_the_line_where_its_row_begins(write: Write, raw: bytes, line: int) -> None:
    path = write("some.csv", raw)
    with pytest.raises(DataError, match="unknown label") as caught:
        read_messages(path)
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    "raw",
    [
        b"text,label\nhi,ham,more\nyo,spam\n",
        b"text,label\nhi,ham\nyo,spam,more\n",
        b"label,text\nham,hello, you\nspam,yo\n",
        b"label,text\nham\nspam,yo\n",
        b"label,text\nham,hi\nspam\n",
    ],
)
def test_a_row_of_another_length_than_the_header_is_refused(write: Write, raw: bytes) -> None:
    with pytest.raises(DataError):
        read_messages(write("some.csv", raw))


@pytest.mark.parametrize("raw", [b'text,label\n"hi,ham\nyo,spam\n', b'text,label\n"hi,spam\nyo" said he,ham\nme,ham\n'])
def test_a_quote_that_is_not_closed_swallows_no_row(write: Write, raw: bytes) -> None:
    with pytest.raises(DataError):
        read_messages(write("some.csv", raw))


def test_a_very_long_cell_is_read(write: Write) -> None:
    assert messages(write("some.csv", b"text,label\n" + b"x" * 300_000 + b",ham\n")) == [(0, b"x" * 300_000)]


def test_a_column_that_stands_twice_is_refused(write: Write) -> None:
    with pytest.raises(DataError):
        read_messages(write("some.csv", b"text,text,label\nhi,yo,ham\n"))


# Tables


def test_a_table_becomes_one_input_for_each_column(write: Write) -> None:
    path = write("some.csv", b"\xef\xbb\xbfy, x ,kind,unused\r\n0.5,2,1,a\r\n-1e3,-3,0,b\r\n")
    examples = read_table(path, {"x": "int32", "y": "float32"}, label="kind")
    assert {name: (values.dtype.name, values.tolist()) for name, values in examples.inputs.items()} == {
        "x": ("int32", [2, -3]),
        "y": ("float32", [0.5, -1000.0]),
    }
    assert examples.labels is not None
    assert (examples.labels.dtype.name, examples.labels.tolist()) == ("int64", [1, 0])
    assert read_table(path, {"x": "int32"}).labels is None


@pytest.mark.parametrize(
    ("dtype", "cell"),
    [
        ("int32", "1.5"),
        ("int32", ""),
        ("int32", "2147483648"),
        ("uint8", "-1"),
        ("uint8", "256"),
        ("int64", "9223372036854775808"),
        ("float32", "one"),
        ("float32", ""),
        ("float32", "1e39"),
        ("float16", "70000"),
        ("int32", "1_000"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_cell_that_is_no_number_of_its_dtype_is_named(write: Write, dtype: str, cell: str) -> None:
    path = write("some.csv", f'note,x\n"a\nb",1\nc,{cell}\n'.encode())
    with pytest.raises(DataError, match=f"column x has a value that is not {dtype}") as caught:
        read_table(path, {"x": dtype})
    assert caught.value.where == f"{path}:4"
    assert caught.value.got == repr(cell)


@pytest.mark.parametrize("raw", [b"x,y\n1,2,3\n4,5\n", b"x,y\n1,2\n4,5,6\n", b"x,y\n1\n4,5\n", b"x,y\n1,000,3\n"])
@pytest.mark.filterwarnings("ignore::Warning")
def test_a_row_of_numbers_too_many_or_too_few_is_refused(write: Write, raw: bytes) -> None:
    with pytest.raises(DataError):
        read_table(write("some.csv", raw), {"x": "int32"})


def test_a_missing_column_is_named(write: Write) -> None:
    with pytest.raises(DataError, match=r"no column named y, z \(got x, wanted x, y, z\)"):
        read_table(write("some.csv", b"x\n1\n"), {"x": "int32", "y": "int32"}, label="z")


# Examples and the split


def examples_of(keys: list[str]) -> Examples:
    return Examples({"x": np.arange(len(keys))}, np.arange(len(keys)) * 10, keys)


def test_examples_of_unequal_length_are_refused() -> None:
    for values in ({"labels": np.zeros(3)}, {"keys": ["a"]}):
        with pytest.raises(DataError, match="same number of rows"):
            Examples({"x": np.zeros(2)}, **values)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        Examples({"x": np.zeros(2), "y": np.zeros(3)})
    with pytest.raises(DataError):
        Examples({})


def test_rows_are_taken_in_the_given_order() -> None:
    for rows in (np.array([2, 0]), np.array([2, 0], dtype=np.int32)):
        taken = examples_of(["a", "b", "c"]).take(rows)
        assert (taken.inputs["x"].tolist(), taken.labels.tolist(), taken.keys) == ([2, 0], [20, 0], ["c", "a"])  # type: ignore[union-attr]
    assert examples_of(["a", "b", "c"]).take(np.array([True, False, True])).keys == ["a", "c"]
    assert len(Examples({"x": np.zeros(2)}).take(np.array([1]))) == 1


keys = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=2), min_size=40, max_size=60)


@given(keys, st.integers(0, 2**40), st.floats(0.3, 0.7))
def test_a_split_takes_each_row_once_in_file_order_and_parts_no_duplicates(
    keys: list[str], seed: int, share: float
) -> None:
    if len(set(keys)) < 30:
        return
    training, validation = split(examples_of(keys), seed, share)
    assert set(training.keys or ()).isdisjoint(validation.keys or ())
    for side in (training, validation):
        assert side.inputs["x"].tolist() == sorted(side.inputs["x"].tolist())
        assert [keys[row] for row in side.inputs["x"]] == side.keys
        assert (side.inputs["x"] * 10).tolist() == side.labels.tolist()  # type: ignore[union-attr]
    assert sorted([*training.inputs["x"], *validation.inputs["x"]]) == list(range(len(keys)))


@given(st.lists(st.text(max_size=3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_added_and_reordered_rows_move_no_other_row(added: list[str], random: Any) -> None:
    keys = [f"row {number}" for number in range(30)]
    before = set(split(examples_of(keys), 7, 0.5)[1].keys or ())
    more = keys + added
    random.shuffle(more)
    after = set(split(examples_of(more), 7, 0.5)[1].keys or ())
    assert before == after & set(keys)


def test_a_split_is_the_same_for_ever() -> None:
    validation = split(examples_of([str(number) for number in range(30)]), 7, 0.4)[1]
    assert validation.inputs["x"].tolist() == [5, 17, 20, 21, 22, 24, 26, 28]


def test_a_split_meets_its_share_and_another_seed_splits_otherwise() -> None:
    many = examples_of([str(number) for number in range(4000)])
    one, two = split(many, 1, 0.25)[1], split(many, 2, 0.25)[1]
    assert 900 < len(one) < 1100
    assert 180 < len(set(one.keys or ()) & set(two.keys or ())) < 320  # a sixteenth, as of independent draws


def test_rows_without_keys_are_split_by_their_values() -> None:
    texts = np.empty(60, dtype=object)
    texts[:] = [b"a\0" if number % 2 else f"{number}".encode() for number in range(60)]
    training, validation = split(Examples({"text": texts, "x": np.arange(60) // 2 * (np.arange(60) % 2 == 0)}), 7, 0.5)
    sides = [
        set(zip(side.inputs["text"].tolist(), side.inputs["x"].tolist(), strict=True))
        for side in (training, validation)
    ]
    assert sides[0].isdisjoint(sides[1])


def test_long_lists_of_strings_are_told_apart_by_all_of_their_values() -> None:
    words = np.full((60, 1500), b"same", object)
    words[:, 700] = [b"%d" % number for number in range(60)]
    assert all(map(len, split(Examples({"words": words}), 7, 0.5)))


@pytest.mark.parametrize("keys", [["a"], ["a", "a", "a"]])
def test_too_few_different_rows_are_refused(keys: list[str]) -> None:
    with pytest.raises(DataError, match=r"too few different rows .*got 1 different rows of"):
        split(examples_of(keys), 7, 0.5)


@pytest.mark.parametrize("text", ["Free entry!!", "FREE   entry", "free, entry.", "\tfree entry ", "ｆｒｅｅ entry"])
def test_near_duplicates_have_one_key(text: str) -> None:
    assert normalized(text) == "free entry"


def test_texts_without_words_keep_their_signs_apart() -> None:
    assert normalized(":-)") == ":-)"
    assert normalized(" :-( ") == ":-("


def test_the_keys_of_messages_are_their_normalized_texts(write: Write) -> None:
    assert read_messages(write("some.tsv", b"ham\tHi, you\nspam\thi you!\n")).keys == ["hi you", "hi you"]


def test_the_sms_spam_collection_is_read_whole() -> None:
    if not COLLECTION.exists():
        pytest.skip("the SMS Spam Collection is not here")
    examples = read_messages(COLLECTION)
    assert len(examples) == 5574
    assert examples.labels is not None
    assert int(examples.labels.sum()) == 747
    lines = COLLECTION.read_bytes().rstrip(b"\n").split(b"\n")
    assert [line.split(b"\t", 1)[1] for line in lines] == examples.inputs["text"].tolist()
    training, validation = split(examples, 7, 0.2)
    assert set(training.keys or ()).isdisjoint(validation.keys or ())
    assert 0.17 < len(validation) / 5574 < 0.23
