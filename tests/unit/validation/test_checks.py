"""Checks: models that are equal but wrong, edge-case rows, and the choice of checks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.data.generated import MADE_UP
from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import CheckpointError, DataError, SettingError
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.report import gist
from pipeline.settings import CHECKS, SEARCHES, ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.checks.registry import CHECK_FUNCTIONS
from pipeline.validation.validate import validate

v1 = tf.compat.v1
Build = Callable[[Any], Any]

ROWS = 300
X = np.random.default_rng(3).normal(size=(ROWS, 4)).astype(np.float32)
W = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5], [1.0, 0.125]], np.float32)


def logits(x: Any) -> Any:
    return x @ v1.get_variable("w", initializer=tf.constant(W))


def honest(x: Any) -> Any:
    return tf.nn.softmax(logits(x), axis=1)


def batch_norm(x: Any) -> Any:
    """Normalises in training mode, by the batch's own mean and variance."""
    y = logits(x)
    offset = v1.get_variable("offset", initializer=tf.constant([0.5, -0.5]))
    return tf.raw_ops.FusedBatchNorm(
        x=y[:, None, None, :], scale=[1.0, 1.0], offset=offset, mean=[], variance=[], is_training=True
    ).y[:, 0, 0, :]


def softmax_over_the_batch(x: Any) -> Any:
    return tf.nn.softmax(logits(x), axis=0)


def centred(x: Any) -> Any:
    y = logits(x)
    return y - tf.reduce_mean(y, axis=0)


def neighbour(x: Any) -> Any:
    """Gives each row the output of the row before it."""
    return tf.roll(logits(x), 1, axis=0)


def for_each_pair(x: Any) -> Any:
    return logits(x) @ tf.transpose(logits_again(x))


def among_all_pairs(x: Any) -> Any:
    return tf.nn.softmax(for_each_pair(x), axis=1)


def as_long_as_the_largest_of_the_batch(x: Any) -> Any:
    y = logits(x)
    return y[:, :1] + tf.zeros([1, 1 + tf.cast(tf.reduce_max(tf.abs(y)) * 3, tf.int32)])


def padded_to_the_longest_of_the_batch(x: Any) -> Any:
    """Gives each row as many numbers as it is large, and then -1 up to the longest of the batch."""
    y = logits(x)[:, :1]
    lengths = 1 + tf.cast(tf.abs(y) * 3, tf.int32)
    places = tf.range(tf.reduce_max(lengths))[None]
    return tf.where(places < lengths, y * tf.cast(places, tf.float32), -tf.ones_like(y * tf.cast(places, tf.float32)))


def going_on_as_it_ended(x: Any) -> Any:
    """Counts up to a number that the row decides, and stays there up to the longest of the batch, as a state does."""
    y = logits(x)[:, :1]
    lengths = tf.cast(tf.abs(y) * 3, tf.int32)
    places = tf.range(1 + tf.reduce_max(lengths))[None]
    return y * (1.0 + tf.cast(tf.minimum(places, lengths), tf.float32))


def going_on_with_its_neighbours(x: Any) -> Any:
    answers = going_on_as_it_ended(x)
    return answers + 0.01 * tf.cumsum(tf.reduce_max(answers, 0, keepdims=True), 1)


def cut_to_the_shortest(x: Any) -> Any:
    y = logits(x)[:, :1]
    lengths = 2 + tf.cast(tf.abs(y) * 3, tf.int32)
    return y * tf.cast(tf.range(tf.reduce_min(lengths))[None], tf.float32)


def padded_with_its_neighbours(x: Any) -> Any:
    answers = padded_to_the_longest_of_the_batch(x)
    return tf.where(tf.equal(answers, -1), tf.reduce_mean(answers) + tf.zeros_like(answers), answers)


def logits_again(x: Any) -> Any:
    with v1.variable_scope(v1.get_variable_scope(), reuse=True):
        return x @ v1.get_variable("w", W.shape)


