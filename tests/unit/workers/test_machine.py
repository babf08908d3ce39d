"""The machine, and the commit of the user's code."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.workers.machine import core_count, describe_commit, describe_machine


def test_a_commit_is_named_and_a_change_since_it_is_said(tmp_path: Path) -> None:
    describe_commit.cache_clear()
    assert describe_commit(tmp_path) == ""
    marks = tmp_path / "ran"
    author = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    for arguments in (("init", "-q"), ("add", "model.py"), (*author, "commit", "-qm", "m"), ("tag", "v1")):
        (tmp_path / "model.py").touch()
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    subprocess.run(["git", "config", "core.fsmonitor", f"touch {marks}"], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    describe_commit.cache_clear()
    assert describe_commit(tmp_path) == head.stdout[:12]
    (tmp_path / "model.py").write_text("changed")
    describe_commit.cache_clear()
    assert describe_commit(tmp_path) == f"{head.stdout[:12]}-dirty"
    assert not marks.exists()  # a repository's own configuration runs nothing


def test_the_machine_has_a_name_and_cores() -> None:
    assert describe_machine().endswith(f", {core_count()} cores")
