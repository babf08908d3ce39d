"""Refusals: a format that cannot express a model gives a reason, fails the run, and does not stop the others."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import jobs
import pytest
from commands import luigi, pipeline
from jobs import PROJECT, job_for, model_file, run

from pipeline.errors import FreezeError, SettingError, StageCrashed
from pipeline.formats.registry import CANDIDATES, FORMATS, Format, read_refusal
from pipeline.store.artifact import ArtifactStatus, verify
from pipeline.store.manifest import Manifest
from pipeline.tasks import model
from pipeline.tasks.chain import job, results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.model import MakeFormat, ValidateModel, WriteReport
from pipeline.tasks.summary import summary_lines

WORDS = """
    class M:
        signature = Signature(
            [TensorSpec("word", "string", [None])], [TensorSpec("score", "float32", [None])]
        )
        data = "rows.csv"

        def forward(self, inputs, training):
            w = tf.compat.v1.get_variable("w", initializer=np.sin(np.arange(9, dtype=np.float32)))
            return {"score": tf.gather(w, tf.strings.length(inputs["word"], name="measured") % 9)}

        def examples(self, path):
            return Examples({"word": np.array([b"ham", b"spam", "é".encode(), b"other"] * 5, object)}, None)
    """
FORMATS_ASKED = ("frozen", "tflite", "onnx")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Runs a chain with strings, which frozen can express and the two other formats cannot."""
    folder = tmp_path_factory.mktemp("words")
    job = job_for(folder / "out", model_file(folder, WORDS), formats=FORMATS_ASKED)
    assert run(job) == jobs.ALL_STAGES | set(FORMATS_ASKED)
    return job


def task_of(job: Job, kind: type[model.ModelTask], **more: object) -> model.ModelTask:
    """Returns the task of a job, with the same quick settings."""
    given = {"model": f"{job.source.file}:M", "output_root": str(job.paths.root), "name": job.paths.name}
    task = kind(**given, **more)
    task.__dict__["chain"] = Chain(job)
    return task


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_refusal_names_op_and_node(format: str, words: Job) -> None:
    reason = read_refusal(words.folder(format))
    assert reason is not None
    assert re.search(r"node measured\b.*\bStringLength\b", reason)
    told = json.loads((words.folder(format) / "refusal.json").read_text())
    assert told == {"format": format, "reason": reason}
    assert {*Manifest.read(words.folder(format)).files} == {"refusal.json"}
    verify(words.folder(format))


def test_the_formats_that_carry_the_model_are_validated_and_the_run_has_failed(words: Job) -> None:
    verdict = results.read_verdict(words)
    assert verdict["verdict"] == "failed"
    by_format = {check["format"]: check for check in verdict["checks"] if check["check"] == "made"}
    assert {*by_format} == {"tflite", "onnx"}
    assert {check["output"] for check in by_format.values()} == {"file"}
    failed = {(check["format"], check["check"]) for check in verdict["checks"] if check["verdict"] != "passed"}
    assert failed == {("tflite", "made"), ("onnx", "made")}
    assert {check["check"] for check in verdict["checks"] if check["format"] == "frozen"} >= {"equal", "edge", "golden"}
    for format in ("tflite", "onnx"):
        assert f"{format} could not be made: {read_refusal(words.folder(format))}" in verdict["reasons"]


def test_a_refusal_is_a_row_of_the_results(words: Job) -> None:
    with (words.folder("validation") / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["check"] == "made"]
    assert [(row["format"], row["output"], row["verdict"]) for row in rows] == [
        ("tflite", "file", "failed"),
        ("onnx", "file", "failed"),
    ]
    assert [row["candidate"] for row in rows] == [read_refusal(words.folder(row["format"])) for row in rows]


def test_the_report_tells_it_in_every_form(words: Job) -> None:
    folder = words.folder("report")
    suite = ElementTree.parse(folder / "junit.xml").getroot()
    cases = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
    for format in ("tflite", "onnx"):
        failure = cases[f"{format}.made.file"]
        assert failure is not None
        assert "StringLength" in failure.get("message", "")
        for name in ("summary.md", "report.html"):
            assert re.search(rf"{format}( and \w+)? could not be made", (folder / name).read_text())
    assert "refusal.json" not in (folder / "summary.md").read_text()  # it is none of the files to deploy


def test_a_refusal_is_not_tried_again_until_something_changed(words: Job) -> None:
    assert run(words) == set()
    state = Chain(words).examine("tflite")["tflite"]
    assert state.status is ArtifactStatus.COMPLETE
    wanted = Chain(words).fingerprint_inputs("tflite", {})
    assert {"ai-edge-litert", "tensorflow"} <= {*wanted["versions"]}
    assert any(name.endswith("formats/tflite.py") for name in wanted["code"])


