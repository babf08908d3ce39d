"""What a task of ours gives to the tasks that require it: a folder, or what is published under a URL."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import luigi
import pytest

from pipeline.errors import StoreError
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.remote import RemoteStore
from pipeline.tasks.batch.task import ConvertBatch
from pipeline.tasks.model import FreezeModel, MakeFormat, ModelTask, ValidateModel, WriteReport
from pipeline.tasks.nightly.task import NightlyRun
from pipeline.tasks.remote_targets import ArtifactTarget

FILES = {"model.pb": b"\0weights", "more/notes.txt": "Übung".encode()}


def publish(root: str, mirror: Path, files: Mapping[str, bytes] = FILES) -> None:
    """The artifact `frozen` of a model, as its task leaves it."""

    def make(folder: Path) -> Mapping[str, Any]:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return {}

    paths = ArtifactPaths(mirror, "multiply_add")
    artifact.build(paths, "frozen", lambda: {"settings": {"a": 1}}, make)
    RemoteStore.at(root, "multiply_add").push(paths, "frozen")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'bucket'}"


class Deploy(luigi.Task):
    """A task of somebody else, on a host without a mirror."""

    root = luigi.Parameter()
    read: tuple[str, bytes] = ("", b"")

    def requires(self) -> luigi.Task:
        return FreezeModel(model="multiply_add", output_root=self.root)

    def run(self) -> None:
        artifact = self.input()
        with artifact.open("r", "more/notes.txt") as text, artifact.open("rb", "model.pb") as model:
            Deploy.read = (text.read(), model.read())


def test_a_task_on_another_host_reads_what_was_published(root: str, tmp_path: Path) -> None:
    task = Deploy(root=root)
    target = pickle.loads(pickle.dumps(task.input()))
    assert target.path == f"{root}/multiply_add/frozen"
    assert not target.exists()
    publish(root, tmp_path / "mirror")
    assert target.exists()
    task.run()
    assert Deploy.read == ("Übung", b"\0weights")
    assert '"stage": "frozen"' in target.open().read()
    assert sorted(target.fs.listdir(target.path)) == [
        f"{target.path}/{name}" for name in (MANIFEST_FILE, "model.pb", "more/notes.txt")
    ]


def tasks(root: str, manifest: Path) -> Iterator[tuple[ModelTask | ConvertBatch, str]]:
    model = {"model": "multiply_add", "output_root": root}
    yield FreezeModel(**model), "multiply_add/frozen"
    yield MakeFormat(**model, format="tflite"), "multiply_add/tflite"
    yield ValidateModel(**model), "multiply_add/validation"
    yield WriteReport(**model), "multiply_add/report"
    yield NightlyRun(**model, date=date(2026, 1, 2)), "multiply_add/2026-01-02/night"
    yield ConvertBatch(manifest=str(manifest), output_root=root), "batch/list"


def test_every_output_lies_under_the_output_root(root: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,checkpoint\n")
    for task, place in tasks(root, tmp_path / "list.csv"):
        assert isinstance(task.output(), ArtifactTarget)
        assert task.output().path == f"{root}/{place}"
    for task, place in tasks(str(tmp_path / "output"), tmp_path / "list.csv"):
        assert isinstance(task.output(), luigi.LocalTarget)
        assert task.output().path == f"{tmp_path}/output/{place}"


@pytest.mark.parametrize("damage", [None, b"short", b'"stage": "thawed"'])
def test_what_is_not_finished_is_not_there(root: str, tmp_path: Path, damage: bytes | None) -> None:
    publish(root, tmp_path / "mirror")
    target = FreezeModel(model="multiply_add", output_root=root).output()
    folder = tmp_path / "bucket" / "multiply_add" / "frozen"
    if damage is None:  # an upload that was killed
        (folder / MANIFEST_FILE).unlink()
    elif damage.startswith(b'"'):
        text = (folder / MANIFEST_FILE).read_bytes()
        (folder / MANIFEST_FILE).write_bytes(text.replace(b'"stage": "frozen"', damage))
    else:
        (folder / "model.pb").write_bytes(damage)
    assert not target.exists()


def test_an_artifact_is_read_by_the_names_of_its_manifest_and_never_written(root: str, tmp_path: Path) -> None:
    target = FreezeModel(model="multiply_add", output_root=root).output()
    with pytest.raises(StoreError, match="not finished"):
        target.open("rb", "model.pb")
    publish(root, tmp_path / "mirror")
    with pytest.raises(StoreError, match=r"no such file \(got model.pd\). Did you mean 'model.pb'"):
        target.open("rb", "model.pd")
    (tmp_path / "bucket" / "secret").write_text("not of the artifact")
    with pytest.raises(StoreError, match="no such file"):
        target.open("r", "../../secret")
    with pytest.raises(StoreError, match="an artifact is only read"):
        target.open("w")
    target.remove()
    assert not target.exists()
    assert [path for path in (tmp_path / "bucket/multiply_add").rglob("*") if path.is_file()] == []
