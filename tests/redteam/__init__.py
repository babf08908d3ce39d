"""Models that mean harm, written as bytes: no TensorFlow builds them, so nothing of them is run before the test.

Each is a small honest model, `y = x * w`, and one thing more. What it would do, if it ran, is to write the file CANARY
beside the model.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import leveldb_tables

from pipeline.graph.protos import (
    AttrValue,
    BundleEntryProto,
    BundleHeaderProto,
    DataType,
    FunctionDef,
    GraphDef,
    MetaGraphDef,
    NodeDef,
    SavedModel,
)
from pipeline.graph.wire import encode_field, fields

FLOAT, INT32, INT64, STRING, BOOL = (
    DataType.Value(f"DT_{name}") for name in ("FLOAT", "INT32", "INT64", "STRING", "BOOL")
)
CANARY = "canary.txt"
W = struct.pack("<2f", 3.0, -2.0)


def node(name: str, op: str, *inputs: str, **attributes: Any) -> NodeDef:
    """A node; an attribute is an AttrValue's fields, or a dtype."""
    made = NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        made.attr[key].CopyFrom(AttrValue(**value) if isinstance(value, dict) else AttrValue(type=value))
    return made


def shape(*sizes: int) -> dict[str, Any]:
    """A shape, as an attribute."""
    value = AttrValue()
    value.shape.SetInParent()
    for size in sizes:
        value.shape.dim.add(size=size)
    return {"shape": value.shape}


def text(name: str, value: str | bytes) -> NodeDef:
    """A constant string."""
    made = node(name, "Const", dtype=STRING)
    tensor = made.attr["value"].tensor
    tensor.dtype = STRING
    tensor.tensor_shape.SetInParent()
    tensor.string_val.append(value if isinstance(value, bytes) else value.encode())
    return made


def strings(name: str, *values: str) -> NodeDef:
    """A constant list of strings."""
    made = text(name, "")
    tensor = made.attr["value"].tensor
    tensor.tensor_shape.dim.add(size=len(values))
    del tensor.string_val[:]
    tensor.string_val.extend(value.encode() for value in values)
    return made


def numbers(name: str, *values: int) -> NodeDef:
    """A constant list of int64."""
    made = node(name, "Const", dtype=INT64)
    tensor = made.attr["value"].tensor
    tensor.dtype = INT64
    tensor.tensor_shape.dim.add(size=len(values))
    tensor.int64_val.extend(values)
    return made


def filled(name: str, *sizes: int) -> NodeDef:
    """A constant of which one value stands for all."""
    made = node(name, "Const", dtype=FLOAT)
    tensor = made.attr["value"].tensor
    tensor.dtype = FLOAT
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.append(1.0)
    return made


def honest(*more: NodeDef, y: Sequence[str] = (), restore: Sequence[str] = ()) -> list[NodeDef]:
    """The nodes of a model that only computes, with the ops of its Saver.

    Args:
        more: nodes besides.
        y, restore: what the output, and the restoring, wait for.
    """
    return [
        node("x", "Placeholder", dtype=FLOAT, shape=shape(-1, 2)),
        node("w", "VariableV2", dtype=FLOAT, shape=shape(2), container={"s": b""}, shared_name={"s": b""}),
        node("w/read", "Identity", "w", T=FLOAT),
        text("save/filename/input", "model"),
        node("save/Const", "PlaceholderWithDefault", "save/filename/input", dtype=STRING, shape=shape()),
        strings("save/names", "w"),
        strings("save/slices", ""),
        node("save/SaveV2", "SaveV2", "save/Const", "save/names", "save/slices", "w", dtypes=listed(FLOAT)),
        node("save/RestoreV2", "RestoreV2", "save/Const", "save/names", "save/slices", dtypes=listed(FLOAT)),
        node("save/Assign", "Assign", "w", "save/RestoreV2", T=FLOAT, validate_shape={"b": True}),
        *more,
        node("save/restore_all", "NoOp", "^save/Assign", *(f"^{name}" for name in restore)),
        node("y", "Mul", "x", "w/read", *(f"^{name}" for name in y), T=FLOAT),
    ]


