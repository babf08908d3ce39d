"""The door to freezing: files that appear whole or not at all, and what is told of them."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import small_graphs
import tensorflow as tf

import pipeline
from pipeline import cli
from pipeline.errors import CheckpointError, FreezeError, PipelineError, SettingError, StoreError, UnsafeModel
from pipeline.freezing.inspection import inspect
from pipeline.signature import Signature

v1 = tf.compat.v1


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    small_graphs.save(tmp_path / "in" / "model.ckpt", wide)
    return tmp_path / "in" / "model.ckpt"


def wide(x: Any) -> None:
    """A model with one variable large enough for a file of its own, and a table."""
    draw = np.random.default_rng(5)
    w = v1.get_variable("w", initializer=tf.constant(draw.normal(size=(3, 20_000)).astype(np.float32)))
    v = v1.get_variable("v", initializer=tf.constant(draw.normal(size=(20_000, 2)).astype(np.float32)))
    tf.identity(tf.tanh(x @ w) @ v, name="y")
    initializer = tf.lookup.KeyValueTensorInitializer([b"a", b"b"], np.array([1, 2], np.int64))
    table = tf.lookup.StaticHashTable(initializer, -1)
    tf.identity(table.lookup(v1.placeholder(tf.string, [None], name="words")), name="ids")


def test_the_signature_tells_what_is_fed_fetched_and_where_it_comes_from(prefix: Path, tmp_path: Path) -> None:
    done = pipeline.freeze(prefix, ["y", "ids"], to=tmp_path / "out")
    assert done.path == tmp_path / "out"
    beside = tmp_path / "out.signature.json"
    assert Signature.read(beside) == done.signature
    assert [str(spec) for spec in done.signature.inputs] == ["x float32 [?, 3]", "words string [?]"]
    assert [str(spec) for spec in done.signature.outputs] == ["y float32 [?, 2]", "ids int64 [?]"]
    origin = json.loads(beside.read_text())["origin"]
    assert origin == done.origin
    assert origin["checkpoint"]["name"] == "model.ckpt"
    assert [(table["keys"], table["values"]) for table in origin["tables"]] == [("string", "int64")]
    assert origin["outputs"]["y"] == {"tensor": "y:0", "op": "Identity", "inputs": ["x"], "variables": ["v", "w"]}
    assert origin["outputs"]["ids"]["inputs"] == ["words"]
    assert origin["outputs"]["ids"]["variables"] == []
    assert (origin["pins"], origin["weights"]) == ({}, "exact")


def test_a_checkpoint_of_other_weights_has_another_digest_and_the_same_one_the_same_file(tmp_path: Path) -> None:
    texts = []
    for place, scale in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        small_graphs.save(tmp_path / place / "model.ckpt", lambda x, by=scale: scaled(x, by))
        pipeline.freeze(tmp_path / place, ["y"], to=tmp_path / place)
        texts.append((tmp_path / place / "signature.json").read_text())
    assert texts[0] == texts[1]
    digests = [json.loads(text)["origin"]["checkpoint"]["index_sha256"] for text in texts]
    assert digests[0] != digests[2]


def scaled(x: Any, by: float) -> None:
    tf.multiply(x, v1.get_variable("w", initializer=by), name="y")


def test_outputs_are_found_if_none_is_named_and_the_reasons_are_given(prefix: Path, tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "plain" / "model.ckpt")
    done = pipeline.freeze(tmp_path / "plain", to=tmp_path / "plain.pb")
    assert [spec.name for spec in done.signature.outputs] == ["y"]
    assert any(note.startswith("output y: AddV2, float32 [?, 2]; feeds nothing") for note in done.notes)


def test_what_is_not_clear_is_an_error_with_a_command_for_each_candidate(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        kept = v1.placeholder(tf.float32, name="dropout")  # the share that is kept, as in releases before 1.13
        hidden = v1.nn.dropout(small_graphs.product(x), kept)
        tf.nn.l2_normalize(hidden, 1, name="embedding")
        logits = tf.matmul(hidden, v1.get_variable("last", [2, 2]), name="logits")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))

    small_graphs.save(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match=r"not clear(.|\n)*embedding: Mul") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    assert not list(tmp_path.glob("*.pb"))
    commands = [line.strip() for line in str(caught.value).splitlines() if "python -m" in line]
    assert {name for command in commands for name in re.findall(r"--outputs (\S+)", command)} >= {"embedding", "logits"}
    assert "--outputs embedding,logits" in commands[0]
    assert all("--pin dropout=1" in command for command in commands)
    assert commands == list(inspect(tmp_path).commands)
    for command in commands:
        run_printed(command, tmp_path / "model.pb")
        signature = Signature.read(tmp_path / "signature.json")
        assert [spec.name for spec in signature.inputs] == ["x"]


def run_printed(command: str, to: Path) -> None:
    """Runs a command that a message gave, as it is typed."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "pipeline"]
    assert cli.main([*words[3:], "-o", str(to)]) == 0


