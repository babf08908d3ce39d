"""TFLite and ONNX: conversion of unusual graphs, reproducible bytes, and refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from pipeline.errors import FreezeError, RunnerError
from pipeline.formats.onnx import open_runner as open_onnx
from pipeline.formats.registry import FORMATS
from pipeline.formats.runner import SubprocessRunner
from pipeline.freezing.freeze import freeze
from pipeline.signature import Signature, TensorSpec
from pipeline.tasks.chain import results
from pipeline.validation.validate import validate

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
Build = Callable[..., Mapping[str, Any]]
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
BOTH = pytest.mark.parametrize("family", ["tflite", "onnx"])
ALL = [f"{family}{kind}" for family in ("tflite", "onnx") for kind in ("", "_float16", "_int8")]


def frozen(folder: Path, build: Build, **inputs: tuple[str, list[int | None] | None]) -> Path:
    """Makes an artifact in the format `frozen` of the outputs that `build` computes from placeholders."""
    folder.mkdir()
    with tf.Graph().as_default() as graph:
        fed = {name: v1.placeholder(dtype, shape, name=name) for name, (dtype, shape) in inputs.items()}
        outputs = build(**fed)
        (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))

    def spec(name: str, tensor: Any) -> TensorSpec:
        shape = None if tensor.shape.rank is None else tensor.shape.as_list()
        return TensorSpec(name, tensor.dtype.name, shape, tensor.name)

    signature = Signature([spec(*item) for item in fed.items()], [spec(*item) for item in outputs.items()])
    signature.write(folder / "signature.json", origin={"weights": "exact", "step": 7})
    return folder


def made(format: str, origin: Path) -> Path:
    """Returns the artifact's folder of a format."""
    folder = origin.with_name(format)
    folder.mkdir()
    FORMATS[format].make(origin, folder, {})
    return folder


def answers(format: str, folder: Path, **batch: Array) -> dict[str, Array]:
    with SubprocessRunner(format, folder, 1) as runner:
        return runner.run(batch)


def _named_twice(x: Any) -> dict[str, Any]:
    tripled = x * 3.0
    return {"one": tripled, "other": tripled, "double": x * 2.0}


ROWS = ("float32", [None, 3])
ODD: dict[str, tuple[Build, dict[str, Array]]] = {
    "a tensor has two names": (_named_twice, {"one": X * 3, "other": X * 3, "double": X * 2}),
    "an input is an output": (lambda x: {"x_again": x, "half": x * 0.5}, {"x_again": X, "half": X / 2}),
    "an input and an output share a name": (lambda x: {"x": x * 2.0}, {"x": X * 2}),
    "an output hangs on no input": (
        lambda x: {"half": x * 0.5, "fixed": tf.constant([1.5, 2.5])},
        {"half": X / 2, "fixed": np.array([1.5, 2.5], np.float32)},
    ),
    "a name has a slash and a space": (lambda x: {"out/of a scope": x * 2.0}, {"out/of a scope": X * 2}),
    "outputs are of other dtypes": (
        lambda x: {"largest": tf.argmax(x, 1), "is_large": x > 1.0},
        {"largest": np.array([2, 2]), "is_large": X > 1},
    ),
}


@pytest.mark.parametrize("case", ODD)
@BOTH
def test_odd_signatures_keep_their_names(family: str, case: str, tmp_path: Path) -> None:
    build, wanted = ODD[case]
    got = answers(family, made(family, frozen(tmp_path / "frozen", build, x=ROWS)), x=X)
    assert {*got} == {*wanted}
    for name, values in wanted.items():
        np.testing.assert_array_equal(got[name], values, strict=True)


