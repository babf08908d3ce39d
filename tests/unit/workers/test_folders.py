"""Temporary folders: a killed run leaves some, the next run removes them, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StageCrashed
from pipeline.workers.folders import remove_leftovers

HOLD = """
import os, time
from pathlib import Path
from pipeline.workers.folders import run_folder
folder = run_folder()
Path(folder, "listener").touch()
print(folder, flush=True)
{then}
"""


def start(folder: Path, then: str = "time.sleep(600)") -> tuple[subprocess.Popen[str], Path]:
    """Start a run that has a temporary folder below `folder`."""
    environment = os.environ | {"TMPDIR": str(folder)}
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    return run, Path(run.stdout.readline().strip())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(home: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process, folder = start(home)
    yield process, folder
    process.kill()
    process.wait()


def test_what_a_killed_run_left_is_removed_by_the_next(home: Path, run: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = run
    process.kill()
    process.wait()
    assert folder.is_dir()
    start(home, "")[0].wait()
    assert not list(home.iterdir())


def test_the_folder_of_a_running_one_stays(run: tuple[subprocess.Popen[str], Path]) -> None:
    remove_leftovers()
    assert (run[1] / "listener").exists()


def test_the_folder_stays_while_a_child_of_a_killed_run_works(home: Path) -> None:
    process, folder = start(home, "child = os.fork()\nif child: print(child, flush=True)\ntime.sleep(600)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    remove_leftovers()
    assert folder.is_dir()
    os.kill(child, 9)
    while folder.is_dir():
        remove_leftovers()


def test_nothing_of_others_is_removed(home: Path) -> None:
    (home / "pipeline-data").mkdir()  # no lock in it: not one of ours
    (home / "pipeline-data" / "kept").touch()
    theirs = home / "theirs"
    theirs.mkdir()
    (theirs / "run.lock").touch()
    (home / "pipeline-link").symlink_to(theirs)
    (home / "pipeline-file").touch()
    (home / "pipeline-linked").mkdir()
    (home / "pipeline-linked" / "run.lock").symlink_to(theirs / "run.lock")
    (home / "pipeline-fifo").mkdir()
    os.mkfifo(home / "pipeline-fifo" / "run.lock")
    before = sorted(home.rglob("*"))
    remove_leftovers()
    assert sorted(home.rglob("*")) == before


CALL = """
from pipeline.errors import PipelineError
from pipeline.workers.child import run_in_subprocess
if __name__ == "__main__":
    try:
        run_in_subprocess("os:getpid")
    except PipelineError as exc:
        print(type(exc).__name__, exc)
"""


def test_a_killed_fork_server_is_a_sentence(tmp_path: Path) -> None:
    """The server is killed while it loads TensorFlow, as the kernel does when memory runs out."""
    short = Path(tempfile.mkdtemp())  # the name of a socket has at most 107 bytes
    (tmp_path / "pandas.py").touch()
    (tmp_path / "tensorflow.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    (tmp_path / "call.py").write_text(CALL)
    project = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "call.py")],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), project, *sys.path]), "TMPDIR": str(short)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(StageCrashed.__name__ + " the fork server"), done
    assert "memory" in done.stdout
    assert not list(short.iterdir())
    short.rmdir()