def dropped(x: Any, keep: Any, is_training: Any = None) -> None:
    """A layer, dropout, batch norm if a mode is given, and a layer."""
    h = v1.nn.dropout(small_graphs.product(x), keep)
    if is_training is not None:
        mean = v1.get_variable("mean", [2], trainable=False)
        h -= v1.cond(is_training, lambda: tf.reduce_mean(h, 0), lambda: tf.identity(mean))
    tf.nn.softmax(tf.matmul(h, v1.get_variable("last", [2, 2])), name="y")


def test_all_that_is_needed_is_told_at_once_as_a_command_that_works(tmp_path: Path) -> None:
    def build(_: Any) -> None:
        rows = np.ones([64, 3], np.float32), np.zeros([64], np.int64)
        x, labels = v1.train.batch([*v1.train.slice_input_producer(rows)], 16, name="rows/batch")
        keep, is_training = v1.placeholder(tf.float32, name="keep"), v1.placeholder(tf.bool, [], name="is_training")
        dropped(x, keep, is_training)
        v1.metrics.accuracy(labels, tf.argmax(v1.get_default_graph().get_tensor_by_name("y:0"), 1))

    with small_graphs.control_flow(False):
        save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError) as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = commands.asked(caught.value)
    assert "--inputs rows/batch --pin keep=1,is_training=false" in command
    assert "add --inputs rows/batch --pin keep=1,is_training=false" in str(caught.value).lower()
    assert list(inspect(tmp_path).lines())[-1].strip() == command
    run_printed(command, tmp_path / "model.pb")
    [x] = Signature.read(tmp_path / "signature.json").inputs
    assert (x.tensor_name, x.shape) == ("rows/batch:0", (None, 3))
    fetches = {"rows/batch:0": np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)}
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{tmp_path}/model.ckpt.meta").restore(session, f"{tmp_path}/model.ckpt")
        wanted = session.run("y:0", {**fetches, "keep:0": 1.0, "is_training:0": False})
    assert np.array_equal(small_graphs.answer(tmp_path / "model.pb", fetches), wanted)
    five = {"rows/batch:0": fetches["rows/batch:0"][:5]}
    assert np.allclose(small_graphs.answer(tmp_path / "model.pb", five), wanted[:5], rtol=1e-6)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (lambda x: tf.reshape(x, [16, 3, 1]), r"rows keeps its batch of 16: end/\w+ \(Reshape\)"),
        (lambda x: x + tf.constant(np.ones([16, 3], np.float32)), r"rows keeps its batch of 16: end/\w+ \(AddV2\)"),
        (lambda x: tf.reduce_sum(x, 0), r"rows keeps its batch of 16: end/\w+ \(Sum\) combines the rows"),
        (lambda x: tf.reshape(x, [-1, 1, 3]), "rows takes any number of rows"),
        (lambda x: tf.concat([x, tf.transpose(tf.reshape(x, [-1, 1, 3])[:, 0], [0, 1])], 1), "rows takes any number"),
    ],
)
def test_a_batch_is_opened_only_where_no_op_has_it_written(
    last: Callable[[Any], Any], told: str, tmp_path: Path
) -> None:
    def build(_: Any) -> None:
        x = v1.train.batch([v1.train.slice_input_producer([np.ones([64, 3], np.float32)])[0]], 16, name="rows")
        with v1.name_scope("end"):
            last(x * v1.get_variable("w", [3]))

    with small_graphs.control_flow(False):
        save_untold(tmp_path / "model.ckpt", build)
    done = pipeline.freeze(tmp_path, inputs=["rows"], to=tmp_path / "model.pb")
    assert any(re.search(told, note) for note in done.notes)


