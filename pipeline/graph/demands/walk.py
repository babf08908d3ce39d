"""Looks at a graph from its inputs on, and finds out what it demands of them.

The walk goes over the nodes in order, into the functions that are called and once into each loop, with a rule for each
op that demands something or lets demands pass. What it finds out about open lengths can decide others, so it is
repeated until nothing new is found. What no rule knows is unknown, and demands nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import DataError
from pipeline.signature import TensorSpec

from ..dtypes import DTYPES, STRING
from ..graph import Graph
from ..lazy_nodes import whole_node
from ..nodes import PLACEHOLDERS, data_inputs, node_of
from ..protos import NodeDef
from ..tensors import content_of, shape_of, strings_of
from . import groups, indices, lists, numbers, parts, shapes, texts
from .demand import Content, Demand, Demands, Group
from .step import Facts, Rules, Step
from .tensors import UNKNOWN, Dim, Dims, Leaf, Open, Origin, Size, Value

RULES: Rules = {
    **shapes.RULES,
    **parts.RULES,
    **numbers.RULES,
    **indices.RULES,
    **lists.RULES,
    **groups.RULES,
    **texts.RULES,
}
_MOST_WALKS = 8
_MOST_DEPTH = 40
_MOST_NUMBERS = 4096
_FILLING = ("LookupTableImport", "LookupTableImportV2", "InitializeTable", "InitializeTableV2")
_BACK = ("NextIteration", "RefNextIteration")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile", "_While")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase", "_If")
_FUNCTIONS = ("f", "body", "then_branch", "else_branch")
_DAMAGE = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, AssertionError, DataError)


def demands_of(graph: Graph, inputs: Iterable[TensorSpec]) -> Demands:
    """Finds out what a graph demands of its inputs.

    Args:
        graph: in which variables are constants: their values are not read, their shapes are.
        inputs: their placeholders by their tensors.
    """
    specs = list(inputs)
    walk = _Walk(graph)
    fed = {spec.name: _fed_node(graph, spec) for spec in specs}
    walk.leaves = {fed[spec.name]: _leaf(spec, walk.facts) for spec in specs}
    for _ in range(_MOST_WALKS):
        walk.facts.has_changed = False
        walk.facts.guesses.clear()
        walk.facts.least_ranks.clear()
        walk.go(graph, {})
        for leaf, rank in () if walk.facts.has_changed else walk.facts.least_ranks.items():
            walk.facts.set_rank(leaf, rank)
        for dim, length in () if walk.facts.has_changed else walk.facts.guesses[:1]:
            walk.facts.require(dim, length)
        for leaf in walk.leaves.values():
            leaf.dims = _settled(leaf.dims)
        if not walk.facts.has_changed:
            break
    for leaves, dims in list(groups.sparse_inputs(list(walk.leaves.values()), walk.facts.groups)):
        walk.facts.groups[leaves] = ("sparse", dims)
    for pair in groups.ragged_inputs(walk.facts.slices, list(walk.leaves.values())):
        walk.facts.groups.setdefault(pair, ("ragged", ()))
    by_leaf = {walk.leaves[fed[spec.name]]: spec.name for spec in specs}
    found = [
        Group(kind, tuple(by_leaf[leaf] for leaf in leaves), _plain(_settled(dims) or ()))
        for leaves, (kind, dims) in walk.facts.groups.items()
        if all(leaf in by_leaf for leaf in leaves)
    ]
    return Demands({name: _demand(leaf, is_input=True) for leaf, name in by_leaf.items()}, tuple(found))


def _fed_node(graph: Graph, spec: TensorSpec) -> str:
    """Returns the placeholder of an input: where several outputs of a node are fed, it is one of those put together."""
    name, _, port = spec.tensor_name.partition(":")
    node = graph.nodes.get(name)
    if node is None or node.op != "IdentityN" or not port.isdecimal() or int(port) >= len(node.input):
        return name
    return node_of(node.input[int(port)])


def _leaf(spec: TensorSpec, facts: Facts) -> Leaf:
    if spec.shape is None:
        return Leaf(spec.name, spec.dtype)
    dims = [Open(Size()) if size is None else size for size in spec.shape]
    if dims and spec.shape[0] is None:
        dims[0] = Open(facts.batch)
    return Leaf(spec.name, spec.dtype, tuple(dims))


def _settled(dims: Dims | None) -> Dims | None:
    """Replaces lengths that were found out."""
    if dims is None:
        return None
    return tuple(
        dim.size.value if isinstance(dim, Open) and not dim.changes and dim.size.value is not None else dim
        for dim in dims
    )


def _plain(dims: Sequence[Dim]) -> tuple[int | None, ...]:
    return tuple(dim if isinstance(dim, int) else None for dim in dims)


def _demand(leaf: Leaf, is_input: bool) -> Demand:
    dims = _settled(leaf.dims)
    row = dims if dims is None or not is_input else dims[1:]
    low, high = leaf.low, leaf.high
    for first, last in leaf.hints[:1]:
        low, high = first if low is None else max(low, first), last if high is None else min(high, last)
    if low is not None and high is not None and low > high:
        low = high = None
    content = leaf.content
    if content is not None and (content.kind != "pieces" or _is_demanding(leaf)):
        inner = {name: _demand(each, is_input=False) for name, each in leaf.parts.items()}
        names = {part: name for name, part in leaf.parts.items()}
        indexed = {
            name: tuple(names[place] for place in part.places)
            for name, part in leaf.parts.items()
            if part.places and all(place in names for place in part.places)
        }
        content = Content(content.kind, inner, content.lists, content.sequences, content.separator, indexed)
    else:
        content = None
    least = tuple(dim.size.least if isinstance(dim, Open) else 1 for dim in row or ())
    shape = None if row is None else _plain(row)
    return Demand(leaf.dtype, shape, least, low, high, tuple(leaf.keys), leaf.is_known, content)


def _is_demanding(leaf: Leaf) -> bool:
    """Returns True if pieces of a text can't be any words, or any number of them."""
    count = _settled(leaf.parts[texts.COUNT].dims) if texts.COUNT in leaf.parts else None
    has_number = count is not None and (
        isinstance(count[0], int) or (isinstance(count[0], Open) and count[0].size.least > 1)
    )
    return has_number or any(part.content or part.keys for part in leaf.parts.values())


