"""`python -m pipeline accept NAME [STAGE …]`: keep finished artifacts under changed code or library versions."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import takewhile, zip_longest
from pathlib import Path

from luigi.cmdline_parser import CmdlineParser

from pipeline.errors import DataError, PipelineError, SettingError, nearest, printable
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.manifest import Manifest
from pipeline.tasks.batch.task import ConvertBatch
from pipeline.tasks.chain.acceptance import accept
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.model import ROOT_HOOKS, TASKS, MakeFormat, ModelTask, WriteReport
from pipeline.training.models.source import BUNDLED

# What is taken of a command in a manifest, which somebody else may have written: parameters of ours, and no other.
_TASKS = {ConvertBatch.__name__, *(task.__name__ for task in TASKS.values())}
# Whose artifacts are accepted, and where, the caller says; how work is done decides none of them.
_OPTIONS = {"--manifest", "--format", *(f"--{item.name.replace('_', '-')}" for item in fields(Parameters))} | {
    f"--{section.name}-{item.name}".replace("_", "-")
    for section in fields(Settings)
    for item in fields(section.default_factory)  # type: ignore[arg-type]
}
_OPTIONS -= {"--name", "--output-root"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model's folder under the output root; with --manifest, also the list's name")
    parser.add_argument(
        "given",
        nargs=argparse.REMAINDER,
        metavar="[STAGE ...] [--parameter ...]",
        help="the stages to keep, all if none is named; then the parameters of the run, as luigi takes them: "
        "those of the run that made the artifacts if none is given",
    )


def run(given: argparse.Namespace) -> int:
    """Accept stages, and say what was accepted.

    Returns:
        0 if everything named is kept or complete; 1 if models of a batch were refused.

    Raises:
        PipelineError: a parameter is wrong, or something else than code and versions has changed.
    """
    stages = list(takewhile(lambda word: not word.startswith("-"), given.given))
    parameters = given.given[len(stages) :]
    ROOT_HOOKS.clear()  # nothing runs here
    arguments = _arguments(given.name, parameters)
    with CmdlineParser.global_instance(arguments) as command:
        task = command.get_task_obj()
        if isinstance(task, ConvertBatch):
            return _accept_batch(task, given.name, stages)
        assert isinstance(task, ModelTask)  # `_arguments` names no other
        _accept(task.chain, stages)
    return 0


def _accept(chain: Chain, stages: Sequence[str], prefix: str = "") -> None:
    for stage, changes in accept(chain, stages).items():
        first, *others = [f"accepted: {change}" for change in changes] or ["is complete"]
        print(printable(f"{prefix}{stage:<12} {first}"))
        for line in others:
            print(printable(f"{prefix}{'':<12} {line}"))


def _accept_batch(task: ConvertBatch, name: str, stages: Sequence[str]) -> int:
    rows = [row for row in task.rows if row.name == name]
    if not rows and name != task.batch.stem:
        names = [task.batch.stem, *(row.name for row in task.rows)]
        raise DataError("no such model in the list", where=task.manifest, got=name, next_step=nearest(name, names))
    refused = 0
    for row in rows or task.rows:
        try:
            _accept(task.batch.chain_of(row), stages, f"{row.name}: ")
        except PipelineError as exc:
            if rows:
                raise
            refused += 1
            print(f"{row.name}: {exc}", file=sys.stderr)
    return int(refused > 0)


def _arguments(name: str, parameters: Sequence[str]) -> list[str]:
    """Return the task that makes the artifacts, and its parameters."""
    own = Path(name)
    if own.name != name and own.is_dir():
        command = f"python -m pipeline accept {shlex.quote(own.name)} --output-root {shlex.quote(str(own.parent))}"
        raise SettingError("a path in place of a model's name", where=name, next_step=f"Give both apart: {command}")
    if _value(parameters, "manifest"):
        return [ConvertBatch.__name__, *parameters]
    if _value(parameters, "name") not in (None, name):
        raise SettingError("two names are given", where="--name", got=_value(parameters, "name"), wanted=name)
    task_name = MakeFormat.__name__ if _value(parameters, "format") else WriteReport.__name__
    named = [task_name, *parameters, "--name", name]
    if any(_value(parameters, each) for each in ("model", "checkpoint")):
        return named
    with CmdlineParser.global_instance(named) as command:
        task = command.get_task_obj()
        assert isinstance(task, ModelTask)
        root, place = task.parameters.output_root, task.job.paths.home
        recorded = _recorded(task.job.paths)
        if name not in BUNDLED and not place.is_dir():
            raise _nothing_there(name, root, place)
        parameters = [*parameters, "--output-root", root]
    if recorded:
        return [*recorded, *parameters, *([] if recorded[0] == ConvertBatch.__name__ else ["--name", name])]
    if name not in BUNDLED:
        next_step = "Give them, as those of WriteReport: --model or --checkpoint, and what else its run was given"
        raise SettingError("the parameters of its run are not known", where=name, next_step=next_step)
    return [*named, "--model", name]


def _nothing_there(name: str, root: str, place: Path) -> SettingError:
    """Returns the error for a model that has no artifacts under this output root."""
    others = [path.name for path in place.parent.iterdir() if path.is_dir()] if place.parent.is_dir() else []
    step = f"Name the root of its run: python -m pipeline accept {shlex.quote(name)} --output-root FOLDER"
    if others:
        near = nearest(name, others)
        step = f"{near if near.endswith('?') else f'{near}.'} {step}"
    return SettingError("no artifacts of this model", where=root, got=name, next_step=step)


def _value(parameters: Sequence[str], name: str) -> str | None:
    """Return the value of a parameter; None if it is not given."""
    return dict(_pairs(parameters)).get(f"--{name}")


def _recorded(paths: ArtifactPaths) -> list[str]:
    """Return the task that made the newest artifact, and its parameters; nothing if they are not known."""
    found = []
    for folder in paths.home.iterdir() if paths.home.is_dir() else ():
        with suppress(PipelineError, ValueError):  # no artifact, or a command that is none
            notes = Manifest.read(folder).notes
            words = shlex.split(str(notes.get("command")))
            first = next((index for index, word in enumerate(words) if word in _TASKS), None)
            if first is not None:  # else another program has made it, or `accept` its report
                found.append((str(notes.get("made")), words[first:]))
    if not found:
        return []
    _, (task, *words) = max(found)
    return [task, *(word for pair in _pairs(words) if pair[0] in _OPTIONS for word in pair)]


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with its value, which is empty for a flag."""
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            yield option, value if equals else "" if following.startswith("--") else following
