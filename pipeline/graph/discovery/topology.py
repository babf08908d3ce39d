"""Numbers the nodes of a graph, in an order in which every node comes after its inputs.

A loop of TensorFlow 1 has an edge back from NextIteration to Merge. Here an edge to the exit replaces it, through one
extra node for each variable of the loop. So the graph has no cycle, and an exit depends on all that its variable is
computed from in any step, and on no more: the loss that a loop sums up is no part of its other results
(https://arxiv.org/abs/1805.01772, section 3, has the ops of a loop).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from ..graph import Graph
from ..nodes import node_of
from ..protos import NodeDef

Tensor = tuple[int, int]  # a node's number and the port

_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
_EXITS = frozenset({"Exit", "RefExit"})
_NEXT = frozenset({"NextIteration", "RefNextIteration"})
_ENTERS = frozenset({"Enter", "RefEnter"})


@dataclass(frozen=True)
class NumberedGraph:
    """A graph's nodes by number; variables of loops follow with numbers of their own.

    Args:
        nodes: the graph's; a variable of a loop has no node.
        ops: of the nodes; empty for a variable of a loop.
        number: of a node, by name.
        inputs: the tensors that feed each node; control edges are left out.
        consumers: by node, the nodes that take its outputs, each with the output's number.
        is_awaited: True if a control edge starts at the node.
        order: all numbers, each after those that feed it.
        exits: by loop, the nodes through which values leave it; a loop goes by the number of its first variable.
        loop_of: by a variable's number, its loop.
    """

    nodes: list[NodeDef]
    ops: list[str]
    number: dict[str, int]
    inputs: list[list[Tensor]]
    consumers: list[list[Tensor]]
    is_awaited: list[bool]
    order: list[int]
    exits: dict[int, list[int]]
    loop_of: dict[int, int]

    def name(self, tensor: Tensor) -> str:
        """A tensor's name; the first output goes by the node's."""
        node, port = tensor
        return f"{self.nodes[node].name}:{port}" if port else str(self.nodes[node].name)


def number_graph(graph: Graph, closed: Container[tuple[int, Tensor]] = ()) -> NumberedGraph:
    """Numbers a graph; unknown inputs are ignored.

    Args:
        closed: edges that are left out, each by the node and what it takes.
    """
    nodes = list(graph.parsed.node)
    ops = [node.op for node in nodes]
    number = {node.name: index for index, node in enumerate(nodes)}
    is_awaited = [False] * len(nodes)
    inputs: list[list[Tensor]] = []
    for node in nodes:
        given: list[Tensor] = []
        for reference in node.input:
            source = number.get(reference)
            if source is not None:
                given.append((source, 0))
            elif (source := number.get(node_of(reference))) is None:
                continue
            elif reference.startswith("^"):
                is_awaited[source] = True
            else:
                port = reference.partition(":")[2]
                given.append((source, int(port) if port.isdecimal() else 0))
        inputs.append([tensor for tensor in given if (len(inputs), tensor) not in closed] if closed else given)
    exits, loop_of = _unroll(nodes, ops, inputs)
    is_awaited += [False] * len(loop_of)
    consumers: list[list[Tensor]] = [[] for _ in inputs]
    for index, given in enumerate(inputs):
        for source, port in given:
            consumers[source].append((index, port))
    order = _sort_nodes(inputs, consumers)
    return NumberedGraph(nodes, ops, number, inputs, consumers, is_awaited, order, exits, loop_of)


def _unroll(
    nodes: list[NodeDef], ops: list[str], inputs: list[list[Tensor]]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Inserts a node per variable of a loop between its last step and its exit.

    Returns:
        The exits by loop, and by a variable its loop.
    """
    conditions: dict[int, int] = {}  # of loops, by the switches and merges that belong to one
    for index in range(len(ops)):
        given = inputs[index]
        if ops[index] in _SWITCHES and len(given) == 2 and ops[given[1][0]] == "LoopCond":
            conditions[index] = conditions[given[0][0]] = given[1][0]
    merges = [index for index in conditions if ops[index] in _MERGES]
    if not merges:
        return {}, {}
    steps = {index: [tensor for tensor in inputs[index] if ops[tensor[0]] in _NEXT] for index in merges}
    frames = {index: nodes[index].attr["frame_name"].s for index, op in enumerate(ops) if op in _ENTERS}
    made_of = {
        index: _merges_behind([index, conditions[index]], inputs, set(merges), _enters_beside(index, inputs, frames))
        for index in merges
    }
    first: dict[int, int] = {}  # variable of a loop, by its condition
    exits: dict[int, list[int]] = {}
    loop_of: dict[int, int] = {}
    leaving = [at for at, op in enumerate(ops) if op in _EXITS and inputs[at] and inputs[at][0][0] in conditions]
    for index in leaving:
        switch = inputs[index][0][0]
        own = inputs[switch][0][0]
        variable = len(inputs)
        loop = first.setdefault(conditions[switch], variable)
        loop_of[variable] = loop
        exits.setdefault(loop, []).append(index)
        inputs.append([tensor for merge in sorted(made_of.get(own, merges)) for tensor in steps[merge]])
        inputs[index].append((variable, 0))
    for index in merges:
        inputs[index] = [tensor for tensor in inputs[index] if ops[tensor[0]] not in _NEXT]
    ops += [""] * len(loop_of)
    return exits, loop_of


