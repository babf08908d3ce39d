"""Judging of candidates: by bounds of their own, within limits, and to the end even if one crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import PipelineError, SettingError
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.settings import ValidationSettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.validation.checks.material import checkpoint_limits
from pipeline.validation.validate import validate
from pipeline.workers.child import Limits

v1 = tf.compat.v1
Build = Callable[[Any], Any]

ROWS = 600
X = np.random.default_rng(8).uniform(-1, 1, size=(ROWS, 3)).astype(np.float32)
LABELS = (X.sum(axis=1) > 0).astype(np.int64)
W = np.array([[1.5], [-0.5], [0.25]], np.float32)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (None, 3)),),
    (TensorSpec("p", "float32", (None,)), TensorSpec("double", "float32", (None,))),
    Decision("p", 0.5, ("no", "yes")),
)


def model(x: Any, factor: float = 1.0, added: float = 0.0, raised: float = 0.0) -> Any:
    """A probability and its double.

    Args:
        factor: of the weights; added: to the logits; raised: to the double.
    """
    w = v1.get_variable("w", initializer=tf.constant(W))
    p = tf.sigmoid((x @ (w * factor) + added)[:, 0])
    tf.identity(p, name="p")
    tf.identity(p * 2 + raised, name="double")


def checkpoint_of(folder: Path, build: Build, rows: Any = X) -> Path:
    folder.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        build(v1.placeholder(tf.float32, [None, 3], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    SIGNATURE.write(folder / "signature.json")
    save_arrays(folder / "validation.npz", {**add_kind("input", {"x": rows}), "labels": LABELS[: len(rows)]})
    return folder


def run_validation(
    folder: Path, candidate: Build = model, settings: ValidationSettings | None = None, rows: Any = X
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Validates a candidate frozen from a graph of its own; returns the verdict and the results."""
    reference = checkpoint_of(folder / "checkpoint", model, rows)
    (folder / "frozen").mkdir()
    (folder / "validation").mkdir()
    freeze_checkpoint(checkpoint_of(folder / "other", candidate, rows), folder / "frozen")
    settings = settings or ValidationSettings()
    verdict = validate("m", reference, {"frozen": folder / "frozen"}, settings, 1, folder / "validation")
    assert verdict == json.loads((folder / "validation" / "verdict.json").read_text())
    return verdict, pd.read_csv(folder / "validation" / "results.csv", dtype=str, keep_default_na=False)


def verdicts(verdict: dict[str, Any], output: str) -> dict[str, str]:
    return {found["check"]: found["verdict"] for found in verdict["checks"] if found["output"] == output}


def test_each_row_is_decided_on_a_line_of_its_own(tmp_path: Path) -> None:
    verdict, results = run_validation(tmp_path, lambda x: model(x, added=0.05), ValidationSettings(checks="decisions"))
    lines = results.query("check == 'decisions'")
    logits = (X.astype(np.float64) @ W.astype(np.float64))[:, 0]
    reference, candidate = (logits >= 0).astype(int), (logits + 0.05 >= 0).astype(int)
    assert lines["row"].tolist() == [str(row) for row in range(ROWS)]
    assert lines["reference"].astype(int).tolist() == reference.tolist()
    assert lines["candidate"].astype(int).tolist() == candidate.tolist()
    flipped = int((reference != candidate).sum())
    assert flipped > 3
    assert (lines["verdict"] == "failed").sum() == flipped == verdict["decisions"]["frozen"]["flipped"]
    (reason, *_) = verdict["reasons"]
    assert reason.startswith(
        f"decisions of p: {flipped} of {ROWS} rows are decided otherwise; the surest of them is row "
    )
    assert reason.endswith("no became yes")


def test_decisions_may_flip_as_far_as_is_allowed(tmp_path: Path) -> None:
    settings = ValidationSettings(checks="decisions", flipped_share=0.1)
    verdict, _ = run_validation(tmp_path, lambda x: model(x, added=0.05), settings)
    (found,) = verdict["checks"]
    assert (found["verdict"], found["rows_allowed"]) == ("passed", 60)
    assert 0 < found["rows_failed"] <= 60
    assert not found["bit_equal"]


def test_metrics_and_scores_are_those_of_each_side(tmp_path: Path) -> None:
    verdict, _ = run_validation(tmp_path, lambda x: model(x, added=0.5))
    for side, added in (("checkpoint", 0.0), ("frozen", 0.5)):
        decided = ((X @ W)[:, 0] + added >= 0).astype(int)
        assert verdict["metrics"][side]["accuracy"] == pytest.approx((decided == LABELS).mean())
        by_label = verdict["scores"][side]["by_label"]
        assert [sum(by_label["no"]), sum(by_label["yes"])] == np.bincount(LABELS).tolist()
        assert sum(bin["rows"] for bin in verdict["scores"][side]["calibration"]) == ROWS
    assert verdict["scores"]["checkpoint"] != verdict["scores"]["frozen"]


