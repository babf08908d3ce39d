"""The list of a batch: checked as a whole before anything runs, each fault with its line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.tasks.batch.listing import Row, plain_name, read_list


def rows_of(folder: Path, *lines: str, formats: str = "") -> list[Row]:
    path = folder / "models.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_list(path, "out", formats)


def refusal_of(folder: Path, *lines: str) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(folder, *lines)
    return str(caught.value)


def test_a_line_is_a_request_and_its_paths_are_the_files(tmp_path: Path) -> None:
    [one, other] = rows_of(
        tmp_path,
        "name,checkpoint,inputs,outputs,formats,data,pin,model",
        'spam,runs/a/model.ckpt-7,"x,y",p,"frozen,mmap",rows.csv,k=1,',
        "sum,,,,,,,multiply_add",
    )
    parameters = one.parameters
    assert (one.name, one.line, one.checkpoint) == ("spam", 2, "runs/a/model.ckpt-7")
    assert parameters.checkpoint == str(tmp_path / "runs/a/model.ckpt-7")
    assert parameters.data == str(tmp_path / "rows.csv")
    assert (parameters.inputs, parameters.outputs, parameters.formats, parameters.pin) == (
        "x,y",
        "p",
        "frozen,mmap",
        "k=1",
    )
    assert parameters.output_root == str(Path("out").absolute())
    assert (other.name, other.parameters.model, other.parameters.checkpoint, other.parameters.data) == (
        "sum",
        "multiply_add",
        "",
        "",
    )


def test_absolute_paths_stay_and_formats_of_the_batch_are_those_of_lines_without(tmp_path: Path) -> None:
    one, other = rows_of(
        tmp_path, "name,checkpoint,formats", "a,/models/a,", "b,/models/b,mmap", formats="frozen,savedmodel"
    )
    assert one.parameters.checkpoint == "/models/a"
    assert (one.parameters.formats, other.parameters.formats) == ("frozen,savedmodel", "mmap")


def test_a_pattern_stands_for_all_that_it_matches_named_by_their_paths(tmp_path: Path) -> None:
    for run in ("a", "b"):
        for step in (7, 8):
            for end in ("index", "meta", "data-00000-of-00001"):
                path = tmp_path / "runs" / run / f"model.ckpt-{step}.{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    rows = rows_of(tmp_path, "name,checkpoint", ",runs/*/model.ckpt-*.index", "x,runs/b/model.ckpt-[8].*")
    assert [row.name for row in rows] == [
        "runs-a-model.ckpt-7",
        "runs-a-model.ckpt-8",
        "runs-b-model.ckpt-7",
        "runs-b-model.ckpt-8",
        "x-runs-b-model.ckpt-8",
    ]
    assert rows[0].parameters.checkpoint == str(tmp_path / "runs/a/model.ckpt-7")
    assert rows[0].checkpoint == "runs/a/model.ckpt-7"


def test_names_of_paths_hold_no_odd_characters_and_stay_apart_and_short(tmp_path: Path) -> None:
    long = "l" * 120
    for run in ("a b", "a_b", "ä", long):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "m.index").touch()
    names = [row.name for row in rows_of(tmp_path, "name,checkpoint", ",runs/*/m.index")]
    assert len({name.casefold() for name in names}) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) for name in names)
    assert "runs-a_b-m" in names


def test_a_file_whose_name_looks_like_a_pattern_is_taken_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    [row] = rows_of(tmp_path, "name,checkpoint", "a,run[1]")
    assert row.parameters.checkpoint == str(tmp_path / "run[1]")


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    told = refusal_of(
        tmp_path,
        "name,checkpoint,formats,model",
        "good,a,,",
        "../up,a,,",
        "/etc/x,a,,",
        "Good,b,,",
        "c,c,frozn,",
        "d,,,",
        "e,nothing/*/here,,",
        "batch,f,,",
        f"{'n' * 300},g,,",
        'h,h,",",',
        "con,i,,",
    )
    assert "nothing was run" in told
    for fault in (
        r"line 3: name: not a valid folder name \(got '\.\./up'",
        r"line 4: name: not a valid folder name \(got '/etc/x'",
        r"line 5: the name Good is taken: line 2 has it",
        r"line 6: formats: unknown format \(got frozn\)\. Did you mean 'frozen'\?",
        r"line 7: neither a checkpoint nor a model",
        r"line 8: checkpoint nothing/\*/here: no file matches",
        r"line 9: name: batch is the folder for the tables of batches",
        r"line 10: name: not a valid folder name",
        r"line 11: formats: none",
    ):
        assert re.search(fault, told), fault
    assert "line 2:" not in told


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["name,model", "a,b"], r"line 1: the column checkpoint is missing"),
        (["checkpoint,formts", "a,b"], r"the column name is missing; unknown column 'formts': did you mean 'formats'"),
        (["name,checkpoint,name", "a,b,c"], r"the column name is there twice"),
        (["name,checkpoint", "a"], r"line 2: a line has another number of cells than the header \(got 1, wanted 2\)"),
        (["name,checkpoint", 'a,"b'], r"line 2: the list is not CSV"),
        (["<!doctype html>", "<html>"], r"line 1: this is HTML or XML, not CSV"),
        (["name,checkpoint", ""], r"there is no model in it"),
        ([""], r"line 1: the column name is missing; the column checkpoint is missing \(got nothing"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(tmp_path: Path, lines: list[str], said: str) -> None:
    assert re.search(said, refusal_of(tmp_path, *lines))


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the list cannot be read .got No such file"):
        read_list(tmp_path / "models.csv", "out")
    (tmp_path / "models.csv").write_bytes(b"name,checkpoint\n\xff\xfe,a\n")
    with pytest.raises(DataError, match=r"not UTF-8 text .got byte 16"):
        read_list(tmp_path / "models.csv", "out")


@pytest.mark.parametrize("stem", [".versions", "my models", "..", "ä", "a/../../b", "x" * 300])
def test_the_name_of_a_batch_is_one_for_a_folder_whatever_its_list_is_called(stem: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", plain_name([stem]))
    assert plain_name(["models"]) == "models"


def test_a_pipe_in_place_of_the_list_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "models.csv")
    with pytest.raises(DataError, match="the list cannot be read"):
        read_list(tmp_path / "models.csv", "out")
