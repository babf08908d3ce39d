"""Comparison: against an oracle that measures one element at a time with Python's own numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from pipeline.validation.compare.differences import Differences, disagreement, measure, worst_elements
from pipeline.validation.compare.tolerance import Tolerance, within_tolerance

bounds = st.sampled_from([0.0, 1e-6, 1e-3, 0.5, 2.0, 1e300]) | st.floats(0, 1e308)


def oracle_distance(a: float, b: float) -> float:
    """|a - b| by the documented rules, rounded once."""
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    if math.isinf(a) or math.isinf(b):
        return 0.0 if a == b else math.inf
    try:
        return float(abs(Fraction(a) - Fraction(b)))
    except OverflowError:
        return math.inf


def oracle_relative(distance: float, reference: float) -> float:
    if distance == 0:
        return 0.0
    if not math.isfinite(reference) or reference == 0 or math.isinf(distance):
        return math.inf
    exact = Fraction(distance) / abs(Fraction(reference))
    return float(exact) if exact <= Fraction(np.finfo(np.float64).max) else math.inf


def as_array(*values: float, dtype: object = np.float64) -> np.ndarray:
    return np.array([values], dtype=dtype)


def differences(*absolute: float, magnitude: float = 0.0) -> Differences:
    values = as_array(*absolute)
    return Differences(values, values, None, np.full_like(values, magnitude))


@given(strategies.float_pairs())
def test_floats_are_measured_as_the_oracle_measures_them(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = measure(*pair)
    for index in np.ndindex(pair[0].shape):
        a, b = (float(side[index]) for side in pair)
        distance = oracle_distance(a, b)
        assert found.absolute[index] == distance
        assert found.relative[index] == pytest.approx(oracle_relative(distance, a), rel=1e-15, abs=1e-320)
        assert found.magnitude[index] == (abs(a) if math.isfinite(a) else 0)
        assert found.ulp is not None
        assert (found.ulp[index] == 0) == (distance == 0)


@given(strategies.integer_pairs())
def test_integers_are_measured_as_the_oracle_measures_them(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = measure(*pair)
    assert found.ulp is None
    for index in np.ndindex(pair[0].shape):
        a, b = (int(side[index]) for side in pair)
        assert found.absolute[index] == float(abs(a - b))
        assert found.magnitude[index] == float(abs(a))


@given(strategies.float_pairs() | strategies.integer_pairs(), bounds, bounds)
def test_a_verdict_is_that_of_the_oracle(pair: tuple[np.ndarray, np.ndarray], rtol: float, atol: float) -> None:
    verdicts = within_tolerance(measure(*pair), Tolerance(rtol, atol))
    for index in np.ndindex(pair[0].shape):
        a, b = (float(side[index]) for side in pair)
        distance = (
            oracle_distance(a, b)
            if pair[0].dtype.kind not in "iu"
            else float(abs(int(pair[0][index]) - int(pair[1][index])))
        )
        allowed = Fraction(atol) + Fraction(rtol) * (abs(Fraction(a)) if math.isfinite(a) else 0)
        slack = allowed / 2**40  # the bound is computed in float64
        if math.isinf(distance) or Fraction(distance) > allowed + slack:
            assert not verdicts[index]
        elif Fraction(distance) < allowed - slack or distance == 0:
            assert verdicts[index]


@given(st.floats(width=64), bounds, bounds)
def test_a_candidate_that_is_nan_for_a_number_is_never_within(number: float, rtol: float, atol: float) -> None:
    wanted = math.isnan(number)
    for pair in ((number, math.nan), (math.nan, number)):
        found = within_tolerance(measure(as_array(pair[0]), as_array(pair[1])), Tolerance(rtol, atol))
        assert bool(found[0, 0]) is wanted


@pytest.mark.parametrize("bound", [Tolerance(math.nan, 0.0), Tolerance(0.0, math.nan)])
def test_a_tolerance_that_is_nan_lets_nothing_pass(bound: Tolerance) -> None:
    assert not within_tolerance(measure(as_array(1.0), as_array(2.0)), bound).any()


@pytest.mark.parametrize(
    ("other", "wanted"), [(math.nan, False), (-math.inf, False), (1.7e308, False), (math.inf, True)]
)
def test_infinity_is_equal_to_itself_alone(other: float, wanted: bool) -> None:
    assert bool(within_tolerance(measure(as_array(math.inf), as_array(other)), Tolerance(2.0, 1e308))[0, 0]) is wanted


def test_nan_is_equal_to_nan_and_zero_to_minus_zero() -> None:
    found = measure(as_array(math.nan, 0.0), as_array(-math.nan, -0.0))
    assert found.absolute.tolist() == [[0, 0]]
    assert found.ulp is not None
    assert found.ulp.tolist() == [[0, 0]]
    assert within_tolerance(found, Tolerance(0, 0)).all()


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 50))
def test_an_ulp_is_a_step_of_nextafter(start: float, steps: int) -> None:
    for towards in (math.inf, -math.inf):
        end = start
        for _ in range(steps):
            end = math.nextafter(end, towards)
        found = measure(as_array(start), as_array(end)).ulp
        assert found is not None
        assert found[0, 0] == (0 if start == end else min(steps, found[0, 0] if math.isinf(end) else steps))


@pytest.mark.parametrize("dtype", strategies.FLOATS)
def test_neighbours_of_every_float_type_are_one_ulp_apart(dtype: np.dtype) -> None:
    one = as_array(1.0, 0.0, -1.0, dtype=dtype)
    above = np.nextafter(one, as_array(np.inf, np.inf, np.inf, dtype=dtype))
    for pair in ((one, above), (above, one)):
        assert measure(*pair).ulp.tolist() == [[1, 1, 1]]  # type: ignore[union-attr]
    smallest = np.nextafter(as_array(0.0, dtype=dtype), as_array(1.0, dtype=dtype))
    assert measure(smallest, -smallest).ulp.tolist() == [[2]]  # type: ignore[union-attr]


def test_the_ends_of_the_floats_are_far_apart() -> None:
    largest = np.finfo(np.float64).max
    found = measure(as_array(largest), as_array(-largest))
    assert found.absolute.tolist() == [[math.inf]]
    assert found.ulp is not None
    assert found.ulp[0, 0] == pytest.approx(2 * 0x7FEFFFFFFFFFFFFF)


def test_half_precision_does_not_overflow_in_the_measure() -> None:
    assert measure(as_array(65504, dtype=np.float16), as_array(-65504, dtype=np.float16)).absolute.tolist() == [
        [131008]
    ]
    found = measure(as_array(1, dtype=ml_dtypes.bfloat16), as_array(1.0078125, dtype=ml_dtypes.bfloat16))
    assert found.absolute.tolist() == [[0.0078125]]
    assert found.ulp is not None
    assert found.ulp.tolist() == [[1]]


def test_unsigned_bytes_do_not_wrap() -> None:
    found = measure(as_array(0, 255, dtype=np.uint8), as_array(255, 0, dtype=np.uint8))
    assert found.absolute.tolist() == [[255, 255]]


def test_the_extremes_of_int64_do_not_wrap() -> None:
    limits = np.iinfo(np.int64)
    found = measure(
        as_array(limits.min, limits.max, dtype=np.int64), as_array(limits.max, limits.max - 1, dtype=np.int64)
    )
    assert found.absolute.tolist() == [[2.0**64, 1]]
    assert within_tolerance(found, Tolerance(0, 0)).tolist() == [[False, False]]


def test_bools_and_strings_differ_or_not() -> None:
    found = measure(np.array([[True, False]]), np.array([[True, True]]))
    assert found.absolute.tolist() == [[0, 1]]
    assert found.ulp is None
    texts = np.array([[b"a", b"a\0", b""]], dtype=object), np.array([[b"a", b"a", b""]], dtype=object)
    assert measure(*texts).absolute.tolist() == [[0, 1, 0]]
    assert within_tolerance(measure(*texts), Tolerance(0, 0)).tolist() == [[True, False, True]]


def test_both_parts_of_a_complex_number_count() -> None:
    found = measure(as_array(1 + 2j, dtype=np.complex64), as_array(1 + 5j, dtype=np.complex64))
    assert found.absolute.tolist() == [[0, 3]]


def test_a_missed_zero_is_infinitely_far_in_relation() -> None:
    assert measure(as_array(0.0, 2.0), as_array(1e-30, 1.0)).relative.tolist() == [[math.inf, 0.5]]


@pytest.mark.filterwarnings("error")
@given(strategies.float_pairs(), bounds)
def test_no_value_makes_numpy_warn(pair: tuple[np.ndarray, np.ndarray], rtol: float) -> None:
    within_tolerance(measure(*pair), Tolerance(rtol, 0.0))


@pytest.mark.parametrize(
    ("reference", "candidate", "sentence"),
    [
        (np.zeros(3, np.float32), np.zeros(3, np.float64), "dtype float64 instead of float32"),
        (np.zeros(3, np.int32), np.zeros(3, bool), "dtype bool instead of int32"),
        (np.zeros(3, np.float32), np.array([b""] * 3, dtype=object), "dtype string instead of float32"),
        (np.zeros(2, np.float16), np.zeros(2, ml_dtypes.bfloat16), "dtype bfloat16 instead of float16"),
        (np.zeros(3), np.zeros((3, 1)), "shape [3, 1] instead of [3]"),
        (np.zeros((1, 3)), np.zeros((3, 1)), "shape [3, 1] instead of [1, 3]"),
        (np.zeros((2, 0)), np.zeros((0, 2)), "shape [0, 2] instead of [2, 0]"),
    ],
)
def test_another_dtype_or_shape_is_a_difference_in_itself(
    reference: np.ndarray, candidate: np.ndarray, sentence: str
) -> None:
    assert disagreement(reference, candidate) == sentence
    with pytest.raises(ValueError, match="instead of"):
        measure(reference, candidate)


def test_arrays_of_one_dtype_and_shape_can_be_compared() -> None:
    assert disagreement(np.zeros((2, 3)), np.ones((2, 3))) is None
    assert disagreement(np.array([b"a"], dtype=object), np.array([b"a"])) is None


@pytest.mark.parametrize(("shape", "flat"), [((4,), (4, 1)), ((4, 2, 3), (4, 6)), ((0, 3), (0, 0)), ((4, 0), (4, 0))])
def test_every_shape_is_measured_row_by_row(shape: tuple[int, ...], flat: tuple[int, int]) -> None:
    for dtype in (np.float32, np.int8, bool, object):
        found = measure(np.zeros(shape, dtype), np.zeros(shape, dtype))
        assert found.absolute.shape == found.relative.shape == found.magnitude.shape == flat


def test_the_arrays_are_not_changed() -> None:
    one, two = np.array([[1.0, math.nan]]), np.array([[2.0, 3.0]])
    within_tolerance(measure(one, two), Tolerance(0, 0))
    assert one[0, 0] == 1
    assert math.isnan(one[0, 1])
    assert two.tolist() == [[2, 3]]


def test_the_worst_element_is_one_that_failed() -> None:
    assert worst_elements(differences(5.0, 1.0, 2.0), np.array([[True, False, False]])).tolist() == [2]


@pytest.mark.parametrize(
    ("absolute", "worst"),
    [
        ((0.0, 3.0, 1.0), 1),
        ((0.0, 1e-20), 1),
        ((1e-30, 2e-30), 1),
        ((1e300, math.inf), 1),
        ((1.7976931348623157e308, math.inf), 1),
        ((0.0, 0.0), 0),
    ],
)
@pytest.mark.parametrize("is_within", [True, False])
def test_of_equal_verdicts_the_worst_element_is_the_farthest(
    absolute: tuple[float, ...], worst: int, is_within: bool
) -> None:
    assert worst_elements(differences(*absolute), np.full((1, len(absolute)), is_within)).tolist() == [worst]


@given(st.lists(st.tuples(st.floats(0, allow_nan=False), st.booleans()), min_size=1, max_size=4))
def test_the_worst_element_is_that_of_the_oracle(elements: list[tuple[float, bool]]) -> None:
    absolute, is_within = zip(*elements, strict=True)
    wanted = max(range(len(elements)), key=lambda i: (not is_within[i], absolute[i], -i))
    assert worst_elements(differences(*absolute), np.array([is_within])).tolist() == [wanted]


def test_a_row_without_elements_has_no_worst_one() -> None:
    empty = measure(np.zeros((2, 0)), np.zeros((2, 0)))
    assert worst_elements(empty, within_tolerance(empty, Tolerance(0, 0))).tolist() == [-1, -1]
