"""TensorFlow's protobuf messages without TensorFlow.

Most come with tensorboard. The few that it lacks are declared here, row by row as in the .proto files
named beside them. They live in a package of their own (`pipeline.`), so they never meet the ones that
TensorFlow registers when it is loaded in the same process; the bytes on disk know nothing of packages.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.attr_value_pb2 import AttrValue, NameAttrList
from tensorboard.compat.proto.function_pb2 import FunctionDef, FunctionDefLibrary, GradientDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.meta_graph_pb2 import AssetFileDef, CollectionDef, MetaGraphDef, SignatureDef, TensorInfo
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.op_def_pb2 import OpDef, OpList
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.saver_pb2 import SaverDef
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.compat.proto.variable_pb2 import VariableDef
from tensorboard.compat.proto.versions_pb2 import VersionDef

__all__ = [
    "AssetFileDef",
    "AttrValue",
    "BundleEntryProto",
    "BundleHeaderProto",
    "CheckpointState",
    "CollectionDef",
    "CountedGraph",
    "CountedLibrary",
    "CountedMetaGraph",
    "CountedNode",
    "CountedSavedModel",
    "DataType",
    "DecodeError",
    "FunctionDef",
    "FunctionDefLibrary",
    "GradientDef",
    "GraphDef",
    "LazyGraphDef",
    "MetaGraphDef",
    "NameAttrList",
    "NodeDef",
    "OpDef",
    "OpList",
    "SavedModel",
    "SavedObjectGraph",
    "SavedSlice",
    "SavedSliceMeta",
    "SavedTensorSliceMeta",
    "SavedTensorSlices",
    "SaverDef",
    "SignatureDef",
    "TensorInfo",
    "TensorProto",
    "TensorShapeProto",
    "TensorSliceProto",
    "TrackableObjectGraph",
    "VariableDef",
    "VersionDef",
    "parse_text",
]

_PACKAGE = "pipeline"
_FILE = "pipeline/protos.proto"
_OF_TENSORBOARD = {
    "MetaGraphDef": "meta_graph",
    "TensorShapeProto": "tensor_shape",
    "VersionDef": "versions",
}

# Name, number and type of each field. `*` repeated; `?` with presence, that is, left out differs from 0.
# Enums are int32 here, and a message that is parsed later by other means is bytes: on the wire they are the same.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    # tensorflow/core/framework/tensor_slice.proto; its Extent is nested there
    "Extent": [("start", 1, "int64"), ("length", 2, "int64?")],
    "TensorSliceProto": [("extent", 1, "Extent*")],
    # tensorflow/core/protobuf/tensor_bundle.proto
    "BundleHeaderProto": [("num_shards", 1, "int32"), ("endianness", 2, "int32"), ("version", 3, "VersionDef")],
    "BundleEntryProto": [
        ("dtype", 1, "int32"),
        ("shape", 2, "TensorShapeProto"),
        ("shard_id", 3, "int32"),
        ("offset", 4, "int64"),
        ("size", 5, "int64"),
        ("crc32c", 6, "fixed32"),
        ("slices", 7, "TensorSliceProto*"),
    ],
    # tensorflow/core/util/saved_tensor_slice.proto
    "SavedSliceMeta": [
        ("name", 1, "string"),
        ("shape", 2, "TensorShapeProto"),
        ("type", 3, "int32"),
        ("slice", 4, "TensorSliceProto*"),
    ],
    "SavedTensorSliceMeta": [("tensor", 1, "SavedSliceMeta*"), ("versions", 2, "VersionDef")],
    "SavedSlice": [("name", 1, "string"), ("slice", 2, "TensorSliceProto"), ("data", 3, "bytes")],  # a TensorProto
    "SavedTensorSlices": [("meta", 1, "SavedTensorSliceMeta"), ("data", 2, "SavedSlice")],
    # tensorflow/core/framework/graph.proto: a GraphDef whose nodes stay the bytes of NodeDefs
    "LazyGraphDef": [("node", 1, "bytes*"), ("library", 2, "bytes*"), ("versions", 4, "VersionDef")],
    # graph.proto, function.proto, node_def.proto and meta_graph.proto: attributes as a list, to count them
    "CountedNode": [("attr", 5, "bytes*")],
    "CountedFunction": [("node_def", 3, "CountedNode*")],
    "CountedLibrary": [("function", 1, "CountedFunction*")],
    "CountedGraph": [("node", 1, "CountedNode*"), ("library", 2, "CountedLibrary")],
    "CountedMetaGraph": [("graph_def", 2, "CountedGraph")],
    "CountedSavedModel": [("meta_graphs", 2, "CountedMetaGraph*")],
    # tensorflow/core/protobuf/saved_model.proto
    "SavedModel": [("saved_model_schema_version", 1, "int64"), ("meta_graphs", 2, "MetaGraphDef*")],
    # tensorflow/python/training/checkpoint_state.proto
    "CheckpointState": [
        ("model_checkpoint_path", 1, "string"),
        ("all_model_checkpoint_paths", 2, "string*"),
        ("all_model_checkpoint_timestamps", 3, "double*"),
        ("last_preserved_timestamp", 4, "double"),
    ],
}


def _describe_file() -> descriptor_pb2.FileDescriptorProto:
    """Returns the rows above as protobuf's description of a .proto file."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto3")
    file.dependency.extend(f"tensorboard/compat/proto/{stem}.proto" for stem in _OF_TENSORBOARD.values())
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, field, number, kind)
    return file


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    described = descriptor_pb2.FieldDescriptorProto
    added = message.field.add(name=name, number=number)
    added.label = described.LABEL_REPEATED if kind.endswith("*") else described.LABEL_OPTIONAL
    if kind.endswith("?"):
        added.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"has_{name}")
    type_name = kind.rstrip("*?")
    if type_name in _MESSAGES:
        added.type_name = f".{_PACKAGE}.{type_name}"
    elif type_name in _OF_TENSORBOARD:
        added.type_name = f".tensorboard.{type_name}"
    else:
        added.type = described.Type.Value(f"TYPE_{type_name.upper()}")
        return
    added.type = described.TYPE_MESSAGE


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(_describe_file().SerializeToString())
    found = pool.FindFileByName(_FILE).message_types_by_name
    return {name: message_factory.GetMessageClass(found[name]) for name in _MESSAGES}


