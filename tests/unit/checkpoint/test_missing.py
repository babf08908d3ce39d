"""What people give in place of a checkpoint: the first sentence says what it is, and what to do with it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_graphs

from pipeline.cli import main
from pipeline.errors import CheckpointError
from pipeline.freezing.freeze import freeze
from pipeline.freezing.inspection import inspect
from pipeline.graph.protos import SavedModel
from pipeline.tasks.external import ExistingCheckpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5000\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint, by the ending of their names."""
    folder = tmp_path_factory.mktemp("kept")
    small_graphs.save(folder / "model.ckpt")
    return {path.name.removeprefix("model.ckpt"): path.read_bytes() for path in folder.glob("model.ckpt*")}


def told(place: Path) -> str:
    """The sentence, which freezing and inspecting say alike."""
    sentences = set()
    for command in (freeze, inspect):
        with pytest.raises(CheckpointError) as caught:
            command(place)
        sentences.add(str(caught.value))
    assert len(sentences) == 1
    return sentences.pop()


DATA, INDEX, META = ".data-00000-of-00001", ".index", ".meta"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([META], r"model\.ckpt\.meta: only the graph .* Copy model\.ckpt\.index and model\.ckpt\.data-… into"),
        ([DATA], r"model\.ckpt\.index: the index of the checkpoint is missing.* Copy model\.ckpt\.index into"),
        ([DATA, META], r"model\.ckpt\.index: the index of the checkpoint is missing.* Copy model\.ckpt\.index into"),
        ([INDEX, META], r"model\.ckpt\.data-00000-of-00001: .* missing.* Copy model\.ckpt\.data-"),
        ([], r"no checkpoint in this folder \(got an empty folder"),
    ],
)
def test_of_half_a_checkpoint_is_said_which_half_is_there(
    kept: dict[str, bytes], tmp_path: Path, files: list[str], says: str
) -> None:
    for ending in files:
        (tmp_path / f"model.ckpt{ending}").write_bytes(kept[ending])
    with pytest.raises(CheckpointError, match=says):
        freeze(tmp_path)
    assert told(tmp_path)
    for place in ["model.ckpt", *(f"model.ckpt{ending}" for ending in files)] if files else []:
        sentence = told(tmp_path / place)
        assert "missing" in sentence or "only the graph" in sentence


@pytest.mark.parametrize("ending", [DATA, INDEX, META])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_pointer_of_git_lfs_is_told_by_the_folder_as_by_the_prefix(
    kept: dict[str, bytes], tmp_path: Path, ending: str, is_folder: bool
) -> None:
    for name, content in kept.items():
        (tmp_path / f"model.ckpt{name}").write_bytes(content if name != ending else POINTER.encode())
    sentence = told(tmp_path if is_folder else tmp_path / "model.ckpt")
    assert sentence.startswith(f"{tmp_path}/model.ckpt{ending}: a Git LFS pointer")
    assert sentence.endswith(f"cd {tmp_path} && git lfs pull")


