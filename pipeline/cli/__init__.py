"""The one-off commands, each by one module with `add_arguments(parser)` and `run(given) -> exit code`.

Only the module of the command that was given is loaded: Luigi alone takes longer to load than a small checkpoint takes
to freeze.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pipeline.errors import PipelineError

COMMANDS = {
    "freeze": "freeze a checkpoint or a SavedModel into one .pb, without TensorFlow",
    "inspect": "look into a checkpoint, a SavedModel or a .pb: tensors, ops, likely inputs and outputs",
    "why": "say of each stage whether it would run, and why; exit 0 if none would",
    "rerun": "feed the worst rows of a failed validation again; exit 0 if they agree now",
    "verify": "hash an artifact and its inputs again; exit 0 if nothing changed",
}
ERROR = 3  # the exit code for an error of ours


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: of the command, or 3 for an error of ours, said on standard error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, given = _parsed(words)
    try:
        code: int = command.run(given)
    except PipelineError as exc:
        print(exc, file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return 130  # as a shell says that it was interrupted
    return code


def _parsed(words: Sequence[str]) -> tuple[Any, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="One-off commands beside Luigi's tasks.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module = None
    for name, purpose in COMMANDS.items():
        part = parts.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        if words[:1] == [name]:
            module = import_module(f".{name}", __name__)
            module.add_arguments(part)
    return module, parser.parse_args(words)
