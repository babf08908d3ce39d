"""The same bytes, read by two parsers: where ours and protobuf's (or TensorFlow's, or numpy's) both read, they agree.

Ours may refuse what another reads, but it never reads another value. Mutants of real files are drawn from a seed; the
long form (`pytest -m stress`) draws many more.
"""

from __future__ import annotations

import io
import math
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leveldb_tables
import numpy as np
import pytest
import tensorflow as tf
from checkpoints import SMALL_ONES, cut_in_four, save, save_parts, save_v1
from tensorflow.core.util import saved_tensor_slice_pb2
from wire_mutants import mutant

import redteam
from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.bundle.leveldb import Table
from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.data.npz import NpzReader, load_arrays, save_arrays
from pipeline.errors import CandidateError, CheckpointError, DataError, PipelineError
from pipeline.formats.external.detect import detect_format
from pipeline.graph import lazy
from pipeline.graph.meta_graph import parse_graph, parse_meta_graph
from pipeline.graph.protos import BundleEntryProto, DecodeError, GraphDef, MetaGraphDef, SavedModel, TensorProto
from pipeline.graph.tensors import content_of
from pipeline.safety import flatbuffer

v1 = tf.compat.v1
SHORT, LONG = 1.0, 20.0
Share = pytest.mark.parametrize("share", [SHORT, pytest.param(LONG, marks=pytest.mark.stress)])


def draws(count: int, share: float) -> Iterator[random.Random]:
    for seed in range(int(count * share)):
        yield random.Random(seed if share == SHORT else seed + 10**6)


def read(reader: Callable[[], Any], *refusals: type[Exception]) -> Any:
    """What a reader reads; None if it refuses."""
    try:
        return reader()
    except refusals:
        return None


def constant(name: str, **fields: Any) -> Any:
    made = redteam.node(name, "Const", dtype=redteam.FLOAT)
    made.attr["value"].tensor.dtype = redteam.FLOAT
    made.attr["value"].tensor.tensor_shape.dim.add(size=4)
    for key, value in fields.items():
        if key == "tensor_content":
            made.attr["value"].tensor.tensor_content = value
        else:
            made.attr["value"].tensor.float_val.extend(value)
    return made


def small_graph() -> GraphDef:
    nodes = [
        constant("content", tensor_content=struct.pack("<4f", 1, 2, 3, 4)),
        constant("numbers", float_val=[5, 6, 7, 8]),
        constant("last", float_val=[9]),
        redteam.strings("texts", "a", "b"),
        redteam.node("sum", "Add", "content", "numbers", "^last", T=redteam.FLOAT),
    ]
    return redteam.graph(nodes, [redteam.function("f", redteam.text("inner", "x"))])


# Graphs, against protobuf and TensorFlow's own import.


def whole(lean: lazy.LazyGraph) -> GraphDef:
    """The graph, its large tensors put back."""
    graph = lean.graph.to_proto()
    for node in graph.node:
        if node.name in lean.contents:
            node.attr["value"].tensor.tensor_content = bytes(lean.contents[node.name])
    return graph


def plain(graph: Any) -> bytes:
    """A graph without what no reader of ours keeps, in one form."""
    made = GraphDef(node=graph.node, library=graph.library, versions=graph.versions)
    made.DiscardUnknownFields()
    return made.SerializeToString(deterministic=True)


@Share
def test_graphs_are_read_as_protobuf_reads_them(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "LARGE", 4)
    raw, both = small_graph().SerializeToString(deterministic=True), 0
    for number, draw in enumerate(draws(1500, share)):
        changed, path = mutant(raw, GraphDef.DESCRIPTOR, draw), tmp_path / "model.pb"
        path.write_bytes(changed)
        theirs = read(lambda raw=changed: GraphDef.FromString(raw), DecodeError)
        for reader in (
            lambda path=path: whole(lazy.load_lazily(path)),
            lambda raw=changed: parse_graph(raw).to_proto(),
        ):
            ours = read(reader, DataError, DecodeError)
            if ours is not None:
                assert theirs is not None, f"mutant {number} is no graph"
                assert plain(ours) == plain(theirs), f"mutant {number}"
                both += 1
        detected = read(lambda path=path: detect_format(path).format, CandidateError)
        assert detected in (None, "frozen")
    assert both > 500 * share  # the mutants are not all refused


