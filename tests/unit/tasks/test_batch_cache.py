"""A batch's memory: it never says that a model is complete where looking at everything says that it is not."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_graphs

from pipeline.inputs import ImportedCheckpoint
from pipeline.settings import Operations, Settings, StoreSettings
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.tasks.batch import cache, run
from pipeline.tasks.batch.outcome import Outcome
from pipeline.tasks.chain import plan
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.chain.plan import Chain

PASSED = Outcome("m", "passed")
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and one with the same graph and other weights."""
    folder = tmp_path_factory.mktemp("saved")
    small_graphs.save(folder / "in" / "model.ckpt")
    shutil.copytree(folder / "in", folder / "other")
    raw = bytearray((folder / "other" / DATA).read_bytes())
    raw[5] ^= 1
    (folder / "other" / DATA).write_bytes(bytes(raw))
    return folder


@pytest.fixture(autouse=True)
def only_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains end with their first stage, which takes no TensorFlow."""
    monkeypatch.setattr(Chain, "up_to", lambda chain, last="report": ("checkpoint",))


def job_of(folder: Path, **changes: Any) -> Job:
    job = Job(
        source=None,
        paths=ArtifactPaths(folder / "out", "m"),
        data=None,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(),
        imported=ImportedCheckpoint(str(folder / "in" / "model.ckpt")),
    )
    return dataclasses.replace(job, **changes)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A folder with a checkpoint that is imported, and remembered."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "in" / DATA).rename(tmp_path / "weights")
    (tmp_path / "in" / DATA).symlink_to("../weights")
    (tmp_path / "run").symlink_to("in")
    for path in (tmp_path / "weights", *(tmp_path / "in").iterdir()):
        os.utime(path, (1_000_000, 1_000_000))
    remember(job_of(tmp_path))
    return tmp_path


def remember(job: Job) -> None:
    chain = Chain(job)
    chain.build("checkpoint")
    looked, _ = cache.look(chain)
    chain.require_complete()
    cache.store(cache.passed_file(job), looked, PASSED)


def is_known(job: Job) -> bool:
    return cache.load(cache.passed_file(job), Chain(job)) is not None


def is_complete(job: Job) -> bool:
    return all(state.is_complete for state in Chain(job).examine("report").values())


def write_under_the_old_time(path: Path, other: Path) -> None:
    """Writes other bytes of the same number into the same file, and sets its time stamps back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def exchange_behind_a_link(folder: Path) -> None:
    shutil.copy2(folder / "other" / DATA, folder / "weights")


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes under the old time": lambda folder: write_under_the_old_time(
        folder / "in" / "model.ckpt.index", folder / "garbage"
    ),
    "other bytes behind a link": exchange_behind_a_link,
    "other bytes behind a link under the old time": lambda folder: write_under_the_old_time(
        folder / "weights", folder / "other" / DATA
    ),
    "a missing file": lambda folder: (folder / "weights").unlink(),
    "an artifact's byte under the old time": lambda folder: (folder / "out/m/checkpoint/model.ckpt.meta").write_bytes(
        b"0" * (folder / "out/m/checkpoint/model.ckpt.meta").stat().st_size
    ),
    "an artifact's missing file": lambda folder: (folder / "out/m/checkpoint/signature.json").unlink(),
    "an artifact's missing manifest": lambda folder: (folder / "out/m/checkpoint" / MANIFEST_FILE).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_whole_look_notices_is_not_remembered(folder: Path, change: str) -> None:
    job = job_of(folder)
    assert is_known(job)
    assert is_complete(job)
    (folder / "garbage").write_bytes(b"0" * (folder / "in" / "model.ckpt.index").stat().st_size)
    CHANGES[change](folder)
    assert not is_complete(job)
    assert not is_known(job)


OTHER_JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "setting": lambda _: {
        "settings": dataclasses.replace(Settings(), split=dataclasses.replace(Settings().split, seed=8))
    },
    "checkpoint": lambda folder: {"imported": ImportedCheckpoint(str(folder / "other" / "model.ckpt"))},
    "outputs": lambda folder: {
        "imported": ImportedCheckpoint(str(folder / "in" / "model.ckpt"), outputs=("MatMul:0",))
    },
    "graph file": lambda folder: {
        "imported": ImportedCheckpoint(str(folder / "in" / "model.ckpt"), graph=folder / "graph.meta")
    },
    "data": lambda folder: {"data": folder / "data.csv"},
}


