"""The format mmap: a small graph beside raw files of weights gives what the .pb gives, and copies nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import corpus
import numpy as np
import pytest
import tensorflow as tf
from mapped import answers, as_it_stands, files_of, frozen, graph_of, mapped, mapped_answers, ops_of, pb_of, snippet
from test_freeze import save, weight

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.errors import CheckpointError, FreezeError, RunnerError
from pipeline.formats.mmap import load_mmap, open_runner, read_graph
from pipeline.formats.runner import SubprocessRunner
from pipeline.freezing.write import mmap, pb
from pipeline.freezing.write.constants import Constant
from pipeline.freezing.write.mmap import SMALLEST_MAPPED_BYTES
from pipeline.freezing.write.pb import write_pb
from pipeline.signature import Signature

v1, raw = tf.compat.v1, tf.raw_ops
PROJECT = Path(__file__).resolve().parents[3]
X = np.random.default_rng(1).normal(size=(2, 128)).astype(np.float32)
LARGE = [128, 128]  # of float32: the smallest size that is mapped


def dense(x: Any) -> Any:
    return {"y": tf.tanh(x @ weight("dense/kernel", LARGE) + weight("dense/bias", [128]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one mapped and one small variable; beside it `ckpt`, `model.pb` and the answer for X, `y.npy`."""
    place = tmp_path_factory.mktemp("mmap")
    np.save(place / "y.npy", save(place / "ckpt", dense, {"x": X})["y"])
    graph, bundle = frozen(place / "ckpt", ["y"], ["x"])
    write_pb(graph, bundle, place / "model.pb")
    made = mapped(graph, bundle, place / "made", SMALLEST_MAPPED_BYTES)
    shutil.copy(place / "ckpt" / "signature.json", made)
    return made


# ------------------------------------------------------------------------------------------------- what is written


def test_a_large_variable_is_a_file_of_its_bytes_and_a_small_one_stays_inside(folder: Path) -> None:
    kernel = open_checkpoint(folder.parent / "ckpt" / "model.ckpt").read("dense/kernel")
    files = files_of(folder)
    assert set(files) == {"graph.pb", "signature.json", "weights/00000-dense_kernel.bin"}
    assert files["weights/00000-dense_kernel.bin"] == kernel.tobytes()
    graph = v1.GraphDef.FromString(files["graph.pb"])
    [node] = [node for node in graph.node if node.name == "dense/kernel"]
    assert (node.op, node.attr["memory_region_name"].s) == ("ImmutableConst", b"weights/00000-dense_kernel.bin")
    assert [node.op for node in graph.node if node.name == "dense/bias"] == ["Const"]
    assert len(files["graph.pb"]) < 4096


DTYPES = [*checkpoints.FLOATS, *checkpoints.INTEGERS, *checkpoints.SMALL, "bool", *checkpoints.QUANTIZED]


@pytest.mark.parametrize("name", DTYPES)
def test_variables_of_every_dtype_are_mapped_to_the_bit(name: str, tmp_path: Path) -> None:
    value = checkpoints.values(checkpoints.QUANTIZED.get(name, name), (3, 5))
    stored = tf.bitcast(value, tf.as_dtype(name)) if name in checkpoints.QUANTIZED else value
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", {"v": stored}))
    place = mapped(graph_of([Constant("v", bundle.tensors["v"])]), bundle, tmp_path / "made")
    assert ops_of(place) == {"ImmutableConst": 1, "Shape": 1}
    [found] = mapped_answers(place, ["v"], {})
    assert (found.shape, found.tobytes()) == (value.shape, value.tobytes())
    assert found.dtype.itemsize == value.dtype.itemsize


