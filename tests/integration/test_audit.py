"""Comparison of existing pairs: a checkpoint, and a third-party candidate made from it or from another one."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import candidates
import commands
import jobs
import numpy as np
import pytest
import tensorflow as tf
from candidates import Change, far_off, frozen_graph, one_ulp_off, scoped, write_pb

from pipeline.errors import CandidateError, FreezeError, UnsafeModel
from pipeline.formats.external import import_candidate
from pipeline.formats.external.detect import detect_format
from pipeline.freezing.freeze import freeze
from pipeline.inputs import Candidate, ImportedCheckpoint
from pipeline.settings import CostsSettings, Settings, ValidationSettings
from pipeline.signature import Signature
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.file_names import GRAPH_FILE
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain

v1 = tf.compat.v1
QUICK = "weights,equal,edge,stable"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return candidates.save(tmp_path_factory.mktemp("saved") / "model.ckpt-3")


@pytest.fixture(scope="module")
def checkpoint(prefix: Path) -> Path:
    return candidates.artifact(prefix, prefix.parent / "artifact", outputs=("y", "p"))


def job_for(root: Path, checkpoint: Path, place: Path, checks: str = QUICK, **options: Any) -> Job:
    named = {name: options.pop(name) for name in ("names", "format", "signature") if name in options}
    candidate = Candidate(place, **{"format": detect_format(place).format, **named})
    return Job(
        source=None,
        paths=ArtifactPaths(root, "audit"),
        data=options.pop("data", None),
        warm_start=None,
        formats=(candidate.format,),
        settings=Settings(validation=ValidationSettings(checks=checks), costs=CostsSettings(seconds=0)),
        imported=ImportedCheckpoint(str(checkpoint), **options),
        candidate=candidate,
    )


def verdict_of(job: Job, last: str = "validation") -> dict[str, Any]:
    jobs.run(job, last)
    return results.read_verdict(job)


def reasons_of(verdict: dict[str, Any]) -> str:
    return "\n".join(verdict["reasons"])


def as_pb(folder: Path, prefix: Path, change: Change | None) -> Path:
    return write_pb(frozen_graph(prefix, change), folder / "production.pb")


def as_scoped_pb(folder: Path, prefix: Path, change: Change | None) -> Path:
    """A .pb with other names than the checkpoint's; two similar outputs need --candidate-names."""
    return write_pb(scoped(frozen_graph(prefix, change)), folder / "production.pb")


SAID = {"x": "prod/x", "y": "prod/y:0", "p": "prod/p:0"}


def as_saved_model(folder: Path, prefix: Path, change: Change | None) -> Path:
    return candidates.write_saved_model(frozen_graph(prefix, change), folder / "served")


def as_module(folder: Path, prefix: Path, change: Change | None) -> Path:
    return candidates.write_module(folder / "served", change)


def as_mapped(folder: Path, prefix: Path, change: Change | None) -> Path:
    freeze(prefix, ["y", "p"], format="mmap", to=folder / "mapped")
    if change is not None:
        values = {"layer/w": candidates.W.copy(), "layer/b": candidates.B.copy()}
        change(values)
        graph = v1.GraphDef.FromString((folder / "mapped" / GRAPH_FILE).read_bytes())
        for name, value in values.items():  # as constants, for they are too small for files
            candidates.node(graph, name).attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        (folder / "mapped" / GRAPH_FILE).write_bytes(graph.SerializeToString())
    return folder / "mapped"


def as_tflite(folder: Path, prefix: Path, change: Change | None) -> Path:
    return candidates.write_tflite(frozen_graph(prefix, change), folder / "model.bin")


def as_onnx(folder: Path, prefix: Path, change: Change | None) -> Path:
    return candidates.write_onnx(frozen_graph(prefix, change), folder / "model.bin")


