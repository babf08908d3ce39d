"""The workflow and the units of a scheduled run do what the Makefile and the documentation say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import PROJECT, run

WORKFLOWS = PROJECT / ".github/workflows"
UNITS = [PROJECT / f"deploy/freeze-pipeline.{kind}" for kind in ("service", "timer")]


def steps(workflow: str = "nightly") -> list[dict[str, Any]]:
    jobs = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def commands(workflow: str = "nightly") -> list[str]:
    return [step["run"] for step in steps(workflow) if "run" in step]


def shown_by(command: str, **environment: str) -> str:
    """What a command of make would run."""
    return subprocess.run(
        ["sh", "-c", f"{command} --dry-run"],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_what_the_workflow_makes_is_made_by_targets_of_the_makefile() -> None:
    made = [command for command in commands() if command.startswith("make ")]
    assert len(made) == 1
    # All else that it runs reads and tells, and makes nothing.
    assert {command.split()[0] for command in commands()} == {"make", "cat", "echo"}
    shown = shown_by(made[0], DATE="2026-11-25", NAME="spam")
    assert "luigi --module pipeline NightlyRun --date 2026-11-25 --name spam" in shown


def test_a_failed_verdict_fails_the_job_and_is_told_and_uploaded_all_the_same() -> None:
    assert not any("continue-on-error" in step or "|| true" in step.get("run", "") for step in steps())
    after = steps()[next(i for i, step in enumerate(steps()) if step.get("run", "").startswith("make ")) + 1 :]
    assert [step.get("if") for step in after] == ["always()"] * len(after)
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in after)
    assert any(step.get("uses", "").startswith("actions/upload-artifact@") for step in after)


def test_a_pull_request_is_checked_by_targets_of_the_makefile() -> None:
    assert commands("pull-request") == ["make check", "make test", "make docs"]
    check, test, docs = map(shown_by, commands("pull-request"))
    for shown in (check, test):
        assert all(f"bin/{tool}" in shown for tool in ("ruff check", "ruff format --check", "mypy", "pytest"))
    assert "not tensorflow" in check
    assert "not tensorflow" not in test
    assert "mkdocs build --strict" in docs
    assert not any("continue-on-error" in step or "if" in step for step in steps("pull-request"))


@pytest.mark.parametrize("workflow", ["nightly", "pull-request"])
def test_a_workflow_may_only_read_the_repository(workflow: str) -> None:
    settings = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text())
    assert settings["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] > 0 for job in settings["jobs"].values())


def test_every_workflow_is_looked_at() -> None:
    assert {path.name for path in WORKFLOWS.iterdir()} == {"matrix.yml", "nightly.yml", "pull-request.yml"}


@pytest.mark.parametrize("workflow", ["nightly", "pull-request"])
def test_actions_are_of_one_version_each(workflow: str) -> None:
    for step in steps(workflow):
        assert "uses" not in step or re.fullmatch(r"actions/[\w/-]+@v\d+\.\d+\.\d+", step["uses"])


def test_make_alone_lists_the_targets() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    listed = run("make", cwd=PROJECT).stdout  # without the flags of a `make test` that runs this
    names = {line.split()[1] for line in listed.splitlines()}
    wanted = {"help", "run", "night", "nights", "check", "test", "docs", "bench", "runtimes", "matrix"}
    assert wanted | {"clean", "clean-output"} == names
    assert names <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_make_lets_python_keep_its_bytecode() -> None:
    (rule,) = re.findall(r"^unexport PYTHONDONTWRITEBYTECODE$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    show = f"{rule}\nshow:\n\t@echo [$$PYTHONDONTWRITEBYTECODE]\n"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["make", "-f", "-"], input=show, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", sorted((PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name)
def test_a_template_for_reports_is_a_form_that_asks(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.name != "config.yml":
        assert {"name", "description", "body"} <= set(form)
        assert any(item.get("validations", {}).get("required") for item in form["body"])


def test_the_hooks_before_a_commit_run_what_make_check_runs() -> None:
    (repo,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in repo["hooks"]] == [
        "ruff check --fix",
        "ruff format",
        "mypy",
    ]


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
