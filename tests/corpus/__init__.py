"""The corner cases of freezing: models with one peculiarity each, and what must become of them.

`python -m tests.corpus --table` writes docs/corner_cases.md: what TensorFlow's tools and ours do with each.

cases       what a case is, and the register of all
oracle      checkpoints of a case, and what a live session and a .pb give
edits       random edits of a graph, and whether one changes what it answers
table       the page
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))  # for `python -m tests.corpus`
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from . import (  # noqa: F401  # each registers its cases
    control_flow,
    draws,
    files,
    functions,
    gathers,
    inputs,
    keys,
    layers,
    lookups,
    names,
    references,
    stale,
    state,
    variables,
)
from .cases import EQUAL, GROUPS, REFUSED, Case
from .edits import changes_an_answer, edited
from .oracle import answers_of, by_us, inputs_of, is_same, plain, proof_of, run, store
from .table import PAGE

CASES = [one for cases in GROUPS.values() for one in cases]
__all__ = [
    "CASES",
    "EQUAL",
    "GROUPS",
    "PAGE",
    "REFUSED",
    "Case",
    "answers_of",
    "by_us",
    "changes_an_answer",
    "edited",
    "inputs_of",
    "is_same",
    "plain",
    "proof_of",
    "run",
    "store",
]