def by_tensorflow(raw: bytes) -> dict[str, bytes] | None:
    """The values of the constants, as TensorFlow's runtime reads the very bytes; None if it refuses."""
    from tensorflow.python.client import pywrap_tf_session as api
    from tensorflow.python.framework import c_api_util

    with tf.Graph().as_default() as graph:
        options = c_api_util.ScopedTFImportGraphDefOptions()
        try:
            with graph._c_graph.get() as inner, c_api_util.tf_buffer(raw) as buffer:
                api.TF_GraphImportGraphDefWithResults(inner, buffer, options.options)
            names = [op.name for op in graph._add_new_tf_operations() if op.type == "Const"]
            names = [name for name in names if graph.get_tensor_by_name(f"{name}:0").dtype == tf.float32]
            with v1.Session(graph=graph) as session:
                return {name: session.run(f"{name}:0").tobytes() for name in names}
        except (ValueError, TypeError, KeyError, tf.errors.OpError):
            return None


def asks_for_much(raw: bytes) -> bool:
    """Returns True if a tensor's shape has a million elements or more: TensorFlow would take the memory for them."""
    tensors = [node.attr["value"].tensor for node in GraphDef.FromString(raw).node if "value" in node.attr]
    return any(math.prod(dim.size for dim in tensor.tensor_shape.dim) >= 10**6 for tensor in tensors)


@Share
def test_constants_are_those_that_tensorflow_computes_with(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "LARGE", 4)
    graph, both = small_graph(), 0
    del graph.node[3:], graph.library.function[:]
    raw = graph.SerializeToString(deterministic=True)
    for number, draw in enumerate(draws(60, share)):
        changed, path = mutant(raw, GraphDef.DESCRIPTOR, draw), tmp_path / "model.pb"
        path.write_bytes(changed)
        lean = read(lambda path=path: lazy.load_lazily(path), DataError)
        theirs = None if lean is None or asks_for_much(changed) else by_tensorflow(changed)
        for name, value in (theirs or {}).items():
            tensor = lean.graph.nodes[name].attr["value"].tensor
            ours = read(
                lambda name=name, tensor=tensor, lean=lean: bytes(content_of(tensor, lean.contents.get(name))),
                DataError,
            )
            assert ours in (None, value), f"mutant {number}, {name}"
            both += ours is not None
    assert both > 40 * share


def test_the_bits_of_a_signalling_nan_in_a_list_of_numbers_are_kept() -> None:
    """Python's floats would make it a quiet one: another value, which a checkpoint may hold."""
    bits = struct.pack("<4I", 0x7FA00001, 0x7FC00001, 0xFF800001, 0x3F800000)
    raw = constant("w").attr["value"].tensor.SerializeToString() + bytes([5 << 3 | 2, len(bits)]) + bits
    assert content_of(TensorProto.FromString(raw)) == bits


@Share
def test_meta_graphs_and_saved_models_are_read_as_protobuf_reads_them(share: float, tmp_path: Path) -> None:
    place = redteam.saved_model(tmp_path / "saved", assets=["words.txt"])
    model = SavedModel.FromString((place / "saved_model.pb").read_bytes())
    saved, both = model.SerializeToString(deterministic=True), 0
    meta = model.meta_graphs[0].SerializeToString(deterministic=True)
    for number, draw in enumerate(draws(500, share)):
        changed = mutant(meta, MetaGraphDef.DESCRIPTOR, draw)
        ours = read(lambda raw=changed: parse_meta_graph(raw), DecodeError)
        if ours is not None:
            theirs = MetaGraphDef.FromString(changed)
            assert plain(ours.graph.to_proto()) == plain(theirs.graph_def), f"mutant {number}"
            theirs.ClearField("graph_def")
            ours.rest.ClearField("graph_def")
            assert ours.rest.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
            both += 1
        changed = mutant(saved, SavedModel.DESCRIPTOR, draw)
        (place / "saved_model.pb").write_bytes(changed)
        metas = read(lambda: read_meta_graphs(place)[1], PipelineError)
        if metas is not None:
            wanted = sorted(plain(one.graph_def) for one in SavedModel.FromString(changed).meta_graphs)
            assert sorted(plain(one.graph.to_proto()) for one in metas) == wanted, f"mutant {number}"
            both += 1
    assert both > 200 * share


