"""Refuses inputs and outputs inside of loops and functions, which TensorFlow neither feeds nor fetches.

A value in a loop of TensorFlow 1 belongs to the loop's frame: there is a new one in each turn. From outside only what
leaves through an Exit can be read. What a function computes goes by the outputs of the node that calls it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import node_of
from pipeline.graph.unsupported import DRAWS, refusal_of

_ENTERS, _EXITS = frozenset({"Enter", "RefEnter"}), frozenset({"Exit", "RefExit"})
_LOOPS = frozenset({"StatelessWhile", "While"})
_NEXT = frozenset({"NextIteration", "RefNextIteration"})


def require_outside(graph: Graph, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Checks that inputs and outputs are nodes outside of loops and functions.

    Raises:
        FreezeError: one is inside.
    """
    for names, done in ((inputs, "fed"), (outputs, "fetched")):
        for name in names:
            if is_in_loop(graph, node_of(name)):
                raise FreezeError(
                    f"this tensor is inside of a loop, which has a new one in each turn: it cannot be {done}",
                    where=name,
                    next_step="Name a tensor in front of the loop, or one that is computed after it",
                )
            function = None if node_of(name) in graph.nodes else _function_of(graph, node_of(name))
            if function is not None:
                raise FreezeError(
                    f"this tensor is inside of a function, which may be called many times: it cannot be {done}",
                    where=name,
                    got=f"a node of function {function}",
                    next_step="Name a tensor of the graph itself, such as what the node that calls the function gives",
                )


def is_in_loop(graph: Graph, name: str) -> bool:
    """Returns True for a node inside of a loop of TensorFlow 1.

    All that a node takes is of one frame, so that one way back to the beginning tells its frame.
    """
    depth, seen = 0, set[str]()
    while name in graph.nodes and name not in seen:
        seen.add(name)
        node = graph.nodes[name]
        depth += (node.op in _ENTERS) - (node.op in _EXITS)
        given = (node_of(reference) for reference in node.input)
        name = next((one for one in given if one in graph.nodes and graph.nodes[one].op not in _NEXT), "")
    return depth > 0


def refuse_inner_draw(graph: Graph, refused: FreezeError) -> FreezeError:
    """Returns the error for a draw in each turn of a loop; that of any other refusal as it is."""
    words = str(refused.where or "").split()
    name = words[1] if len(words) > 1 and words[0] == "node" else ""
    function = words[words.index("function") + 1].rstrip(",") if "function" in words[:-1] else None
    body = graph if function is None else graph.body(function) if function in graph.functions else None
    node = body.nodes.get(name) if body is not None else None
    if node is None or refusal_of(node.op) is not DRAWS:
        return refused
    if not (is_in_loop(graph, name) if function is None else _is_of_a_loop(graph, function)):
        return refused
    return FreezeError(
        f"{node.op} draws random numbers in each turn of a loop on the way to an output",
        where=refused.where,
        got="new numbers in every turn, so that no two runs are equal and no .pb can be proved equal",
        next_step="End the model in front of the loop (--outputs), or change the model's code: let it take the numbers"
        " as an input, or give the logits of one turn, and save it again",
    )


def _is_of_a_loop(graph: Graph, function: str) -> bool:
    """Returns True for the body or the condition of a loop, and for what these call."""
    loops = [node for node in graph.all_nodes() if node.op in _LOOPS]
    return function in graph.called(loops)


def _function_of(graph: Graph, name: str) -> str | None:
    return next(
        (
            function.signature.name
            for function in graph.functions.values()
            if any(node.name == name for node in function.node_def)
        ),
        None,
    )
