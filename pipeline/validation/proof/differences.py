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


def find_unmatched(
    table: TermTable, contents: ContentTable, sides: Sequence[Evaluator], pair: tuple[int, int], said: Sequence[str]
) -> list[str]:
    """Returns a sentence on what the candidate computes an output from, and the checkpoint does not; none if nothing.

    What is computed from the unmatched is unmatched too. So those are named that are computed from nothing unmatched.

    Args:
        said: the sentences before; if they name all, there is nothing to add.
    """
    known = set(table.below([pair[0]]))
    own = [*table.below([pair[1]])]
    unmatched = [number for number in own if number not in known]
    first = sorted(number for number in unmatched if known.issuperset(table[number].inputs))
    named = [number for number in first if sides[1].nodes.get(number) and table[number].op != "leaf"]
    texts = [_text(table, contents, sides[1], number) for number in named]
    if all(any(text in sentence for sentence in said) for text in texts):
        return []
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return [
        f"{len(unmatched)} of {len(own)} terms of the candidate have no counterpart, beginning at "
        f"{', '.join(texts[:_MOST])}{more}"
    ]


def _text(table: TermTable, contents: ContentTable, side: Evaluator, number: int) -> str:
    term = table[number]
    name = side.nodes.get(number, "")
    at = f" {name}" if name else ""
    if term.content is not None:
        content = contents.contents[term.content]
        value = contents.array(term.content) if content.elements == 1 else None
        return f"the constant{at} ({content}{'' if value is None else f', {value.reshape(-1)[0]}'})"
    return f"the input {term.attributes}" if term.op == "input" else f"{term.op}{at}"
