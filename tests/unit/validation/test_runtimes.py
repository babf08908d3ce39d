"""Other interpreters: what is sent comes back as it was, a candidate is judged by what each of them answers."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import PipelineError, RunnerError, SettingError, StageCrashed
from pipeline.formats.onnx import make_onnx
from pipeline.formats.savedmodel import make_saved_model
from pipeline.formats.tflite import make_tflite
from pipeline.freezing.freeze import freeze_checkpoint, map_checkpoint
from pipeline.hashing import runtime_versions
from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.runtimes import server
from pipeline.validation.runtimes.client import Runtime
from pipeline.validation.runtimes.requests import OpenRequest
from pipeline.validation.validate import validate
from pipeline.workers.child import Limits

v1 = tf.compat.v1
Make = Callable[[Path], Any]
ROWS = 12
X = np.linspace(-3, 3, ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
T = np.array([b"a", b"", b"\xff\x00", b"zero at the end\x00", b"\xc3\xa9", b"b"] * 2, object)
# A Python whose TensorFlow doubles what it answers above 4, as no other test of this process sees.
OTHER = """#!{python}
import sys
import tensorflow as tf
run = tf.compat.v1.Session.run
def doubled(self, fetches, feed_dict=None, options=None, run_metadata=None):
    found = run(self, fetches, feed_dict, options, run_metadata)
    if isinstance(found, dict) and "sum" in found:
        found["sum"] = found["sum"] + found["sum"] * (found["sum"] > 4)
    return found
tf.compat.v1.Session.run = doubled
assert sys.argv[1:3] == ["-I", "-c"]
exec(sys.argv[3])
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a number and a text, with answers of both kinds."""
    folder = tmp_path_factory.mktemp("runtimes") / "checkpoint"
    folder.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x, t = v1.placeholder(tf.float32, [None, 2], name="x"), v1.placeholder(tf.string, [None], name="t")
        w = v1.get_variable("w", initializer=[[1.0], [1.5]])
        v1.reduce_sum(x @ w, 1, name="sum")
        tf.strings.join([t, "!"], name="text")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    signature = Signature(
        [TensorSpec("x", "float32", [None, 2]), TensorSpec("t", "string", [None])],
        [TensorSpec("sum", "float32", [None]), TensorSpec("text", "string", [None])],
    )
    signature.write(folder / "signature.json")
    save_arrays(folder / "validation.npz", add_kind("input", {"x": X, "t": T}))
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen graph without texts, for the formats that have none."""
    folder = tmp_path_factory.mktemp("numbers")
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        tf.identity(x @ tf.constant([[2.0], [-1.0]]), name="y")
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    specs = [TensorSpec("x", "float32", [None, 2])], [TensorSpec("y", "float32", [None, 1])]
    Signature(*specs).write(folder / "signature.json")
    return folder


def candidate(folder: Path, make: Make) -> Path:
    folder.mkdir()
    make(folder)
    return folder


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"", b"\x00", b"a\x00b\x00", "\u00fc".encode()], object).reshape(2, 2),
        np.array(b"one", object),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
    ],
)
def test_arrays_come_back_as_they_were(array: Any) -> None:
    stream = io.BytesIO()
    server.write_message(stream, {"do": "run"}, {"a": array, "other": X}, b"content")
    stream.seek(0)
    message, arrays, content = server.read_message(stream)
    assert (message, content) == ({"do": "run"}, b"content")
    assert (arrays["a"].dtype, arrays["a"].shape, arrays["a"].tolist()) == (array.dtype, array.shape, array.tolist())
    assert np.array_equal(arrays["other"], X)
    with pytest.raises(EOFError):
        server.read_message(stream)