def _enters_beside(merge: int, inputs: list[list[Tensor]], frames: dict[int, bytes]) -> set[int]:
    """Returns the nodes through which anything enters the loop of a merge."""
    own = {frames[source] for source, _ in inputs[merge] if source in frames}
    return {index for index, frame in frames.items() if frame in own}


def _merges_behind(starts: list[int], inputs: list[list[Tensor]], merges: set[int], enters: set[int]) -> set[int]:
    """Returns the merges of a loop that something in it is computed from, in any step; with the loop's condition."""
    waiting, seen = list(starts), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen and index not in enters:
            seen.add(index)
            waiting += [source for source, _ in inputs[index]]
    return seen & merges


def _sort_nodes(inputs: list[list[Tensor]], consumers: list[list[Tensor]]) -> list[int]:
    waiting_for = [len(given) for given in inputs]
    order = [index for index, count in enumerate(waiting_for) if not count]
    for index in order:  # grows while it is read
        for consumer, _ in consumers[index]:
            waiting_for[consumer] -= 1
            if not waiting_for[consumer]:
                order.append(consumer)
    # Nodes on a cycle of a damaged graph come last.
    return order + [index for index, count in enumerate(waiting_for) if count]


def loop_depths(graph: NumberedGraph) -> list[int]:
    """Returns the number of TensorFlow 1 loops and branches around each node; values inside may never be computed."""
    found = [0] * len(graph.ops)
    if {"Switch", "RefSwitch", "Enter", "RefEnter"}.isdisjoint(graph.ops):
        return found
    for index in graph.order:
        op, given = graph.ops[index], graph.inputs[index]
        depth = max((found[source] for source, _ in given), default=0)
        if op in _ENTERS:
            depth += 1
        elif op in _EXITS:
            depth -= 1
        elif op in _SWITCHES and not (len(given) == 2 and graph.ops[given[1][0]] == "LoopCond"):
            depth += 1
        elif op in _MERGES and not all(graph.ops[source] in _ENTERS for source, _ in given):
            depth -= 1
        found[index] = max(depth, 0)
    return found


def find_descendants(graph: NumberedGraph, starts: Iterable[int], stop: Container[int] = ()) -> set[int]:
    """Returns the descendants of nodes, themselves included. Stops at loops, where not every node depends on all."""
    waiting, found = list(starts), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in found and index not in stop and graph.ops[index]:
            found.add(index)
            waiting += [consumer for consumer, _ in graph.consumers[index]]
    return found
