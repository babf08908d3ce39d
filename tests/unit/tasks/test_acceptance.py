"""Finished artifacts are kept under changed code where somebody says so; nothing else can be accepted."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import small_graphs

from pipeline.errors import DamagedArtifact, PipelineError, SettingError, StoreError
from pipeline.inputs import ImportedCheckpoint
from pipeline.settings import Operations, Settings, StorageSettings
from pipeline.store import artifact
from pipeline.store.acceptance import Acceptance
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.changes import Change
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.lock import hold
from pipeline.store.manifest import Manifest
from pipeline.store.remote import RemoteStore
from pipeline.tasks.chain.acceptance import accept, on_offer
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain

STAGES = ("checkpoint", "frozen")
Inputs = dict[str, Any]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose first stages are finished; they take no TensorFlow."""
    small_graphs.save(tmp_path / "in" / "model.ckpt")
    job = Job(
        source=None,
        paths=ArtifactPaths(tmp_path / "out", "m"),
        data=None,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(),
        imported=ImportedCheckpoint(str(tmp_path / "in" / "model.ckpt")),
    )
    for stage in STAGES:
        Chain(job).build(stage)
    return job


def made_with(job: Job, stage: str, change: Callable[[Inputs], Mapping[str, Any]]) -> None:
    """Rewrites a manifest as if the artifact had been made with other inputs."""
    folder = job.folder(stage)
    manifest = Manifest.read(folder)
    inputs = change(json.loads(json.dumps(manifest.fingerprint_inputs)))
    (folder / MANIFEST_FILE).write_text(dataclasses.replace(manifest, fingerprint_inputs=inputs).to_json())


def other_code(inputs: Inputs) -> Inputs:
    """Another digest of a file, a file that is gone, and one that is new."""
    first, second, *_ = inputs["code"]
    del inputs["code"][second]
    return {**inputs, "code": {**inputs["code"], first: "0" * 64, "pipeline/gone.py": "1" * 64}}


def other_version(inputs: Inputs) -> Inputs:
    return {**inputs, "versions": {**inputs["versions"], "numpy": "1.0"}}


def without_a_setting(inputs: Inputs) -> Inputs:
    """As by a version that did not have the setting yet; its default is what that version did."""
    [section] = inputs["settings"].keys() & {"split", "freezing"}
    values = dict(inputs["settings"][section])
    values.popitem()
    return {**inputs, "settings": {**inputs["settings"], section: values}}


def statuses(job: Job) -> list[ArtifactStatus]:
    return [state.status for state in Chain(job).examine("frozen").values()]


def bytes_of(job: Job) -> dict[str, bytes]:
    return {
        str(path.relative_to(job.paths.home)): path.read_bytes()
        for path in sorted((job.paths.home / ".versions").rglob("*"))
        if path.is_file()
    }


def code_that_was_imported_by_name(inputs: Inputs) -> Inputs:
    """Its import statement is not seen, so it was recorded among the files that the model's code read."""
    return {**inputs, "model_files": {"plugins/relu.py": "0" * 64}}


@pytest.mark.parametrize("change", [other_code, other_version, without_a_setting, code_that_was_imported_by_name])
def test_what_is_accepted_is_complete_and_keeps_every_byte(job: Job, change: Callable[[Inputs], Inputs]) -> None:
    made_with(job, "checkpoint", change)
    then, before = Manifest.read(job.folder("checkpoint")), bytes_of(job)
    told = Chain(job).examine("frozen")["checkpoint"].reasons
    assert statuses(job) == [ArtifactStatus.STALE, ArtifactStatus.WAITING]
    assert on_offer(Chain(job)) == ["checkpoint"]
    accepted = accept(Chain(job))
    assert list(map(str, accepted["checkpoint"])) == list(told)
    assert accepted["frozen"] == ()
    # It is complete, and so is the stage after it, whose own code did not change.
    assert statuses(job) == [ArtifactStatus.COMPLETE, ArtifactStatus.COMPLETE]
    now = artifact.verify(job.paths.artifact("checkpoint"))
    assert {path for path, content in bytes_of(job).items() if content != before[path]} == {
        f".versions/{job.folder('checkpoint').name}/{MANIFEST_FILE}"
    }
    assert (now.files, now.content_digest) == (then.files, then.content_digest)
    [entry] = Acceptance.read_all(now)
    assert list(map(str, entry.changes)) == list(told)
    assert entry.machine == os.uname().nodename
    assert entry.user
    assert entry.command
    assert entry.when.endswith("+00:00")
    assert {name: note for name, note in now.notes.items() if name != "accepted"} == then.notes