@BOTH
def test_inputs_are_paired_by_name_and_one_that_nothing_reads_may_be_fed(family: str, tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", lambda b, a, unread: {"y": a - 2.0 * b}, b=ROWS, a=ROWS, unread=ROWS)
    got = answers(family, made(family, origin), a=X, unread=X, b=X * 5)
    np.testing.assert_array_equal(got["y"], X - X * 10)


@BOTH
def test_lengths_that_the_signature_leaves_open_stay_open_and_a_fixed_batch_fixed(family: str, tmp_path: Path) -> None:
    rows = np.ones((2, 5, 4), np.float32)
    origin = frozen(tmp_path / "open", lambda x: {"y": tf.reduce_sum(x, 1)}, x=("float32", [None, None, 4]))
    np.testing.assert_array_equal(answers(family, made(family, origin), x=rows)["y"], np.full((2, 4), 5.0))
    (tmp_path / "more").mkdir()
    origin = frozen(tmp_path / "more" / "fixed", lambda x: {"y": tf.reduce_sum(x, 1)}, x=("float32", [2, 5, 4]))
    folder = made(family, origin)
    with SubprocessRunner(family, folder, 1) as runner:
        assert runner.run({"x": rows})["y"].shape == (2, 4)
        with pytest.raises(RunnerError, match=r"\bx\b"):
            runner.run({"x": rows[:1]})
        assert runner.run({"x": rows})["y"].shape == (2, 4)


def _called(x: Any) -> dict[str, Any]:
    body = tf.function(lambda rows: rows * 3.0 + 1.0).get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
    body.add_to_graph()
    [y] = tf.raw_ops.StatefulPartitionedCall(args=[x], Tout=[tf.float32], f=body)
    return {"y": tf.ensure_shape(y, [None, 3])}


@BOTH
def test_a_call_of_a_function_is_inlined_though_it_might_have_state(family: str, tmp_path: Path) -> None:
    """A Keras graph calls its layers in this way; their variables are constants in a frozen graph."""
    origin = frozen(tmp_path / "frozen", _called, x=ROWS)
    assert b"StatefulPartitionedCall" in (origin / "model.pb").read_bytes()
    np.testing.assert_allclose(answers(family, made(family, origin), x=X)["y"], X * 3 + 1)


W, U = (
    np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    np.linspace(0.4, -0.4, 16, dtype=np.float32).reshape(4, 4),
)
LENGTHS = np.array([6, 2, 4, 1, 6], np.int32)


def _recurrent(rows: Any, lengths: Any) -> Any:
    """A net as `dynamic_rnn` of TensorFlow 1 builds it: rows of some length, the state kept behind their ends."""
    turns, start = tf.shape(rows)[1], tf.zeros([tf.shape(rows)[0], 4])
    taken = tf.TensorArray(tf.float32, turns).unstack(tf.transpose(rows, [1, 0, 2]))

    def turn(time: Any, state: Any, given: Any) -> Any:
        new, is_over = tf.tanh(taken.read(time) @ W + state @ U), time >= lengths
        out = given.write(time, tf.raw_ops.Select(condition=is_over, x=tf.zeros_like(new), y=new))
        return time + 1, tf.raw_ops.Select(condition=is_over, x=state, y=new), out

    first = [0, start, tf.TensorArray(tf.float32, turns)]
    _, last, given = tf.while_loop(lambda time, *_: time < turns, turn, first)
    return last, tf.transpose(given.stack(), [1, 0, 2])


def _loops(rows: Any, lengths: Any) -> dict[str, Any]:
    specs = [tf.TensorSpec([None, None, 3], tf.float32), tf.TensorSpec([None], tf.int32)]
    body = tf.function(_recurrent).get_concrete_function(*specs)
    body.add_to_graph()
    last, given = tf.raw_ops.StatefulPartitionedCall(args=[rows, lengths], Tout=[tf.float32] * 2, f=body)
    v1.disable_control_flow_v2()
    try:
        old_last, old_given = _recurrent(rows, lengths)
    finally:
        v1.enable_control_flow_v2()
    return {"last": tf.ensure_shape(last, [None, 4]), "given": given, "old_last": old_last, "old_given": old_given}


@BOTH
def test_recurrent_nets_of_both_tensorflows_answer_as_there_for_any_batch_and_length(
    family: str, tmp_path: Path
) -> None:
    """With lists as functions have them, and arrays as TensorFlow 1 had them."""
    origin = frozen(tmp_path / "frozen", _loops, rows=("float32", [None, None, 3]), lengths=("int32", [None]))
    graph = v1.GraphDef.FromString((origin / "model.pb").read_bytes())
    assert {node.op for node in graph.node} >= {"StatefulPartitionedCall", "TensorArrayV3", "Exit"}
    rows = np.random.default_rng(3).normal(size=(5, 6, 3)).astype(np.float32)
    with tf.Graph().as_default(), v1.Session() as session, SubprocessRunner(family, made(family, origin), 1) as runner:
        wanted = _loops(tf.constant(rows), tf.constant(LENGTHS))
        for batch, length in ((5, 6), (1, 6), (2, 3)):
            fed = {"rows": rows[:batch, :length], "lengths": LENGTHS[:batch]}
            got = runner.run(fed)
            for name, values in session.run({name: wanted[name] for name in ("last", "given")}).items():
                if length == 6:
                    np.testing.assert_allclose(got[name], values[:batch], atol=1e-6)
                np.testing.assert_allclose(got[name], got[f"old_{name}"], atol=1e-6)


def test_a_row_that_onnxruntime_refuses_is_an_error_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A check may ask for what both sides refuse: red lines would say that a run that passes has failed."""
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    origin = frozen(tmp_path / "frozen", lambda x: {"y": tf.gather(tf.constant(table), x)}, x=("int32", [None]))
    folder = made("onnx", origin)
    capfd.readouterr()
    runner = open_onnx(folder, Signature.read(folder / "signature.json"), 1)
    with pytest.raises(RunnerError, match="out of"):
        runner.run({"x": np.array([99], np.int32)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint8", "bool"])
def test_dtypes_are_kept(dtype: str, tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", lambda x: {"y": tf.reverse(x, [1])}, x=(dtype, [None, 3]))
    values = np.array([[0, 1, 1], [1, 0, 0]]).astype(dtype)
    got = answers("onnx", made("onnx", origin), x=values)
    np.testing.assert_array_equal(got["y"], values[:, ::-1], strict=True)


def test_the_files_themselves_have_the_signatures_names(tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", lambda features: {"score": tf.reduce_sum(features, 1)}, features=ROWS)
    interpreter = Interpreter(model_path=str(made("tflite", origin) / "model.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["features"], "outputs": ["score"]}}
    assert interpreter.get_input_details()[0]["shape_signature"].tolist() == [-1, 3]
    graph = onnx.load(made("onnx", origin) / "model.onnx").graph
    assert [value.name for value in graph.input] == ["features"]
    assert [value.name for value in graph.output] == ["score"]
    batch, width = graph.input[0].type.tensor_type.shape.dim
    assert (batch.dim_param != "", width.dim_value) == (True, 3)


@pytest.mark.parametrize("format", ALL)
def test_what_is_known_of_the_weights_goes_along(format: str, tmp_path: Path) -> None:
    folder = made(format, frozen(tmp_path / "frozen", lambda x: {"y": x * 2.0}, x=ROWS))
    assert json.loads((folder / "signature.json").read_text())["origin"] == {"weights": "exact", "step": 7}


# Less precision.


def _dense(x: Any) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    hidden = tf.nn.relu(x @ tf.constant(draw.normal(size=(3, 512)).astype(np.float32)))
    return {"y": hidden @ tf.constant(draw.normal(size=(512, 64)).astype(np.float32) / 16)}


@pytest.mark.parametrize("format", ALL)
def test_the_same_graph_gives_the_same_bytes_in_any_process(format: str, tmp_path: Path) -> None:
    contents = []
    for turn in ("one", "two", "three"):
        (tmp_path / turn).mkdir()
        folder = made(format, frozen(tmp_path / turn / "frozen", _dense, x=ROWS))
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert {*contents[0]} == {FORMATS[format].model_file, "signature.json"}
    assert contents[0] == contents[1] == contents[2]


@BOTH
def test_weights_take_a_half_and_a_quarter_of_their_bytes_and_are_still_there(family: str, tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", _dense, x=ROWS)
    sizes, outputs, notes = {}, {}, {}
    for kind in ("", "_float16", "_int8"):
        folder = origin.with_name(f"{family}{kind}")
        folder.mkdir()
        notes[kind] = FORMATS[folder.name].make(origin, folder, {})["reduced"]
        sizes[kind] = (folder / FORMATS[folder.name].model_file).stat().st_size
        outputs[kind] = answers(folder.name, folder, x=X)["y"]
    weights = 4 * (3 * 512 + 512 * 64)
    assert sizes[""] > weights
    assert sizes["_float16"] < 0.5 * weights + 4_000
    assert sizes["_int8"] < 0.25 * weights + 10_000
    assert notes == {"": 0, "_float16": 2, "_int8": 2}
    spread = np.abs(outputs[""]).max()
    for kind, bound in (("_float16", 1e-3), ("_int8", 2e-2)):
        distance = np.abs(outputs[kind] - outputs[""]).max() / spread
        assert 0 < distance < bound


def test_a_row_of_an_int8_file_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", _dense, x=ROWS)
    batch = np.concatenate([X[:1], 1000 * X, X[1:]])
    for format in ("tflite_int8", "onnx_int8"):
        folder = made(format, origin)
        alone, among = answers(format, folder, x=X)["y"], answers(format, folder, x=batch)["y"]
        np.testing.assert_allclose(among[[0, -1]], alone, rtol=1e-5, atol=1e-6)


def test_nan_stays_nan_where_floats_are_computed(tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", _dense, x=ROWS)
    for format in (name for name in ALL if name != "tflite_int8"):
        assert np.isnan(answers(format, made(format, origin), x=np.full((1, 3), np.nan, np.float32))["y"]).all()


def test_a_weight_that_is_too_large_for_float16_is_refused_by_its_name(tmp_path: Path) -> None:
    def build(x: Any) -> dict[str, Any]:
        return {"y": x @ tf.constant(np.full((3, 2), 1e6, np.float32), name="huge")}

    origin = frozen(tmp_path / "frozen", build, x=ROWS)
    with pytest.raises(FreezeError, match=r"1e\+06, which is too large for float16"):
        made("onnx_float16", origin)


# NaN, infinities and overflow.

POOLED = """
    class M:
        signature = Signature([TensorSpec("x", "float32", [None, 4, 4, 1])], [TensorSpec("y", "float32", [None, 4])])
        data = "rows.csv"

        def forward(self, inputs, training):
            w = tf.compat.v1.get_variable("w", initializer=np.arange(16, dtype=np.float32).reshape(4, 4) / 7)
            return {"y": tf.reshape(tf.nn.max_pool2d(inputs["x"], 2, 2, "VALID"), [-1, 4]) @ w}

        def examples(self, path):
            return Examples({"x": np.random.default_rng(2).normal(size=(20, 4, 4, 1)).astype(np.float32)}, None)
    """


def _edges_of(verdict: Mapping[str, Any], format: str) -> dict[str, Any]:
    [found] = [check for check in verdict["checks"] if (check["format"], check["check"]) == (format, "edge")]
    return found


def test_what_other_kernels_make_of_nan_is_told_and_what_they_make_of_numbers_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.job_for(tmp_path / "out", jobs.model_file(tmp_path, POOLED), formats=("frozen", "onnx"))
    jobs.run(job)
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    [note] = verdict["notes"]["onnx"]
    assert "not a number" in note
    assert _edges_of(verdict, "onnx")["rows"] == 9 - int(note.split()[1])
    assert _edges_of(verdict, "frozen")["rows"] == 9

    def again(name: str, onnx_folder: Path) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        candidates = {"onnx": onnx_folder}
        return validate("m", job.folder("checkpoint"), candidates, job.settings.validation, 1, tmp_path / name)

    # A file that answers NaN to rows of ordinary numbers has failed on those.
    origin = shutil.copytree(job.folder("frozen"), tmp_path / "frozen")
    content, weights = (origin / "model.pb").read_bytes(), np.arange(16, dtype=np.float32) / 7
    assert content.count(weights.tobytes()) == 1
    broken = content.replace(weights.tobytes(), np.full(16, np.nan, np.float32).tobytes())
    (origin / "model.pb").write_bytes(broken)
    found = _edges_of(again("broken", made("onnx", origin)), "onnx")
    assert (found["verdict"], found["rows_failed"]) == ("failed", 4)
    # A format of TensorFlow's own kernels is held to NaN too.
    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], edge_cases=""))
    assert _edges_of(again("strict", job.folder("onnx")), "onnx")["verdict"] == "failed"


# What cannot be made.


def _backwards(x: Any) -> dict[str, Any]:
    def turn(number: Any, given: Any) -> Any:
        return number + 1, given.write(2 - number, x[:, number])

    return {"y": tf.while_loop(lambda number, _: number < 3, turn, [0, tf.TensorArray(tf.float32, 3)])[1].stack()}


REFUSED: dict[str, tuple[str, Build, tuple[str, list[int | None]], str]] = {
    "no op": ("both", lambda x: {"y": tf.linalg.svd(x, compute_uv=False)}, ("float32", [None, 3, 3]), "node Svd.*Svd"),
    "an op in a scope": ("onnx", lambda x: {"y": tf.math.lgamma(x, name="a/b")}, ROWS, "node a/b: .*Lgamma"),
    "bytes": ("onnx", lambda x: {"y": tf.strings.length(x)}, ("string", [None]), "StringLength.*StringLength.* text"),
    "bytes given": (
        "onnx",
        lambda x: {"y": tf.gather(tf.constant(["a", "b"]), x, name="word")},
        ("int32", [None]),
        "node word",
    ),
    "needs TensorFlow": (
        "tflite",
        lambda x: {"y": x @ tf.ones([3, 2], tf.float64)},
        ("float64", [None, 3]),
        "node matmul: .*MatMul in float64.*Build the model in float32",
    ),
    "a list filled from its end": ("onnx", _backwards, ROWS, "node .*TensorListSetItem: .*another order"),
    "bfloat16": ("both", lambda x: {"y": x * tf.cast(1.5, tf.bfloat16)}, ("bfloat16", [None, 3]), "x of bfloat16"),
    "complex": ("onnx", lambda x: {"y": x * tf.cast(1.5, tf.complex64)}, ("complex64", [None, 3]), "mul"),
}


@pytest.mark.parametrize(
    ("case", "family"),
    [(case, family) for case, (who, *_) in REFUSED.items() for family in ("tflite", "onnx") if who in ("both", family)],
)
def test_what_a_format_cannot_carry_is_refused_with_op_and_node(case: str, family: str, tmp_path: Path) -> None:
    _, build, given, named = REFUSED[case]
    origin = frozen(tmp_path / "frozen", build, x=given)
    with pytest.raises(FreezeError, match=named) as error:
        made(family, origin)
    assert error.value.next_step is not None
    assert error.value.next_step.endswith("--formats frozen,savedmodel")  # which carry it, whatever the cause
    node = (error.value.where or "").removeprefix("node ").partition(",")[0]
    assert "says of this graph" in error.value.next_step or not node or node in str(error.value)


def _narrow(dtype: Any) -> Build:
    """A layer in half precision between Casts, as Keras's mixed policies make it: in a function, with a norm behind."""

    def build(x: Any) -> dict[str, Any]:
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1], tf.float32)], autograph=False)
        def layer(rows: Any) -> Any:
            kernel = tf.reshape(tf.cast(tf.linspace(-1.0, 1.0, 18), dtype), [3, 3, 1, 2])
            convolved = tf.nn.relu(tf.nn.conv2d(tf.cast(rows, dtype), kernel, 1, "SAME") + tf.cast([0.5, -0.5], dtype))
            return tf.cast(tf.reduce_mean(convolved, [1, 2]), tf.float32)

        return {"y": layer(x) * 2.0, "narrow": tf.cast(tf.reduce_sum(x, [1, 2]), dtype) if dtype == tf.float16 else x}

    return build


