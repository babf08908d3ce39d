"""A team's own Luigi project, which imports the pipeline or requires its tasks, keeps its own configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import servers
from commands import BIN, PROJECT, SHARED_SERVER, clean, run

TEAM = """
import json, os
import luigi, luigi.retcodes, luigi.tools.range, luigi.worker
if not os.environ.get("ALONE"):
    import pipeline

class Publish(luigi.Task):
    '''Prints the configuration that its run has.'''
    bucket = luigi.Parameter(default="none")
    is_done = False
    def complete(self):
        return self.is_done
    def run(self):
        self.is_done = True
        sections = [luigi.interface.core(), luigi.worker.worker(), luigi.retcodes.retcode()]
        values = {section.task_family: dict(section.param_kwargs) for section in sections}
        values["range"] = dict(luigi.tools.range.RangeDailyBase.get_param_values(
            luigi.tools.range.RangeDailyBase.get_params(), [], {"of": Daily}))
        values["bucket"] = self.bucket
        print("CONFIGURATION", json.dumps(values, default=str, sort_keys=True))

class Daily(luigi.Task):
    day = luigi.DateParameter()
    def output(self):
        return luigi.LocalTarget(f"made/{self.day}")
    def run(self):
        with self.output().open("w") as file:
            file.write("made")

class Deploy(luigi.Task):
    '''Requires a task of the pipeline.'''
    model = luigi.Parameter()
    output_root = luigi.Parameter()
    def requires(self):
        return pipeline.BuildGraph(model=self.model, output_root=self.output_root)
    def output(self):
        return luigi.LocalTarget(self.output_root + "/deployed")
    def run(self):
        with self.output().open("w") as file:
            file.write("deployed")
"""
CFG = """
[core]
workers = 4
local_scheduler = true
[worker]
keep_alive = true
[retcode]
task_failed = 7
[RangeDailyBase]
days_back = 3
[Publish]
bucket = messages
[training]
steps = 17
"""
TOML = CFG.replace("messages", '"messages"')
# Luigi reads TOML by this package's `load`, and by nothing else of it.
TOML_PACKAGE = """
import tomllib
def load(path):
    with open(path, "rb") as file:
        return tomllib.load(file)
"""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """The folder of a team's project."""
    (tmp_path / "team.py").write_text(TEAM)
    return tmp_path


