"""Weights as float16: rounded as numpy rounds, in both formats, and cast back for whatever reads them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tensorflow as tf
from mapped import answers, files_of, frozen, graph_of, mapped, mapped_answers, ops_of, pb_of
from test_freeze import save, weight

from pipeline.checkpoint.bundle import Bundle, open_checkpoint
from pipeline.errors import CheckpointError, FreezeError
from pipeline.freezing.write.constants import Constant, FrozenGraph, content
from pipeline.freezing.write.float16 import convert_to_float16
from pipeline.freezing.write.pb import write_pb
from pipeline.graph.protos import NodeDef

v1 = tf.compat.v1
X = np.random.default_rng(1).normal(size=(2, 128)).astype(np.float32)
FLOATS = ["float32", "float64"]

# Halves of every kind: zeros, subnormals and what rounds to them, ties to even, the largest, what is no number.
TIES = [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, 2049, 2051]
HARD = [0.0, -0.0, 5e-324, 2**-25, 2**-25 * 1.0001, 2**-24, -(2**-14) * 0.999, *TIES, 65504, 65519.99, np.nan, np.inf]
HARD += [-value for value in HARD]


def find_ranges(tensors: dict[str, Any], prefix: Path) -> tuple[FrozenGraph, Bundle]:
    bundle = open_checkpoint(checkpoints.save(prefix, tensors))
    return graph_of([Constant(key, bundle.tensors[key]) for key in tensors]), bundle


def in_both_formats(graph: FrozenGraph, bundle: Bundle, names: list[str], folder: Path) -> Iterator[list[Any]]:
    yield answers(pb_of(graph, bundle, folder / "model.pb"), names, {})
    yield mapped_answers(mapped(graph, bundle, folder / "made"), names, {})


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_kind_of_value_is_rounded_as_numpy_does_and_cast_back(dtype: str, tmp_path: Path) -> None:
    with np.errstate(all="ignore"):
        value = np.array(HARD).astype(dtype)
        wanted = value.astype(np.float16)
    graph, bundle = find_ranges({"v": value}, tmp_path / "ckpt")
    for half, cast in in_both_formats(convert_to_float16(graph), bundle, ["v/float16", "v"], tmp_path):
        checkpoints.assert_same(half, wanted)
        np.testing.assert_array_equal(cast, wanted.astype(dtype), strict=True)
        np.testing.assert_array_equal(np.signbit(cast), np.signbit(wanted))


@pytest.mark.parametrize("dtype", FLOATS)
def test_tensorflow_rounds_to_the_same_halves(dtype: str, tmp_path: Path) -> None:
    value = np.random.default_rng(3).normal(size=(300, 1000)).astype(dtype)  # pieces of 1 MiB do not end at a row
    graph, bundle = find_ranges({"v": value}, tmp_path / "ckpt")
    wanted = tf.cast(value.astype(np.float32), tf.float16) if dtype == "float32" else value.astype(np.float16)
    for [half] in in_both_formats(convert_to_float16(graph), bundle, ["v/float16"], tmp_path):
        checkpoints.assert_same(half, wanted)
        assert np.abs(half.astype(dtype) - value).max() <= np.abs(value).max() * 2**-11


class Crumbs(Bundle):
    """A checkpoint that comes in pieces of seven bytes."""

    def stream(self, key: str, chunk_bytes: int = 7) -> Iterator[bytes]:
        return super().stream(key, 7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_lie_across_two_pieces_are_put_together(dtype: str, tmp_path: Path) -> None:
    value = np.random.default_rng(3).normal(size=(5, 7)).astype(dtype)
    _, bundle = find_ranges({"v": value}, tmp_path / "ckpt")
    constant = Constant("v/float16", bundle.tensors["v"], is_halved=True)
    found = b"".join(content(constant, Crumbs(bundle.prefix, bundle.tensors)))
    assert found == value.astype(np.float16).tobytes()


def test_only_floats_of_two_elements_and_more_are_halved(tmp_path: Path) -> None:
    others = [*checkpoints.INTEGERS, "float16", "bfloat16", "complex64", "bool", "string"]
    tensors = {name: checkpoints.values(name, (2, 3)) for name in others}
    tensors |= {"scalar": np.float32(1.1), "one": np.float64([1.1]), "none": np.zeros((0, 3), np.float32)}
    graph, bundle = find_ranges(tensors, tmp_path / "ckpt")
    assert convert_to_float16(graph) == graph
    for found in in_both_formats(convert_to_float16(graph), bundle, list(tensors), tmp_path):
        for one, wanted in zip(found, tensors.values(), strict=True):
            checkpoints.assert_same(one, wanted)


def test_the_halfs_name_is_one_that_no_node_has(tmp_path: Path) -> None:
    graph, bundle = find_ranges({"v": np.float32([1, 2]), "v/float16": np.float32([3, 4])}, tmp_path / "ckpt")
    names = ["v", "v/float16", "v/float16_1", "v/float16/float16"]
    for found in in_both_formats(convert_to_float16(graph), bundle, names, tmp_path):
        assert [(one.dtype.name, one.tolist()) for one in found] == [
            ("float32", [1, 2]),
            ("float32", [3, 4]),
            ("float16", [1, 2]),
            ("float16", [3, 4]),
        ]


@pytest.mark.parametrize(("dtype", "value"), [("float32", 65520.0), ("float32", -1e30), ("float64", 1e300)])
def test_a_value_beyond_float16_is_refused_by_its_variable_and_value(dtype: str, value: float, tmp_path: Path) -> None:
    graph, bundle = find_ranges({"a/b": np.array([1, value, np.inf], dtype)}, tmp_path / "ckpt")
    for write in (
        lambda: pb_of(convert_to_float16(graph), bundle, tmp_path / "model.pb"),
        lambda: mapped(convert_to_float16(graph), bundle, tmp_path / "made"),
    ):
        with pytest.raises(FreezeError, match=r"variable a/b, .* beyond float16's range") as error:
            write()
        assert float(error.value.got or "nan") == pytest.approx(value, rel=1e-6)
        assert "--weights float16" in (error.value.next_step or "")


def test_damage_is_noticed_in_halves_too(tmp_path: Path) -> None:
    graph, bundle = find_ranges({"v": np.float32([1, 2, 3])}, tmp_path / "ckpt")
    checkpoints.flip(checkpoints.data_of(tmp_path / "ckpt"), 11)
    with pytest.raises(CheckpointError, match="CRC-32C"):
        write_pb(convert_to_float16(graph), bundle, tmp_path / "model.pb")


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_part_of_a_partitioned_variable_is_halved(dtype: str, tmp_path: Path) -> None:
    _, parts, slices = checkpoints.cut_in_four(dtype)
    parts = {key: np.full(part.shape, 1 / 3, dtype) for key, part in parts.items()}
    bundle = open_checkpoint(checkpoints.save_parts(tmp_path / "ckpt", parts, slices))
    graph = graph_of([Constant("v", bundle.tensors["w"], ((1, 4), (2, 6)))])
    for [half] in in_both_formats(convert_to_float16(graph), bundle, ["v/float16"], tmp_path):
        checkpoints.assert_same(half, np.full((3, 4), 1 / 3, np.float16))


def model(x: Any) -> Any:
    kernel, out = weight("dense/kernel", [128, 128]), weight("out", [128], False)
    hidden = tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, tf.tanh(a @ kernel / 12)), [0, x])[1]
    return {"y": hidden * out + tf.nn.embedding_lookup(weight("table", [3, 128]), [1])}


def test_a_models_answers_are_those_of_rounded_weights_the_same_in_both_formats(tmp_path: Path) -> None:
    full = save(tmp_path / "full", model, {"x": X})["y"]

    graph, bundle = frozen(tmp_path / "full", ["y"], ["x"])
    half = convert_to_float16(graph)
    place = mapped(half, bundle, tmp_path / "made")
    [in_pb] = answers(pb_of(half, bundle, tmp_path / "model.pb"), ["y"], {"x": X})
    [in_files] = mapped_answers(place, ["y"], {"x": X})
    np.testing.assert_array_equal(in_pb, in_files, strict=True)
    rounding = {f"{key}:0": bundle.read(key).astype(np.float16).astype(np.float32) for key in bundle.tensors}
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(pb_of(graph, bundle, tmp_path / "full.pb"), name="")
        wanted = session.run("y:0", {"x:0": X, **rounding})
    np.testing.assert_allclose(in_pb, wanted, rtol=1e-6, atol=1e-6)
    assert 0 < np.abs(in_pb - full).max() < 0.01
    size = {path.name: path.stat().st_size for path in tmp_path.glob("*.pb")}
    assert size["model.pb"] < 0.55 * size["full.pb"]
    # Whatever a Cast answers is memory of its own, so the mapped halves need no copy.
    assert ops_of(place)["ImmutableConst"] == ops_of(place)["Cast"] == 3
    assert not ops_of(place)["DeepCopy"]


def test_the_same_checkpoint_gives_the_same_halves_again(tmp_path: Path) -> None:
    graph, bundle = find_ranges({"v": np.float32(HARD[:12])}, tmp_path / "ckpt")
    folders = [mapped(convert_to_float16(graph), bundle, tmp_path / name) for name in ("one", "other")]
    assert files_of(folders[0]) == files_of(folders[1])


def test_the_graph_itself_is_not_changed(tmp_path: Path) -> None:
    graph, _ = find_ranges({"v": np.float32([1, 2])}, tmp_path / "ckpt")
    before = [
        node if isinstance(node, Constant) else NodeDef.FromString(node.SerializeToString()) for node in graph.nodes
    ]
    convert_to_float16(graph)
    assert list(graph.nodes) == before


def test_halving_takes_the_memory_of_a_few_pieces_whatever_the_size(tmp_path: Path) -> None:
    value = np.ones((40, 1 << 18), np.float32)
    graph, bundle = find_ranges({"v": value}, tmp_path / "ckpt")
    write_pb(convert_to_float16(graph), bundle, tmp_path / "warm.pb")
    tracemalloc.start()
    try:
        write_pb(convert_to_float16(graph), bundle, tmp_path / "model.pb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert value.nbytes > 40e6
    assert peak < 8e6
