"""The kinds of ops: `sizes.txt` has a line for each op that a model may have, `op<TAB>kind`, and tells of the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_TABLE = Path(__file__).with_name("sizes.txt")


@lru_cache(maxsize=1)
def kinds() -> Mapping[str, str]:
    """Returns by op its kind in the table; a kind that is not in `KINDS` has no rule that holds for all of it."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if line and not line.startswith("#"))
