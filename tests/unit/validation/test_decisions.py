"""Decisions, counted batch by batch: compared with figures computed by hand, and with all rows at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from pipeline.settings import ValidationSettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.validation.compare.decisions import MAX_SHOWN_FLIPS, Flips, Scores, has_decisions, score_bins_for
from pipeline.validation.results.findings import Finding
from pipeline.validation.results.recorder import ResultsRecorder

THRESHOLD = Decision("p", 0.5, ("ham", "spam"))
ARGMAX = Decision("p", labels=("a", "b", "c"))


def scores(output: Any, labels: Any, size: int, decision: Decision = THRESHOLD) -> Scores:
    counted = Scores(decision, score_bins_for(output[:size], decision))
    for start in range(0, len(output), size):
        counted.add(output[start : start + size], None if labels is None else labels[start : start + size])
    return counted


def test_a_row_flips_where_its_decision_is_another() -> None:
    flips = Flips(THRESHOLD)
    flips.add(np.array([0.1, 0.9, 0.6]), np.array([0.2, 0.4, 0.7]), range(3))
    flips.add(np.array([0.49, 0.5]), np.array([0.5, 0.49]), range(3, 5))
    assert flips.to_dict() == {
        "rows": 5,
        "flipped": 3,
        "nearest_row": 4,
        "nearest_distance": 0.0,
        "flips": [
            {"row": 1, "reference": "spam", "candidate": "ham", "distance": pytest.approx(0.4)},
            {"row": 3, "reference": "ham", "candidate": "spam", "distance": pytest.approx(0.01)},
            {"row": 4, "reference": "spam", "candidate": "ham", "distance": 0.0},
        ],
        "classes": [
            {"class": "ham", "rows": 2, "lost": 1, "gained": 2, "hits": 0, "missed": 0},
            {"class": "spam", "rows": 3, "lost": 2, "gained": 1, "hits": 0, "missed": 0},
        ],
    }


def one_hot(classes: Any) -> Any:
    return np.eye(3)[np.asarray(classes)]


RARE = np.array([2] * 15 + [0] * 2000 + [1] * 1985)  # 15 rows of class c among 4,000


def judged(flips: Flips, kind: str, path: Path) -> Finding:
    """Judges decisions of a candidate of less precision, of whose rows 1 % may flip if it is of kind int8."""
    signature = Signature((TensorSpec("x", "float32", (None,)),), (TensorSpec("p", "float32", (None, 3)),), ARGMAX)
    with ResultsRecorder("m", signature, ValidationSettings(), path, {"tflite_int8": kind}) as recorder:
        recorder.judge_decisions("tflite_int8", "p", flips)
        return recorder.finding("tflite_int8", "decisions", "p")


@pytest.mark.parametrize(("kept", "has_passed"), [(3, False), (11, False), (12, True), (15, True)])
def test_a_rare_class_that_is_lost_fails_without_labels_though_few_rows_flip(
    kept: int, has_passed: bool, tmp_path: Path
) -> None:
    flips, theirs = Flips(ARGMAX), RARE.copy()
    theirs[kept:15] = 0
    for start in range(0, len(RARE), 512):
        span = slice(start, start + 512)
        flips.add(one_hot(RARE[span]), one_hot(theirs[span]), range(start, min(start + 512, len(RARE))))
    finding = judged(flips, "int8", tmp_path / "results.csv")
    assert (finding.has_passed, finding.rows_failed <= finding.rows_allowed) == (has_passed, True)
    if not has_passed:
        assert f"class c: {15 - kept} of 15 rows that the checkpoint decides for it" in finding.sentence()
        assert "allowed are 3 ([validation] class_flipped_share)" in finding.sentence()


def test_a_rare_class_that_is_lost_behind_its_false_alarms_fails_by_its_labels(tmp_path: Path) -> None:
    ours = RARE.copy()
    ours[15:315] = 2  # the checkpoint takes 300 others for it too, so that 12 of 315 are few
    theirs, flips = ours.copy(), Flips(ARGMAX)
    theirs[3:15] = 0
    flips.add(one_hot(ours), one_hot(theirs), range(len(RARE)))
    assert judged(flips, "int8", tmp_path / "one.csv").has_passed
    flips = Flips(ARGMAX)
    flips.add(one_hot(ours), one_hot(theirs), range(len(RARE)), RARE)
    finding = judged(flips, "int8", tmp_path / "two.csv")
    assert "class c: 12 of 15 rows with this label, which the checkpoint decides rightly" in finding.sentence()


def test_a_rare_class_that_is_flooded_fails(tmp_path: Path) -> None:
    theirs, flips = RARE.copy(), Flips(ARGMAX)
    theirs[100:130] = 2
    flips.add(one_hot(RARE), one_hot(theirs), range(len(RARE)))
    assert "class c: 30 rows are new in it, beside its own 15" in judged(flips, "int8", tmp_path / "one.csv").sentence()


def test_one_row_of_any_class_may_flip_where_rows_may(tmp_path: Path) -> None:
    theirs, flips = RARE.copy(), Flips(ARGMAX)
    theirs[[0, 20]] = [0, 1]
    flips.add(one_hot(RARE), one_hot(theirs), range(len(RARE)))
    assert judged(flips, "int8", tmp_path / "one.csv").has_passed
    assert not judged(flips, "", tmp_path / "two.csv").has_passed


def test_a_tie_that_is_broken_otherwise_is_a_flip_at_no_distance() -> None:
    flips = Flips(ARGMAX)
    flips.add(np.array([[0.4, 0.4, 0.2]]), np.array([[0.4, 0.4 + 1e-9, 0.2]]), range(1))
    assert (flips.flipped, flips.nearest_distance) == (1, 0.0)
    assert flips.surest == [{"row": 0, "reference": "a", "candidate": "b", "distance": 0.0}]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 7))
def test_the_surest_flips_are_shown_however_the_rows_are_split(values: list[float], size: int) -> None:
    ours = np.array(values)
    theirs = 1 - ours
    whole, split = Flips(THRESHOLD), Flips(THRESHOLD)
    whole.add(ours, theirs, range(len(ours)))
    for start in range(0, len(ours), size):
        split.add(ours[start : start + size], theirs[start : start + size], range(start, min(start + size, len(ours))))
    assert whole.to_dict() == split.to_dict()
    assert len(whole.surest) == min(MAX_SHOWN_FLIPS, whole.flipped)
    distances = [flip["distance"] for flip in whole.surest]
    assert distances == sorted(distances, reverse=True)


def test_a_score_that_is_not_a_number_is_never_the_nearest() -> None:
    flips = Flips(THRESHOLD)
    flips.add(np.array([np.nan, 0.7]), np.array([np.nan, 0.7]), range(2))
    assert (flips.nearest_row, flips.flipped) == (1, 0)


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_scores_are_the_same_however_the_rows_are_split(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    output, labels = draw.uniform(size=50).astype(np.float32), draw.integers(0, 2, 50)
    whole, split = scores(output, labels, 50), scores(output, labels, size)
    assert whole.metrics() == split.metrics()
    ours, theirs = whole.to_dict(), split.to_dict()
    assert (ours["by_label"], ours["edges"]) == (theirs["by_label"], theirs["edges"])
    for one, other in zip(ours["calibration"], theirs["calibration"], strict=True):
        assert one == pytest.approx(other)


def test_the_calibration_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    output = draw.uniform(size=400)
    labels = (draw.uniform(size=400) < output).astype(np.int64)
    share, mean = calibration_curve(labels, output, n_bins=10)
    bins = scores(output, labels, 64).to_dict()["calibration"]
    assert [one["share"] for one in bins] == pytest.approx(share)
    assert [one["mean_score"] for one in bins] == pytest.approx(mean)
    assert sum(one["rows"] for one in bins) == 400


def test_the_distribution_is_counted_by_label() -> None:
    counted = scores(np.array([0.0, 0.049, 0.05, 0.97, 1.0]), np.array([0, 0, 1, 1, 1]), 5).to_dict()
    assert counted["by_label"]["ham"] == [2] + [0] * 19
    assert counted["by_label"]["spam"] == [0, 1] + [0] * 17 + [2]
    assert len(counted["edges"]) == 21


def test_an_argmax_is_calibrated_by_whether_it_is_right() -> None:
    output = np.array([[0.65, 0.25, 0.1], [0.1, 0.62, 0.28], [0.9, 0.05, 0.05]])
    [first, second] = [
        one for one in scores(output, np.array([0, 2, 0]), 3, ARGMAX).to_dict()["calibration"] if one["rows"]
    ]
    assert (first["rows"], first["share"]) == (2, 0.5)
    assert (second["rows"], second["mean_score"], second["share"]) == (1, pytest.approx(0.9), 1.0)


def test_scores_that_are_no_probabilities_have_a_distribution_and_no_calibration() -> None:
    counted = scores(np.array([-3.0, 0.0, 5.0]), np.array([0, 0, 1]), 3).to_dict()
    assert (counted["edges"][0], counted["edges"][-1], counted["calibration"]) == (-3.0, 5.0, [])


def test_without_labels_there_is_one_distribution_and_no_metrics() -> None:
    counted = scores(np.array([0.2, 0.8]), None, 2)
    assert list(counted.to_dict()["by_label"]) == ["all"]
    assert counted.metrics() == {}


@pytest.mark.parametrize(
    ("output", "decision", "does"),
    [
        (np.zeros(3), THRESHOLD, True),
        (np.zeros((3, 1)), THRESHOLD, True),
        (np.zeros((3, 2)), THRESHOLD, False),
        (np.zeros((3, 2)), ARGMAX, True),
        (np.zeros(3), ARGMAX, False),
        (np.zeros((2, 2)), ARGMAX, False),
        (np.float32(1), THRESHOLD, False),
        (np.array([b"a", b"b", b"c"], object), THRESHOLD, False),
    ],
)
def test_only_an_output_with_a_number_or_classes_for_each_row_decides(
    output: Any, decision: Decision, does: bool
) -> None:
    assert has_decisions(np.asarray(output), decision, 3) == does


@given(st.integers(0, 10_000), st.integers(1, 49), st.sampled_from([THRESHOLD, ARGMAX]))
def test_what_was_counted_on_two_parts_adds_up_to_the_very_same(seed: int, cut: int, decision: Decision) -> None:
    draw = np.random.default_rng(seed)
    shape = (50,) if decision is THRESHOLD else (50, 3)
    output, other = draw.uniform(size=shape), draw.uniform(size=shape)
    labels, bins = draw.integers(0, 2, 50), score_bins_for(output, decision)

    def counted(start: int, stop: int) -> tuple[Scores, Flips]:
        scores, flips = Scores(decision, bins), Flips(decision)
        scores.add(output[start:stop], labels[start:stop])
        flips.add(output[start:stop], other[start:stop], range(start, stop))
        return scores, flips

    whole, first, second = counted(0, 50), counted(0, cut), counted(cut, 50)
    first[0].merge(second[0])
    first[1].merge(second[1])
    assert [one.to_dict() for one in first] == [one.to_dict() for one in whole]
    assert first[0].metrics() == whole[0].metrics()
