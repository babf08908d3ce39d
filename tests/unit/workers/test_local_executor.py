"""The engine of this machine: an item that crashes, hangs or takes too much costs only itself."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, PipelineError, StageCrashed
from pipeline.settings import EngineSettings
from pipeline.workers.child import Child, Limits, keep_processes, run_in_subprocess
from pipeline.workers.executor import open_executor
from pipeline.workers.executor.interface import Ended, Started
from pipeline.workers.executor.local import LocalExecutor

pytestmark = pytest.mark.tensorflow

HERE = Path(__file__).stem


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


def misbehave(how: str) -> Any:
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(600)
    if how == "leave":
        os._exit(0)
    if how == "ours":
        raise DataError("unknown label", where="a.tsv:3")
    if how == "theirs":
        raise ValueError("no such thing")
    if how == "greedy":
        kept = [bytearray(b"x") * (16 << 20) for _ in range(400)]
        time.sleep(600)
        return len(kept)
    return how


def child_of(_: int) -> tuple[int, int]:
    """A worker may have processes of its own; they end with it."""
    return os.getpid(), run_in_subprocess(f"{HERE}:process_id", 0)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalExecutor]:
    with LocalExecutor(2, Limits(seconds=10, memory_bytes=600_000_000)) as engine:
        yield engine


def ended(engine: LocalExecutor, function: str, items: list[tuple[Any, ...]]) -> dict[int, Any]:
    """The results by number; each item has begun before it ended, and ended once."""
    begun: Counter[int] = Counter()
    results: dict[int, Any] = {}
    for event in engine.map(f"{HERE}:{function}", items):
        if isinstance(event, Started):
            begun[event.number] += 1
        else:
            assert isinstance(event, Ended)
            assert event.number not in results
            assert begun[event.number]
            results[event.number] = event.result
    assert sorted(results) == list(range(len(items)))
    return results


def test_each_item_has_its_result_whatever_their_order(engine: LocalExecutor) -> None:
    assert ended(engine, "square", [(number,) for number in range(40)]) == {n: n * n for n in range(40)}
    assert ended(engine, "square", []) == {}


def test_processes_serve_many_items(engine: LocalExecutor) -> None:
    ids = ended(engine, "process_id", [(number,) for number in range(20)])
    again = ended(engine, "process_id", [(0,), (1,)])
    assert len({*ids.values(), *again.values()}) <= 2  # quick items may all be served by the one that is there first
    assert os.getpid() not in (*ids.values(), *again.values())


def test_what_goes_wrong_costs_only_its_item(engine: LocalExecutor) -> None:
    hows = ["fine", "crash", "fine", "hang", "leave", "ours", "theirs", "greedy", "fine", "fine"]
    results = ended(engine, "misbehave", [(how,) for how in hows])
    for number, how in enumerate(hows):
        if how == "fine":
            assert results[number] == "fine"
        else:
            assert isinstance(results[number], PipelineError), how
    assert isinstance(results[1], StageCrashed)
    assert "SIGSEGV" in str(results[1])
    assert "gave no answer in time" in str(results[3])
    assert "exit code 0" in str(results[4])
    assert isinstance(results[5], DataError)
    assert "ValueError: no such thing" in str(results[6])
    assert "took more memory than it may" in str(results[7])


def test_an_item_may_have_processes_of_its_own_and_they_share_its_limit(engine: LocalExecutor) -> None:
    [(own, started)] = ended(engine, "child_of", [(0,)]).values()
    assert len({own, started, os.getpid()}) == 3


def test_a_closed_engine_leaves_no_process() -> None:
    with LocalExecutor(1, Limits()) as engine:
        [pid] = ended(engine, "process_id", [(0,)]).values()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_engine_of_the_settings_is_opened() -> None:
    with open_executor(EngineSettings(), 1, Limits()) as engine:
        assert isinstance(engine, LocalExecutor)


def echo(first: int, channel: Any) -> None:
    channel.send(("result", (os.getpid(), first), None))
    while True:
        try:
            channel.send(("result", channel.recv(), None))
        except EOFError:
            return


def conversation(first: int, *, is_hasty: bool = False) -> int:
    """Talks with a process that may be kept; its id."""
    with Child(f"{HERE}:echo", first, talks=True, is_bare=True, is_reusable=True) as talking:
        pid, told = talking.receive()
        assert told == first
        talking.send("a")
        if not is_hasty:
            assert talking.receive() == "a"
        return int(pid)


def test_processes_are_kept_from_one_call_to_the_next_in_a_block_alone(no_kept_processes: None) -> None:
    with keep_processes():
        one, other = conversation(1), conversation(2, is_hasty=True)  # with an answer that nobody took
        third = conversation(3)
    assert one == other == third
    deadline = time.monotonic() + 10
    while Path(f"/proc/{one}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert conversation(4) != conversation(5)


def test_a_process_whose_call_failed_is_not_kept() -> None:
    with keep_processes():
        one = conversation(1)
        with (
            Child(f"{HERE}:nothing", 1, talks=True, is_bare=True, is_reusable=True) as failing,
            pytest.raises(StageCrashed, match="nothing"),
        ):
            failing.receive()
        assert conversation(2) != one
