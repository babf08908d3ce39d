"""Every command of the README does what the README says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import candidates
import pytest
import tensorflow as tf
from commands import BIN, PROJECT, run

v1 = tf.compat.v1
README = (PROJECT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
# `why` says with its exit code that something would run.
EXPECTED = {"python -m pipeline why WriteReport --training-steps 800": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the commands name, so that nothing is written into the project."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(PROJECT / "examples", folder / "examples")
    (folder / "path/to").mkdir(parents=True)
    shutil.copy(PROJECT / "data/spam.tsv", folder / "path/to/SMSSpamCollection")
    (folder / "quick.cfg").write_text("[costs]\nseconds = 0\n")  # else each chain would import TensorFlow twice more
    assert run_in(folder, "luigi", "--module", "pipeline", "WriteReport").returncode == 0
    candidates.write_saved_model(
        v1.GraphDef.FromString((folder / "output/spam/frozen/model.pb").read_bytes()),
        *(folder / "served/3", {"probability": "probability:0"}, {"text": "text:0"}),
    )
    shutil.copy(folder / "output/spam/frozen/model.pb", folder / "production.pb")
    (folder / "models.csv").write_text("name,checkpoint,outputs\nlisted,output/spam/checkpoint,probability\n")
    (folder / "rows.csv").write_text("text,labels\nyou have won a prize,1\nsee you at six,0\n")
    return folder


def run_in(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a working folder, with its `quick.cfg`."""
    return run(str(BIN / program), *arguments, cwd=folder, LUIGI_CONFIG_PATH=str(folder / "quick.cfg"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make")])
def test_a_command_of_the_readme_works(folder: Path, command: str) -> None:
    done = run_in(folder, *command.split())
    assert done.returncode == EXPECTED.get(command, 0), done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make")])
def test_a_target_of_the_readme_exists(command: str) -> None:
    # Only shown, not run: these install, and one of them runs this very test.
    done = run("sh", "-c", f"{command} --dry-run", cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert ("luigi --module pipeline WriteReport" if "run" in command else "pytest") in done.stdout


def test_the_readme_shows_commands_of_both_kinds() -> None:
    assert sum(command.startswith("make") for command in COMMANDS) >= 3
    assert sum(command.startswith("luigi") for command in COMMANDS) >= 5
    assert sum(command.startswith("python -m pipeline") for command in COMMANDS) >= 3


def test_the_readme_names_every_task_parameter_and_exit_code() -> None:
    import configparser

    from luigi.parameter import ParameterVisibility

    from pipeline.tasks.model import TASKS

    for task in TASKS.values():
        assert f"`{task.__name__}`" in README
        public = [name for name, kind in task.get_params() if kind.visibility is ParameterVisibility.PUBLIC]
        for name in public:
            assert f"`--{name.replace('_', '-')}`" in README
    settings = configparser.ConfigParser()
    settings.read(PROJECT / "tasks.cfg")
    for code in settings["retcode"].values():
        assert f"| {code} |" in README


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []
