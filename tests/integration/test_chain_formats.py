"""Formats in the chain: each is a stage, held to the same gate; one more makes nothing again that is there."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import tensorflow as tf
from jobs import FRUIT, job_for, model_file, run
from test_import_checkpoint import job_for as imported
from test_import_checkpoint import saved_model

from pipeline.cli import why
from pipeline.data.npz import save_arrays
from pipeline.errors import DamagedArtifact, FreezeError, RunnerError, SettingError
from pipeline.formats import savedmodel
from pipeline.formats.registry import CANDIDATES, FORMATS
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Signature
from pipeline.store.artifact import ArtifactStatus
from pipeline.tasks import model as tasks
from pipeline.tasks.chain import results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.chain.report_facts import collect_report_facts
from pipeline.tasks.model import FreezeModel, MakeFormat, SaveCheckpoint, ValidateModel, WriteReport
from pipeline.tasks.summary import summary_lines
from pipeline.validation.validate import validate

v1 = tf.compat.v1
ALL = ("frozen", "mmap", "savedmodel")
OTHER_RUNTIMES = ("tflite", "tflite_float16", "tflite_int8", "onnx", "onnx_float16", "onnx_int8")
# Words, weights large enough to be mapped, a batch of any size.
WORDS = """
    class M:
        signature = Signature(
            [TensorSpec("word", "string", [None])],
            [TensorSpec("score", "float32", [None]), TensorSpec("id", "int64", [None])],
        )
        data = "rows.csv"

        def forward(self, inputs, training):
            ids = tf.cast(tf.strings.length(inputs["word"]) % 4, tf.int64)
            start = np.sin(np.arange(4 * 8192, dtype=np.float32)).reshape(4, 8192)
            w = tf.compat.v1.get_variable("w", initializer=start)
            return {"score": tf.reduce_max(tf.gather(w, ids), axis=1) * tf.cast(ids + 1, tf.float32), "id": ids}

        def examples(self, path):
            return Examples({"word": np.array([b"ham", b"spam", "é".encode(), b"other"] * 5, object)}, None)
    """


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("words")
    job = job_for(folder / "out", model_file(folder, WORDS), formats=ALL)
    assert run(job) == jobs.ALL_STAGES | set(ALL)
    return job


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The example model in every format of TensorFlow."""
    job = job_for(tmp_path_factory.mktemp("fruit"), f"{FRUIT}:Fruit", formats=ALL)
    assert run(job) == jobs.ALL_STAGES | set(ALL)
    return job


@pytest.fixture
def own_fruit(fruit: Job, tmp_path: Path) -> Job:
    """The same, where it may be changed."""
    shutil.copytree(fruit.paths.root, tmp_path / "out", symlinks=True)
    return dataclasses.replace(fruit, paths=dataclasses.replace(fruit.paths, root=tmp_path / "out"))


def _assert_proven(job: Job) -> None:
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    checked = {(check["format"], check["check"]) for check in verdict["checks"] if check["rows"]}
    assert checked >= {(format, check) for format in job.formats for check in ("equal", "edge", "golden")}


def test_the_formats_of_the_chain_are_those_that_can_be_made() -> None:
    assert (*ALL, *OTHER_RUNTIMES) == CANDIDATES
    assert {name for name in FORMATS if name not in CANDIDATES} == {"checkpoint"}


@pytest.mark.parametrize("model", ["fruit", "spam"])
def test_every_format_of_a_model_passes_the_same_checks(model: str, fruit: Job, tmp_path: Path) -> None:
    job = fruit if model == "fruit" else job_for(tmp_path, model, formats=ALL)
    assert run(job) == (set() if model == "fruit" else jobs.ALL_STAGES | set(ALL))
    _assert_proven(job)
    weights = sum(path.stat().st_size for path in (job.folder("mmap") / "weights").iterdir())
    assert collect_report_facts(job, Chain(job).before("report")).sizes.get("mmap/weights/", 0) == weights


def _saver_with_a_table(folder: Path) -> Path:
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder(tf.string, [None], name="words")
        initializer = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
        ids = tf.identity(tf.lookup.StaticHashTable(initializer, 0).lookup(word), name="ids")
        w = v1.get_variable("w", initializer=np.sin(np.arange(9, dtype=np.float32)).reshape(3, 3))
        tf.identity(tf.gather(w, ids), name="scores")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder


