"""What can be frozen: checkpoints by every name, with their graph in every form."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from google.protobuf import text_format

import pipeline
from pipeline.errors import CheckpointError, PipelineError

v1 = tf.compat.v1


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, small_graphs.Array]:
    """A checkpoint without a `.meta`, and what its session gives."""
    prefix = tmp_path / "run" / "model.ckpt"
    wanted = small_graphs.save(prefix)
    Path(f"{prefix}.meta").rename(tmp_path / "kept.meta")
    return prefix, wanted


def frozen(place: Path | str, tmp_path: Path, graph: Path | None = None) -> small_graphs.Array:
    """The answer of the .pb."""
    done = pipeline.freeze(place, ["y"], to=tmp_path / "made.pb", graph=graph)
    assert done.variables == 2
    return np.asarray(small_graphs.answer(done.path))


@pytest.mark.parametrize("name", ["graph.pb", "graph.pbtxt", "model.ckpt.pb", "model.ckpt.pbtxt"])
@pytest.mark.parametrize("by", ["prefix", "folder", "graph"])
def test_a_graphdef_beside_the_checkpoint_is_its_graph(
    saved: tuple[Path, small_graphs.Array], tmp_path: Path, name: str, by: str
) -> None:
    prefix, wanted = saved
    graph = small_graphs.graph_of(tmp_path / "kept")
    tf.io.write_graph(graph, str(prefix.parent), name, as_text=name.endswith("txt"))
    place = {"prefix": prefix, "folder": prefix.parent, "graph": prefix.parent / name}[by]
    assert np.array_equal(frozen(place, tmp_path), wanted)


@pytest.mark.parametrize("name", ["other.meta", "other.pb", "other.pbtxt"])
def test_a_graph_elsewhere_can_be_named(saved: tuple[Path, small_graphs.Array], tmp_path: Path, name: str) -> None:
    prefix, wanted = saved
    place = tmp_path / "graphs" / name
    if name.endswith(".meta"):
        place.parent.mkdir()
        shutil.copy(tmp_path / "kept.meta", place)
    else:
        tf.io.write_graph(
            small_graphs.graph_of(tmp_path / "kept"), str(place.parent), name, as_text=name.endswith("txt")
        )
    assert np.array_equal(frozen(prefix, tmp_path, place), wanted)


def test_a_graph_as_it_was_built_has_no_saver_and_goes_by_the_variables_names(tmp_path: Path) -> None:
    wanted = small_graphs.save(tmp_path / "run" / "model.ckpt", write_meta_graph=False)
    with tf.Graph().as_default() as graph:
        small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        tf.io.write_graph(graph, str(tmp_path / "run"), "graph.pbtxt")
    assert np.array_equal(frozen(tmp_path / "run", tmp_path), wanted)


def test_a_meta_may_be_text(saved: tuple[Path, small_graphs.Array], tmp_path: Path) -> None:
    prefix, wanted = saved
    meta = v1.MetaGraphDef.FromString((tmp_path / "kept.meta").read_bytes())
    Path(f"{prefix}.meta").write_text(text_format.MessageToString(meta))
    assert np.array_equal(frozen(prefix, tmp_path), wanted)


def test_one_meta_serves_a_series(tmp_path: Path) -> None:
    prefix = tmp_path / "run" / "model.ckpt"
    small_graphs.save(prefix, global_step=7)
    wanted = small_graphs.save(
        prefix, lambda x: small_graphs.product(x * 1.0), global_step=1000, write_meta_graph=False
    )
    assert np.array_equal(frozen(prefix, tmp_path), wanted)
    assert np.array_equal(frozen(f"{prefix}-1000", tmp_path), wanted)


def test_a_prefix_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    wanted = small_graphs.save(f"{tmp_path}/run/")
    assert (tmp_path / "run" / ".index").is_file()
    for place in (f"{tmp_path}/run/", f"{tmp_path}/run", f"{tmp_path}/run/.meta"):
        assert np.array_equal(frozen(place, tmp_path), wanted)


def test_what_is_frozen_already_is_left_alone_and_said_so(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    first = pipeline.freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path)
    assert first.path.name == "model.pb"
    before = sorted(tmp_path.iterdir())
    again = pipeline.freeze(first.path)
    assert again.path == first.path
    assert again.variables == 0
    assert "nothing to do" in again.notes[0]
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_frozen_already_is_written_with_the_outputs_that_are_named(tmp_path: Path) -> None:
    wanted = small_graphs.save(tmp_path / "model.ckpt")
    whole = pipeline.freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "whole.pb")
    with pytest.raises(PipelineError, match="nosuch: no such tensor in the graph"):
        pipeline.freeze(whole.path, ["nosuch"], to=tmp_path / "out.pb")
    assert not (tmp_path / "out.pb").exists()
    inner = next(node.input[0] for node in read(whole.path).node if node.name == "y")
    part = pipeline.freeze(whole.path, [inner], to=tmp_path / "part.pb")
    assert [str(spec) for spec in part.signature.inputs] == [str(spec) for spec in whole.signature.inputs]
    assert {node.name for node in read(part.path).node} < {node.name for node in read(whole.path).node}
    again = pipeline.freeze(whole.path, ["y"], to=tmp_path / "again.pb")
    assert np.array_equal(small_graphs.answer(again.path), wanted)
    assert np.array_equal(small_graphs.answer(pipeline.freeze(whole.path, to=tmp_path / "all.pb").path), wanted)


def read(path: Path) -> v1.GraphDef:
    return v1.GraphDef.FromString(path.read_bytes())


def test_of_several_graphs_none_is_guessed(saved: tuple[Path, small_graphs.Array], tmp_path: Path) -> None:
    prefix, _ = saved
    with pytest.raises(CheckpointError, match=r"graph is missing .*wanted model\.ckpt\.meta, or one .*--graph"):
        frozen(prefix, tmp_path)
    graph = small_graphs.graph_of(tmp_path / "kept")
    for name in ("a.pb", "b.pb"):
        tf.io.write_graph(graph, str(prefix.parent), name, as_text=False)
    with pytest.raises(CheckpointError, match=r"several graphs .*got a\.pb, b\.pb"):
        frozen(prefix, tmp_path)


def test_a_graph_without_its_checkpoint_says_what_is_missing(
    saved: tuple[Path, small_graphs.Array], tmp_path: Path
) -> None:
    tf.io.write_graph(small_graphs.graph_of(tmp_path / "kept"), str(tmp_path / "alone"), "graph.pb", as_text=False)
    with pytest.raises(CheckpointError, match="has variables, and no checkpoint is next to it"):
        frozen(tmp_path / "alone" / "graph.pb", tmp_path)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda raw: b"", "empty"),
    "cut": (lambda raw: raw[:-100], "damaged"),
    "page": (lambda raw: b"<!DOCTYPE html><html>not found</html>", "HTML page"),
    "pointer": (lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "archive": (lambda raw: b"\x1f\x8b" + raw, "gzip"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["graph.pb", "graph.pbtxt", "graph.meta"])
def test_a_broken_graph_is_said_as_what_it_is(
    saved: tuple[Path, small_graphs.Array], tmp_path: Path, name: str, damage: str
) -> None:
    prefix, _ = saved
    graph = small_graphs.graph_of(tmp_path / "kept")
    raw = text_format.MessageToString(graph).encode() if name.endswith("txt") else graph.SerializeToString()
    change, said = DAMAGES[damage]
    (tmp_path / name).write_bytes(change(raw))
    with pytest.raises(PipelineError, match=said) as caught:
        frozen(prefix, tmp_path, tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    assert not (tmp_path / "made.pb").exists()


def test_a_missing_graph_is_named(saved: tuple[Path, small_graphs.Array], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="graph cannot be read") as caught:
        frozen(saved[0], tmp_path, tmp_path / "absent.meta")
    assert caught.value.where == str(tmp_path / "absent.meta")
