"""Kills, collisions and a full disk: nothing half-written, nothing lost, the same bytes in the end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest
from commands import BIN, PROJECT, QUICK, luigi
from jobs import ALL_STAGES
from kills import finish, kill_after, leftovers, results, undisturbed


@pytest.fixture(scope="module", autouse=True)
def _costs_are_not_measured() -> Iterator[None]:
    """Every run would import TensorFlow twice for that; test_costs kills a measurement."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kills, "COMMAND", [*kills.COMMAND, "--costs-seconds", "0"])
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("share", [0.65, *(pytest.param(share, marks=pytest.mark.stress) for share in (0.45, 0.9))])
def test_a_run_killed_on_the_way_ends_with_the_same_bytes(
    whole: tuple[dict[str, bytes], float], tmp_path: Path, share: float
) -> None:
    wanted, seconds = whole
    kill_after(tmp_path, share * seconds)
    finish(tmp_path)
    assert results(tmp_path) == wanted
    assert leftovers(tmp_path) == []


def test_of_two_runs_at_once_one_works_and_the_other_finds_it_done(tmp_path: Path) -> None:
    command = [BIN / "luigi", "--module", "pipeline", "WriteReport", "--model", "examples/fruit.py:Fruit", *QUICK]
    runs = [
        subprocess.Popen(
            [*command, "--output-root", str(tmp_path)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert any("another run is making" in stderr for _, stderr in said)
    assert all("verdict      passed" in stdout for stdout, _ in said)
    assert len(list((tmp_path / "fruit/.versions").iterdir())) == len(ALL_STAGES)
    assert leftovers(tmp_path) == []


def test_a_failed_run_leaves_the_finished_artifact_as_it_was(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    shutil.copy(PROJECT / "data/multiply_add.csv", data)
    arguments = ["FreezeModel", "--model", "multiply_add", "--data", str(data), "--output-root", str(tmp_path / "out")]
    assert luigi(*arguments).returncode == 0
    before = _content(tmp_path / "out")
    data.write_text("x,y\n1,two\n")
    failed = luigi(*arguments)
    assert failed.returncode == 30
    assert f"{data}:2: column y has a value that is not int32 (got 'two'" in failed.stdout
    assert _content(tmp_path / "out") == before


def _content(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        failed = luigi("FreezeModel", "--data", "data/spam.tsv", "--output-root", str(disk / "out"), *QUICK)
        assert failed.returncode == 30
        assert "No space left on device" in failed.stdout
        assert not (disk / "out/spam/training").exists()
        assert not (disk / "out/spam/frozen").exists()
    finally:
        subprocess.run(["umount", disk], check=True)
