"""Nights under a URL: what is published counts, whatever host looks; `current` is a small object."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.errors import DamagedArtifact
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths, hold
from pipeline.store.remote import RemoteStore
from pipeline.tasks.nightly.history import Night, is_done, newest_passed, read_history, restore_current, write_history
from pipeline.tasks.nightly.paths import Nights
from pipeline.tasks.nightly.remote import RemoteNights, nights_of

FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"


class Bucket:
    """A folder that is reached by its URL, and hosts with mirrors of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "bucket" / "m"

    def host(self, name: str) -> Nights:
        remote = RemoteStore.at(f"file://{self.folder / 'bucket'}", "m")
        return nights_of(ArtifactPaths(self.folder / name, "m"), remote)

    def objects(self) -> list[str]:
        return sorted(path.relative_to(self.home).as_posix() for path in self.home.rglob("*") if path.is_file())

    def flip(self, file: str) -> None:
        path = self.home / file
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path)


def make_night(nights: Nights, night: str, model: bytes = b"model") -> None:
    """A night as one that passed leaves it, with one stage."""
    assert isinstance(nights, RemoteNights)
    paths, remote = nights.of(night), nights.remote.below(night)

    def make_model(folder: Path) -> dict[str, Any]:
        (folder / "model.pb").write_bytes(model)
        return {}

    def make_record(folder: Path) -> dict[str, Any]:
        told = dataclasses.asdict(Night(night, "passed"))
        noted = {"finished": "2026-01-31T02:30:00+00:00", "seconds": {}}
        record = {name: value for name, value in told.items() if name not in (*noted, "is_removed")}
        (folder / "record.json").write_text(json.dumps(record))
        return {"night": noted}

    made = artifact.build(paths, "frozen", lambda: {"settings": {"model": model.decode()}}, make_model)
    assert made.manifest is not None
    digest = made.manifest.files["model.pb"].sha256
    remote.push(paths, "frozen")
    if not paths.artifact("night").exists():
        artifact.build(paths, "night", lambda: {"upstream": {"frozen/model.pb": digest}}, make_record)
        remote.push(paths, "night")
    nights.refresh()


def test_every_host_sees_the_nights_that_were_published(bucket: Bucket) -> None:
    one, two = bucket.host("one"), bucket.host("two")
    assert (two.kept(), two.current, read_history(two)) == ([], None, {})
    make_night(one, FIRST)
    make_night(one, SECOND)
    write_history(one, read_history(one))
    one.set_current(SECOND)
    assert list(read_history(two)) == two.kept() == [FIRST, SECOND]
    assert [is_done(two, night) for night in (FIRST, SECOND, THIRD)] == [True, True, False]
    assert two.current == SECOND
    assert (bucket.home / "current").read_text() == f"{SECOND}\n"
    assert two.has(SECOND, "frozen/model.pb")
    assert (two.fetch(FIRST, "frozen") / "model.pb").read_bytes() == b"model"
    assert {path.partition("/")[0] for path in bucket.objects()} == {FIRST, SECOND, "current", "history.csv"}


def test_a_night_that_only_a_mirror_has_is_not_done(bucket: Bucket) -> None:
    one = bucket.host("one")
    make_night(one, FIRST)
    for name in bucket.objects():
        (bucket.home / name).unlink()
    assert not is_done(one, FIRST)
    assert read_history(one) == {}


def test_current_names_a_night_or_nothing(bucket: Bucket) -> None:
    one = bucket.host("one")
    make_night(one, FIRST)
    one.set_current(FIRST)
    for text in ("../../secret\n", "2026-01-0", "\udcff"):
        (bucket.home / "current").write_bytes(text.encode(errors="surrogateescape"))
        one.refresh()
        assert one.current is None
    one.set_current(FIRST)
    assert one.current == FIRST
    one.set_current(None)
    assert not (bucket.home / "current").exists()