def save_untold(prefix: Path, build: Callable[[Any], None]) -> None:
    """Saves a graph without running it."""
    with tf.Graph().as_default(), v1.Session() as session:
        build(None)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))


def test_a_dropout_that_is_off_by_default_freezes_to_what_it_does(tmp_path: Path) -> None:
    wanted = small_graphs.save(
        tmp_path / "model.ckpt", lambda x: dropped(x, v1.placeholder_with_default(1.0, [], name="keep"))
    )
    done = pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    assert "keep is pinned to its default, 1" in done.notes
    assert not any("pin it with" in note for note in done.notes)  # which would contradict it
    assert done.origin["pins"] == {"keep": "1"}
    assert np.array_equal(small_graphs.answer(done.path), wanted)


@pytest.mark.parametrize("has_other", [True, False])
def test_a_training_graph_that_assigns_the_ranges_of_fake_quant_is_answered_at_once(
    has_other: bool, tmp_path: Path
) -> None:
    def build(is_training: bool) -> None:
        h = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        low, high = (v1.get_variable(name, [], initializer=v1.zeros_initializer()) for name in ("low", "high"))
        if is_training:
            low, high = v1.assign(low, tf.reduce_min(h)), v1.assign_add(high, tf.reduce_max(h))
        tf.nn.softmax(tf.quantization.fake_quant_with_min_max_vars(h, low, high), name="prob")

    save_untold(tmp_path / "model.ckpt", lambda _: build(True))
    if has_other:
        with tf.Graph().as_default() as graph:
            build(False)
            tf.io.write_graph(graph, str(tmp_path), "evaluation.pbtxt")
    with pytest.raises(FreezeError, match="training graph of quantization-aware training") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    told = [line.strip() for line in str(caught.value).splitlines() if "pipeline freeze" in line]
    assert "--inputs" not in str(caught.value)
    assert len(told) == has_other == len(inspect(tmp_path).commands)
    for command in told:
        assert cli.main([*shlex.split(command)[3:], "-o", str(tmp_path / "told.pb")]) == 0