class _Walk:
    """What is known of a graph's tensors, by the name of the node and the number, or name and number, of the output."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.depth = graph, 0
        self.leaves: dict[str, Leaf] = {}
        self.constants: dict[int, Value] = {}
        self.orders: dict[str, list[NodeDef]] = {}
        self.facts = Facts(self.keys_of)

    def go(self, graph: Graph, arguments: Mapping[str, Value], function: str = "") -> dict[str, Any]:
        """Looks at all nodes of the graph, or of a function's body; returns what is known of their outputs."""
        found: dict[str, Any] = {name: [value] for name, value in arguments.items()}
        if function not in self.orders:
            self.orders[function] = [whole_node(node) for node in _in_order(graph)]
        for node in self.orders[function]:
            if node.name not in found:
                found[node.name] = self.look_at(node, found, is_body=bool(function))
        return found

    def look_at(self, node: NodeDef, found: Mapping[str, Any], is_body: bool) -> Any:
        op = node.op
        if op == "Const":
            return [self.constant(node)]
        if op in PLACEHOLDERS and not is_body and node.name in self.leaves:
            leaf = self.leaves[node.name]
            return [Value(leaf.dims, None if leaf.dims is not None else (leaf, 0), origins=(Origin(leaf),))]
        if "HashTable" in op:
            if "Dense" in op:
                self.facts.dense.add(node.name)
            return [Value(table=node.name)]
        given = [_look_up(found, reference) for reference in data_inputs(node)]
        try:
            if op in _CALLS or op in _LOOPS or op in _BRANCHES or op in self.graph.functions:
                return self.call(node, given)
            rule = RULES.get(op)
            if rule is not None:
                made = rule(Step(node, given, self.facts))
                return [made] if isinstance(made, Value) else made
        except _DAMAGE:  # a rule that does not fit: nothing is known of what the node makes
            pass
        return []

    def constant(self, node: NodeDef) -> Value:
        if id(node) not in self.constants:
            self.constants[id(node)] = _constant(node)
        return self.constants[id(node)]

    def call(self, node: NodeDef, given: Sequence[Value]) -> list[Value]:
        """Looks into the functions that a node calls; of loops, once."""
        names = [node.op] if node.op in self.graph.functions else []
        for attribute in _FUNCTIONS:
            if attribute in node.attr:
                names.append(node.attr[attribute].func.name)
        if "branches" in node.attr:
            names += [func.name for func in node.attr["branches"].list.func]
        inner = given[1:] if node.op in _BRANCHES else given
        results = [self.function(name, inner) for name in names]
        if node.op in _LOOPS:
            pairs = zip(given, results[0] if results else (), strict=False)
            return [
                after if after.items else Value(before.dims if before.dims == after.dims else None)
                for before, after in pairs
            ]
        return results[0] if len(results) == 1 else []

    def function(self, name: str, given: Sequence[Value]) -> list[Value]:
        definition = self.graph.functions.get(name)
        if definition is None or self.depth >= _MOST_DEPTH:
            return []
        self.depth += 1
        try:
            names = [argument.name for argument in definition.signature.input_arg]
            arguments = dict(zip(names, given, strict=False))
            for argument in names[len(arguments) :]:
                arguments[argument] = UNKNOWN
            found = self.go(self.graph.body(name), arguments, name)
            returned = [definition.ret.get(output.name, "") for output in definition.signature.output_arg]
            return [_look_up(found, reference) for reference in returned]
        finally:
            self.depth -= 1

    def keys_of(self, table: str) -> Sequence[Any]:
        """Returns the keys of a table that constants fill, without those that mark what is empty in a dense one."""
        nodes = self.graph.nodes
        for filling in self.graph.consumers.get(table, ()):
            if filling.op not in _FILLING:
                continue
            keys = nodes.get(node_of(data_inputs(filling)[1]))
            while keys is not None and keys.op in ("Identity", "PlaceholderWithDefault"):
                keys = nodes.get(node_of(data_inputs(keys)[0]))
            if keys is not None:
                reserved = [key for each in data_inputs(nodes[table]) for key in _elements(nodes.get(node_of(each)))]
                return [key for key in _elements(keys) if key not in reserved]
        return ()


