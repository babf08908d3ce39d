"""MetaGraph: a graph with the rest of its MetaGraphDef."""

from __future__ import annotations

from dataclasses import dataclass

from .duplicates import require_single_in_graph, require_single_in_library
from .graph import Graph
from .lazy import split_field
from .lazy_nodes import read_nodes
from .protos import (
    CountedLibrary,
    CountedMetaGraph,
    DecodeError,
    FunctionDefLibrary,
    GraphDef,
    LazyGraphDef,
    MetaGraphDef,
)

_GRAPH_DEF = 2  # the field of tensorflow/core/protobuf/meta_graph.proto


@dataclass(frozen=True)
class MetaGraph:
    """A graph, and all else of its MetaGraphDef.

    Args:
        graph: the graph.
        rest: the message; its field `graph_def` may be empty, and is not to be read.
    """

    graph: Graph
    rest: MetaGraphDef

    @classmethod
    def of(cls, message: MetaGraphDef) -> MetaGraph:
        """Wraps a message that was parsed whole."""
        return cls(Graph.of(message.graph_def), message)


def parse_meta_graph(content: bytes) -> MetaGraph:
    """Reads a MetaGraphDef; the attributes of the nodes are parsed on access.

    Raises:
        DecodeError: the bytes are no MetaGraphDef, or a damaged one; or an attribute of a node stands twice.
    """
    try:
        rest, graphs = split_field(memoryview(content), _GRAPH_DEF)
    except ValueError:  # damaged or unusual bytes: protobuf decides
        message = MetaGraphDef.FromString(content)
        require_single_in_graph(message.graph_def, CountedMetaGraph.FromString(content).graph_def)
        return MetaGraph.of(message)
    whole = graphs[0] if len(graphs) == 1 else b"".join(graphs)  # protobuf joins the parts of a message
    return MetaGraph(parse_graph(whole), MetaGraphDef.FromString(rest))


def parse_graph(content: bytes | memoryview) -> Graph:
    """Reads a GraphDef; the attributes of the nodes are parsed on access.

    Raises:
        DecodeError: the bytes are no GraphDef, or a damaged one; or an attribute of a node stands twice.
    """
    try:
        graph = LazyGraphDef.FromString(content)
        nodes, joined = read_nodes(graph), b"".join(graph.library)
        library = FunctionDefLibrary.FromString(joined)
        if library.function:
            require_single_in_library(library, CountedLibrary.FromString(joined))
        return Graph(nodes, library, graph.versions)
    except DecodeError:
        GraphDef.FromString(content)  # its error names the message
        raise