def listed(*dtypes: int) -> dict[str, Any]:
    """A list of dtypes, as an attribute."""
    return {"list": AttrValue.ListValue(type=dtypes)}


def calling(function: str) -> dict[str, Any]:
    """A function, as an attribute."""
    return {"func": {"name": function}}


def function(name: str, *nodes: NodeDef) -> FunctionDef:
    """A function without arguments and results, all of whose nodes are run."""
    made = FunctionDef(node_def=nodes)
    made.signature.name = name
    made.signature.is_stateful = True
    for inner in nodes:
        made.signature.control_output.append(inner.name)
        made.control_ret[inner.name] = inner.name
    return made


def call(name: str, function_name: str) -> NodeDef:
    """A call of such a function."""
    return node(name, "StatefulPartitionedCall", Tin=listed(), Tout=listed(), f=calling(function_name))


def write_canary(folder: Path, name: str = "evil/WriteFile") -> list[NodeDef]:
    """Nodes that write the canary."""
    place = text(f"{name}/name", str(folder / CANARY))
    return [place, text(f"{name}/contents", "harm"), node(name, "WriteFile", place.name, f"{name}/contents")]


def write_canary_inside(folder: Path, name: str = "write") -> list[NodeDef]:
    """The same in a function's body."""
    place = text(f"{name}_name", str(folder / CANARY))
    return [
        place,
        text(f"{name}_contents", "harm"),
        node(name, "WriteFile", f"{name}_name:output:0", f"{name}_contents:output:0"),
    ]


def graph(nodes: Iterable[NodeDef], functions: Iterable[FunctionDef] = ()) -> GraphDef:
    made = GraphDef(node=nodes)
    made.versions.producer = 1882
    made.library.function.extend(functions)
    return made


