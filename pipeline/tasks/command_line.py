"""Save Luigi repeated work on the command line."""

from __future__ import annotations

from functools import cache
from typing import Any

from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register


def build_parsers_once() -> None:
    """Make Luigi keep the parsers of its command line.

    Luigi parses the same command line three times in a run, and builds three parsers each time: seven of these nine
    are equal to an earlier one. A parser depends on the arguments below and on the classes of tasks that are loaded.
    """
    build: Any = CmdlineParser._build_parser

    @cache
    def build_once(classes: tuple[type, ...], root_task: str | None, help_all: bool) -> Any:
        return build(root_task, help_all)

    def build_parser(root_task: str | None = None, help_all: bool = False) -> Any:
        return build_once(tuple(Register._get_reg().values()), root_task, help_all)

    CmdlineParser._build_parser = staticmethod(build_parser)  # type: ignore[method-assign]