Make = Callable[[Path, Path, Change | None], Path]
KINDS: dict[str, tuple[Make, dict[str, str]]] = {
    "frozen": (as_pb, {}),
    "frozen under other names": (as_scoped_pb, SAID),
    "savedmodel": (as_saved_model, {}),
    "savedmodel of TensorFlow 2": (as_module, {}),
    "mmap": (as_mapped, {}),
    "tflite": (as_tflite, {}),
    "onnx": (as_onnx, {}),
}
WEIGHED = ("frozen", "frozen under other names", "mmap")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_that_matches_passes(kind: str, prefix: Path, tmp_path: Path) -> None:
    make, names = KINDS[kind]
    # Another runtime overflows otherwise, which the check `edge` does not forgive.
    checks = "equal,generated,stable" if kind in ("tflite", "onnx") else "all"
    job = job_for(tmp_path / "out", prefix, make(tmp_path, prefix, None), checks, names=names, outputs=("y", "p"))
    assert set(Chain(job).examine("report")) == {"checkpoint", "candidate", "validation", "costs", "report"}
    verdict = verdict_of(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert {check["format"] for check in verdict["checks"]} == {kind.split()[0]}
    weighed = [check for check in verdict["checks"] if check["check"] == "weights"]
    assert [check["rows"] for check in weighed] == ([2] if kind in WEIGHED else [])
    assert jobs.run(job, "validation") == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_with_another_weight_fails(kind: str, prefix: Path, tmp_path: Path) -> None:
    make, names = KINDS[kind]
    place = make(tmp_path, prefix, far_off)
    checks = "weights,equal" if kind in WEIGHED else "equal"
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, checks, names=names, outputs=("y", "p")))
    assert verdict["verdict"] == "failed"
    assert "equal of y: 64 of 64 rows differ" in reasons_of(verdict)
    if kind in ("frozen", "mmap"):
        assert "layer/w differs in 1 of 6 elements" in reasons_of(verdict)


@pytest.mark.parametrize("kind", WEIGHED)
def test_a_weight_off_by_one_ulp_fails_where_outputs_are_within_their_bounds(
    kind: str, prefix: Path, tmp_path: Path
) -> None:
    make, names = KINDS[kind]
    place = make(tmp_path, prefix, one_ulp_off)
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "all", names=names, outputs=("y", "p")))
    [failed] = [check for check in verdict["checks"] if check["verdict"] == "failed"]
    assert failed["check"] == "weights"
    assert "layer/w" in failed["reason"]
    assert "differs in 1 of 6 elements, first at 1;1" in failed["reason"]
    assert ("nearly the constant prod/layer/w" in failed["reason"]) == ("other names" in kind)


def test_a_pb_of_another_run_fails(prefix: Path, tmp_path: Path) -> None:
    place = as_scoped_pb(tmp_path, prefix, candidates.of_another_run)
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "all", names=SAID, outputs=("y", "p")))
    assert verdict["verdict"] == "failed"
    assert "equal of p: 64 of 64 rows differ" in reasons_of(verdict)
    # Nothing tells weights of another run from folded ones, so the outputs are what convicts it.
    assert "weights of layer/w, layer/b" in verdict["skipped"]


def test_a_missing_output_is_a_finding(prefix: Path, tmp_path: Path) -> None:
    place = write_pb(frozen_graph(prefix, outputs=("y",)), tmp_path / "production.pb")
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "all", outputs=("y", "p")))
    assert verdict["verdict"] == "failed"
    assert "equal: the candidate lacks the output p" in reasons_of(verdict)
    assert [c["verdict"] for c in verdict["checks"] if (c["check"], c["output"]) == ("equal", "y")] == ["passed"]


def test_outputs_that_are_swapped_by_name_fail(prefix: Path, tmp_path: Path) -> None:
    graph = candidates.renamed(frozen_graph(prefix), {"y": "p", "p": "y"})
    place = write_pb(graph, tmp_path / "production.pb")
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal", outputs=("y", "p")))
    assert {c["output"] for c in verdict["checks"] if c["verdict"] == "failed"} == {"y", "p"}