def test_a_state_file_that_points_elsewhere_gives_the_path(kept: dict[str, bytes], tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (here / "checkpoint").write_text(f'model_checkpoint_path: "{there}/model.ckpt"\n')
    assert f"not there either: copy model.ckpt.index, .data-… and .meta into {here}" in told(here)
    for ending, content in kept.items():
        (there / f"model.ckpt{ending}").write_bytes(content)
    assert told(here).endswith(f"Give that one: {there}/model.ckpt")
    assert freeze(f"{there}/model.ckpt", ["y"], to=tmp_path).variables == 2
    assert told(here / "checkpoint") == told(here)
    (there / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    assert freeze(there / "checkpoint", ["y"], to=tmp_path).variables == 2


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, arcname="export/saved_model.pb")


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "spam.pt": (lambda path: _zip(path, "archive/data.pkl", "archive/data/0"), "a PyTorch file"),
    "spam.ckpt": (lambda path: _zip(path, "epoch=3/data.pkl", "epoch=3/version"), "a PyTorch file"),
    "spam.pkl": (lambda path: path.write_bytes(pickle.dumps([1], 4)), "a Python pickle"),
    "spam.npz": (lambda path: np.savez(path, w=np.ones(2)), "a NumPy file"),
    "model.json": (lambda path: path.write_text('{\n "modelTopology": {}}'), "a TensorFlow.js model"),
    "arch.json": (
        lambda path: path.write_text(json.dumps({"class_name": "Sequential", "config": {}})),
        "the architecture of a Keras model, without weights",
    ),
    "spam.pb": (lambda path: path.write_text("<!DOCTYPE html><html>sign in</html>"), "an HTML page"),
    "spam.onnx": (lambda path: path.write_bytes(b"\x08\x08\x12\x04test" + b"\0" * 60), "an ONNX model"),
    "spam.tgz": (_tar, "a gzip archive"),
    "spam.zip": (lambda path: _zip(path, "export/1/saved_model.pb", "export/1/variables/x"), "a ZIP archive"),
    "labels.txt": (lambda path: path.write_text("spam\neggs\n"), r"a text that begins with 'spam\neggs\n'"),
    "events.out.tfevents.1": (
        lambda path: path.write_bytes(bytes(24) + b"brain.Event:2" + bytes(60)),
        "TensorBoard's events",
    ),
    "empty.index": (lambda path: path.write_bytes(b""), "an empty file"),
    **{
        f"pointer.{ending}": (lambda path: path.write_text(POINTER), "a Git LFS pointer")
        for ending in ("pb", "pbtxt", "meta", "index", "keras", "h5", "tflite", "onnx", "npz")
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    write, kind = FOREIGN[name]
    write(tmp_path / name)
    assert told(tmp_path / name).partition(": ")[2].startswith(f"{kind} in place of")


@pytest.mark.parametrize("name", ["spam.tgz", "spam.zip"])
def test_the_command_that_unpacks_an_archive_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    FOREIGN[name][0](folder / name)
    sentence = told(folder / name)
    command = (
        sentence.partition("Unpack it")[2].lstrip(" (,").removeprefix("and give what is in it: ").partition(") and")
    )
    done = subprocess.run(command[0].replace("python", sys.executable), shell=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    [unpacked] = folder.rglob("saved_model.pb")
    if name == "spam.zip":
        assert sentence.endswith(f"give {unpacked.parent}")


def test_a_path_that_is_not_there_is_told_with_what_is_near(kept: dict[str, bytes], tmp_path: Path) -> None:
    for ending, content in kept.items():
        (tmp_path / f"model.ckpt{ending}").write_bytes(content)
    assert told(tmp_path / "model.cpkt").endswith(f"no such checkpoint. Did you mean {tmp_path}/model.ckpt?")
    (tmp_path / "runs" / "spam.keras").parent.mkdir()
    (tmp_path / "runs" / "spam.keras").write_bytes(b"")
    assert f"and no such folder. Did you mean {tmp_path}/runs?" in told(tmp_path / "rnus" / "model.ckpt")
    assert told(tmp_path / "runs" / "eggs").endswith(f"In {tmp_path}/runs are spam.keras")
    place = tmp_path / "model.cpkt"
    assert ExistingCheckpoint(path=str(place)).find_problem(place) == told(place)


def test_a_file_of_tensorflow_under_another_name_is_told_by_its_content(kept: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "spam.pb").write_bytes(kept[META])
    assert "the graph of a Saver, under the name of another kind" in told(tmp_path / "spam.pb")
    (tmp_path / "spam.pb").write_bytes(kept[INDEX])
    assert told(tmp_path / "spam.pb").endswith("Call it spam.index, beside spam.data-…")
    message = SavedModel()
    message.meta_graphs.add().graph_def.node.add(name="x", op="NoOp")
    (tmp_path / "spam.pb").write_bytes(message.SerializeToString())
    assert "Call it saved_model.pb, in a folder with variables/" in told(tmp_path / "spam.pb")
    (tmp_path / "labels.pbtxt").write_text("item { id: 1 }")
    assert "a text that holds no graph" in told(tmp_path / "labels.pbtxt")


def test_of_a_shard_that_is_missing_the_folder_says_which(kept: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(kept[INDEX])
    (tmp_path / "model.ckpt.data-00000-of-00002").write_bytes(b"bytes")
    assert "Copy model.ckpt.data-00001-of-00002 beside the others" in told(tmp_path)
    (tmp_path / "model.ckpt.data-00001-of-00002").write_bytes(b"")
    (tmp_path / "model.ckpt.index").write_bytes(b"")
    assert told(tmp_path).startswith(f"{tmp_path}/model.ckpt.index: an empty file")


def test_a_pipe_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: a pipe, a device or a socket in place of a checkpoint. Write its content" in told(tmp_path / "pipe")


def test_a_saved_model_without_its_graph_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "variables").mkdir()
    assert main(["freeze", str(tmp_path)]) == 3
    assert "this SavedModel's saved_model.pb is missing" in capsys.readouterr().err
