"""Worst rows of a failed validation, and the command that feeds them again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import commands
import faults
import jobs
import numpy as np
import pytest
from faults import FAULTS, Home

from pipeline.cli import main
from pipeline.data.npz import load_arrays
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.tasks.chain.plan import Chain

BY_NAME = {one.name: one for one in FAULTS}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("worst") / "home")


def validate_fault(name: str, home: Home, folder: Path) -> dict[str, Any]:
    """Validates a planted fault; returns the verdict."""
    return faults.outcome_of(BY_NAME[name], home, folder).verdict


def rerun(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Runs `python -m pipeline rerun`; returns its exit code and lines."""
    capsys.readouterr()
    code = main(["rerun", str(folder)])
    said = capsys.readouterr()
    return code, (said.out + said.err).splitlines()


def test_the_worst_rows_are_kept_and_differ_again_until_the_candidate_is_right(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = validate_fault("uint8 wrap", home, tmp_path)
    place = tmp_path / "validation" / "worst"
    assert sorted(path.name for path in place.iterdir()) == ["frozen.npz", "reproduce.sh", "worst.json"]
    kept = load_arrays(place / "frozen.npz")
    assert kept["is_worst"].sum() == 16
    (equal,) = [one for one in verdict["checks"] if (one["check"], one["output"]) == ("equal", "total")]
    rows = {
        (kept["check"][number].decode(), kept["row"][number].decode()): number
        for number in np.flatnonzero(kept["is_worst"])
    }
    worst = rows["equal", str(equal["worst"]["row"])]
    np.testing.assert_array_equal(kept["input/x"][worst], faults.models.X[equal["worst"]["row"]])
    assert str(kept["reference/total"][worst]) == equal["worst"]["reference"]
    assert str(kept["candidate/total"][worst]) == equal["worst"]["candidate"]
    assert {check for check, _ in rows} == {"equal", "edge", "generated", "golden"}

    code, lines = rerun(tmp_path / "validation", capsys)
    assert code == 1
    assert lines[0].split() == [
        "format",
        "check",
        "row",
        "output",
        "element",
        "reference",
        "candidate",
        "difference",
        "verdict",
    ]
    assert len(lines) == 1 + 16 + 1
    assert lines[-1] == "16 of 16 answers differ"
    (line,) = [line.split() for line in lines if line.split()[:3] == ["frozen", "equal", str(equal["worst"]["row"])]]
    assert line[-1] == "differs"
    assert line[4:6] == [equal["worst"]["reference"], equal["worst"]["candidate"]]

    shutil.copy(home.frozen / "model.pb", tmp_path / "candidate")
    code, lines = rerun(tmp_path / "validation", capsys)
    assert (code, lines[-1]) == (0, "all 16 answers agree")


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("batch norm in training mode", "stable"),
        ("argmax tie", "decisions"),
        ("crash", "equal"),
        ("missing output", "equal"),
        ("output of another shape", "golden"),
        ("wrong step exported", "golden"),
        ("table missing", "edge"),
    ],
)
def test_rows_of_every_check_differ_again(
    name: str, check: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate_fault(name, home, tmp_path)
    code, lines = rerun(tmp_path / "validation" / "worst", capsys)
    assert code == 1
    rows = [line.split() for line in lines[1:-1]]
    assert check in {row[1] for row in rows}
    assert {row[-1] for row in rows if row[1] == check} == {"differs"}


def test_nothing_is_kept_where_no_row_differs(home: Home, tmp_path: Path) -> None:
    validate_fault("one weight off by one ULP", home, tmp_path)
    assert not (tmp_path / "validation" / "worst").exists()


@pytest.fixture(scope="module")
def failed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes an output root whose validation fails: the bounds are 0, and a weight is changed before the comparison."""
    root = tmp_path_factory.mktemp("root")
    job = jobs.job_for(root, f"{jobs.FRUIT}:Fruit")
    jobs.run(job, "frozen")
    spoil(job.folder("frozen"))
    Chain(job).build("validation")
    return root


def spoil(frozen: Path) -> None:
    """Changes a weight of a frozen artifact, and its manifest to match."""
    from pipeline.hashing import hash_file
    from pipeline.store.manifest import FileEntry, Manifest

    graph = faults.cases.read_graph(frozen)
    bias = faults.graphs.node(graph, "logits/bias")
    tensor = faults.models.tf.make_ndarray(bias.attr["value"].tensor)
    bias.attr["value"].tensor.CopyFrom(faults.models.tf.make_tensor_proto(tensor[::-1] + np.float32(1.5)))
    faults.cases.write_graph(graph, frozen)
    manifest, path = Manifest.read(frozen), frozen / "model.pb"
    stat = path.stat()
    files = {**manifest.files, "model.pb": FileEntry(stat.st_size, hash_file(path), stat.st_mtime_ns)}
    changed = Manifest(manifest.stage, manifest.fingerprint_inputs, files, manifest.notes)
    (frozen / MANIFEST_FILE).write_text(changed.to_json())


def test_one_command_feeds_the_rows_of_a_chain_again_wherever_its_root_was_moved(
    failed_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(failed_root, tmp_path / "moved", symlinks=True)
    script = tmp_path / "moved" / "fruit" / "validation" / "worst" / "reproduce.sh"
    finished_rows = commands.run("sh", str(script), cwd=commands.PROJECT)
    assert finished_rows.returncode == 1, finished_rows.stderr
    assert "answers differ" in finished_rows.stdout
    assert str(tmp_path) not in (script.parent / "worst.json").read_text()
    verdict = json.loads((tmp_path / "moved" / "fruit" / "validation" / "verdict.json").read_text())
    assert verdict["causes"]["frozen"]["kind"] == "weights_differ"


def test_the_real_folder_of_a_version_finds_the_others_too(
    failed_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = rerun((failed_root / "fruit" / "validation" / "worst").resolve(), capsys)
    assert code == 1
    assert lines[-1].endswith("answers differ")


DAMAGES = {
    "gone": "no worst rows to feed again",
    "empty notes": "no worst rows to feed again",
    "notes of another kind": "no worst rows to feed again",
    "rows are HTML": "no readable arrays",
    "rows are truncated": "no readable arrays",
    "rows are gone": "no readable arrays",
    "rows lack labels": "not a file of worst rows",
    "the candidate is gone": "a compared artifact is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_fed_again_gets_a_sentence(
    damage: str, failed_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(failed_root / "fruit", tmp_path / "fruit", symlinks=True)
    place = tmp_path / "fruit" / "validation" / "worst"
    rows, notes = place / "frozen.npz", place / "worst.json"
    if damage == "gone":
        shutil.rmtree(place.resolve())
    elif damage == "empty notes":
        notes.write_text("")
    elif damage == "notes of another kind":
        notes.write_text("[]")
    elif damage == "rows are HTML":
        rows.write_text("<html>Not found</html>")
    elif damage == "rows are truncated":
        rows.write_bytes(rows.read_bytes()[:-30])
    elif damage == "rows are gone":
        rows.unlink()
    elif damage == "rows lack labels":
        from pipeline.data.npz import save_arrays

        save_arrays(rows, {"input/x": np.zeros((2, 4), np.float32)})
    else:
        (tmp_path / "fruit" / "frozen").unlink()
    code, lines = rerun(place, capsys)
    assert code == 3
    assert DAMAGES[damage] in lines[-1]


def test_a_long_table_is_read_in_little_memory(tmp_path: Path) -> None:
    """Only the worst of many failed rows are held in memory."""
    from pipeline.validation.replay.worst_rows import _read_worst_rows

    results = tmp_path / "results.csv"
    head = "model,format,check,output,row,element,reference,candidate,abs_diff,rel_diff,ulp_diff,verdict\n"
    with results.open("w") as file:
        file.write(head)
        for row in range(50_000):
            file.write(f"m,frozen,equal,y,{row},,0,1,{row / 2},0,0,{'failed' if row % 2 else 'passed'}\n")
    started = time.monotonic()
    picks = _read_worst_rows(results, "frozen")
    assert time.monotonic() - started < 60
    assert [pick.row for pick in picks] == [str(row) for row in range(49_999, 49_999 - 32, -2)]


def test_the_script_is_for_any_shell(failed_root: Path) -> None:
    script = failed_root / "fruit" / "validation" / "worst" / "reproduce.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert (
        "python -m pipeline rerun" in " ".join(script.read_text().split())
        or '"$python" -m pipeline rerun' in script.read_text()
    )
