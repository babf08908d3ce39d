"""Progress is told by whoever works, and heard by whoever waits, in whichever process the work is."""

from __future__ import annotations

import time

import pytest

from pipeline.workers import progress
from pipeline.workers.child import run_in_subprocess
from pipeline.workers.progress import listen, part, tell

Told = list[tuple[str, float]]


@pytest.fixture
def told() -> Told:
    return []


def test_nobody_hears_what_is_told_outside_of_a_block(told: Told) -> None:
    tell("before", 0.1)
    with listen(lambda line, share: told.append((line, share))):
        tell("inside", 0.5)
    tell("after", 0.9)
    assert told == [("inside", 0.5)]


def test_parts_are_told_as_shares_of_the_whole(told: Told) -> None:
    with listen(lambda line, share: told.append((line, share))):
        with part("first", 0, 0.5), part("a", 0.5, 1):
            tell("half", 0.5)
        with part("second", 0.5, 1):
            tell("half", 0.5)
    assert told == [("first: a: half", 0.375), ("second: half", 0.75)]


def test_lines_are_told_once_a_second_at_most(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with listen(lambda line, share: told.append((line, share))):
        for step in range(100):
            tell(f"step {step}", step / 100)
            now[0] += 0.125
    assert [line for line, _ in told] == [f"step {step}" for step in range(0, 100, 8)]


@pytest.mark.tensorflow
def test_a_function_in_a_subprocess_is_heard_before_its_result_comes(told: Told) -> None:
    with listen(lambda line, share: told.append((line, share))):
        assert run_in_subprocess("pipeline.workers.progress:tell", "half", 0.5) is None
    assert told == [("half", 0.5)]
    assert run_in_subprocess("pipeline.workers.progress:tell", "half", 0.5) is None
    assert progress._listener is None
