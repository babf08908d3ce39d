"""`python -m pipeline inspect FILE`: show what a file contains, without TensorFlow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.errors import printable
from pipeline.freezing.inspection import inspect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", help="a checkpoint (prefix, file or folder), the folder of a SavedModel, a .meta, .pb or .pbtxt"
    )
    parser.add_argument(
        "--graph", type=Path, help="the graph's file (.meta, .pb, .pbtxt), where it is not beside the checkpoint"
    )
    parser.add_argument("--signature", help="of a SavedModel with several, which one")
    parser.add_argument("--all", action="store_true", help="print long lists to their end")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(given: argparse.Namespace) -> int:
    """Print what the file contains."""
    found = inspect(given.file, given.graph, given.signature)
    if given.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        for line in found.lines(given.all):
            print(printable(line))
    return 0
