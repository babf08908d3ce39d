"""Somebody can write to the output root or the bucket: nothing outside of an artifact is read, hashed or written."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import accept, verify
from pipeline.errors import DamagedArtifact, DataError, SettingError, StoreError
from pipeline.hashing import hash_values
from pipeline.settings import Settings
from pipeline.store import artifact, manifest
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.file_names import MANIFEST_FILE, RECORD_FILE
from pipeline.store.folder import NotRegular, remove_file
from pipeline.store.manifest import Manifest
from pipeline.store.remote import RemoteStore
from pipeline.tasks import model
from pipeline.tasks.batch import cache
from pipeline.tasks.batch.outcome import Outcome, read_outcome
from pipeline.tasks.chain.job import Job, Parameters
from pipeline.tasks.nightly.history import Night, read_history, read_record, write_history
from pipeline.tasks.nightly.page import write_page
from pipeline.tasks.nightly.paths import Nights

INPUTS = {"settings": {"seed": 1}}
SECRET = "precious"


@pytest.fixture(autouse=True)
def _no_file_waits_for_ever() -> Iterator[None]:
    """A FIFO or a device that is opened for reading would hang the suite."""

    def give_up(*_: object) -> None:
        raise AssertionError("it waits for a file that never ends")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of somebody else, outside of the output root."""
    folder = tmp_path / "theirs"
    (folder / "deep").mkdir(parents=True)
    (folder / "secret").write_text(SECRET)
    (folder / "deep/secret").write_text(SECRET)
    return folder


def is_untouched(theirs: Path) -> bool:
    held = {path.relative_to(theirs).as_posix(): path.read_text() for path in theirs.rglob("*") if path.is_file()}
    return held == {"secret": SECRET, "deep/secret": SECRET}


@pytest.fixture
def paths(tmp_path: Path) -> ArtifactPaths:
    return ArtifactPaths(tmp_path / "out", "m")


def fill(folder: Path) -> Mapping[str, Any]:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "model.pb").write_text("weights")
    (folder / "sub/part").write_text("part")
    return {}


def build(paths: ArtifactPaths, inputs: Mapping[str, Any] = INPUTS, make: Any = fill, **more: Any) -> Manifest:
    state = artifact.build(paths, "frozen", lambda: inputs, make, **more)
    assert state.manifest is not None
    return state.manifest


def sealed(values: Mapping[str, Any]) -> str:
    """The text of a manifest that somebody wrote and sealed, whatever it says."""
    open_values = {key: value for key, value in values.items() if key != "seal"}
    seal = hash_values("manifest", open_values)
    return json.dumps({**open_values, "seal": seal}, indent=2, sort_keys=True) + "\n"


def with_files(made: Manifest, files: Mapping[str, Any]) -> str:
    return sealed({**json.loads(made.to_json()), "files": files})


ENTRY = {"size_bytes": len(SECRET), "sha256": "0" * 64, "mtime_ns": 0}
BAD_PATHS = {
    "above": "../../theirs/secret",
    "above, later": "sub/../../../theirs/secret",
    "absolute": "/etc/hostname",
    "two slashes": "sub//part",
    "a dot": "./model.pb",
    "a dot inside": "sub/./part",
    "only dots": "..",
    "a final slash": "sub/",
    "empty": "",
    "a backslash": "..\\..\\theirs\\secret",
    "a drive": "C:model.pb",
    "a drive and a slash": "c:/x",
    "a line end": "a\nb",
    "a null": "a\0b",
    "an escape": "a\x1b[2Jb",
    "a control character of C1": "a\x9bb",
    "written backwards": "bp.\u202eledom",
    "half a character": "a\ud800b",
    "too deep": "a/" * 100 + "b",
    "the manifest itself": MANIFEST_FILE,
}


@pytest.mark.parametrize("case", BAD_PATHS)
def test_a_path_in_a_manifest_that_is_no_path_in_the_artifact_is_refused(case: str, paths: ArtifactPaths) -> None:
    made = build(paths)
    text = with_files(made, {BAD_PATHS[case]: ENTRY})
    with pytest.raises(
        DamagedArtifact, match=r"the manifest was changed.*(not the path of a file|does not list itself)"
    ):
        Manifest.parse(text, "bucket/manifest.json")


