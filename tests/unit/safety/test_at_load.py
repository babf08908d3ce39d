"""A function that saves may stay in a SavedModel as long as neither loading nor the chosen signature runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from pipeline.errors import FreezeError, UnsafeModel
from pipeline.freezing.freeze import freeze

X = np.arange(12, dtype=np.float32).reshape(2, 6) / 7


class Trainable(tf.Module):  # type: ignore[misc]
    """A model that a device trains, asks and saves by its signatures."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.arange(18, dtype=np.float32).reshape(6, 3) - 8)

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, "x")])  # type: ignore[untyped-decorator]
    def train(self, x: Any) -> Any:
        self.w.assign_sub(tf.transpose(x) @ (x @ self.w))
        return {"loss": tf.reduce_sum(x @ self.w)}

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, "x")])  # type: ignore[untyped-decorator]
    def infer(self, x: Any) -> Any:
        return {"probs": tf.nn.softmax(x @ self.w)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "path")])  # type: ignore[untyped-decorator]
    def save(self, path: Any) -> Any:
        tf.raw_ops.Save(filename=path, tensor_names=["w"], data=[self.w.read_value()])
        return {"path": path}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("trainable") / "m", Trainable()
    signatures = {"train": model.train, "infer": model.infer, "save": model.save}
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def test_a_signature_is_judged_by_what_it_reaches(saved: Path, tmp_path: Path) -> None:
    done = freeze(saved, to=tmp_path / "infer.pb", signature="infer")
    wanted = tf.saved_model.load(str(saved)).signatures["infer"](x=tf.constant(X))["probs"].numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(done.path.read_bytes()), name="")
        assert done.signature is not None
        ends = [spec.tensor_name for spec in (*done.signature.outputs, *done.signature.inputs)]
        np.testing.assert_array_equal(session.run(ends[0], {ends[1]: X}), wanted)
    with pytest.raises(UnsafeModel, match="could write files: op Save"):
        freeze(saved, to=tmp_path / "save.pb", signature="save")
    assert not (tmp_path / "save.pb").exists()


def test_without_a_choice_the_whole_command_is_told_for_each_signature_that_can_be_frozen(saved: Path) -> None:
    with pytest.raises(FreezeError, match="has several signatures, and none is called serving_default") as error:
        freeze(saved)
    assert error.value.got == "infer, save, train"
    assert str(error.value).splitlines()[1:] == [f"  python -m pipeline freeze {saved} --signature infer"]


def _number(meta: Any, path: str) -> int:
    number = 0
    for name in path.split("/"):
        number = next(one.node_id for one in meta.object_graph_def.nodes[number].children if one.local_name == name)
    return number


def _renamed(meta: Any) -> None:
    next(one for one in meta.object_graph_def.nodes[0].children if one.local_name == "save").local_name = "_initialize"


def _of_an_unknown_class(meta: Any) -> None:
    meta.object_graph_def.nodes[0].user_object.identifier = "_tf_keras_model"


def _of_a_resource(meta: Any) -> None:
    meta.object_graph_def.nodes[0].resource.device = ""


def _restores(meta: Any) -> None:
    saveable = meta.object_graph_def.nodes[_number(meta, "w")].saveable_objects["w"]
    saveable.restore_function = _number(meta, "save")


def _by_a_registered_saver(meta: Any) -> None:
    meta.object_graph_def.nodes[0].registered_saver = "mine"


def _held_by_nothing(meta: Any) -> None:
    for node in meta.object_graph_def.nodes:
        kept = [one for one in node.children if one.local_name not in ("save", "trace_0")]
        del node.children[:]
        node.children.extend(kept)


def _initializes(meta: Any) -> None:
    call = next(node for node in meta.graph_def.node if "save" in node.attr["f"].func.name)
    meta.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = call.name


@pytest.mark.parametrize(
    "change",
    [_renamed, _of_an_unknown_class, _of_a_resource, _restores, _by_a_registered_saver, _held_by_nothing, _initializes],
)
def test_a_function_that_loading_could_run_is_judged(
    saved: Path, tmp_path: Path, change: Callable[[Any], None]
) -> None:
    folder = tmp_path / "m"
    (folder / "variables").mkdir(parents=True)
    for file in (saved / "variables").iterdir():
        (folder / "variables" / file.name).write_bytes(file.read_bytes())
    model = saved_model_pb2.SavedModel.FromString((saved / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match="could write files: op Save"):
        freeze(folder, to=tmp_path / "infer.pb", signature="infer")
