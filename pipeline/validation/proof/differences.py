"""Finds where two terms that should be equal part: the sentences that stand between a candidate and its proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .contents import ContentTable
from .rules import COMMUTING
from .terms import TermTable

if TYPE_CHECKING:
    from .evaluate import Evaluator

_MOST = 10


def find_differences(
    table: TermTable, contents: ContentTable, sides: Sequence[Evaluator], pair: tuple[int, int]
) -> list[str]:
    """Returns a sentence for each place where two terms part, seen from the output; at most ten.

    Args:
        sides: the checkpoint's and the candidate's.
        pair: their terms of one output.
    """
    found, seen, waiting = list[str](), set[tuple[int, int]](), [pair]
    while waiting and len(found) < _MOST:
        one, other = waiting.pop()
        if one == other or (one, other) in seen:
            continue
        seen.add((one, other))
        first, second = table[one], table[other]
        is_alike = first.op == second.op and first.attributes == second.attributes
        if is_alike and first.inputs and len(first.inputs) == len(second.inputs):
            inputs = [list(first.inputs), list(second.inputs)]
            if first.op in COMMUTING and (shared := set(first.inputs) & set(second.inputs)):
                inputs = [[number for number in side if number not in shared] for side in inputs]
            waiting += [*zip(*inputs, strict=False)][::-1]
        elif not (is_alike and first.op == "leaf") and not {first.op, second.op} <= {"leaf", "bound"}:
            texts = [_text(table, contents, side, term) for side, term in zip(sides, (one, other), strict=True)]
            found.append(f"checkpoint has {texts[0]}, candidate {texts[1]}")
    return found or ["the two graphs use what a run makes in another order"]


def _text(table: TermTable, contents: ContentTable, side: Evaluator, number: int) -> str:
    term = table[number]
    name = side.nodes.get(number, "")
    at = f" {name}" if name else ""
    if term.content is not None:
        content = contents.contents[term.content]
        value = contents.array(term.content) if content.elements == 1 else None
        return f"the constant{at} ({content}{'' if value is None else f', {value.reshape(-1)[0]}'})"
    return f"the input {term.attributes}" if term.op == "input" else f"{term.op}{at}"
