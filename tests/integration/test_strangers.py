"""Models by strangers: their checkpoints freeze to what a session restores from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import candidates
import corpus
import numpy as np
import pytest
import tensorflow as tf
from test_audit import job_for, verdict_of

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.errors import CandidateError

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT.parent / "shared" / "models"

HEADS = [
    f"face_rpn_{head}:0"
    for stride in (8, 16, 32)
    for head in (f"cls_score_stride{stride}", f"bbox_pred_stride{stride}_rev", f"landmark_pred_stride{stride}_rev")
]


def model(name: str) -> Path:
    """A stranger's folder, or the end of the test."""
    folder = MODELS / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not here")
    return folder


def values(*shape: int) -> Array:
    return np.random.default_rng(7).uniform(0, 1, shape).astype(np.float32)


def restored(prefix: Path, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """What a session gives that ran the graph's own restoring."""
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    for node in meta.graph_def.node:
        node.attr.pop("_output_shapes", None)  # stale ones are not imported
        node.device = ""
    saver = meta.saver_def
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=corpus.plain()) as session:
        tf.import_graph_def(meta.graph_def, name="")
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(prefix)})
        return [np.asarray(answer) for answer in session.run(list(outputs), feeds)]


def frozen(prefix: Path, outputs: Sequence[str], inputs: Sequence[str], folder: Path) -> bytes:
    return corpus.by_us(prefix, outputs, inputs, folder / "model.pb")


def agree(prefix: Path, outputs: Sequence[str], feeds: Mapping[str, Array], folder: Path) -> bytes:
    """Freezes, and makes sure that the .pb gives to the bit what the session gives."""
    pb = frozen(prefix, outputs, list(feeds), folder)
    wanted = restored(prefix, outputs, feeds)
    assert corpus.is_same(corpus.answers_of(pb, outputs, feeds), wanted)
    assert all(np.isfinite(array).all() and array.std() > 0 for array in wanted)
    return pb


def ops_of(pb: bytes) -> set[str]:
    return {node.op for node in v1.GraphDef.FromString(pb).node}


def test_an_image_classifier_of_tensorflow_1_3_freezes_without_its_optimizer(tmp_path: Path) -> None:
    prefix = model("animal-classifier-v4") / "classifier-model-v4"
    pb = agree(prefix, ["y_pred:0"], {"x:0": values(2, 128, 128, 3)}, tmp_path)
    assert not ops_of(pb) & {"VariableV2", "Assign", "ApplyAdam", "RestoreV2", "SaveV2"}
    constants = [node for node in v1.GraphDef.FromString(pb).node if node.op == "Const" and "Adam" in node.name]
    assert not constants


def test_a_face_detector_gives_what_its_author_froze(tmp_path: Path) -> None:
    folder = model("retinaface-mnet")
    image = {"data:0": values(1, 1080, 1920, 3) * 255}
    pb = frozen(folder / "mnet.25-1080x1920", HEADS, list(image), tmp_path)
    [author] = folder.glob("*.pb")
    theirs = author.read_bytes()
    for ours, wanted in zip(corpus.answers_of(pb, HEADS, image), corpus.answers_of(theirs, HEADS, image), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5, strict=True)


def test_the_variables_of_a_face_detector_are_the_constants_that_its_author_froze() -> None:
    folder = model("retinaface-mnet")
    bundle = open_checkpoint(folder / "mnet.25-1080x1920")
    [author] = folder.glob("*.pb")
    theirs = {n.name: n for n in v1.GraphDef.FromString(author.read_bytes()).node if n.op == "Const"}
    shared = theirs.keys() & bundle.tensors.keys()
    assert len(shared) > 100
    for name in shared:
        np.testing.assert_array_equal(bundle.read(name), tf.make_ndarray(theirs[name].attr["value"].tensor))


def test_a_linear_regression_gives_what_its_author_froze(tmp_path: Path) -> None:
    folder, feeds = model("linear-regression"), {"X:0": values(5)}
    pb = agree(folder / "checkpoint" / "model", ["pred:0"], feeds, tmp_path)
    theirs = (folder / "graphdef" / "frozen.pb").read_bytes()
    assert corpus.is_same(corpus.answers_of(pb, ["pred:0"], feeds), corpus.answers_of(theirs, ["pred:0"], feeds))


def test_a_checkpoint_of_the_first_format_with_the_first_variables_freezes_with_its_weights(tmp_path: Path) -> None:
    prefix = model("old-variable-op") / "export"
    pb = agree(prefix, ["Add:0"], {"Placeholder:0": values(4)}, tmp_path)
    assert "Variable" not in ops_of(pb)