@pytest.mark.parametrize("shape", [(), (0,), (0, 7)])
def test_what_cannot_be_mapped_stays_inside(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = {"s": checkpoints.values("string", (3,)), "f": checkpoints.values("float32", shape)}
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", tensors))
    constants = [Constant(key, bundle.tensors[key]) for key in tensors]
    place = mapped(graph_of(constants), bundle, tmp_path / "made", smallest_bytes=5)
    assert ops_of(place)["Const"] == 2
    for found, wanted in zip(mapped_answers(place, list(tensors), {}), tensors.values(), strict=True):
        checkpoints.assert_same(found, wanted)


HARD_NAMES = ["a/b", "A/b", "a_b", "../../../etc/x", "..", ".hidden", "con", "ä ö", "x" * 400, "y\\z?*\0", "", "-rf"]


def test_files_have_names_that_any_file_system_takes_whatever_the_variables_are_called(tmp_path: Path) -> None:
    tensors = {f"k{number}": np.float32([number, 1]) for number in range(len(HARD_NAMES))}
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", tensors))
    constants = [Constant(name, tensor) for name, tensor in zip(HARD_NAMES, bundle.tensors.values(), strict=True)]
    files = files_of(mapped(graph_of(constants), bundle, tmp_path / "made"))
    assert {str(path.relative_to(tmp_path)).split("/")[0] for path in tmp_path.rglob("*") if path.is_file()} == {
        "made",
        *(path.name for path in tmp_path.glob("ckpt*")),
    }
    names = [name.removeprefix("weights/") for name in files if name != "graph.pb"]
    assert len({name.casefold() for name in names}) == len(HARD_NAMES)
    for name, tensor in zip(sorted(names), bundle.tensors, strict=True):
        assert name.isascii()
        assert name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        assert len(name) < 120
        assert files[f"weights/{name}"] == tensors[tensor].tobytes()
    assert "00000-a_b.bin" in names


def test_variables_of_one_content_share_a_file(tmp_path: Path) -> None:
    bundle = open_checkpoint(checkpoints.save(tmp_path / "ckpt", {"v": np.float32([1, 2])}))
    twice = [Constant("one", bundle.tensors["v"]), Constant("other", bundle.tensors["v"])]
    place = mapped(graph_of(twice), bundle, tmp_path / "made")
    assert len(list((place / "weights").iterdir())) == 1
    assert [found.tolist() for found in mapped_answers(place, ["one", "other"], {})] == [[1, 2], [1, 2]]


def test_the_same_checkpoint_gives_the_same_bytes_here_and_in_another_process(folder: Path, tmp_path: Path) -> None:
    graph, bundle = frozen(folder.parent / "ckpt", ["y"], ["x"])
    write_mmap_in_fresh = f"""
        from pathlib import Path
        from pipeline.freezing.run_passes import freeze_checkpoint_files
        from pipeline.freezing.write.mmap import write_mmap
        import sys
        folder = Path({str(tmp_path)!r}) / "apart"
        folder.mkdir()
        write_mmap(*freeze_checkpoint_files(Path({str(folder.parent)!r}) / "ckpt" / "model.ckpt", ["y"], ["x"]), folder)
        assert "tensorflow" not in sys.modules
        """
    checkpoints.run_python(textwrap.dedent(write_mmap_in_fresh))
    here = files_of(mapped(graph, bundle, tmp_path / "here", SMALLEST_MAPPED_BYTES))
    assert here == files_of(tmp_path / "apart")
    assert here == {name: data for name, data in files_of(folder).items() if name != "signature.json"}


def test_a_flipped_byte_of_the_checkpoint_is_noticed_and_leaves_no_graph(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder.parent / "ckpt", tmp_path / "ckpt")
    data = checkpoints.data_of(tmp_path / "ckpt" / "model.ckpt")
    checkpoints.flip(data, data.stat().st_size // 2)
    graph, bundle = frozen(tmp_path / "ckpt", ["y"], ["x"])
    with pytest.raises(CheckpointError, match=r"dense/kernel.*CRC-32C"):
        mapped(graph, bundle, tmp_path / "made", SMALLEST_MAPPED_BYTES)
    assert not (tmp_path / "made" / "graph.pb").exists()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_parts_of_a_partitioned_variable_are_mapped_one_by_one(axis: int, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        values = tf.constant(np.random.default_rng(2).normal(size=(129, 6)).astype(np.float32))
        parts = v1.get_variable("w", initializer=values, partitioner=v1.fixed_size_partitioner(3, axis=axis))
        return {"y": x @ tf.concat(list(parts), axis)[:128]}

    wanted = save(tmp_path / "ckpt", build, {"x": X})
    graph, bundle = frozen(tmp_path / "ckpt", ["y"], ["x"])
    place = mapped(graph, bundle, tmp_path / "made")
    whole = bundle.read("w")
    parts = [part.tobytes() for part in np.split(whole, 3, axis)]
    assert [data for name, data in files_of(place).items() if "part_" in name] == parts
    assert (ops_of(place)["ImmutableConst"], ops_of(place)["DeepCopy"]) == (3, 0)
    [found] = mapped_answers(place, ["y"], {"x": X})
    np.testing.assert_array_equal(found, wanted["y"], strict=True)


BOXES = [((1, 4), (0, 7)), ((0, 5), (2, 6)), ((2, 4), (1, 5)), ((0, 5), (0, 7)), ((2, 5), (4, 7)), ((3, 4), (6, 7))]


@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut-in-four"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "string"])
def test_any_part_of_a_tensor_is_written_however_it_was_stored(
    dtype: str, cut: bool, box: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    whole, parts, slices = checkpoints.cut_in_four(dtype)
    prefix = tmp_path / "ckpt"
    bundle = open_checkpoint(
        checkpoints.save_parts(prefix, parts, slices) if cut else checkpoints.save(prefix, {"w": whole})
    )
    graph = graph_of([Constant("v", bundle.tensors["w"], box)])
    wanted = whole[box[0][0] : box[0][1], box[1][0] : box[1][1]]
    [in_pb] = answers(pb_of(graph, bundle, tmp_path / "model.pb"), ["v"], {})
    checkpoints.assert_same(in_pb, wanted)
    [in_file] = mapped_answers(mapped(graph, bundle, tmp_path / "made"), ["v"], {})
    checkpoints.assert_same(in_file, wanted)


def test_damage_outside_of_a_part_is_noticed_too(tmp_path: Path) -> None:
    prefix = checkpoints.save(tmp_path / "ckpt", {"w": checkpoints.values("float32", (5, 7))})
    checkpoints.flip(checkpoints.data_of(prefix), 5 * 7 * 4 - 1)
    bundle = open_checkpoint(prefix)
    with pytest.raises(CheckpointError, match="CRC-32C"):
        mapped(graph_of([Constant("v", bundle.tensors["w"], ((0, 2), (0, 7)))]), bundle, tmp_path / "made")


def test_what_stays_inside_must_not_be_more_than_protobuf_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, bundle = frozen(folder.parent / "ckpt", ["y"], ["x"])
    monkeypatch.setattr(mmap, "MAX_PB_BYTES", 1000)
    with pytest.raises(FreezeError, match=r"graph\.pb: .* too large"):
        mapped(graph, bundle, tmp_path / "made", SMALLEST_MAPPED_BYTES)
    assert not list((tmp_path / "made").iterdir())
    monkeypatch.setattr(pb, "MAX_PB_BYTES", 1000)  # the .pb's, which is not asked
    monkeypatch.setattr(mmap, "MAX_PB_BYTES", 4000)
    mapped(graph, bundle, tmp_path / "again", SMALLEST_MAPPED_BYTES)


# ---------------------------------------------------------------------------- what may be read in place, and is right

READERS: dict[str, Callable[..., Any]] = {
    "MatMul": lambda x, w: x @ w,
    "MatMul, transposed": lambda x, w: tf.matmul(w, x, transpose_a=True, transpose_b=True),
    "BatchMatMulV2": lambda x, w: tf.matmul(tf.stack([x, x]), tf.reshape(w, [1, 128, 128])),
    "SparseMatMul": lambda x, w: tf.matmul(x, w, b_is_sparse=True),
    "BatchMatMul": lambda x, w: raw.BatchMatMul(x=x[None], y=w[None]),
    "BatchMatMulV3": lambda x, w: raw.BatchMatMulV3(x=x[None], y=w[None], Tout=tf.float32),
    "Einsum": lambda x, w: tf.einsum("bi,ij->bj", x, w),
    "Einsum, of three axes": lambda x, w: tf.einsum("bi,ihk->bhk", x, tf.reshape(w, [128, 8, 16])),
    "Einsum, element by element": lambda x, w: tf.einsum("ij,ij->ij", w, tf.tile(x, [64, 1])),
    "Einsum, times a scalar": lambda x, w: tf.einsum("ij,->ij", w, x[0, 0]),
    "Einsum, summed": lambda x, w: tf.einsum("ij,k->k", w, x[0]),
    "SparseTensorDenseMatMul": lambda x, w: tf.sparse.sparse_dense_matmul(tf.sparse.from_dense(x), w),
    "Conv2D": lambda x, w: tf.nn.conv2d(tf.reshape(x, [-1, 8, 4, 4]), tf.reshape(w, [8, 4, 4, 128]), 1, "SAME"),
    "Conv2D, 1x1": lambda x, w: tf.nn.conv2d(tf.reshape(x, [-1, 1, 1, 128]), w[None, None], 1, "SAME"),
    "Conv2DBackpropInput": lambda x, w: tf.nn.conv2d_transpose(
        tf.reshape(x, [2, 8, 4, 4]), tf.reshape(w, [8, 4, 128, 4]), [2, 16, 8, 128], 2
    ),
    "Conv3D": lambda x, w: tf.nn.conv3d(
        tf.reshape(x, [-1, 4, 4, 4, 2]), tf.reshape(w, [2, 2, 2, 2, 1024]), [1] * 5, "SAME"
    ),
    "Conv3DBackpropInputV2": lambda x, w: tf.nn.conv3d_transpose(
        tf.reshape(x, [2, 4, 4, 4, 2]), tf.reshape(w, [2, 2, 2, 1024, 2]), [2, 4, 4, 4, 1024], 1
    ),
    "DepthwiseConv2dNative": lambda x, w: tf.nn.depthwise_conv2d(
        tf.reshape(x, [-1, 8, 4, 4]), tf.reshape(w, [8, 4, 4, 128]), [1] * 4, "SAME"
    ),
    "GatherV2": lambda x, w: tf.gather(w, [3, 1, 3]) + x[0],
    "GatherV2, all rows": lambda x, w: tf.gather(w, tf.range(128)) * 2 + x[0],
    "Gather": lambda x, w: raw.Gather(params=w, indices=[3, 1]) * x,
    "GatherNd": lambda x, w: tf.gather_nd(w, [[3], [1]]) * x,
    "SparseSegmentSum": lambda x, w: tf.sparse.segment_sum(w, [3, 1, 2], [0, 0, 1]) * x,
    "SparseSegmentMean": lambda x, w: tf.sparse.segment_mean(w, [3, 1, 2], [0, 0, 1]) * x,
    "SparseSegmentSqrtN": lambda x, w: tf.sparse.segment_sqrt_n(w, [3, 1, 2], [0, 0, 1]) * x,
    "Shape": lambda x, w: x @ w * tf.cast(raw.Shape(input=w)[0], tf.float32),
    "Size": lambda x, w: x @ w * tf.cast(raw.Size(input=w), tf.float32),
    "Rank": lambda x, w: x @ w * tf.cast(raw.Rank(input=w), tf.float32),
    "BiasAdd": lambda x, w: tf.nn.bias_add(x[:, :1] * tf.ones([1, 128 * 128]), tf.reshape(w, [-1])),
    "ArgMax": lambda x, w: x * tf.cast(tf.argmax(w, 0), tf.float32),
    "ArgMin": lambda x, w: x * tf.cast(tf.argmin(w, 0), tf.float32),
    "Cast": lambda x, w: tf.cast(tf.square(tf.cast(w, tf.float64)), tf.float32) @ tf.transpose(x),
    "Transpose": lambda x, w: x @ tf.transpose(w),
    "Transpose, of one row": lambda x, w: x @ tf.reshape(tf.transpose(tf.reshape(w, [1, -1])), [128, 128]),
    "Split": lambda x, w: x @ tf.split(w, 2, 1)[1] + x[:, :64] @ tf.split(w, 2, 0)[0][:, :64],
    "SplitV": lambda x, w: x[:, :100] @ tf.split(w, [28, 100])[1],
    "Unpack": lambda x, w: x @ tf.reshape(tf.unstack(tf.reshape(w, [2, 128, 64]))[1], [128, 64]),
    "Slice": lambda x, w: x[:, :64] @ tf.slice(w, [64, 0], [64, 128]),
    "StridedSlice": lambda x, w: x[:, :64] @ w[64:],
    "ConcatV2": lambda x, w: tf.concat([x, x], 1) @ tf.concat([w, w], 0),
    "Concat": lambda x, w: tf.concat([x, x], 1) @ raw.Concat(concat_dim=0, values=[w, w]),
    "Pack": lambda x, w: tf.matmul(x, tf.stack([w])),
    "Tile": lambda x, w: x @ tf.tile(w, [1, 1]),
    "BroadcastTo": lambda x, w: x @ tf.broadcast_to(w, LARGE),
    "IdentityN": lambda x, w: tf.matmul(*tf.identity_n([x, w])),
    "StopGradient": lambda x, w: x @ tf.stop_gradient(w),
    "PreventGradient": lambda x, w: x @ raw.PreventGradient(input=w),
    "GuaranteeConst": lambda x, w: x @ raw.GuaranteeConst(input=w),
    "Bitcast": lambda x, w: tf.gather(tf.bitcast(w, tf.int32), [1]) + tf.cast(x[:1], tf.int32),
    "Squeeze": lambda x, w: x @ tf.squeeze(tf.expand_dims(w, 1), 1),
    "EnsureShape": lambda x, w: x @ tf.ensure_shape(w, [None, 128]),
}


@pytest.mark.parametrize("case", READERS)
def test_ops_that_only_read_get_the_mapped_memory_itself(case: str, tmp_path: Path) -> None:
    wanted = save(tmp_path / "ckpt", lambda x: {"y": READERS[case](x, weight("w", LARGE, False))}, {"x": X})
    graph, bundle = frozen(tmp_path / "ckpt", ["y"], ["x"])
    place = mapped(graph, bundle, tmp_path / "made", SMALLEST_MAPPED_BYTES)
    assert ops_of(place)[case.split(",")[0]] > 0
    assert (ops_of(place)["ImmutableConst"], ops_of(place)["DeepCopy"]) == (1, 0)
    weights = files_of(place / "weights")
    [in_pb] = answers(pb_of(graph, bundle, tmp_path / "model.pb"), ["y"], {"x": X})
    for _ in range(2):
        [found] = mapped_answers(place, ["y"], {"x": X})
        np.testing.assert_array_equal(found, in_pb, strict=True)
    np.testing.assert_allclose(found, wanted["y"], rtol=1e-4, atol=1e-4)
    assert files_of(place / "weights") == weights


WRITERS: dict[str, Callable[..., Any]] = {
    "square": lambda x, w: tf.square(w),
    "through reshape": lambda x, w: tf.nn.relu(tf.reshape(tf.identity(w), [-1])),
    "binary": lambda x, w: w * x[0, 0],
    "softmax": lambda x, w: tf.nn.softmax(w),
    "add_n": lambda x, w: tf.add_n([w, w * 2]),
    "bias": lambda x, w: tf.nn.bias_add(w, x[0]),
    "einsum of one": lambda x, w: tf.nn.relu(tf.einsum("ij->ij", w)) * x[0, 0],
    "where": lambda x, w: tf.where(w > x[0, 0], w, -w),
    "a half of it": lambda x, w: tf.sqrt(tf.split(w, 2, 0)[0] + 9),
    "scattered": lambda x, w: tf.tensor_scatter_nd_update(w, [[0]], x[:1]),
    "the variable": lambda x, w: w,
    "cholesky": lambda x, w: tf.linalg.cholesky(tf.matmul(w, w, transpose_b=True) + tf.eye(128)) + w,
    "both read and written": lambda x, w: tf.nn.relu(w) + tf.reduce_sum(x @ w),
    "in a branch": lambda x, w: tf.cond(x[0, 0] > -99, lambda: tf.square(w), lambda: w),
    "a branch's result": lambda x, w: tf.square(tf.cond(x[0, 0] > -99, lambda: w, lambda: tf.transpose(w))),
    "in a loop": lambda x, w: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.nn.relu(a * w)), [0, w])[1],
    "a loop's start": lambda x, w: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, -a), [0, w])[1],
    "a loop that is not entered": lambda x, w: tf.square(
        tf.while_loop(lambda i, a: i < 0, lambda i, a: (i + 1, a @ a), [0, w])[1]
    ),
    "in a function": lambda x, w: tf.function(lambda a: tf.square(tf.reshape(a, [-1])))(w),
    "a function's result": lambda x, w: tf.square(tf.function(lambda a, b: (b, a))(w, x)[1]),
}


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("case", WRITERS)
def test_ops_that_may_write_their_input_get_a_copy(case: str, is_v2: bool, tmp_path: Path) -> None:
    """A process that writes a mapped file ends: this test's own, if it gets the memory."""
    build = WRITERS[case]
    wanted = save(tmp_path / "ckpt", lambda x: {"y": build(x, weight("w", LARGE))}, {"x": X}, is_v2=is_v2)
    graph, bundle = frozen(tmp_path / "ckpt", ["y"], ["x"])
    place = mapped(graph, bundle, tmp_path / "made", SMALLEST_MAPPED_BYTES)
    assert (ops_of(place)["ImmutableConst"], ops_of(place)["DeepCopy"]) == (1, 1)
    weights = files_of(place / "weights")
    [in_pb] = answers(pb_of(graph, bundle, tmp_path / "model.pb"), ["y"], {"x": X})
    with load_mmap(place) as session:
        for _ in range(2):
            found = session.run("y:0", {"x:0": X})
            np.testing.assert_allclose(found, wanted["y"], rtol=1e-5, atol=1e-5)
            found += 1  # an answer belongs to whoever asked
    [found] = mapped_answers(place, ["y"], {"x": X})
    np.testing.assert_array_equal(found, in_pb, strict=True)
    assert files_of(place / "weights") == weights


