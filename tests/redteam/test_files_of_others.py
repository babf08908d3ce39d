"""A model reads only its own files: no link, no path and no pipe leads a candidate or a checkpoint to another file."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redteam
from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.errors import CandidateError, CheckpointError, DataError, PipelineError, StoreError, UnsafeModel
from pipeline.formats.external.detect import detect_format
from pipeline.freezing import freeze
from pipeline.graph.lazy import load_lazily
from pipeline.graph.protos import GraphDef
from pipeline.hashing import hash_file
from pipeline.inputs import open_file
from pipeline.safety.tflite import find_dangers
from pipeline.tasks.chain.plan import Chain
from pipeline.validation.compare.weights import _CandidateConstants
from redteam.test_redteam import adopt, job_for, large, nothing_runs, onnx_model

__all__ = ["nothing_runs"]  # a fixture
pytestmark = pytest.mark.usefixtures("nothing_runs", "soon")


@pytest.fixture
def soon() -> Iterator[None]:
    """Ends what waits at a pipe."""

    def end(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(bytes(8))
    return path


# ONNX: tensors whose values lie in other files.


def test_external_data_of_onnx_behind_a_link_is_refused(secret: Path, tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "in", location="w.bin")
    (tmp_path / "in" / "w.bin").symlink_to(secret)
    with pytest.raises(UnsafeModel, match=r"tensor w lies behind a link that leads out of the model's folder .*secret"):
        adopt(tmp_path, model)


def test_external_data_of_onnx_in_a_linked_folder_is_refused(secret: Path, tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "in", location="data/secret")
    (tmp_path / "in" / "data").symlink_to(tmp_path)
    with pytest.raises(UnsafeModel, match="tensor w lies behind a link"):
        adopt(tmp_path, model)


def test_external_data_of_onnx_may_lie_behind_a_link_within_the_folder(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "in", location="w.bin")
    (tmp_path / "in" / "w").write_bytes(redteam.W)
    (tmp_path / "in" / "w.bin").symlink_to("w")
    adopt(tmp_path, model)
    made = tmp_path / "out" / "stranger" / "candidate" / "w.bin"
    assert made.read_bytes() == redteam.W
    assert not made.is_symlink()


@pytest.mark.parametrize("name", ["model.onnx", "./model.onnx", "signature.json", "manifest.json"])
def test_external_data_of_onnx_replaces_no_file_of_the_artifact(name: str, tmp_path: Path) -> None:
    """Under the name `model.onnx` another model, which nothing has checked, would be run in place of this one."""
    model = onnx_model(tmp_path / "in", location=name)
    model.rename(tmp_path / "in" / "checked.onnx")
    shutil.copyfile(tmp_path / "in" / "checked.onnx", tmp_path / "in" / Path(name).name)
    with pytest.raises(UnsafeModel, match="could replace files: tensor w lies in one of another purpose"):
        adopt(tmp_path, tmp_path / "in" / "checked.onnx")


@pytest.mark.parametrize("name", ["*/_ORT_MEM_ADDR_/*", "a\nb", ".", "a/../../secret", "..", "\\\\host\\share"])
def test_external_data_of_onnx_has_the_name_of_a_file(name: str, tmp_path: Path) -> None:
    """The first is how onnxruntime writes an address in memory."""
    with pytest.raises(UnsafeModel, match="tensor w lies outside of the model's folder"):
        adopt(tmp_path, onnx_model(tmp_path / "in", location=name))


def test_external_data_of_onnx_in_a_pipe_is_refused(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "in", location="w.bin")
    os.mkfifo(tmp_path / "in" / "w.bin")
    with pytest.raises(UnsafeModel, match="a pipe, a device or a socket in place of a file"):
        adopt(tmp_path, model)


# The format mmap: nodes that name files of weights.


def mapped(tmp_path: Path, name: str) -> Path:
    """A folder of the format mmap whose weights are said to lie elsewhere."""
    place = redteam.checkpoint(tmp_path / "large", large(), length=1 << 15)
    folder = freeze.freeze(place, ["y"], to=tmp_path / "mapped", format="mmap").path
    graph = GraphDef.FromString((folder / "graph.pb").read_bytes())
    [node] = [node for node in graph.node if node.op == "ImmutableConst"]
    node.attr["memory_region_name"].s = name.encode()
    (folder / "graph.pb").write_bytes(graph.SerializeToString())
    return folder


@pytest.mark.parametrize(
    "name", ["../secret", "weights/../../secret", "/etc/passwd", "", "graph.pb", "weights", "..\\secret", "weights/\0"]
)
def test_mapped_weights_are_named_within_their_folder(name: str, secret: Path, tmp_path: Path) -> None:
    with pytest.raises((UnsafeModel, CandidateError), match=r"graph\.pb: .*node w/mapped "):
        adopt(tmp_path, mapped(tmp_path, name))


def test_the_proof_of_weights_reads_no_file_elsewhere(secret: Path, tmp_path: Path) -> None:
    folder = mapped(tmp_path, "/dev/zero")
    constants = _CandidateConstants(folder)
    with pytest.raises(DataError, match="could read files: node w/mapped lies outside of the model's folder"):
        constants.content(constants.nodes["w/mapped"])


def test_weights_of_a_tflite_lie_in_itself(tmp_path: Path) -> None:
    path = redteam.tflite(tmp_path / "model.tflite", "FlexAbs", weights="/etc/passwd")
    with pytest.raises(UnsafeModel, match=r"its weights lie in another file .got '/etc/passwd'"):
        adopt(tmp_path, path)


# SavedModels, and folders with a candidate.


@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "variables/variables.data-00000-of-00001"])
def test_the_files_of_a_saved_model_are_its_own(name: str, tmp_path: Path) -> None:
    redteam.saved_model(tmp_path / "other")
    place = redteam.saved_model(tmp_path / "in")
    (shutil.rmtree if (place / name).is_dir() else os.remove)(place / name)
    (place / name).symlink_to(tmp_path / "other" / name)
    with pytest.raises(UnsafeModel, match=rf"{name}: a link leads out of the model's folder"):
        Chain(job_for(tmp_path, place)).build("checkpoint")
    with pytest.raises(UnsafeModel, match=rf"{name}: a link leads out of the model's folder"):
        adopt(tmp_path, place)


@pytest.mark.parametrize("name", ["assets", "assets/words.txt", "variables/more", "notes/deep"])
def test_a_pipe_in_a_saved_model_is_refused(name: str, tmp_path: Path) -> None:
    place = redteam.saved_model(tmp_path / "in", assets=["words.txt"])
    (place / name).parent.mkdir(exist_ok=True)
    os.mkfifo(place / name)
    with pytest.raises(UnsafeModel, match=rf"{name}: this model could stall the process: a pipe"):
        Chain(job_for(tmp_path, place)).build("checkpoint")


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    place = redteam.saved_model(tmp_path / "in")
    (place / "loop").symlink_to("loop")
    with pytest.raises(UnsafeModel, match="a link leads nowhere"):
        Chain(job_for(tmp_path, place)).build("checkpoint")


@pytest.mark.parametrize("name", ["model.pb", "model.tflite", "model.onnx"])
def test_the_model_in_a_folder_is_the_folders_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).symlink_to("/etc/passwd")
    with pytest.raises(UnsafeModel, match=rf"{name}: a link leads out of the model's folder .got /etc/passwd"):
        detect_format(tmp_path / "in")


# Pipes: whoever opens one would wait for ever.


def as_index(path: Path) -> Path:
    path.rename(path.parent / "model.index")
    return path.parent / "model"


def as_data(path: Path) -> Path:
    prefix = redteam.checkpoint(path.parent)
    os.remove(f"{prefix}.data-00000-of-00001")
    path.rename(f"{prefix}.data-00000-of-00001")
    return prefix


def as_state_file(path: Path) -> Path:
    path.rename(path.parent / "checkpoint")
    return path.parent


def as_meta(path: Path) -> Path:
    prefix = redteam.checkpoint(path.parent)
    os.remove(f"{prefix}.meta")
    path.rename(f"{prefix}.meta")
    return prefix


def of_freezing(place: Path) -> Any:
    return freeze.freeze(place, ["y"])


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Path]]] = {
    "any": (open_file, Path),
    "hash": (hash_file, Path),
    "candidate": (detect_format, Path),
    "graph": (load_lazily, Path),
    "flatbuffer": (find_dangers, Path),
    "index": (open_checkpoint, as_index),
    "data": (open_checkpoint, as_data),
    "data, found": (of_freezing, as_data),
    "state": (of_freezing, as_state_file),
    "meta": (of_freezing, as_meta),
    "prefix": (of_freezing, Path),
    "checkpoint": (open_checkpoint, Path),
}


@pytest.mark.parametrize("case", READERS)
def test_nothing_waits_at_a_pipe(case: str, tmp_path: Path) -> None:
    reader, prepare = READERS[case]
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe")
    with pytest.raises((OSError, CheckpointError, CandidateError, DataError, StoreError)) as caught:
        reader(prepare(tmp_path / "in" / "pipe"))
    assert not isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "/dev"])
def test_devices_and_folders_are_no_files(place: str) -> None:
    with pytest.raises(OSError, match="not a file but a "):
        open_file(place)
    with pytest.raises((PipelineError, OSError)):
        load_lazily(Path(place))
