"""A candidate's format is detected by its content; the error for any other file says what it seems to be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import candidates
import pytest
import tensorflow as tf

from pipeline.errors import CandidateError
from pipeline.formats.external.detect import DetectedFormat, detect_format
from pipeline.freezing.freeze import freeze

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return candidates.save(tmp_path_factory.mktemp("saved") / "model.ckpt-3")


@pytest.fixture(scope="module")
def pb(prefix: Path) -> Path:
    return candidates.write_pb(candidates.frozen_graph(prefix), prefix.parent / "production" / "export.bin")


def test_a_frozen_graph_is_known_whatever_its_suffix(pb: Path, tmp_path: Path) -> None:
    assert detect_format(pb) == DetectedFormat("frozen", pb)
    other = shutil.copy(pb, tmp_path / "model.tflite")
    assert detect_format(Path(other)).format == "frozen"


def test_folders_are_known_by_their_files(prefix: Path, pb: Path, tmp_path: Path) -> None:
    freeze(prefix, ["y"], format="mmap", to=tmp_path / "mapped")
    assert detect_format(tmp_path / "mapped") == DetectedFormat("mmap", tmp_path / "mapped")
    served = candidates.write_module(tmp_path / "served")
    assert detect_format(served) == detect_format(served / "saved_model.pb") == DetectedFormat("savedmodel", served)
    (tmp_path / "artifact").mkdir()
    shutil.copy(pb, tmp_path / "artifact" / "model.pb")
    assert detect_format(tmp_path / "artifact") == DetectedFormat("frozen", tmp_path / "artifact" / "model.pb")


def test_a_tflite_file_is_known_by_its_identifier(tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    assert detect_format(tmp_path / "model.pb").format == "tflite"


def test_an_onnx_model_is_known_by_its_fields(tmp_path: Path) -> None:
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "graph", [x], [y])
    for name in ("model.pb", "model.onnx"):
        onnx.save(onnx.helper.make_model(graph), tmp_path / name)
        assert detect_format(tmp_path / name).format == "onnx"


Make = Callable[[Path, Path, Path], Path]


def written(content: bytes, name: str = "model.pb") -> Make:
    def make(folder: Path, prefix: Path, pb: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut(share: float) -> Make:
    return lambda folder, prefix, pb: written(pb.read_bytes()[: int(pb.stat().st_size * share)])(folder, prefix, pb)


def as_text(folder: Path, prefix: Path, pb: Path) -> Path:
    graph = v1.GraphDef.FromString(pb.read_bytes())
    return Path(tf.io.write_graph(graph, str(folder), "model.pb", as_text=True))


def renamed_saved_model(folder: Path, prefix: Path, pb: Path) -> Path:
    candidates.write_module(folder / "served")
    return Path(shutil.copy(folder / "served" / "saved_model.pb", folder / "model.pb"))


def renamed_index(folder: Path, prefix: Path, pb: Path) -> Path:
    return Path(shutil.copy(f"{prefix}.index", folder / "model.pb"))


def renamed_graph(folder: Path, prefix: Path, pb: Path) -> Path:
    """Writes a checkpoint's graph without its Saver: a message whose fields a GraphDef may have too."""
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    bare = v1.MetaGraphDef(meta_info_def=meta.meta_info_def, graph_def=meta.graph_def)
    return written(bare.SerializeToString())(folder, prefix, pb)


def folder_with(name: str) -> Make:
    def make(folder: Path, prefix: Path, pb: Path) -> Path:
        (folder / "release").mkdir()
        if name:
            (folder / "release" / name).write_text("version 3")
        return folder / "release"

    return make


REFUSED: dict[str, tuple[Make, str]] = {
    "nothing": (lambda folder, prefix, pb: folder / "model.pb", "there is no such candidate"),
    "a page": (written(b"<!DOCTYPE html><html>"), "got an HTML page"),
    "a pointer": (written(b"version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer.*git lfs pull"),
    "an empty file": (written(b""), "got an empty file"),
    "an archive": (written(b"PK\x03\x04" + bytes(30)), "got a ZIP archive.*damaged.*again"),
    "a letter": (written(b"Dear all, the model is attached."), "got a text that begins with 'Dear all, the mo'"),
    "zeros": (written(bytes(2000)), "got a file of zeros"),
    "half a graph": (
        cut(0.5),
        "the candidate is cut off .got a GraphDef, a field that begins at byte .*Copy the whole",
    ),
    "nearly a graph": (cut(0.99), "the candidate is cut off"),
    "the beginning of a node": (written(b"\n\x20\n\x01x\x12\x0bPlaceholder"), "cut off .got a GraphDef"),
    "a graph as text": (as_text, "got a graph written as text.*binary .pb"),
    "a prefix": (lambda folder, prefix, pb: prefix, "got a checkpoint.*give it with --checkpoint"),
    "its folder": (lambda folder, prefix, pb: prefix.parent, "got a checkpoint"),
    "its index": (lambda folder, prefix, pb: Path(f"{prefix}.index"), "got a checkpoint"),
    "its data": (lambda folder, prefix, pb: Path(f"{prefix}.data-00000-of-00001"), "got a checkpoint"),
    "its graph": (
        lambda folder, prefix, pb: Path(f"{prefix}.meta"),
        "the graph of a checkpoint .* without its weights",
    ),
    "its index under another name": (renamed_index, "got a checkpoint"),
    "its graph under another name": (renamed_graph, "the graph of a checkpoint .* without its weights"),
    "a lone message": (renamed_saved_model, "saved_model.pb of a SavedModel under another name.*Give its folder"),
    "an empty folder": (folder_with(""), "no model is in this folder .got an empty folder"),
    "another folder": (folder_with("VERSION"), "no model is in this folder .got VERSION"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused_by_what_it_is(case: str, tmp_path: Path, prefix: Path, pb: Path) -> None:
    make, said = REFUSED[case]
    place = make(tmp_path, prefix, pb)
    with pytest.raises(CandidateError, match=said) as raised:
        detect_format(place)
    assert str(tmp_path) in str(raised.value) or str(prefix.parent) in str(raised.value)
