"""Our defaults for Luigi's own sections: for commands whose root task is ours, and weaker than all that users say."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import luigi
import luigi.interface
import luigi.retcodes
import luigi.worker
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser, LuigiTomlParser

import pipeline.tasks.batch.task  # noqa: F401  # a root task of ours
from pipeline.errors import SettingError
from pipeline.tasks import config_defaults
from pipeline.tasks.config import config_files, read_settings
from pipeline.tasks.config_check import check_users_file
from pipeline.tasks.model import FreezeModel
from pipeline.tasks.nightly.task import NightlyRun

OURS = {"task_failed": 30, "missing_data": 20, "local_scheduler": True, "log_level": "INFO", "is_checked": True}
LUIGIS = {"task_failed": 0, "missing_data": 0, "local_scheduler": False, "log_level": "DEBUG", "is_checked": False}
NIGHT = '{"model": "multiply_add"}'


class Publish(luigi.Task):
    """A task of another project's."""

    bucket = luigi.Parameter(default="none")


class Daily(luigi.Task):
    """A daily task of another project's."""

    day = luigi.DateParameter(default=datetime.date(2026, 1, 1))


class Better(FreezeModel):
    """A task of another project's that is one of ours."""


@contextmanager
def command(*arguments: str) -> Iterator[dict[str, Any]]:
    """What Luigi's command goes by."""
    with CmdlineParser.global_instance(list(arguments)):
        core, codes = luigi.interface.core(), luigi.retcodes.retcode()
        yield {
            "task_failed": codes.task_failed,
            "missing_data": codes.missing_data,
            "local_scheduler": core.local_scheduler,
            "log_level": core.log_level,
            "is_checked": luigi.worker.worker().check_complete_on_run,
        }


