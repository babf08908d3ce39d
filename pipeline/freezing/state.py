"""State that a model keeps between calls: the variables that a call reads and writes.

No .pb can hold state. But what a call reads of a variable can be an input, and what it would write there an output: the
caller then keeps the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, node_of, normalize_tensor
from pipeline.graph.protos import NodeDef
from pipeline.graph.unsupported import CHANGES_STATE, DT_RESOURCE, acts, refusal_of
from pipeline.graph.variables import VARIABLE_OPS, variable_behind, variable_of

from .passes.inputs import hangs_on_updates
from .passes.prune import changed_inputs, changed_variables, find_kept_nodes

# By op, the places of the new values and of the indices that they are written at.
_WRITES: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("Assign", "AssignVariableOp"), (1, None)),
    **dict.fromkeys(("ScatterUpdate", "ResourceScatterUpdate", "ScatterNdUpdate", "ResourceScatterNdUpdate"), (2, 1)),
}
_GATHERS = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})
_MOST_NAMES = 5
_PASSES = frozenset({"Identity", "RefIdentity"})


@dataclass(frozen=True)
class Kept:
    """A variable that each call reads and writes.

    Args:
        name: of the variable.
        reads: the tensors that hold what is read of it, before it is written; empty if there are none such.
        written: the tensor of the values that are written to the same places; None if there is none.
    """

    name: str
    reads: tuple[str, ...] = ()
    written: str | None = None

    @property
    def is_movable(self) -> bool:
        """True if the caller can keep it."""
        return bool(self.reads) and self.written is not None


def find_state(graph: Graph, outputs: Sequence[str], inputs: Sequence[str]) -> list[Kept]:
    """Finds the variables that the outputs read, and that are written where the outputs wait.

    Args:
        inputs: what is fed; an input that hangs on an update does not take the update away.
    """
    stop = {node_of(name) for name in inputs if not hangs_on_updates(graph, node_of(name))}
    starts = [node_of(name) for name in outputs]
    above = graph.ancestors(starts, with_control=True, stop=stop)
    values = graph.ancestors(starts, with_control=False, stop=stop)
    acting = [node.name for node in graph.node if node.name in above - values and acts(node, graph, set())]
    values, _ = find_kept_nodes(graph, values, stop, graph.descendants(acting))
    updates: dict[tuple[str, str], list[NodeDef]] = {}
    for node in graph.node:
        if node.name in above:
            for variable in changed_variables(node, graph):
                updates.setdefault(variable.identity, []).append(node)
    read = {variable_of(node).identity for node in graph.node if node.name in values and node.op in VARIABLE_OPS}
    return [_kept(graph, identity, nodes, values) for identity, nodes in updates.items() if identity in read]


def find_results(graph: Graph, outputs: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Returns the updates that the outputs are computed from, not only wait for."""
    values = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
    return [node.name for node in graph.node if node.name in values and refusal_of(node.op) is CHANGES_STATE]