@BOTH
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_what_is_computed_in_half_precision_is_computed_in_float32_where_kernels_lack(
    family: str, dtype: Any, tmp_path: Path
) -> None:
    rows = np.linspace(-2, 2, 32, dtype=np.float32).reshape(2, 4, 4, 1)
    origin = frozen(tmp_path / "frozen", _narrow(dtype), x=("float32", [None, 4, 4, 1]))
    got, wanted = answers(family, made(family, origin), x=rows), answers("frozen", origin, x=rows)
    assert got["narrow"].dtype == wanted["narrow"].dtype  # the signature's own dtypes are kept
    step = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}[dtype]
    np.testing.assert_allclose(got["y"], wanted["y"], rtol=4 * step, atol=4 * step)
    kernel, padded = np.linspace(-1, 1, 18).reshape(9, 2), np.pad(rows[..., 0], [(0, 0), (1, 1), (1, 1)])
    patches = np.stack([padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], -1)
    exact = 2 * np.maximum(patches @ kernel + [0.5, -0.5], 0).mean((1, 2))
    assert np.abs(got["y"] - exact).max() <= np.abs(wanted["y"] - exact).max()


CURES: dict[str, tuple[Build, str]] = {
    "behind a layer": (
        lambda x: {"y": tf.linalg.svd(tf.identity(x * 2.0, "scores"), compute_uv=False, name="svd")},
        "End the model before it (--outputs scores)",
    ),
    "at an input": (
        lambda x: {"y": tf.linalg.svd(x, compute_uv=False, name="svd")},
        "Begin the model behind it (--inputs svd)",
    ),
    "in a function": (
        lambda x: {"y": tf.function(lambda rows: tf.linalg.svd(rows * 2.0, compute_uv=False))(x)},
        "inside a layer or a function: where the model is built, end it before that, or begin it behind",
    ),
}


