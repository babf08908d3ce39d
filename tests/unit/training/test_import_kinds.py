"""What freezing accepts, the chain accepts: the reference answers as TensorFlow's session on the original, and the
frozen file as the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import X

from pipeline.errors import FreezeError
from pipeline.formats import checkpoint as checkpoint_format
from pipeline.formats import frozen as frozen_format
from pipeline.freezing.freeze import freeze, freeze_checkpoint
from pipeline.inputs import ImportedCheckpoint
from pipeline.signature import Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.training.import_checkpoint import import_checkpoint

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def answers(
    tmp_path: Path, place: Path | str, feeds: Mapping[str, Array], outputs: Sequence[str] = (), **options: Any
) -> dict[str, Array]:
    """The answers of the frozen file, which are those of the reference bit by bit."""
    folders = [tmp_path / "imported", tmp_path / "frozen"]
    for folder in folders:
        folder.mkdir()
    import_checkpoint(ImportedCheckpoint(str(place), outputs=tuple(outputs), **options), None, 1, folders[0])
    freeze_checkpoint(*folders)
    signature = Signature.read(folders[0] / SIGNATURE_FILE)
    runners = [
        checkpoint_format.open_runner(folders[0], signature, 1),
        frozen_format.open_runner(folders[1], signature, 1),
    ]
    expected, actual = (runner.run(feeds) for runner in runners)
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], actual[name])
    return actual


def saved(place: Path | str, build: Callable[[], Any], **options: Any) -> None:
    """Saves a graph with its variables; `options` are the Saver's, without any the format is V2."""
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        v1.train.Saver(**options).save(session, str(place))


def saved_model(
    folder: Path,
    *graphs: tuple[Sequence[str], Callable[[], tuple[Any, Any]]],
    main_op: Callable[[], Any] = lambda: None,
) -> Path:
    """Saves graphs by their tags as one SavedModel of TensorFlow 1; each builds its signature's inputs and outputs."""
    builder = v1.saved_model.Builder(str(folder))
    for number, (tags, build) in enumerate(graphs):
        with tf.Graph().as_default(), v1.Session() as session:
            definition = v1.saved_model.predict_signature_def(*build())
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
            session.run(v1.tables_initializer())
            if number:
                builder.add_meta_graph(list(tags), {"serving_default": definition})
            else:
                builder.add_meta_graph_and_variables(
                    session, list(tags), {"serving_default": definition}, main_op=main_op()
                )
    builder.save()
    return folder


def _x() -> Any:
    return v1.placeholder(tf.float32, [None, 3], name="x")


def _weights(name: str = "w", value: Array = WEIGHTS, **options: Any) -> Any:
    return v1.get_variable(name, initializer=tf.constant(value), **{"use_resource": False, **options})


def test_shards_of_the_first_format_are_restored(tmp_path: Path) -> None:
    def build() -> None:
        with v1.variable_scope("parts", partitioner=v1.fixed_size_partitioner(3)):
            parts = _weights()
        tf.matmul(_x(), tf.convert_to_tensor(parts), name="y")

    saved(tmp_path / "model.ckpt-12", build, sharded=True, write_version=v1.train.SaverDef.V1)
    found = answers(tmp_path, tmp_path / "model.ckpt-12-00000-of-00001", {"x": X}, ["y"])
    np.testing.assert_array_equal(found["y"], X @ WEIGHTS)


def test_a_saved_model_without_variables_is_a_model(tmp_path: Path) -> None:
    def build() -> tuple[Any, Any]:
        return {"x": (x := _x())}, {"y": x @ tf.constant(WEIGHTS)}

    place = saved_model(tmp_path / "model", (["serve"], build))
    np.testing.assert_array_equal(answers(tmp_path, place, {"x": X})["y"], X @ WEIGHTS)


