"""Names of tasks: what was given and nothing else, apart where the tasks are, and out of other projects' way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import date
from typing import Any

import luigi.configuration
import pytest
from luigi.task_register import Register, load_task
from luigi.tools.deps import find_deps
from luigi.tools.deps_tree import print_tree

import pipeline
from pipeline.settings import Operations, Settings
from pipeline.tasks.model import BuildGraph, FreezeModel, MakeFormat, ModelTask, WriteReport
from pipeline.tasks.names import NAMESPACE
from pipeline.tasks.nightly.task import NightlyRun

GIVEN: list[dict[str, str]] = [
    {},
    {"model": "spam"},
    {"name": "spam"},
    {"model": "spam", "name": "spam"},
    {"model": "multiply_add"},
    {"formats": "mmap"},
    {"data": "mmap"},
    {"output_root": "elsewhere"},
]


def test_a_name_shows_what_was_given() -> None:
    assert repr(FreezeModel()) == "FreezeModel()"
    assert repr(FreezeModel(model="spam")) == "FreezeModel(model=spam)"
    assert FreezeModel(model="spam").task_id.startswith("FreezeModel_spam_")
    assert repr(NightlyRun(date=date(2026, 1, 2))) == "NightlyRun(date=2026-01-02)"
    assert repr(FreezeModel(model="", output_root="output")) == "FreezeModel()"


def test_tasks_that_differ_have_names_and_ids_that_differ() -> None:
    tasks = [kind(**given) for kind in (FreezeModel, WriteReport, MakeFormat) for given in GIVEN]
    assert len({task.task_id for task in tasks}) == len({repr(task) for task in tasks}) == len(tasks)


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_a_scheduler_gives_the_same_task_to_another_process(given: dict[str, str]) -> None:
    task = FreezeModel(**given)
    told = load_task(task.task_module, task.task_family, task.to_str_params())
    assert (told, told.task_id, told.parameters) == (task, task.task_id, task.parameters)
    assert task.clone(BuildGraph).clone(FreezeModel) is task


@pytest.fixture
def configured() -> Iterator[None]:
    """A file that gives a task another default."""
    config: Any = luigi.configuration.get_config()
    config.set("FreezeModel", "model", "multiply_add")
    yield
    config.remove_section("FreezeModel")


def test_a_default_of_a_file_is_shown_because_another_host_may_have_another_file(configured: None) -> None:
    by_file, by_hand = FreezeModel(), FreezeModel(model="multiply_add")
    assert repr(by_file) == "FreezeModel(model=multiply_add)"
    assert by_file.task_id == by_hand.task_id
    assert FreezeModel(model="").to_str_params() == {"model": ""}, "the file's default must not come in its place"


def test_luigis_own_tools_show_the_same_names(tmp_path: Any) -> None:
    root = WriteReport(model="multiply_add", output_root=str(tmp_path))
    shown = print_tree(root)
    told = [ast.literal_eval("{" + line.partition("{")[2].partition("}")[0] + "}") for line in shown.splitlines()[1:]]
    assert {frozenset(given) for given in told} == {frozenset({"model", "output_root"}), frozenset({"path"})}
    assert all(len(repr(task)) < 80 + len(str(tmp_path)) for task in find_deps(root, "BuildGraph"))


def test_what_no_page_names_is_in_a_namespace() -> None:
    # Of the names that the modules of tasks have: others load TensorFlow.
    names = (name for name, home in pipeline._HOMES.items() if home.startswith("tasks."))
    documented = {name for name in names if isinstance(getattr(pipeline, name), type(luigi.Task))}
    ours = {
        name: task
        for name, task in Register._get_reg().items()
        if task is not Register.AMBIGUOUS_CLASS and task.__module__.startswith("pipeline.")
    }
    sections = {*Settings.__dataclass_fields__, *Operations.__dataclass_fields__}
    hidden = {name for name in ours if name.startswith(f"{NAMESPACE}.")}
    assert set(ours) - hidden == documented | sections
    assert {f"{NAMESPACE}.{name}" for name in ("DataFile", "ExistingCheckpoint", "ConvertShard", "ModelTask")} <= hidden
    assert all(issubclass(ours[name], ModelTask) for name in documented - {"ConvertBatch"})
