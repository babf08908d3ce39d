"""The messages declared here are TensorFlow's, and get along with them."""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf
from checkpoints import run_python
from tensorflow.core.protobuf import tensor_bundle_pb2

from pipeline.graph import protos
from pipeline.workers.child import run_in_subprocess

v1 = tf.compat.v1
PROJECT = Path(__file__).resolve().parents[3]


def test_messages_declared_here_are_tensorflow_s_field_by_field() -> None:
    from tensorflow.core.framework import tensor_slice_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.core.util import saved_tensor_slice_pb2
    from tensorflow.python.training import checkpoint_state_pb2

    theirs = {
        name: message
        for module in (
            tensor_slice_pb2,
            tensor_bundle_pb2,
            saved_tensor_slice_pb2,
            saved_model_pb2,
            checkpoint_state_pb2,
        )
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
    }
    theirs["Extent"] = theirs["TensorSliceProto"].nested_types_by_name["Extent"]
    parts = {"Node": "NodeDef", "Function": "FunctionDef", "Library": "FunctionDefLibrary", "Graph": "GraphDef"}
    for part, message in {**parts, "MetaGraph": "MetaGraphDef", "SavedModel": "SavedModel"}.items():
        theirs[f"Counted{part}"] = getattr(protos, message).DESCRIPTOR
    theirs["LazyGraphDef"] = tf.compat.v1.GraphDef.DESCRIPTOR
    assert theirs.keys() == protos._MESSAGES.keys()
    for name, fields in protos._MESSAGES.items():
        known = {field.name: field for field in theirs[name].fields}
        is_part = name == "LazyGraphDef" or name.startswith("Counted")
        assert is_part or known.keys() == {field for field, _, _ in fields}
        for field, number, kind in fields:
            assert known[field].number == number
            # A message is read as the list of its parts, which the reader joins.
            assert known[field].is_repeated == kind.endswith("*") or (name, field) == ("LazyGraphDef", "library")


READ = """
import tensorflow
from tensorflow.core.protobuf import tensor_bundle_pb2
from pipeline.graph.protos import BundleEntryProto, SavedModel, GraphDef
entry = tensor_bundle_pb2.BundleEntryProto(dtype=1, shard_id=3, offset=5, size=7, crc32c=2**32 - 1)
assert BundleEntryProto.FromString(entry.SerializeToString()).crc32c == 2**32 - 1
graph = GraphDef.FromString(tensorflow.Graph().as_graph_def().SerializeToString())
assert graph.versions.producer > 1000
"""


def test_protos_and_tensorflow_s_live_in_one_process_whichever_is_first() -> None:
    first, second = run_in_subprocess(f"{Path(__file__).stem}:imported_and_read")  # a process of the fork server
    assert (first, second) == ("tensorflow", "pipeline.graph.protos")
    run_python(f"import pipeline.graph.protos\n{READ}")


def imported_and_read() -> list[str]:
    """Reads with both; their names in the order in which they were imported."""
    exec(READ, {})
    return [name for name in sys.modules if name in ("tensorflow", "pipeline.graph.protos")]


def test_the_messages_are_imported_without_tensorflow_and_numpy() -> None:
    code = """
import sys
sys.path.insert(0, "pipeline/graph")  # the module alone: the package brings Luigi's tasks
import protos
print(sorted({"tensorflow", "numpy", "tensorboard.compat.tensorflow_stub"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"