def test_an_output_may_have_bounds_of_its_own(tmp_path: Path) -> None:
    settings = ValidationSettings(checks="equal", tolerances="double 0 0.25")
    verdict, _ = run_validation(tmp_path, lambda x: model(x, raised=0.2), settings)
    assert verdicts(verdict, "double") == {"equal": "passed"}
    (found,) = [found for found in verdict["checks"] if found["output"] == "double"]
    assert (found["rtol"], found["atol"]) == (0.0, 0.25)


def test_the_bounds_of_one_output_are_not_those_of_another(tmp_path: Path) -> None:
    settings = ValidationSettings(checks="equal", tolerances="p 0 0.25")
    verdict, _ = run_validation(tmp_path, lambda x: model(x, raised=0.2), settings)
    assert verdicts(verdict, "double") == {"equal": "failed"}


def test_bounds_of_an_output_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"tolerances: no such output \(got dubble\). Did you mean 'double'"):
        run_validation(tmp_path, settings=ValidationSettings(tolerances="dubble 0 0.25"))


@pytest.mark.parametrize("wrong", ["p", "p 1", "p 1 nan", "p -1 0", "p inf 0", "p 1e-5 1e-6, q", "1 2"])
def test_bounds_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match="tolerances: not an output and its bounds"):
        ValidationSettings(tolerances=wrong)


def endless(x: Any) -> None:
    """Loops forever."""
    w = v1.get_variable("w", initializer=tf.constant(W))
    turned = tf.while_loop(lambda turn, _: turn >= 0, lambda turn, y: (turn % 7, y), [tf.constant(1), x @ w])[1]
    tf.identity(turned[:, 0], name="p")
    tf.identity(turned[:, 0], name="double")