def test_a_candidate_that_another_interpreter_answers_otherwise_fails_there_alone(
    checkpoint: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(OTHER.format(python=sys.executable))
    python.chmod(0o755)
    frozen = candidate(tmp_path / "frozen", lambda folder: freeze_checkpoint(checkpoint, folder))
    candidates = {
        "frozen": frozen,
        "mmap": candidate(tmp_path / "mmap", lambda folder: map_checkpoint(checkpoint, folder)),
        "savedmodel": candidate(tmp_path / "saved", lambda folder: make_saved_model(frozen, folder)),
    }
    verdict = validate(
        "m", checkpoint, candidates, ValidationSettings(runtimes=str(python), runtime_rows=11), 1, tmp_path
    )
    name = f"tensorflow {tf.__version__}"
    results = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False).query("check == 'runtime'")
    assert set(results["runtime"]) == {name}
    wrong = (X[:11] @ np.array([1, 1.5], np.float32)) > 4
    for format in candidates:
        own = results[(results["format"] == format) & results["row"].str.isdecimal() & (results["output"] == "sum")]
        assert own["verdict"].tolist() == ["failed" if one else "passed" for one in wrong]
        texts = results[(results["format"] == format) & (results["output"] == "text")]
        assert len(texts) > 11
        assert set(texts["verdict"]) == {"passed"}
        assert verdict["causes"][format]["kind"] == "other_runtime"
        assert f"it is right here, and not in {name}: runtime of sum in {name}" in verdict["causes"][format]["sentence"]
        assert verdict["proofs"][format]["word"] == "proved"  # which is of the graph, not of who runs it
    failed = {(one["check"], one.get("runtime")) for one in verdict["checks"] if one["verdict"] == "failed"}
    assert failed == {("runtime", name)}

    with Runtime(str(python), Limits(60)) as runtime:  # what is newer than it is named before the file is opened
        sentences = runtime.unknown({"MatMul": ["transpose_a", "newer"], "Newer": [], "Identity": ["T"]}, 10**6)
        assert sentences[0].startswith(f"the graph wants version {10**6} of TensorFlow's graphs, and it knows ")
        assert sentences[1:] == ["its op MatMul has no attribute newer", "it has no op Newer"]
        graph = v1.GraphDef.FromString((frozen / "model.pb").read_bytes())
        graph.node[0].op = "Newer"
        (frozen / "model.pb").write_bytes(graph.SerializeToString())
        with pytest.raises(RunnerError, match="Newer"):
            runtime.open(OpenRequest.of_artifact("frozen", frozen, 1), Signature.read(frozen / "signature.json"))


@pytest.mark.parametrize(("format", "make"), [("onnx", make_onnx), ("tflite", make_tflite)])
def test_the_formats_own_libraries_answer_too(
    format: str, make: Callable[..., Any], numbers: Path, tmp_path: Path
) -> None:
    folder = candidate(tmp_path / "made", lambda folder: make(numbers, folder))
    if not (folder / "signature.json").exists():
        shutil.copy(numbers / "signature.json", folder)
    with Runtime(sys.executable, Limits(60)) as runtime:
        request = OpenRequest.of_artifact(format, folder, 1)
        assert runtime.library_of(request.kind)
        runner = runtime.open(request, Signature.read(folder / "signature.json"))
        assert np.allclose(runner.run({"x": X})["y"], X @ np.array([[2.0], [-1.0]], np.float32), rtol=1e-6)
        assert runner.run({"x": X[:1]})["y"].shape == (1, 1)
        with pytest.raises(RunnerError):
            runner.run({"x": X[:, :1]})
        assert len(runner.run({"x": X})["y"]) == ROWS  # after a refusal it answers again


@pytest.mark.parametrize(
    ("command", "got"),
    [
        ("/no/such/python", "/no/such/python: no such program, or it may not be run"),
        ("sh -c 'echo it is broken >&2; exit 3'", "it is broken"),
        ("sh -c 'exit 3'", "exit code 3"),
        ("cat", ""),
    ],
)
def test_what_is_no_python_is_said_before_anything_is_compared(command: str, got: str, checkpoint: Path) -> None:
    with pytest.raises(SettingError) as caught:
        validate("m", checkpoint, {"frozen": checkpoint}, ValidationSettings(runtimes=command), 1, checkpoint.parent)
    assert caught.value.where == "[validation] runtimes"
    assert got in str(caught.value)


def test_one_that_gives_no_answer_is_ended() -> None:
    with Runtime("sh -c 'sleep 60'", Limits(0.2)) as runtime, pytest.raises(PipelineError, match="no answer in time"):
        _ = runtime.facts


def test_one_that_takes_too_much_memory_is_ended(numbers: Path) -> None:
    def ask_on(runtime: Runtime) -> None:
        while True:
            runtime.unknown({}, 0)

    with Runtime(sys.executable, Limits(30, memory_bytes=1)) as runtime, pytest.raises(StageCrashed) as caught:
        ask_on(runtime)
    assert caught.value.what == "it took more memory than it may"


def test_what_is_installed_beside_an_interpreter_decides(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "tensorflow-2.15.1.dist-info").mkdir(parents=True)
    python = str(tmp_path / "bin" / "python")
    before = runtime_versions([python])
    (packages / "tensorflow-2.15.1.dist-info").rename(packages / "tensorflow-2.15.2.dist-info")
    assert runtime_versions([python]) != before
    assert list(before) == [f"runtime {python}"]
    assert len(json.dumps(before)) < 200 + len(python)


def test_the_check_is_asked_for_with_an_interpreter() -> None:
    with pytest.raises(SettingError, match="no other interpreter was named"):
        ValidationSettings(checks="equal, runtime")
    assert ValidationSettings(runtimes="a, b").other_runtimes == ("a", "b")
    assert ValidationSettings().other_runtimes == ()
