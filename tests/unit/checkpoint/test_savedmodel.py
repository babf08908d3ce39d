"""SavedModels: what is frozen from a folder gives what TensorFlow gives after loading it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.savedmodel import read_saved_model
from pipeline.errors import CheckpointError, FreezeError, PipelineError
from pipeline.freezing.freeze import freeze as freeze_any
from pipeline.freezing.run_passes import freeze_graph
from pipeline.freezing.write.pb import write_pb

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
WORDS = np.array([b"a", b"c", b"zz"], object)
STRANGERS = Path(__file__).resolve().parents[4] / "shared" / "models"


def values(name: str, shape: list[int]) -> Array:
    """Weights that follow from a name."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def freeze(folder: Path, signature_key: str | None = None) -> tuple[bytes, Source]:
    saved = read_saved_model(folder, signature_key)
    graph = freeze_graph(
        saved.graph, saved.bundle, saved.keys, list(saved.outputs.values()), list(saved.inputs.values())
    )
    path = folder.parent / f"{folder.name}.{signature_key}.pb"
    write_pb(graph, saved.bundle, path)
    return path.read_bytes(), saved


def answers(session: Any, saved: Source, feeds: Mapping[str, Array]) -> dict[str, Array]:
    given = {saved.inputs[name]: array for name, array in feeds.items()}
    return {name: np.asarray(value) for name, value in session.run(dict(saved.outputs), given).items()}


def frozen_answers(folder: Path, feeds: Mapping[str, Array], key: str | None = None) -> dict[str, Array]:
    pb, saved = freeze(folder, key)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb), name="")
        assert not [op.name for op in graph.get_operations() if op.type in ("VarHandleOp", "VariableV2")]
        return answers(session, saved, feeds)


def loaded_answers(folder: Path, feeds: Mapping[str, Array], key: str | None = None) -> dict[str, Array]:
    """What TensorFlow 1's loader gives."""
    saved = read_saved_model(folder, key)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.loader.load(session, ["serve"], str(folder))
        return answers(session, saved, feeds)


def called_answers(folder: Path, feeds: Mapping[str, Array], key: str = "serving_default") -> dict[str, Array]:
    """What TensorFlow 2's loader gives."""
    function = tf.saved_model.load(str(folder)).signatures[key]
    return {name: value.numpy() for name, value in function(**{n: tf.constant(a) for n, a in feeds.items()}).items()}


