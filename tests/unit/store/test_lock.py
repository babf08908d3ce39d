"""Locks: held by one process, freed by the kernel, and missed where somebody removes them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.lock import hold, hold_lock

INPUTS = {"settings": {"seed": 1}}


@pytest.fixture
def paths(tmp_path: Path) -> ArtifactPaths:
    return ArtifactPaths(tmp_path, "spam")


def build(paths: ArtifactPaths, make: Callable[[Path], Mapping[str, Any]]) -> None:
    artifact.build(paths, "frozen", lambda: INPUTS, make)


def fill(folder: Path) -> Mapping[str, Any]:
    (folder / "model.pb").write_text("weights")
    return {}


def test_a_lock_is_held_once(paths: ArtifactPaths) -> None:
    with hold(paths.lock("frozen")) as first, hold(paths.lock("frozen"), wait=False) as second:
        assert (first, second) == (True, False)
    with hold(paths.lock("frozen"), wait=False) as third:
        assert third


def test_a_lock_that_was_removed_is_missed(paths: ArtifactPaths) -> None:
    with hold_lock(paths.lock("frozen")) as lock:
        lock.require()
        paths.lock("frozen").unlink()
        with pytest.raises(StoreError, match="the lock was removed while this run held it"):
            lock.require()
        with hold_lock(paths.lock("frozen"), wait=False) as other:  # what another run would get
            assert other.is_held
            with pytest.raises(StoreError, match="the lock was removed"):
                lock.require()


@pytest.mark.parametrize("what", [".locks", ".locks/frozen", ""])
@pytest.mark.parametrize("fails", [False, True])
def test_locks_removed_in_the_middle_of_the_work_are_said_and_nothing_is_published(
    what: str, fails: bool, paths: ArtifactPaths
) -> None:
    def make(folder: Path) -> Mapping[str, Any]:
        place = paths.home / what
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if fails:  # as if another run had removed the work
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / "model.pb"))
        return {} if what == "" else fill(folder)

    with pytest.raises(StoreError, match=r"\.locks/frozen: the lock was removed while.*leave \.locks alone") as caught:
        build(paths, make)
    assert "space" not in str(caught.value)
    assert not paths.artifact("frozen").exists()
    build(paths, fill)
    artifact.verify(paths.artifact("frozen"))


def test_a_lock_that_is_removed_before_it_is_locked_is_not_taken(
    paths: ArtifactPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, list[int]()

    def removed_first(descriptor: int, operation: int) -> None:
        if not calls:
            shutil.rmtree(paths.home / ".locks")
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr("pipeline.store.lock.fcntl.flock", removed_first)
    with hold_lock(paths.lock("frozen")) as lock:
        lock.require()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free space"),
        (errno.EDQUOT, "Free space"),
        (errno.ENOENT, "Somebody removed it during the work"),
        (errno.EACCES, "Correct the permissions"),
        (errno.EROFS, "Choose another --output-root"),
        (errno.EIO, "Choose another --output-root"),
    ],
)
def test_each_error_of_the_system_has_its_own_advice(number: int, advice: str, paths: ArtifactPaths) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        raise OSError(number, os.strerror(number), str(folder))

    with pytest.raises(StoreError, match=rf"cannot be written .*\. {advice}") as caught:
        build(paths, fail)
    assert ("space" in str(caught.value)) == (advice == "Free space")
