"""A graph as numbers: which node feeds which, in an order in which every node comes after what feeds it.

Loops of TensorFlow 1 go round by an edge from NextIteration to Merge. Here that edge is replaced by one to what leaves
the loop, by way of one more node for each loop, so that the graph has no circles and what leaves a loop still hangs on
all that happens in it (https://arxiv.org/abs/1805.01772, section 3, has the ops of a loop).
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
class Wiring:
    """A graph's nodes by number; behind them come the loops.

    Args:
        nodes: the graph's; a loop has no node.
        ops: of the nodes; empty for a loop.
        number: of a node, by name.
        inputs: the tensors that feed each node; control edges are left out.
        consumers: by node, who takes its outputs, and which.
        is_awaited: whether a control edge starts at the node.
        order: all numbers, each after those that feed it.
        exits: of each loop, the nodes by which values leave it.
    """

    nodes: list[NodeDef]
    ops: list[str]
    number: dict[str, int]
    inputs: list[list[Tensor]]
    consumers: list[list[Tensor]]
    is_awaited: list[bool]
    order: list[int]
    exits: dict[int, list[int]]

    def name(self, tensor: Tensor) -> str:
        """A tensor's name; the first output goes by the node's."""
        node, port = tensor
        return f"{self.nodes[node].name}:{port}" if port else str(self.nodes[node].name)


def wire(graph: Graph) -> Wiring:
    """Numbers a graph; inputs that are not there are passed over."""
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
        inputs.append(given)
    exits = _unroll(ops, inputs)
    is_awaited += [False] * len(exits)
    consumers: list[list[Tensor]] = [[] for _ in inputs]
    for index, given in enumerate(inputs):
        for source, port in given:
            consumers[source].append((index, port))
    return Wiring(nodes, ops, number, inputs, consumers, is_awaited, _ordered(inputs, consumers), exits)


def _unroll(ops: list[str], inputs: list[list[Tensor]]) -> dict[int, list[int]]:
    """Puts a new node for each loop between what goes round and what leaves it; returns what leaves, by loop."""
    loops: dict[int, int] = {}  # by the node of the loop's condition
    loop_of: dict[int, int] = {}  # of the switches and merges that belong to one
    exits: dict[int, list[int]] = {}
    for index in range(len(ops)):
        given = inputs[index]
        if ops[index] in _SWITCHES and len(given) == 2 and ops[given[1][0]] == "LoopCond":
            condition = given[1][0]
            if condition not in loops:
                loops[condition] = len(inputs)
                exits[len(inputs)] = []
                inputs.append([])
            loop_of[index] = loop_of[given[0][0]] = loops[condition]
    for index in range(len(ops)):
        given = inputs[index]
        if ops[index] in _MERGES and index in loop_of:
            inputs[loop_of[index]] += [tensor for tensor in given if ops[tensor[0]] in _NEXT]
            inputs[index] = [tensor for tensor in given if ops[tensor[0]] not in _NEXT]
        elif ops[index] in _EXITS and given and given[0][0] in loop_of:
            loop = loop_of[given[0][0]]
            given.append((loop, 0))
            exits[loop].append(index)
    ops += [""] * len(exits)
    return exits


def _ordered(inputs: list[list[Tensor]], consumers: list[list[Tensor]]) -> list[int]:
    waiting_for = [len(given) for given in inputs]
    order = [index for index, count in enumerate(waiting_for) if not count]
    for index in order:  # grows while it is read
        for consumer, _ in consumers[index]:
            waiting_for[consumer] -= 1
            if not waiting_for[consumer]:
                order.append(consumer)
    # What goes round in a damaged graph comes last.
    return order + [index for index, count in enumerate(waiting_for) if count]


def depths(wiring: Wiring) -> list[int]:
    """How many loops and branches of TensorFlow 1 each node stands in: inside, a value may never come to be."""
    found = [0] * len(wiring.ops)
    if {"Switch", "RefSwitch", "Enter", "RefEnter"}.isdisjoint(wiring.ops):
        return found
    for index in wiring.order:
        op, given = wiring.ops[index], wiring.inputs[index]
        depth = max((found[source] for source, _ in given), default=0)
        if op in _ENTERS:
            depth += 1
        elif op in _EXITS:
            depth -= 1
        elif op in _SWITCHES and not (len(given) == 2 and wiring.ops[given[1][0]] == "LoopCond"):
            depth += 1
        elif op in _MERGES and not all(wiring.ops[source] in _ENTERS for source, _ in given):
            depth -= 1
        found[index] = max(depth, 0)
    return found


def reached(wiring: Wiring, starts: Iterable[int], stop: Container[int] = ()) -> set[int]:
    """The nodes that hang on others, these included; the way ends at loops, for not all in them hangs on all."""
    waiting, found = list(starts), set[int]()
    while waiting:
        index = waiting.pop()
        if index not in found and index not in stop and wiring.ops[index]:
            found.add(index)
            waiting += [consumer for consumer, _ in wiring.consumers[index]]
    return found