def checkpoint(
    folder: Path,
    nodes: Iterable[NodeDef] | None = None,
    functions: Iterable[FunctionDef] = (),
    entry: BundleEntryProto | None = None,
    length: int = 2,
    **saver: str,
) -> Path:
    """A Saver's checkpoint of `w`; returns its prefix.

    Args:
        entry: what the index tells of `w`, if not the truth.
        length: of `w`.
        saver: fields of the SaverDef.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta = MetaGraphDef(graph_def=graph(honest() if nodes is None else nodes, functions))
    told = {"filename_tensor_name": "save/Const:0", "restore_op_name": "save/restore_all", **saver}
    for name, value in told.items():
        setattr(meta.saver_def, name, value)
    meta.saver_def.version = 2
    (folder / "model.ckpt.meta").write_bytes(meta.SerializeToString())
    write_bundle(folder / "model.ckpt", entry, length)
    return folder / "model.ckpt"


def write_bundle(prefix: Path, entry: BundleEntryProto | None = None, length: int = 2) -> None:
    """The index and the data of `w`."""
    data = W * (length // 2)
    if entry is None:
        entry = BundleEntryProto(dtype=FLOAT, size=len(data), crc32c=leveldb_tables.mask_crc(google_crc32c.value(data)))
        entry.shape.dim.add(size=length)
    header = BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    rows = [(b"", header.SerializeToString()), (b"w", entry.SerializeToString())]
    Path(f"{prefix}.index").write_bytes(leveldb_tables.table_of(rows))
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)


def frozen(path: Path, *more: NodeDef, y: Sequence[str] = (), functions: Iterable[FunctionDef] = ()) -> Path:
    """A frozen `.pb` of the same model."""
    w = filled("w", 2)
    w.attr["value"].tensor.float_val[:] = [3.0, -2.0]
    nodes = [honest()[0], w, *more, node("y", "Mul", "x", "w", *(f"^{name}" for name in y), T=FLOAT)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph(nodes, functions).SerializeToString())
    return path


def twice(graph_def: bytes, name: str, last: bytes) -> bytes:
    """A GraphDef (of fields that are nodes, then others) whose node `name` has the attribute `value` once more.

    Args:
        last: an AttrValue, which protobuf takes, because it is the last.
    """
    entry = encode_field(5, encode_field(1, b"value") + encode_field(2, last))
    made = b""
    for field in fields(graph_def):
        content = graph_def[field.content : field.end]
        is_meant = field.number == 1 and NodeDef.FromString(content).name == name
        made += encode_field(1, content + entry) if is_meant else graph_def[field.start : field.end]
    return made


def saved_model(
    folder: Path,
    nodes: Iterable[NodeDef] | None = None,
    functions: Iterable[FunctionDef] = (),
    init: str = "",
    legacy_init: str = "",
    others: Sequence[MetaGraphDef] = (),
    assets: Sequence[str] = (),
) -> Path:
    """A SavedModel of TensorFlow 1 with the same model.

    Args:
        init, legacy_init: the op that loading runs.
        others: further graphs in the file.
        assets: names of files that it says to have among its assets.
    """
    meta = MetaGraphDef(graph_def=graph(honest() if nodes is None else nodes, functions))
    meta.meta_info_def.tags.append("serve")
    meta.saver_def.filename_tensor_name, meta.saver_def.restore_op_name = "save/Const:0", "save/restore_all"
    served = meta.signature_def["serving_default"]
    for side, name in ((served.inputs, "x"), (served.outputs, "y")):
        side[name].name, side[name].dtype = f"{name}:0", FLOAT
        for size in (-1, 2):
            side[name].tensor_shape.dim.add(size=size)
    if init:
        meta.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = init
    if legacy_init:
        meta.collection_def["legacy_init_op"].node_list.value.append(legacy_init)
    for name in assets:
        meta.asset_file_def.add(filename=name).tensor_info.name = "save/filename/input:0"
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    write_bundle(folder / "variables" / "variables")
    file = SavedModel(saved_model_schema_version=1, meta_graphs=[meta, *others])
    (folder / "saved_model.pb").write_bytes(file.SerializeToString())
    return folder


def tflite(path: Path, custom: str, sizes: Sequence[int] = (1, 2), weights: str = "") -> Path:
    """A .tflite with one op, a custom one, and one tensor (tensorflow/lite/schema/schema.fbs).

    Args:
        weights: another file, in which weights lie.
    """
    import flatbuffers

    build = flatbuffers.Builder(256)
    name, tensor_name = build.CreateString(custom), build.CreateString("x")
    dims = build.CreateNumpyVector(_array(sizes))
    build.StartObject(4)
    build.PrependInt8Slot(0, 32, 0)
    build.PrependUOffsetTRelativeSlot(1, name, 0)
    build.PrependInt32Slot(3, 32, 0)
    codes = _vector(build, [build.EndObject()])
    build.StartObject(5)
    build.PrependUOffsetTRelativeSlot(0, dims, 0)
    build.PrependUOffsetTRelativeSlot(3, tensor_name, 0)
    tensors = _vector(build, [build.EndObject()])
    build.StartObject(5)
    build.PrependUOffsetTRelativeSlot(0, tensors, 0)
    subgraphs = _vector(build, [build.EndObject()])
    groups = None
    if weights:
        file = build.CreateString(weights)
        build.StartObject(1)
        build.PrependUOffsetTRelativeSlot(0, file, 0)
        groups = _vector(build, [build.EndObject()])
    build.StartObject(10)
    build.PrependUint32Slot(0, 3, 0)
    if groups is not None:
        build.PrependUOffsetTRelativeSlot(8, groups, 0)
    build.PrependUOffsetTRelativeSlot(1, codes, 0)
    build.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    build.Finish(build.EndObject(), file_identifier=b"TFL3")
    path.write_bytes(bytes(build.Output()))
    return path


def _array(sizes: Sequence[int]) -> Any:
    import numpy as np

    return np.array(sizes, np.int32)


def _vector(build: Any, offsets: Sequence[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return int(build.EndVector())