@BOTH
@pytest.mark.parametrize("case", CURES)
def test_what_to_do_about_an_op_names_the_tensor_to_end_at(family: str, case: str, tmp_path: Path) -> None:
    build, cure = CURES[case]
    with pytest.raises(FreezeError) as error:
        made(family, frozen(tmp_path / "frozen", build, x=("float32", [None, 3, 3])))
    assert cure in str(error.value)


@BOTH
def test_a_table_is_refused_by_its_node(family: str, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.int64, [None], name="x")
        content = tf.lookup.KeyValueTensorInitializer(tf.constant([10, 20], tf.int64), tf.constant([1, 2], tf.int64))
        found = tf.lookup.StaticHashTable(content, 0).lookup(x, name="found")
        tf.gather(v1.get_variable("w", initializer=np.eye(3, dtype=np.float32)), found, name="y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    (tmp_path / "frozen").mkdir()
    freeze(str(tmp_path / "model.ckpt"), ["y"], ["x"], tmp_path / "frozen" / "model.pb")
    with pytest.raises(FreezeError, match=r"node \S+.*(HashTableV2|LookupTableFindV2)") as error:
        made(family, tmp_path / "frozen")
    assert " at 0x" not in str(error.value)  # the same refusal has the same bytes


@pytest.mark.parametrize("damage", ["cut", "gone", "a page"])
@BOTH
def test_a_frozen_graph_that_is_not_whole_is_refused(family: str, damage: str, tmp_path: Path) -> None:
    origin = frozen(tmp_path / "frozen", _dense, x=ROWS)
    path = origin / "model.pb"
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"<html></html>")
    with pytest.raises(Exception, match=r"ONNX|SavedModel|No such file"):
        made(family, origin)
