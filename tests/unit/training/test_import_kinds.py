"""What freezing accepts, the chain accepts: the reference answers as TensorFlow's session on the original, and the
frozen file as the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import small_graphs
import tensorflow as tf
from small_graphs import X

from pipeline.data.npz import NpzReader
from pipeline.data.table import read_rows
from pipeline.errors import CheckpointError, DataError, FreezeError
from pipeline.formats import checkpoint as checkpoint_format
from pipeline.formats import frozen as frozen_format
from pipeline.formats.whole_inputs import run_by_rows
from pipeline.freezing.freeze import freeze, freeze_checkpoint
from pipeline.inputs import Candidate, ImportedCheckpoint
from pipeline.settings import Settings
from pipeline.signature import Signature, TensorSpec, batch_size_of, by_rows, whole_inputs
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.file_names import SIGNATURE_FILE, VALIDATION_ROWS_FILE
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.parameters import Parameters
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


@pytest.mark.parametrize("tags", [("gpu",), ("big", "tpu"), ("none",)])
def test_a_graph_is_chosen_by_its_tags_and_without_them_the_refusal_names_the_options(
    tags: tuple[str, ...], tmp_path: Path
) -> None:
    factors = {("gpu",): 2.0, ("tpu", "big"): 3.0, (): 5.0}

    def build(factor: float) -> Callable[[], tuple[Any, Any]]:
        return lambda: ({"x": (x := _x())}, {"y": factor * (x @ _weights())})

    place = saved_model(tmp_path / "model", *((own, build(factor)) for own, factor in factors.items()))
    found = answers(tmp_path, place, {"x": X}, tags=tags)["y"]
    chosen = next(factor for own, factor in factors.items() if set(own) == set(tags) - {"none"})
    np.testing.assert_array_equal(found, chosen * (X @ WEIGHTS))
    for unclear in ((), ("cpu",)):
        with pytest.raises(CheckpointError, match=r"--tags gpu or --tags big,tpu or --tags none"):
            freeze(place, tags=unclear)
    found_there = freeze(place, to=tmp_path / "there.pb", tags=tags)
    assert found_there.variables == 1


@pytest.mark.parametrize("kind", ["names", "own keys", "no Saver", "SavedModel"])
def test_moving_averages_beside_the_variables_are_taken_by_the_reference_too(kind: str, tmp_path: Path) -> None:
    def build() -> tuple[Any, Any]:
        weights, average = _weights(), _weights("w/ExponentialMovingAverage", WEIGHTS + 1)
        assert average is not weights
        return {"x": (x := _x())}, {"y": tf.matmul(x, weights, name="y")}

    place = tmp_path / "model"
    if kind == "SavedModel":
        saved_model(place, (["serve"], build))
    elif kind == "own keys":
        with tf.Graph().as_default(), v1.Session() as session:
            build()
            weights, average = v1.global_variables()
            session.run(v1.global_variables_initializer())
            v1.train.Saver({"old/w": weights, "old/w/ExponentialMovingAverage": average}).save(session, str(place))
    else:
        saved(place, build)
    options: dict[str, Any] = {}
    if kind == "no Saver":
        with tf.Graph().as_default() as graph:
            build()
            tf.io.write_graph(graph, str(tmp_path), "graph.pbtxt")
        options["graph"] = tmp_path / "graph.pbtxt"
    outputs = [] if kind == "SavedModel" else ["y"]
    found = answers(tmp_path, place, {"x": X}, outputs, averages=True, **options)
    np.testing.assert_array_equal(found["y"], X @ (WEIGHTS + 1))
    (tmp_path / "raw").mkdir()
    raw = answers(tmp_path / "raw", place, {"x": X}, outputs, **options)
    np.testing.assert_array_equal(raw["y"], X @ WEIGHTS)


def test_a_checkpoint_whose_averages_are_taken_is_made_again_and_one_without_the_option_stays(tmp_path: Path) -> None:
    def build() -> None:
        weights, _ = _weights(), _weights("w/ExponentialMovingAverage", WEIGHTS + 1)
        tf.matmul(_x(), weights, name="y")

    saved(tmp_path / "model", build)
    given = Parameters(checkpoint=str(tmp_path / "model"), outputs="y", output_root=str(tmp_path / "out"))
    made = []
    for averages in ("", "no", "yes"):
        job = Job.from_parameters(replace(given, averages=averages), Settings())
        made.append(jobs.run(job, "frozen"))
    assert made == [{"checkpoint", "frozen"}, set(), {"checkpoint", "frozen"}]


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


def test_a_model_without_inputs_has_one_answer_and_its_rows_become_an_input(tmp_path: Path) -> None:
    def build() -> None:
        tf.nn.softmax(tf.constant(X, name="rows") @ _weights(), name="y")

    saved(tmp_path / "model.ckpt", build)
    job = jobs.imported_job(tmp_path / "out", tmp_path / "model.ckpt", outputs=("y",))
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert (verdict["verdict"], verdict["rows"]["validation"], verdict["rows"]["stable"]) == ("passed", 1, 1)
    [note] = verdict["notes"]["frozen"]
    assert "--inputs rows makes the constant rows an input" in note
    found = answers(tmp_path, tmp_path / "model.ckpt", {"rows": 2 * X}, ["y"], inputs=("rows",))
    np.testing.assert_array_equal(found["y"], tf.nn.softmax(2 * X @ WEIGHTS).numpy())


def _scaled(folder: Path) -> Path:
    """Writes a SavedModel of TensorFlow 2 with a scalar beside rows, and answers by row, by pair and by batch."""
    module = tf.Module()
    module.w = tf.Variable(WEIGHTS)

    def answer(x: Any, temperature: Any) -> Any:
        scores = x @ module.w / temperature
        return {"scores": scores, "pairs": scores @ tf.transpose(scores), "mean": tf.reduce_mean(scores)}

    specs = [tf.TensorSpec([None, 3], tf.float32, name="x"), tf.TensorSpec([], tf.float32, name="temperature")]
    tf.saved_model.save(module, str(folder), {"serving_default": tf.function(answer, specs)})
    return folder


def test_scalars_beside_rows_and_answers_that_are_not_by_row_are_compared(tmp_path: Path) -> None:
    job = jobs.imported_job(tmp_path / "out", _scaled(tmp_path / "model"))
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed"
    assert {(one["check"], one["output"]) for one in verdict["checks"]} >= {
        (check, output) for check in ("equal", "edge", "generated") for output in ("scores", "pairs", "mean")
    }
    assert [name for name in verdict["skipped"] if name.startswith("stable")] == ["stable of mean"]
    rows = NpzReader(job.folder("checkpoint") / VALIDATION_ROWS_FILE, "input")
    np.testing.assert_array_equal(rows.read(0, 64)["temperature"], np.ones(64, np.float32))


def test_a_candidate_that_ignores_a_scalar_is_found(tmp_path: Path) -> None:
    """At the made-up value 1 both agree; the other made-up values tell them apart."""
    place = _scaled(tmp_path / "model")
    freeze(place, ["scores"], pins={"temperature": "1"}, to=tmp_path / "pinned.pb")
    graph = v1.GraphDef.FromString((tmp_path / "pinned.pb").read_bytes())
    graph.node.add(name="temperature", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    (tmp_path / "pinned.pb").write_bytes(graph.SerializeToString())
    job = jobs.imported_job(tmp_path / "out", place, outputs=("scores",))
    candidate = Candidate(tmp_path / "pinned.pb", "frozen", {"temperature": "temperature"})
    jobs.run(job := replace(job, candidate=candidate), "validation")
    verdict = results.read_verdict(job)
    failed = {one["check"] for one in verdict["checks"] if one["verdict"] != "passed"}
    assert "generated" in failed
    assert "equal" not in failed


def test_a_pin_by_the_name_in_the_signature_holds_for_the_reference_too(tmp_path: Path) -> None:
    job = jobs.imported_job(tmp_path / "out", _scaled(tmp_path / "model"), pins={"temperature": "10"})
    jobs.run(job, "validation")
    assert results.read_verdict(job)["verdict"] == "passed"
    found = frozen_format.open_runner(job.folder("frozen"), Signature.read(job.folder("frozen") / SIGNATURE_FILE), 1)
    np.testing.assert_allclose(found.run({"x": X})["scores"], X @ WEIGHTS / 10, rtol=1e-6)


def test_rows_of_a_table_may_have_their_own_values_of_a_scalar(tmp_path: Path) -> None:
    """Rows of equal values are run together, and each has its answer."""
    calls = list[int]()

    class Scaled:
        def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
            assert batch["t"].shape == ()
            calls.append(len(batch["x"]))
            return {"y": batch["x"] * batch["t"], "sum": batch["x"].sum()}

    signature = Signature(
        (TensorSpec("x", "float32", (None,)), TensorSpec("t", "float32", ())), (TensorSpec("y", "float32", (None,)),)
    )
    x, t = np.arange(1, 6, dtype=np.float32), np.array([1, 2, 1, 3, 2], np.float32)
    found = run_by_rows(Scaled(), signature).run({"x": x, "t": t})
    np.testing.assert_array_equal(found["y"], x * t)
    np.testing.assert_array_equal(found["sum"], [4, 7, 4])
    assert calls == [2, 2, 1]


def test_a_graph_of_nodes_and_edges_is_one_value(tmp_path: Path) -> None:
    """Numbers of rows in one input make all inputs one value, which is a row of the checks, whatever its lengths."""

    def build() -> tuple[Any, Any]:
        nodes, edges = _x(), v1.placeholder(tf.int32, [None, 2], name="edges")
        messages = tf.gather(nodes @ _weights(), edges[:, 0])
        y = tf.math.unsorted_segment_sum(messages, edges[:, 1], tf.shape(nodes)[0])
        return {"nodes": nodes, "edges": edges}, {"y": y}

    job = jobs.imported_job(tmp_path / "out", saved_model(tmp_path / "model", (["serve"], build)))
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed"
    assert verdict["rows"]["validation"] == verdict["rows"]["stable"] == 16
    assert verdict["rows"]["edge"] > 0
    assert not verdict["skipped"].keys() & {"edge", "generated", "stable"}
    nodes, edges = np.eye(3, dtype=np.float32), np.array([[0, 1], [1, 2], [0, 2], [2, 2]], np.int32)
    np.savez(tmp_path / "graph.npz", nodes=nodes, edges=edges)
    job = replace(job, paths=ArtifactPaths(tmp_path / "given", "foreign"), data=tmp_path / "graph.npz")
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert (verdict["verdict"], verdict["rows"]["validation"]) == ("passed", 1)
    signature = Signature.read(job.folder("frozen") / SIGNATURE_FILE)
    runner = run_by_rows(frozen_format.open_runner(job.folder("frozen"), signature, 1), signature)
    y = runner.run({"nodes": nodes[None], "edges": edges[None]})["y"][0]
    np.testing.assert_array_equal(y, [[0, 0], WEIGHTS[0], WEIGHTS[0] + WEIGHTS[1] + WEIGHTS[2]])
    np.savez(tmp_path / "graph.npz", nodes=nodes[:, :2], edges=edges)
    with pytest.raises(DataError, match=r"nodes: .*wrong shape .got \[3, 2\].*one value together"):
        read_rows(tmp_path / "graph.npz", signature)


@pytest.mark.parametrize(
    ("shapes", "whole", "size"),
    [
        ({"x": (None, 4), "t": ()}, {"t"}, None),
        ({"x": (32, 4), "t": ()}, {"t"}, 32),
        ({"x": (32, 4), "state": (32, 8)}, set(), 32),
        ({"x": (None, 4), "weights": (2,), "mask": (4,)}, {"weights", "mask"}, None),
        ({"x": (1, 4), "state": (2, 1, 8)}, {"state"}, 1),
        ({"a": (3, 4), "b": (4, 5)}, {"a", "b"}, 1),
        ({"a": (), "b": ()}, {"a", "b"}, 1),
        ({}, set(), 1),
    ],
)
def test_inputs_with_one_value_for_all_rows_are_told_by_their_shapes(
    shapes: dict[str, tuple[int | None, ...]], whole: set[str], size: int | None
) -> None:
    inputs = tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items())
    signature = Signature(inputs, (TensorSpec("y", "float32", (None,)),))
    assert whole_inputs(signature) == whole
    assert batch_size_of(signature) == batch_size_of(by_rows(signature)) == size
    assert not whole_inputs(by_rows(signature))


@pytest.mark.parametrize("is_resource", [True, False])
def test_what_loading_assigns_is_the_variable_that_was_restored(tmp_path: Path, is_resource: bool) -> None:
    """An export that takes the moving averages for the weights, and one that assigns to a variable what it has."""
    made = list[Any]()

    def build() -> tuple[Any, Any]:
        made[:] = [
            _weights(name, value, use_resource=is_resource)
            for name, value in (("w", WEIGHTS), ("b", WEIGHTS[0]), ("average", 3 * WEIGHTS))
        ]
        return {"x": (x := _x())}, {"y": x @ made[0] + made[1]}

    def assign() -> Any:
        return v1.group(v1.assign(made[0], made[2]), v1.assign(made[1], made[1]))

    found = answers(tmp_path, saved_model(tmp_path / "model", (["serve"], build), main_op=assign), {"x": X})
    np.testing.assert_array_equal(found["y"], 3 * (X @ WEIGHTS) + WEIGHTS[0])


def test_variables_that_loading_assigns_to_each_other_are_refused(tmp_path: Path) -> None:
    made = list[Any]()

    def build() -> tuple[Any, Any]:
        made[:] = [_weights("w"), _weights("u", 2 * WEIGHTS)]
        return {"x": (x := _x())}, {"y": x @ made[0]}

    def swap() -> Any:
        return v1.group(v1.assign(made[0], made[1]), v1.assign(made[1], made[0]))

    place = saved_model(tmp_path / "model", (["serve"], build), main_op=swap)
    with pytest.raises(FreezeError, match="changes a variable after it is restored"):
        freeze(place, to=tmp_path / "model.pb")