def assert_equal(got: Mapping[str, Array], wanted: Mapping[str, Array], atol: float = 0.0) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        assert got[name].shape == value.shape
        if atol:
            np.testing.assert_allclose(got[name], value, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(got[name], value)


# TensorFlow 1.


def save_v1(
    folder: Path,
    build: Callable[[Any], Mapping[str, Any]],
    *,
    seed: str = "",
    dtype: Any = tf.float32,
    as_text: bool = False,
    tags: tuple[str, ...] = ("serve",),
    keys: tuple[str, ...] = ("serving_default",),
    main_op: Callable[[], Any] | None = None,
) -> Path:
    """Saves a graph; every result of `build` is the one output `y` of the signature of its place."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(dtype, [None, 3] if dtype == tf.float32 else [None], name="in")
        results = build(x)
        session.run(v1.global_variables_initializer())
        for variable in v1.global_variables():
            variable.load(values(variable.op.name + seed, variable.shape.as_list()), session)
        builder = v1.saved_model.Builder(str(folder))
        predict = v1.saved_model.predict_signature_def
        builder.add_meta_graph_and_variables(
            session,
            list(tags),
            {key: predict({"x": x}, {"y": result}) for key, result in zip(keys, results.values(), strict=True)},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=None if main_op is None else main_op(),
        )
        builder.save(as_text=as_text)
    return folder


def product(x: Any) -> Any:
    return x @ v1.get_variable("w", [3, 2], use_resource=True)


def both(x: Any) -> dict[str, Any]:
    old = v1.get_variable("old", [2], use_resource=False)
    return {"first": product(x) + old, "second": tf.tanh(product_again(x))}


def product_again(x: Any) -> Any:
    return x @ v1.get_variable("w2", [3, 2], use_resource=True)


@pytest.mark.parametrize("key", ["first", "second"])
@pytest.mark.parametrize("as_text", [False, True])
def test_signatures_are_chosen_by_name(tmp_path: Path, key: str, as_text: bool) -> None:
    folder = save_v1(tmp_path / "m", both, keys=("first", "second"), as_text=as_text)
    assert (folder / "saved_model.pbtxt").exists() is as_text
    assert_equal(frozen_answers(folder, {"x": X}, key), loaded_answers(folder, {"x": X}, key))
    assert read_saved_model(folder, key).signature_key == key


def test_another_weight_is_another_output(tmp_path: Path) -> None:
    first, second = (
        frozen_answers(save_v1(tmp_path / f"m{seed}", lambda x: {"y": product(x)}, seed=seed), {"x": X})["y"]
        for seed in ("", "!")
    )
    assert np.abs(first - second).min() > 1e-3


@pytest.mark.parametrize("keys", [("a", "serving_default"), ("serving_default", "a")])
def test_serving_default_is_the_default(tmp_path: Path, keys: tuple[str, ...]) -> None:
    folder = save_v1(tmp_path / "m", both, keys=keys)
    assert read_saved_model(folder).signature_key == "serving_default"
    assert_equal(frozen_answers(folder, {"x": X}), loaded_answers(folder, {"x": X}, "serving_default"))


def test_the_only_signature_is_the_default(tmp_path: Path) -> None:
    module = Module()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"mine": module.other})
    # TensorFlow 2 adds a signature for its initialization, which is none to choose.
    assert set(read_message(tmp_path / "m").meta_graphs[0].signature_def) == {"mine", "__saved_model_init_op"}
    assert read_saved_model(tmp_path / "m").signature_key == "mine"
    assert refusal(FreezeError, tmp_path / "m", "__saved_model_init_op").got == "'__saved_model_init_op'"


def test_simple_save_and_a_model_without_variables(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3])
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": tf.sin(x) @ values("c", [3, 2])})
    assert not read_saved_model(tmp_path / "m").bundle.tensors
    assert_equal(frozen_answers(tmp_path / "m", {"x": X}), loaded_answers(tmp_path / "m", {"x": X}))


def vocabulary_table(folder: Path) -> Callable[[Any], dict[str, Any]]:
    def build(words: Any) -> dict[str, Any]:
        (folder / "words.txt").write_text("a\nb\nc\n")
        lookup = tf.lookup.TextFileIndex
        file = str(folder / "words.txt")
        initializer = tf.lookup.TextFileInitializer(file, tf.string, lookup.WHOLE_LINE, tf.int64, lookup.LINE_NUMBER)
        from_file = tf.lookup.StaticHashTable(initializer, -1)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "zz"]), tf.constant([7, 9], tf.int64))
        from_tensors = tf.lookup.StaticHashTable(pairs, -5)
        w = v1.get_variable("w", [4], use_resource=True)
        return {"y": tf.gather(w, from_file.lookup(words) + 1) + tf.cast(from_tensors.lookup(words), tf.float32)}

    return build


def test_tables_and_their_vocabulary_come_along(tmp_path: Path) -> None:
    build = vocabulary_table(tmp_path)
    folder = save_v1(tmp_path / "m", build, dtype=tf.string, main_op=v1.tables_initializer)
    (tmp_path / "words.txt").unlink()
    wanted = loaded_answers(folder, {"x": WORDS})
    assert_equal(frozen_answers(folder, {"x": WORDS}), wanted)
    moved = shutil.move(folder, tmp_path / "moved")
    assert list(read_saved_model(moved).assets.values()) == [tmp_path / "moved" / "assets" / "words.txt"]
    assert_equal(frozen_answers(moved, {"x": WORDS}), wanted)
    (moved / "assets" / "words.txt").write_text("c\na\nb\n")
    changed = frozen_answers(moved, {"x": WORDS})
    assert_equal(changed, loaded_answers(moved, {"x": WORDS}))
    assert not np.array_equal(changed["y"], wanted["y"])


def test_a_path_keeps_its_shape(tmp_path: Path) -> None:
    def build(x: Any) -> dict[str, Any]:
        (tmp_path / "words.txt").write_text("a")
        path = tf.constant([str(tmp_path / "words.txt")], name="path")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, path)
        return {"y": path}

    folder = save_v1(tmp_path / "m", build)
    assert frozen_answers(folder, {})["y"].tolist() == [str(folder / "assets" / "words.txt").encode()]


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    folder = save_v1(tmp_path / "m", vocabulary_table(tmp_path), dtype=tf.string, main_op=v1.tables_initializer)
    (folder / "assets" / "words.txt").unlink()
    with pytest.raises(FreezeError, match=r"assets/words\.txt"):
        freeze(folder)


def test_of_several_graphs_the_one_for_serving_alone_is_taken(tmp_path: Path) -> None:
    folder = save_v1(tmp_path / "m", lambda x: {"y": product(x)}, tags=("serve", "gpu"), keys=("of_gpu",))
    model = read_message(folder)
    model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
    model.meta_graphs[1].meta_info_def.tags[:] = ["serve"]
    model.meta_graphs[1].signature_def["plain"].CopyFrom(model.meta_graphs[1].signature_def.pop("of_gpu"))
    write_message(folder, model)
    assert read_saved_model(folder).signature_key == "plain"


def test_tables_of_a_text_come_along(tmp_path: Path) -> None:
    folder = save_v1(tmp_path / "m", vocabulary_table(tmp_path), dtype=tf.string, main_op=v1.tables_initializer)
    (tmp_path / "words.txt").unlink()
    wanted = loaded_answers(folder, {"x": WORDS})
    # TensorFlow 1 names its assets in messages within messages, which a text names by TensorFlow's package.
    text = text_format.MessageToString(read_message(folder))
    assert "[type.googleapis.com/tensorflow.AssetFileDef]" in text
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pbtxt").write_text(text)
    assert_equal(frozen_answers(folder, {"x": WORDS}), wanted)
    script = f"""if True:
        import pathlib, sys
        from pipeline.checkpoint.savedmodel import read_saved_model
        print(read_saved_model(pathlib.Path({str(folder)!r})).assets, "tensorflow" in sys.modules)"""
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "words.txt" in alone.stdout, alone.stderr
    assert alone.stdout.endswith("False\n")


def test_sparse_inputs_are_three_tensors(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.sparse_placeholder(tf.float32, [None, 3])
        y = tf.sparse.sparse_dense_matmul(x, v1.get_variable("w", [3, 2], use_resource=True))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": y})
    feeds = {
        "x/indices": np.array([[0, 1], [1, 2]]),
        "x/values": np.array([2, 3], np.float32),
        "x/dense_shape": np.array([2, 3]),
    }
    assert_equal(frozen_answers(tmp_path / "m", feeds), loaded_answers(tmp_path / "m", feeds))


@pytest.mark.parametrize("is_resource", [True, False])
def test_a_variable_that_loading_changes_is_refused(tmp_path: Path, is_resource: bool) -> None:
    made: list[Any] = []

    def build(x: Any) -> dict[str, Any]:
        made.append(v1.get_variable("w", [3, 2], use_resource=is_resource))
        return {"y": x @ made[0]}

    folder = save_v1(tmp_path / "m", build, main_op=lambda: v1.assign(made[0], tf.ones([3, 2])).op)
    with pytest.raises(FreezeError, match="changes a variable after it is restored"):
        read_saved_model(folder)


# TensorFlow 2.


class Module(tf.Module):  # type: ignore[misc]
    """Two variables of one name, a branch, a loop and a nested function; several inputs and outputs."""

    def __init__(self, seed: str = "") -> None:
        self.a = tf.Variable(values("a" + seed, [3, 3]), name="w")
        self.b = tf.Variable(values("b" + seed, [3, 3]), name="w")
        self.rows = tf.Variable(values("rows" + seed, [4, 3]), name="w")

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def nested(self, x: Any) -> Any:
        return tf.tanh(x @ self.b) + tf.gather(self.rows, [1, 3])[1]

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x"), tf.TensorSpec([None, 3], name="z")])
    def serve(self, x: Any, z: Any) -> Any:
        branch = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ self.a, lambda: self.nested(z))
        loop = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, self.nested(y) @ self.a), [0, z])[1]
        return {"branch": branch, "loop": loop, "rows": tf.gather(self.rows, tf.cast(x[:, 0] > 0, tf.int32))}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def other(self, x: Any) -> Any:
        return {"y": self.nested(x) @ self.b}


def save_module(folder: Path, seed: str = "") -> Path:
    module = Module(seed)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve, "other": module.other})
    return folder


@pytest.mark.parametrize("sign", [1, -1])
def test_functions_branches_and_loops(tmp_path: Path, sign: int) -> None:
    folder = save_module(tmp_path / "m")
    feeds = {"x": sign * (X + 1), "z": X / 3}
    assert_equal(frozen_answers(folder, feeds), called_answers(folder, feeds))
    assert_equal(frozen_answers(folder, {"x": X}, "other"), called_answers(folder, {"x": X}, "other"))
    assert_equal(frozen_answers(folder, feeds), loaded_answers(folder, feeds))
    changed = frozen_answers(save_module(tmp_path / "n", "!"), feeds)
    assert all(np.abs(changed[name] - value).max() > 1e-3 for name, value in called_answers(folder, feeds).items())


def test_a_savedmodel_of_tensorflow_2_as_text(tmp_path: Path) -> None:
    folder = save_module(tmp_path / "m")
    feeds = {"x": X, "z": X / 3}
    wanted = called_answers(folder, feeds)
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(read_message(folder)))
    (folder / "saved_model.pb").unlink()
    assert_equal(frozen_answers(folder, feeds), wanted)


def test_keys_are_found_by_the_objects_and_not_by_their_numbers(tmp_path: Path) -> None:
    folder = save_module(tmp_path / "m")
    feeds = {"x": X + 1, "z": X / 3}
    wanted = called_answers(folder, feeds)
    model = read_message(folder)
    [meta] = model.meta_graphs
    meta.saver_def.restore_op_name = ""
    for node in meta.graph_def.node:  # without the restoring function the objects are all that is left
        if node.attr["f"].func.name.startswith("__inference__traced_restore"):
            node.op = "NoOp"
            node.attr.clear()
    graph = meta.object_graph_def
    graph.nodes.add().CopyFrom(graph.nodes[1])  # another number for the first variable
    moved = len(graph.nodes) - 1
    for item in (*(c for n in graph.nodes for c in n.children),):
        item.node_id = moved if item.node_id == 1 else item.node_id
    for function in graph.concrete_functions.values():
        function.bound_inputs[:] = [moved if number == 1 else number for number in function.bound_inputs]
    write_message(folder, model)
    assert_equal(frozen_answers(folder, feeds), wanted)


class Tables(tf.Module):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        (folder / "words.txt").write_text("a\nb\nc\n")
        lookup = tf.lookup.TextFileIndex
        initializer = tf.lookup.TextFileInitializer(
            str(folder / "words.txt"), tf.string, lookup.WHOLE_LINE, tf.int64, lookup.LINE_NUMBER
        )
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "zz"]), tf.constant([7, 9], tf.int64))
        self.from_file = tf.lookup.StaticHashTable(initializer, -1)
        self.from_tensors = tf.lookup.StaticHashTable(pairs, -5)
        self.w = tf.Variable(values("w", [4]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words")])
    def serve(self, words: Any) -> Any:
        rows = tf.gather(self.w, self.from_file.lookup(words) + 1)
        return {"y": rows + tf.cast(self.from_tensors.lookup(words), tf.float32)}


def test_tables_of_tensorflow_2_come_along(tmp_path: Path) -> None:
    module = Tables(tmp_path)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    (tmp_path / "words.txt").unlink()
    wanted = called_answers(tmp_path / "m", {"words": WORDS})
    assert_equal(frozen_answers(tmp_path / "m", {"words": WORDS}), wanted)
    again = tf.saved_model.load(str(tmp_path / "m"))
    tf.saved_model.save(again, str(tmp_path / "again"), signatures=again.signatures)
    shutil.rmtree(tmp_path / "m")
    assert_equal(frozen_answers(tmp_path / "again", {"words": WORDS}), wanted)


def test_tables_have_the_content_that_the_variables_hold_also_when_they_are_saved_again(tmp_path: Path) -> None:
    module = tf.Module()
    module.words = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    module.words.insert(tf.constant(["a"]), tf.constant([3], tf.int64))
    module.numbers = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, 0.5, empty_key=0, deleted_key=-9)
    module.numbers.insert(tf.constant([3], tf.int64), tf.constant([7.0]))
    signature = [tf.TensorSpec([None], tf.string, "t")]
    module.serve = tf.function(lambda t: module.numbers.lookup(module.words.lookup(t)), input_signature=signature)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=loaded.signatures)
    wanted = {"output_0": np.array([7.0, 0.5, 0.5], np.float32)}
    for folder in (tmp_path / "m", tmp_path / "again"):
        assert_equal(called_answers(folder, {"t": WORDS}), wanted)
        assert_equal(frozen_answers(folder, {"t": WORDS}), wanted)


def test_functions_that_call_each_other_without_end(tmp_path: Path) -> None:
    folder = save_module(tmp_path / "m")
    model = read_message(folder)
    library = model.meta_graphs[0].graph_def.library
    for function in library.function:
        for other in library.function:
            call = function.node_def.add(name=f"to_{other.signature.name}", op="PartitionedCall")
            call.attr["f"].func.name = other.signature.name
            for argument in other.signature.input_arg:
                call.input.append(function.signature.input_arg[0].name)
                call.attr["Tin"].list.type.append(argument.type)
            call.attr["Tin"].list.SetInParent()
    write_message(folder, model)
    assert set(read_saved_model(folder).outputs) == {"branch", "loop", "rows"}


# Keras 3.


def dense() -> Any:
    return [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]


def convolution() -> Any:
    return [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]


def recurrent() -> Any:
    return [keras.Input((5, 3)), keras.layers.LSTM(4, return_sequences=True), keras.layers.GRU(3)]


def embedding() -> Any:
    return [
        keras.Input((5,), dtype="int32"),
        keras.layers.Embedding(7, 4, mask_zero=True),
        keras.layers.Bidirectional(keras.layers.LSTM(3)),
        keras.layers.Dense(2),
    ]


def keras_model(layers: Callable[[], Any], seed: str = "") -> Any:
    keras.backend.clear_session()
    model = keras.Sequential(layers())
    for number, variable in enumerate(model.weights):
        if "seed" not in variable.path:
            variable.assign(np.abs(values(f"{number}{seed}", list(variable.shape))) * (0.2 + number % 3))
    return model


def save_keras(model: Any, folder: Path, how: str) -> Path:
    if how == "export":
        model.export(str(folder), verbose=False)
    else:
        tf.saved_model.save(model, str(folder))
    return folder


@pytest.mark.parametrize("how", ["export", "save"])
@pytest.mark.parametrize("layers", [dense, convolution, recurrent, embedding])
def test_keras_models(tmp_path: Path, layers: Callable[[], Any], how: str) -> None:
    model = keras_model(layers)
    shape = [2, *model.input_shape[1:]]
    x = (np.arange(10).reshape(2, 5) % 7).astype(np.int32) if layers is embedding else values("x", shape)
    folder = save_keras(model, tmp_path / "m", how)
    [name] = read_saved_model(folder).inputs
    got = frozen_answers(folder, {name: x})
    assert_equal(got, {"output_0": model(x, training=False).numpy()}, atol=1e-6)
    assert_equal(got, called_answers(folder, {name: x}), atol=1e-6)
    changed = frozen_answers(save_keras(keras_model(layers, "!"), tmp_path / "n", how), {name: x})
    assert np.abs(changed["output_0"] - got["output_0"]).max() > 1e-3


def test_a_seed_that_goes_on_for_what_no_asked_output_needs_is_left_out(tmp_path: Path) -> None:
    """Keras's recurrent layers draw masks that inference does not use, and a sampling layer gives one output of two."""

    class Sampling(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="sampling")
            self.seed = keras.random.SeedGenerator(1)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    rows = keras.Input((5, 3), name="rows")
    mean = keras.layers.GRU(3, dropout=0.3, recurrent_dropout=0.2)(rows)
    folder = save_keras(keras.Model(rows, {"drawn": Sampling()(mean), "mean": mean}), tmp_path / "m", "export")
    x = values("x", [2, 5, 3])
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    first, second = ({name: value.numpy() for name, value in serve(rows=tf.constant(x)).items()} for _ in range(2))
    assert not np.array_equal(first["drawn"], second["drawn"])
    saved = read_saved_model(folder)
    with pytest.raises(FreezeError, match="changes state") as refused:
        freeze_any(folder, to=tmp_path / "none.pb")
    assert "layer sampling" in str(refused.value)
    assert f"python -m pipeline freeze {folder} --outputs mean" in str(refused.value)
    done = freeze_any(folder, ["mean"], to=tmp_path / "mean.pb")
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(done.path.read_bytes()), name="")
        for _ in range(2):
            got = session.run(saved.outputs["mean"], {saved.inputs["rows"]: x})
            np.testing.assert_array_equal(got, first["mean"])
            np.testing.assert_array_equal(got, second["mean"])


