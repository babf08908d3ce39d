"""Describes the ends of a model: tensors that no other part of the model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .topology import Tensor

MODEL = "the rest of the model"
NOTHING, LOSS, SEEN = "nothing", "the loss", "metrics or summaries"
METRIC_NAME = re.compile(r"loss|cost|accuracy|error|metric|entropy|gradient|penalty", re.IGNORECASE)
UNANCHORED = "the loss takes no labels, and may begin before it or after it"


@dataclass
class ModelEnd:
    """An end of the model, or another tensor that may be the output.

    Args:
        tensor: which.
        feeds: nothing, the loss, or metrics and summaries; for a tensor that is no end: the rest of the model.
        head: the last layer before it; -1 if layers follow on the way to other ends.
        labels: the sources that its loss compares it with.
        decides_on: for a decision, the tensor that it is about.
        doubt: the reason why it is ambiguous by itself; empty if it is clear.
        is_bool: whether it is of bools.
        is_beside: whether it is made of another end, and named by the author, so that either does not stand for both.
        note: what is to be known of it, such as what is drawn from it; empty if there is nothing.
    """

    tensor: Tensor
    feeds: str
    head: int
    labels: int = 0
    decides_on: Tensor | None = None
    doubt: str = ""
    is_bool: bool = False
    is_beside: bool = False
    note: str = ""


@dataclass(frozen=True)
class ModelEnds:
    """The ends in graph order, and other possible outputs in case the ends are ambiguous.

    Args:
        trained: what a loss compares with labels or with the model's own input, though the model goes on from it.
        named: what the author named in the scope of ends that feed nothing, though the model goes on from it.
    """

    found: list[ModelEnd]
    alternatives: list[ModelEnd]
    trained: list[ModelEnd]
    named: list[ModelEnd]