@pytest.mark.parametrize(("make", "other"), [(_saver_with_a_table, 0), (saved_model, -1)])
def test_every_format_of_a_checkpoint_with_a_table_answers_from_the_first_run(
    make: Any, other: int, tmp_path: Path
) -> None:
    data = {"words": np.array([b"b", b"no such", b"a"] * 4, object), "x": np.ones((12, 3), np.float32)}
    inputs = {name: rows for name, rows in data.items() if make is saved_model or name == "words"}
    save_arrays(tmp_path / "rows.npz", inputs)
    outputs = ("scores", "ids")
    job = imported(tmp_path / "out", make(tmp_path / "in"), tmp_path / "rows.npz", outputs=outputs)
    job = dataclasses.replace(job, formats=ALL)
    run(job)
    verdict = results.read_verdict(job)
    assert verdict["verdict"] == "passed", verdict["reasons"]
    for format in ALL:
        with SubprocessRunner(format, job.folder(format), 1) as runner:
            np.testing.assert_array_equal(runner.run(inputs)["ids"], [2, other, 1] * 4)


def test_one_format_more_makes_it_and_what_tells_of_it_and_nothing_else(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{FRUIT}:Fruit")
    run(job)
    for formats, made in ((ALL[:2], "mmap"), (ALL, "savedmodel")):
        more = dataclasses.replace(job, formats=formats)
        states = Chain(more).examine("report")
        assert states[made].status is ArtifactStatus.MISSING
        assert any(reason.startswith("setting formats changed") for reason in states["validation"].reasons)
        assert run(more) == {made, "validation", "costs", "report"}
        assert run(more) == set()
    assert run(job) == {"validation", "costs", "report"}
    assert {check["format"] for check in results.read_verdict(job)["checks"]} == {"checkpoint", "frozen"}


def test_only_what_is_asked_for_and_what_that_is_made_from_is_made(tmp_path: Path) -> None:
    mapped = job_for(tmp_path / "mapped", f"{FRUIT}:Fruit", formats=("mmap",))
    assert run(mapped) == jobs.ALL_STAGES - {"frozen"} | {"mmap"}
    assert "frozen" not in Chain(mapped).before("report")
    served = job_for(tmp_path / "served", f"{FRUIT}:Fruit", formats=("savedmodel",))
    assert run(served) == jobs.ALL_STAGES | {"savedmodel"}
    assert {check["format"] for check in results.read_verdict(served)["checks"]} == {"checkpoint", "savedmodel"}


def test_a_changed_setting_of_freezing_makes_every_format_again_and_loosens_the_bounds_of_all(own_fruit: Job) -> None:
    root = own_fruit.paths.root
    convert_to_float16 = job_for(root, f"{FRUIT}:Fruit", formats=ALL, freezing={"weights": "float16"})
    assert run(convert_to_float16) == {*ALL, "validation", "costs", "report"}
    checks = results.read_verdict(convert_to_float16)["checks"]
    by_value = [
        check for check in checks if check["format"] in ALL and check["check"] not in ("graph", "weights", "decisions")
    ]
    assert {check["rtol"] for check in by_value} == {5e-3}


def test_the_report_tells_the_size_of_every_format(words: Job) -> None:
    sizes = collect_report_facts(words, Chain(words).before("report")).sizes
    weights = sum(path.stat().st_size for path in (words.folder("mmap") / "weights").iterdir())
    assert sizes["mmap/weights/"] == weights == 4 * 8192 * 4
    for name in ("frozen/model.pb", "mmap/graph.pb", "savedmodel/saved_model.pb"):
        format, _, file = name.partition("/")
        assert sizes[name] == (words.folder(format) / file).stat().st_size
    page = (words.folder("report") / "report.html").read_text()
    summary = (words.folder("report") / "summary.md").read_text()
    for name in ("mmap/weights/", "savedmodel/saved_model.pb"):
        assert name in page
        assert name in summary


# A changed output is noticed in every format.


@pytest.mark.parametrize("format", ALL)
def test_weights_that_differ_from_the_checkpoints_fail_the_validation(format: str, words: Job, tmp_path: Path) -> None:
    shutil.copytree(words.paths.artifact("report").parent, tmp_path / "model", symlinks=True)
    job = dataclasses.replace(words, paths=dataclasses.replace(words.paths, root=tmp_path))
    path = {
        "frozen": job.folder("frozen") / "model.pb",
        "mmap": next((job.folder("mmap") / "weights").iterdir()),
        "savedmodel": job.folder("savedmodel") / "saved_model.pb",
    }[format]
    weights = np.sin(np.arange(4 * 8192, dtype=np.float32)).tobytes()
    assert path.read_bytes().count(weights) == 1
    path.write_bytes(path.read_bytes().replace(weights, (np.frombuffer(weights, np.float32) * 1.5).tobytes()))
    candidates = {name: job.folder(name) for name in ALL}
    (tmp_path / "made").mkdir()
    verdict = validate("m", job.folder("checkpoint"), candidates, job.settings.validation, 1, tmp_path / "made")
    assert verdict["verdict"] == "failed"
    failed = {check["format"] for check in verdict["checks"] if check["verdict"] == "failed"}
    assert failed == {format}


# Damage.


@pytest.mark.parametrize(("format", "file"), [("mmap", "weights/00000-w.bin"), ("savedmodel", "saved_model.pb")])
def test_a_damaged_file_of_a_format_stops_the_chain_with_its_name(format: str, file: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", model_file(tmp_path, WORDS), formats=ALL)
    run(job, format)
    path = job.folder(format) / file
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedArtifact, match=path.name):
        run(job)
    assert not job.paths.artifact("validation").exists()


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_mapped_weights_that_are_not_whole_are_not_opened_and_named(damage: str, words: Job, tmp_path: Path) -> None:
    folder = shutil.copytree(words.folder("mmap"), tmp_path / "copy")
    path = folder / "weights/00000-w.bin"
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    with SubprocessRunner("mmap", folder, 1) as runner, pytest.raises(RunnerError, match=r"00000-w\.bin"):
        runner.run({"word": np.array([b"ham"], object)})


@pytest.mark.parametrize("damage", ["garbage", "cut", "gone", "no signature"])
def test_a_damaged_saved_model_is_not_opened_and_named(damage: str, words: Job, tmp_path: Path) -> None:
    folder = shutil.copytree(words.folder("savedmodel"), tmp_path / "copy")
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
    with SubprocessRunner("savedmodel", folder, 1) as runner, pytest.raises(RunnerError, match=r"SavedModel"):
        runner.run(word)


# What a SavedModel is.


def _answers(session: v1.Session, signature: object, words: list[bytes]) -> np.ndarray:
    served = signature.signature_def["serving_default"]  # type: ignore[attr-defined]
    return session.run(served.outputs["score"].name, {served.inputs["word"].name: words})


def test_a_saved_model_is_loaded_by_both_of_tensorflows_loaders(words: Job) -> None:
    folder, given = str(words.folder("savedmodel")), [b"spam", "é".encode(), b"other"]
    with tf.Graph().as_default(), v1.Session() as session:
        ours = _answers(session, v1.saved_model.load(session, ["serve"], folder), given)
    loaded = tf.saved_model.load(folder)
    function = loaded.signatures["serving_default"]
    theirs = function(word=tf.constant(given))["score"].numpy()
    np.testing.assert_array_equal(ours, theirs)
    w = np.sin(np.arange(4 * 8192, dtype=np.float32)).reshape(4, 8192)
    np.testing.assert_allclose(ours, w.max(axis=1)[[0, 2, 1]] * [1, 3, 2], rtol=1e-6)
    assert function.structured_input_signature[1]["word"].shape.as_list() == [None]


def test_a_saved_models_signature_is_that_of_its_json(words: Job) -> None:
    folder = words.folder("savedmodel")
    signature = Signature.read(folder / "signature.json")
    with tf.Graph().as_default(), v1.Session() as session:
        served = v1.saved_model.load(session, ["serve"], str(folder)).signature_def
    assert [*served] == ["serving_default"]
    assert {*served["serving_default"].inputs} == {spec.name for spec in signature.inputs}
    assert {*served["serving_default"].outputs} == {spec.name for spec in signature.outputs}
    assert (folder / "signature.json").read_bytes() == (words.folder("frozen") / "signature.json").read_bytes()


def test_the_same_frozen_graph_gives_the_same_saved_model_in_any_process(words: Job, tmp_path: Path) -> None:
    savedmodel.make_saved_model(words.folder("frozen"), tmp_path)
    made = words.folder("savedmodel")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made.iterdir()} - {"manifest.json"}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (made / path.name).read_bytes()


