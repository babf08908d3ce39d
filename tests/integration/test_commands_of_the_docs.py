"""Every command of the README, of its neighbours and of the pages under docs/ works as it is typed.

A command is a line of a block `sh`; it is run in one folder that all pages share, and has to exit with 0. What a block
`text` right below shows is in its output, whatever the numbers are. A comment on the line above the block may say
otherwise:

    <!-- exits with 30: why -->
    <!-- planned only: test_x.py does ... -->   `why` says what it would run, and test_x.py runs such a thing; with
                                                the long forms (`pytest -m stress`) it is run as well
    <!-- not run: why -->                       its task and options are looked up, no more

Targets of the Makefile are only shown: they install, and one of them runs this very test.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import BIN, PROJECT, SHARED_SERVER, run

PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$\n?", re.DOTALL | re.MULTILINE
)
NOTE = re.compile(r"exits with (?P<code>[1-9]\d*): .+|planned only: (?P<test>test_\w+\.py) .+|not run: (?P<reason>.+)")
PROGRAMS = ("luigi ", "python ", "make ", "pip ", "freeze-pipeline ", "dask ", "luigid ", "sh ", "export ")
LANGUAGES = {"sh", "text", "python", "py", "json", "csv", "yaml", "ini", "cpp"}


@dataclass(frozen=True)
class Block:
    """Commands of a page, what the comment above says of them, and the output that is shown below."""

    page: str
    language: str
    body: str
    note: str
    shown: str = ""

    @property
    def commands(self) -> list[str]:
        return [line for line in self.body.splitlines() if line and not line.startswith("#")]

    def noted(self, group: str) -> str | None:
        match = NOTE.fullmatch(self.note)
        return match[group] if match else None

    @property
    def code(self) -> int:
        """The exit code that its commands have to end with."""
        return int(self.noted("code") or 0)

    def __str__(self) -> str:
        return f"{self.page}: {self.body.splitlines()[0][:70]}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for at, match in enumerate(found):
        below = found[at + 1] if at + 1 < len(found) else None
        is_output = below is not None and below["language"] == "text" and not text[match.end() : below.start()].strip()
        shown = below["body"] if below is not None and is_output else ""
        yield Block(page.name, match["language"], match["body"], match["note"] or "", shown)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
RUN = [block for block in COMMANDS if not block.noted("reason") and not block.noted("test")]
MADE = [block for block in RUN if block.body.startswith("make ")]
done: dict[str, subprocess.CompletedProcess[str]] = {}  # what several pages show is run once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the commands name, so that nothing is written into the project."""
    done.clear()
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(PROJECT / "examples", folder / "examples")
    (folder / "path/to").mkdir(parents=True)
    shutil.copy(PROJECT / "data/spam.tsv", folder / "path/to/SMSSpamCollection")
    (folder / "quick.cfg").write_text("[costs]\nseconds = 0\n")  # other tests measure
    (folder / "models.csv").write_text("name,checkpoint,outputs\nlisted,output/spam/checkpoint,probability\n")
    messages = (PROJECT / "data/spam.tsv").read_text().translate({ord(";"): ",", ord('"'): "'", ord("\t"): ";"})
    (folder / "messages.csv").write_text(f"label;text\n{messages}")  # as Excel writes it where a comma is in numbers
    (folder / "rows.csv").write_text("text,labels\nyou have won a prize,1\nsee you at six,0\n")
    typed(folder, "luigi --module pipeline WriteReport")
    typed(folder, "luigi --module pipeline MakeFormat --format savedmodel")
    typed(folder, "python -m pipeline freeze output/spam/checkpoint --format mmap -o path/to/folder")
    earlier = "output/spam/training/checkpoints/model.ckpt-400"
    typed(folder, f"python -m pipeline freeze {earlier} --outputs probability -o production.pb")
    shutil.copytree(folder / "output/spam/savedmodel", folder / "served/3")
    for file in (folder / "output/spam/checkpoint").glob("model.ckpt.*"):
        shutil.copy(file, folder / "path/to" / file.name.replace("model.ckpt", "model.ckpt-1000"))
    return folder


