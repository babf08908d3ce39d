"""Manifests: sealed to the byte, and able to say what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given

from pipeline.errors import DamagedArtifact, StoreError
from pipeline.hashing import CodeDigest
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import FileEntry, Manifest, differences, fingerprint

DIGEST = "0123456789abcdef" * 4


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "stage": "graph",
        "fingerprint_inputs": {
            "settings": {"graph": {"seed": 7, "rate": 0.5}},
            "code": {"a.py": DIGEST},
            "name": "spam",
        },
        "files": {"sub/b.txt": FileEntry(2, DIGEST, 5), "a.txt": FileEntry(1, DIGEST[::-1], 4)},
        "notes": {"command": "make", "seconds": 0.25},
    }
    return Manifest(**values | changes)


def write(folder: Path, raw: bytes) -> Path:
    (folder / MANIFEST_FILE).write_bytes(raw)
    return folder


SMALL = manifest(fingerprint_inputs={"rate": 0.5}, files={"a": FileEntry(1, DIGEST, 4)}, notes={}).to_json().encode()


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert Manifest.read(write(tmp_path, manifest().to_json().encode())) == manifest()


@given(strategies.fingerprint_inputs)
def test_whatever_decided_a_stage_comes_back(
    tmp_path_factory: pytest.TempPathFactory, fingerprint_inputs: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    written = manifest(fingerprint_inputs=fingerprint_inputs)
    read = Manifest.read(write(folder, written.to_json().encode()))
    assert read.fingerprint == written.fingerprint == fingerprint("graph", fingerprint_inputs)
    assert list(differences(read.fingerprint_inputs, fingerprint_inputs)) == []


def test_a_byte_that_changed_anywhere_is_noticed(tmp_path: Path) -> None:
    raw = SMALL
    unnoticed = []
    for position, byte in enumerate(raw):
        for other in {byte ^ 1, byte ^ 0x80, ord("\r")} - {byte}:
            write(tmp_path, raw[:position] + bytes([other]) + raw[position + 1 :])
            try:
                Manifest.read(tmp_path)
            except DamagedArtifact:
                continue
            unnoticed.append((position, bytes([byte]), bytes([other])))
    assert unnoticed == []


def test_a_byte_that_went_or_came_is_noticed(tmp_path: Path) -> None:
    for position in range(len(SMALL)):
        for changed in (SMALL[:position] + SMALL[position + 1 :], SMALL[:position] + b" " + SMALL[position:]):
            with pytest.raises(DamagedArtifact):
                Manifest.read(write(tmp_path, changed))


@pytest.mark.parametrize("length", [1, 100, -1])
def test_a_manifest_that_was_cut_off_is_noticed(tmp_path: Path, length: int) -> None:
    with pytest.raises(DamagedArtifact):
        Manifest.read(write(tmp_path, SMALL[:length]))


def test_other_line_ends_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifact):
        Manifest.read(write(tmp_path, manifest().to_json().encode().replace(b"\n", b"\r\n")))


@pytest.mark.parametrize("key", ["stage", "fingerprint", "files", "ingredients", "notes", "seal"])
def test_a_missing_part_is_noticed(tmp_path: Path, key: str) -> None:
    values = json.loads(manifest().to_json())
    del values[key]
    with pytest.raises(DamagedArtifact):
        Manifest.read(write(tmp_path, json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"))


def test_a_value_that_was_edited_neatly_is_noticed(tmp_path: Path) -> None:
    values = json.loads(manifest().to_json())
    values["notes"]["seconds"] = 0.5
    with pytest.raises(DamagedArtifact, match="seal does not fit"):
        Manifest.read(write(tmp_path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()))


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"1", b'{"files": []}', b"\xff"])
def test_what_is_no_manifest_is_damage(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(DamagedArtifact):
        Manifest.read(write(tmp_path, raw))


def test_a_folder_in_place_of_the_manifest_is_damage(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        Manifest.read(tmp_path)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match=r"not an artifact \(got no manifest\.json\)") as caught:
            Manifest.read(place)
        assert not isinstance(caught.value, DamagedArtifact)


def test_digests_are_picked_by_patterns_that_cross_folders() -> None:
    assert manifest().digests("*.txt") == {"a.txt": DIGEST[::-1], "sub/b.txt": DIGEST}
    assert manifest().digests("sub/*") == {"sub/b.txt": DIGEST}
    assert manifest().digests("a.txt", "A.txt") == {"a.txt": DIGEST[::-1]}
    assert manifest().digests() == {}


def test_equal_bytes_give_equal_content_whatever_else_differs() -> None:
    later = manifest(
        notes={}, fingerprint_inputs={}, files={name: FileEntry(9, e.sha256, 9) for name, e in manifest().files.items()}
    )
    assert later.content_digest == manifest().content_digest
    renamed = manifest(files={"b.txt": manifest().files["a.txt"], "sub/b.txt": manifest().files["sub/b.txt"]})
    assert renamed.content_digest != manifest().content_digest


def test_notes_and_files_do_not_decide_the_fingerprint() -> None:
    assert manifest(notes={}, files={}).fingerprint == manifest().fingerprint
    assert manifest(stage="frozen").fingerprint != manifest().fingerprint
    assert manifest(fingerprint_inputs={}).fingerprint != manifest().fingerprint


def test_a_fingerprint_is_the_same_for_ever() -> None:
    digest = "67971096e3e396eb54fa576384bf8baeeec8f92c47ec5dfe937c4f426aa21693"
    assert fingerprint("graph", {"settings": {"seed": 7}}) == digest


@given(strategies.fingerprint_inputs, strategies.fingerprint_inputs)
def test_no_difference_is_told_exactly_where_fingerprints_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    one, other = ({kind: value for kind, value in side.items() if value} for side in (one, other))
    assert (list(differences(one, other)) == []) == (fingerprint("s", one) == fingerprint("s", other))


@pytest.mark.parametrize(("before", "now"), [(0.0, -0.0), ([1], [True]), ([1], [1.0]), (1, True), (1, 1.0), (1, "1")])
def test_values_that_python_takes_for_equal_differ(before: Any, now: Any) -> None:
    assert len(list(differences({"settings": {"x": before}}, {"settings": {"x": now}}))) == 1


@pytest.mark.parametrize("value", [float("nan"), (1, 2)])
def test_a_value_that_went_through_json_is_still_the_same(value: Any) -> None:
    stored = json.loads(json.dumps({"settings": {"x": value}}))
    assert list(differences(stored, {"settings": {"x": value}})) == []


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (
            {"settings": {"training": {"steps": 600}}},
            {"settings": {"training": {"steps": 6}}},
            "setting training.steps changed: was 600, is 6",
        ),
        ({"settings": {"x": "1"}}, {"settings": {"x": 1}}, "setting x changed: was '1', is 1"),
        ({"settings": {}}, {"settings": {"x": 1}}, "setting x is new: 1"),
        ({"settings": {"x": 1}}, {}, "setting x is gone: was 1"),
        (
            {"files": {"data": DIGEST}},
            {"files": {"data": DIGEST[::-1]}},
            "data changed: sha256 was 0123456789ab…, is fedcba987654…",
        ),
        ({"files": {"data": DIGEST}}, {"files": {"data": None}}, "data is gone: was 0123456789ab…"),
        (
            {"upstream": {"graph/a": DIGEST}},
            {"upstream": {"graph/a": DIGEST[::-1]}},
            "graph/a changed: sha256 was 0123456789ab…, is fedcba987654…",
        ),
        (
            {"code": {"a.py": DIGEST}},
            {"code": {"a.py": DIGEST[::-1]}},
            "code of a.py changed: sha256 was 0123456789ab…, is fedcba987654…",
        ),
        ({"code": {}}, {"code": {"a.py": DIGEST}}, "code of a.py is new: 0123456789ab…"),
        (
            {"model": {"m.py": DIGEST}},
            {"model": {"m.py": DIGEST[::-1]}},
            "the model's file m.py changed: sha256 was 0123456789ab…, is fedcba987654…",
        ),
        ({"versions": {"numpy": "1"}}, {"versions": {"numpy": "2"}}, "numpy changed: version was '1', is '2'"),
    ],
)
def test_a_difference_is_a_sentence(before: dict[str, Any], now: dict[str, Any], sentence: str) -> None:
    assert list(differences(before, now)) == [sentence]


def test_code_that_was_recorded_by_its_bytes_is_the_same_code() -> None:
    """As artifacts of version 0.2 and before record it: an unchanged file must not make their stages run again."""
    now = CodeDigest("a" * 64, of_bytes="b" * 64)
    for then in ("a" * 64, "b" * 64):
        assert list(differences({"code": {"x.py": then}}, {"code": {"x.py": now}})) == []
    assert len(list(differences({"code": {"x.py": "c" * 64}}, {"code": {"x.py": now}}))) == 1


def test_a_kind_without_words_of_its_own_is_told_too() -> None:
    assert list(differences({"name": "spam"}, {"name": "ham"})) == ["name  changed: was 'spam', is 'ham'"]
