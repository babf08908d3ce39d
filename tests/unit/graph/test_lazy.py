"""A graph whose large tensors stay on disk holds what protobuf reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.graph.lazy import LARGE, load_lazily
from pipeline.graph.protos import GraphDef

SIZES = st.lists(st.sampled_from([0, 1, 200, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE]), max_size=5)


def graph_of(sizes: list[int]) -> GraphDef:
    graph = GraphDef()
    graph.versions.producer = 9
    for number, size in enumerate(sizes):
        node = graph.node.add(name=f"w{number}", op="Const", device="/device:CPU:0", input=["^start"])
        node.attr["dtype"].type = 4
        tensor = node.attr["value"].tensor
        tensor.dtype = 4
        tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8).tobytes()
        node.attr["note"].s = b"x" * (size // 2)
    graph.library.function.add().signature.name = "f"
    return graph


@given(SIZES)
def test_all_but_the_large_contents_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path, graph = tmp_path_factory.mktemp("lean") / "model.pb", graph_of(sizes)
    path.write_bytes(graph.SerializeToString())
    lean = load_lazily(path)
    contents = {node.name: node.attr["value"].tensor.tensor_content for node in graph.node}
    assert {name: bytes(content) for name, content in lean.contents.items()} == {
        name: content for name, content in contents.items() if len(content) > LARGE
    }
    for node in graph.node:
        if node.name in lean.contents:
            node.attr["value"].tensor.tensor_content = b""
    assert lean.graph.to_proto() == graph


def test_a_cut_at_any_place_is_an_error_or_a_whole_graph_of_fewer_nodes(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.pb", graph_of([LARGE + 1, 20, 2 * LARGE]).SerializeToString()
    refusals = []
    for end in [*range(1, 60), *range(60, len(whole), 4999), len(whole) - 1]:
        path.write_bytes(whole[:end])
        try:
            assert len(load_lazily(path).graph.node) < 3 or end == len(whole) - 1
        except DataError as exc:
            refusals.append(str(exc))
    assert len(refusals) > 60
    assert all("the candidate's graph cannot be read" in refusal for refusal in refusals)


@pytest.mark.parametrize("content", [b"", b"<!doctype html><html><body>Not found</body></html>", b"\xff" * 50])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_lazily(tmp_path / "model.pb")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_lazily(tmp_path / "model.pb")