def test_verify_follows_current_to_the_night_that_it_names(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"file://{bucket.home}"
    for night in (FIRST, SECOND):
        make_night(bucket.host("one"), night)
    bucket.host("one").set_current(FIRST)
    assert main(["verify", f"{url}/current/frozen"]) == 0
    assert f"{url}/{FIRST}/frozen: 1 files, every byte as it was finished" in capsys.readouterr().out
    bucket.flip(f"{FIRST}/frozen/model.pb")
    assert main(["verify", f"{url}/current/frozen"]) == 3
    (bucket.home / "current").write_text("../secret\n")
    assert main(["verify", f"{url}/current/frozen"]) == 3
    assert "it names no night (got '../secret'" in capsys.readouterr().err


def test_after_a_kill_before_current_was_written_the_next_start_writes_it(bucket: Bucket) -> None:
    one, two = bucket.host("one"), bucket.host("two")
    make_night(one, FIRST)
    restore_current(one)
    assert two.current == FIRST
    for night in (SECOND, THIRD):
        make_night(one, night)
    (bucket.home / THIRD / "frozen/model.pb").unlink()
    two.refresh()
    with hold(two.lock):  # a night is being made: it will do so itself
        restore_current(two)
    assert two.current == FIRST
    restore_current(two)
    assert two.current == SECOND


@pytest.mark.parametrize("host", ["one", "two"])
def test_a_changed_object_of_the_current_night_is_noticed_by_every_host(bucket: Bucket, host: str) -> None:
    for night in (FIRST, SECOND):
        make_night(bucket.host("one"), night)
    nights = bucket.host(host)
    nights.set_current(SECOND)
    bucket.flip(f"{SECOND}/frozen/model.pb")
    assert not is_done(nights, SECOND)
    assert newest_passed(nights, read_history(nights)) == FIRST


def test_a_changed_object_of_another_night_is_noticed_by_the_host_that_knows_it_and_by_a_full_check(
    bucket: Bucket,
) -> None:
    make_night(bucket.host("one"), FIRST)
    bucket.flip(f"{FIRST}/frozen/model.pb")
    assert not is_done(bucket.host("one"), FIRST)
    found = bucket.host("two").find_problem(FIRST, is_full=True)
    assert found is not None
    assert "frozen/model.pb: its bytes were changed after it was finished" in found


@pytest.mark.parametrize("damage", ["frozen/model.pb", "frozen/manifest.json", "night/manifest.json"])
def test_a_night_with_a_missing_object_is_not_done(bucket: Bucket, damage: str) -> None:
    make_night(bucket.host("one"), FIRST)
    (bucket.home / FIRST / damage).unlink()
    assert not is_done(bucket.host("two"), FIRST)


def test_a_night_whose_record_was_changed_has_failed(bucket: Bucket) -> None:
    make_night(bucket.host("one"), FIRST)
    text = (bucket.home / FIRST / "night/record.json").read_text()
    (bucket.home / FIRST / "night/record.json").write_text(text.replace('"reason": ""', '"reason": "."'))
    nights = bucket.host("two")
    with pytest.raises(DamagedArtifact, match="a night's record cannot be read"):
        nights.read_record(FIRST)
    assert read_history(nights)[FIRST].verdict == "failed"


def test_a_copy_of_a_night_is_no_night_of_another_day(bucket: Bucket) -> None:
    make_night(bucket.host("one"), FIRST)
    shutil.copytree(bucket.home / FIRST, bucket.home / SECOND)
    nights = bucket.host("two")
    assert not is_done(nights, SECOND)
    assert "the record of 2026-01-01" in read_history(nights)[SECOND].reason
    assert newest_passed(nights, read_history(nights)) == FIRST


def test_a_night_that_was_made_again_and_not_to_its_end_is_not_done(bucket: Bucket) -> None:
    one = bucket.host("one")
    make_night(one, FIRST)
    make_night(one, FIRST, b"another model, which nothing has proven")
    assert not is_done(bucket.host("two"), FIRST)
    assert newest_passed(one, read_history(one)) is None


def test_a_removed_night_is_gone_everywhere_and_stays_done(bucket: Bucket) -> None:
    one, two = bucket.host("one"), bucket.host("two")
    for night in (FIRST, SECOND):
        make_night(one, night)
    two.fetch(FIRST, "frozen")
    two.set_current(SECOND)
    assert two.outdated(1) == [FIRST]
    history = read_history(two)
    write_history(two, {**history, FIRST: dataclasses.replace(history[FIRST], is_removed=True)})
    two.remove(FIRST)
    assert not any(path.startswith(FIRST) for path in bucket.objects())
    assert not two.of(FIRST).home.exists()
    one.refresh()
    one.sweep([FIRST, SECOND])
    assert not one.of(FIRST).home.exists()
    assert one.of(SECOND).home.exists()
    assert is_done(one, FIRST)


def test_a_night_with_somebody_elses_objects_is_not_removed(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    one = bucket.host("one")
    make_night(one, FIRST)
    (bucket.home / FIRST / "notes.txt").write_text("mine")
    one.refresh()
    before = bucket.objects()
    one.remove(FIRST)
    assert bucket.objects() == before
    assert "is not removed: it holds files that the pipeline did not make" in caplog.text


def test_an_object_whose_key_is_no_path_is_no_part_of_a_night(bucket: Bucket) -> None:
    one = bucket.host("one")
    make_night(one, FIRST)
    objects = {**one.listing.objects, f"{FIRST}/../manifest.json": (2, ""), f"{FIRST}//manifest.json": (2, "")}
    one._looks[:] = [dataclasses.replace(one.listing, objects=objects)]
    assert one.find_problem(FIRST) is None
