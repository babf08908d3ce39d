"""Graph: a read-only view of a graph's nodes and functions, with the indexes that every pass needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from .lazy_nodes import LazyNode, copy_node
from .nodes import called_functions, node_of
from .protos import FunctionDef, FunctionDefLibrary, GraphDef, NodeDef, VersionDef


class Graph:
    """The nodes of a graph, or of one function's body, and the functions that they can call.

    Every index is computed once, on first use. The nodes of a Graph are never changed: a rewriting pass makes a new
    Graph, which shares all unchanged nodes.

    Attributes:
        node: the nodes in their order, `NodeDef` messages or `LazyNode`s. The name is GraphDef's field, so that what
            only reads takes a Graph and a GraphDef alike.
        library: the functions and their gradients, as the message.
        versions: of the graph, as the message.
    """

    def __init__(
        self, node: Iterable[NodeDef], library: FunctionDefLibrary | None = None, versions: VersionDef | None = None
    ) -> None:
        self.node: Sequence[NodeDef] = list(node)
        self.library = FunctionDefLibrary() if library is None else library
        self.versions = VersionDef() if versions is None else versions
        self._bodies: dict[str, Graph] = {}

    @classmethod
    def of(cls, graph: Graph | GraphDef) -> Graph:
        """Returns the view of a GraphDef; a Graph is returned as it is."""
        return graph if isinstance(graph, Graph) else cls(graph.node, graph.library, graph.versions)

    def replace_nodes(self, node: Iterable[NodeDef]) -> Graph:
        """Returns a graph of other nodes, with the same functions."""
        new = Graph(node, self.library, self.versions)
        new.functions, new._bodies = self.functions, self._bodies
        return new

    # Nodes.

    @cached_property
    def nodes(self) -> Mapping[str, NodeDef]:
        """The nodes by name; functions' bodies are not among them."""
        return {node.name: node for node in self.node}

    @cached_property
    def consumers(self) -> Mapping[str, Sequence[NodeDef]]:
        """By the name of a node (or of a function's argument): the nodes that take an output of it, or wait for it.

        A node that takes two outputs is there twice.
        """
        found: dict[str, list[NodeDef]] = {}
        for node in self.node:
            for reference in node.input:
                found.setdefault(node_of(reference), []).append(node)
        return found

    def ancestors(self, starts: Iterable[str], *, with_control: bool, stop: Collection[str] = ()) -> set[str]:
        """Returns the names of all nodes that `starts` are computed from, themselves included.

        Args:
            starts: names of nodes; unknown names are ignored.
            with_control: also follow control inputs.
            stop: names of nodes whose inputs are not followed.
        """
        nodes, waiting, found = self.nodes, list(starts), set[str]()
        while waiting:
            name = waiting.pop()
            if name in found or name not in nodes:
                continue
            found.add(name)
            if name in stop:
                continue
            for reference in nodes[name].input:
                if reference in nodes:  # most are names
                    waiting.append(reference)
                elif not reference.startswith("^"):
                    waiting.append(reference.partition(":")[0])
                elif with_control:
                    waiting.append(node_of(reference))
        return found

    def descendants(self, starts: Iterable[str]) -> set[str]:
        """Returns the names of all nodes that are computed from `starts` or wait for them, themselves included."""
        waiting, found = list(starts), set[str]()
        consumers = self.consumers if waiting else {}
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(consumer.name for consumer in consumers.get(name, ()))
        return found

    def all_nodes(self) -> Iterator[NodeDef]:
        """Yields the nodes of the graph, then those of all functions' bodies."""
        for _, node in self.placed_nodes():
            yield node

    def placed_nodes(self) -> Iterator[tuple[str, NodeDef]]:
        """Yields every node with the name of the function that it is in; that name is empty for the graph itself."""
        for node in self.node:
            yield "", node
        for function in self.library.function:  # not by name: a damaged library may have two of one name
            for node in function.node_def:
                yield function.signature.name, node

    @cached_property
    def parsed(self) -> Graph:
        """The graph with messages for all nodes: for whoever looks at the attributes of most of them."""
        if not any(isinstance(node, LazyNode) for node in self.node):
            return self
        return self.replace_nodes(self.to_proto().node)

    # Functions.

    @cached_property
    def functions(self) -> Mapping[str, FunctionDef]:
        """The functions of the library by name."""
        return {function.signature.name: function for function in self.library.function}

    @cached_property
    def gradients(self) -> Mapping[str, str]:
        """By the name of a function, the name of the function that the library declares as its gradient."""
        return {gradient.function_name: gradient.gradient_func for gradient in self.library.gradient}

    def body(self, function: str) -> Graph:
        """Returns the body of a function as a graph of its own, with the same functions to call.

        Raises:
            KeyError: the library has no such function.
        """
        if function not in self._bodies:
            self._bodies[function] = self.replace_nodes(self.functions[function].node_def)
        return self._bodies[function]

    def called_by(self, node: NodeDef) -> Iterator[str]:
        """Yields the functions that a node calls: by its op's name, or by an attribute."""
        return called_functions(node, self.functions)

    def called(self, nodes: Iterable[NodeDef]) -> list[str]:
        """Returns the functions that nodes call, and those that these call, each once, in the order of the calls."""
        if not self.functions:
            return []
        seen: dict[str, None] = {}
        waiting = list(nodes)[::-1]
        while waiting:
            for name in self.called_by(waiting.pop()):
                if name not in seen:
                    seen[name] = None
                    waiting.extend(self.body(name).node[::-1])
        return list(seen)

    def called_nodes(self, nodes: Iterable[NodeDef]) -> Iterator[tuple[str, NodeDef]]:
        """Yields the nodes in the bodies of all functions that nodes call, at any depth, with the function's name."""
        for name in self.called(nodes):
            for node in self.body(name).node:
                yield name, node

    def to_proto(self) -> GraphDef:
        """Returns the graph as a new message."""
        graph = GraphDef(library=self.library, versions=self.versions)
        for node in self.node:
            copy_node(node, graph.node.add())
        return graph