def test_keras_vocabulary(tmp_path: Path) -> None:
    words = keras.Input((), dtype="string", name="words")
    numbers = keras.layers.StringLookup(vocabulary=["a", "b", "c"])(words)
    rows = keras.layers.Embedding(4, 2)(numbers)
    model = keras.Model(words, rows)
    model.export(str(tmp_path / "m"), verbose=False)
    got = frozen_answers(tmp_path / "m", {"words": WORDS})
    assert_equal(got, called_answers(tmp_path / "m", {"words": WORDS}), atol=1e-6)


# Models of others.


@pytest.mark.parametrize("key", ["serving_default", "regress_x_to_y2", "classify_x_to_y", "regress_x2_to_y3"])
def test_half_plus_two(tmp_path: Path, key: str) -> None:
    folder = strangers("half-plus-two-savedmodel", tmp_path)
    [name] = read_saved_model(folder, key).inputs
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(3)
    example.features.feature["x2"].float_list.value.append(5)
    rows = X[:, :1] if key in ("serving_default", "regress_x2_to_y3") else np.array([example.SerializeToString()] * 2)
    got = frozen_answers(folder, {name: rows}, key)
    assert_equal(got, loaded_answers(folder, {name: rows}, key))
    if key == "serving_default":
        np.testing.assert_array_equal(got["y"], rows / 2 + 2)