BAD_ENTRIES: dict[str, Any] = {
    "a negative size": {**ENTRY, "size_bytes": -1},
    "a size that is no number": {**ENTRY, "size_bytes": "7"},
    "a size that is true": {**ENTRY, "size_bytes": True},
    "half a byte": {**ENTRY, "size_bytes": 0.5},
    "a size beyond all files": {**ENTRY, "size_bytes": 2**63},
    "a time beyond all clocks": {**ENTRY, "mtime_ns": 2**80},
    "a short digest": {**ENTRY, "sha256": "ab"},
    "a digest with a line end": {**ENTRY, "sha256": "0" * 64 + "\n"},
    "a digest in capitals": {**ENTRY, "sha256": "A" * 64},
    "no digest": {**ENTRY, "sha256": None},
    "one more value": {**ENTRY, "mode": 0o777},
    "no values": {},
    "a list": [],
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_an_entry_of_a_manifest_that_is_none_of_a_file_is_refused(case: str, paths: ArtifactPaths) -> None:
    text = with_files(build(paths), {"model.pb": BAD_ENTRIES[case]})
    with pytest.raises(DamagedArtifact, match="the manifest was changed"):
        Manifest.parse(text, "bucket/manifest.json")


def test_a_file_that_is_at_the_same_time_a_folder_is_refused(paths: ArtifactPaths) -> None:
    text = with_files(build(paths), {"sub": ENTRY, "sub/part": ENTRY})
    with pytest.raises(DamagedArtifact, match="a file and a folder have the same name"):
        Manifest.parse(text, "bucket/manifest.json")


def twice_the_same_file(text: str) -> str:
    return text.replace(
        '    "model.pb"', '    "model.pb": {"mtime_ns": 0, "sha256": "", "size_bytes": 0},\n    "model.pb"', 1
    )


def twice_the_files(text: str) -> str:
    return text.replace('  "files"', '  "files": {},\n  "files"', 1)


def nested_without_end(text: str) -> str:
    return text.replace('"notes": {', '"notes": {"x": ' + "[" * 100_000 + "]" * 100_000 + ",", 1)


def nested_a_little_less(text: str) -> str:
    values = json.loads(text)
    for _ in range(400):
        values["notes"] = {"x": values["notes"]}
    return json.dumps(values)


def a_number_of_a_million_digits(text: str) -> str:
    return text.replace('"size_bytes": 7', '"size_bytes": 7' + "0" * 10**6, 1)


def no_mapping_of_ingredients(text: str) -> str:
    return sealed({**json.loads(text), "ingredients": ["settings"]})


TEXTS = [
    twice_the_same_file,
    twice_the_files,
    nested_without_end,
    nested_a_little_less,
    a_number_of_a_million_digits,
    no_mapping_of_ingredients,
]


@pytest.mark.parametrize("change", TEXTS, ids=lambda change: change.__name__)
def test_a_text_that_two_readers_could_read_as_two_things_or_none_at_all_is_damage(
    change: Callable[[str], str], paths: ArtifactPaths
) -> None:
    text = build(paths).to_json()
    assert change(text) != text
    with pytest.raises(DamagedArtifact, match="the manifest was changed"):
        Manifest.parse(change(text), "bucket/manifest.json")


def test_what_a_stage_made_passes_the_same_checks_before_it_is_published(paths: ArtifactPaths) -> None:
    def odd_name(folder: Path) -> Mapping[str, Any]:
        (folder / "a\nb").write_text("x")
        return {}

    with pytest.raises(StoreError, match="not the path of a file in a folder"):
        build(paths, make=odd_name)
    assert not paths.artifact("frozen").exists()


CHANGE = {"kind": "code", "name": "x", "from": 1, "to": None}
ACCEPTANCE = {"when": "", "user": "", "machine": "", "command": "", "changes": [CHANGE]}
BAD_NOTES: dict[str, Any] = {
    "accepted that is no list": {"accepted": 5},
    "accepted that is a text": {"accepted": "x"},
    "accepted of nothing": {"accepted": [5]},
    "accepted without changes": {"accepted": [{**ACCEPTANCE, "changes": 5}]},
    "accepted by nobody": {"accepted": [{**ACCEPTANCE, "user": 5}]},
    "accepted without a name": {"accepted": [{**ACCEPTANCE, "changes": [{**CHANGE, "name": {"x": 1}}]}]},
    "seconds that are a text": {"seconds": "x"},
    "seconds that are a list": {"seconds": [1]},
    "seconds without end": {"seconds": float("inf")},
    "no time": {"made": 5},
    "no command": {"command": ["x"]},
    "no speeds": {"rows_per_second": 5},
    "speeds that are texts": {"rows_per_second": {"frozen": "x"}},
    "not what was not watched": {"unwatched": {"x": 1}},
    "no refusal": {"refused": {"x": 1}},
}
BAD_INPUTS: dict[str, Any] = {kind: {kind: 5} for kind in manifest._MAPPINGS}


@pytest.mark.parametrize("case", [*BAD_NOTES, *BAD_INPUTS])
def test_notes_and_inputs_that_are_none_make_a_damaged_artifact(case: str, paths: ArtifactPaths) -> None:
    made = json.loads(build(paths, INPUTS, lambda folder: {**fill(folder), "accepted": [ACCEPTANCE]}).to_json())
    made["notes"] |= BAD_NOTES.get(case, {})
    made["ingredients"] |= BAD_INPUTS.get(case, {})
    made["fingerprint"] = manifest.fingerprint("frozen", made["ingredients"])
    text = sealed(made)
    (paths.artifact("frozen") / MANIFEST_FILE).write_text(text)
    with pytest.raises(DamagedArtifact, match=r"not a note of a manifest|not what decides a stage"):
        artifact.verify(paths.artifact("frozen"))
    assert artifact.examine(paths.artifact("frozen"), "frozen", INPUTS).status is ArtifactStatus.DAMAGED


def test_a_manifest_too_large_to_be_one_is_not_read(paths: ArtifactPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    build(paths)
    monkeypatch.setattr(manifest, "MOST_BYTES", 100)
    with pytest.raises(DamagedArtifact, match="more than 100 bytes"):
        Manifest.read(paths.artifact("frozen"))


# In the place of files: links, FIFOs, devices.


def replace(path: Path, put: Callable[[Path], object]) -> None:
    if path.is_dir():
        path.rename(path.with_name("aside"))
    else:
        path.unlink()
    put(path)


@pytest.mark.parametrize("kind", ["link", "hanging link", "fifo", "device", "folder"])
@pytest.mark.parametrize("name", ["model.pb", "sub/part", MANIFEST_FILE])
def test_only_regular_files_of_an_artifact_are_hashed(name: str, kind: str, paths: ArtifactPaths, theirs: Path) -> None:
    build(paths)
    folder = paths.artifact("frozen")
    kinds: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(theirs / "secret"),
        "hanging link": lambda path: path.symlink_to(theirs / "absent"),
        "fifo": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": lambda path: path.mkdir(),
    }
    replace(folder / name, kinds[kind])
    with pytest.raises(DamagedArtifact):
        artifact.verify(folder)
    assert artifact.examine(folder, "frozen", INPUTS).status is not ArtifactStatus.COMPLETE


def test_a_link_on_the_way_to_a_file_is_not_followed(paths: ArtifactPaths, theirs: Path) -> None:
    build(paths)
    (theirs / "part").write_text("part")  # the right bytes, elsewhere
    os.utime(theirs / "part", ns=(0, Manifest.read(paths.artifact("frozen")).files["sub/part"].mtime_ns))
    replace(paths.artifact("frozen") / "sub", lambda path: path.symlink_to(theirs))
    with pytest.raises(DamagedArtifact, match=r"sub: something else is in the place.*a link to '.*theirs'"):
        artifact.verify(paths.artifact("frozen"))
    assert artifact.examine(paths.artifact("frozen"), "frozen", INPUTS).status is ArtifactStatus.DAMAGED


def test_what_a_stage_made_holds_no_links(paths: ArtifactPaths, theirs: Path) -> None:
    def make(folder: Path) -> Mapping[str, Any]:
        (folder / "model.pb").symlink_to(theirs / "secret")
        return {}

    with pytest.raises(StoreError, match=r"model\.pb: something else is in the place of a file"):
        build(paths, make=make)


# What `verify` reads besides the artifact: the stages before it, and the inputs that it names.


def verify_folder(folder: object) -> int:
    return verify.run(argparse.Namespace(folder=str(folder)))


def test_verify_reads_no_file_outside_of_the_stages_before(
    paths: ArtifactPaths, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(paths, {"upstream": {"../../theirs/secret": "0" * 64}})
    with pytest.raises(StoreError, match="not the path of a file in a folder"):
        verify_folder(paths.artifact("frozen"))
    other = ArtifactPaths(paths.root, "other")
    build(other, {"upstream": {"graph/secret": "0" * 64}})
    (other.home / "graph").symlink_to(theirs)
    assert verify_folder(other.artifact("frozen")) == 1
    assert "did not make is in the way" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["a version of another", "another", "elsewhere", "a copy"])
def test_verify_says_that_a_stage_is_another_one(kind: str, paths: ArtifactPaths, tmp_path: Path) -> None:
    build(paths)
    artifact.build(paths, "checkpoint", lambda: INPUTS, fill)
    elsewhere = ArtifactPaths(tmp_path / "elsewhere", "m")
    build(elsewhere)
    link, other = paths.artifact("frozen"), paths.artifact("checkpoint")
    link.unlink()
    if kind == "a copy":
        shutil.copytree(other, link)
    else:
        targets = {"another": "checkpoint", "elsewhere": elsewhere.artifact("frozen")}
        link.symlink_to(targets.get(kind) or os.readlink(other))
    with pytest.raises(StoreError, match=r"did not make is in the way|it is the artifact of another stage"):
        verify_folder(link)
    assert verify_folder(other) == 0
    shutil.copytree(other, tmp_path / "release")
    assert verify_folder(tmp_path / "release") == 0


def test_verify_says_that_a_published_stage_is_another_one(tmp_path: Path) -> None:
    _, bucket, remote = publish(tmp_path)
    shutil.copytree(bucket, bucket.parent / "checkpoint")
    with pytest.raises(DamagedArtifact, match="the artifact of another stage"):
        verify_folder(remote.url("checkpoint"))
    assert verify_folder(remote.url("frozen")) == 0
    shutil.copytree(bucket, bucket.parent / "v1")  # a release, under a name of its own
    assert verify_folder(remote.url("v1")) == 0


@pytest.mark.parametrize("command", ["WriteReport --model multiply_add", "ConvertBatch --manifest"])
@pytest.mark.parametrize("is_given", [True, False])
def test_accept_stays_with_the_model_and_the_folder_that_it_was_given(
    command: str, is_given: bool, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, seen = ArtifactPaths(tmp_path / "output", "m"), list[Job]()
    listed = tmp_path / "list.csv"
    listed.write_text("name,checkpoint,model\nm,,multiply_add\n")
    evil = (
        f"--name other --output-root {theirs} --storage-mirror {theirs} --engine-address tcp://evil:1 --nightly-hook x"
    )
    words = f"luigi --module pipeline {command} {listed if '--manifest' in command else ''} {evil}"
    build(paths, INPUTS, lambda folder: {**fill(folder), "command": words})
    artifact.build(paths, "graph", lambda: INPUTS, lambda folder: {**fill(folder), "command": "luigi 'WriteReport"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "ROOT_HOOKS", [])
    monkeypatch.setattr(accept, "ROOT_HOOKS", [])
    monkeypatch.setattr(accept, "accept", lambda chain, stages: seen.append(chain.job) or {})
    assert accept.run(argparse.Namespace(name="m", given=["--output-root", str(paths.root)] if is_given else [])) == 0
    [job] = seen
    assert job.paths.home.absolute() == paths.home
    assert (job.operations.storage.mirror, job.operations.engine.address) == ("", "")
    assert is_untouched(theirs)


@pytest.mark.parametrize("kind", ["fifo", "device", "endless"])
def test_verify_waits_for_no_input(kind: str, paths: ArtifactPaths, tmp_path: Path) -> None:
    place = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "endless": Path("/proc/self/environ")}[kind]
    if kind == "fifo":
        os.mkfifo(place)
    build(paths, {"files": {"data": "0" * 64}}, lambda folder: {"inputs": {"data": str(place)}})
    assert verify_folder(paths.artifact("frozen")) == 1


def test_an_input_that_decided_nothing_is_not_read(paths: ArtifactPaths, theirs: Path) -> None:
    build(paths, INPUTS, lambda folder: {"inputs": {"data": str(theirs / "secret")}})
    assert verify_folder(paths.artifact("frozen")) == 0


# A bucket.


def publish(tmp_path: Path) -> tuple[Manifest, Path, RemoteStore]:
    """Make an artifact on one host, and publish it; return its folder in the bucket."""
    paths, remote = ArtifactPaths(tmp_path / "maker", "m"), RemoteStore.at(f"file://{tmp_path / 'bucket'}", "m")
    made = build(paths)
    remote.push(paths, "frozen")
    return made, tmp_path / "bucket/m/frozen", remote


def pull(paths: ArtifactPaths, remote: RemoteStore) -> artifact.ArtifactState:
    state = artifact.examine(paths.artifact("frozen"), "frozen", INPUTS)
    return remote.look().reconcile(paths, "frozen", INPUTS, (), state)


@pytest.mark.parametrize("name", ["../../../../stolen", "../" * 12 + "tmp/stolen", "/tmp/stolen", "sub/../../../x"])
def test_a_manifest_in_a_bucket_writes_nothing_outside_of_the_mirror(name: str, tmp_path: Path) -> None:
    made, bucket, remote = publish(tmp_path)
    content = b"planted"
    (tmp_path / "planted").write_bytes(content)
    entry = {"size_bytes": 7, "sha256": artifact.Folder.open(tmp_path).hash("planted"), "mtime_ns": 0}
    (bucket / MANIFEST_FILE).write_text(with_files(made, {name: entry}))
    # Where a storage takes names as they are, there would be an object of that name.
    listing = remote.look()
    objects = {**listing.objects, f"frozen/{name}": (7, "")}
    host = ArtifactPaths(tmp_path / "deep/er/mirror", "m")
    before = sorted(tmp_path.rglob("*"))
    state = artifact.examine(host.artifact("frozen"), "frozen", INPUTS)
    state = type(listing)(remote, objects).reconcile(host, "frozen", INPUTS, (), state)
    assert state.status is ArtifactStatus.DAMAGED
    assert "not the path of a file in a folder" in state.reasons[0]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(DamagedArtifact):
        remote.verify("frozen")


@pytest.mark.parametrize("place", [".work", ".versions", ".locks", ".work/frozen", ""])
def test_a_download_goes_through_no_link_of_the_mirror(place: str, tmp_path: Path, theirs: Path) -> None:
    _, _, remote = publish(tmp_path)
    host = ArtifactPaths(tmp_path / "mirror", "m")
    (host.home / place).parent.mkdir(parents=True, exist_ok=True)
    (host.home / place).symlink_to(theirs)
    with pytest.raises(NotRegular, match="a link to"):
        pull(host, remote)
    assert is_untouched(theirs)


@pytest.mark.parametrize("name", ["model.pb", "sub", MANIFEST_FILE, ""])
def test_a_link_in_a_bucket_that_is_a_folder_is_refused(name: str, tmp_path: Path, theirs: Path) -> None:
    _, bucket, remote = publish(tmp_path)
    replace(bucket / name, lambda path: path.symlink_to(theirs / "secret"))
    with pytest.raises(NotRegular, match="is among the artifacts"):
        pull(ArtifactPaths(tmp_path / "mirror", "m"), remote)
    other = ArtifactPaths(tmp_path / "other", "m")
    build(other, {"settings": {"seed": 2}})
    with pytest.raises(NotRegular):
        remote.push(other, "frozen")
    assert is_untouched(theirs)


@pytest.mark.parametrize("name", ["model.pb", "sub/part", MANIFEST_FILE])
def test_an_upload_to_a_folder_writes_into_no_file_that_has_another_name(
    name: str, tmp_path: Path, theirs: Path
) -> None:
    made, bucket, remote = publish(tmp_path)
    replace(bucket / name, lambda path: path.hardlink_to(theirs / "secret"))
    other = ArtifactPaths(tmp_path / "other", "m")
    wanted = build(other, {"settings": {"seed": 2}})
    if name == MANIFEST_FILE:  # as is, it is a damaged one; a manifest that fits is a reason to write
        (theirs / "secret").write_text(made.to_json())
        remote.replace_manifest("frozen", made, wanted)
        assert (theirs / "secret").read_text() == made.to_json()
        return
    remote.push(other, "frozen")
    assert is_untouched(theirs)
    assert remote.verify("frozen") == wanted


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_in_the_place_of_a_published_file_is_written_over(is_empty: bool, tmp_path: Path) -> None:
    made, bucket, remote = publish(tmp_path)
    replace(bucket / "model.pb", Path.mkdir)
    if not is_empty:
        (bucket / "model.pb/more").write_text("x")
    remote.push(ArtifactPaths(tmp_path / "maker", "m"), "frozen")
    assert remote.verify("frozen") == made


def test_a_file_in_the_place_of_a_published_artifact_is_named(tmp_path: Path) -> None:
    remote = RemoteStore.at(f"file://{tmp_path / 'bucket'}", "m")
    build(ArtifactPaths(tmp_path / "maker", "m"))
    (tmp_path / "bucket/m").mkdir(parents=True)
    (tmp_path / "bucket/m/frozen").write_text("x")
    with pytest.raises(NotRegular, match="in the place of a folder of the pipeline"):
        remote.push(ArtifactPaths(tmp_path / "maker", "m"), "frozen")


def test_a_link_in_a_mirror_is_not_uploaded(tmp_path: Path, theirs: Path) -> None:
    paths, remote = ArtifactPaths(tmp_path / "maker", "m"), RemoteStore.at(f"file://{tmp_path / 'bucket'}", "m")
    build(paths)
    replace(paths.artifact("frozen") / "model.pb", lambda path: path.symlink_to(theirs / "secret"))
    with pytest.raises(NotRegular):
        remote.push(paths, "frozen")
    assert not (tmp_path / "bucket/m/frozen/model.pb").exists()


def test_two_names_that_are_one_on_this_disk_are_not_written_over_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with artifact.Folder.open(tmp_path) as folder:
        folder.create_file("model.pb").close()
        with pytest.raises(FileExistsError):
            folder.create_file("model.pb")


# Links in the output root: what they lead to is neither removed nor written.


@pytest.mark.parametrize("place", ["", ".versions", ".work", ".work/frozen", ".locks", ".locks/frozen"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_nothing_is_made_or_removed_through_a_link(
    place: str, is_new: bool, paths: ArtifactPaths, theirs: Path, tmp_path: Path
) -> None:
    if not is_new:
        build(paths)
    link = paths.home / place
    link.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(link):
        link.rename(tmp_path / "aside")
    link.symlink_to(theirs / "secret" if place == ".locks/frozen" else theirs)
    with pytest.raises(NotRegular, match=r"in the place of a \w+ of the pipeline .got a link to '.*theirs"):
        build(paths, {"settings": {"seed": 2}})
    assert is_untouched(theirs)
    assert os.readlink(link).startswith(str(theirs))


@pytest.mark.parametrize("target", ["../../theirs", "/tmp", ".versions", ".versions/../../../theirs", ".versions/x"])
def test_a_link_of_a_stage_to_anything_but_a_version_is_refused(
    target: str, paths: ArtifactPaths, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(paths)
    paths.artifact("frozen").unlink()
    paths.artifact("frozen").symlink_to(target)
    state = artifact.examine(paths.artifact("frozen"), "frozen", INPUTS)
    assert (state.status, "did not make is in the way" in state.reasons[0]) == (ArtifactStatus.MISSING, True)
    for use in (lambda: build(paths), lambda: paths.finished("frozen")):
        with pytest.raises(NotRegular, match=r"did not make is in the way .got a link to"):
            use()
    assert is_untouched(theirs)


def test_a_link_of_a_stage_to_a_version_of_another_is_refused(paths: ArtifactPaths) -> None:
    build(paths)
    paths.artifact("graph").symlink_to(os.readlink(paths.artifact("frozen")))
    with pytest.raises(NotRegular):
        artifact.build(paths, "graph", lambda: INPUTS, fill)
    artifact.verify(paths.artifact("frozen"))


@pytest.mark.parametrize("kind", ["to a folder", "to a file", "hanging"])
def test_links_among_what_a_killed_run_left_are_removed_and_not_followed(
    kind: str, paths: ArtifactPaths, theirs: Path
) -> None:
    build(paths)
    target = {"to a folder": theirs, "to a file": theirs / "secret", "hanging": theirs / "absent"}[kind]
    (paths.work("frozen") / "0123456789abcdef").symlink_to(target)
    (paths.versions / "frozen-0123456789ab-1").symlink_to(target)
    (paths.work("frozen") / "link").symlink_to(target)
    inside = paths.versions / "frozen-0123456789ab-2"
    inside.mkdir()
    (inside / "within").symlink_to(target)
    build(paths, {"settings": {"seed": 2}})
    assert is_untouched(theirs)
    assert [path.name for path in paths.versions.iterdir()] == [paths.finished("frozen").name]
    assert list(paths.work("frozen").iterdir()) == []


@pytest.mark.parametrize("kind", ["a link", "a hard link", "a link to a folder", "a FIFO"])
def test_work_is_not_resumed_where_writing_would_go_elsewhere(kind: str, paths: ArtifactPaths, theirs: Path) -> None:
    def die(folder: Path) -> Mapping[str, Any]:
        (folder / "step").write_text("1")
        raise ValueError("killed")

    def go_on(folder: Path) -> Mapping[str, Any]:
        assert list(folder.iterdir()) == []
        (folder / "model.pb").write_text("weights")
        return {}

    with pytest.raises(ValueError, match="killed"):
        build(paths, make=die, resumable=("frozen",))
    [work] = paths.work("frozen").iterdir()
    put: dict[str, Callable[[Path], object]] = {
        "a link": lambda path: path.symlink_to(theirs / "secret"),
        "a hard link": lambda path: path.hardlink_to(theirs / "secret"),
        "a link to a folder": lambda path: path.symlink_to(theirs),
        "a FIFO": os.mkfifo,
    }
    put[kind](work / "model.pb")
    build(paths, make=go_on, resumable=("frozen",))
    assert is_untouched(theirs)


def test_a_work_folder_that_was_exchanged_during_the_work_is_not_published(paths: ArtifactPaths, theirs: Path) -> None:
    def make(folder: Path) -> Mapping[str, Any]:
        folder.rename(folder.with_name("aside"))
        folder.symlink_to(theirs)
        return {}

    with pytest.raises(StoreError, match="the work folder was replaced"):
        build(paths, make=make)
    assert is_untouched(theirs)
    assert not paths.artifact("frozen").exists()


def test_an_output_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    paths = ArtifactPaths(tmp_path / "out", "m")
    build(paths)
    assert build(paths, make=None) == artifact.verify(paths.artifact("frozen"))
    assert (tmp_path / "disk/m/frozen/model.pb").read_text() == "weights"


def test_folders_nested_without_end_are_a_sentence(paths: ArtifactPaths) -> None:
    build(paths)
    deep = os.open(paths.work("frozen"), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deep)
        inner = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    said = ""
    try:
        build(paths, {"settings": {"seed": 2}})
    except StoreError as exc:  # where Python removes folders one in the other by calls one in the other
        said = str(exc)
    subprocess.run(["rm", "-rf", paths.work("frozen") / "d"], check=True)
    assert not said or "nested too deep" in said


# The records beside the artifacts: of nights, and of a batch.


def night_of(
    tmp_path: Path, night: str = "2026-11-01", record: Mapping[str, Any] | None = None
) -> tuple[Nights, ArtifactPaths]:
    nights = Nights(ArtifactPaths(tmp_path / "out", "m"))
    values = {"date": night, "verdict": "passed", "largest_difference": None, **(record or {})}

    def make(folder: Path) -> Mapping[str, Any]:
        (folder / RECORD_FILE).write_text(json.dumps(values))
        return {"night": {"finished": "", "seconds": {}}}

    artifact.build(nights.of(night), "night", lambda: INPUTS, make)
    return nights, nights.of(night)


@pytest.mark.parametrize("place", [".work", ".work/removed"])
def test_a_night_is_not_removed_through_a_link(place: str, tmp_path: Path, theirs: Path) -> None:
    nights, _ = night_of(tmp_path)
    (nights.home / place).parent.mkdir(exist_ok=True)
    (nights.home / place).symlink_to(theirs)
    with nullcontext() if place == ".work/removed" else pytest.raises(NotRegular):
        nights.remove("2026-11-01")
    assert is_untouched(theirs)
    assert nights.kept() == ([] if place == ".work/removed" else ["2026-11-01"])


@pytest.mark.parametrize("name", ["history.csv", ".history.csv", "nights.html", ".nights.html"])
def test_records_of_nights_are_written_through_no_link(name: str, tmp_path: Path, theirs: Path) -> None:
    nights, _ = night_of(tmp_path)
    (nights.home / name).symlink_to(theirs / "secret")
    history = {"2026-11-01": Night("2026-11-01", "passed")}
    write_history(nights, history)
    write_page(nights, history, 0.05)
    assert is_untouched(theirs)


def test_a_record_of_another_night_is_damage(tmp_path: Path) -> None:
    nights, paths = night_of(tmp_path)
    os.replace(paths.home, nights.home / "2026-11-02")
    with pytest.raises(DamagedArtifact, match="the record of 2026-11-01"):
        read_record(nights, "2026-11-02")


BAD_RECORDS: dict[str, dict[str, Any]] = {
    "numbers that are none": {"metrics": 5},
    "numbers that are texts": {"sizes": {"frozen": "many"}},
    "numbers without end": {"latencies": {"frozen": float("inf")}},
    "a reason that is none": {"reason": 7},
    "rows that are no number": {"rows": "x", "changed": [1]},
    "a share that is none": {"rows": True, "changed": True},
    "another night that is none": {"compared_with": 5},
    "a digest that is none": {"digest": ["x"]},
    "another verdict": {"verdict": "fine"},
    "a verdict that is none": {"verdict": {"passed": 1}},
    "another key": {"is_current": True},
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_record_that_is_none_fails_its_night_alone(case: str, tmp_path: Path) -> None:
    nights, _ = night_of(tmp_path)
    night_of(tmp_path, "2026-11-02", BAD_RECORDS[case])
    history = read_history(nights)
    assert {night: record.verdict for night, record in history.items()} == {
        "2026-11-01": "passed",
        "2026-11-02": "failed",
    }
    assert "a night's record cannot be read" in history["2026-11-02"].reason
    write_history(nights, history)
    write_page(nights, history, 0.05)


@pytest.mark.parametrize("name", ["2026-99-99", "0000-00-00", "2026-02-30"])
def test_a_folder_whose_name_is_no_date_is_no_night(name: str, tmp_path: Path) -> None:
    nights, paths = night_of(tmp_path)
    night_of(tmp_path, name)
    history = read_history(nights)
    assert list(history) == ["2026-11-01"]
    write_page(nights, history, 0.05)
    nights.link.symlink_to(name)
    assert nights.current is None
    assert paths.home.is_dir()


def test_the_history_is_read_from_a_file_alone(tmp_path: Path) -> None:
    nights, _ = night_of(tmp_path)
    os.mkfifo(nights.history)
    with pytest.raises(DataError, match="the history of the nights cannot be read"):
        read_history(nights)


OUTCOME = asdict(Outcome("m", "passed"))
NO_OUTCOMES: dict[str, Any] = {
    "no seconds": {**OUTCOME, "seconds": None},
    "a name that is a list": {**OUTCOME, "name": ["m"]},
    "checks in a text": {**OUTCOME, "checks": "passed"},
    "another verdict": {**OUTCOME, "verdict": "fine"},
    "one more value": {**OUTCOME, "path": "../x"},
    "nothing": {},
}


@pytest.mark.parametrize("case", NO_OUTCOMES)
def test_an_outcome_of_a_batch_that_is_none_is_not_believed(case: str) -> None:
    assert read_outcome(json.loads(json.dumps(OUTCOME))) == Outcome("m", "passed", formats=[], checks=[])
    with pytest.raises((TypeError, ValueError)):
        read_outcome(NO_OUTCOMES[case])


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.write_text("[" * 100_000)], ids=["fifo", "nested"])
def test_a_record_of_a_batch_that_cannot_be_read_decides_nothing(put: Any, tmp_path: Path) -> None:
    put(tmp_path / ".seen.json")
    assert cache.load(tmp_path / ".seen.json", None) is None  # type: ignore[arg-type]


def test_records_of_a_batch_are_written_and_removed_through_no_link(tmp_path: Path, theirs: Path) -> None:
    (theirs / "m.json").write_text(SECRET)
    failed = cache.failed_file(tmp_path / "out", "list", "m")
    failed.parent.parent.mkdir(parents=True)
    failed.parent.symlink_to(theirs)
    for use in (lambda: cache.store(failed, {}, Outcome("m", "failed")), lambda: remove_file(failed, tmp_path / "out")):
        with pytest.raises(NotRegular):
            use()
    assert (theirs / "m.json").read_text() == SECRET


# An output root in what is copied.


@pytest.mark.parametrize("root", ["saved", "saved/variables", "saved/../saved/deep/out"])
@pytest.mark.parametrize("flag", ["checkpoint", "candidate"])
def test_an_output_root_in_a_saved_model_is_refused(flag: str, root: str, tmp_path: Path) -> None:
    place = tmp_path / "saved"
    place.mkdir()
    (place / "saved_model.pb").write_bytes(b"")
    for given in (place, place / "saved_model.pb"):
        asked = Parameters(
            **{"checkpoint": str(tmp_path), flag: str(given)}, name="m", output_root=str(tmp_path / root)
        )
        with pytest.raises(
            SettingError, match=f"the output root is inside of the --{flag}, which is copied as a whole"
        ):
            Job.from_parameters(asked, Settings())
    Job.from_parameters(Parameters(checkpoint=str(place), name="m", output_root=str(tmp_path / "out")), Settings())
