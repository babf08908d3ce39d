"""Findings: outputs of every shape and dtype become lines and figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.settings import ValidationSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.checks import passes
from pipeline.validation.checks.unoptimized import UnoptimizedPair
from pipeline.validation.results.findings import Finding
from pipeline.validation.results.recorder import ResultsRecorder


def compare_rows(reference: Any, candidate: Any, rows: int, folder: Path) -> tuple[Finding, pd.DataFrame]:
    signature = Signature([TensorSpec("x", "float32")], [TensorSpec("y", str(reference.dtype))])
    with ResultsRecorder("m", signature, ValidationSettings(), folder / "results.csv") as recorder:
        recorder.compare("frozen", "equal", {"y": reference}, {"y": candidate}, range(rows))
    return recorder.finding("frozen", "equal", "y"), pd.read_csv(folder / "results.csv", keep_default_na=False)


@pytest.mark.parametrize("shape", [(), (2,), (2, 5)])
def test_an_output_without_a_batch_is_one_line_for_each_batch(shape: tuple[int, ...], tmp_path: Path) -> None:
    reference = np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.float32).reshape(shape)
    candidate = reference.copy()
    candidate.flat[-1] += 3
    finding, frame = compare_rows(reference, candidate, 5, tmp_path)
    last = float(reference.flat[-1])
    assert (finding.rows, finding.rows_failed, finding.max_abs_diff) == (1, 1, 3.0)
    assert frame[["row", "reference", "candidate"]].to_numpy().tolist() == [[0, last, last + 3]]


@pytest.mark.parametrize("part", [1, 1j])
def test_a_complex_output_is_compared_in_both_parts(part: complex, tmp_path: Path) -> None:
    reference = np.array([[1 + 2j, 3 - 1j], [0, 1j]], np.complex64)
    candidate = reference.copy()
    candidate[1, 1] += part
    finding, frame = compare_rows(reference, candidate, 2, tmp_path)
    assert (finding.rows, finding.rows_failed, finding.max_abs_diff) == (2, 1, 1.0)
    assert frame["verdict"].tolist() == ["passed", "failed"]
    # The differing part is shown, as the last index: 0 the real one, 1 the imaginary one.
    assert frame["element"].tolist()[1] == ("1;0" if part == 1 else "1;1")
    assert frame.loc[1, "candidate"] - frame.loc[1, "reference"] == 1.0


def test_rows_without_elements_are_equal(tmp_path: Path) -> None:
    finding, frame = compare_rows(np.zeros((3, 0), np.float32), np.zeros((3, 0), np.float32), 3, tmp_path)
    assert finding.has_passed
    assert frame["verdict"].tolist() == ["passed"] * 3


def test_a_row_that_failed_is_worse_than_any_that_passed(tmp_path: Path) -> None:
    signature = Signature([TensorSpec("x", "float32")], [TensorSpec("y", "float32")])
    recorder = ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv")
    for label, ours, theirs in (("huge", 1e30, 1.000001e30), ("small", 1.0, 1.5), ("again", 1e30, 1.000001e30)):
        sides = ({"y": np.array([value], np.float32)} for value in (ours, theirs))
        recorder.compare("frozen", "edge", *sides, [label])
    finding = recorder.finding("frozen", "edge", "y")
    assert (finding.rows, finding.rows_failed) == (3, 1)
    assert "the worst is row small: reference 1.0, frozen 1.5" in finding.sentence()


def test_a_refusal_of_one_side_alone_is_shown_as_the_worst(tmp_path: Path) -> None:
    signature = Signature([TensorSpec("x", "float32")], [TensorSpec("y", "float32")])
    recorder = ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv")
    same = {"y": np.array([1.0], np.float32)}
    recorder.compare("frozen", "edge", same, same, ["one"])
    recorder.record_refusals("frozen", "edge", "nan", {"reference": "not finite", "candidate": None})
    assert (
        "row nan: reference refused: not finite, frozen answered" in recorder.finding("frozen", "edge", "y").sentence()
    )


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (2.4e30, {"overflow"}),
        (np.inf, {"overflow"}),
        (np.nan, {"overflow", "values"}),  # a NaN says nothing of the other output
        (1e19, {"values"}),
    ],
)
def test_a_difference_on_a_row_that_is_about_to_overflow_is_of_a_kind_of_its_own(
    value: float, kinds: set[str], tmp_path: Path
) -> None:
    """The square of 2.4e30 overflows: its terms were near the largest number, and their sum depends on their order."""
    signature = Signature([TensorSpec("x", "float32")], [TensorSpec("y", "float32"), TensorSpec("z", "float32")])
    reference = {name: np.ones((3, 2), np.float32) for name in "yz"}
    candidate = {name: values.copy() for name, values in reference.items()}
    candidate["y"][1, 0] = value
    candidate["z"][1, 1] = 0.5  # another output of the same row
    with ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv") as recorder:
        assert set(recorder.difference_kinds("frozen", reference, candidate, 3)) == kinds
        candidate["z"][2, 1] = 0.5  # another row
        assert "values" in recorder.difference_kinds("frozen", reference, candidate, 3)


def test_what_is_left_of_a_nan_in_a_proved_output_is_asked_again_without_the_optimizer(tmp_path: Path) -> None:
    """A kernel may drop a NaN, and a decision on it turns; of an output that is not proved that is a difference."""
    signature = Signature([TensorSpec("x", "float32")], [TensorSpec("y", "float32"), TensorSpec("on", "bool")])
    batch = {"x": np.array([1.0, np.nan], np.float32)}
    plain = {"y": np.array([1.0, np.nan], np.float32), "on": np.array([True, False])}
    kept = {"y": np.array([1.0, 0.5], np.float32), "on": np.array([True, True])}
    turned = {"y": plain["y"], "on": np.array([False, False])}
    wrong = {"y": np.array([2.0, 0.5], np.float32), "on": plain["on"]}

    def resolve(proved: set[str], candidate: Any, without: Any = plain) -> Any:
        sides: list[Any] = [
            SimpleNamespace(
                format="frozen",
                unoptimized=lambda answer=answer: SimpleNamespace(run=lambda rows: answer, close=lambda: None),
            )
            for answer in (plain, without)
        ]
        recorder = ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv")
        recorder.proved["frozen"] = frozenset(proved)
        with recorder, UnoptimizedPair(recorder, "edge", *sides) as pair:
            return pair.resolve_differences(batch, (plain, candidate), 2)[1]

    assert resolve({"y", "on"}, kept) is plain
    assert resolve({"y", "on"}, turned) is plain
    assert resolve({"y"}, kept) is kept  # `on` may have other weights
    assert resolve(set(), kept) is kept
    assert resolve({"y", "on"}, kept, without=kept) is kept  # it differs for another reason
    assert resolve({"y", "on"}, wrong) is wrong  # a number of a row without a NaN


def test_outputs_without_elements_on_rows_that_were_made_up_are_noted(tmp_path: Path) -> None:
    """Of a signal that is shorter than its window there is no frame, and a check of nothing passes."""
    signature = Signature([TensorSpec("x", "float32", (None, None))], [TensorSpec("y", "float32", (None, None))])
    answered = {"y": np.zeros((4, 0), np.float32)}
    side: Any = SimpleNamespace(format="frozen", run=lambda rows: answered, discard_pending=lambda: None)
    pair: Any = SimpleNamespace(begin_segment=lambda: None, resolve_differences=lambda rows, answers, count: answers)
    for is_made_up in (True, False):
        material: Any = SimpleNamespace(
            rows=None,
            batch_size=4,
            signature=signature,
            is_made_up=is_made_up,
            sample=lambda format: SimpleNamespace(keep=lambda actual, numbers: None),
        )
        with ResultsRecorder("m", signature, ValidationSettings(), tmp_path / f"{is_made_up}.csv") as recorder:
            passes.compare_rows(recorder, side, side, material, range(4), pair, prefetch=0)
        told = recorder.notes.get("frozen", [])
        assert [note.partition(" for ")[0] for note in told] == ["equal: y has no elements"] * is_made_up


@pytest.mark.parametrize(
    ("check", "is_proved", "off", "verdict"),
    [
        ("equal", True, 5e-5, "passed"),  # of an element near 0: the rounding of 255
        ("golden", True, 5e-5, "passed"),
        ("equal", False, 5e-5, "failed"),
        ("stable", True, 5e-5, "failed"),  # a candidate with itself: its graph says nothing of that
        ("equal", True, 5e-2, "failed"),  # more than rounding
        ("equal", True, np.nan, "failed"),
    ],
)
def test_a_proved_output_is_judged_by_the_largest_number_of_its_row_too(
    check: str, is_proved: bool, off: float, verdict: str, tmp_path: Path
) -> None:
    signature = Signature([], [TensorSpec("y", "float32", [None, 2])])
    reference = np.array([[255, 1], [3, 1]], np.float32)
    candidate = reference + np.array([[0, off], [0, 0]], np.float32)
    with ResultsRecorder("m", signature, ValidationSettings(), tmp_path / "results.csv") as recorder:
        recorder.proved["frozen"] = frozenset({"y"} if is_proved else ())
        recorder.compare("frozen", check, {"y": reference}, {"y": candidate}, range(2))
        recorder.note_rounding()
    finding = recorder.finding("frozen", check, "y")
    assert finding.has_passed == (verdict == "passed")
    assert finding.rows_failed == (verdict == "failed")
    assert ("1 rows differ by more than the bound of an element near 0" in str(recorder.notes)) == finding.has_passed
    if off == 5e-5:
        assert finding.max_abs_diff == pytest.approx(off, rel=1e-2)  # as it is, whatever the verdict