def test_accepting_again_changes_nothing(job: Job) -> None:
    made_with(job, "frozen", other_code)
    accept(Chain(job), ["frozen"])
    before = bytes_of(job)
    assert accept(Chain(job)) == {"checkpoint": (), "frozen": ()}
    assert bytes_of(job) == before


def test_what_was_accepted_before_stays_on_record(job: Job) -> None:
    for _ in range(2):
        made_with(job, "frozen", other_version)
        accept(Chain(job), ["frozen"])
    assert [
        [change.key for change in entry.changes] for entry in Acceptance.read_all(Manifest.read(job.folder("frozen")))
    ] == [
        ["numpy"],
        ["numpy"],
    ]


def test_only_the_named_stage_is_accepted(job: Job) -> None:
    for stage in STAGES:
        made_with(job, stage, other_code)
    assert on_offer(Chain(job)) == list(STAGES)
    assert on_offer(Chain(job), "checkpoint") == ["checkpoint"]
    assert list(accept(Chain(job), ["frozen"])) == ["frozen"]
    assert statuses(job) == [ArtifactStatus.STALE, ArtifactStatus.WAITING]
    accept(Chain(job), ["checkpoint"])
    assert statuses(job) == [ArtifactStatus.COMPLETE, ArtifactStatus.COMPLETE]


def with_setting(inputs: Inputs, section: str, key: str, value: Any) -> Inputs:
    settings = inputs["settings"]
    return {**inputs, "settings": {**settings, section: {**settings[section], key: value}}}