def test_linear_regression(tmp_path: Path) -> None:
    folder = strangers("linear-regression/saved_model", tmp_path)
    feeds = {"X": np.float32([1, 2.5, -3])}
    assert_equal(frozen_answers(folder, feeds), loaded_answers(folder, feeds))


def strangers(name: str, tmp_path: Path) -> Path:
    if not (STRANGERS / name).is_dir():
        pytest.skip(f"{name} is not on this machine")
    return shutil.copytree(STRANGERS / name, tmp_path / "theirs")


# What is refused.


def read_message(folder: Path) -> Any:
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def write_message(folder: Path, model: Any) -> None:
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_v1(tmp_path / "m", both, keys=("first", "second"))


def refusal(kind: type[PipelineError], folder: Path, key: str | None = None) -> PipelineError:
    with pytest.raises(kind) as caught:
        read_saved_model(folder, key)
    assert str(folder) in str(caught.value.where)
    return caught.value


def test_no_folder_and_no_message(saved: Path, tmp_path: Path) -> None:
    assert "not a folder" in refusal(CheckpointError, tmp_path / "none").what
    assert refusal(CheckpointError, saved / "variables").wanted == "saved_model.pb or saved_model.pbtxt in it"
    assert "m" in (refusal(CheckpointError, tmp_path).next_step or "").split(": ")[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x12\xff\xff\xff\x7fabc", "not a SavedModel, or a damaged one"),
        (v1.GraphDef(node=[{"name": "x", "op": "NoOp"}], library={}).SerializeToString(), "not a SavedModel"),
        (meta_graph_pb2.MetaGraphDef(graph_def={"node": [{"name": "x"}]}).SerializeToString(), "not a SavedModel"),
    ],
)
def test_another_file_under_its_name(saved: Path, content: bytes, said: str) -> None:
    (saved / "saved_model.pb").write_bytes(content)
    assert said in refusal(CheckpointError, saved).what


