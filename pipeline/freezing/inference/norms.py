"""Lets batch norm take its moving averages in place of the batch's own statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node, whole_node
from pipeline.graph.nodes import data_inputs, is_control, node_of, normalize_tensor, unused_name
from pipeline.graph.protos import DataType, NodeDef
from pipeline.graph.variables import Variable

from ..passes.batch_norms import is_norm, trains
from .factors import NoFactor, factor_of
from .statistics import CARRIES, Statistic, axes_of, same, statistic_of
from .updates import Update

_COUNTS = frozenset({"AssignAdd", "AssignAddVariableOp"})
_SIZES = frozenset({"Shape", "ShapeN", "Size"})
_GLOBAL = frozenset({"BatchNormWithGlobalNormalization"})
_PASSES = CARRIES | {"Neg"}
_SUMS = frozenset({"Add", "AddV2", "Maximum"})
_SCALES = (
    frozenset({"Rsqrt", "Sqrt", "Pow", "Reciprocal", "Inv", "RealDiv", "Div", "Mul", "Add", "AddV2", "Maximum"})
    | CARRIES
)
_CHANGES = frozenset({"Squeeze", "Reshape", "ExpandDims", "Cast"})
_INT32, _FLOAT = DataType.Value("DT_INT32"), DataType.Value("DT_FLOAT")
_MOST_STEPS = 12

Make = Callable[[], str]


@dataclass
class Edits:
    """Nodes that replace those of their names, and new ones; what was switched.

    Args:
        nodes: by name.
        norms: the batch norms, by their rows or their node.
        reductions: nodes that take statistics of a batch, which have moving averages.
    """

    nodes: dict[str, NodeDef] = field(default_factory=dict)
    norms: set[str] = field(default_factory=set)
    reductions: set[str] = field(default_factory=set)


def takes_moments(graph: Graph, node: NodeDef) -> bool:
    """Returns True for the mean over the rows that `tf.nn.moments` takes."""
    return node.op == "Mean" and "moments/" in node.name and 0 in (axes_of(graph, node) or ())


def switch_norms(graph: Graph, updates: Sequence[Update]) -> Edits:
    """Returns the edits that switch every batch norm whose moving averages the updates name."""
    return _Switch(graph, updates).edits()


class _Switch:
    def __init__(self, graph: Graph, updates: Sequence[Update]) -> None:
        self._graph, self._edits = graph, Edits()
        self._names = set(graph.nodes)
        self._sizes = {node.name for node in graph.node if node.op in _SIZES}  # of rows, for Bessel's correction
        self._reads: dict[tuple[str, str], str] = {}
        self._updates = {normalize_tensor(one.value): one for one in updates}
        self._own = {name for one in updates for name in self._own_nodes(one)}

    def edits(self) -> Edits:
        graph, found = self._graph, list[tuple[Update, Statistic]]()
        for tensor, update in self._updates.items():
            if is_norm(graph.nodes[node_of(tensor)]):
                continue
            statistic = statistic_of(graph, update.value)
            if statistic is not None:
                found.append((update, statistic))
                self._edits.reductions.update(statistic.reductions)
        variances = {normalize_tensor(one.root): one for _, one in found if one.is_variance}
        for update, statistic in found:
            self._switch(update, statistic, variances)
        for node in graph.node:
            if trains(node):
                self._switch_fused(node)
        self._leave_out_updates()
        return self._edits

    def _leave_out_updates(self) -> None:
        """Lets nothing wait for the updates of averages, as the normalised rows mostly do in training."""
        graph, gone = self._graph, self._updating()
        for node in graph.node:
            kept = [one for one in node.input if not (is_control(one) and node_of(one) in gone)]
            if node.op != "NoOp" and len(kept) < len(node.input):
                node = self._edits.nodes.get(node.name) or copy_node(node)
                node.input[:] = [one for one in node.input if not (is_control(one) and node_of(one) in gone)]
                self._edits.nodes[node.name] = node

    def _updating(self) -> set[str]:
        """Returns the ops that update averages, or count the steps for them, and what does nothing but wait for these.

        What waits may be a group, or read what was written.
        """
        graph = self._graph
        starts = {name for one in self._updates.values() for name in one.nodes}
        counted = graph.ancestors(starts, with_control=True, stop={node_of(tensor) for tensor in self._updates})
        gone = starts | {name for name in counted if graph.nodes[name].op in _COUNTS}
        waiting = list(gone)
        while waiting:
            for taker in graph.consumers.get(waiting.pop(), ()):
                is_idle = taker.op == "NoOp" and all(node_of(one) in gone for one in taker.input)
                if taker.name not in gone and (is_idle or taker.op == "ReadVariableOp"):
                    gone.add(taker.name)
                    waiting.append(taker.name)
        return gone

    def _own_nodes(self, update: Update) -> set[str]:
        """Returns the nodes between a statistic and the op that updates its average."""
        graph, end = self._graph, node_of(update.value)
        return graph.ancestors(update.nodes, with_control=False, stop={end, *self._sizes}) - {end}

    def _switch_fused(self, node: NodeDef) -> None:
        means = [self._updates.get(f"{node.name}:{port}") for port in (1, 2)]
        variables = [one.variable for one in means if one is not None]
        if len(variables) < 2 or any(one.dtype != _FLOAT or len(one.shape or ()) != 1 for one in variables):
            return
        node = copy_node(node)
        rest = [*node.input[5:]]
        node.input[:] = [*node.input[:3], *map(self._read, variables), *rest]
        node.attr["is_training"].b = False
        self._edits.nodes[node.name] = node
        self._edits.norms.add(node.name)

    def _read(self, variable: Variable) -> str:
        """Returns the name of a node that reads a variable, after no update of it."""
        if variable.identity not in self._reads:
            own = self._graph.nodes[variable.name]
            node = NodeDef(name=self._unused(f"{variable.name}/for_inference"), input=[variable.name])
            node.op = "ReadVariableOp" if own.op == "VarHandleOp" else "Identity"
            node.attr["dtype" if own.op == "VarHandleOp" else "T"].type = variable.dtype
            self._edits.nodes[node.name] = node
            self._reads[variable.identity] = node.name
        return self._reads[variable.identity]

    def _unused(self, name: str) -> str:
        name = unused_name(name, self._names)
        self._names.add(name)
        return name

    def _switch(self, update: Update, statistic: Statistic, variances: Mapping[str, Statistic]) -> None:
        def read() -> str:
            return self._read(update.variable)

        for consumer, port, make in self._walk(statistic.root, update.value, self._above(update, statistic), read):
            if self._is_use(consumer, port, statistic, variances):
                self._replace(consumer.name, port, make())
                self._edits.norms.add(statistic.rows)

    def _above(self, update: Update, statistic: Statistic) -> Make | None:
        """Returns what makes the average for who takes a statistic before its shape is changed; None if nothing can."""
        changed, at, graph = set[str](), update.value, self._graph
        while normalize_tensor(at) != normalize_tensor(statistic.root):
            node = graph.nodes[node_of(at)]
            changed.add(node.op)
            at = data_inputs(node)[0]
        if not changed & _CHANGES:
            return lambda: self._read(update.variable)
        root = whole_node(graph.nodes[node_of(statistic.root)])
        if "Cast" in changed or "keep_dims" not in root.attr or not root.attr["keep_dims"].b:
            return None
        return lambda: self._reshaped(self._read(update.variable), update.variable, statistic)

    def _walk(self, tensor: str, at: str, make: Make | None, read: Make) -> Iterator[tuple[NodeDef, int, Make]]:
        """Yields what takes a statistic, with the number of the input, and what makes the average for it.

        Args:
            at: the tensor of which there is an average.
            make: of the average in the shape of `tensor`.
        """
        make = read if normalize_tensor(tensor) == normalize_tensor(at) else make
        for consumer in {node.name: node for node in self._graph.consumers.get(node_of(tensor), ())}.values():
            if consumer.name in self._own and consumer.op not in _PASSES:
                continue
            for port, reference in enumerate(data_inputs(consumer)):
                if normalize_tensor(reference) != normalize_tensor(tensor):
                    continue
                if consumer.op in _PASSES and port == 0:
                    yield from self._walk(consumer.name, at, self._copy(consumer, make) if make else None, read)
                elif make is not None:
                    yield consumer, port, make

    def _copy(self, node: NodeDef, make: Make) -> Make:
        """Returns what makes a copy of a node that passes on the average."""
        made: list[str] = []

        def copy() -> str:
            if not made:
                new = copy_node(node)
                rest = data_inputs(node)[1:]
                new.name, new.input[:] = self._unused(f"{node.name}/for_inference"), [make(), *rest]
                self._edits.nodes[new.name] = new
                made.append(new.name)
            return made[0]

        return copy

    def _reshaped(self, name: str, variable: Variable, statistic: Statistic) -> str:
        """Returns the average in the shape that the reduction keeps."""
        shape, rank = variable.shape or (), len(variable.shape or ()) + len(statistic.axes)
        axes = {axis % rank for axis in statistic.axes}
        sizes = iter(shape)
        dims = [1 if axis in axes else next(sizes) for axis in range(rank)]
        size = NodeDef(name=self._unused(f"{name}/shape"), op="Const")
        size.attr["dtype"].type = _INT32
        tensor = size.attr["value"].tensor
        tensor.dtype = _INT32
        tensor.tensor_shape.dim.add(size=rank)
        tensor.int_val.extend(-1 if one is None else one for one in dims)
        node = NodeDef(name=self._unused(f"{name}/reshaped"), op="Reshape", input=[name, size.name])
        node.attr["T"].type, node.attr["Tshape"].type = variable.dtype, _INT32
        self._edits.nodes[size.name], self._edits.nodes[node.name] = size, node
        return str(node.name)

    def _replace(self, name: str, port: int, value: str) -> None:
        node = self._edits.nodes.get(name) or copy_node(self._graph.nodes[name])
        node.input[port] = value
        self._edits.nodes[name] = node

    def _is_use(self, node: NodeDef, port: int, statistic: Statistic, variances: Mapping[str, Statistic]) -> bool:
        """Returns True if a node normalises the rows by their mean or variance."""
        graph, given = self._graph, data_inputs(node)
        if node.op in _GLOBAL:
            return port == (2 if statistic.is_variance else 1)
        if is_norm(node):
            return not trains(node) and port == (4 if statistic.is_variance else 3)
        others = [one for at, one in enumerate(given) if at != port]
        if statistic.is_variance:
            return node.op in ("Sqrt", "Rsqrt") or (node.op in _SUMS and self._is_scalar(others[0]))
        if node.op == "Mul":
            return self._holds_variance(others[0], statistic, variances, _MOST_STEPS)
        is_minus = node.op in ("Add", "AddV2") or (node.op == "Sub" and port == 1)
        return is_minus and same(graph, others[0]) == statistic.rows

    def _is_scalar(self, reference: str) -> bool:
        try:
            factor_of(self._graph, reference)
        except NoFactor:
            return False
        return True

    def _holds_variance(self, reference: str, mean: Statistic, variances: Mapping[str, Statistic], steps: int) -> bool:
        """Returns True if a factor is made of the variance of the same rows."""
        found = variances.get(normalize_tensor(reference))
        if found is not None:
            return found.rows == mean.rows
        node = self._graph.nodes.get(node_of(reference))
        if node is None or node.op not in _SCALES or steps == 0:
            return False
        return any(self._holds_variance(one, mean, variances, steps - 1) for one in data_inputs(node))
