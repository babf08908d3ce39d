"""The workflow and the units of a scheduled run do what the Makefile and the documentation say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import PROJECT

WORKFLOW = PROJECT / ".github/workflows/nightly.yml"
UNITS = [PROJECT / f"deploy/freeze-pipeline.{kind}" for kind in ("service", "timer")]


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["night"]["steps"]
    return found


def commands() -> list[str]:
    return [step["run"] for step in steps() if "run" in step]


def test_what_the_workflow_makes_is_made_by_targets_of_the_makefile() -> None:
    made = [command for command in commands() if command.startswith("make ")]
    assert len(made) == 1
    # All else that it runs reads and tells, and makes nothing.
    assert {command.split()[0] for command in commands()} == {"make", "cat", "echo"}
    shown = subprocess.run(
        ["sh", "-c", f"{made[0]} --dry-run"],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "DATE": "2026-11-25", "NAME": "spam"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "luigi --module pipeline NightlyRun --date 2026-11-25 --name spam" in shown


def test_a_failed_verdict_fails_the_job_and_is_told_and_uploaded_all_the_same() -> None:
    assert not any("continue-on-error" in step or "|| true" in step.get("run", "") for step in steps())
    after = steps()[next(i for i, step in enumerate(steps()) if step.get("run", "").startswith("make ")) + 1 :]
    assert [step.get("if") for step in after] == ["always()"] * len(after)
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in after)
    assert any(step.get("uses", "").startswith("actions/upload-artifact@") for step in after)


def test_actions_are_of_one_version_each() -> None:
    for step in steps():
        assert "uses" not in step or re.fullmatch(r"actions/[\w/-]+@v\d+\.\d+\.\d+", step["uses"])


def test_a_night_that_was_given_no_date_is_yesterdays() -> None:
    told = subprocess.run(["make", "-n", "night"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    yesterday = subprocess.run(["date", "-u", "-d", "yesterday", "+%F"], capture_output=True, text=True).stdout.strip()
    assert f"NightlyRun --date {yesterday}" in told


def test_the_page_on_nights_shows_the_line_that_the_units_and_the_crontab_have() -> None:
    page = (PROJECT / "docs/nights.md").read_text()
    line = re.search(r"^ExecStart=(.*)$", UNITS[0].read_text(), re.MULTILINE)
    assert line is not None
    assert line[0] in page
    assert line[1].partition("output/.nights.lock ")[2] in next(
        shown for shown in page.splitlines() if shown.startswith("30 2 * * *")
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
