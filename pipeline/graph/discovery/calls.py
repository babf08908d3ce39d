"""Tells which inputs of a call each of its outputs is computed from, as a While op runs a loss beside an answer.

The op itself takes all its inputs, and so does the frozen graph: labels that only a loss in a loop needs are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..nodes import node_of
from ..protos import FunctionDef, NodeDef

_LOOPS = frozenset({"StatelessWhile", "While"})


def inputs_of_output(node: NodeDef, port: int, functions: Mapping[str, FunctionDef]) -> set[int] | None:
    """Returns the positions of a call's inputs that one of its outputs is computed from; None if all may be."""
    if node.op in _LOOPS:
        body, condition = (functions.get(node.attr[name].func.name) for name in ("body", "cond"))
        if body is None or condition is None:
            return None
        steps = _arguments_behind(body)
        waiting = [port, *(at for found in _arguments_behind(condition) for at in found)]
        seen = set[int]()
        while waiting:
            at = waiting.pop()
            if at not in seen and at < len(steps):
                seen.add(at)
                waiting += steps[at]
        return seen
    called = functions.get(node.attr["f"].func.name if node.op.endswith("PartitionedCall") else node.op)
    behind = _arguments_behind(called) if called is not None else []
    return behind[port] if port < len(behind) else None


def _arguments_behind(function: FunctionDef) -> list[set[int]]:
    """Returns, for each result of a function, the positions of the arguments that it is computed from."""
    arguments = {argument.name: at for at, argument in enumerate(function.signature.input_arg)}
    nodes = {node.name: node for node in function.node_def}
    results = (function.ret[result.name] for result in function.signature.output_arg)
    return [_reach([result], nodes, arguments) for result in results]


def _reach(starts: Iterable[str], nodes: Mapping[str, NodeDef], arguments: Mapping[str, int]) -> set[int]:
    waiting, seen, found = list(starts), set[str](), set[int]()
    while waiting:
        name = node_of(waiting.pop().lstrip("^"))
        if name in seen:
            continue
        seen.add(name)
        if name in arguments:
            found.add(arguments[name])
        elif name in nodes:
            waiting += [given for given in nodes[name].input if not given.startswith("^")]
    return found