@pytest.mark.parametrize("change", OTHER_JOBS)
def test_the_parameters_decide_what_is_remembered(folder: Path, change: str) -> None:
    (folder / "graph.meta").write_bytes((folder / "in/model.ckpt.meta").read_bytes() + b"\x22\x00")
    job = job_of(folder, **OTHER_JOBS[change](folder))
    assert not is_complete(job)
    assert not is_known(job)


@pytest.mark.parametrize("kind", ["code", "versions"])
def test_code_and_versions_decide_what_is_remembered(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = {"code": "_hash_package_code", "versions": "library_versions"}[kind]
    monkeypatch.setattr(plan, function, lambda *_: {"x": "0" * 64})
    assert not is_complete(job_of(folder))
    assert not is_known(job_of(folder))


def test_the_same_words_in_another_folder_are_other_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    job = job_of(folder, imported=ImportedCheckpoint("in/model.ckpt"))
    remember(job)
    assert is_known(job)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(folder / "other", elsewhere / "in")
    monkeypatch.chdir(elsewhere)
    assert not is_complete(job)
    assert not is_known(job)


def test_a_checkpoint_that_is_replaced_while_it_is_converted_is_not_remembered_as_converted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is what was looked at, and not what stands there when the work is over."""
    given = Parameters(checkpoint=str(folder / "in/model.ckpt"), name="m", output_root=str(folder / "out"))

    def replace_and_collect(chain: Chain) -> Outcome:
        exchange_behind_a_link(folder)
        return PASSED

    monkeypatch.setattr(run, "collect_outcome", replace_and_collect)
    outcome = run.convert(given, Settings(), Operations(), folder / "failed.json")
    assert outcome.verdict == "error"
    assert "an input changed while it was used" in outcome.reason
    job = Job.from_parameters(given, Settings())
    assert not is_complete(job)
    assert not is_known(job)


def test_a_look_waits_until_a_further_write_would_have_another_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within a tick of the kernel's clock, 10 ms at most, have the same time stamp."""
    job = job_of(folder)
    exchange_behind_a_link(folder)
    cache.Inputs.look(Chain(job))
    assert time.time_ns() - (folder / "weights").stat().st_ctime_ns >= 10_000_000
    time.sleep(0.1)
    monkeypatch.setattr("time.sleep", None)  # nothing to wait for
    cache.look(Chain(job))


def test_where_all_bytes_are_hashed_a_batch_looks_at_them_whatever_it_remembers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_hash_states", lambda files: "as before: a disk that loses bits changes no state")
    full = Operations(store=StoreSettings("always"))
    remember(job_of(folder))
    made = job_of(folder).paths.artifact("checkpoint") / DATA
    state = made.stat()
    made.write_bytes(bytes([made.read_bytes()[0] ^ 1]) + made.read_bytes()[1:])
    os.utime(made, ns=(state.st_atime_ns, state.st_mtime_ns))
    examine = Chain.examine
    monkeypatch.setattr(Chain, "examine", lambda chain, last: {last: examine(chain, last)["checkpoint"]})
    loaded = [
        cache.load(cache.passed_file(job), Chain(job)) for job in (job_of(folder), job_of(folder, operations=full))
    ]
    assert [outcome and outcome.verdict for outcome in loaded] == ["passed", None]


def test_where_all_bytes_are_hashed_a_damaged_stage_is_named_and_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job, full = job_of(folder), job_of(folder, operations=Operations(store=StoreSettings("always")))
    made = job.paths.artifact("checkpoint") / DATA
    before, state = made.read_bytes(), made.stat()
    made.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    os.utime(made, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert Chain(job).examine("checkpoint")["checkpoint"].is_complete
    assert f"{made}: its bytes were changed" in Chain(full).examine("checkpoint")["checkpoint"].reasons[0]
    Chain(full).build("checkpoint")
    assert made.read_bytes() == before
    assert f"checkpoint is damaged and made again: {made}: " in caplog.text
    assert Chain(full).examine("checkpoint")["checkpoint"].is_complete


def test_what_nobody_touched_is_examined_only_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Parameters(checkpoint=str(folder / "in/model.ckpt"), name="m", output_root=str(folder / "new"))
    monkeypatch.setattr(run, "collect_outcome", lambda chain: PASSED)
    monkeypatch.setattr(Chain, "require_complete", None)
    assert run.convert(given, Settings(), Operations(), folder / "failed.json") == PASSED
    job = Job.from_parameters(given, Settings())
    assert is_complete(job)
    assert is_known(job)
