"""What the comparison of graphs has to know of an op: inputs, outputs, defaults, and whether it may keep a state.

`op_facts.txt` has a line for each op that TensorFlow 2.21 registers:

    name, stateful or pure, inputs, outputs, defaults of attributes

Inputs are written as the outputs of `pipeline.graph.ops`: by their dtypes. An output is `name`, or `name*attribute` if
there are as many as the attribute says: a number, or a list of dtypes. `-` stands for none. A default is `attribute=`
with the bytes of its AttrValue in hexadecimal digits. `python tests/helpers/op_facts.py` writes the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pipeline.graph.ops import Output, read_declared
from pipeline.graph.protos import FunctionDef, NodeDef

TABLE = Path(__file__).with_name("op_facts.txt")


@dataclass(frozen=True)
class OpFacts:
    """Facts of one op.

    Args:
        is_stateful: the op may keep a state, or act on something outside of the graph.
        inputs: their dtypes.
        outputs: names, and the attribute that counts the tensors of each; empty for one.
        defaults: of attributes, as the bytes of their messages.
    """

    is_stateful: bool
    inputs: Sequence[Output]
    outputs: Sequence[tuple[str, str]]
    defaults: Mapping[str, bytes]


@lru_cache(maxsize=4096)
def facts_of(op: str) -> OpFacts | None:
    """Returns the facts of an op; None if TensorFlow does not have it."""
    line = _lines().get(op)
    if line is None:
        return None
    state, inputs, outputs, *defaults = line.split(" ")
    pairs = [] if outputs == "-" else [tuple(output.partition("*")[::2]) for output in outputs.split(",")]
    values = {name: bytes.fromhex(value) for name, _, value in (default.partition("=") for default in defaults)}
    given = [] if inputs == "-" else [*read_declared(inputs)]
    return OpFacts(state == "stateful", given, [(name, count) for name, count in pairs], values)


@lru_cache(maxsize=4096)
def has_many_outputs(op: str) -> bool:
    """Returns True if a node of an op has, or may have, other than one output; the term of the node is none of them."""
    facts = facts_of(op)
    return facts is not None and (len(facts.outputs) != 1 or facts.outputs[0][1] != "")


def number_of_output(node: NodeDef, name: str, index: int, functions: Mapping[str, FunctionDef]) -> int | None:
    """Returns the number of a node's output that a function's body names; None if the op has no such output."""
    before = 0
    for output, count in _outputs_of(node, functions):
        if output == name:
            return before + index
        before += count
    return None


def _outputs_of(node: NodeDef, functions: Mapping[str, FunctionDef]) -> Iterator[tuple[str, int]]:
    if node.op in functions:
        yield from ((arg.name, 1) for arg in functions[node.op].signature.output_arg)
        return
    facts = facts_of(node.op)
    for name, counted_by in facts.outputs if facts is not None else ():
        value = node.attr[counted_by] if counted_by else None
        yield name, 1 if value is None else len(value.list.type) if value.WhichOneof("value") == "list" else value.i


@cache
def _lines() -> dict[str, str]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}