def test_a_variable_that_is_an_output_and_is_read_too_is_the_callers_to_write(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        w = weight("w", LARGE, False)
        return {"y": x @ w, "z": tf.identity(w)}

    wanted = save(tmp_path / "ckpt", build, {"x": X})
    graph, bundle = frozen(tmp_path / "ckpt", ["y", "w:0"], ["x"])
    place = mapped(graph, bundle, tmp_path / "made", outputs=["y:0", "w:0"])
    with load_mmap(place) as session:
        found = session.run("w:0")
        found += 1
        np.testing.assert_array_equal(found, wanted["z"] + 1, strict=True)


def rolled(x: Any, cell: Callable[..., Any]) -> Any:
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, cell(a)), [0, x])[1]


INNER: dict[str, Callable[..., Any]] = {
    "loop": lambda x, w: rolled(x, lambda a: tf.tanh(a @ w)),
    "loop in a loop": lambda x, w: rolled(x, lambda a: rolled(a, lambda b: tf.tanh(b @ w))),
    "branch in a loop": lambda x, w: rolled(x, lambda a: tf.cond(a[0, 0] > 0, lambda: a @ w, lambda: -a @ w)),
    "branch": lambda x, w: tf.cond(x[0, 0] > 0, lambda: x @ w, lambda: tf.gather(w, [1, 2])),
    "function": lambda x, w: tf.function(lambda a: tf.tanh(tf.function(lambda b: b @ w)(a)))(x),
    "function in a loop": lambda x, w: rolled(x, tf.function(lambda a: tf.tanh(a @ w))),
    "function that hands it on": lambda x, w: tf.matmul(*tf.function(lambda a: (a, w))(x)),
    "case": lambda x, w: tf.switch_case(tf.constant(1), [lambda: x, lambda: x @ w]),
    "map": lambda x, w: tf.map_fn(lambda row: row[None] @ w, x),
    "scan": lambda x, w: tf.scan(lambda a, row: tf.tanh(a @ w + row), x, tf.zeros([1, 128])),
}


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("case", INNER)
def test_loops_branches_and_functions_read_the_mapped_memory_itself(case: str, is_v2: bool, tmp_path: Path) -> None:
    build = INNER[case]
    wanted = save(tmp_path / "ckpt", lambda x: {"y": build(x, weight("w", LARGE))}, {"x": X}, is_v2=is_v2)
    graph, bundle = frozen(tmp_path / "ckpt", ["y"], ["x"])
    place = mapped(graph, bundle, tmp_path / "made", SMALLEST_MAPPED_BYTES)
    assert (ops_of(place)["ImmutableConst"], ops_of(place)["DeepCopy"]) == (1, 0)
    [in_pb] = answers(pb_of(graph, bundle, tmp_path / "model.pb"), ["y"], {"x": X})
    [found] = mapped_answers(place, ["y"], {"x": X})
    np.testing.assert_array_equal(found, in_pb, strict=True)
    with load_mmap(place) as session:
        np.testing.assert_allclose(session.run("y:0", {"x:0": X}), wanted["y"], rtol=1e-5, atol=1e-5)


