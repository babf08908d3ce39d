"""Texts in CSV files: a spreadsheet takes none for a formula, and each is read back as it was."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.report.csv_cells import read_cell, write_cell
from pipeline.report.results import read_results
from pipeline.validation.results.csv_file import ResultsFile

FORMULAS = [
    "=1+1",
    "+1",
    "-1.5",
    "@SUM(A1)",
    "\t=1",
    "\r\n=1",
    " =1",
    "a;=1",
    'a; "x";-1',
    "\u202e=1",
    "\ufeff=1",
    "＝1",
]
PLAIN = ["spam", "a/b:0", "a=b", "0;1", "it's", "e-mail", "naïve", "back\\slash", ""]
HOSTILE = st.text(st.sampled_from("=+-@;'\\ \t\r\n\x00\x85\u202e\u2028ax0é＝\"|,"), max_size=12)


def cells_of_a_spreadsheet(text: str, separator: str) -> list[str]:
    """Split a line of a CSV file as a program does that expects this separator."""
    return next(iter(csv.reader(io.StringIO(text, newline=""), delimiter=separator)), [])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@given(text=HOSTILE)
@example(text="a;=1")
@example(text="a;'=1")
@example(text="x\t=1")
def test_no_text_begins_like_a_formula_or_holds_a_control_character(text: str, separator: str) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([write_cell(text), "end"])
    for cell in cells_of_a_spreadsheet(line.getvalue(), separator):
        assert not re.match(r"\s*[=+\-@＝]", cell.strip('"')), (text, cell)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", cell), (text, cell)


@given(text=st.one_of(HOSTILE, st.text()))
def test_every_text_is_read_back_as_it_was(text: str) -> None:
    assert read_cell(write_cell(text)) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_stands_behind_an_apostrophe(text: str) -> None:
    assert write_cell(text).startswith("'")


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_are_written_as_they_are(text: str) -> None:
    assert write_cell(text) == text


def test_numbers_stay_numbers() -> None:
    assert [write_cell(value) for value in (-1.5, 3, None)] == [-1.5, 3, None]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results.csv with hostile names and values, and a number below zero."""
    file = ResultsFile(tmp_path / "results.csv", model="=model")
    columns = {
        "row": ["0", "1"],
        "element": ["", ""],
        "reference": ["=HYPERLINK(1)", -1.5],
        "candidate": ["a\nb", -1.0],
        "abs_diff": ["", 0.5],
        "rel_diff": ["", 0.5],
        "ulp_diff": ["", 1.0],
        "verdict": ["failed", "failed"],
    }
    file.write("frozen", "equal", columns, output="@output")
    file.close()
    return file.path


def test_the_results_of_a_validation_run_nothing_and_pandas_reads_their_names_and_numbers(results: Path) -> None:
    frame = pd.read_csv(results, dtype=str, keep_default_na=False)
    assert [frame.loc[0, name][0] for name in ("model", "output", "reference", "candidate")] == ["'"] * 4
    shown = frame[["model", "output", "reference", "candidate"]].map(read_cell)
    assert shown.loc[0].tolist() == ["=model", "@output", "=HYPERLINK(1)", "a\nb"]
    assert shown.loc[1].tolist() == ["=model", "@output", "-1.5", "-1.0"]


def test_the_report_shows_names_and_values_as_they_were(results: Path) -> None:
    read = read_results(results, "@output")
    assert list(read.values["frozen"]) == ["@output"]
    assert {(row["output"], row["reference"]) for row in read.worst} == {
        ("@output", "=HYPERLINK(1)"),
        ("@output", "-1.5"),
    }
