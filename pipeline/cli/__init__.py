"""One-off commands, one module each, with `add_arguments(parser)` and `run(given) -> exit code`.

Only the module of the given command is loaded: loading Luigi alone takes longer than freezing a small checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

COMMANDS = {
    "freeze": "freeze a checkpoint or a SavedModel into one .pb, without TensorFlow",
    "inspect": "show what a checkpoint, a SavedModel or a .pb contains: tensors, ops, likely inputs and outputs",
    "why": "show for each stage whether it would run, and why; exit 0 if none would",
    "accept": "keep finished artifacts although code or library versions changed, and record that",
    "rerun": "run the worst rows of a failed validation again; exit 0 if they agree now",
    "verify": "hash an artifact and its inputs again; exit 0 if nothing changed",
}
ERROR = 3  # the exit code for an error of ours


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code of the command; or 3 for an error of ours, printed to standard error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, given = _parse(words)
    try:
        code: int = command.run(given)
    except PipelineError as exc:
        print(exc, file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return 130  # the exit code of an interrupted command in a shell
    return code


def _program() -> str:
    """Return the name that the user typed: the console script, or the module."""
    name = Path(sys.argv[0]).name
    return name if name == "freeze-pipeline" else "python -m pipeline"


def _parse(words: Sequence[str]) -> tuple[Any, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog=_program(), description="One-off commands beside Luigi's tasks.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module = None
    for name, purpose in COMMANDS.items():
        part = parts.add_parser(
            name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", allow_abbrev=False
        )
        if words[:1] == [name]:
            module = import_module(f".{name}", __name__)
            module.add_arguments(part)
    return module, parser.parse_args(words)