def test_an_output_of_another_dtype_is_said(prefix: Path, tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(candidates.renamed(frozen_graph(prefix), {"p": "narrow"}), name="")
        tf.cast(graph.get_tensor_by_name("narrow:0"), tf.float64, name="p")
        place = write_pb(graph.as_graph_def(), tmp_path / "production.pb")
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal", outputs=("y", "p")))
    assert "equal of p" in reasons_of(verdict)
    assert "float64" in reasons_of(verdict)


def imported(candidate: Candidate, checkpoint: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Imports a candidate; returns the notes and the `signature.json`."""
    folder.mkdir()
    notes = import_candidate(candidate, checkpoint, "exact", folder)
    return notes, json.loads((folder / "signature.json").read_text())


def test_the_file_is_taken_as_it_is_with_the_checkpoint_s_names_for_its_tensors(
    prefix: Path, checkpoint: Path, tmp_path: Path
) -> None:
    place = as_scoped_pb(tmp_path, prefix, None)
    notes, signature = imported(Candidate(place, "frozen", SAID), checkpoint, tmp_path / "adopted")
    assert (tmp_path / "adopted" / "model.pb").read_bytes() == place.read_bytes()
    tensors = {each["name"]: each["tensor"] for side in ("inputs", "outputs") for each in signature[side]}
    assert tensors == {"x": "prod/x:0", "y": "prod/y:0", "p": "prod/p:0"}
    assert notes["names"] == tensors
    assert "output p is prod/p:0 float32 [?, 2], as --candidate-names says" in notes["reasons"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            {},
            "the candidate has no input x.*--candidate-names x=NAME.*The checkpoint's inputs are\n  x float.*prod/x:0",
        ),
        (
            {"x": "prod/x"},
            "the candidate has no output y.*checkpoint's outputs are\n  y .*\n  p .*\nThe candidate's are\n",
        ),
        ({"x": "prod/x", "y": "prod/y"}, "the candidate has no output p, and none that is the only one it may be"),
        ({**SAID, "z": "prod/y"}, "the checkpoint has no such input or output .got z"),
        ({**SAID, "y": "prod/z"}, "the candidate lacks a tensor that was named .got prod/z"),
    ],
)
def test_names_that_do_not_fit_are_told_with_both_lists(
    names: dict[str, str], said: str, prefix: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def two_more(graph: Any) -> Any:
        with tf.Graph().as_default() as made:
            tf.import_graph_def(graph, name="")
            x, w = (made.get_tensor_by_name(name) for name in ("prod/x:0", "prod/y:0"))
            tf.identity(v1.placeholder(tf.float32, [None, 3], name="other") + x, name="one")
            tf.identity(w, name="two")
            return made.as_graph_def()

    place = write_pb(two_more(scoped(frozen_graph(prefix))), tmp_path / "production.pb")
    (tmp_path / "adopted").mkdir()
    with pytest.raises(CandidateError) as raised:
        import_candidate(Candidate(place, "frozen", names), checkpoint, "exact", tmp_path / "adopted")
    assert re.search(said, str(raised.value), re.DOTALL), raised.value
    assert not list((tmp_path / "adopted").iterdir())


def test_a_saved_model_s_own_names_are_paired_by_what_they_call(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    called = {"scores": "p:0", "logits": "y:0"}
    place = candidates.write_saved_model(frozen_graph(prefix), tmp_path / "served", called, {"rows": "x:0"})
    notes, _ = imported(Candidate(place, "savedmodel"), checkpoint, tmp_path / "adopted")
    assert notes["names"] == {"x": "rows", "y": "logits", "p": "scores"}
    swapped = candidates.write_saved_model(frozen_graph(prefix), tmp_path / "swapped", {"y": "p:0", "p": "y:0"})
    with pytest.raises(CandidateError, match="not clear which output of the candidate is y"):
        imported(Candidate(swapped, "savedmodel"), checkpoint, tmp_path / "other")
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal", outputs=("y", "p")))
    assert verdict["verdict"] == "passed", verdict["reasons"]


def test_of_several_signatures_one_is_named(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(frozen_graph(prefix), name="")
        x, y, p = (v1.saved_model.build_tensor_info(graph.get_tensor_by_name(f"{name}:0")) for name in "xyp")
        builder = v1.saved_model.Builder(str(tmp_path / "served"))
        signatures = {
            "both": v1.saved_model.build_signature_def({"x": x}, {"y": y, "p": p}),
            "one": v1.saved_model.build_signature_def({"x": x}, {"y": y}),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    with pytest.raises(CandidateError, match=r"got both, one.*candidate-signature"):
        imported(Candidate(tmp_path / "served", "savedmodel"), checkpoint, tmp_path / "first")
    named = Candidate(tmp_path / "served", "savedmodel", signature="both")
    _, signature = imported(named, checkpoint, tmp_path / "second")
    assert signature["origin"]["candidate"]["signature"] == "both"
    with pytest.raises(CandidateError, match=r"no such signature.*got 'none'"):
        imported(dataclasses.replace(named, signature="none"), checkpoint, tmp_path / "third")


def test_a_graph_with_variables_is_not_frozen(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    graph = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes()).graph_def
    place = write_pb(graph, tmp_path / "graph.pb")
    with pytest.raises(CandidateError, match=r"not frozen: it has variables.*got 2 variables, such as layer/"):
        imported(Candidate(place, "frozen"), checkpoint, tmp_path / "adopted")


def with_a_mode(x: Any) -> None:
    is_training = v1.placeholder(tf.bool, [], name="is_training")
    w = v1.get_variable("w", initializer=tf.constant([1.0, 2, 3]))
    tf.identity(tf.where(is_training, x * 0.0, x) * w, name="y")


def test_a_pin_is_fed_to_a_candidate_that_still_has_the_placeholder(tmp_path: Path) -> None:
    prefix = candidates.save(tmp_path / "in" / "model.ckpt", with_a_mode)
    place = write_pb(frozen_graph(prefix, outputs=("y",)), tmp_path / "production.pb")
    for value, passed in (("false", True), ("true", True)):
        job = job_for(tmp_path / value, prefix, place, "equal", outputs=("y",), pins={"is_training": value})
        verdict = verdict_of(job)
        assert (verdict["verdict"] == "passed") is passed, verdict["reasons"]
    pinned = candidates.artifact(prefix, tmp_path / "pinned", outputs=("y",), pins={"is_training": "false"})
    _, signature = imported(Candidate(place, "frozen"), pinned, tmp_path / "adopted")
    assert signature["origin"]["candidate"]["fed"] == {"is_training": "false"}
    freeze(prefix, ["y"], pins={"is_training": "true"}, to=tmp_path / "training.pb")
    wrong = job_for(tmp_path / "wrong", prefix, tmp_path / "training.pb", "equal", pins={"is_training": "false"})
    assert verdict_of(wrong)["verdict"] == "failed"


def test_an_input_that_nobody_gives_is_named(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(candidates.renamed(frozen_graph(prefix), {"p": "scaled"}), name="")
        scale = v1.placeholder(tf.float32, [], name="scale")
        tf.multiply(graph.get_tensor_by_name("scaled:0"), scale, name="p")
        place = write_pb(graph.as_graph_def(), tmp_path / "production.pb")
    with pytest.raises(
        CandidateError, match=r"needs an input that the checkpoint's signature lacks .got scale:0.*--pin"
    ):
        imported(Candidate(place, "frozen"), checkpoint, tmp_path / "adopted")


def test_the_tables_of_a_candidate_are_filled_by_its_own_nodes(tmp_path: Path) -> None:
    def lookup(x: Any) -> None:
        w = v1.get_variable("w", initializer=tf.constant([1.0, 2, 3]))
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), tf.constant([5.0, 7]))
        table = tf.lookup.StaticHashTable(initializer, -1.0)
        tf.reduce_sum(x * w, 1, name="y")
        tf.identity(table.lookup(tf.cast(x[:, 0], tf.int64)), name="found")

    prefix = candidates.save(tmp_path / "in" / "model.ckpt", lookup)
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    [filler] = [node.name for node in meta.graph_def.node if node.op == "LookupTableImportV2"]
    place = write_pb(frozen_graph(prefix, outputs=("y", "found", filler)), tmp_path / "production.pb")
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal", outputs=("y", "found")))
    assert verdict["verdict"] == "passed", verdict["reasons"]
    without = write_pb(frozen_graph(prefix, outputs=("y", "found")), tmp_path / "without.pb")
    failed = verdict_of(job_for(tmp_path / "other", prefix, without, "equal", outputs=("y", "found")))
    assert failed["verdict"] == "failed"
    assert "LookupTableFindV2" in reasons_of(failed)


def test_outputs_that_nobody_names_are_the_candidate_s(prefix: Path, tmp_path: Path) -> None:
    called = {"scores": "p:0"}
    place = candidates.write_saved_model(frozen_graph(prefix), tmp_path / "served", called)
    job = job_for(tmp_path / "out", prefix, place)
    jobs.run(job, "candidate")
    assert [spec.name for spec in Signature.read(job.folder("checkpoint") / "signature.json").outputs] == ["p"]
    other = job_for(tmp_path / "out", prefix, as_pb(tmp_path, prefix, None))
    states = Chain(other).examine("candidate")
    assert states["checkpoint"].status is ArtifactStatus.STALE
    named = dataclasses.replace(other, imported=ImportedCheckpoint(str(prefix), outputs=("p",)))
    jobs.run(named, "checkpoint")
    again = dataclasses.replace(named, candidate=Candidate(place, "savedmodel"), formats=("savedmodel",))
    assert Chain(again).examine("checkpoint")["checkpoint"].is_complete


@pytest.mark.parametrize("refusal", ["not clear which tensors are the outputs", "draws random numbers"])
def test_a_doubt_about_outputs_is_settled_by_what_the_candidate_ends_in(refusal: str, tmp_path: Path) -> None:
    def decided(x: Any) -> None:
        w = v1.get_variable("w", initializer=tf.constant(candidates.W))
        logits = tf.matmul(x, w, name="logits")
        noise = tf.random.normal(tf.shape(logits)) if "draws" in refusal else 0.0
        last = tf.matmul(logits + noise, v1.get_variable("last", [int(logits.shape[1]), 2]))
        if "clear" in refusal:
            tf.nn.l2_normalize(logits, 1, name="embedding")
            labels = v1.placeholder(tf.int64, [None], name="labels")
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=last)
            v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))

    prefix = candidates.save(tmp_path / "in" / "model.ckpt", decided)
    with pytest.raises(FreezeError, match=refusal):
        candidates.artifact(prefix, tmp_path / "doubt")
    place = write_pb(frozen_graph(prefix, outputs=("logits",)), tmp_path / "production.pb")
    job = job_for(tmp_path / "out", prefix, place)
    jobs.run(job, "candidate")
    assert [spec.name for spec in Signature.read(job.folder("checkpoint") / "signature.json").outputs] == ["logits"]


def test_another_candidate_redoes_what_hangs_on_it_and_says_why(prefix: Path, tmp_path: Path) -> None:
    place = as_pb(tmp_path, prefix, None)
    job = job_for(tmp_path / "out", prefix, place, "weights", outputs=("y", "p"))
    assert verdict_of(job)["verdict"] == "passed"
    as_pb(tmp_path, prefix, one_ulp_off)
    state = Chain(job).examine("validation")
    assert state["checkpoint"].is_complete
    assert f"{place} changed: sha256 was" in state["candidate"].reasons[0]
    assert verdict_of(job, "report")["verdict"] == "failed"
    page = (job.folder("report") / "report.html").read_text()
    assert f"compared with {place}" in page
    manifest = json.loads((job.folder("candidate") / "manifest.json").read_text())
    assert manifest["notes"]["inputs"] == {"candidate model.pb": str(place.resolve())}
    assert list(manifest["ingredients"]["files"]) == ["candidate model.pb"]


def test_the_command_tells_the_verdict_and_refuses_what_is_no_pair(prefix: Path, tmp_path: Path) -> None:
    place, root = as_pb(tmp_path, prefix, None), ["--output-root", str(tmp_path / "out")]
    audit = ["ValidateModel", "--checkpoint", str(prefix), *root, "--validation-checks", "weights", "--candidate"]
    done = commands.luigi(*audit, str(place))
    assert done.returncode == 0, done.stdout
    assert "verdict      passed" in done.stdout
    assert f"candidate    {tmp_path}/out/model.ckpt-3/candidate/model.pb" in done.stdout
    assert not (tmp_path / "out" / "model.ckpt-3" / "frozen").exists()
    why = commands.pipeline("why", *audit, str(place))
    assert why.returncode == 0, why.stdout
    assert "candidate    is complete" in why.stdout
    verify = commands.pipeline("verify", str(tmp_path / "out" / "model.ckpt-3" / "candidate"))
    assert verify.returncode == 0
    as_pb(tmp_path, prefix, far_off)
    assert "production.pb changed" in commands.pipeline("verify", str(tmp_path / "out/model.ckpt-3/candidate")).stdout
    assert commands.luigi(*audit, str(place)).returncode == 30


def test_what_makes_no_sense_with_a_candidate_is_refused(prefix: Path, tmp_path: Path) -> None:
    place, root = str(as_pb(tmp_path, prefix, None)), ["--output-root", str(tmp_path / "out")]
    start = ["--checkpoint", str(prefix), *root]
    for arguments, code, said in [
        (["ValidateModel", "--candidate", place], 40, "nothing to compare the candidate with"),
        (["FreezeModel", *start, "--candidate", place], 40, "a chain with a candidate has no FreezeModel"),
        (["AdoptCandidate", *start], 40, "has no AdoptCandidate"),
        (
            ["ValidateModel", *start, "--candidate", place, "--formats", "mmap"],
            40,
            "the candidate is in another format",
        ),
        (
            ["ValidateModel", *start, "--candidate", place, "--formats", "mmap,frozen"],
            40,
            "a candidate is in one format",
        ),
        (
            ["ValidateModel", *start, "--candidate-names", "y=z"],
            40,
            "--candidate-names: this is for a chain with a cand",
        ),
        (["ValidateModel", *start, "--candidate-signature", "y"], 40, "--candidate-signature: this is for a chain"),
        (["ValidateModel", *start, "--candidate", str(tmp_path / "absent.pb")], 20, "there is no such candidate"),
        (["ValidateModel", *start, "--candidate", str(prefix.parent)], 40, "got a checkpoint"),
    ]:
        refused = commands.luigi(*arguments)
        assert (refused.returncode, said in refused.stdout + refused.stderr) == (code, True), refused.stdout
    assert not (tmp_path / "out").exists()


def test_a_model_of_one_s_own_is_compared_with_what_is_in_production(tmp_path: Path) -> None:
    job = jobs.job_for(tmp_path / "out")
    jobs.run(job, "frozen")
    place = Path(shutil.copy(job.folder("frozen") / "model.pb", tmp_path / "production.pb"))
    audit = dataclasses.replace(job, candidate=Candidate(place, "frozen"))
    assert set(Chain(audit).examine("report")) == {
        "graph",
        "training",
        "checkpoint",
        "candidate",
        "validation",
        "costs",
        "report",
    }
    assert jobs.run(audit, "validation") == {"candidate", "validation"}
    assert results.read_verdict(audit)["verdict"] == "passed"
    graph = v1.GraphDef.FromString(place.read_bytes())
    [const] = [node for node in graph.node if node.name == "b"]
    const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(2)))
    write_pb(graph, place)
    assert verdict_of(audit)["verdict"] == "failed"


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("write", [candidates.write_tflite, candidates.write_onnx])
def test_a_candidate_with_a_fixed_batch_is_asked_in_that_size(
    write: Callable[..., Path], batch: int, prefix: Path, tmp_path: Path
) -> None:
    place = write(frozen_graph(prefix), tmp_path / "model.bin", batch)
    verdict = verdict_of(job_for(tmp_path / "out", prefix, place, "equal,generated,stable", outputs=("y", "p")))
    assert verdict["verdict"] == "passed", verdict["reasons"]
    assert verdict["rows"]["validation"] == 64


def test_the_names_of_an_onnx_model_are_found_or_said(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    one = candidates.write_onnx(frozen_graph(prefix), tmp_path / "one.onnx", names=("y", "scores"))
    notes, _ = imported(Candidate(one, "onnx"), checkpoint, tmp_path / "adopted")
    assert notes["names"] == {"x": "x:0", "y": "y", "p": "scores"}
    assert "the only one that is left" in notes["reasons"][-1]
    both = candidates.write_onnx(frozen_graph(prefix), tmp_path / "both.onnx", names=("a", "b"))
    with pytest.raises(CandidateError, match=r"the candidate has no output y.*--candidate-names y=NAME"):
        imported(Candidate(both, "onnx"), checkpoint, tmp_path / "refused")
    for names, verdict in (({"y": "a", "p": "b"}, "passed"), ({"y": "b", "p": "a"}, "failed")):
        job = job_for(tmp_path / verdict, prefix, both, "equal", names=names, outputs=("y", "p"))
        assert verdict_of(job)["verdict"] == verdict


def test_names_that_are_said_reach_a_tflite_file(prefix: Path, tmp_path: Path) -> None:
    place = as_tflite(tmp_path, prefix, None)
    swapped = job_for(tmp_path / "out", prefix, place, "equal", names={"y": "p", "p": "y"}, outputs=("y", "p"))
    assert {c["output"] for c in verdict_of(swapped)["checks"] if c["verdict"] == "failed"} == {"y", "p"}


def test_weights_beside_an_onnx_model_come_along(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(candidates.write_onnx(frozen_graph(prefix), tmp_path / "whole.onnx"))
    for place in ("production", "elsewhere"):
        (tmp_path / place).mkdir()
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, tmp_path / "production" / "model.onnx")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
    (tmp_path / "elsewhere" / "model.onnx").write_bytes(model.SerializeToString())
    imported(Candidate(tmp_path / "production", "onnx"), checkpoint, tmp_path / "adopted")
    assert (tmp_path / "adopted" / "weights.bin").stat().st_size > 0
    with pytest.raises(UnsafeModel, match=r"lies outside of the model's folder .got '../weights.bin'"):
        imported(Candidate(tmp_path / "elsewhere", "onnx"), checkpoint, tmp_path / "refused")
    (tmp_path / "production" / "weights.bin").unlink()
    with pytest.raises(CandidateError, match=r"weights.bin: a file of the candidate is missing"):
        imported(Candidate(tmp_path / "production", "onnx"), checkpoint, tmp_path / "gone")


@pytest.mark.parametrize("kind", ["tflite", "onnx", "savedmodel"])
def test_a_file_that_is_cut_off_is_refused(kind: str, prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    place = KINDS[kind][0](tmp_path, prefix, None)
    file = place / "saved_model.pb" if place.is_dir() else place
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CandidateError, match=r"(sha256sum|Copy the candidate|Copy the whole file)"):
        imported(Candidate(place, kind), checkpoint, tmp_path / "adopted")