def updates_left_out(graph: Graph, outputs: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Returns the nodes that update variables where the outputs wait, of a graph that was frozen without them."""
    above = graph.ancestors(map(node_of, outputs), with_control=True, stop=set(map(node_of, inputs)))
    return [node.name for node in graph.node if node.name in above and refusal_of(node.op) is CHANGES_STATE]


def left_out_note(updates: Sequence[str]) -> list[str]:
    """Returns the sentence on updates that are left out; none without updates."""
    if not updates:
        return []
    names = f"{', '.join(updates[:_MOST_NAMES])}{', …' if len(updates) > _MOST_NAMES else ''}"
    what = "1 update of a variable is" if len(updates) == 1 else f"{len(updates)} updates of variables are"
    return [f"{what} left out ({names}): nothing that the outputs read is changed by them"]


def require_purpose(graph: Graph, outputs: Mapping[str, str], updates: Sequence[str]) -> None:
    """Checks that a model which updates variables has another purpose too.

    Args:
        outputs: tensors by name.
        updates: see `updates_left_out`.

    Raises:
        FreezeError: its outputs are inputs that are passed on, or constants.
    """
    behind = [graph.nodes.get(node_of(passed_on(graph, tensor))) for tensor in outputs.values()]
    if not updates or any(node is None or node.op not in (*PLACEHOLDERS, "Const") for node in behind):
        return
    changed = [one.name for name in updates for one in changed_variables(graph.nodes[name], graph)]
    raise FreezeError(
        f"all that it does is to update variables ({', '.join(dict.fromkeys(changed))}): its outputs are inputs that "
        "are passed on, or constants, and no .pb can update a variable",
        where=", ".join(outputs),
        next_step="Serve it as it was saved, or freeze other outputs (--outputs)",
    )


def passed_on(graph: Graph, tensor: str) -> str:
    """Returns the tensor behind ops that only pass it on, with its port."""
    for _ in range(len(graph.node)):
        node = graph.nodes.get(node_of(tensor))
        if node is None or node.op not in _PASSES or not data_inputs(node):
            break
        tensor = data_inputs(node)[0]
    return normalize_tensor(tensor)


def _kept(graph: Graph, identity: tuple[str, str], updates: Sequence[NodeDef], values: set[str]) -> Kept:
    name = identity[1]
    if len(updates) != 1 or updates[0].op not in _WRITES:
        return Kept(name)
    place, at = _WRITES[updates[0].op]
    given = data_inputs(updates[0])
    indices = passed_on(graph, given[at]) if at is not None else None
    reads = [*_reads(graph, identity, values)]
    if indices is not None:
        reads = [one for read in reads for one in _gathers(graph, read, values)]
        if any(not _gathers_at(graph, one, indices) for one in reads):
            return Kept(name)
    earlier = graph.ancestors([updates[0].name], with_control=True)
    if any(one.op in VARIABLE_OPS or not _is_before(graph, one, earlier, values) for one in reads):
        return Kept(name)
    return Kept(name, tuple(one.name for one in reads), given[place].removesuffix(":0"))


def _reads(graph: Graph, identity: tuple[str, str], values: set[str]) -> Iterator[NodeDef]:
    """Yields the nodes whose first output is the value of a variable, or the variable where it is used as it is."""
    for node in graph.node:
        if node.name not in values:
            continue
        for reference in data_inputs(node)[:1]:
            variable = variable_behind(reference, graph.nodes)
            if variable is None or variable.identity != identity or _is_value(graph, reference):
                continue
            if node.op in VARIABLE_OPS or (node.op in _PASSES and node.attr["T"].type == DT_RESOURCE):
                continue
            is_read = node.op in _PASSES or node.op == "ReadVariableOp" or node.op in _GATHERS
            yield node if is_read or changed_inputs(node, graph) else graph.nodes[node_of(reference)]


def _is_value(graph: Graph, reference: str) -> bool:
    """Returns True if a reference is the value that was read of a variable, not the variable."""
    node = graph.nodes[node_of(reference)]
    return node.op in _PASSES and node.attr["T"].type != DT_RESOURCE


def _is_before(graph: Graph, read: NodeDef, earlier: set[str], values: set[str]) -> bool:
    """Returns True if what is read is the old value for certain, for the update waits for it.

    The value of an old variable is read in place: whoever uses it after the update sees the new one.
    """
    users = [node.name for node in graph.consumers.get(read.name, ()) if node.name in values]
    return {read.name, *(users if read.op in _PASSES else [])} <= earlier


def _gathers(graph: Graph, read: NodeDef, values: set[str]) -> list[NodeDef]:
    """Returns the nodes that take rows of a value that is read; the read itself, if it takes rows or is used whole."""
    users = [node for node in graph.consumers.get(read.name, ()) if node.name in values]
    takes_rows = read.op in _GATHERS or not users or any(node.op not in _GATHERS for node in users)
    return [read] if takes_rows else users


def _gathers_at(graph: Graph, node: NodeDef, indices: str) -> bool:
    given = data_inputs(node)
    return node.op in _GATHERS and len(given) > 1 and passed_on(graph, given[1]) == indices