# What cannot be made.


def test_a_graph_that_tensorflow_does_not_import_becomes_no_saved_model_and_the_stage_says_why(
    words: Job, tmp_path: Path
) -> None:
    frozen = shutil.copytree(words.folder("frozen"), tmp_path / "frozen")
    graph = v1.GraphDef.FromString((frozen / "model.pb").read_bytes())
    graph.node.add(name="stray", op="NoSuchOp")
    (frozen / "model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(
        FreezeError,
        match=r"no SavedModel can be made of this .*NoSuchOp.*cannot open this graph, in no format: install",
    ):
        FORMATS["savedmodel"].make(frozen, tmp_path, {})
    assert not (tmp_path / "saved_model.pb").exists()


def test_a_graph_without_a_tensor_of_the_signature_becomes_no_saved_model(words: Job, tmp_path: Path) -> None:
    frozen = shutil.copytree(words.folder("frozen"), tmp_path / "frozen")
    text = json.loads((frozen / "signature.json").read_text())
    text["outputs"][0]["name"] = "nowhere"
    (frozen / "signature.json").write_text(json.dumps(text))
    with pytest.raises(FreezeError, match="nowhere"):
        FORMATS["savedmodel"].make(frozen, tmp_path, {})


def test_a_graph_that_is_too_large_for_a_saved_model_becomes_none(
    words: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savedmodel, "MAX_BYTES", 1000)
    with pytest.raises(FreezeError, match=r"no SavedModel .*1000 are the most"):
        savedmodel.make_saved_model(words.folder("frozen"), tmp_path)
    assert not [*tmp_path.iterdir()]


