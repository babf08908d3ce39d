"""Parameters of the command line: what is wrong with one is said in a sentence, as all errors of the pipeline are."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, ArgumentParser, HelpFormatter, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getdoc
from typing import Any, NoReturn

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import MissingParameterException, ParameterException
from luigi.task_register import Register, TaskClassException
from luigi.tools.range import RangeBase

from pipeline.errors import SettingError, nearest, printable

_PACKAGE = __name__.partition(".")[0]
_USAGE_ERROR = 2  # the exit code of argparse
_MISSING = r"requires the '(\w+)' parameter"


def explain_parameters() -> None:
    """Make Luigi's command say in a sentence what is wrong with a parameter, where the task is ours."""
    make_task: Any = CmdlineParser.get_task_obj

    def get_task_obj(self: Any) -> luigi.Task:
        try:
            task: luigi.Task = make_task(self)
        except (ParameterException, TaskClassException, ValueError) as exc:
            if not is_our_command(self.known_args):
                raise
            raise _explain(self.known_args, exc) from exc
        return task

    CmdlineParser.get_task_obj = get_task_obj  # type: ignore[method-assign]


@contextmanager
def shared_formatter() -> Iterator[None]:
    """Have the parsers that are built meanwhile share what checks their options.

    For each option argparse makes a formatter of help, which asks the terminal for its width, and Luigi's parsers have
    hundreds of options: this halves the time that it takes to build one.
    """
    make, shared = ArgumentParser._get_formatter, HelpFormatter("")
    ArgumentParser._get_formatter = lambda self: shared  # type: ignore[method-assign]
    try:
        yield
    finally:
        ArgumentParser._get_formatter = make  # type: ignore[method-assign]


def be_strict(parser: ArgumentParser, root_task: str) -> None:
    """Make a parser of Luigi refuse abbreviated options, in a sentence, and show each option of its root task once.

    `--training-step 800` would be taken for `--training-steps 800`, and train again.
    """
    parser.allow_abbrev = False
    parser.description = getdoc(Register.get_task_cls(root_task))
    parser.epilog = (
        "Each setting of tasks.cfg is an option too: [training] steps is --training-steps. --help-all lists them."
    )
    doubled = f"--{root_task.replace('_', '-')}-"
    known = [option for option in parser._option_string_actions if not option.startswith(doubled)]
    for action in parser._actions:
        if any(option.startswith(doubled) for option in action.option_strings):
            action.help = SUPPRESS

    def refuse(message: str) -> NoReturn:
        help = f"`luigi --module {_PACKAGE} {root_task} --help` lists the options"
        error = SettingError(message, next_step=help)
        if unknown := re.match(r"unrecognized arguments: (--[^ =]+)", message):
            longer = [option for option in known if option.startswith(unknown[1])]
            meant = nearest(unknown[1], longer or known)
            error = SettingError(
                "unknown option", where=unknown[1], next_step=f"{meant} {help}" if meant.endswith("?") else help
            )
        print(printable(f"ERROR: {error}"), file=sys.stderr)
        sys.exit(_USAGE_ERROR)

    parser.error = refuse  # type: ignore[method-assign]


def runs_our_command() -> bool:
    """Return True if Luigi's command runs in this process, with a root task of ours."""
    command = CmdlineParser.get_instance()
    return command is not None and is_our_command(command.known_args)


def is_our_command(arguments: Namespace) -> bool:
    """Return True if the root task is ours, or a range of such tasks, or a range of no known task."""
    tasks = Register._get_reg()
    root = tasks.get(arguments.root_task)
    if isinstance(root, type) and issubclass(root, RangeBase):
        of = getattr(arguments, "of", None) or getattr(arguments, f"{arguments.root_task}_of", None)
        root = tasks.get(of, SettingError)
    return isinstance(root, type) and is_ours(root)


def is_ours(task: type) -> bool:
    """Return True if a task, or what it is derived from, is a class of this package."""
    return any(kind.__module__.partition(".")[0] == _PACKAGE for kind in task.__mro__)


def _explain(arguments: Any, error: Exception) -> SettingError:
    parameters = dict(Register.get_task_cls(arguments.root_task).get_params())
    missing = re.search(_MISSING, str(error)) if isinstance(error, MissingParameterException) else None
    if missing is not None:
        name = missing[1]
        return SettingError(
            f"{arguments.root_task} needs it",
            where=_option(name),
            got="nothing",
            wanted=_wanted(parameters[name]),
        )
    for name, parameter in parameters.items():
        text = getattr(arguments, name, None)
        try:
            parameter.parse(text) if text else None
        except TaskClassException as exc:
            return SettingError(" ".join(str(exc).split()), where=_option(name))
        except Exception as exc:  # whatever the parameter's parser does not take
            return SettingError(
                "it cannot be read", where=_option(name), got=f"{text}: {exc}", wanted=_wanted(parameter)
            )
    return SettingError(str(error), where=arguments.root_task)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _wanted(parameter: Any) -> str | None:
    return "a day, such as 2026-11-25" if isinstance(parameter, luigi.DateParameter) else parameter.description
