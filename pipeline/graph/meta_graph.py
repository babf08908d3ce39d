"""MetaGraph: a graph with the rest of its MetaGraphDef."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph
from .lazy import split_field
from .lazy_nodes import read_nodes
from .protos import DecodeError, GraphDef, LazyGraphDef, MetaGraphDef

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
        DecodeError: the bytes are no MetaGraphDef, or a damaged one.
    """
    try:
        rest, graphs = split_field(memoryview(content), _GRAPH_DEF)
    except ValueError:  # damaged or unusual bytes: protobuf decides
        return MetaGraph.of(MetaGraphDef.FromString(content))
    whole = graphs[0] if len(graphs) == 1 else b"".join(graphs)  # protobuf joins the parts of a message
    return MetaGraph(parse_graph(whole), MetaGraphDef.FromString(rest))


def parse_graph(content: bytes | memoryview) -> Graph:
    """Reads a GraphDef; the attributes of the nodes are parsed on access.

    Raises:
        DecodeError: the bytes are no GraphDef, or a damaged one.
    """
    try:
        graph = LazyGraphDef.FromString(content)
        return Graph(read_nodes(graph), graph.library, graph.versions)
    except DecodeError:
        return Graph.of(GraphDef.FromString(content))  # its error names the message