def test_an_op_that_is_to_be_allowed_and_a_mode_are_answered_by_one_command(tmp_path: Path) -> None:
    def build(_: Any) -> None:
        rate = v1.placeholder(tf.float32, [], name="hidden_share")
        h = tf.nn.dropout(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")), rate=rate)
        with tf.control_dependencies([v1.write_file("log.txt", "text")]):
            tf.nn.softmax(h, name="prob")

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(UnsafeModel) as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = commands.asked(caught.value)
    assert "--allow-ops WriteFile" in command
    assert cli.main([*shlex.split(command)[3:], "-o", str(tmp_path / "told.pb")]) == 0
    with pytest.raises(UnsafeModel, match=r"--allow-ops WriteFile --outputs prob --pin hidden_share=0$"):
        pipeline.freeze(tmp_path, ["prob"], to=tmp_path / "model.pb")
    assert any("--pin hidden_share=0" in line for line in inspect(tmp_path).inputs)


@pytest.mark.parametrize("has_two", [False, True])
def test_python_code_on_the_way_is_answered_with_the_command_that_cuts_it_away(has_two: bool, tmp_path: Path) -> None:
    def build(_: Any) -> None:
        texts = v1.placeholder(tf.string, [None], name="texts")
        given = v1.py_func(lambda _: None, [texts], [tf.float32] * (1 + has_two), name="fingerprint")
        for one in given:
            one.set_shape([None, 3])
        tf.nn.softmax(small_graphs.product(tf.add_n(given)), name="prob")

    save_untold(tmp_path / "model.ckpt", build)
    inputs = ["fingerprint", "fingerprint:1"][: 1 + has_two]
    with pytest.raises(UnsafeModel, match=r"A \.pb cannot carry Python code: .* becomes an input") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = commands.asked(caught.value)
    assert command.endswith(f"--outputs prob --inputs {','.join(inputs)}")
    assert "--allow-ops" not in command  # what is cut away is not run
    run_printed(command, tmp_path / "model.pb")
    [ops] = re.findall(r"could call Python code: op (\w+)", str(caught.value))
    with pytest.raises(FreezeError, match=r"a \.pb cannot carry") as refused:  # nothing is left out of the next command
        pipeline.freeze(tmp_path, allow_ops=[ops], to=tmp_path / "model.pb")
    assert commands.asked(refused.value) == [command.replace(" --out", f" --allow-ops {ops} --out")]


def test_a_reader_of_files_that_feeds_the_rows_is_cut_away_and_one_behind_other_outputs_is_not_asked_for(
    tmp_path: Path,
) -> None:
    def build(_: Any) -> None:
        read = tf.io.decode_raw(tf.io.read_file("rows.bin"), tf.float32)
        rows = tf.identity(tf.reshape(read, [-1, 3]), name="rows")
        tf.nn.softmax(small_graphs.product(rows), name="prob")
        tf.identity(tf.io.read_file("labels.txt"), name="labels")

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(UnsafeModel, match=r"op ReadFile in node ReadFile\. If you trust it, allow it with"):
        pipeline.freeze(tmp_path, ["prob"], to=tmp_path / "model.pb")
    done = pipeline.freeze(tmp_path, ["prob"], ["rows"], to=tmp_path / "model.pb")
    assert "left out, for no output needs it: op ReadFile in node ReadFile (could read files)" in done.notes
    with pytest.raises(UnsafeModel, match=r"op ReadFile in node ReadFile_1\."):
        pipeline.freeze(tmp_path, ["prob", "labels"], ["rows"], to=tmp_path / "model.pb")


def test_rows_that_the_author_named_are_the_input_in_place_of_the_iterator(tmp_path: Path) -> None:
    def build(_: Any) -> None:
        rows = tf.data.Dataset.from_tensor_slices((tf.zeros([40, 3]), tf.zeros([40], tf.int32)))
        x, y = v1.data.make_initializable_iterator(rows.batch(8, drop_remainder=True)).get_next()
        z = small_graphs.product(tf.identity(x, "pictures"))
        tf.nn.softmax(z, name="prob")
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.identity(y), logits=z)
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match="reads rows from a queue") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = commands.asked(caught.value)
    assert command.endswith("--outputs prob --inputs pictures")
    run_printed(command, tmp_path / "model.pb")
    given = small_graphs.answer(tmp_path / "model.pb", {"pictures:0": small_graphs.X}, "prob:0")
    w, b = (tf.train.load_variable(str(tmp_path), name) for name in "wb")
    wanted = np.exp(small_graphs.X @ w + b)
    assert np.allclose(given, wanted / wanted.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_python_code_in_a_function_is_said_to_be_none_that_can_be_allowed(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable([[1.0], [2.0]])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def predict(x: Any) -> Any:
        given = tf.numpy_function(lambda rows: rows, [x], tf.float32)
        return {"y": tf.ensure_shape(given, [None, 2]) @ module.w}

    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=predict)
    with pytest.raises(UnsafeModel, match=r"Allowing it does not help: .*Python code, which a \.pb cannot carry"):
        pipeline.freeze(tmp_path / "saved", to=tmp_path / "model.pb")


def dropped_as_of_old(x: Any) -> Any:
    """Dropout as releases up to 1.13 wrote it: floor(keep + draw)."""
    with v1.name_scope("dropout"):
        keep = tf.constant(0.8)
        return tf.divide(x, keep) * tf.floor(keep + tf.random.uniform(tf.shape(x)))


def dropped_as_of_1_15(x: Any) -> Any:
    """Dropout as release 1.15 wrote it: one constant, of which the scale is made."""
    with v1.name_scope("dropout"):
        rate = tf.constant(0.4, name="rate")
        return x * (1.0 / (1.0 - rate)) * tf.cast(tf.random.uniform(tf.shape(x)) >= rate, tf.float32)


@pytest.mark.parametrize("drop", [lambda x: tf.nn.dropout(x, rate=0.5), dropped_as_of_old, dropped_as_of_1_15])
def test_a_dropout_without_a_switch_is_said_to_be_one_of_training_and_is_switched_off_by_the_command(
    drop: Callable[[Any], Any], tmp_path: Path
) -> None:
    def build(_: Any) -> None:
        h = drop(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")))
        z = tf.matmul(h, v1.get_variable("last", [2, 2]), name="z")
        labels = v1.placeholder(tf.float32, [None, 2], name="labels")  # gradients take the masks too
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean((z - labels) ** 2))

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match="training graph: a dropout without a switch always draws") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = re.findall(r"dropout switched off, .*\n +(.*)", str(caught.value))
    run_printed(command, tmp_path / "model.pb")
    given = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    w, b, last = (tf.train.load_variable(str(tmp_path), name) for name in ("w", "b", "last"))
    answer = small_graphs.answer(tmp_path / "model.pb", {"x:0": given}, "z:0")
    assert np.allclose(answer, (given @ w + b) @ last, rtol=1e-5, atol=1e-5)


