"""Graph: indexes of nodes and functions, walks, lazily parsed nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checkpoint.source import read_graph, read_message
from pipeline.errors import CheckpointError
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import LazyNode, copy_node, whole_node
from pipeline.graph.meta_graph import parse_graph, parse_meta_graph
from pipeline.graph.protos import DecodeError, FunctionDef, GraphDef, MetaGraphDef, NodeDef


def node(name: str, op: str = "NoOp", *inputs: str, calls: str = "") -> NodeDef:
    made = NodeDef(name=name, op=op, input=inputs)
    if calls:
        made.attr["f"].func.name = calls
    return made


def function(name: str, *nodes: NodeDef) -> FunctionDef:
    made = FunctionDef(node_def=nodes)
    made.signature.name = name
    return made


def graph_of(*nodes: NodeDef, functions: tuple[FunctionDef, ...] = ()) -> GraphDef:
    made = GraphDef(node=nodes)
    made.library.function.extend(functions)
    made.versions.producer = 9
    return made


DIAMOND = graph_of(
    node("a", "Const"),
    node("b", "Split", "a"),
    node("c", "Neg", "b:1", "^d"),
    node("d", "NoOp", "^a"),
    node("e", "Add", "c", "b", "b:1"),
    node("f", "Neg", "e"),
)


def test_nodes_are_found_by_name_and_a_graph_is_its_own_view() -> None:
    graph = Graph.of(DIAMOND)
    assert list(graph.nodes) == list("abcdef")
    assert graph.nodes["b"].op == "Split"
    assert Graph.of(graph) is graph
    assert graph.nodes is graph.nodes
    assert graph.to_proto() == DIAMOND


def test_consumers_take_an_output_or_wait_for_the_node() -> None:
    consumers = Graph.of(DIAMOND).consumers
    assert [one.name for one in consumers["a"]] == ["b", "d"]
    assert [one.name for one in consumers["b"]] == ["c", "e", "e"]
    assert [one.name for one in consumers["d"]] == ["c"]
    assert "f" not in consumers


@pytest.mark.parametrize(
    ("starts", "with_control", "stop", "found"),
    [
        ("e", False, "", "abce"),
        ("e", True, "", "abcde"),
        ("e", True, "c", "abce"),
        ("e", False, "bc", "bce"),
        ("d", False, "", "d"),
        ("?", True, "", ""),
        ("?a", True, "", "a"),
    ],
)
def test_ancestors_are_what_a_node_is_computed_from(starts: str, with_control: bool, stop: str, found: str) -> None:
    graph = Graph.of(DIAMOND)
    assert graph.ancestors(starts, with_control=with_control, stop=stop) == set(found)


@pytest.mark.parametrize(("starts", "found"), [("c", "cef"), ("d", "cdef"), ("f", "f"), ("", ""), ("a", "abcdef")])
def test_descendants_are_computed_from_a_node_or_wait_for_it(starts: str, found: str) -> None:
    assert Graph.of(DIAMOND).descendants(starts) == set(found)


def test_a_circle_ends_a_walk() -> None:
    graph = Graph([node("a", "Merge", "b"), node("b", "NextIteration", "a")])
    assert graph.ancestors(["a"], with_control=False) == graph.descendants(["a"]) == {"a", "b"}


CALLING = graph_of(
    node("x", "PartitionedCall", calls="g"),
    node("y", "f"),
    node("z", "PartitionedCall", calls="gone"),
    functions=(
        function("f", node("x", "Neg")),
        function("g", node("inner", "f"), node("again", "PartitionedCall", calls="h")),
        function("h", node("deep", "Neg"), node("itself", "h")),
        function("unused", node("alone", "Neg")),
    ),
)


def test_functions_are_found_by_name_and_each_call_once_in_order() -> None:
    graph = Graph.of(CALLING)
    assert list(graph.functions) == ["f", "g", "h", "unused"]
    assert [list(graph.called_by(one)) for one in graph.node] == [["g"], ["f"], []]
    assert graph.called(graph.node) == ["g", "f", "h"]
    assert graph.called([graph.nodes["y"]]) == ["f"]
    placed = [("g", "inner"), ("g", "again"), ("f", "x"), ("h", "deep"), ("h", "itself")]
    assert [(name, one.name) for name, one in graph.called_nodes(graph.node)] == placed


def test_a_body_is_a_graph_that_can_call_the_same_functions() -> None:
    graph = Graph.of(CALLING)
    body = graph.body("g")
    assert body is graph.body("g")
    assert list(body.nodes) == ["inner", "again"]
    assert list(body.called_by(body.nodes["again"])) == ["h"]
    with pytest.raises(KeyError):
        graph.body("gone")


def test_all_nodes_come_with_their_functions_even_two_of_one_name() -> None:
    library = (function("f", node("one")), function("f", node("two", "WriteFile")))
    placed = list(Graph.of(graph_of(node("a"), functions=library)).placed_nodes())
    assert [(name, one.name) for name, one in placed] == [("", "a"), ("f", "one"), ("f", "two")]


def test_other_nodes_make_another_graph_with_the_same_functions() -> None:
    graph = Graph.of(CALLING)
    other = graph.replace_nodes([node("x", "Neg")])
    assert (other.nodes["x"].op, graph.nodes["x"].op) == ("Neg", "PartitionedCall")
    assert other.functions is graph.functions
    assert other.versions.producer == 9


def test_lazy_nodes_read_like_messages_and_give_the_same_bytes() -> None:
    graph = parse_graph(CALLING.SerializeToString())
    assert all(isinstance(one, LazyNode) for one in graph.node)
    for lazy, whole in zip(graph.node, CALLING.node, strict=True):
        assert (lazy.name, lazy.op, list(lazy.input), lazy.device) == (whole.name, whole.op, list(whole.input), "")
        assert (dict(lazy.attr), whole_node(lazy), copy_node(lazy)) == (dict(whole.attr), whole, whole)
    assert graph.to_proto() == CALLING
    assert graph.parsed.to_proto() == CALLING
    assert graph.parsed is graph.parsed
    assert graph.parsed.parsed is graph.parsed
    assert list(graph.functions) == ["f", "g", "h", "unused"]


def test_a_changed_copy_of_a_lazy_node_leaves_the_graph_as_it_was() -> None:
    graph = parse_graph(CALLING.SerializeToString())
    copy = copy_node(graph.node[0], GraphDef().node.add())
    copy.name = "other"
    copy.attr["f"].func.name = "other"
    assert graph.to_proto() == CALLING


def meta_graph() -> MetaGraphDef:
    meta = MetaGraphDef(graph_def=CALLING)
    meta.saver_def.restore_op_name = "save/restore"
    meta.collection_def["names"].node_list.value.append("x")
    return meta


def test_a_meta_graph_keeps_what_stands_beside_the_graph() -> None:
    found = parse_meta_graph(meta_graph().SerializeToString())
    assert found.graph.to_proto() == CALLING
    assert found.rest.saver_def.restore_op_name == "save/restore"
    assert list(found.rest.collection_def["names"].node_list.value) == ["x"]
    assert not found.rest.graph_def.node


def test_a_graph_in_two_parts_is_one_as_protobuf_joins_them() -> None:
    parts = meta_graph().SerializeToString() + MetaGraphDef(graph_def=graph_of(node("late"))).SerializeToString()
    whole = MetaGraphDef.FromString(parts)
    assert parse_meta_graph(parts).graph.to_proto() == whole.graph_def
    assert [one.name for one in whole.graph_def.node] == ["x", "y", "z", "late"]


def test_a_cut_meta_graph_is_damaged_wherever_protobuf_says_so() -> None:
    content = meta_graph().SerializeToString()
    for end in range(len(content)):
        try:
            MetaGraphDef.FromString(content[:end])
        except DecodeError:
            with pytest.raises(DecodeError):
                parse_meta_graph(content[:end])
        else:
            parse_meta_graph(content[:end])


def test_damaged_attributes_are_noticed_though_nobody_reads_them(tmp_path: Path) -> None:
    broken = bytes([0x2A, 4]) + b"\x0a\x01a\x12"  # an attribute whose value is cut off
    raw = NodeDef(name="n", op="Const").SerializeToString() + broken
    path = tmp_path / "graph.pb"
    path.write_bytes(bytes([0x0A, len(raw)]) + raw)
    with pytest.raises(CheckpointError, match="damaged"):
        read_graph(path)
    with pytest.raises(CheckpointError, match="damaged"):
        read_message(path)
