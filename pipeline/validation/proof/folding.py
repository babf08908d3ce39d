"""Constant folding: terms that are computed from constants alone are computed, where a proof needs their values.

TensorFlow computes both sides' terms in a process of its own, with the same kernels, and without optimizing them. So a
constant that another tool has folded is equal if its bits are those that TensorFlow gives here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pipeline.errors import PipelineError
from pipeline.graph.protos import AttrValue, GraphDef, NodeDef
from pipeline.workers.child import Limits, run_in_subprocess

from .contents import Content, ContentTable, tensor_of_content
from .op_facts import facts_of
from .ops import reason_against
from .rules import DT_INT32, Rules
from .terms import TermTable

_MOST_BYTES = 1 << 28  # of the constants that are taken
_LIMITS = Limits(seconds=120, memory_share=0.5)


class Folded(NamedTuple):
    """The value of a tensor: what `Content` has, for another process."""

    dtype: int
    shape: tuple[int, ...]
    raw: bytes


Fold = Callable[[bytes, Sequence[str]], Sequence[Folded | None]]


def fold_in_process(graph: bytes, tensors: Sequence[str], limits: Limits = _LIMITS) -> Sequence[Folded | None]:
    """Computes tensors of a GraphDef in a process of its own; None for each that has no value.

    Raises:
        PipelineError: the process ended without an answer, or exceeded a limit.
    """
    values: Sequence[Folded | None] = run_in_subprocess(
        "pipeline.validation.proof.folded_values:compute", graph, [*tensors], limits=limits, is_sandboxed=True
    )
    return values


def fold(table: TermTable, rules: Rules, outputs: Iterable[int], compute: Fold, refused: set[int]) -> bool:
    """Computes the constant terms that others, or outputs, are computed from, and notes their values as rules.

    Args:
        outputs: terms of both sides.
        refused: terms that were tried and have no value; those that are found are added.

    Returns:
        True if something was computed: the terms have to be made again.
    """
    wanted = [number for number in _targets(table, outputs) if number not in refused]
    if not wanted:
        return False
    graph, names = _graph_of(table, rules.contents, wanted)
    if graph is None:
        refused.update(wanted)
        return False
    try:
        values = compute(graph.SerializeToString(), [names[number] for number in wanted])
    except PipelineError:
        values = [None] * len(wanted)
    found = False
    for number, value in zip(wanted, values, strict=True):
        if value is None:
            refused.add(number)
        else:
            content = _content_of(value)
            rules.folded[table[number]] = table.make("const", rules.contents.number(content))
            found = True
    return found


def _content_of(value: Folded) -> Content:
    return Content(value.dtype, value.shape, len(value.raw), lambda: value.raw)


def _targets(table: TermTable, outputs: Iterable[int]) -> list[int]:
    """Returns the terms that are computed from constants alone, and that outputs or other terms are computed from."""
    starts = [*outputs]
    order = sorted(table.below(starts))  # what a term is computed from has lower numbers
    constant = dict[int, bool]()
    for number in order:
        term = table[number]
        is_const = term.op == "const"
        constant[number] = is_const or (
            bool(term.inputs)
            and all(constant[one] for one in term.inputs)
            and (term.op == "output" or _is_computed(term.op))
        )
    taken = {one for number in order if not constant[number] for one in table[number].inputs} | set(starts)
    return [number for number in order if number in taken and constant[number] and table[number].op != "const"]


def _is_computed(op: str) -> bool:
    facts = facts_of(op)
    return facts is not None and not facts.is_stateful and not reason_against(op, frozenset())


def _graph_of(
    table: TermTable, contents: ContentTable, targets: Sequence[int]
) -> tuple[GraphDef | None, dict[int, str]]:
    """Returns the graph of some terms, with the tensor of each; None if its constants are too large."""
    graph, names, size = GraphDef(), dict[int, str](), 0
    for number in sorted(table.below(targets)):
        term = table[number]
        if term.op == "output":
            names[number] = f"{names[term.inputs[0]]}:{term.attributes}"
            continue
        name = names[number] = f"n{number}"
        if term.content is not None:
            content = contents.contents[term.content]
            size += content.size_bytes
            if size > _MOST_BYTES:
                return None, names
            node = graph.node.add(name=name, op="Const")
            node.attr["dtype"].type = content.dtype
            node.attr["value"].tensor.CopyFrom(tensor_of_content(contents, term.content))
        else:
            node = graph.node.add(name=name, op=term.op, input=[names[one] for one in term.inputs])
            for key, raw in term.attributes if isinstance(term.attributes, tuple) else ():
                node.attr[key].MergeFromString(raw)
            _complete(node)
    return graph, names


def _complete(node: NodeDef) -> None:
    """Adds the dtype that the rules leave out: of an axis."""
    if node.op == "GatherV2" and "Taxis" not in node.attr:
        node.attr["Taxis"].CopyFrom(AttrValue(type=DT_INT32))