def test_a_batch_norm_that_always_takes_the_batch_is_named_before_the_commands(tmp_path: Path) -> None:
    def build(_: Any) -> None:
        h = tf.reshape(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")), [-1, 1, 1, 2])
        scale, offset = (v1.get_variable(name, [2]) for name in ("gamma", "beta"))
        h = v1.nn.fused_batch_norm(h, scale, offset, is_training=True, name="norm")[0]
        tf.matmul(tf.nn.dropout(tf.reshape(h, [-1, 2]), rate=0.5), v1.get_variable("last", [2, 2]), name="z")

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(
        FreezeError, match=r"built for training: .*\(node norm\).*--graph\)(.|\n)*switched off"
    ) as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    run_printed(commands.asked(caught.value)[0], tmp_path / "model.pb")


def test_a_mask_that_is_drawn_but_not_scaled_is_no_dropout(tmp_path: Path) -> None:
    def build(_: Any) -> None:
        h = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")) * 3.0
        h *= tf.cast(tf.random.uniform(tf.shape(h)) >= 0.5, tf.float32)
        tf.matmul(h, v1.get_variable("last", [2, 2]), name="z")

    save_untold(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    assert "switched off" not in str(caught.value)


@pytest.mark.parametrize("draw", ["random_normal", "truncated_normal"])
@pytest.mark.parametrize("is_argument", [False, True], ids=["beside", "argument"])
def test_noise_whose_deviation_is_0_is_none(draw: str, is_argument: bool, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        deviation = v1.placeholder_with_default(0.0, [], name="noise_stddev")
        drawn = getattr(v1, draw)
        noise = drawn(tf.shape(x), stddev=deviation) if is_argument else drawn(tf.shape(x)) * deviation
        return small_graphs.product(x + noise)

    wanted = small_graphs.save(tmp_path / "model.ckpt", build)
    done = pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    assert done.origin["pins"] == {"noise_stddev": "0"}
    assert np.array_equal(small_graphs.answer(done.path), wanted)
    with pytest.raises(FreezeError, match="draws random numbers"):
        pipeline.freeze(tmp_path, pins={"noise_stddev": "0.5"}, to=tmp_path / "noisy.pb")


@pytest.mark.parametrize("is_v2", [False, True])
def test_a_batch_norm_is_pinned_to_the_branch_that_does_not_look_at_the_batch(is_v2: bool, tmp_path: Path) -> None:
    def build(x: Any) -> None:
        mode = v1.placeholder(tf.bool, [], name="mode")  # the name does not tell
        h = tf.reshape(small_graphs.product(x), [-1, 1, 1, 2])
        gamma, beta = (v1.get_variable(name, [2]) for name in ("gamma", "beta"))
        mean, spread = (v1.get_variable(name, [2], initializer=v1.ones_initializer()) for name in ("mean", "spread"))
        y = v1.cond(
            mode,
            lambda: v1.nn.fused_batch_norm(h, gamma, beta, mean, spread, is_training=False)[0],
            lambda: v1.nn.fused_batch_norm(h, gamma, beta, is_training=True)[0],
        )
        tf.identity(y, name="normalized")

    with small_graphs.control_flow(is_v2):
        save_untold(tmp_path / "model.ckpt", lambda _: build(v1.placeholder(tf.float32, [None, 3], name="x")))
    [command] = inspect(tmp_path).commands
    assert command.endswith("--outputs normalized --pin mode=true")


def test_moving_averages_beside_the_variables_are_told_and_taken_if_asked(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        applied = v1.train.ExponentialMovingAverage(0.5).apply(v1.trainable_variables())
        session.run(v1.global_variables_initializer())
        session.run([v1.assign_add(variable, tf.ones_like(variable)) for variable in v1.trainable_variables()])
        session.run(applied)
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        averages = session.run([v for v in v1.global_variables() if v.op.name.endswith("ExponentialMovingAverage")])
    done = pipeline.freeze(tmp_path, to=tmp_path / "own.pb")
    assert any("moving averages of 2 variables" in note and "--averages" in note for note in done.notes)
    taken = pipeline.freeze(tmp_path, to=tmp_path / "averages.pb", averages=True)
    assert np.allclose(small_graphs.answer(taken.path), small_graphs.X @ averages[0] + averages[1], rtol=1e-5)
    assert not np.array_equal(small_graphs.answer(done.path), small_graphs.answer(taken.path))


def test_a_draw_before_the_last_layer_is_answered_by_what_stands_before_it(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        mean = tf.identity(small_graphs.product(x), "mean")
        z = mean + 0.1 * tf.random.normal(tf.shape(mean), name="noise")
        tf.sigmoid(tf.matmul(z, v1.get_variable("decoder", [2, 3])), name="image")

    save_untold(tmp_path / "model.ckpt", lambda _: build(v1.placeholder(tf.float32, [None, 3], name="x")))
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    printed = commands.asked(caught.value)
    assert [command.split("--", 1)[1] for command in printed] == [
        "outputs mean",
        "outputs image --inputs noise/RandomStandardNormal",
    ]
    for command in printed:
        run_printed(command, tmp_path / "model.pb")


@pytest.mark.parametrize("weights", ["exact", "float16"])
@pytest.mark.parametrize("format", ["frozen", "mmap"])
def test_every_format_and_precision_answers_alike(prefix: Path, tmp_path: Path, format: str, weights: str) -> None:
    wanted = small_graphs.answer(pipeline.freeze(prefix, ["y"], to=tmp_path / "exact.pb").path)
    done = pipeline.freeze(prefix, ["y"], to=tmp_path / "made", format=format, weights=weights)
    if format == "mmap":
        assert {path.name for path in done.path.iterdir()} == {"graph.pb", "weights", "signature.json"}
        with pipeline.load_mmap(done.path) as session:
            got = session.run("y:0", {"x:0": small_graphs.X})
    else:
        got = small_graphs.answer(done.path)
    size = sum(path.stat().st_size for path in [done.path, *done.path.rglob("*")] if path.is_file())
    assert 99_000 * (2 if weights == "float16" else 4) < size < 102_000 * (2 if weights == "float16" else 4)
    bound = 1e-5 if weights == "exact" else 1e-1
    np.testing.assert_allclose(got, wanted, rtol=bound, atol=bound)
    assert done.variables == 2
    assert done.origin["weights"] == weights


def test_a_folder_of_mapped_weights_replaces_one_of_its_kind_and_nothing_else(prefix: Path, tmp_path: Path) -> None:
    place = tmp_path / "made"
    pipeline.freeze(prefix, ["y"], to=place, format="mmap", weights="float16")
    (place / "weights" / "left over").write_text("x")
    pipeline.freeze(prefix, ["y"], to=place, format="mmap")
    assert len(list((place / "weights").iterdir())) == 2
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else is at the place of the folder"):
        pipeline.freeze(prefix, ["y"], to=other, format="mmap")
    assert (other / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "made", "mine"]


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": lambda data: data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:]),
    "cut": lambda data: os.truncate(data, 1000),
    "missing": lambda data: data.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format", ["frozen", "mmap"])
def test_damage_leaves_what_was_there_and_nothing_half_written(
    prefix: Path, tmp_path: Path, format: str, damage: str
) -> None:
    place = tmp_path / "made"
    pipeline.freeze(prefix, ["y"], to=place, format=format)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "in" not in path.parts}
    DAMAGES[damage](Path(f"{prefix}.data-00000-of-00001"))
    with pytest.raises(CheckpointError):
        pipeline.freeze(prefix, ["y"], to=place, format=format)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "in" not in path.parts}
    assert after == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "mnap"}, "unknown format .got mnap.. Did you mean 'mmap'"),
        ({"weights": "half"}, "unknown weights .got half"),
    ],
)
def test_unknown_words_are_refused(prefix: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        pipeline.freeze(prefix, ["y"], to=tmp_path / "made.pb", **options)


def test_a_place_that_cannot_be_written_is_said(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for format in ("frozen", "mmap"):
        with pytest.raises(StoreError, match="cannot be written"):
            pipeline.freeze(prefix, ["y"], to=tmp_path / "file" / "made", format=format)


def test_a_graph_without_inputs_can_be_frozen(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.identity(v1.get_variable("w", initializer=[1.0, 2.0]) * 2, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    done = pipeline.freeze(tmp_path, ["y"], to=tmp_path / "model.pb")
    assert done.signature.inputs == ()
    assert small_graphs.answer(done.path, {}).tolist() == [2.0, 4.0]


def test_an_output_that_no_one_can_fetch_is_refused(prefix: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline.freeze(prefix, ["save/restore_all"], to=tmp_path / "made.pb")
    assert caught.value.where
    assert not list(tmp_path.glob("*.pb"))


def test_the_command_does_the_same_and_says_what_it_did(prefix: Path, tmp_path: Path) -> None:
    done = commands.pipeline("freeze", str(prefix), "--outputs", "y", "-o", str(tmp_path / "a.pb"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "input        x float32 [?, 3]",
        "output       y float32 [?, 2]",
        "frozen       2 variables, 9 nodes",
        str(tmp_path / "a.pb"),
    ]
    pipeline.freeze(prefix, ["y"], to=tmp_path / "b.pb")
    assert (tmp_path / "a.pb").read_bytes() == (tmp_path / "b.pb").read_bytes()
    convert_to_float16 = commands.pipeline(
        *("freeze", str(prefix), "--outputs", "y", "--format", "mmap", "--weights", "float16"),
        *("-o", str(tmp_path / "folder")),
    )
    assert convert_to_float16.returncode == 0
    assert (tmp_path / "folder" / "graph.pb").is_file()
    again = commands.pipeline("freeze", str(tmp_path / "a.pb"))
    assert again.returncode == 0
    assert "frozen already, nothing to do" in again.stdout
    wrong = commands.pipeline(
        "freeze", str(prefix), "--outputs", "y", "--pin", "training", "-o", str(tmp_path / "c.pb")
    )
    assert (wrong.returncode, wrong.stderr) == (3, "--pin: not a pair (got training, wanted NAME=VALUE)\n")


def test_the_package_says_what_it_has() -> None:
    assert {"freeze", "inspect", "load_mmap", "FreezeModel"} <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="no attribute 'freez'"):
        _ = pipeline.freez


def test_the_outputs_of_an_iterator_become_inputs_under_their_names(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        rows = tf.data.Dataset.from_tensors((np.zeros([2, 3], np.float32), np.zeros(3, np.float32)))
        first, second = v1.data.make_initializable_iterator(rows).get_next(name="next")
        tf.add(first * v1.get_variable("w", initializer=np.float32(2)), second, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        feeds = {"next:0": small_graphs.X, "next:1": small_graphs.X[0]}
        wanted = session.run("y:0", feeds)
    done = pipeline.freeze(tmp_path, ["y"], ["next:0", "next:1"], to=tmp_path / "model.pb")
    assert done.signature is not None
    assert [str(spec) for spec in done.signature.inputs] == [
        "next float32 [2, 3]",
        "next:1 float32 [3], tensor next:1",
    ]
    assert np.array_equal(small_graphs.answer(done.path, feeds), wanted)
    with pytest.raises(FreezeError, match="fetched, and another one of its node is fed"):
        pipeline.freeze(tmp_path, ["y", "next:0"], ["next:1"], to=tmp_path / "other.pb")
    with pytest.raises(FreezeError, match=r"next:7: this tensor cannot be made an input .*of 2 outputs"):
        pipeline.freeze(tmp_path, ["y"], ["next:0", "next:7"], to=tmp_path / "other.pb")


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("float32", 0x7F800001),
        ("float32", 0xFFC12345),
        ("float64", 0x7FF0000000000001),
        ("complex64", 0x7F8000013F800000),
        ("float32", 0x3F800000),
        ("complex64", 0x3F80000040000000),
    ],
)
def test_a_single_number_keeps_its_bits_a_signalling_nan_too(tmp_path: Path, dtype: str, bits: int) -> None:
    size = np.dtype(dtype).itemsize
    raw = bits.to_bytes(size, "little")
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.zeros([], dtype))
        tf.bitcast(w.read_value(), tf.uint8, name="y")
        session.run(w.initializer)
        w.load(np.frombuffer(raw, dtype)[0], session)
        assert session.run("y:0").tobytes() == raw
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    done = pipeline.freeze(tmp_path, ["y"], to=tmp_path / "model.pb")
    assert np.asarray(small_graphs.answer(done.path, {})).tobytes() == raw