def for_more_than_one(x: Any) -> Any:
    y = logits(x)
    with tf.control_dependencies([v1.assert_greater(tf.shape(y)[0], 1, message="one row is no batch")]):
        return tf.identity(y)


def total(x: Any) -> Any:
    return tf.reduce_sum(logits(x), axis=0)


def looked_up(x: Any) -> Any:
    """Looks up what no rows that are made up can know of."""
    table = v1.get_variable("table", initializer=tf.constant(W[:2]))
    return tf.gather(table, x * x - 100)


def counted(x: Any) -> Any:
    """Counts by the row's own number, with room for 6 of them; the counts are not read."""
    counts = v1.get_variable("counts", initializer=tf.zeros([6]), use_resource=False)
    y = tf.cast(x, tf.float32) * v1.get_variable("scale", initializer=2.0)
    with tf.control_dependencies([v1.scatter_add(counts, x, tf.ones_like(y), name="count")]):
        return tf.identity(y)


def run_validation(
    folder: Path,
    build: Build,
    rows: Any = X,
    shape: Sequence[int | None] = (None, 4),
    output: Sequence[int | None] | None = (None, 2),
    settings: ValidationSettings | None = None,
    is_made_up: bool = False,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Validates a model frozen from its checkpoint; returns the verdict and the results."""
    for name in ("checkpoint", "frozen", "validation"):
        (folder / name).mkdir()
    dtype = tf.as_dtype(rows.dtype)
    with tf.Graph().as_default(), v1.Session() as session:
        tf.identity(build(v1.placeholder(dtype, shape, name="x")), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "checkpoint" / "model.ckpt"))
    signature = Signature(
        (TensorSpec("x", dtype.name, tuple(shape)),),
        (TensorSpec("y", "float32", None if output is None else tuple(output)),),
    )
    signature.write(folder / "checkpoint" / "signature.json")
    made_up = {MADE_UP: np.ones(len(rows), np.int64)} if is_made_up else {}
    save_arrays(folder / "checkpoint" / "validation.npz", {**add_kind("input", {"x": rows}), **made_up})
    freeze_checkpoint(folder / "checkpoint", folder / "frozen")
    candidates = {"frozen": folder / "frozen"}
    verdict = validate(
        "m", folder / "checkpoint", candidates, settings or ValidationSettings(), 1, folder / "validation"
    )
    assert verdict == json.loads((folder / "validation" / "verdict.json").read_text())
    return verdict, pd.read_csv(folder / "validation" / "results.csv", dtype=str, keep_default_na=False)


def verdicts(verdict: dict[str, Any]) -> dict[str, str]:
    return {found["check"]: found["verdict"] for found in verdict["checks"]}


@pytest.mark.parametrize("build", [batch_norm, softmax_over_the_batch, centred, neighbour])
def test_what_depends_on_its_neighbours_is_equal_and_not_stable(build: Build, tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, build)
    assert verdicts(verdict) == {
        **dict.fromkeys(("graph", "weights", "edge", "equal", "generated"), "passed"),
        "stable": "failed",
    }
    (equal,) = [found for found in verdict["checks"] if found["check"] == "equal"]
    assert equal["max_abs_diff"] == 0
    reason, *causes = verdict["reasons"]
    assert reason.startswith("stable of y: ")
    assert all(cause.startswith("frozen: ") for cause in causes)
    assert "depends on a row's neighbours or on chance" in reason


def test_what_depends_on_its_row_alone_is_stable_in_every_size_of_batch(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, honest)
    assert verdict["verdict"] == "passed"
    stable = results.query("check == 'stable'")
    assert len(stable) == verdict["rows"]["stable"] == 256
    assert stable["row"].is_unique
    assert stable["row"].astype(int).max() < ROWS
    assert not stable["row"].astype(int).is_monotonic_increasing


def test_the_first_answers_are_those_of_the_check_equal(tmp_path: Path) -> None:
    _, results = run_validation(tmp_path, centred)
    equal, stable = (results.query(f"check == '{name}'").set_index("row") for name in ("equal", "stable"))
    same = stable["element"] == equal.loc[stable.index, "element"]
    assert same.any()
    assert (stable["reference"] == equal.loc[stable.index, "candidate"])[same].all()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_size_of_the_first_batches_hides_nothing(size: int, tmp_path: Path) -> None:
    settings = ValidationSettings(batch_size=size, checks="stable")
    assert verdicts(run_validation(tmp_path, centred, settings=settings)[0]) == {"stable": "failed"}


def test_batches_of_a_fixed_size_stay_together(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, centred, shape=(30, 4), output=(30, 2))
    assert verdict["verdict"] == "passed"
    numbers = results.query("check == 'stable'")["row"].astype(int).to_numpy().reshape(-1, 30)
    assert (np.diff(numbers, axis=1) == 1).all()
    assert len(numbers) == 8
    assert (np.diff(numbers[:, 0]) < 0).any()
    assert verdict["rows"]["generated"] == 30


@pytest.mark.parametrize("output", [(2,), (None,), None])
def test_an_output_without_rows_is_left_out_and_said(output: Sequence[int | None] | None, tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, total, output=output)
    assert verdict["verdict"] == "passed"
    assert verdict["skipped"]["stable"] == "no output has an answer for each row"


def test_an_answer_whose_shape_depends_on_the_batch_is_not_stable(tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, as_long_as_the_largest_of_the_batch, output=(None, None))
    assert verdicts(verdict)["stable"] == "failed"
    assert "shape" in verdict["reasons"][0]
    [failure] = gist.failures(verdict)
    assert str(failure).startswith("frozen: the shape of a row's answer depends on its batch (y)")
    assert failure.next_step.startswith("Freeze an output")
    assert gist.figures(verdict).startswith("1 of 6 checks failed without a comparison, of ")


def test_answers_that_are_padded_to_the_longest_of_their_batch_are_compared_without_their_padding(
    tmp_path: Path,
) -> None:
    for name, build in (
        ("passed", padded_to_the_longest_of_the_batch),
        ("failed", padded_with_its_neighbours),
    ):
        (tmp_path / name).mkdir()
        verdict, results = run_validation(tmp_path / name, build, output=(None, None))
        assert verdicts(verdict)["stable"] == name
        is_noted = any("padded with -1" in note for note in verdict["notes"].get("frozen", ()))
        assert (len(results.query("check == 'stable'")) == 256, is_noted) == (name == "passed",) * 2


def test_answers_that_go_on_as_they_ended_are_compared_and_those_that_are_cut_or_changed_by_others_are_not_stable(
    tmp_path: Path,
) -> None:
    for name, build, wanted in (
        ("ended", going_on_as_it_ended, "passed"),
        ("others", going_on_with_its_neighbours, "failed"),
        ("cut", cut_to_the_shortest, "failed"),
    ):
        (tmp_path / name).mkdir()
        verdict, results = run_validation(tmp_path / name, build, output=(None, None))
        assert verdicts(verdict)["stable"] == wanted
        is_noted = any("repeat their last value" in note for note in verdict["notes"].get("frozen", ()))
        assert (len(results.query("check == 'stable'")) == 256, is_noted) == (wanted == "passed",) * 2


def test_an_answer_for_each_pair_of_rows_is_stable_unless_it_depends_on_further_rows(tmp_path: Path) -> None:
    for name, build in (("passed", for_each_pair), ("failed", among_all_pairs)):
        (tmp_path / name).mkdir()
        verdict, _ = run_validation(tmp_path / name, build, output=(None, None))
        assert verdicts(verdict)["stable"] == name


def test_rows_that_are_refused_in_other_batches_are_not_stable(tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, for_more_than_one)
    assert verdicts(verdict) == {
        **dict.fromkeys(("graph", "weights", "edge", "equal", "generated"), "passed"),
        "stable": "failed",
    }
    assert "refused in a batch of 1: " in verdict["reasons"][0]


def test_generated_rows_are_compared_in_batches_of_several_sizes(tmp_path: Path) -> None:
    _, results = run_validation(tmp_path, honest)
    rows = results.query("check == 'generated'")["row"].tolist()
    assert rows == [f"made up {size}/{row}" for size in (1, 2, 7, 64) for row in range(size)]


def test_generated_rows_are_the_same_on_every_run(tmp_path: Path) -> None:
    shown = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shown.append(run_validation(tmp_path / name, honest)[1].query("check in ('generated', 'stable')"))
    pd.testing.assert_frame_equal(*shown)


def test_generated_rows_are_as_long_as_the_validation_rows(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, honest, shape=(None, None))
    assert verdict["verdict"] == "passed"
    assert not results.query("check == 'generated'")["reference"].str.startswith("refused").any()


def test_generated_rows_that_the_checkpoint_refuses_prove_nothing_and_that_is_said(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, looked_up, rows=np.full(ROWS, 10), shape=(None,))
    assert verdict["verdict"] == "passed"
    assert "generated" not in set(results["check"])
    told = r"these rows were made up, and the checkpoint refuses all of them: indices\[0\] = -\d+ is not in \[0, 2\)"
    assert re.match(told, verdict["skipped"]["generated"])
    assert re.match(r"edge: 4 of 4 rows \(zero, .*\) are none that this model takes", verdict["notes"]["frozen"][0])


def test_made_up_rows_that_an_update_refuses_which_no_pb_carries_prove_nothing(tmp_path: Path) -> None:
    rows = np.arange(ROWS, dtype=np.int32) % 6
    verdict, results = run_validation(tmp_path, counted, rows=rows, shape=(None,), output=(None,))
    assert (verdict["verdict"], set(results["verdict"])) == ("passed", {"passed"}), verdict["reasons"]
    told = r"edge: 2 of 4 rows \(largest, smallest\) are none that this model takes, .* \(node count\)"
    assert re.match(told, verdict["notes"]["frozen"][0])


def test_validation_rows_that_were_made_up_and_are_refused_are_told_as_that(tmp_path: Path) -> None:
    refused = r"these rows were made up, and the model refuses them: indices\[0\] = -100 is not in \[0, 2\) \(node .*\)"
    with pytest.raises(DataError, match=refused) as caught:
        run_validation(tmp_path, looked_up, rows=np.zeros(ROWS, np.int64), shape=(None,), is_made_up=True)
    assert "np.savez('rows.npz', x=np.zeros((8,), 'int64'))" in str(caught.value.next_step)


def framed(x: Any) -> Any:
    """Windows of 100 samples: shorter signals have none."""
    scale = v1.get_variable("scale", initializer=2.0)
    largest = tf.reduce_max(tf.signal.frame(x, 100, 50) * scale, axis=2)
    return tf.cast(tf.argmax(largest, axis=1), tf.float32)


def test_rows_that_are_too_short_for_a_window_are_offered_longer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these rows were made up, and the model refuses them") as caught:
        run_validation(tmp_path, framed, X, (None, None), (None,), is_made_up=True)
    assert "np.savez('rows.npz', x=np.zeros((8, 512), 'float32'))" in str(caught.value.next_step)


def test_a_checkpoint_that_cannot_be_restored_is_not_told_as_rows_that_were_refused(tmp_path: Path) -> None:
    run_validation(tmp_path, honest, is_made_up=True)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("another", initializer=0.0)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "checkpoint" / "model.ckpt"), write_meta_graph=False)
    settings = ValidationSettings(checks="equal")
    with pytest.raises(CheckpointError, match="the checkpoint lacks what its graph restores"):
        validate("m", tmp_path / "checkpoint", {"frozen": tmp_path / "frozen"}, settings, 1, tmp_path)


def test_all_checks_are_made_unless_some_are_asked_for(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, honest, settings=ValidationSettings(checks="edge, stable"))
    assert set(results["check"]) == {"edge", "stable"}
    assert verdict["skipped"] == dict.fromkeys(
        ["graph", "weights", "equal", "decisions", "generated", "golden", *SEARCHES], "it was not asked for"
    )
    assert verdict["verdict"] == "passed"
    assert (verdict["rows"]["validation"], verdict["rows"]["stable"]) == (0, 256)


@pytest.mark.parametrize("name", ["golden", "stable"])
def test_a_check_that_was_asked_for_and_does_not_apply_has_failed(name: str, tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, total, output=(2,), settings=ValidationSettings(checks=f"equal,{name}"))
    assert verdicts(verdict) == {"equal": "passed", name: "failed"}
    assert f"{name} was asked for ([validation] checks), and does not apply: no output" in verdict["reasons"][0]


@pytest.mark.parametrize("checks", ["stabel", "equal,stabel", "", "equal,", "all,equal", "Equal"])
def test_an_unknown_check_is_refused(checks: str) -> None:
    with pytest.raises(SettingError, match=r"\[validation\] checks: unknown check") as caught:
        ValidationSettings(checks=checks)
    if "stabel" in checks:
        assert "Did you mean 'stable'" in str(caught.value)


def test_every_check_that_can_be_asked_for_is_there() -> None:
    assert ("graph", "weights", *CHECK_FUNCTIONS, "runtime") == CHECKS


def test_a_candidate_that_differs_on_made_up_rows_alone_fails_and_is_told_as_that(tmp_path: Path) -> None:
    """It cuts off what is beyond 50, as no row of the data is: a real difference, in words of its own."""
    (tmp_path / "cut").mkdir()
    run_validation(tmp_path / "cut", lambda x: logits(tf.minimum(x, 50.0)))
    run_validation(tmp_path, logits)
    candidates = {"frozen": tmp_path / "cut" / "frozen"}
    verdict = validate("m", tmp_path / "checkpoint", candidates, ValidationSettings(), 1, tmp_path / "validation")
    assert verdict["verdict"] == "failed"
    assert {check["check"] for check in verdict["checks"] if check["verdict"] == "failed"} == {"edge"}
    told = "frozen agrees with the checkpoint on all 300 rows of the data, and differs on rows that were made up (edge)"
    assert verdict["reasons"][0].startswith(told)
    assert verdict["made_up_alone"] == {"frozen": verdict["reasons"][0]}


def quantized(folder: Path, scale: float) -> Path:
    """A full-integer .tflite of the model, calibrated with its rows, in the artifact of a candidate."""
    weights = tf.constant(W * scale)
    serve = tf.function(lambda x: {"y": x @ weights}, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    module = tf.Module()
    tf.saved_model.save(module, str(folder / "saved"), {"serving_default": serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"x": X[row : row + 1] * 0.1} for row in range(ROWS))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder


def test_made_up_rows_beyond_a_calibrated_range_are_not_held_against_a_quantized_file(tmp_path: Path) -> None:
    run_validation(tmp_path, logits, rows=X * np.float32(0.1))
    settings = ValidationSettings(tolerances="y 0.05 0.05")
    results = {}
    for scale in (1.0, 1.5):
        folder = tmp_path / f"{scale}"
        folder.mkdir()
        shutil.copy(tmp_path / "checkpoint" / "signature.json", folder)
        candidates = {"tflite": quantized(folder, scale)}
        results[scale] = validate("m", tmp_path / "checkpoint", candidates, settings, 1, folder)
    assert results[1.0]["verdict"] == "passed"
    assert re.match(
        r"edge: \d of 9 made-up rows are beyond the range that tflite was calibrated for \(x from -0\.\d+ to 0\.\d+\)",
        results[1.0]["notes"]["tflite"][0],
    )
    assert results[1.5]["verdict"] == "failed"  # other weights: it is wrong on rows of the data
    assert results[1.5]["made_up_alone"] == {}
