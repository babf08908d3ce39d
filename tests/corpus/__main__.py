"""Writes docs/corner_cases.md: what TensorFlow's tools and ours do with each case."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

from . import CASES
from .table import PAGE, Judge, page


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help=f"write {PAGE.name}")
    if not parser.parse_args().table:
        parser.error("nothing to do")
    logging.disable()
    warnings.simplefilter("ignore")
    judge = Judge()
    with tempfile.TemporaryDirectory() as folder:
        rows = [judge.row(one, Path(folder) / str(number)) for number, one in enumerate(CASES)]
    judge.close()
    PAGE.write_text(page(rows))
    for row in rows:
        if row.by_us != row.case.must:
            print(f"{row.case.name}: {row.by_us}, and must be {row.case.must}", file=sys.stderr)


if __name__ == "__main__":
    main()
