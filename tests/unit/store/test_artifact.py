"""The store: finished or not there, never wrong, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DamagedArtifact, PipelineError, StoreError
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest

OLD, NEW = {"settings": {"seed": 1}}, {"settings": {"seed": 2}}


@pytest.fixture
def paths(tmp_path: Path) -> ArtifactPaths:
    return ArtifactPaths(tmp_path, "spam")


def fill(folder: Path, content: str = "weights") -> Mapping[str, Any]:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "model.pb").write_text(content)
    (folder / "sub" / "part.bin").write_text(content * 2)
    return {"seed": 7}


def build(
    paths: ArtifactPaths,
    fingerprint_inputs: Mapping[str, Any] = OLD,
    make: Callable[[Path], Mapping[str, Any]] = fill,
    stage: str = "frozen",
    resumable: tuple[str, ...] = (),
) -> artifact.ArtifactState:
    return artifact.build(paths, stage, lambda: fingerprint_inputs, make, resumable)


def refuse(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("nothing had to be made")


def leftovers(paths: ArtifactPaths) -> list[str]:
    """What lies in the places of work and of versions beside the version that is published."""
    works = [path for stage in (paths.home / ".work").glob("*") for path in stage.iterdir()]
    live = {path.resolve() for path in paths.home.iterdir() if path.is_symlink()}
    return [str(path) for path in [*works, *(v for v in paths.versions.glob("*") if v.resolve() not in live)]]


# Finished artifacts


def test_a_finished_artifact_holds_what_was_made_and_its_manifest(paths: ArtifactPaths) -> None:
    state = build(paths)
    folder = paths.artifact("frozen")
    assert state.is_complete
    assert (folder / "sub/part.bin").read_text() == "weightsweights"
    manifest = Manifest.read(folder)
    assert sorted(manifest.files) == ["model.pb", "sub/part.bin"]
    assert manifest == state.manifest
    assert (manifest.stage, manifest.fingerprint_inputs) == ("frozen", OLD)
    assert manifest.notes["seed"] == 7
    assert manifest.notes["seconds"] >= 0
    assert leftovers(paths) == []


def test_an_artifact_is_never_made_twice(paths: ArtifactPaths) -> None:
    first = build(paths).manifest
    again = build(paths, make=refuse)
    assert again.is_complete
    assert again.manifest == first


@pytest.mark.parametrize("relative", [True, False])
def test_the_output_root_may_be_moved_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    build(ArtifactPaths(Path("out") if relative else tmp_path / "out", "spam"))
    (tmp_path / "out").rename(tmp_path / "moved")
    assert build(ArtifactPaths(tmp_path / "moved", "spam"), make=refuse).is_complete


def test_changed_inputs_make_it_again(paths: ArtifactPaths) -> None:
    build(paths)
    state = artifact.examine(paths.artifact("frozen"), "frozen", NEW)
    assert state.status is ArtifactStatus.STALE
    assert state.reasons == ("setting seed changed: was 1, is 2",)
    build(paths, NEW, lambda folder: fill(folder, "other"))
    assert (paths.artifact("frozen") / "model.pb").read_text() == "other"
    assert leftovers(paths) == []


def test_ignored_kinds_of_inputs_do_not_count(paths: ArtifactPaths) -> None:
    build(paths)
    assert artifact.examine(paths.artifact("frozen"), "frozen", NEW, ignored=("settings",)).is_complete


def test_an_artifact_of_another_stage_is_not_taken_for_this_one(paths: ArtifactPaths) -> None:
    build(paths)
    state = artifact.examine(paths.artifact("frozen"), "graph", OLD)
    assert state.status is ArtifactStatus.STALE
    assert "holds the stage frozen, not graph" in state.reasons[0]


def test_what_was_never_made_is_missing(paths: ArtifactPaths) -> None:
    state = artifact.examine(paths.artifact("frozen"), "frozen", OLD)
    assert (state.status, state.manifest) == (ArtifactStatus.MISSING, None)
    assert "frozen does not exist" in state.reasons[0]


def test_the_previous_version_stays_until_the_new_one_is_published(paths: ArtifactPaths) -> None:
    build(paths)
    seen = []

    def look_and_fill(folder: Path) -> Mapping[str, Any]:
        artifact.verify(paths.artifact("frozen"))
        seen.append((paths.artifact("frozen") / "model.pb").read_text())
        return fill(folder, "other")

    build(paths, NEW, look_and_fill)
    assert seen == ["weights"]


def test_a_maker_that_fails_leaves_the_previous_version_and_nothing_else(paths: ArtifactPaths) -> None:
    build(paths)

    def fail(folder: Path) -> Mapping[str, Any]:
        fill(folder, "half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        build(paths, NEW, fail)
    artifact.verify(paths.artifact("frozen"))
    assert (paths.artifact("frozen") / "model.pb").read_text() == "weights"
    assert leftovers(paths) == []


def test_a_resumable_maker_that_fails_goes_on_with_its_own_work_only(paths: ArtifactPaths) -> None:
    found = []

    def work(folder: Path) -> Mapping[str, Any]:
        found.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"step-{len(found)}").write_text("x")
        if len(found) < 4:
            raise ValueError("broken")
        return {}

    for fingerprint_inputs in (OLD, OLD, NEW):
        with pytest.raises(ValueError, match="broken"):
            build(paths, fingerprint_inputs, work, resumable=("frozen",))
    build(paths, NEW, work, resumable=("frozen",))
    assert found == [[], ["step-1"], [], ["step-3"]]
    assert sorted(Manifest.read(paths.artifact("frozen")).files) == ["step-3", "step-4"]
    assert leftovers(paths) == []


def test_an_input_that_changes_during_the_work_is_noticed(paths: ArtifactPaths) -> None:
    answers = iter([OLD, NEW])
    with pytest.raises(StoreError, match=r"an input changed while it was used .*setting seed changed: was 1, is 2"):
        artifact.build(paths, "frozen", lambda: next(answers), fill)
    assert not paths.artifact("frozen").exists()
    assert leftovers(paths) == []


def test_artifacts_of_several_stages_do_not_touch_each_other(paths: ArtifactPaths) -> None:
    for stage in ("graph", "frozen", "training"):
        build(paths, stage=stage)
    build(paths, NEW, stage="graph")
    for stage in ("graph", "frozen", "training"):
        artifact.verify(paths.artifact(stage))


def test_a_stage_with_a_dash_in_its_name_survives_a_sweep(paths: ArtifactPaths) -> None:
    build(paths, stage="frozen-fast")
    artifact.sweep(paths)
    artifact.verify(paths.artifact("frozen-fast"))


# Damage


def change(path: Path, raw: bytes) -> None:
    """Other bytes, and another time stamp."""
    before = path.stat().st_mtime_ns
    path.write_bytes(raw)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_flipped_byte_is_damage_that_is_never_overwritten(paths: ArtifactPaths) -> None:
    build(paths)
    path = paths.artifact("frozen") / "model.pb"
    change(path, b"weightz")
    state = artifact.examine(paths.artifact("frozen"), "frozen", OLD)
    assert state.status is ArtifactStatus.DAMAGED
    assert "model.pb: its bytes were changed after it was finished" in state.reasons[0]
    for fingerprint_inputs in (OLD, NEW):
        with pytest.raises(DamagedArtifact, match=r"model\.pb"):
            build(paths, fingerprint_inputs, refuse)
    assert path.read_bytes() == b"weightz"


def test_a_changed_size_makes_it_again(paths: ArtifactPaths) -> None:
    build(paths)
    change(paths.artifact("frozen") / "model.pb", b"weight")
    state = artifact.examine(paths.artifact("frozen"), "frozen", OLD)
    assert state.status is ArtifactStatus.STALE
    assert "model.pb has 6 bytes, was finished with 7" in state.reasons[0]
    build(paths)
    assert (paths.artifact("frozen") / "model.pb").read_text() == "weights"


def test_a_missing_file_makes_it_again(paths: ArtifactPaths) -> None:
    build(paths)
    (paths.artifact("frozen") / "sub/part.bin").unlink()
    state = artifact.examine(paths.artifact("frozen"), "frozen", OLD)
    assert state.status is ArtifactStatus.STALE
    assert "part.bin is missing" in state.reasons[0]
    build(paths)
    artifact.verify(paths.artifact("frozen"))


def test_another_time_stamp_on_the_same_bytes_changes_nothing(paths: ArtifactPaths) -> None:
    build(paths)
    os.utime(paths.artifact("frozen") / "model.pb", ns=(5, 5))
    assert artifact.examine(paths.artifact("frozen"), "frozen", OLD).is_complete
    assert build(paths, make=refuse).is_complete


def test_a_flipped_byte_under_the_old_time_stamp_is_found_by_hashing(paths: ArtifactPaths) -> None:
    build(paths)
    path = paths.artifact("frozen") / "model.pb"
    before = path.stat().st_mtime_ns
    path.write_bytes(b"weightz")
    os.utime(path, ns=(before, before))
    with pytest.raises(DamagedArtifact, match=r"model\.pb"):
        artifact.verify(paths.artifact("frozen"))


def rot(path: Path) -> None:
    """Other bytes of the same size, under the old time stamp."""
    before = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_full_look_finds_bytes_that_changed_under_the_old_time_stamp(paths: ArtifactPaths) -> None:
    build(paths)
    folder = paths.artifact("frozen")
    rot(folder / "sub/part.bin")
    assert artifact.examine(folder, "frozen", OLD).is_complete
    for _ in range(2):
        state = artifact.examine(folder, "frozen", OLD, is_full=True)
        assert state.status is ArtifactStatus.DAMAGED
        assert f"{folder}/sub/part.bin: its bytes were changed after it was finished" in state.reasons[0]


def test_a_full_look_hashes_each_file_once(paths: ArtifactPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    build(paths)
    hashed: list[str] = []
    hash_one = artifact.Folder.hash
    monkeypatch.setattr(artifact.Folder, "hash", lambda self, name: hashed.append(name) or hash_one(self, name))
    for _ in range(3):
        assert artifact.examine(paths.artifact("frozen"), "frozen", OLD, is_full=True).is_complete
    assert hashed == ["model.pb", "sub/part.bin"]
    artifact.verify(paths.artifact("frozen"))
    assert len(hashed) == 4, "verify hashes every time"


@pytest.mark.parametrize("file", ["model.pb", MANIFEST_FILE])
def test_what_a_full_look_found_damaged_is_named_and_made_again(
    file: str, paths: ArtifactPaths, caplog: pytest.LogCaptureFixture
) -> None:
    made = build(paths).manifest
    rot(paths.artifact("frozen") / file)
    state = artifact.build(paths, "frozen", lambda: OLD, fill, is_full=True)
    assert made is not None
    assert state.manifest is not None
    assert state.manifest.content_digest == made.content_digest
    assert f"{paths.artifact('frozen')} is damaged and made again: {paths.artifact('frozen')}/{file}: " in caplog.text
    assert artifact.examine(paths.artifact("frozen"), "frozen", OLD, is_full=True).is_complete
    assert leftovers(paths) == []


def test_verify_takes_any_change_of_a_file_for_damage(paths: ArtifactPaths) -> None:
    build(paths)
    path = paths.artifact("frozen") / "model.pb"
    assert artifact.verify(paths.artifact("frozen")).stage == "frozen"
    path.write_bytes(b"")
    with pytest.raises(DamagedArtifact, match="has 0 bytes, was finished with 7"):
        artifact.verify(paths.artifact("frozen"))
    path.unlink()
    with pytest.raises(DamagedArtifact, match="is missing"):
        artifact.verify(paths.artifact("frozen"))


def test_verify_looks_at_the_files_that_it_is_asked_for(paths: ArtifactPaths) -> None:
    build(paths)
    change(paths.artifact("frozen") / "model.pb", b"weightz")
    artifact.verify(paths.artifact("frozen"), "sub/*")
    with pytest.raises(DamagedArtifact):
        artifact.verify(paths.artifact("frozen"), "sub/*", "model.pb")


def test_a_damaged_manifest_is_damage(paths: ArtifactPaths) -> None:
    build(paths)
    path = paths.artifact("frozen") / MANIFEST_FILE
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert artifact.examine(paths.artifact("frozen"), "frozen", NEW).status is ArtifactStatus.DAMAGED
    with pytest.raises(DamagedArtifact):
        build(paths, NEW, refuse)


def test_what_is_no_artifact_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not an artifact"):
        artifact.verify(tmp_path)


# What stands in the way


def test_a_foreign_folder_in_the_way_is_refused_and_kept(paths: ArtifactPaths) -> None:
    (paths.artifact("frozen") / "mine").mkdir(parents=True)
    with pytest.raises(StoreError, match="did not make is in the way"):
        build(paths, make=refuse)
    assert (paths.artifact("frozen") / "mine").is_dir()


def test_a_foreign_file_in_the_way_is_refused_and_kept(paths: ArtifactPaths) -> None:
    paths.home.mkdir()
    paths.artifact("frozen").write_text("mine")
    with pytest.raises(StoreError):
        build(paths, make=refuse)
    assert paths.artifact("frozen").read_text() == "mine"


def test_a_foreign_link_in_the_way_is_refused_and_what_it_names_is_kept(paths: ArtifactPaths, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "mine").write_text("precious")
    paths.home.mkdir()
    paths.artifact("frozen").symlink_to(theirs)
    with pytest.raises(StoreError, match="in the way"):
        build(paths)
    assert (theirs / "mine").read_text() == "precious"
    assert paths.artifact("frozen").readlink() == theirs


def test_a_copy_of_an_artifact_is_as_good_as_the_artifact(paths: ArtifactPaths, tmp_path: Path) -> None:
    build(paths)
    copy = ArtifactPaths(tmp_path / "copy", "spam")
    shutil.copytree(paths.artifact("frozen"), copy.artifact("frozen"))
    assert build(copy, make=refuse).is_complete


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_an_output_root_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written \(got (Not a directory|File exists)\)") as caught:
        build(ArtifactPaths(tmp_path / "file" / below, "spam"))
    assert str(tmp_path / "file") in str(caught.value.where)


def test_a_full_disk_is_an_error_of_the_store(paths: ArtifactPaths) -> None:
    def overflow(folder: Path) -> Mapping[str, Any]:
        with open("/dev/full", "w") as file:
            file.write("x")
        return {}

    with pytest.raises(StoreError, match="No space left on device"):
        build(paths, make=overflow)
    assert leftovers(paths) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-a", ".hidden", "a b", "ä", "a\n", "x" * 101])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="not a valid folder name"):
        ArtifactPaths(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "9", "x" * 100])
def test_a_plain_folder_name_is_taken(tmp_path: Path, name: str) -> None:
    assert ArtifactPaths(tmp_path, name).home == tmp_path / name


def test_a_version_published_while_one_looks_is_not_taken_for_damage(
    paths: ArtifactPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(paths)
    read = Manifest.read

    def read_then_replaced(folder: Path) -> Manifest:
        manifest = read(folder)
        monkeypatch.undo()
        build(paths, NEW, lambda work: fill(work, "WEIGHTS"))
        return manifest

    monkeypatch.setattr(artifact.Manifest, "read", read_then_replaced)
    assert artifact.examine(paths.artifact("frozen"), "frozen", OLD).status is not ArtifactStatus.DAMAGED


# Kills, and two at once: each in a process of its own

PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
from pipeline.store import artifact as store
from pipeline.store.artifact import ArtifactPaths

def fill(folder, content="weights"):
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "model.pb").write_text(content)
    (folder / "sub" / "part.bin").write_text(content * 2)
    return {"seed": 7}

def build(root, seed, make=fill, resumable=()):
    places = ArtifactPaths(Path(root), "spam")
    return store.build(places, "frozen", lambda: {"settings": {"seed": seed}}, make, resumable)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


KILL_AT_EVERY_STEP = """
root, resumable = Path(sys.argv[1]), tuple(sys.argv[2:])
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree", "open", "fcntl.flock"}

