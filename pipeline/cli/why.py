"""`python -m pipeline why TASK …`: show which stages would run, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from luigi.cmdline_parser import CmdlineParser

from pipeline.errors import SettingError, nearest, printable
from pipeline.store.artifact import ArtifactState, ArtifactStatus
from pipeline.tasks.batch.task import ConvertBatch, print_plan
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
    states = _examine(given.task)
    if isinstance(states, int):
        return states
    for stage, state in states.items():
        refusal = state.manifest.notes.get("refused") if state.manifest is not None else None
        first, *others = state.reasons or [f"it was refused: {refusal}" if refusal else ""]
        print(printable(f"{stage:<12} {_WILL[state.status]}{': ' if first else ''}{first}"))
        for reason in others:
            print(printable(f"{'':<12} {reason}"))
    statuses = {state.status for state in states.values()}
    return 2 if ArtifactStatus.DAMAGED in statuses else int(statuses != {ArtifactStatus.COMPLETE})


def _examine(arguments: Sequence[str]) -> dict[str, ArtifactState] | int:
    """Return the state of each stage; for a batch, print its models and return the exit code."""
    names = {NightlyRun.__name__, ConvertBatch.__name__, *(task.__name__ for task in TASKS.values())}
    if not arguments or arguments[0] not in names:
        got = arguments[0] if arguments else "nothing"
        raise SettingError("why needs a task", got=got, next_step=nearest(got, names))
    ROOT_HOOKS.clear()  # nothing runs here
    with CmdlineParser.global_instance(list(arguments)) as command:
        task = command.get_task_obj()
        if isinstance(task, ConvertBatch):
            return print_plan(task)
        assert isinstance(task, ModelTask)  # it was one of the names above
        if isinstance(task, NightlyRun):
            return task.examine()
        return task.chain.examine(task.stage)