@pytest.mark.parametrize("content", [b"meta_graphs {", b"\xff\xfe", b"no text format"])
def test_a_text_that_is_none(saved: Path, content: bytes) -> None:
    (saved / "saved_model.pb").unlink()
    (saved / "saved_model.pbtxt").write_bytes(content)
    assert "not a SavedModel" in refusal(CheckpointError, saved).what


def test_truncated_anywhere(saved: Path) -> None:
    content = (saved / "saved_model.pb").read_bytes()
    for size in range(0, len(content), max(1, len(content) // 50)):
        (saved / "saved_model.pb").write_bytes(content[:size])
        with pytest.raises(PipelineError):
            read_saved_model(saved)


def test_no_graph_for_serving(tmp_path: Path) -> None:
    folder = save_v1(tmp_path / "m", lambda x: {"y": product(x)}, tags=("train",))
    error = refusal(CheckpointError, folder)
    assert error.got == "tags train"
    assert error.next_step == "Choose one by its tags: --tags train"
    with pytest.raises(CheckpointError, match=rf"\n  python -m pipeline freeze {folder} --tags train$"):
        freeze_any(folder)
    assert error.wanted == "the tag 'serve'"


def test_signatures_that_are_not_there(saved: Path, tmp_path: Path) -> None:
    assert refusal(FreezeError, saved, "frist").next_step == "did you mean 'first'?"
    assert refusal(FreezeError, saved).got == "first, second"
    none = save_v1(tmp_path / "n", lambda x: {}, keys=())
    assert read_saved_model(none).signature_key is None


def test_missing_variables(saved: Path) -> None:
    shutil.rmtree(saved / "variables")
    error = refusal(CheckpointError, saved, "first")
    assert "variables are missing" in error.what
    assert "old" in str(error.got)


def test_missing_and_damaged_files_of_the_variables(saved: Path) -> None:
    [data] = (saved / "variables").glob("*.data-*")
    os.rename(data, saved / "elsewhere")
    refusal(CheckpointError, saved, "first")
    os.rename(saved / "elsewhere", data)
    (saved / "variables" / "variables.index").unlink()
    refusal(CheckpointError, saved, "first")


@pytest.mark.parametrize("name", ["../words.txt", "/etc/hostname", "a/../../b"])
def test_assets_outside_of_the_folder_are_refused(saved: Path, name: str) -> None:
    model = read_message(saved)
    model.meta_graphs[0].asset_file_def.add(filename=name, tensor_info={"name": "Const:0"})
    write_message(saved, model)
    assert refusal(CheckpointError, saved, "first").got == name