def kill_at(step):
    left = [step]
    def count(event, arguments):
        if event in STEPS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

for step in range(1, 10_000):
    here = root / f"{step:03}"
    build(here, 1)
    child = os.fork()
    if child == 0:
        kill_at(step)
        build(here, 2, lambda folder: fill(folder, "changed"), resumable)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(step)
"""


@pytest.mark.parametrize("resumable", [(), ("frozen",)], ids=["from-the-start", "resumed"])
def test_a_kill_at_any_step_leaves_a_whole_version_and_the_next_run_carries_on(
    tmp_path: Path, resumable: tuple[str, ...]
) -> None:
    killer = start(KILL_AT_EVERY_STEP, tmp_path, *resumable)
    output, _ = killer.communicate(timeout=120)
    assert killer.returncode == 0
    steps = int(output)
    assert steps > 20
    wrong = {}
    for step in range(1, steps):
        paths = ArtifactPaths(tmp_path / f"{step:03}", "spam")
        try:
            assert artifact.verify(paths.artifact("frozen")).fingerprint_inputs in (OLD, NEW)
            build(paths, NEW, lambda folder: fill(folder, "changed"), resumable=resumable)
            manifest = artifact.verify(paths.artifact("frozen"))
            assert sorted(manifest.files) == ["model.pb", "sub/part.bin"]
            assert (paths.artifact("frozen") / "model.pb").read_text() == "changed"
            assert build(paths, NEW, refuse, resumable=resumable).is_complete
            assert leftovers(paths) == []
        except (PipelineError, AssertionError) as exc:
            wrong[step] = str(exc)
    assert wrong == {}


def test_what_a_kill_inside_the_maker_left_is_swept(paths: ArtifactPaths, tmp_path: Path) -> None:
    script = """