def typed(folder: Path, command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """What a command gives, typed in the folder; what others of the same folder make for it is there before."""
    for name in re.findall(r"output/([\w-]+)/", command):
        if name != "spam" and not (folder / "output" / name).exists():
            typed(folder, *maker_of(name))
    if command not in done:
        settings = {"LUIGI_CONFIG_PATH": str(folder / "quick.cfg"), "PYTHONPATH": f"{SHARED_SERVER}:{PROJECT}"}
        done[command] = run("sh", "-c", f"{BIN}/{command}", cwd=folder, **settings)
    assert done[command].returncode == code, done[command].stdout + done[command].stderr
    return done[command]


def maker_of(name: str) -> tuple[str, int]:
    """The command of the pages that makes a folder under `output/`, and its exit code."""
    return next((line, block.code) for block in RUN for line in block.commands if f"--name {name}" in line)


def masked(text: str) -> str:
    """A line of output without its numbers, which are those of the machine that made the page."""
    return re.sub(r"\d[\d.,e+-]*", "0", " ".join(text.split()))


@pytest.mark.tensorflow
@pytest.mark.parametrize("block", [block for block in RUN if block not in MADE], ids=str)
def test_a_command_of_the_pages_works(folder: Path, block: Block) -> None:
    for command in block.commands:
        given = typed(folder, command, block.code)
    told = masked(given.stdout + given.stderr)
    assert [line for line in block.shown.splitlines() if masked(line) not in told] == []


@pytest.mark.tensorflow
@pytest.mark.parametrize("block", [block for block in COMMANDS if block.noted("test")], ids=str)
def test_a_command_that_is_only_planned_is_understood(folder: Path, block: Block) -> None:
    assert list((PROJECT / "tests").rglob(block.noted("test") or "")), "no such test"
    for command in block.commands:
        arguments = command.removeprefix("luigi --module pipeline ")
        assert arguments != command, "only a task can be planned"
        typed(folder, f"python -m pipeline why {arguments}", 1)


@pytest.mark.stress
@pytest.mark.tensorflow
@pytest.mark.parametrize("block", [block for block in COMMANDS if block.noted("test")], ids=str)
def test_a_command_that_is_else_only_planned_works(folder: Path, block: Block) -> None:
    for command in block.commands:
        typed(folder, command)


@pytest.mark.parametrize("block", [block for block in COMMANDS if block.noted("reason")], ids=str)
def test_a_command_that_is_not_run_names_what_there_is(block: Block) -> None:
    from luigi.cmdline_parser import CmdlineParser

    import pipeline
    from pipeline.cli import COMMANDS as ONE_OFF

    for task in ("ConvertBatch", "NightlyRun"):
        getattr(pipeline, task)  # loads it: Luigi knows the tasks that are loaded
    for command in block.commands:
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
        if words[:3] == ["luigi", "--module", "pipeline"]:
            CmdlineParser(words[3:])  # which ends the process over an unknown task or option
        elif words[:3] == ["python", "-m", "pipeline"]:
            assert words[3] in ONE_OFF
        elif words[0] == "make":
            shown(command)
        else:
            assert words[0] in ("aws", "pip", "dask", "export", "luigid", "git", "cd", "."), command


def shown(command: str) -> str:
    """What a target would run."""
    given = run("sh", "-c", f"{command} --dry-run", cwd=PROJECT)
    assert given.returncode == 0, given.stderr
    return given.stdout


@pytest.mark.tensorflow
@pytest.mark.parametrize("block", MADE, ids=str)
def test_a_target_of_the_pages_exists(folder: Path, block: Block) -> None:
    for command in block.commands:
        told = shown(command)
        if command.split()[:2] == ["make", "run"]:
            assert "luigi --module pipeline WriteReport" in told
    if block.shown:  # the main job is that of the folder
        given = masked(typed(folder, "luigi --module pipeline WriteReport").stdout)
        assert [line for line in block.shown.splitlines() if masked(line) not in given] == []


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in ("py", "python") and not b.noted("reason")], ids=str
)
def test_python_of_the_pages_works(folder: Path, block: Block) -> None:
    (folder / "snippet.py").write_text(block.body)
    typed(folder, f"python snippet.py  # {block.page}")


def test_a_command_stands_in_a_block_that_is_looked_at_and_a_comment_above_it_is_understood() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    for block in BLOCKS:
        hidden = [line for line in block.body.splitlines() if line.lstrip("$ ").startswith(PROGRAMS)]
        assert block.language == "sh" or not hidden, f"{block}: a command outside of a block sh"
        assert not block.note or block.language != "sh" or NOTE.fullmatch(block.note), f"{block}: {block.note}"
        assert not (block.noted("code") and block in MADE), f"{block}: a target is only shown"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_stands_in_an_indented_block(page: Path) -> None:
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    indented = [line.strip() for line in outside.splitlines() if line.startswith(("    ", "\t"))]
    assert [line for line in indented if line.lstrip("$ ").startswith(PROGRAMS)] == []


def test_the_pages_show_commands_of_all_kinds() -> None:
    lines = [line for block in RUN for line in block.commands]
    assert sum(line.startswith("make ") for line in lines) >= 3
    assert sum(line.startswith("luigi ") for line in lines) >= 10
    assert sum(line.startswith("python -m pipeline ") for line in lines) >= 8
    readme = [block for block in COMMANDS if block.page == "README.md"]
    assert [block.commands for block in readme if block.noted("test")] == [], "the README's are run"