# Checkpoints, against TensorFlow.


def of_ours(prefix: Path) -> dict[str, Any]:
    bundle = open_checkpoint(prefix)
    bundle.verify()
    return {key: bundle.read(key) for key in bundle.tensors}


def of_tensorflow(prefix: Path) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {key: np.asarray(reader.get_tensor(key)) for key in reader.get_variable_to_shape_map()}


def agree(prefix: Path, number: int) -> bool:
    """Compares what both read; False if one refuses."""
    ours = read(lambda: of_ours(prefix), CheckpointError)
    if ours is None:
        return False  # TensorFlow is not asked: some of what it would be given ends its process
    theirs = read(lambda: of_tensorflow(prefix), tf.errors.OpError, ValueError, TypeError, RuntimeError)
    for key, value in (theirs or {}).items():
        assert ours[key].shape == value.shape, f"mutant {number}, {key}"
        assert ours[key].ravel().tolist() == value.ravel().tolist(), f"mutant {number}, {key}"
    return theirs is not None


def entries_twice(rows: list[tuple[bytes, bytes]], draw: random.Random) -> list[tuple[bytes, bytes]]:
    """A row that stands twice, or out of its order."""
    at = draw.randrange(len(rows))
    rows = [*rows[:at], rows[at], *rows[at:]]
    return draw.sample(rows, len(rows)) if draw.random() < 0.3 else rows


@Share
@pytest.mark.parametrize(("name", "least"), [("plain.index", 30), ("parts.index", 30), ("old", 30)])
def test_checkpoints_are_read_as_tensorflow_reads_them(name: str, least: int, share: float, tmp_path: Path) -> None:
    prefix, both = tmp_path / name.split(".")[0], 0
    if name == "plain.index":
        save(prefix, SMALL_ONES)
    elif name == "parts.index":
        _, parts, slices = cut_in_four("int8")
        save_parts(prefix, parts, slices)
    else:
        save_v1(prefix, {**SMALL_ONES, "i": np.array([1, -2], np.int32)})
    rows = [(key, bytes(value)) for key, value in Table(tmp_path / name)]
    message = saved_tensor_slice_pb2.SavedTensorSlices.DESCRIPTOR if name == "old" else BundleEntryProto.DESCRIPTOR
    assert agree(prefix, -1)
    for number, draw in enumerate(draws(150, share)):
        changed = list(rows)
        if draw.random() < 0.15:
            changed = entries_twice(changed, draw)
        else:
            at = draw.randrange(1, len(rows))
            changed[at] = rows[at][0], mutant(rows[at][1], message, draw)
        (tmp_path / name).write_bytes(leveldb_tables.table_of(changed))
        both += agree(prefix, number)
    assert both > least * share


def test_a_value_of_the_old_format_in_two_parts_is_refused(tmp_path: Path) -> None:
    """TensorFlow joins the parts, and takes the first numbers; a reader of the last part would take the others."""
    save_v1(tmp_path / "old", {"f": np.float32([1, 2])})
    rows = {key: bytes(value) for key, value in Table(tmp_path / "old")}
    [key] = [key for key in rows if key]
    other = TensorProto(float_val=[8, 9]).SerializeToString()
    record = saved_tensor_slice_pb2.SavedTensorSlices.FromString(rows[key])
    for twice in (
        rows[key] + leveldb_tables.varint(2 << 3 | 2) + bytes([len(other) + 2, 3 << 3 | 2, len(other)]) + other,
        inside(record, bytes([3 << 3 | 2, len(other)]) + other),
        inside(record, b"", unpacked=struct.pack("<f", 7)),
    ):
        (tmp_path / "old").write_bytes(leveldb_tables.table_of(sorted({**rows, key: twice}.items())))
        with pytest.raises(CheckpointError, match=r"is damaged: a value is written in two parts|of the kind 5"):
            of_ours(tmp_path / "old")


