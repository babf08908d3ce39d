"""Engines on a Dask cluster: workers that are lost cost nothing, and what is wrong with a cluster is a sentence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, cluster
from jobs import PROJECT
from test_sharding import SHARD, bytes_of, pair_of

from pipeline.errors import DataError, PipelineError, SettingError, StageCrashed
from pipeline.validation.sharding import Sharding
from pipeline.workers.executor import dask as engines
from pipeline.workers.executor.dask import DaskExecutor
from pipeline.workers.executor.interface import Ended, Started


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers import the functions of `items` by its name; and what Dask sets in the environment ends with a test.

    It sets threads and Python's hash seed there: later tests of this process would share no server.
    """
    before = dict(os.environ)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]), prepend=os.pathsep)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


class Killing(DaskExecutor):
    """An engine that loses a worker when the first item is done."""

    found: Cluster

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        left = 1
        for event in super().map(function, items):
            if isinstance(event, Ended) and left:
                self.found.kill(0)
                left = 0
            yield event
        assert not left


def test_a_killed_worker_changes_no_byte_of_a_validation(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "equal")
    whole = bytes_of(tmp_path / "whole", pair, None)
    with cluster(tmp_path / "cluster") as found:
        Killing.found = found
        assert bytes_of(tmp_path / "parts", pair, Sharding(lambda: Killing(found.address), SHARD)) == whole
        assert [worker.poll() for worker in found.workers] == [-signal.SIGKILL, None]


def test_every_item_has_its_end_whatever_becomes_of_others(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as found, DaskExecutor(found.address) as engine:
        events = list(engine.map("items:doubled", [(value,) for value in range(6)]))
        ended = {event.number: event.result for event in events if isinstance(event, Ended)}
        assert {number: ended[number][0] for number in (0, 1, 2, 5)} == {0: 0, 1: 2, 2: 4, 5: 10}
        assert isinstance(ended[3], DataError)
        assert isinstance(ended[4], StageCrashed)
        assert "ZeroDivisionError" in str(ended[4])
        assert {event.number for event in events if isinstance(event, Started)} <= set(range(6))
        assert any(isinstance(event, Started) for event in events)

        again = engine.map("items:die_once", [(value, str(tmp_path / "mark")) for value in range(5)])
        assert sorted(event.result for event in again if isinstance(event, Ended)) == [0, 1, 2, 3, 4]
        assert (tmp_path / "mark").exists()

        found.scheduler.kill()
        found.scheduler.wait()
        with pytest.raises(StageCrashed, match="the Dask scheduler is lost"):
            list(engine.map("items:doubled", [(1,)]))


def test_an_item_that_takes_its_workers_with_it_is_given_up_alone() -> None:
    with DaskExecutor(workers=2) as engine:
        events = list(engine.map("items:die", [(value,) for value in range(4)]))
    ended = {event.number: event.result for event in events if isinstance(event, Ended)}
    assert {number: ended[number] for number in (0, 2, 3)} == {0: 0, 2: 2, 3: 3}
    assert isinstance(ended[1], StageCrashed)
    assert "every worker that ran it crashed" in str(ended[1])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://", "127.0.0.1"])
def test_no_scheduler_is_a_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(SettingError, match="no Dask scheduler answers"), DaskExecutor(address):
        pass


def test_workers_of_other_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(tmp_path / "cluster", [["--no-nanny"]]) as found, DaskExecutor(found.address) as engine:
        monkeypatch.setattr(engines, "own_code", lambda: "other code")
        (ended,) = [event for event in engine.map("items:doubled", [(1,)]) if isinstance(event, Ended)]
        assert isinstance(ended.result, PipelineError)
        assert "a worker has other code" in str(ended.result)


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(SettingError, match=r"pip install 'freeze-pipeline\[distributed\]'"), DaskExecutor():
        pass