def test_the_task_of_a_format_fails_by_itself_and_not_for_the_validation(words: Job) -> None:
    alone = task_of(words, MakeFormat, format="tflite")
    assert not alone.complete()
    before = words.folder("tflite")
    with pytest.raises(FreezeError, match="node measured"):
        alone.run()
    assert words.folder("tflite") == before  # it was not made again
    validation = task_of(words, ValidateModel, formats=",".join(FORMATS_ASKED))
    required = [task for task in validation.requires() if isinstance(task, MakeFormat)]
    assert [(task.format, task.may_refuse) for task in required] == [("tflite", True), ("onnx", True)]
    assert task_of(words, MakeFormat, format="tflite", may_refuse=True).complete()


def test_the_closing_lines_and_why_tell_the_refusal(words: Job) -> None:
    lines = summary_lines(Chain(words), "report")
    assert [line for line in lines if line.startswith("tflite ")] == [
        f"tflite       refused: {read_refusal(words.folder('tflite'))}"
    ]
    assert any(line.startswith("frozen ") and line.endswith("model.pb") for line in lines)


def test_what_frozen_itself_refuses_stops_the_chain(tmp_path: Path) -> None:
    body = WORDS.replace('tf.strings.length(inputs["word"], name="measured")', "tf.random.uniform([4], 0, 9, tf.int32)")
    job = job_for(tmp_path / "out", model_file(tmp_path, body), formats=FORMATS_ASKED)
    with pytest.raises(FreezeError):
        run(job)
    assert not job.paths.artifact("validation").exists()
    assert not job.paths.artifact("frozen").exists()


def test_on_the_command_line_the_run_fails_with_the_reason(words: Job) -> None:
    common = [
        *("--model", f"{words.source.file}:M", "--output-root", str(words.paths.root), "--name", "typed"),
        *("--training-steps", "1", "--training-goldens", "8", "--costs-seconds", "0"),
    ]
    made = luigi("ValidateModel", *common, "--formats", "frozen,tflite")
    assert made.returncode == 30
    assert "tflite       refused: node measured" in made.stdout
    assert "verdict      failed" in made.stdout
    again = luigi("MakeFormat", *common, "--format", "tflite", "--workers", "2")  # these are forked
    assert again.returncode == 30
    assert re.search(
        r"failed       MakeFormat: node measured: no TFLite file can be made of this .*StringLength", again.stdout
    )
    assert luigi("MakeFormat", *common, "--format", "mmap").returncode == 0
    told = pipeline("why", "ValidateModel", *common, "--formats", "frozen,tflite")
    assert re.search(r"tflite\s+is complete: it was refused: node measured", told.stdout)


# What ends a conversion otherwise.


def abort(origin: Path, folder: Path) -> None:
    """A converter that crashes in an assertion."""
    os.abort()


def leave(origin: Path, folder: Path) -> None:
    """A converter that is killed from outside, for example because memory runs out."""
    os.kill(os.getpid(), 9)


def test_a_converter_that_crashes_is_a_refusal_and_one_that_was_killed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    crashing = Format("x:y", "test_refusals:abort", needs_subprocess=True)
    with pytest.raises(FreezeError, match=r"crashed over this model .*SIGABRT"):
        crashing.make(tmp_path, tmp_path, {})
    with pytest.raises(StageCrashed, match="SIGKILL"):
        dataclasses.replace(crashing, maker="test_refusals:leave").make(tmp_path, tmp_path, {})


# Extras.


def extras() -> dict[str, set[str]]:
    """Reads the distributions of each extra of the package."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return {
        name: {re.match(r"[\w-]+", wanted)[0] for wanted in distributions}
        for name, distributions in project["optional-dependencies"].items()
    }


@pytest.mark.parametrize("format", [name for name in CANDIDATES if FORMATS[name].extras])
def test_what_a_format_needs_is_what_its_extra_installs(format: str) -> None:
    assert extras()[FORMATS[format].family] == {*FORMATS[format].extras}


@pytest.mark.parametrize(("format", "absent"), [("tflite_int8", "ai-edge-litert"), ("onnx", "onnxruntime")])
def test_a_missing_extra_is_said_before_anything_runs(
    format: str, absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_is_installed", lambda distribution: distribution != absent)
    family = FORMATS[format].family
    with pytest.raises(SettingError, match=rf"{format}.*{absent}.*pip install 'freeze-pipeline\[{family}\]'"):
        _ = WriteReport(output_root=str(tmp_path), formats=f"frozen,{format}").job
    assert not any(tmp_path.iterdir())
    assert WriteReport(output_root=str(tmp_path), formats="frozen,mmap").job.formats == ("frozen", "mmap")