def luigi_of_team(team: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = {"PYTHONPATH": os.pathsep.join([SHARED_SERVER, str(team), str(PROJECT)]), "PYTHONWARNINGS": "ignore"}
    return run(str(BIN / "luigi"), "--module", "team", *arguments, cwd=team, **where, **environment)


def configuration(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    lines = [line for line in done.stdout.splitlines() if line.startswith("CONFIGURATION")]
    assert len(lines) == 1, done.stderr
    return dict(json.loads(lines[0].removeprefix("CONFIGURATION")))


@pytest.mark.parametrize("kind", ["none", "luigi.cfg", "client.cfg", "LUIGI_CONFIG_PATH", "toml"])
def test_importing_the_pipeline_changes_nothing_of_a_teams_configuration(team: Path, kind: str) -> None:
    environment = {}
    if kind == "toml":
        environment = {"LUIGI_CONFIG_PARSER": "toml"}
        (team / "toml.py").write_text(TOML_PACKAGE)
        (team / "luigi.toml").write_text(TOML)
    elif kind == "LUIGI_CONFIG_PATH":
        environment = {"LUIGI_CONFIG_PATH": "ours.cfg"}
        (team / "ours.cfg").write_text(CFG)
    elif kind != "none":
        (team / kind).write_text(CFG)
    arguments = ["Publish", *(["--local-scheduler"] if kind == "none" else [])]
    alone = luigi_of_team(team, *arguments, ALONE="1", **environment)
    beside = luigi_of_team(team, *arguments, **environment)
    assert configuration(beside) == configuration(alone)
    assert beside.returncode == alone.returncode == 0
    if kind != "none":
        assert configuration(beside)["core"]["workers"] == 4
        assert configuration(beside)["retcode"]["task_failed"] == 7
        assert configuration(beside)["bucket"] == "messages"


def test_a_range_of_a_teams_own_days_is_left_alone(team: Path) -> None:
    days = ["RangeDailyBase", "--of", "Daily", "--start", "2026-01-01", "--stop", "2026-01-03", "--days-back", "40000"]
    done = luigi_of_team(team, *days, "--local-scheduler")
    assert sorted(path.name for path in (team / "made").iterdir()) == ["2026-01-01", "2026-01-02"], done.stderr


@pytest.mark.tensorflow
@pytest.mark.stress  # in process: test_config_defaults.py
def test_a_teams_luigid_is_used_by_its_tasks_and_by_ours(team: Path) -> None:
    port = servers.free_port()
    command = [str(BIN / "luigid"), "--address", "127.0.0.1", "--port", str(port), "--state-path", str(team / "state")]
    (team / "luigi.cfg").write_text(f"[core]\nscheduler_host = 127.0.0.1\nscheduler_port = {port}\n")
    where = ["--model", "multiply_add", "--output-root", str(team / "out")]
    with servers.running(*command, cwd=team, log=team / "luigid.log"):
        url = f"http://127.0.0.1:{port}"
        servers.wait_for(lambda: servers.answers(url + "/static/visualiser/index.html"), what="luigid")
        one = luigi_of_team(team, "Deploy", *where)
        other = luigi_of_team(team, "SaveCheckpoint", "--checkpoint", "nothere")
        with urlopen(
            url + "/api/task_list?data=%7B%22status%22%3A%22%22%2C%22upstream_status%22%3A%22%22%7D"
        ) as answer:
            seen = {task["name"]: task["status"] for task in json.load(answer)["response"].values()}
    assert one.returncode == 0, one.stderr
    assert {"Deploy": "DONE", "BuildGraph": "DONE"}.items() <= seen.items()
    # Ours is as strict as ever, though the file says nothing on exit codes.
    assert other.returncode == 20, other.stderr
    assert seen["SaveCheckpoint"] == "PENDING"


@pytest.mark.tensorflow
def test_a_failure_below_a_teams_task_is_our_sentence_and_no_traceback(team: Path) -> None:
    (team / "broken.py").write_text("class Model:\n    pass\n\nraise RuntimeError('no such weather')\n")
    where = ["--output-root", str(team / "out"), "--local-scheduler"]
    when_scheduled = luigi_of_team(team, "Deploy", "--model", f"{team}/broken.py:Modle", *where)
    when_run = luigi_of_team(team, "Deploy", "--model", f"{team}/broken.py:Model", *where)
    assert "No class in it is a model (it has Model)" in when_scheduled.stderr
    assert "no such weather" in when_run.stderr
    assert "Traceback" not in when_scheduled.stderr + when_run.stderr
    on_demand = luigi_of_team(team, "Deploy", "--model", f"{team}/broken.py:Modle", *where, "--log-level", "DEBUG")
    assert "Traceback" in on_demand.stderr


@pytest.mark.tensorflow
def test_a_script_without_a_guard_may_build_our_tasks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import luigi, pipeline\nprint('the script runs')\n"
        "task = pipeline.BuildGraph(model='multiply_add', output_root='out')\n"
        "print('built', luigi.build([task], local_scheduler=True))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=clean({"PYTHONPATH": os.pathsep.join([SHARED_SERVER, str(PROJECT)])}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.splitlines() == ["the script runs", "built True"], done.stderr


SAME_NAMES = """
import luigi, pipeline

class training(luigi.Config):
    epochs = luigi.IntParameter(default=3)

class batch(luigi.Task):
    def run(self):
        print("EPOCHS", training().epochs)

class DataFile(luigi.Task):
    path = luigi.Parameter()
    def complete(self):
        return True
"""


def test_tasks_and_sections_of_a_team_that_are_called_like_ours_stay_theirs(tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(SAME_NAMES)
    where = ["luigi", "--module", "team", "--local-scheduler", "--no-lock"]
    environment = {"PYTHONPATH": f"{tmp_path}:{PROJECT}:{SHARED_SERVER}"}

    def start(*arguments: str) -> str:
        done = run(str(BIN / where[0]), *where[1:], *arguments, cwd=tmp_path, **environment)
        return done.stdout + done.stderr

    assert "EPOCHS 5" in start("batch", "--training-epochs", "5")
    assert ":)" in start("DataFile", "--path", "anything")
    (tmp_path / "luigi.cfg").write_text("[training]\nepochs = 7\n")
    assert "EPOCHS 7" in start("batch")


@pytest.mark.tensorflow
def test_our_settings_hold_beside_a_section_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(SAME_NAMES)
    (tmp_path / "own.cfg").write_text("[training]\nepochs = 7\nsteps = 12\nbatch_size = 16\n[costs]\nseconds = 0\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{PROJECT}:{SHARED_SERVER}", "LUIGI_CONFIG_PATH": "own.cfg"}
    given = ["--model", "spam", "--output-root", "out"]
    done = run(str(BIN / "luigi"), "--module", "team", "TrainModel", *given, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out/spam/training/manifest.json").read_text())
    assert manifest["ingredients"]["settings"]["training"]["steps"] == 12