def die(folder):
    fill(folder, "half")
    os.kill(os.getpid(), signal.SIGKILL)
build(sys.argv[1], 1, die)
"""
    assert start(script, paths.root).wait(timeout=60) == -signal.SIGKILL
    assert len(leftovers(paths)) == 1
    artifact.sweep(paths, spare=("frozen",))
    assert len(leftovers(paths)) == 1
    artifact.sweep(paths)
    assert leftovers(paths) == []
    assert not paths.artifact("frozen").exists()


WAIT_IN_MAKER = """
def slow(folder):
    (Path(sys.argv[1]) / "started").touch()
    while not (Path(sys.argv[1]) / "go").exists():
        time.sleep(0.01)
    return fill(folder, "theirs")
build(sys.argv[1], 1, slow)
"""


def test_two_builds_at_once_make_it_once(paths: ArtifactPaths, tmp_path: Path) -> None:
    first = start(WAIT_IN_MAKER, tmp_path)
    wait_for(tmp_path / "started")
    second = start(
        """
Path(sys.argv[1], "waiting").touch()
state = build(sys.argv[1], 1, lambda folder: fill(folder, "mine"))
print(json.dumps([state.is_complete, (Path(sys.argv[1]) / "spam/frozen/model.pb").read_text()]))
""",
        tmp_path,
    )
    wait_for(tmp_path / "waiting")
    time.sleep(0.2)  # the second one must still be waiting for the first
    assert second.poll() is None
    (tmp_path / "go").touch()
    output, _ = second.communicate(timeout=60)
    assert first.wait(timeout=60) == 0
    assert json.loads(output) == [True, "theirs"]
    artifact.verify(paths.artifact("frozen"))


def test_a_sweep_leaves_those_alone_who_are_at_work(paths: ArtifactPaths, tmp_path: Path) -> None:
    worker = start(WAIT_IN_MAKER, tmp_path)
    wait_for(tmp_path / "started")
    artifact.sweep(paths)
    assert len(leftovers(paths)) == 1
    (tmp_path / "go").touch()
    assert worker.wait(timeout=60) == 0
    assert (paths.artifact("frozen") / "model.pb").read_text() == "theirs"


def test_a_lock_is_free_once_its_holder_is_killed(paths: ArtifactPaths, tmp_path: Path) -> None:
    worker = start(WAIT_IN_MAKER, tmp_path)
    wait_for(tmp_path / "started")
    with artifact.hold(paths.lock("frozen"), wait=False) as is_held:
        assert not is_held
    worker.kill()
    worker.wait()
    with artifact.hold(paths.lock("frozen"), wait=False) as is_held:
        assert is_held


def test_locks_of_two_stages_do_not_meet(paths: ArtifactPaths) -> None:
    with artifact.hold(paths.lock("graph")), artifact.hold(paths.lock("frozen"), wait=False) as is_held:
        assert is_held