REFUSED: dict[str, tuple[str, Callable[[Inputs], Inputs], str]] = {
    "setting": (
        "checkpoint",
        lambda inputs: with_setting(inputs, "split", "seed", 8),
        "setting split.seed changed: was 8, is 7",
    ),
    "parameter": (
        "checkpoint",
        lambda inputs: with_setting(inputs, "adopted", "outputs", ["z:0"]),
        "setting adopted.outputs changed",
    ),
    "a setting that is gone": (
        "checkpoint",
        lambda inputs: with_setting(inputs, "split", "x", 1),
        "setting split.x is gone: was 1",
    ),
    "weights": (
        "checkpoint",
        lambda inputs: {**inputs, "files": dict.fromkeys(inputs["files"], "0" * 64)},
        "/in/model.ckpt",
    ),
    "upstream": (
        "frozen",
        lambda inputs: {**inputs, "upstream": dict.fromkeys(inputs["upstream"], "0" * 64)},
        "checkpoint/model.ckpt",
    ),
    "a file that a model's code read": (
        "checkpoint",
        lambda inputs: {**inputs, "model_files": {"words.txt": "0" * 64}},
        "words.txt",
    ),
    "a variable that a model's code read": (
        "checkpoint",
        lambda inputs: {**inputs, "model_variables": {"WIDTH": "0" * 64}},
        "WIDTH",
    ),
    "the model's class": (
        "checkpoint",
        lambda inputs: {**inputs, "model": {"class": "Other"}},
        "class",
    ),
    "data in the model's package": (
        "checkpoint",
        lambda inputs: {**inputs, "model": {"words.txt": "0" * 64}},
        "words.txt",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_but_code_and_versions_is_accepted(job: Job, case: str) -> None:
    stage, change, sentence = REFUSED[case]
    for each in STAGES:
        made_with(job, each, other_code)
    made_with(job, stage, change)
    before = bytes_of(job)
    assert stage not in on_offer(Chain(job))
    for stages in ((), STAGES, (stage,)):
        with pytest.raises(StoreError, match="only changed code and library versions can be accepted") as caught:
            accept(Chain(job), stages)
        assert sentence in str(caught.value)
        assert stage in str(caught.value)
    assert bytes_of(job) == before, "the other stage was accepted all the same"


def test_changed_weights_are_refused_by_their_path(job: Job, tmp_path: Path) -> None:
    data = tmp_path / "in" / "model.ckpt.data-00000-of-00001"
    data.write_bytes(bytes(reversed(data.read_bytes())))
    made_with(job, "checkpoint", other_code)
    with pytest.raises(StoreError, match=f"{data} changed: sha256 was"):
        accept(Chain(job), ["checkpoint"])


@pytest.mark.parametrize("damage", ["byte", "missing", "manifest"])
def test_a_damaged_artifact_is_not_accepted(job: Job, damage: str) -> None:
    for stage in STAGES:
        made_with(job, stage, other_code)
    model = job.folder("frozen") / "model.pb"
    match damage:
        case "byte":  # under the old time stamp
            state, content = model.stat(), bytearray(model.read_bytes())
            content[len(content) // 2] ^= 1
            model.write_bytes(bytes(content))
            os.utime(model, ns=(state.st_atime_ns, state.st_mtime_ns))
        case "missing":
            model.unlink()
        case "manifest":
            path = job.folder("frozen") / MANIFEST_FILE
            path.write_text(path.read_text().replace("0" * 64, "2" * 64))
    before = bytes_of(job)
    with pytest.raises(DamagedArtifact):
        accept(Chain(job))
    assert bytes_of(job) == before


def test_a_stage_that_is_not_there_cannot_be_accepted(job: Job) -> None:
    with pytest.raises(StoreError, match="there is nothing to keep"):
        accept(Chain(job), ["checkpoint", "validation"])
    elsewhere = dataclasses.replace(job, paths=ArtifactPaths(job.paths.root, "other"))
    with pytest.raises(StoreError, match=r"other/checkpoint: there is nothing to keep"):
        accept(Chain(elsewhere))
    assert not elsewhere.paths.home.exists()
    with pytest.raises(SettingError, match=r"no such stage .*Did you mean 'frozen'"):
        accept(Chain(job), ["frozn"])
    with pytest.raises(SettingError, match="a report cannot be accepted"):
        accept(Chain(job), ["report"])


def test_a_stage_that_a_run_is_making_is_left_alone(job: Job) -> None:
    made_with(job, "frozen", other_code)
    before = bytes_of(job)
    with hold(job.paths.lock("frozen")), pytest.raises(StoreError, match="another run is making it now"):
        accept(Chain(job))
    assert bytes_of(job) == before
    accept(Chain(job))


def test_a_disk_that_is_full_leaves_the_old_manifest(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    made_with(job, "frozen", other_code)
    before = bytes_of(job)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(StoreError, match="cannot be written"):
            accept(Chain(job))
    assert bytes_of(job) == before
    accept(Chain(job))
    assert statuses(job)[1] is ArtifactStatus.COMPLETE


def test_an_artifact_that_was_made_again_meanwhile_is_left_alone(job: Job) -> None:
    before = Manifest.read(job.folder("frozen"))
    other = dataclasses.replace(before, notes={**before.notes, "seconds": 99.0})
    with pytest.raises(StoreError, match="made again meanwhile"):
        artifact.replace_manifest(job.paths, "frozen", other, other)
    assert Manifest.read(job.folder("frozen")) == before


def test_what_is_published_is_accepted_by_a_host_that_has_none_of_it(job: Job, tmp_path: Path) -> None:
    root = f"file://{tmp_path / 'bucket'}"
    (tmp_path / "bucket").mkdir()

    def on_host(name: str) -> Job:
        operations = Operations(storage=StorageSettings(mirror=str(tmp_path / name)))
        paths = ArtifactPaths(tmp_path / name, "m")
        return dataclasses.replace(job, paths=paths, operations=operations, remote=RemoteStore.at(root, "m"))

    one, two = on_host("one"), on_host("two")
    for stage in STAGES:
        Chain(one).build(stage)
    made_with(one, "frozen", other_code)
    published = tmp_path / "bucket" / "m" / "frozen"
    (published / MANIFEST_FILE).write_bytes((one.folder("frozen") / MANIFEST_FILE).read_bytes())
    assert statuses(one) == [ArtifactStatus.COMPLETE, ArtifactStatus.STALE]
    before = (published / "model.pb").stat().st_ctime_ns
    assert [change.kind for change in accept(Chain(two), ["frozen"])["frozen"]] == ["code"] * 3
    assert (published / "model.pb").stat().st_ctime_ns == before, "only the manifest is written"
    for host in (one, two):
        assert statuses(host) == [ArtifactStatus.COMPLETE, ArtifactStatus.COMPLETE]
    assert one.remote is not None
    assert Acceptance.read_all(one.remote.verify("frozen"))


def test_a_note_comes_back_as_it_was_written() -> None:
    entry = Acceptance("2026-11-30T00:00:00+00:00", "me", "here", "accept m", (Change("code", "a.py", None, "0" * 64),))
    assert entry.to_note()["changes"] == [{"kind": "code", "name": "a.py", "from": None, "to": "0" * 64}]
    manifest = Manifest("frozen", {}, {}, {"accepted": [entry.to_note()]})
    assert Acceptance.read_all(Manifest.parse(manifest.to_json(), "m")) == [entry]


def test_errors_of_others_are_left_to_them(job: Job) -> None:
    (job.folder("frozen") / MANIFEST_FILE).write_text("{}")
    assert on_offer(Chain(job)) == []
    with pytest.raises(PipelineError):
        accept(Chain(job))