_CLASSES = _classes()
TensorSliceProto = _CLASSES["TensorSliceProto"]
BundleHeaderProto = _CLASSES["BundleHeaderProto"]
BundleEntryProto = _CLASSES["BundleEntryProto"]
SavedSliceMeta = _CLASSES["SavedSliceMeta"]
SavedTensorSliceMeta = _CLASSES["SavedTensorSliceMeta"]
SavedSlice = _CLASSES["SavedSlice"]
SavedTensorSlices = _CLASSES["SavedTensorSlices"]
SavedModel = _CLASSES["SavedModel"]
CheckpointState = _CLASSES["CheckpointState"]
LazyGraphDef = _CLASSES["LazyGraphDef"]
CountedNode = _CLASSES["CountedNode"]
CountedLibrary = _CLASSES["CountedLibrary"]
CountedGraph = _CLASSES["CountedGraph"]
CountedMetaGraph = _CLASSES["CountedMetaGraph"]
CountedSavedModel = _CLASSES["CountedSavedModel"]


def parse_text(raw: bytes, message: Any) -> None:
    """Fills a message from its text form, as in `.pbtxt` files; unknown fields are ignored.

    Raises:
        DecodeError: the text is malformed.
    """
    from google.protobuf import text_format  # which takes longer to load than most messages to parse

    try:
        # An Any names its message; TensorFlow's messages are known here by tensorboard's package.
        pattern = r"\[type\.googleapis\.com/tensorflow\.(\w+)\]"
        text = re.sub(pattern, r"[type.googleapis.com/tensorboard.\1]", raw.decode())
        text_format.Parse(text, message, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as exc:
        raise DecodeError(str(exc)) from exc
