"""One-off commands on folders that are not what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs import job_for, run

from pipeline.cli import main


def test_folders_that_need_another_command_are_answered_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_for(tmp_path, "multiply_add")
    run(job, "validation")
    assert main(["verify", str(job.paths.home)]) == 3
    told = capsys.readouterr().err
    command = f"python -m pipeline verify {job.paths.home}/frozen"
    assert told.strip().endswith(command)
    assert main(command.split()[3:]) == 0
    assert main(["rerun", str(job.folder("validation"))]) == 0
    assert "none of its rows failed" in capsys.readouterr().out
    assert main(["rerun", str(tmp_path)]) == 3
    assert "Errno" not in capsys.readouterr().err