def test_a_frozen_file_is_a_reference_for_the_formats_that_are_made_of_it(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "given.pb")
    (tmp_path / "again").mkdir()
    found = answers(tmp_path / "again", tmp_path / "given.pb", {"x": X}, ["y"])
    expected = answers(tmp_path, tmp_path / "model.ckpt", {"x": X}, ["y"])
    np.testing.assert_array_equal(found["y"], expected["y"])


def test_an_old_variable_is_an_output_of_a_saved_model(tmp_path: Path) -> None:
    def build() -> tuple[Any, Any]:
        weights = _weights()
        return {"x": (x := _x())}, {"y": x @ weights, "weights": weights}

    found = answers(tmp_path, saved_model(tmp_path / "model", (["serve"], build)), {"x": X})
    np.testing.assert_array_equal(found["weights"], WEIGHTS)


def test_of_two_graphs_in_a_saved_model_the_one_for_serving_alone_is_run(tmp_path: Path) -> None:
    def build(factor: float) -> Callable[[], tuple[Any, Any]]:
        return lambda: ({"x": (x := _x())}, {"y": factor * (x @ _weights())})

    place = saved_model(tmp_path / "model", (["serve", "train"], build(3.0)), (["serve"], build(1.0)))
    np.testing.assert_array_equal(answers(tmp_path, place, {"x": X})["y"], X @ WEIGHTS)


def test_inner_tensors_and_placeholders_outside_of_the_signature_are_fed_and_fetched(tmp_path: Path) -> None:
    def build() -> tuple[Any, Any]:
        is_training, x, weights = v1.placeholder(tf.bool, [], name="is_training"), _x(), _weights(use_resource=True)
        hidden = tf.cond(is_training, lambda: x @ weights * 2.0, lambda: x @ weights)
        return {"x": x}, {"y": tf.nn.softmax(tf.identity(hidden, name="hidden"))}

    place = saved_model(tmp_path / "model", (["serve"], build))
    found = answers(tmp_path, place, {"x": X}, ["hidden"], pins={"is_training": "true"})
    np.testing.assert_array_equal(found["hidden"], X @ WEIGHTS * 2)


def test_slots_of_an_optimizer_that_tensorflow_2_does_not_know_are_no_hindrance(tmp_path: Path) -> None:
    module = tf.Module()
    module.w, module.optimizer = tf.Variable(WEIGHTS), v1.train.AdamOptimizer()
    module.optimizer.minimize(lambda: tf.reduce_sum(module.w**2))
    answer = tf.function(lambda x: {"y": x @ module.w}, [tf.TensorSpec([None, 3], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "model"), {"serving_default": answer})
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(tmp_path / "model"))
    found = answers(tmp_path, tmp_path / "model", {"x": X})
    np.testing.assert_array_equal(found["y"], X @ module.w.numpy())


def _table(*contents: Sequence[int]) -> Callable[[], None]:
    """Builds a graph with one table, filled by an op for each content: the numbers of two words."""

    def build() -> None:
        handle = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="words")
        for numbers in contents:
            values = tf.constant(numbers, tf.int64)
            tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=tf.constant(["a", "b"]), values=values)
        found = tf.raw_ops.LookupTableFindV2(
            table_handle=handle,
            keys=v1.placeholder(tf.string, [None], name="t"),
            default_value=tf.constant(0, tf.int64),
        )
        tf.gather(_weights(), found, name="y")

    return build


def test_a_table_is_filled_twice_by_equal_ops(tmp_path: Path) -> None:
    saved(tmp_path / "model.ckpt", _table([1, 2], [1, 2]))
    found = answers(tmp_path, tmp_path / "model.ckpt", {"t": np.array([b"b", b"c", b"a"], object)}, ["y"])
    np.testing.assert_array_equal(found["y"], WEIGHTS[[2, 0, 1]])


def test_a_table_that_is_filled_with_two_contents_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model.ckpt", _table([1, 2], [2, 1]))
    with pytest.raises(FreezeError, match="filled by 2 ops of the graph, not with the same"):
        freeze(tmp_path / "model.ckpt", ["y"], to=tmp_path / "model.pb")
