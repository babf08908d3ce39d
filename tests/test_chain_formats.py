"""Formats in the chain: each is a stage, held to the same gate; one more makes nothing again that is there."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path

import jobs
import numpy as np
import pytest
import tensorflow as tf
from jobs import FRUIT, job_for, model_file, run

from pipeline import chain, facts
from pipeline.errors import DamagedArtifact, FreezeError, RunnerError, SettingError
from pipeline.formats import CANDIDATES, FORMATS, ApartRunner, Format
from pipeline.formats.savedmodel import make_saved_model
from pipeline.job import Job
from pipeline.signature import Signature
from pipeline.stages import stages_before
from pipeline.store import Condition, Manifest

v1 = tf.compat.v1
ALL = ("frozen", "mmap", "savedmodel")
# Words through a table, weights large enough to be mapped, a batch of any size.
LOOKED_UP = """
    class M:
        signature = Signature(
            [TensorSpec("word", "string", [None])], [TensorSpec("score", "float32", [None]), TensorSpec("id", "int64", [None])]
        )
        data = "rows.csv"

        def forward(self, inputs, training):
            keys, values = tf.constant(["ham", "spam", "é"]), tf.constant([1, 2, 3], tf.int64)
            table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
            ids = table.lookup(inputs["word"])
            start = np.sin(np.arange(4 * 8192, dtype=np.float32)).reshape(4, 8192)
            w = tf.compat.v1.get_variable("w", initializer=start)
            return {"score": tf.reduce_max(tf.gather(w, ids), axis=1) * tf.cast(ids, tf.float32), "id": ids}

        def examples(self, path):
            return Examples({"word": np.array([b"ham", b"spam", "é".encode(), b"other"] * 5, object)}, None)
    """


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("looked_up")
    job = job_for(folder / "out", model_file(folder, LOOKED_UP), formats=ALL)
    assert run(job) == jobs.ALL_STAGES | set(ALL)
    return job


def _assert_proven(job: Job) -> None:
    verdict = facts.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    checked = {(check["format"], check["check"]) for check in verdict["checks"] if check["rows"]}
    assert checked >= {(format, check) for format in job.formats for check in ("equal", "edge", "golden")}


def test_the_formats_of_the_chain_are_those_that_can_be_made() -> None:
    assert CANDIDATES == ALL
    assert {name for name in FORMATS if name not in CANDIDATES} == {"checkpoint"}


@pytest.mark.parametrize("model", [f"{FRUIT}:Fruit", "spam"])
def test_every_format_of_a_model_passes_the_same_checks(model: str, tmp_path: Path) -> None:
    job = job_for(tmp_path, model, formats=ALL)
    assert run(job) == jobs.ALL_STAGES | set(ALL)
    _assert_proven(job)


def test_every_format_of_a_model_with_a_table_passes_the_same_checks(looked_up: Job) -> None:
    _assert_proven(looked_up)
    words = {"word": np.array([b"spam", b"nothing", "é".encode()], object)}
    for format in ALL:
        with ApartRunner(format, looked_up.folder(format), 1) as runner:
            np.testing.assert_array_equal(runner.run(words)["id"], [2, 0, 3])


def test_one_format_more_makes_it_and_what_tells_of_it_and_nothing_else(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{FRUIT}:Fruit")
    run(job)
    for formats, made in ((ALL[:2], "mmap"), (ALL, "savedmodel")):
        more = dataclasses.replace(job, formats=formats)
        states = chain.examine(more, "report")
        assert states[made].condition is Condition.MISSING
        assert "setting formats changed" in states["validation"].reasons[0]
        assert run(more) == {made, "validation", "report"}
        assert run(more) == set()
    assert run(job) == {"validation", "report"}
    assert {check["format"] for check in facts.read_verdict(job)["checks"]} == {"checkpoint", "frozen"}


def test_only_what_is_asked_for_and_what_that_is_made_from_is_made(tmp_path: Path) -> None:
    mapped = job_for(tmp_path / "mapped", f"{FRUIT}:Fruit", formats=("mmap",))
    assert run(mapped) == jobs.ALL_STAGES - {"frozen"} | {"mmap"}
    assert "frozen" not in stages_before(mapped, "report")
    served = job_for(tmp_path / "served", f"{FRUIT}:Fruit", formats=("savedmodel",))
    assert run(served) == jobs.ALL_STAGES | {"savedmodel"}
    assert {check["format"] for check in facts.read_verdict(served)["checks"]} == {"checkpoint", "savedmodel"}


def test_a_changed_setting_of_freezing_makes_every_format_again_and_loosens_the_bounds_of_all(tmp_path: Path) -> None:
    run(job_for(tmp_path, f"{FRUIT}:Fruit", formats=ALL))
    halved = job_for(tmp_path, f"{FRUIT}:Fruit", formats=ALL, freezing={"weights": "float16"})
    assert run(halved) == {*ALL, "validation", "report"}
    checks = facts.read_verdict(halved)["checks"]
    assert {check["rtol"] for check in checks if check["format"] in ALL} == {1e-3}


def test_the_report_tells_the_size_of_every_format(looked_up: Job) -> None:
    sizes = facts.report_facts(looked_up, stages_before(looked_up, "report")).sizes
    weights = sum(path.stat().st_size for path in (looked_up.folder("mmap") / "weights").iterdir())
    assert sizes["mmap/weights/"] == weights == 4 * 8192 * 4
    for name in ("frozen/model.pb", "mmap/graph.pb", "savedmodel/saved_model.pb"):
        format, _, file = name.partition("/")
        assert sizes[name] == (looked_up.folder(format) / file).stat().st_size
    page = (looked_up.folder("report") / "report.html").read_text()
    summary = (looked_up.folder("report") / "summary.md").read_text()
    for name in ("mmap/weights/", "savedmodel/saved_model.pb"):
        assert name in page
        assert name in summary


# A changed output is noticed in every format.


@pytest.mark.parametrize("format", ALL)
def test_weights_that_differ_from_the_checkpoints_fail_the_validation(
    format: str, looked_up: Job, tmp_path: Path
) -> None:
    shutil.copytree(looked_up.places.artifact("report").parent, tmp_path / "model", symlinks=True)
    job = dataclasses.replace(looked_up, places=dataclasses.replace(looked_up.places, root=tmp_path))
    path = {
        "frozen": job.folder("frozen") / "model.pb",
        "mmap": next((job.folder("mmap") / "weights").iterdir()),
        "savedmodel": job.folder("savedmodel") / "saved_model.pb",
    }[format]
    weights = np.sin(np.arange(4 * 8192, dtype=np.float32)).tobytes()
    assert path.read_bytes().count(weights) == 1
    path.write_bytes(path.read_bytes().replace(weights, (np.frombuffer(weights, np.float32) * 1.5).tobytes()))
    from pipeline.validation import validate

    candidates = {name: job.folder(name) for name in ALL}
    (tmp_path / "made").mkdir()
    verdict = validate("m", job.folder("checkpoint"), candidates, job.settings.validation, 1, tmp_path / "made")
    assert verdict["verdict"] == "failed"
    failed = {check["format"] for check in verdict["checks"] if check["verdict"] == "failed"}
    assert failed == {format}


# Damage.


@pytest.mark.parametrize(("format", "file"), [("mmap", "weights/00000-w.bin"), ("savedmodel", "saved_model.pb")])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_file_of_a_format_stops_the_chain_with_its_name(
    format: str, file: str, damage: str, tmp_path: Path
) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, LOOKED_UP), formats=ALL)
    run(job, format)
    path = job.folder(format) / file
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedArtifact if damage == "flipped" else Exception, match=path.name):
        run(job)
    assert not job.places.artifact("validation").exists()


@pytest.mark.parametrize("damage", ["garbage", "cut", "gone", "no signature"])
def test_a_damaged_saved_model_is_not_opened_and_named(damage: str, looked_up: Job, tmp_path: Path) -> None:
    folder = shutil.copytree(looked_up.folder("savedmodel"), tmp_path / "copy")
    path = folder / "saved_model.pb"
    content = path.read_bytes()
    path.unlink()
    if damage == "garbage":
        path.write_bytes(b"\x07garbage" * 9)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "no signature":
        path.write_bytes(content.replace(b"serving_default", b"serving_defualt"))
    word = {"word": np.array([b"ham"], object)}
    with ApartRunner("savedmodel", folder, 1) as runner, pytest.raises(RunnerError, match=r"SavedModel"):
        runner.run(word)


# What a SavedModel is.


def _answers(session: v1.Session, signature: object, words: list[bytes]) -> np.ndarray:
    served = signature.signature_def["serving_default"]  # type: ignore[attr-defined]
    return session.run(served.outputs["score"].name, {served.inputs["word"].name: words})


def test_a_saved_model_is_loaded_by_both_of_tensorflows_loaders(looked_up: Job) -> None:
    folder, words = str(looked_up.folder("savedmodel")), [b"spam", "é".encode(), b"other"]
    with tf.Graph().as_default(), v1.Session() as session:
        ours = _answers(session, v1.saved_model.load(session, ["serve"], folder), words)
    loaded = tf.saved_model.load(folder)
    function = loaded.signatures["serving_default"]
    theirs = function(word=tf.constant(words))["score"].numpy()
    np.testing.assert_array_equal(ours, theirs)
    w = np.sin(np.arange(4 * 8192, dtype=np.float32)).reshape(4, 8192)
    np.testing.assert_allclose(ours, w.max(axis=1)[[2, 3, 0]] * [2, 3, 0], rtol=1e-6)
    assert function.structured_input_signature[1]["word"].shape.as_list() == [None]


def test_a_saved_models_signature_is_that_of_its_json(looked_up: Job) -> None:
    folder = looked_up.folder("savedmodel")
    signature = Signature.read(folder / "signature.json")
    with tf.Graph().as_default(), v1.Session() as session:
        served = v1.saved_model.load(session, ["serve"], str(folder)).signature_def
    assert [*served] == ["serving_default"]
    assert {*served["serving_default"].inputs} == {spec.name for spec in signature.inputs}
    assert {*served["serving_default"].outputs} == {spec.name for spec in signature.outputs}
    assert (folder / "signature.json").read_bytes() == (looked_up.folder("frozen") / "signature.json").read_bytes()


def test_the_same_frozen_graph_gives_the_same_saved_model_in_any_process(looked_up: Job, tmp_path: Path) -> None:
    make_saved_model(looked_up.folder("frozen"), tmp_path)
    made = looked_up.folder("savedmodel")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made.iterdir()} - {"manifest.json"}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (made / path.name).read_bytes()


# What cannot be made.


def test_a_graph_that_tensorflow_does_not_import_becomes_no_saved_model_and_the_stage_says_why(
    looked_up: Job, tmp_path: Path
) -> None:
    frozen = shutil.copytree(looked_up.folder("frozen"), tmp_path / "frozen")
    graph = v1.GraphDef.FromString((frozen / "model.pb").read_bytes())
    graph.node.add(name="stray", op="NoSuchOp")
    (frozen / "model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(FreezeError, match=r"no SavedModel can be made of this .*NoSuchOp.*Leave savedmodel out"):
        FORMATS["savedmodel"].make(frozen, tmp_path, {})
    assert not (tmp_path / "saved_model.pb").exists()


def test_a_graph_without_a_tensor_of_the_signature_becomes_no_saved_model(looked_up: Job, tmp_path: Path) -> None:
    frozen = shutil.copytree(looked_up.folder("frozen"), tmp_path / "frozen")
    text = json.loads((frozen / "signature.json").read_text())
    text["outputs"][0]["name"] = "nowhere"
    (frozen / "signature.json").write_text(json.dumps(text))
    with pytest.raises(FreezeError, match="nowhere"):
        FORMATS["savedmodel"].make(frozen, tmp_path, {})


# As tasks.


@pytest.mark.usefixtures("quiet")
def test_the_tasks_of_the_formats_are_required_by_the_validation(tmp_path: Path) -> None:
    from pipeline.tasks import FreezeModel, MakeFormat, SaveCheckpoint, ValidateModel

    given = {"model": "multiply_add", "output_root": str(tmp_path), "formats": "savedmodel, mmap,frozen"}
    validate = ValidateModel(**given)
    assert validate.job.formats == ALL
    made = [*validate.requires()]
    assert [type(task) for task in made] == [SaveCheckpoint, FreezeModel, MakeFormat, MakeFormat]
    assert [task.stage for task in made] == ["checkpoint", *ALL]
    [frozen] = made[3].requires()
    assert isinstance(frozen, FreezeModel)
    [checkpoint] = made[2].requires()
    assert isinstance(checkpoint, SaveCheckpoint)


@pytest.mark.usefixtures("quiet")
def test_an_unknown_format_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    from pipeline.tasks import MakeFormat, WriteReport

    with pytest.raises(SettingError, match=r"--formats: unknown format .*mmpa.*[Dd]id you mean 'mmap'"):
        _ = WriteReport(output_root=str(tmp_path), formats="frozen,mmpa").job
    with pytest.raises(SettingError, match=r"--format: unknown format .*[Dd]id you mean 'savedmodel'"):
        _ = MakeFormat(output_root=str(tmp_path), format="savedmode").job
    with pytest.raises(SettingError, match="unknown format"):
        _ = WriteReport(output_root=str(tmp_path), formats="checkpoint").job


@pytest.mark.usefixtures("quiet")
def test_a_format_whose_library_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.tasks import WriteReport

    lacking = dataclasses.replace(FORMATS["mmap"], extras=("no-such-distribution",))
    monkeypatch.setitem(FORMATS, "mmap", lacking)
    with pytest.raises(SettingError, match="Pip install no-such-distribution"):
        _ = WriteReport(output_root=str(tmp_path), formats="mmap").job


def test_the_version_of_a_formats_library_decides_its_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(tmp_path, formats=("frozen", "mmap"))
    monkeypatch.setitem(FORMATS, "mmap", dataclasses.replace(FORMATS["mmap"], extras=("luigi",)))
    versions = chain.ingredients(job, "validation", {})["versions"]
    assert "luigi" in versions
    assert "luigi" not in chain.ingredients(job, "frozen", {})["versions"]


@pytest.fixture
def quiet() -> None:
    logging.getLogger("pipeline").setLevel(logging.ERROR)


def test_a_format_is_one_line_of_the_table() -> None:
    assert all(isinstance(format, Format) for format in FORMATS.values())
    assert Manifest  # every stage's artifact has one, formats included
