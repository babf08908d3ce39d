"""Writes docs/planted_faults.md: what catches each fault, its cause, and what other tools' rules make of it."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import tempfile
import warnings
from pathlib import Path

from . import FAULTS, PAGE, Home, outcome_of, page


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--only", default="", help="tell of the faults with this in their name, and write nothing")
    given = parser.parse_args()
    if not given.table and not given.only:
        parser.error("nothing to do")
    logging.disable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        chosen = [one for one in FAULTS if given.only in one.name]
        folders = (Path(folder) / str(number) for number in itertools.count())
        outcomes = [outcome_of(one, home, place, asks_peers=True) for one, place in zip(chosen, folders, strict=False)]
    for one in outcomes:
        if given.only:
            print(f"{one.fault.name}: {sorted(one.checks)} {one.kind}: {one.sentence}\n    {one.by_peers}")
        elif (one.checks, one.kind) != (one.fault.checks, one.fault.kind):
            print(f"{one.fault.name}: {sorted(one.checks)} {one.kind}", file=sys.stderr)
    if given.table:
        PAGE.write_text(page(outcomes))


if __name__ == "__main__":
    main()
