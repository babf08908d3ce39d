"""Weights that are stored as float16: the condition under which a candidate is the checkpoint's function is named.

A candidate has a Cast of a float16 constant where the checkpoint has a variable. If the constant is the variable, each
element rounded to the nearest float16, nothing but that rounding stands between it and a proof.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.graph.dtypes import DTYPES
from pipeline.graph.protos import DataType

from .rules import DT_FLOATS, Rules, dtype_of
from .terms import Term, TermTable

DT_HALF = DataType.Value("DT_HALF")
CONDITION = (
    "weights are stored as float16: the outputs are the same functions of the inputs as the checkpoint's with each of "
    "these weights rounded to the nearest float16"
)


class HalvedWeights:
    """The rule of a comparison in which float16 constants are what they were rounded from."""

    def __init__(self, rules: Rules) -> None:
        self._wider = dict[tuple[int, bytes], int]()
        for number, content in enumerate(rules.contents.contents):
            if content.dtype in DT_FLOATS and content.dtype != DT_HALF:
                with np.errstate(over="ignore"):
                    values = np.frombuffer(content.read(), DTYPES[content.dtype].numpy()).astype("<f2")
                self._wider.setdefault((content.dtype, _digest(content.shape, values.tobytes())), number)

    def __call__(self, rules: Rules, table: TermTable, term: Term) -> int | None:
        """A Cast of a float16 constant is the constant that it was rounded from."""
        content = table[term.inputs[0]].content
        if content is None or rules.contents.contents[content].dtype != DT_HALF:
            return None
        halved = rules.contents.contents[content]
        wider = self._wider.get((dtype_of(term, "DstT"), _digest(halved.shape, bytes(halved.read()))))
        return None if wider is None else table.make("const", wider)


def has_halved_weights(table: TermTable, rules: Rules) -> bool:
    """Returns True if a float16 constant is cast to a wider dtype."""
    return any(
        term.op == "Cast"
        and (content := table[term.inputs[0]].content) is not None
        and rules.contents.contents[content].dtype == DT_HALF
        for term in table.terms
    )


def _digest(shape: tuple[int, ...], raw: bytes) -> bytes:
    return hashlib.blake2b(raw, key=repr(shape).encode()[:64], digest_size=32).digest()
