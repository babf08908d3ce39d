"""`--force-stage` makes a complete stage again: that stage, once in a run, and what follows only for other bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import servers
import small_graphs
from commands import luigi, pipeline

from pipeline.errors import SettingError
from pipeline.inputs import ImportedCheckpoint
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.remote import RemoteStore
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.model import FreezeModel


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    small_graphs.save(tmp_path / "in" / "model.ckpt")
    return tmp_path / "in" / "model.ckpt"


@pytest.fixture
def job(prefix: Path, tmp_path: Path) -> Job:
    """A job whose two first stages need no TensorFlow."""
    return Job(
        source=None,
        paths=ArtifactPaths(tmp_path / "out", "m"),
        data=None,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(),
        imported=ImportedCheckpoint(str(prefix)),
    )


def versions(root: Path) -> dict[str, str]:
    """Which version each link names."""
    return {link.name: os.readlink(link) for link in (root / "m").iterdir() if link.is_symlink()}


def statuses(chain: Chain) -> list[ArtifactStatus]:
    return [state.status for state in chain.examine("frozen").values()]


def test_a_forced_stage_is_stale_until_it_is_made_again_in_every_process_of_the_run(job: Job, tmp_path: Path) -> None:
    for stage in ("checkpoint", "frozen"):
        Chain(job).build(stage)
    before = versions(tmp_path / "out")
    one, other, later = Chain(job), Chain(job), Chain(job)
    pinned = one.force("checkpoint", "frozen")
    assert other.force(pinned, "frozen") == pinned
    assert statuses(one) == statuses(other) == [ArtifactStatus.STALE, ArtifactStatus.WAITING]
    one.build("checkpoint")
    once = versions(tmp_path / "out")
    other.build("checkpoint")
    other.build("frozen")
    later.force(pinned, "frozen")
    assert statuses(one) == statuses(other) == statuses(later) == [ArtifactStatus.COMPLETE] * 2
    assert once == versions(tmp_path / "out"), "once, and what follows only for other bytes"
    assert {stage for stage in before if before[stage] != once[stage]} == {"checkpoint"}


def test_a_forced_stage_under_a_url_is_published_again_once(job: Job, tmp_path: Path) -> None:
    remote = RemoteStore.at(f"file://{tmp_path / 'bucket'}", "m")
    one = replace(job, remote=remote)
    other = replace(job, remote=remote, paths=ArtifactPaths(tmp_path / "other", "m"))
    for stage in ("checkpoint", "frozen"):
        Chain(one).build(stage)
    before = (tmp_path / "bucket/m/frozen/manifest.json").read_bytes()
    forced = Chain(one)
    pinned = forced.force("frozen", "frozen")
    forced.build("frozen")
    once = (tmp_path / "bucket/m/frozen/manifest.json").read_bytes()
    assert once != before
    later = Chain(other)
    later.force(pinned, "frozen")
    assert statuses(forced) == statuses(later) == [ArtifactStatus.COMPLETE] * 2
    later.build("frozen")
    assert (tmp_path / "bucket/m/frozen/manifest.json").read_bytes() == once


def test_what_does_not_exist_yet_is_made_once(job: Job) -> None:
    chain = Chain(job)
    assert chain.force("frozen", "frozen") == "frozen@none"
    chain.build("checkpoint")
    chain.build("frozen")
    assert statuses(chain) == [ArtifactStatus.COMPLETE] * 2


def test_a_stage_that_is_none_is_told_with_the_nearest(prefix: Path, tmp_path: Path) -> None:
    for wrong in ("frozne", "report", "frozen,graph"):
        task = FreezeModel(checkpoint=str(prefix), output_root=str(tmp_path), force_stage=wrong)
        with pytest.raises(SettingError, match=r"--force-stage: no such stage here"):
            task.complete()


def test_a_scheduler_hands_on_which_artifact_is_replaced(prefix: Path, tmp_path: Path) -> None:
    task = FreezeModel(checkpoint=str(prefix), output_root=str(tmp_path), force_stage="checkpoint")
    assert task.to_str_params()["force_stage"] == "checkpoint@none"
    assert [required.force_stage for required in task.requires()][:1] == ["checkpoint@none"]
    told = FreezeModel.from_str_params(task.to_str_params())
    assert (told.task_id, told.force_stage) == (task.task_id, task.force_stage)
    assert task.task_id != FreezeModel(checkpoint=str(prefix), output_root=str(tmp_path)).task_id, (
        "a scheduler that remembers the task of another run would hand on the parameters of that one"
    )


@pytest.fixture
def scheduler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    if request.param == "local":
        yield []
        return
    with servers.central_scheduler(tmp_path) as url:
        yield ["--scheduler-url", url]


@pytest.mark.parametrize("scheduler", ["local", pytest.param("luigid", marks=pytest.mark.stress)], indirect=True)
def test_luigi_runs_a_forced_stage_exactly_once(prefix: Path, tmp_path: Path, scheduler: list[str]) -> None:
    given = ["FreezeModel", "--checkpoint", str(prefix), "--name", "m", "--output-root", str(tmp_path / "out")]
    assert luigi(*given, *scheduler).returncode == 0
    before = versions(tmp_path / "out")
    forced = luigi(*given, *scheduler, "--force-stage", "frozen", "--workers", "2")
    assert forced.returncode == 0, forced.stderr
    after = versions(tmp_path / "out")
    assert {stage for stage in before if before[stage] != after[stage]} == {"frozen"}
    assert len(re.findall(r"running +\w+\(", forced.stderr)) == 1
    told = pipeline("why", *given, "--force-stage", "frozen")
    assert (told.returncode, "--force-stage frozen" in told.stdout) == (1, True)
    assert pipeline("why", *given).returncode == 0
