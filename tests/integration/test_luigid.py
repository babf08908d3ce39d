"""What a luigid shows of a run: names, progress, links; and how it keeps two trainings on one host apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import servers
from commands import QUICK, luigi
from luigi.rpc import RPCError
from luigi.scheduler import Scheduler

from pipeline.tasks.model import TrainModel
from pipeline.tasks.nightly.task import NightlyRun
from pipeline.tasks.progress import show_progress


def ask(url: str, what: str, **given: str) -> Any:
    with urlopen(f"{url}/api/{what}?data={quote(json.dumps(given))}") as answer:
        return json.load(answer)["response"]


@pytest.mark.tensorflow
def test_a_luigid_shows_names_progress_and_a_link_to_the_report(tmp_path: Path) -> None:
    root = tmp_path / "out"
    with servers.central_scheduler(tmp_path) as url:
        given = ["--model", "spam", "--output-root", str(root), "--scheduler-url", url]
        assert luigi("ValidateModel", *given, *QUICK).returncode == 0
        tasks = ask(url, "task_list", status="DONE", upstream_status="")
        progress = {
            task["name"]: ask(url, "get_task_progress_percentage", task_id=name)["progressPercentage"]
            for name, task in tasks.items()
        }
    made = {task["name"]: task for task in tasks.values() if not task["name"].startswith("freeze_pipeline.")}
    assert set(made) == {"BuildGraph", "TrainModel", "SaveCheckpoint", "FreezeModel", "ValidateModel"}
    report = (root / "spam/report/report.html").as_uri()
    for name, task in made.items():
        assert task["params"] == {"model": "spam", "output_root": str(root)}
        assert task["tracking_url"] == report
        assert progress[name] is not None
    assert made["TrainModel"]["status_message"].startswith("training: step ")
    assert made["ValidateModel"]["status_message"].startswith("validation: frozen: ")


@pytest.mark.parametrize(("limit", "at_once"), [(None, 1), (2, 2)], ids=["by itself", "two allowed"])
def test_trainings_of_one_host_run_one_at_a_time_unless_more_are_allowed(
    tmp_path: Path, limit: int | None, at_once: int
) -> None:
    [name] = TrainModel.resources
    scheduler: Any = Scheduler(resources={name: limit} if limit else {})
    for model in ("spam", "multiply_add"):
        task = TrainModel(model=model, output_root=str(tmp_path))
        scheduler.add_task(
            task_id=task.task_id, worker="w", family=task.task_family, resources=task.process_resources()
        )
    given = [scheduler.get_work(worker="w", host="h")["task_id"] for _ in range(2)]
    assert sum(task_id is not None for task_id in given) == at_once


def test_a_night_that_trains_is_a_training_too(tmp_path: Path) -> None:
    night = {"date": "2026-01-01", "output_root": str(tmp_path)}
    assert set(TrainModel.resources) < set(NightlyRun.from_str_params({**night, "model": "multiply_add"}).resources)
    assert NightlyRun.from_str_params({**night, "model": "nope"}).process_resources() == {}


def test_a_scheduler_that_is_gone_for_a_moment_stops_no_training(tmp_path: Path) -> None:
    task = TrainModel(model="spam", output_root=str(tmp_path))

    def fail(*_: object) -> None:
        raise RPCError("luigid is being restarted")

    task.set_status_message = task.set_progress_percentage = fail
    show_progress(task, "step 1 of 2", 50)