GROUPS = ("Variables", "Keys", "Control flow", "Functions", "Gathers", "References", "Layers")
CASES = [case for group in GROUPS for case in corpus.GROUPS[group] if case.must == corpus.EQUAL]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name.replace(" ", "-")) for case in CASES])
def test_corner_cases_with_all_that_can_be_mapped_mapped_give_the_bits_of_the_restored_session(
    case: corpus.Case, tmp_path: Path
) -> None:
    stored = corpus.store(case, tmp_path, versions=1)
    graph, bundle = frozen(stored.prefixes[0].parent, stored.outputs, corpus.inputs_of(case))
    place = mapped(graph, bundle, tmp_path / "made")
    with load_mmap(place) as session:  # Grappler's work may change last bits, but must not write what is mapped
        corpus.run(session, stored.outputs, case.feeds)
    with tf.Graph().as_default(), v1.Session(config=as_it_stands()) as session:
        tf.import_graph_def(read_graph(place), name="")
        found = corpus.run(session, stored.outputs, case.feeds)
    assert stored.answers[0] is not None
    assert corpus.is_same(found, stored.answers[0])


# ------------------------------------------------------------------------------------------------------- the loader


def test_the_loaded_session_answers_from_any_working_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = np.load(folder.parent / "y.npy")
    monkeypatch.chdir(folder.parent)
    session = load_mmap(Path(folder.name))
    monkeypatch.chdir(tmp_path)
    with session:
        np.testing.assert_array_equal(session.run("y:0", {"x:0": X}), wanted, strict=True)


