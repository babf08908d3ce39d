"""Planted faults: pairs of a checkpoint and a candidate that is wrong in one way, and controls that are right.

`python -m tests.faults --table` writes docs/planted_faults.md: what catches each, the cause that is told, and what the
comparison rules of other tools make of the same outputs.

cases      what a fault is, and the register of all
models     the models, their checkpoints, their goldens
graphs, weights, modes, recordings, unseen    the faults
peers      other tools' rules
table      the page
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from . import controls, graphs, modes, recordings, unseen, weights  # noqa: F401  # each registers its faults
from .cases import FAULTS, Fault, Home, Outcome, outcome_of
from .table import PAGE, page

__all__ = ["FAULTS", "PAGE", "Fault", "Home", "Outcome", "outcome_of", "page"]