def inside(record: Any, more: bytes, unpacked: bytes = b"") -> bytes:
    """A record whose slice has a field more, or whose list begins with a number of its own field."""
    tensor = (bytes([5 << 3 | 5]) + unpacked if unpacked else b"") + record.data.data.SerializeToString()
    record.data.ClearField("data")
    part = record.data.SerializeToString() + bytes([3 << 3 | 2, len(tensor)]) + tensor + more
    record.data.SetInParent()
    return bytes([2 << 3 | 2, len(part)]) + part


# Archives of arrays, against numpy.


def archive_of(members: list[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.npy", "a.npy"), ("a", "a.npy"), ("a.npy", "a"), ("input/x.npy", "input/x.npy")])
def test_an_array_that_stands_twice_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    first, last = names
    path = tmp_path / "rows.npz"
    path.write_bytes(archive_of([(first, npy(np.zeros(2))), (last, npy(np.ones(2)))]))
    for reader in (load_arrays, NpzReader):
        with pytest.raises(DataError, match="stands in it 2 times"):
            reader(path)


@Share
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_are_read_as_numpy_reads_them(share: float, tmp_path: Path) -> None:
    arrays, path, both = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([3, 4])}, tmp_path / "rows.npz", 0
    save_arrays(path, arrays)
    raw = path.read_bytes()
    for number, draw in enumerate(draws(400, share)):
        changed = bytearray(raw)
        for _ in range(draw.choice([1, 1, 2])):
            changed[draw.randrange(len(changed))] = draw.choice([0, 1, 0x22, 0xFF, draw.randrange(256)])
        path.write_bytes(changed + draw.choice([b"", b"", b"x", raw[-22:]]))
        rows = read(lambda: NpzReader(path).read(0, 2), DataError)
        ours = read(lambda: load_arrays(path), DataError)
        if ours is None and rows is None:
            continue  # numpy is not asked: it takes memory for whatever a header says
        theirs = read(lambda: dict(np.load(path, allow_pickle=False)), Exception)
        for found in (rows, ours):
            if found is not None and theirs is not None:
                assert {name: value.tobytes() for name, value in found.items()} == {
                    name: value.tobytes() for name, value in theirs.items()
                }, f"mutant {number}"
                both += 1
    assert both > 50 * share


# Flatbuffers, against the code that flatbuffers' compiler makes of the schema.


def of_tables(raw: bytes) -> Any:
    model = flatbuffer.Table(raw, flatbuffer.read(raw, "<I", 0))
    codes = [(op.number(0, "<b"), op.text(1).encode(), op.number(3, "<i")) for op in model.tables(1)]
    return codes, [[tensor.numbers(0) for tensor in graph.tables(0)] for graph in model.tables(2)]


def of_schema(schema: Any, raw: bytes) -> Any:
    model = schema.Model.GetRootAs(raw)
    ops = [model.OperatorCodes(k) for k in range(min(99, model.OperatorCodesLength()))]
    codes = [(op.DeprecatedBuiltinCode(), op.CustomCode() or b"", op.BuiltinCode()) for op in ops]
    graphs = [model.Subgraphs(k) for k in range(min(99, model.SubgraphsLength()))]
    tensors = [[graph.Tensors(k) for k in range(min(99, graph.TensorsLength()))] for graph in graphs]
    return codes, [[[one.Shape(k) for k in range(min(99, one.ShapeLength()))] for one in few] for few in tensors]


@Share
def test_flatbuffers_are_read_as_their_schema_has_it(share: float, tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    raw, both = redteam.tflite(tmp_path / "model.tflite", "FlexAbs").read_bytes(), 0
    assert of_tables(raw) == of_schema(schema, raw)
    for number, draw in enumerate(draws(1500, share)):
        changed = bytearray(raw)
        for _ in range(draw.choice([1, 1, 2])):
            changed[draw.randrange(len(changed))] = draw.choice([0, 1, 4, 5, 7, 8, 16, 255, draw.randrange(256)])
        ours = read(lambda raw=bytes(changed): of_tables(raw), ValueError)
        theirs = read(lambda raw=bytes(changed): of_schema(schema, raw), Exception)
        if ours is not None and theirs is not None:
            try:
                texts = [(a, text.decode("utf-8", "replace").encode(), b) for a, text, b in theirs[0]]
            except UnicodeDecodeError:
                continue
            assert (ours[0], ours[1]) == (texts, theirs[1]), f"mutant {number}"
            both += 1
    assert both > 300 * share
