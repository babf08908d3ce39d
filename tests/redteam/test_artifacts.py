"""Somebody can write to the output root or the bucket: nothing outside of an artifact is read, hashed or written."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import verify
from pipeline.errors import DamagedArtifact, StoreError
from pipeline.hashing import hash_values
from pipeline.store import artifact, manifest
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.folder import NotRegular
from pipeline.store.manifest import Manifest
from pipeline.store.remote import RemoteStore

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