def test_a_runner_apart_answers_as_the_pb_does(folder: Path) -> None:
    with SubprocessRunner("mmap", folder, 1) as runner:
        for _ in range(2):
            np.testing.assert_allclose(runner.run({"x": X})["y"], np.load(folder.parent / "y.npy"), rtol=1e-5)
        with pytest.raises(RunnerError, match="float64"):
            runner.run({"x": X.astype(np.float64)})


def test_a_signature_that_is_not_the_graphs_is_refused(folder: Path, tmp_path: Path) -> None:
    signature = Signature.read(folder / "signature.json")
    wrong = replace(signature, outputs=(replace(signature.outputs[0], name="nowhere"),))
    with pytest.raises(RunnerError, match="nowhere"):
        open_runner(folder, wrong, 1)


WEIGHTS = "weights/00000-dense_kernel.bin"


def _escape(folder: Path) -> None:
    graph = v1.GraphDef.FromString((folder / "graph.pb").read_bytes())
    for node in graph.node:
        if node.op == "ImmutableConst":
            node.attr["memory_region_name"].s = b"../outside.bin"
    (folder / "graph.pb").write_bytes(graph.SerializeToString())
    (folder.parent / "outside.bin").write_bytes(bytes(65536))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"00000-dense_kernel\.bin: .* is missing"),
    "cut": (lambda folder: os.truncate(folder / WEIGHTS, 65535), r"65535 bytes, wanted 65536 bytes of dense/kernel"),
    "empty": (lambda folder: os.truncate(folder / WEIGHTS, 0), r"0 bytes, wanted 65536"),
    "too long": (lambda folder: os.truncate(folder / WEIGHTS, 65537), r"65537 bytes, wanted 65536"),
    "a folder of that name": (
        lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()),
        r"00000-dense_kernel\.bin: .* no file",
    ),
    "no graph": (lambda folder: (folder / "graph.pb").unlink(), r"graph\.pb: not a graph with mapped weights"),
    "no folder": (shutil.rmtree, r"graph\.pb: not a graph with mapped weights"),
    "garbage": (lambda folder: (folder / "graph.pb").write_bytes(b"\x07garbage" * 9), r"graph\.pb: not a graph"),
    "outside": (_escape, r"outside\.bin: .* outside of the folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_whole_is_refused_by_the_name_of_the_file(
    fault: str, folder: Path, tmp_path: Path
) -> None:
    damage, said = FAULTS[fault]
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(RunnerError, match=said):
        load_mmap(tmp_path / "copy")


