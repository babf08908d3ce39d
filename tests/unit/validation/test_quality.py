"""Decisions and their quality, compared with figures computed by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.signature import Decision
from pipeline.validation.compare.decisions import classification, decide, margins

THRESHOLD = Decision("p", 0.5, ("ham", "spam"))
ARGMAX = Decision("p")


def figures(labels: list[int], decided: list[int], decision: Decision) -> dict[str, Any]:
    return classification(Counter(zip(labels, decided, strict=True)), decision)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_a_row_is_positive_at_the_threshold_and_above(dtype: str) -> None:
    outputs = np.array([0.0, 0.496, 0.5, 0.504, 1.0, np.nan, np.inf, -np.inf], dtype=dtype)
    assert decide(outputs, THRESHOLD).tolist() == [0, 0, 1, 1, 1, 0, 1, 0]


def test_a_column_is_decided_as_a_row_of_numbers() -> None:
    assert decide(np.array([[0.4], [0.6]]), THRESHOLD).tolist() == [0, 1]
    assert margins(np.array([[0.4], [0.75]]), THRESHOLD).tolist() == pytest.approx([0.1, 0.25])


def test_the_largest_output_decides_and_the_first_of_equals() -> None:
    assert decide(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 1.0]]), ARGMAX).tolist() == [1, 0]


def test_a_margin_is_the_distance_to_another_decision() -> None:
    assert margins(np.array([0.5, 0.25, 1.0]), THRESHOLD).tolist() == [0, 0.25, 0.5]
    assert margins(np.array([[1.0, 4.0, 2.0], [3.0, -1.0, 3.0]]), ARGMAX).tolist() == [2, 0]
    assert margins(np.array([[1.0], [2.0]]), ARGMAX).tolist() == [np.inf, np.inf]


@given(st.lists(st.lists(st.integers(-50, 50), min_size=2, max_size=4), min_size=1, max_size=5))
def test_a_change_below_half_the_margin_flips_no_decision(rows: list[list[int]]) -> None:
    for row in rows:
        output = np.array([row], dtype=np.float64)
        nudge = 0.49 * margins(output, ARGMAX)[0] * np.where(np.arange(len(row)) == decide(output, ARGMAX)[0], -1, 1)
        assert decide(output + nudge, ARGMAX) == decide(output, ARGMAX)


def test_figures_of_a_threshold_are_those_of_the_positive_class() -> None:
    assert figures([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], THRESHOLD) == {
        "rows": 5,
        "accuracy": 0.6,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "labels": ["ham", "spam"],
        "confusion": [[1, 1], [1, 2]],  # a row for each true class
    }


def test_the_confusion_has_a_row_for_each_true_class() -> None:
    assert figures([0, 0, 1], [1, 1, 1], THRESHOLD)["confusion"] == [[0, 2], [0, 1]]


def test_figures_of_an_argmax_are_means_over_the_classes() -> None:
    found = figures([0, 0, 1, 2], [0, 1, 1, 2], ARGMAX)
    assert found["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["recall"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "decided"), [([0, 0], [0, 0]), ([1, 1], [0, 0]), ([0, 0], [1, 1])])
def test_nothing_to_divide_by_gives_zero(labels: list[int], decided: list[int]) -> None:
    found = figures(labels, decided, THRESHOLD)
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    assert figures([0, 2], [0, 1], Decision("p", None, ("a",)))["labels"] == ["a", "1", "2"]
    assert figures([0], [0], ARGMAX)["labels"] == ["0", "1"]