@pytest.fixture(params=["cfg", "toml"], autouse=True)
def users(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration of a user who has none yet, as Luigi holds it."""
    kind: Any = {"cfg": LuigiConfigParser, "toml": LuigiTomlParser}[request.param]
    monkeypatch.setenv("LUIGI_CONFIG_PARSER", request.param)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    monkeypatch.setattr(kind, "enabled", True)
    monkeypatch.setattr(kind, "_instance", kind())
    monkeypatch.setattr(kind, "_config_paths", [])
    if request.param == "toml":
        kind._instance.data = {}
    monkeypatch.setattr(config_defaults, "_lent", [])
    return kind._instance


@pytest.mark.parametrize(
    "root",
    [
        ("FreezeModel", "--model", "spam"),
        ("ConvertBatch", "--manifest", "none.csv"),
        ("NightlyRun", "--date", "2026-01-01"),
        ("Better",),
        ("RangeDailyBase", "--of", "NightlyRun", "--of-params", NIGHT, "--start", "2026-01-01"),
        ("RangeDaily", "--of", "NightlyRun", "--of-params", NIGHT, "--start", "2026-01-01"),
    ],
)
def test_a_root_task_of_ours_has_our_defaults(root: tuple[str, ...]) -> None:
    with command(*root) as values:
        assert values == OURS


@pytest.mark.parametrize("root", [("Publish",), ("RangeDailyBase", "--of", "Daily", "--start", "2026-01-01")])
def test_somebody_elses_root_task_has_luigis_also_after_one_of_ours(root: tuple[str, ...], users: Any) -> None:
    with command("FreezeModel"):
        assert users.has_option("RangeDailyBase", "param_name")
    with command(*root) as values:
        assert values == LUIGIS
    assert not users.has_option("RangeDailyBase", "param_name")


def test_what_users_say_is_stronger_and_stays(users: Any) -> None:
    users.set("core", "log_level", "WARNING")
    users.set("retcode", "task_failed", "5")
    for _ in range(2):
        with command("FreezeModel") as values:
            assert values == OURS | {"log_level": "WARNING", "task_failed": 5}
        with command("Publish") as values:
            assert values == LUIGIS | {"log_level": "WARNING", "task_failed": 5}
    with command("FreezeModel", "--log-level", "ERROR", "--retcode-task-failed", "6") as values:
        assert values == OURS | {"log_level": "ERROR", "task_failed": 6}


@pytest.mark.parametrize("option", ["--scheduler-host", "--scheduler-url"])
def test_a_scheduler_on_the_command_line_is_used(option: str, users: Any) -> None:
    users.set("core", "local_scheduler", "true")
    with command("FreezeModel", option, "luigid") as values:
        assert not values["local_scheduler"]
    with command("FreezeModel", option, "luigid", "--local-scheduler") as values:
        assert values["local_scheduler"]
    with command("FreezeModel") as values:
        assert values["local_scheduler"]


@pytest.mark.parametrize("key", ["scheduler_host", "scheduler_port", "scheduler_url", "default_scheduler_host"])
def test_a_scheduler_in_a_users_file_is_used_unless_the_file_says_local(key: str, users: Any) -> None:
    users.set("core", key, "8082")
    with command("FreezeModel") as values:
        assert values == OURS | {"local_scheduler": False}
    users.set("core", "local_scheduler", "true")
    with command("FreezeModel") as values:
        assert values["local_scheduler"]


def test_without_any_file_a_run_is_as_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_defaults, "PROJECT_CONFIG", tmp_path / "tasks.cfg")
    with command("FreezeModel") as values:
        assert values == OURS


def test_a_broken_projects_file_leaves_a_run_as_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks.cfg").write_text("workers = 1\n")
    monkeypatch.setattr(config_defaults, "PROJECT_CONFIG", tmp_path / "tasks.cfg")
    with command("FreezeModel") as values:
        assert values == OURS


def test_the_projects_file_is_weaker_than_the_users_and_stronger_than_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: Any
) -> None:
    text = "[core]\nlog_level = ERROR\n[retcode]\ntask_failed = 31\n[resources]\ngpu = 2\n[training]\nsteps = 9\n"
    (tmp_path / "tasks.cfg").write_text(text + "batch_size = 3\n[Publish]\nbucket = projects\n")
    monkeypatch.setattr(config_defaults, "PROJECT_CONFIG", tmp_path / "tasks.cfg")
    users.set("core", "log_level", "WARNING")
    users.set("training", "steps", "11")
    with command("FreezeModel") as values:
        assert values == OURS | {"log_level": "WARNING", "task_failed": 31}
        assert users.getintdict("resources") == {"gpu": 2}
        assert Publish().bucket == "projects"
        assert (read_settings().training.steps, read_settings().training.batch_size) == (11, 3)
    with command("Publish"):
        assert users.getintdict("resources") == {}
        assert Publish().bucket == "none"
        assert (read_settings().training.steps, read_settings().training.batch_size) == (11, 3)


def test_the_day_of_a_range_of_ours_is_its_date(users: Any) -> None:
    with command("RangeDailyBase", "--of", "NightlyRun", "--start", "2026-01-01"):
        assert luigi.tools.range.RangeDailyBase(of=NightlyRun, start=datetime.date(2026, 1, 1)).param_name == "date"
    with command("RangeDailyBase", "--of", "Daily", "--start", "2026-01-01"):
        assert luigi.tools.range.RangeDailyBase(of=Daily, start=datetime.date(2026, 1, 1)).param_name is None


# The files of users


@pytest.fixture
def file(tmp_path: Path, users: Any) -> Path:
    return tmp_path / ("luigi.toml" if isinstance(users, LuigiTomlParser) else "luigi.cfg")


def write(file: Path, text: str) -> None:
    file.write_text(text.replace("= text", '= "text"' if file.suffix == ".toml" else "= text"))


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "[Publish]\nbucket = text\nbukket = 1\n",
        "[messages]\nkey = 1\n[exports]\nbucket = text\n",
        "[core]\nno_configure_logging = true\nrpc-connect-timeout = 3\ndefault-scheduler-host = text\n",
        "[training]\nsteps = 3\nbatch-size = 4\n",
    ],
)
def test_other_sections_in_a_users_file_are_theirs(file: Path, is_named: bool, text: str) -> None:
    write(file, text)
    check_users_file(file, is_named, is_our_command=True)


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[training]\nstep = 3\n", "'steps'"),
        ("[FreezeModel]\nmodle = text\n", "'model'"),
        ("[split]\nSeed = 3\n", "'seed'"),
    ],
)
def test_an_unknown_key_in_a_section_of_ours_is_refused(file: Path, is_named: bool, text: str, hint: str) -> None:
    write(file, text)
    with pytest.raises(SettingError, match=f"unknown key.*{hint}"):
        check_users_file(file, is_named, is_our_command=False)


def test_only_the_named_file_is_looked_through_for_misspelt_sections(file: Path) -> None:
    write(file, "[trainning]\nsteps = 3\n")
    check_users_file(file, is_named=False, is_our_command=True)
    with pytest.raises(SettingError, match=r"unknown section.*\[trainning\].*'training'"):
        check_users_file(file, is_named=True, is_our_command=True)


def test_luigis_sections_are_checked_in_the_named_file_for_a_command_of_ours(file: Path) -> None:
    write(file, "[retcode]\ntask_faild = 3\n")
    check_users_file(file, is_named=True, is_our_command=False)
    check_users_file(file, is_named=False, is_our_command=True)
    with pytest.raises(SettingError, match=r"unknown key.*'task_failed'"):
        check_users_file(file, is_named=True, is_our_command=True)


def test_every_file_that_luigi_reads_is_looked_through(file: Path, users: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "[training]\nstep = 3\n")
    monkeypatch.setattr(type(users), "_config_paths", [str(file), str(file.with_name("missing.cfg"))])
    assert list(config_files())[1:] == [file]
    with pytest.raises(SettingError, match="step"):
        read_settings()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "steps", 1.5),
        ("training", "steps", True),
        ("graph", "learning_rate", True),
        ("validation", "checks", 3),
    ],
)
def test_a_value_of_another_kind_in_toml_is_refused_and_not_cut(users: Any, section: str, key: str, value: Any) -> None:
    if isinstance(users, LuigiTomlParser):
        users.set(section, key, value)
        with pytest.raises(SettingError, match=rf"\[{section}\] {key}: the value has the wrong type"):
            read_settings()


def test_a_value_that_refers_to_nothing_is_a_sentence(users: Any) -> None:
    if isinstance(users, LuigiConfigParser):
        users.set("export", "step", "${NO_SUCH_VARIABLE}")
        with pytest.raises(SettingError, match="NO_SUCH_VARIABLE"):
            read_settings()
