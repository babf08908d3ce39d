"""`make clean` keeps what runs have made; `make clean-output` says what it removes, and asks."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "clean_output.sh"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output root with a model, two nights of which one is deployed, a link to a folder outside, and the README."""
    folder = tmp_path / "output"
    (folder / "spam" / "frozen").mkdir(parents=True)
    (folder / "spam" / "frozen" / "model.pb").write_bytes(b"x" * 5000)
    for night in ("2026-11-24", "2026-11-25"):
        (folder / "nightly" / night).mkdir(parents=True)
    (folder / "nightly" / "current").symlink_to("2026-11-25")
    (folder / "README.md").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (folder / "linked").symlink_to(tmp_path / "outside")
    return folder


def clean(folder: Path, answer: str | None = None, **environment: str) -> tuple[int, str]:
    """Run the script: at a terminal with an answer, else without one. Return the exit code and all that it printed."""
    theirs, ours = pty.openpty() if answer is not None else (None, None)
    with subprocess.Popen(
        ["sh", str(SCRIPT), str(folder)],
        stdin=subprocess.DEVNULL if ours is None else ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
        text=True,
    ) as run:
        if theirs is not None and ours is not None:
            os.write(theirs, f"{answer}\n".encode())
        shown, _ = run.communicate(timeout=30)
    for end in (theirs, ours):
        if end is not None:
            os.close(end)
    return run.returncode, shown


def test_make_clean_touches_no_artifact(output: Path, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((PROJECT / "Makefile").read_text())
    (tmp_path / ".mypy_cache").mkdir()
    before = sorted(output.rglob("*"))
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(output.rglob("*")) == before
    assert not (tmp_path / ".mypy_cache").exists()


def test_without_a_terminal_nothing_is_removed(output: Path) -> None:
    before = sorted(output.rglob("*"))
    code, shown = clean(output)
    assert code == 2
    assert "make clean-output YES=1" in shown
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize("answer", ["", "n", "no", "Yes, of course not"])
def test_any_other_answer_than_yes_removes_nothing(output: Path, answer: str) -> None:
    before = sorted(output.rglob("*"))
    assert clean(output, answer)[0] == 1
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize("agreed", [{"answer": "y"}, {"YES": "1"}])
def test_it_says_what_it_removes_and_follows_no_link(output: Path, agreed: dict[str, str]) -> None:
    code, shown = clean(output, **agreed)
    assert code == 0
    assert "2 nights, where 2026-11-25 is deployed" in shown
    assert "spam" in shown
    assert [path.name for path in output.iterdir()] == ["README.md"]
    assert (output.parent / "outside" / "kept").exists()


def test_nothing_to_remove_is_no_error(tmp_path: Path) -> None:
    assert clean(tmp_path / "nowhere") == (0, f"clean-output: {tmp_path / 'nowhere'} is not there: nothing to remove\n")
    assert clean(tmp_path) == (0, f"clean-output: {tmp_path} is empty: nothing to remove\n")