def _elements(node: NodeDef | None) -> Sequence[Any]:
    """Returns the elements of a constant; none of any other node."""
    if node is None or node.op != "Const" or _is_left_out(node):
        return ()
    tensor = whole_node(node).attr["value"].tensor
    if tensor.dtype == STRING.number:
        return strings_of(tensor)
    return DTYPES[tensor.dtype].numbers(bytes(content_of(tensor)))


def _constant(node: NodeDef) -> Value:
    tensor = node.attr["value"].tensor
    dims, kind = shape_of(tensor), DTYPES.get(tensor.dtype)
    count = 1
    for dim in dims:
        count *= dim
    try:
        if count > _MOST_NUMBERS or kind is None or _is_left_out(node):
            return Value(dims)
        if kind is STRING:
            return Value(dims, texts=tuple(strings_of(tensor)))
        if kind.name.startswith(("int", "uint", "float", "bool")) and kind.is_plain:
            return Value(dims, numbers=tuple(kind.numbers(bytes(content_of(tensor)))))
    except _DAMAGE:
        pass
    return Value(dims)


def _is_left_out(node: NodeDef) -> bool:
    return LEFT_OUT in node.attr


LEFT_OUT = "_value_left_out"  # marks a constant of which only the shape is there


def _look_up(found: Mapping[str, Any], reference: str) -> Value:
    """Finds a tensor; in a graph it is `node:2`, in a function `node:output:2` or an argument."""
    name, _, place = reference.partition(":")
    made = found.get(name)
    if made is None:
        return UNKNOWN
    output, _, number = place.rpartition(":")
    index = int(number) if number.isdecimal() else 0
    if isinstance(made, Mapping):
        made = made.get(output, ()) if output else [value for values in made.values() for value in values]
    return made[index] if index < len(made) else UNKNOWN


def _in_order(graph: Graph) -> Iterator[NodeDef]:
    """Yields all nodes, every one behind its inputs, but for what comes back around a loop."""
    nodes, done = graph.nodes, set[str]()
    for start in graph.node:
        if start.name in done:
            continue
        done.add(start.name)
        waiting = [(start, iter(start.input))]
        while waiting:
            node, rest = waiting[-1]
            for reference in rest:
                above = nodes.get(node_of(reference))
                if above is None or above.name in done or (above.op in _BACK and node.op in ("Merge", "RefMerge")):
                    continue
                done.add(above.name)
                waiting.append((above, iter(above.input)))
                break
            else:
                waiting.pop()
                yield node
