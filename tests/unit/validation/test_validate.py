"""Validation: a fault planted in a frozen artifact is found, named and recorded; equal artifacts pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.data.npz import add_kind, save_arrays
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.report.csv_cells import read_cell
from pipeline.settings import CHECKS, SEARCHES, ValidationSettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.tasks.chain import results
from pipeline.validation.results.csv_file import COLUMNS
from pipeline.validation.validate import validate

v1 = tf.compat.v1
Change = Callable[[Any], None]

ROWS = 7
MADE = [name for name in CHECKS if name not in (*SEARCHES, "runtime")]  # of a candidate that is proved
X = np.random.default_rng(5).normal(size=(ROWS, 3)).astype(np.float32)
X[3, 1] = -1.0  # the root of it is not a number
X[[0, 1, 2, 4, 5, 6], 1] = np.abs(X[[0, 1, 2, 4, 5, 6], 1])
T = np.array([b"plain", b'a,"b"', b"two\nlines", b"\xff\xfe", b"", b"\xc3\xa9", b"nan"], object)
LABELS = np.array([0, 1, 1, 0, 1, 0, 0], np.int64)
W = np.array([[1.5, -0.5], [0.25, 2.0], [-1.0, 0.75]], np.float32)
C = np.array([0.125, -0.25], np.float32)
D = np.array([0.1, 0.7, -1.3])
LEVEL, COUNT = np.float32(0.3), 5
SIGNATURE = Signature(
    [TensorSpec("x", "float32", [None, 3]), TensorSpec("t", "string", [None])],
    [
        TensorSpec("scores", "float32", [None, 2]),
        TensorSpec("wide", "float64", [None]),
        TensorSpec("narrow", "float64", [None]),
        TensorSpec("root", "float32", [None]),
        TensorSpec("count", "int32", [None]),
        TensorSpec("text", "string", [None]),
        TensorSpec("level", "float32", []),
    ],
    Decision("scores", labels=["no", "yes"]),
)


def make_checkpoint(folder: Path, scale: float = 1.0) -> Path:
    """Makes an artifact like those of the stage `checkpoint`."""
    folder.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x, t = v1.placeholder(tf.float32, [None, 3], name="x"), v1.placeholder(tf.string, [None], name="t")
        values = {
            "w": W * np.float32(scale),
            "c": C,
            "d": D,
            "e": D * 2,
            "level_v": LEVEL,
            "b": COUNT,
            "s": [b'\xff,"\n'],
        }
        var = {name: v1.get_variable(name, initializer=tf.constant(value)) for name, value in values.items()}
        finite = tf.debugging.check_numerics(x, "x is not finite", name="finite")
        wide = tf.cast(finite, tf.float64)
        outputs = {
            "scores": finite @ var["w"] + var["c"],
            "wide": tf.reduce_sum(wide * var["d"], 1),
            "narrow": tf.reduce_sum(wide * var["e"], 1),
            "root": tf.sqrt(x[:, 1]),
            "count": tf.cast(tf.clip_by_value(x[:, 0], -9.0, 9.0), tf.int32) + var["b"],
            "text": tf.strings.join([t, var["s"][0]]),
            "level": tf.identity(var["level_v"]),
        }
        for name, tensor in outputs.items():
            tf.identity(tensor, name=name)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
        got = session.run({name: f"{name}:0" for name in outputs}, {x: X[:5], t: T[:5]})
    SIGNATURE.write(folder / "signature.json")
    save_arrays(folder / "validation.npz", {**add_kind("input", {"x": X, "t": T}), "labels": LABELS})
    arrays = {name: np.asarray(value) for name, value in got.items()}
    save_arrays(folder / "goldens.npz", add_kind("input", {"x": X[:5], "t": T[:5]}) | add_kind("output", arrays))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("validation") / "checkpoint")


@pytest.fixture(scope="module")
def frozen(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "frozen"
    folder.mkdir()
    freeze_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def equal(checkpoint: Path, frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return run_validation(checkpoint, frozen, tmp_path_factory.mktemp("equal"))


def run_validation(
    checkpoint: Path, frozen: Path, folder: Path, settings: ValidationSettings | None = None
) -> tuple[dict[str, Any], Path]:
    verdict = validate("m", checkpoint, {"frozen": frozen}, settings or ValidationSettings(), 1, folder)
    assert verdict == json.loads((folder / "verdict.json").read_text())
    return verdict, folder / "results.csv"


def plant(frozen: Path, folder: Path, change: Change) -> Path:
    """Copies the frozen artifact and changes its graph."""
    shutil.copytree(frozen, folder / "planted")
    graph = v1.GraphDef.FromString((frozen / "model.pb").read_bytes())
    change(graph)
    (folder / "planted" / "model.pb").write_bytes(graph.SerializeToString(deterministic=True))
    return folder / "planted"


def node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def set_weight(name: str, value: Any) -> Change:
    def change(graph: Any) -> None:
        const = node(graph, name)
        old = tf.make_ndarray(const.attr["value"].tensor)
        new = np.asarray(value).astype(old.dtype)
        assert not np.array_equal(new, old)
        const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(new, const.attr["dtype"].type, list(old.shape)))

    return change


def check(verdict: dict[str, Any], name: str, output: str) -> dict[str, Any]:
    (found,) = [c for c in verdict["checks"] if (c["format"], c["check"], c["output"]) == ("frozen", name, output)]
    return found


def failed_checks(verdict: dict[str, Any]) -> set[tuple[str, str]]:
    return {(c["check"], c["output"]) for c in verdict["checks"] if c["verdict"] == "failed"}


def read_results(results: Path) -> pd.DataFrame:
    return pd.read_csv(results, dtype=str, keep_default_na=False)


def test_what_is_equal_passes_bit_by_bit(equal: tuple[dict[str, Any], Path]) -> None:
    verdict, _ = equal
    assert (verdict["verdict"], verdict["reasons"]) == ("passed", [])
    # A candidate in other batches is its own reference, and may answer with other last bits.
    assert all(found["bit_equal"] for found in verdict["checks"] if found["check"] != "stable")
    assert all(found["rows_failed"] == 0 for found in verdict["checks"])
    checks = [found for found in verdict["checks"] if found["check"] not in SEARCHES]
    names = {(found["format"], found["check"]) for found in checks}
    assert names == {("checkpoint", "golden"), *(("frozen", name) for name in MADE)}
    # No row has a level of its own; and weights and decisions.
    assert len(checks) == 7 * len(SIGNATURE.outputs) - 1 + 2


def test_not_a_number_on_both_sides_passes(equal: tuple[dict[str, Any], Path]) -> None:
    verdict, results = equal
    frame = read_results(results).query("check == 'equal' and output == 'root' and row == '3'")
    assert frame[["reference", "candidate", "verdict"]].to_numpy().tolist() == [["nan", "nan", "passed"]]
    assert check(verdict, "equal", "root")["max_abs_diff"] == 0


def test_rows_that_both_sides_refuse_pass(equal: tuple[dict[str, Any], Path]) -> None:
    frame = read_results(equal[1]).query("check == 'edge' and row == 'not a number'")
    assert len(frame) == len(SIGNATURE.outputs)
    assert set(frame["verdict"]) == {"passed"}
    assert frame["reference"].str.startswith("refused: ").all()


def test_results_hold_one_line_for_each_row_and_output_in_a_fixed_order_of_columns(
    equal: tuple[dict[str, Any], Path],
) -> None:
    wanted = "model,format,check,output,row,element,reference,candidate,abs_diff,rel_diff,ulp_diff,verdict,runtime"
    assert equal[1].read_bytes().split(b"\n", 1)[0].decode() == wanted == ",".join(COLUMNS)
    frame = read_results(equal[1])
    lines = frame.query("check == 'equal'").groupby("output")["row"].apply(list).to_dict()
    rows = [str(row) for row in range(ROWS)]
    assert lines == {spec.name: ["0"] if spec.name == "level" else rows for spec in SIGNATURE.outputs}
    assert set(frame["model"]) == {"m"}


def test_floats_in_results_are_read_back_exactly(equal: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    frame = read_results(equal[1]).query("check == 'equal'")
    for output, want in (("wide", (X.astype(np.float64) * D).sum(1)), ("level", np.array([LEVEL]))):
        path = tmp_path / f"{output}.csv"
        frame[frame["output"] == output].to_csv(path, index=False)
        again = pd.read_csv(path, float_precision="round_trip")["reference"].to_numpy().astype(want.dtype)
        np.testing.assert_array_max_ulp(again, want, maxulp=4 if output == "wide" else 0)
    shown = np.array([np.float32(cell) for cell in frame[frame["output"] == "root"]["candidate"]])
    np.testing.assert_array_equal(shown[np.arange(ROWS) != 3], np.sqrt(X[np.arange(ROWS) != 3, 1]))


def test_strings_survive_with_commas_quotes_newlines_and_invalid_bytes(equal: tuple[dict[str, Any], Path]) -> None:
    shown = read_results(equal[1]).query("check == 'equal' and output == 'text'")["candidate"].map(read_cell).tolist()
    assert shown == [(text + b'\xff,"\n').decode("utf-8", "backslashreplace") for text in T]


def test_the_verdict_says_all_that_a_program_needs(equal: tuple[dict[str, Any], Path]) -> None:
    verdict, results = equal
    assert verdict["comparisons"] == len(results.read_text(encoding="utf-8").splitlines()) - 1
    kinds = {key: type(value) for key, value in verdict.items()}
    assert kinds == {
        "comparisons": int,
        **{"schema": int, "verdict": str, "model": str, "reasons": list, "rows": dict, "checks": list},
        **{"metrics": dict, "decisions": dict, "scores": dict, "skipped": dict, "causes": dict, "notes": dict},
        **{"made_up_alone": dict, "proofs": dict},
    }
    assert verdict["skipped"] == {"stable of level": "it has not one answer for each row"}
    rows = {"validation": ROWS, "decisions": ROWS, "edge": 20, "generated": 74, "stable": ROWS, "golden": 5}
    assert {name: count for name, count in verdict["rows"].items() if name not in SEARCHES} == rows
    found = check(verdict, "equal", "scores")
    figures = {"max_abs_diff": float, "max_rel_diff": float, "max_ulp_diff": int, "rtol": float, "atol": float}
    texts = {"format": str, "check": str, "output": str, "dtype": str, "verdict": str, "reason": type(None)}
    counts = {"rows": int, "rows_failed": int, "rows_allowed": int, "bit_equal": bool, "worst": dict}
    assert {key: type(value) for key, value in found.items()} == {**figures, **texts, **counts}


def test_metrics_are_those_of_a_hand_computation(equal: tuple[dict[str, Any], Path]) -> None:
    decided = np.argmax(X @ W + C, axis=1)
    confusion = [[int(((t == LABELS) & (decided == d)).sum()) for d in (0, 1)] for t in (0, 1)]
    (tn, fp), (fn, tp) = confusion
    precision = (tp / (tp + fp) + tn / (tn + fn)) / 2
    assert 0 < np.trace(confusion) < ROWS
    for side in ("checkpoint", "frozen"):
        metrics = equal[0]["metrics"][side]
        assert metrics["confusion"] == confusion
        assert (metrics["rows"], metrics["labels"]) == (ROWS, ["no", "yes"])
        assert metrics["accuracy"] == pytest.approx((tp + tn) / ROWS)
        assert metrics["recall"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
        assert metrics["precision"] == pytest.approx(precision)
    assert equal[0]["decisions"]["frozen"]["flipped"] == 0


@pytest.mark.parametrize("size", [2, 3, 4, 100])
def test_the_size_of_a_batch_changes_nothing_in_the_results(
    size: int, checkpoint: Path, frozen: Path, equal: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    checks = ",".join(MADE)
    verdict, results = run_validation(checkpoint, frozen, tmp_path, ValidationSettings(checks=checks, batch_size=size))
    keys, left_out = ["format", "check", "output", "row"], ["stable", *SEARCHES]
    ours, theirs = (
        frame[(frame["output"] != "level") & ~frame["check"].isin(left_out)].sort_values(keys).reset_index(drop=True)
        for frame in (read_results(results), read_results(equal[1]))
    )
    # A kernel may add in another order for another batch: then last bits differ, and another element may be the worst.
    pd.testing.assert_frame_equal(ours[[*keys, "verdict"]], theirs[[*keys, "verdict"]])
    is_same = ours["element"] == theirs["element"]
    assert is_same.mean() > 0.9
    for side in ("reference", "candidate"):
        values = (pd.to_numeric(frame[side][is_same], errors="coerce").to_numpy() for frame in (ours, theirs))
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
    assert verdict["verdict"] == "passed"


def test_a_weight_off_by_one_ulp_is_within_the_outputs_tolerance_but_not_the_checkpoints(
    checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    change = set_weight("level_v", np.nextafter(LEVEL, np.float32(1)))
    verdict, results = run_validation(checkpoint, plant(frozen, tmp_path, change), tmp_path)
    found = check(verdict, "equal", "level")
    assert failed_checks(verdict) == {("weights", "variables")}
    assert (found["bit_equal"], found["max_ulp_diff"]) == (False, 1)
    assert read_results(results).query("check == 'equal' and output == 'level'")["ulp_diff"].astype(float).tolist() == [
        1.0
    ]


def test_a_weight_that_is_off_fails_and_the_message_shows_the_worst_row_and_its_values(
    checkpoint: Path, frozen: Path, tmp_path: Path
) -> None:
    other = W.copy()
    other[0, 1] += 5
    verdict, results = run_validation(checkpoint, plant(frozen, tmp_path, set_weight("w", other)), tmp_path)
    row = int(np.argmax(np.abs(X @ other - X @ W)[:, 1]))
    (line,) = (
        read_results(results).query(f"check == 'equal' and output == 'scores' and row == '{row}'").to_dict("records")
    )
    assert float(line["reference"]) == pytest.approx(float((X @ W + C)[row, 1]), rel=1e-5)
    assert float(line["candidate"]) == pytest.approx(float((X @ other + C)[row, 1]), rel=1e-5)
    (reason,) = [text for text in verdict["reasons"] if text.startswith("equal of scores")]
    for part in (f"7 of 7 rows differ; the worst is row {row}, element 1", line["reference"], line["candidate"]):
        assert part in reason
    assert {output for _, output in failed_checks(verdict)} == {"scores", "variables"}


@pytest.mark.parametrize("by", [0.5, 1.0, -20.0])
def test_decisions_that_flip_are_counted(by: float, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    other = C + np.array([by, 0], np.float32)
    verdict, _ = run_validation(checkpoint, plant(frozen, tmp_path, set_weight("c", other)), tmp_path)
    before, after = np.argmax(X @ W + C, 1), np.argmax(X @ W + other, 1)
    margin = np.abs(np.diff(X @ W + C, axis=1))[:, 0]
    found = verdict["decisions"]["frozen"]
    assert 0 < found["flipped"] == int((before != after).sum())
    assert (found["rows"], found["nearest_row"]) == (ROWS, int(np.argmin(margin)))
    assert found["nearest_distance"] == pytest.approx(margin.min(), rel=1e-5)
    assert verdict["metrics"]["frozen"]["accuracy"] == pytest.approx(float((after == LABELS).mean()))
    assert verdict["metrics"]["checkpoint"]["accuracy"] == pytest.approx(float((before == LABELS).mean()))


def rename(**names: str) -> Change:
    def change(graph: Any) -> None:
        for one in graph.node:
            one.name = names.get(one.name, one.name)

    return change


def as_float32(graph: Any) -> None:
    rename(wide="wide_64")(graph)
    cast = graph.node.add(name="wide", op="Cast", input=["wide_64"])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = tf.float64.as_datatype_enum, tf.float32.as_datatype_enum


def abort(graph: Any) -> None:
    graph.node.add(name="abort", op="Abort").attr["error_msg"].s = b"planted"
    node(graph, "scores").input.append("^abort")


def answer_all(graph: Any) -> None:
    node(graph, "finite").op = "Identity"
    node(graph, "finite").attr.pop("message")


FAULTS: dict[str, tuple[Change, set[tuple[str, str]], str]] = {
    "swapped outputs": (rename(wide="narrow", narrow="wide"), {("equal", "wide"), ("equal", "narrow")}, "rows differ"),
    "missing output": (rename(wide="gone"), {("equal", "wide"), ("equal", "scores")}, "wide: the graph lacks a tensor"),
    "output of another dtype": (as_float32, {("equal", "wide")}, "got float32, wanted float64"),
    "not a number": (set_weight("d", [np.nan, 0, 0]), {("equal", "wide"), ("golden", "wide")}, "frozen nan"),
    "int off by one": (set_weight("b", COUNT + 1), {("equal", "count"), ("golden", "count")}, "7 of 7 rows differ"),
    "other string": (
        set_weight("s", np.array([b'\xff,"\r'], object)),
        {("equal", "text"), ("golden", "text")},
        "7 of 7 rows differ",
    ),
    "dying process": (abort, {("equal", spec.name) for spec in SIGNATURE.outputs}, "SIGABRT"),
    "answers what the checkpoint refuses": (answer_all, {("edge", "scores"), ("edge", "text")}, "refused: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_and_is_named(fault: str, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    change, wanted, sentence = FAULTS[fault]
    verdict, _ = run_validation(checkpoint, plant(frozen, tmp_path, change), tmp_path)
    assert verdict["verdict"] == "failed"
    assert wanted <= failed_checks(verdict)
    assert any(sentence in reason for reason in verdict["reasons"]), verdict["reasons"]
    assert not any(found["bit_equal"] for found in verdict["checks"] if found["verdict"] == "failed")


CAUSES = {
    "not a number": "1 of 7 weights differ: variable d",
    "int off by one": "weights differ: variable b",
    "other string": "weights differ: variable s",
}


@pytest.mark.parametrize("fault", CAUSES)
def test_the_cause_is_the_weight_that_differs(fault: str, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    change, _, _ = FAULTS[fault]
    verdict, _ = run_validation(checkpoint, plant(frozen, tmp_path, change), tmp_path)
    assert list(verdict["causes"]) == ["frozen"]
    assert verdict["causes"]["frozen"]["kind"] == "weights_differ"
    assert CAUSES[fault] in verdict["causes"]["frozen"]["sentence"]
    assert f"frozen: {verdict['causes']['frozen']['sentence']}" in verdict["reasons"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "gone"])
def test_a_pb_that_cannot_be_read_fails(damage: str, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    place = plant(frozen, tmp_path, lambda graph: None) / "model.pb"
    whole = place.read_bytes()
    place.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"\x07not a graph" * 9}.get(damage, b""))
    if damage == "gone":
        place.unlink()
    verdict, _ = run_validation(checkpoint, place.parent, tmp_path)
    assert verdict["verdict"] == "failed"
    assert {("equal", spec.name) for spec in SIGNATURE.outputs} <= failed_checks(verdict)
    assert "could not be run" in verdict["reasons"][0]
    assert "it has answered nothing" in verdict["causes"]["frozen"]["sentence"]


def test_the_pb_of_another_training_fails_on_every_check_against_the_checkpoint(
    checkpoint: Path, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", scale=1.25)
    (tmp_path / "frozen").mkdir()
    freeze_checkpoint(other, tmp_path / "frozen")
    verdict, _ = run_validation(checkpoint, tmp_path / "frozen", tmp_path)
    assert failed_checks(verdict) == {("weights", "variables")} | {
        (name, "scores") for name in ("equal", "edge", "generated", "golden")
    }


def test_a_checkpoint_that_does_not_give_its_goldens_fails_too(frozen: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other")
    shutil.copy(make_checkpoint(tmp_path / "third", scale=1.25) / "goldens.npz", other)
    verdict, _ = run_validation(other, frozen, tmp_path)
    sides = {found["format"] for found in verdict["checks"] if found["verdict"] == "failed"}
    assert failed_checks(verdict) == {("golden", "scores")}
    assert sides == {"checkpoint", "frozen"}


def test_without_a_validation_row_nothing_is_proven(checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    nothing = add_kind("input", {"x": X[:0], "t": T[:0]})
    save_arrays(tmp_path / "checkpoint" / "validation.npz", nothing | {"labels": LABELS[:0]})
    verdict, _ = run_validation(tmp_path / "checkpoint", frozen, tmp_path)
    assert verdict["verdict"] == "failed"


def test_a_model_goes_through_the_chain_and_a_spoiled_pb_does_not(tmp_path: Path) -> None:
    job = jobs.job_for(tmp_path, f"{jobs.FRUIT}:Fruit")
    jobs.run(job, "validation")
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed"
    assert verdict["decisions"]["frozen"]["flipped"] == 0
    assert verdict["metrics"]["frozen"] == verdict["metrics"]["checkpoint"]
    graph = v1.GraphDef.FromString((job.folder("frozen") / "model.pb").read_bytes())
    (bias,) = [one for one in graph.node if one.name == "logits/bias"]
    spoil = set_weight("logits/bias", tf.make_ndarray(bias.attr["value"].tensor)[::-1] + 1.5)
    (tmp_path / "again").mkdir()
    spoiled = plant(job.folder("frozen"), tmp_path / "again", spoil)
    verdict, _ = run_validation(job.folder("checkpoint"), spoiled, tmp_path / "again")
    assert {("equal", "probabilities"), ("golden", "probabilities")} <= failed_checks(verdict)