def test_normalization_in_a_branch_freezes_although_its_graph_has_stale_shapes(tmp_path: Path) -> None:
    model("batchnorm-in-cond")
    # Channels first run on a CPU only with oneDNN, which a process takes or leaves when it loads TensorFlow.
    subprocess.run(
        [sys.executable, "-c", "import sys, test_strangers; test_strangers.normalize(sys.argv[1])", str(tmp_path)],
        env={
            **os.environ,
            "TF_ENABLE_ONEDNN_OPTS": "1",
            "PYTHONPATH": os.pathsep.join(
                map(str, [ROOT, ROOT / "tests", ROOT / "tests/helpers", ROOT / "tests/integration"])
            ),
        },
        check=True,
    )


def normalize(folder: str) -> None:
    """The test of normalization in a branch, in a process of its own."""
    prefix = MODELS / "batchnorm-in-cond" / "regular_model"
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    [given] = [node for node in meta.graph_def.node if node.name == "input"]
    sizes = [size if size > 0 else 2 for size in (dim.size for dim in given.attr["shape"].shape.dim)]
    for is_training in (False, True):
        feeds = {"input:0": values(*sizes), "is_training:0": np.array(is_training)}
        agree(prefix, ["fc1/BiasAdd:0"], feeds, Path(folder))


def audited(
    root: Path, checkpoint: Path, place: Path, checks: str = "weights,equal,generated,stable"
) -> dict[str, Any]:
    """The verdict on a pair."""
    return verdict_of(job_for(root, checkpoint, place, checks))


def test_a_face_detector_in_production_is_its_checkpoint(tmp_path: Path) -> None:
    folder = model("retinaface-mnet")
    [author] = folder.glob("*.pb")
    verdict = audited(tmp_path / "out", folder / "mnet.25-1080x1920", author, "weights,equal")
    assert verdict["verdict"] == "passed", verdict["reasons"]
    outputs = {check["output"] for check in verdict["checks"] if check["check"] == "equal"}
    assert outputs == {name.removesuffix(":0") for name in HEADS}  # which nobody named
    [weights] = [check for check in verdict["checks"] if check["check"] == "weights"]
    assert (weights["rows"], weights["rows_failed"]) == (273, 0)
    assert not [name for name in verdict["skipped"] if name.startswith("weights")]


def test_a_face_detector_with_one_other_weight_is_none(tmp_path: Path) -> None:
    folder = model("retinaface-mnet")
    [author] = folder.glob("*.pb")
    graph = v1.GraphDef.FromString(author.read_bytes())
    kernel = next(node for node in graph.node if node.op == "Const" and "conv5" in node.name and "weight" in node.name)
    value = tf.make_ndarray(kernel.attr["value"].tensor).copy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(9))
    kernel.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    place = candidates.write_pb(graph, tmp_path / "production.pb")
    verdict = audited(tmp_path / "out", folder / "mnet.25-1080x1920", place, "weights")
    assert f"1 of 273 variables are not the checkpoint's: {kernel.name} differs in 1 of " in verdict["reasons"][0]


@pytest.mark.parametrize("name", ["graphdef/frozen.pb", "saved_model", "tflite/model.tflite"])
def test_a_linear_regression_in_production_is_its_checkpoint(name: str, tmp_path: Path) -> None:
    folder = model("linear-regression")
    checks = "weights,equal,generated,stable" if name.endswith(".pb") else "equal,edge,generated,stable"
    verdict = audited(tmp_path / "out", folder / "checkpoint", folder / name, checks)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert {check["output"] for check in verdict["checks"]} <= {"pred", "variables"}


def test_another_model_is_told_to_be_another(tmp_path: Path) -> None:
    prefix = model("animal-classifier-v4") / "classifier-model-v4"
    [detector] = model("retinaface-mnet").glob("*.pb")
    with pytest.raises(CandidateError, match="the candidate has no input x, and none that is the only one it may be"):
        verdict_of(job_for(tmp_path / "out", prefix, detector, outputs=("y_pred",)))


def test_another_model_of_one_input_and_one_output_is_none(tmp_path: Path) -> None:
    prefix, place = (
        model("animal-classifier-v4") / "classifier-model-v4",
        model("linear-regression") / "graphdef/frozen.pb",
    )
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal", outputs=("y_pred",)))
    assert verdict["verdict"] == "failed"
    assert "equal of y_pred" in verdict["reasons"][0]
