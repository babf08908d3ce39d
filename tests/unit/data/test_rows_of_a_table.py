"""Rows of a data file for the inputs of a signature: every cell is what it says, or a sentence tells the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.npz import save_arrays
from pipeline.data.table import read_rows
from pipeline.errors import DataError
from pipeline.signature import Signature, TensorSpec

OUTPUTS = [TensorSpec("y", "float32", (None,))]
SIGNATURE = Signature(
    [
        TensorSpec("size", "float32", (None,)),
        TensorSpec("parts", "int64", (None, 3)),
        TensorSpec("word", "string", (None,)),
        TensorSpec("is_new", "bool", (None,)),
        TensorSpec("rest", "float16", (None, None)),
        TensorSpec("open", "float64", None),
    ],
    OUTPUTS,
)
HEADER = "word,size,parts_2,parts_0,parts_1,is_new,rest_0,rest_1,open,labels"
ROWS = ['"naïve, or not",1.5,3,1,2,True,0.5,-1,7,1', ",-2e3,-3,-1,-2,0,1,2,nan,0"]


def of(*specs: TensorSpec) -> Signature:
    return Signature(specs, OUTPUTS)


NUMBER, PAIR = TensorSpec("x", "float32", (None,)), TensorSpec("x", "int32", (None, 2))


def table(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_each_column_is_an_input_or_a_part_of_one_by_its_name(tmp_path: Path) -> None:
    rows = read_rows(table(tmp_path, HEADER, *ROWS), SIGNATURE)
    assert {name: values.dtype.name for name, values in rows.items()} == {
        **{"size": "float32", "parts": "int64", "word": "object", "is_new": "bool"},
        **{"rest": "float16", "open": "float64", "labels": "int64"},
    }
    assert rows["size"].tolist() == [1.5, -2000]
    assert rows["parts"].tolist() == [[1, 2, 3], [-1, -2, -3]]
    assert rows["word"].tolist() == ["naïve, or not".encode(), b""]
    assert rows["is_new"].tolist() == [True, False]
    assert rows["rest"].tolist() == [[0.5, -1], [1, 2]]
    assert np.array_equal(rows["open"], [7, np.nan], equal_nan=True)
    assert rows["labels"].tolist() == [1, 0]


def test_numbers_of_narrow_dtypes_are_read_as_these(tmp_path: Path) -> None:
    rows = read_rows(table(tmp_path, "x", "1.5"), of(TensorSpec("x", "bfloat16", (None,))))
    assert (rows["x"].dtype.name, float(rows["x"][0])) == ("bfloat16", 1.5)


@pytest.mark.parametrize(
    ("spec", "lines", "said"),
    [
        (
            NUMBER,
            ["y", "1"],
            r"rows.csv: an input is missing in the data .got no x among its columns y, wanted x.*sed",
        ),
        (NUMBER, ["x,y", "1,2"], "the data has columns that are not inputs .got y, wanted x"),
        (NUMBER, ["x", "1", "two"], r"rows.csv:3: column x has a value that is not float32 .got 'two'"),
        (PAIR, ["x_0,x_1", "1,2", "3,4.5"], r"rows.csv:3: column x_1 has a value that is not int32 .got '4.5'"),
        (PAIR, ["x_0,x_1", "1,2", "3,9999999999"], r"rows.csv:3: column x_1 has a value that is not int32"),
        (PAIR, ["x_0", "1"], "an input is missing in the data .got no x_1"),
        (PAIR, ["x", "1"], "an input is missing in the data .got no x_0"),
        (PAIR, ["x_0,x_1,x_2", "1,2,3"], "columns that are not inputs .got x_2"),
        (NUMBER, ["x,labels", "1,spam", "1,2"], "rows.csv:2: column labels has a value that is not int64 .got 'spam'"),
        (NUMBER, ["x,x", "1,2"], "a column is named twice"),
        (NUMBER, ["x", "1,2"], "rows.csv:2: a row is not as long as the header"),
        (NUMBER, ["x"], "the table has a header but no rows"),
        (NUMBER, [""], "the file is empty"),
        (NUMBER, ["<!DOCTYPE html>", "<html>"], "an HTML page, not a table"),
        (
            TensorSpec("x", "bool", (None,)),
            ["x", "true", "yes"],
            r"rows.csv:3: column x has a value that is not bool .got 'yes'",
        ),
        (TensorSpec("x", "float32", (None, 2, 2)), ["x", "1"], "rows of this input do not fit a table.*Give an .npz"),
    ],
)
def test_a_table_that_is_not_the_inputs_is_refused(
    spec: TensorSpec, lines: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read_rows(table(tmp_path, *lines), of(spec))


def test_two_inputs_of_one_column_are_refused(tmp_path: Path) -> None:
    signature = of(PAIR, TensorSpec("x_1", "float32", (None,)))
    with pytest.raises(DataError, match="two inputs would use the same column"):
        read_rows(table(tmp_path, "x_0,x_1", "1,2"), signature)


def test_text_and_bytes_of_a_fixed_width_are_strings(tmp_path: Path) -> None:
    signature = of(TensorSpec("a", "string", (None, 2)), TensorSpec("b", "string", (None,)))
    texts, raw = np.array([["é", ""], ["longer", "x"]]), np.array([b"\xff\x00a", b"b"])
    assert (texts.dtype.kind, raw.dtype.kind) == ("U", "S")
    np.savez(tmp_path / "rows.npz", a=texts, b=raw)
    rows = read_rows(tmp_path / "rows.npz", signature)
    assert rows["a"].tolist() == [["é".encode(), b""], [b"longer", b"x"]]
    assert rows["b"].tolist() == [b"\xff\x00a", b"b"]
    assert rows["a"].dtype == rows["b"].dtype == object
    np.savez(tmp_path / "texts.npz", x=np.array(["1"]))
    with pytest.raises(DataError, match=r"wrong dtype .got str"):
        read_rows(tmp_path / "texts.npz", of(NUMBER))


@pytest.mark.parametrize(
    ("shape", "value"), [((), np.float32(0.5)), ((2,), np.array([1, 3], np.float32))], ids=["scalar", "class weights"]
)
def test_an_input_with_one_value_for_all_rows_is_given_once_as_a_model_is_fed_it(
    shape: tuple[int, ...], value: Any, tmp_path: Path
) -> None:
    others = [TensorSpec("x", "float32", (None, 3))] + [TensorSpec("mask", "float32", (4,))] * bool(shape)
    signature = of(TensorSpec("factor", "float32", shape), *others)
    beside = {"x": np.ones((5, 3), np.float32)} | ({"mask": np.zeros(4, np.float32)} if shape else {})
    np.savez(tmp_path / "rows.npz", factor=value, **beside)
    rows = read_rows(tmp_path / "rows.npz", signature)
    assert {name: len(array) for name, array in rows.items()} == dict.fromkeys(rows, 5)
    assert np.array_equal(rows["factor"], np.stack([value] * 5))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros(0, np.float32)}, "the data has no rows"),
        ({"x": np.float32(1)}, "rows.npz: x: an array has no rows"),
        ({"x": np.zeros(2, np.float32), "labels": np.zeros(3)}, "different numbers of rows"),
        ({"x": np.zeros(2, np.float32), "z": np.zeros(2)}, "arrays that are not inputs .got z"),
    ],
)
def test_arrays_that_are_no_rows_are_refused(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_arrays(tmp_path / "rows.npz", {name: np.asarray(values) for name, values in arrays.items()})
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / "rows.npz", of(NUMBER))


def test_a_page_by_the_name_of_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_text("<!DOCTYPE html><html>")
    with pytest.raises(DataError, match="no readable arrays"):
        read_rows(tmp_path / "rows.npz", of(NUMBER))