# As tasks.


def test_the_tasks_of_the_formats_are_required_by_the_validation(tmp_path: Path) -> None:
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


def test_an_unknown_format_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--formats: unknown format .*mmpa.*[Dd]id you mean 'mmap'"):
        _ = WriteReport(output_root=str(tmp_path), formats="frozen,mmpa").job
    with pytest.raises(SettingError, match=r"--format: unknown format .*[Dd]id you mean 'savedmodel'"):
        _ = MakeFormat(output_root=str(tmp_path), format="savedmode").job
    with pytest.raises(SettingError, match=r"--format: no format .*one of frozen, mmap, savedmodel, tflite"):
        _ = MakeFormat(output_root=str(tmp_path)).job
    with pytest.raises(SettingError, match="unknown format"):
        _ = WriteReport(output_root=str(tmp_path), formats="checkpoint").job


def test_a_format_whose_library_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = dataclasses.replace(FORMATS["mmap"], extras=("no-such-distribution",))
    monkeypatch.setitem(FORMATS, "mmap", lacking)
    with pytest.raises(
        SettingError, match=r"the format mmap .*no-such-distribution.*pip install 'freeze-pipeline\[mmap\]'"
    ):
        _ = WriteReport(output_root=str(tmp_path), formats="mmap").job


def test_the_version_of_a_formats_library_decides_its_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(tmp_path, formats=("frozen", "mmap"))
    monkeypatch.setitem(FORMATS, "mmap", dataclasses.replace(FORMATS["mmap"], extras=("luigi",)))
    versions = Chain(job).fingerprint_inputs("validation", {})["versions"]
    assert "luigi" in versions
    assert "luigi" not in Chain(job).fingerprint_inputs("frozen", {})["versions"]


def test_the_closing_lines_tell_where_each_format_is(tmp_path: Path) -> None:
    task = WriteReport(model="multiply_add", output_root=str(tmp_path), formats="frozen,mmap,savedmodel")
    run(task.job, "validation")
    lines = dict(line.split(maxsplit=1) for line in summary_lines(task.chain, task.stage))
    folder = tmp_path / "multiply_add"
    assert lines["frozen"] == str(folder / "frozen/model.pb")
    assert (lines["mmap"], lines["savedmodel"]) == (str(folder / "mmap"), str(folder / "savedmodel"))
    mapped = MakeFormat(model="multiply_add", output_root=str(tmp_path), format="mmap")
    assert summary_lines(mapped.chain, mapped.stage) == [f"mmap         {folder / 'mmap'}"]


def test_why_shows_the_stage_of_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROOT_HOOKS", [])
    monkeypatch.setattr(why, "ROOT_HOOKS", [])
    command = ["WriteReport", "--model", "multiply_add", "--output-root", str(tmp_path), "--formats", "frozen,mmap"]
    assert why.run(argparse.Namespace(task=command)) == 1
    stages = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert stages == ["graph", "training", "checkpoint", "frozen", "mmap", "validation", "costs", "report"]