MEASURED = """
    import sys, threading, time
    import numpy as np
    from pipeline.formats.mmap import load_mmap

    def anonymous_mb():
        lines = open("/proc/self/smaps_rollup").read().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024

    x = np.ones((1, 2048), np.float32)
    session = load_mmap(sys.argv[1], threads=1)
    before, peak, done = anonymous_mb(), 0, False

    def watch():
        global peak
        while not done:
            peak = max(peak, anonymous_mb())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        session.run("y:0", {"x:0": x})
    done = True
    watcher.join()
    print(peak - before)
    """


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_weights_take_no_memory_of_the_process_own(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        for layer in range(4):
            x = tf.nn.relu(x @ weight(f"w{layer}", [2048, 2048]))
        return {"y": x}

    save(tmp_path / "ckpt", build, {"x": np.ones((1, 2048), np.float32)}, asks=False)
    place = mapped(*frozen(tmp_path / "ckpt", ["y"], ["x"]), tmp_path / "made", SMALLEST_MAPPED_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), str(place)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert sum(len(data) for data in files_of(place).values()) > 64e6
    assert float(done.stdout) < 12


def test_the_pages_snippet_loads_the_folder_without_the_package(folder: Path, tmp_path: Path) -> None:
    code = snippet(PROJECT / "docs" / "mmap.md", "python")
    assert "pipeline" not in code
    assert "path/to/folder" in code
    asked = "import numpy as np\nnp.save('y.npy', session.run('y:0', {'x:0': np.load('x.npy')}))"
    np.save(tmp_path / "x.npy", X)
    subprocess.run(
        [sys.executable, "-c", code.replace("path/to/folder", str(folder)) + asked],
        cwd=tmp_path,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
        check=True,
        timeout=120,
        capture_output=True,
    )
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), np.load(folder.parent / "y.npy"), rtol=1e-5)


def test_the_pages_bytes_are_the_options_of_a_session_that_copies_nothing() -> None:
    [line] = re.findall(r"^(?:[0-9a-f]{2} ){14}[0-9a-f]{2}$", (PROJECT / "docs" / "mmap.md").read_text(), re.MULTILINE)
    config = v1.ConfigProto.FromString(bytes.fromhex(line))
    assert config.graph_options.optimizer_options.opt_level == v1.OptimizerOptions.L0
    wanted = v1.ConfigProto()
    wanted.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    assert config == wanted
