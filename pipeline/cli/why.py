"""`python -m pipeline why TASK …`: show which stages would run, and why."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence

from luigi.cmdline_parser import CmdlineParser

from pipeline.errors import SettingError, nearest, printable
from pipeline.store.acceptance import Acceptance
from pipeline.store.artifact import ArtifactState, ArtifactStatus
from pipeline.tasks.batch.task import ConvertBatch, print_plan
from pipeline.tasks.chain.acceptance import on_offer
from pipeline.tasks.model import ROOT_HOOKS, TASKS, ModelTask
from pipeline.tasks.nightly.task import NightlyRun

_WILL = {
    ArtifactStatus.COMPLETE: "is complete",
    ArtifactStatus.MISSING: "would run",
    ArtifactStatus.STALE: "would run",
    ArtifactStatus.WAITING: "might run",
    ArtifactStatus.DAMAGED: "is damaged",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs=argparse.REMAINDER, help="a task and its parameters, as luigi takes them")


def run(given: argparse.Namespace) -> int:
    """Print for each stage whether it would run, and why; run nothing.

    Returns:
        0 if everything is complete, 1 if something would run, 2 if something is damaged.
    """
    names = {NightlyRun.__name__, ConvertBatch.__name__, *(task.__name__ for task in TASKS.values())}
    arguments: list[str] = given.task
    if not arguments or arguments[0] not in names:
        got = arguments[0] if arguments else "nothing"
        raise SettingError("why needs a task", got=got, next_step=nearest(got, names))
    ROOT_HOOKS.clear()  # nothing runs here
    with CmdlineParser.global_instance(arguments) as command:
        task = command.get_task_obj()
        if isinstance(task, ConvertBatch):
            return print_plan(task)
        assert isinstance(task, ModelTask)  # it was one of the names above
        if isinstance(task, NightlyRun):
            return _print(task.examine())
        code = _print(task.chain.examine(task.stage))
        if code == 1:
            _print_offer(task, arguments[1:])
        return code


def _print_line(line: str) -> None:
    """Print one line: names in a manifest may hold line breaks."""
    print(printable(line).replace("\n", "\u240a"))


def _print(states: Mapping[str, ArtifactState]) -> int:
    for stage, state in states.items():
        first, *others = state.reasons or _notes_of(state)
        _print_line(f"{stage:<12} {_WILL[state.status]}{': ' if first else ''}{first}")
        unwatched = state.manifest.notes.get("unwatched", ()) if state.manifest is not None else ()
        others += [f"not noticed, if it changes: {sentence}" for sentence in unwatched]
        for reason in others:
            _print_line(f"{'':<12} {reason}")
    statuses = {state.status for state in states.values()}
    return 2 if ArtifactStatus.DAMAGED in statuses else int(statuses != {ArtifactStatus.COMPLETE})


def _notes_of(state: ArtifactState) -> list[str]:
    """Return what there is to say of a complete stage; an empty sentence if nothing is."""
    if state.manifest is None:
        return [""]
    refusal = state.manifest.notes.get("refused")
    refused = [f"it was refused: {refusal}"] if refusal else []
    return [*refused, *map(str, Acceptance.read_all(state.manifest))] or [""]


def _print_offer(task: ModelTask, parameters: Sequence[str]) -> None:
    """Print the command that keeps the stages whose code or libraries alone have changed."""
    if stages := on_offer(task.chain, task.stage):
        one = f"the finished artifact: python -m pipeline accept {task.chain.job.paths.name} {stages[0]}"
        several = f"finished artifacts: python -m pipeline accept {task.chain.job.paths.name} {' '.join(stages)}"
        print(printable(f"to keep {several if len(stages) > 1 else one} {shlex.join(parameters)}".rstrip()))