def greedy(x: Any) -> None:
    """Allocates 1.6 GB, twice."""
    w = v1.get_variable("w", initializer=tf.constant(W))
    p = tf.sigmoid((x @ w)[:, 0])
    much = tf.cumsum(tf.tile(p, [400_000_000 // ROWS]))
    tf.identity(p + 0 * much[-1], name="p")
    tf.identity(p * 2, name="double")


@pytest.mark.parametrize(
    ("candidate", "settings", "sentence"),
    [
        (endless, {"time_limit_seconds": 2.0}, "it gave no answer in time (wanted an answer within 2 s)"),
        (
            greedy,
            {"memory_limit_gb": 1.2, "batch_size": ROWS},
            "it took more memory than it may (wanted at most 1.2 GB)",
        ),
    ],
)
def test_a_candidate_that_passes_a_limit_has_failed_and_is_a_line(
    candidate: Build, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    verdict, results = run_validation(tmp_path, candidate, ValidationSettings(checks="equal,stable", **settings))
    assert verdict["verdict"] == "failed"
    assert sentence in verdict["reasons"][0]
    (line, *_) = results.query("check == 'equal' and output == 'p' and verdict == 'failed'").to_dict("records")
    assert line["candidate"].startswith("failed: ")
    assert sentence in line["candidate"]
    assert verdict["skipped"]["stable of frozen"] == "its process had ended before"


def test_the_checkpoint_itself_may_take_its_time(tmp_path: Path) -> None:
    assert (
        run_validation(tmp_path, settings=ValidationSettings(time_limit_seconds=600.0, memory_limit_gb=100.0))[0][
            "verdict"
        ]
        == "passed"
    )


def refusing(x: Any) -> None:
    """Refuses the batch with the row 300."""
    checked = tf.debugging.assert_greater(x[:, 0], -50.0, message="too small")
    with tf.control_dependencies([checked]):
        x = tf.identity(x)
    model(x)


def test_a_batch_that_is_refused_leaves_the_answers_to_later_questions_in_order(tmp_path: Path) -> None:
    rows = X.copy()
    rows[100, 0] = -99.0
    settings = ValidationSettings(checks="equal,generated", batch_size=16)
    verdict, results = run_validation(tmp_path, refusing, settings, rows)
    assert verdicts(verdict, "p") == {"equal": "failed", "generated": "passed"}
    assert "equal: the candidate could not be run: TensorFlow could not run the batch" in verdict["reasons"][0]
    generated = results.query("check == 'generated'")
    assert set(generated["verdict"]) == {"passed"}


def test_a_reference_that_refuses_its_own_rows_stops_the_run(tmp_path: Path) -> None:
    folder = checkpoint_of(tmp_path / "checkpoint", refusing, np.full((4, 3), -99.0, np.float32))
    (tmp_path / "frozen").mkdir()
    freeze_checkpoint(folder, tmp_path / "frozen")
    with pytest.raises(PipelineError, match="could not run the batch"):
        validate("m", folder, {"frozen": tmp_path / "frozen"}, ValidationSettings(checks="equal"), 1, tmp_path)


def test_every_row_and_check_has_its_lines_in_the_order_of_the_rows(tmp_path: Path) -> None:
    _, results = run_validation(tmp_path, settings=ValidationSettings(batch_size=7, checks="equal,decisions"))
    for check in ("equal", "decisions"):
        rows = results.query(f"check == '{check}' and output == 'p'")["row"].astype(int).tolist()
        assert rows == list(range(ROWS))


def overflowing(x: Any, factor: float = 1.0) -> None:
    """Overflows on large numbers, unless the optimizer multiplies the weights first because they are constants."""
    model(x)
    large, small = (v1.get_variable(name, initializer=tf.constant(value)) for name, value in SCALES.items())
    tf.identity((x[:, 0] * large) * small * factor, name="scaled")


SCALES = {"large": np.float32(1e30), "small": np.float32(1e-30)}


def validate_edge_cases(folder: Path, candidate: Build) -> dict[str, Any]:
    outputs = (TensorSpec("p", "float32", (None,)), TensorSpec("scaled", "float32", (None,)))
    signature = Signature(SIGNATURE.inputs, outputs)
    for name, build in (("checkpoint", overflowing), ("other", candidate)):
        signature.write(checkpoint_of(folder / name, build) / "signature.json")
    (folder / "frozen").mkdir()
    freeze_checkpoint(folder / "other", folder / "frozen")
    settings = ValidationSettings(checks="edge")
    return validate("m", folder / "checkpoint", {"frozen": folder / "frozen"}, settings, 1, folder)


def test_a_row_that_overflows_is_judged_with_the_optimizer_off_and_that_is_told(tmp_path: Path) -> None:
    verdict = validate_edge_cases(tmp_path, overflowing)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    (note,) = verdict["notes"]["frozen"]
    assert note.startswith("edge: 2 rows (largest, smallest) overflow with TensorFlow's optimizer")
    assert note.endswith("with it off they agree, so graph and weights are the same")


def test_a_row_that_does_not_overflow_is_not_excused_by_the_optimizer(tmp_path: Path) -> None:
    verdict = validate_edge_cases(tmp_path, lambda x: overflowing(x, 1.1))
    assert verdict["verdict"] == "failed"
    assert "notes" not in verdict or verdict["notes"] == {}
    (scaled,) = [found for found in verdict["checks"] if found["output"] == "scaled"]
    assert scaled["rows_failed"] == 2  # one, and minus one


def rounding(x: Any, added: float = 0.0) -> None:
    """Computes two numbers per row, one of them a small difference of large numbers, so that rounding shows in it."""
    model(x)
    third, many = (v1.get_variable(name, initializer=tf.constant(v)) for name, v in (("t", 1 / 3), ("m", 3333.3)))
    large = ((x[:, 0] + 2.0) * third) * many
    small = large - (x[:, 0] + 2.0) * 1111.1
    tf.identity(tf.stack([large, small + added], axis=1), name="scaled")


def validate_pairs(folder: Path, candidate: Build) -> dict[str, Any]:
    outputs = (TensorSpec("p", "float32", (None,)), TensorSpec("scaled", "float32", (None, 2)))
    signature = Signature(SIGNATURE.inputs, outputs)
    for name, build in (("checkpoint", rounding), ("other", candidate)):
        signature.write(checkpoint_of(folder / name, build) / "signature.json")
    (folder / "frozen").mkdir()
    freeze_checkpoint(folder / "other", folder / "frozen")
    settings = ValidationSettings(checks="equal,generated")
    return validate("m", folder / "checkpoint", {"frozen": folder / "frozen"}, settings, 1, folder)


def test_rows_that_the_optimizer_rounds_otherwise_pass_where_they_agree_without_it(tmp_path: Path) -> None:
    verdict = validate_pairs(tmp_path, rounding)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    equal, generated = verdict["notes"]["frozen"]
    assert "with TensorFlow's optimizer, which makes other kernels of constants" in equal
    assert equal.startswith("equal: 600 rows differ by up to 0.000")
    assert generated.startswith("generated: ")


def test_a_difference_as_small_as_rounding_is_one_where_the_optimizer_is_not_its_cause(tmp_path: Path) -> None:
    verdict = validate_pairs(tmp_path, lambda x: rounding(x, 0.002))
    assert verdict["verdict"] == "failed"
    assert verdict["notes"] == {}
    (equal,) = [one for one in verdict["checks"] if (one["check"], one["output"]) == ("equal", "scaled")]
    assert equal["rows_failed"] > ROWS * 0.9


@pytest.mark.parametrize("origin", [{}, {"origin": {"pins": {}}}])
def test_the_process_of_any_checkpoint_has_a_time_limit_and_that_of_a_third_party_one_of_memory(
    origin: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "signature.json").write_text(json.dumps(origin))
    limits = checkpoint_limits(tmp_path, Limits(600.0, 10**9, 0.5))
    assert limits == (Limits(600.0, 10**9, 0.5) if origin else Limits(600.0))
