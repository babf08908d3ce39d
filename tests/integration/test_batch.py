"""Batches: many models from one list. One bad model costs only itself, and a rerun does what is left."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import batch_kills
import batches
import commands
import pytest
from commands import luigi, pipeline
from jobs import made_with_other_code

from pipeline.freezing.freeze import freeze

SHARED = commands.PROJECT.parent / "shared" / "models"
BATCH = ["ConvertBatch", "--workers", "2", "--costs-seconds", "0"]


@dataclass
class Run:
    """A batch that was run from the command line."""

    root: Path
    folder: Path
    code: int
    told: str
    log: str

    @property
    def results(self) -> dict[str, dict[str, str]]:
        return batches.results_of(self.root)


def run(manifest: Path, root: Path, *more: str, **environment: str) -> Run:
    done = luigi(*BATCH, "--manifest", str(manifest), "--output-root", str(root), *more, **environment)
    return Run(root, root / "batch" / manifest.stem, done.returncode, done.stdout, done.stderr)


def stamps(root: Path, *names: str, stage: str = "frozen") -> dict[str, Path]:
    """The version of a stage that each model stands at: it is another one where the stage was made again."""
    return {name: (root / name / stage).resolve() for name in names}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight checkpoints, five of which are broken, each in another way; and the models of strangers."""
    folder = tmp_path_factory.mktemp("made")
    prefixes = batches.make_checkpoints(folder / "runs", 8)
    rows: list[dict[str, object]] = [
        {"name": prefix.parent.name, "checkpoint": prefix.relative_to(folder)} for prefix in prefixes
    ]
    batches.cut(Path(f"{prefixes[2]}.data-00000-of-00001"))
    batches.flip(Path(f"{prefixes[3]}.data-00000-of-00001"), 0.3)
    Path(f"{prefixes[4]}.index").unlink()
    Path(f"{prefixes[6]}.meta").write_text("<!doctype html><html><body>Not found</body></html>")
    rows[7]["outputs"] = "probabilties"
    if SHARED.is_dir():
        for name, place in {
            "half": "half-plus-two-savedmodel",
            "linear": "linear-regression/checkpoint/model",
            "linear-saved": "linear-regression/saved_model",
            "old": "old-variable-op/export",
        }.items():
            rows.append({"name": name, "checkpoint": SHARED / place})
        animals = {"checkpoint": SHARED / "animal-classifier-v4/classifier-model-v4", "inputs": "x"}
        rows.append({"name": "animals", **animals, "outputs": "y_pred"})
        norm = {"checkpoint": SHARED / "batchnorm-in-cond/regular_model", "inputs": "input"}
        rows.append({"name": "norm", **norm, "outputs": "fc1/BiasAdd", "pin": "is_training=false"})
        rows.append({"name": "faces", "checkpoint": SHARED / "retinaface-mnet/mnet.25-1080x1920"})
    batches.write_list(folder / "models.csv", rows)
    return folder


BROKEN = {
    "m0002": (
        "CheckpointError",
        r"m0002/model\.ckpt\.data-00000-of-00001: '\w+' lies outside the file \(got \d+ bytes",
    ),
    "m0003": ("CheckpointError", r"m0003/checkpoint/model\.ckpt\.data-00000-of-00001: 'w0' is damaged: CRC-32C"),
    "m0004": ("CheckpointError", r"m0004/model\.ckpt\.index: the index of the checkpoint is missing"),
    "m0006": ("CheckpointError", r"m0006/model\.ckpt\.meta: an HTML page in place of a checkpoint's file"),
    "m0007": ("FreezeError", r"probabilties: no such tensor in the graph\. Did you mean 'probabilities'\?"),
}


@pytest.fixture(scope="module")
def first(made: Path) -> Run:
    # Of the strangers' models one needs oneDNN: its channels come first.
    return run(made / "models.csv", made / "out", TF_ENABLE_ONEDNN_OPTS="1")


def test_bad_models_cost_only_themselves_and_say_why(first: Run) -> None:
    assert first.code == 30, first.log
    results = first.results
    assert len(results) == 8 + (7 if SHARED.is_dir() else 0)
    missed = {name for name, line in results.items() if line["verdict"] != "passed"}
    assert missed == set(BROKEN), [results[name]["reason"] for name in missed - set(BROKEN)]
    for name, (kind, sentence) in BROKEN.items():
        assert results[name]["verdict"] == "error"
        assert results[name]["error"] == kind
        assert re.search(sentence, results[name]["reason"]), results[name]["reason"]
        assert re.search(f"error +{name}: {kind}: .*{sentence}", first.told)
    assert f"passed       {len(results) - 5} of {len(results)} models" in first.told
    for name in results.keys() - missed:
        assert (first.root / name / "frozen" / "model.pb").stat().st_size > 0
        assert json.loads((first.root / name / "validation" / "verdict.json").read_text())["verdict"] == "passed"
        assert (first.root / results[name]["report"]).is_file()


def test_the_tables_tell_of_all(first: Run) -> None:
    results = first.results
    suites = ElementTree.parse(first.folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == list(results)
    assert suites.get("errors") == "5"
    assert suites.get("failures") == "0"
    for suite in suites:
        cases = [case.get("name") for case in suite]
        if suite.get("name") in BROKEN:
            assert cases == ["convert"]
        else:
            assert any(str(case).startswith("frozen.equal.") for case in cases)
            assert any(str(case).startswith("frozen.weights.") for case in cases)
    summary = (first.folder / "summary.md").read_text()
    assert "❌ Failed" in summary
    assert all(name in summary for name in BROKEN)
    page = (first.folder / "report.html").read_text()
    assert all(f">{name}<" in page for name in results)
    for name in results.keys() - set(BROKEN):
        own = first.root / name / "report"
        [back] = re.findall(r"part of <a href=\"([^\"]*)\"", (own / "report.html").read_text())
        # A browser takes the address as it is typed, without following the link to the last version.
        assert Path(os.path.normpath(own / back)).samefile(first.folder / "report.html")
        lines = len((first.root / name / "validation" / "results.csv").read_text().splitlines()) - 1
        assert int(results[name]["comparisons"]) == lines


def test_progress_is_plain_lines_where_there_is_no_terminal(first: Run) -> None:
    total = len(first.results)
    assert f"batch: {total} to convert" in first.log
    assert re.search(rf"batch: {total} of {total} done, 5 failed, 0 running, \d+ (s|min)", first.log)
    assert "m0004: CheckpointError: " in first.log
    assert "\r" not in first.log


def test_a_rerun_does_only_what_failed_or_changed_or_is_new(made: Path, first: Run, tmp_path: Path) -> None:
    root = made / "out"
    names = [name for name, line in first.results.items() if line["verdict"] == "passed"]
    before = stamps(root, *names)
    # One is mended, one is new, one has other weights now.
    for file in (made / "runs" / "m0005").glob("model.ckpt.*"):
        shutil.copy(file, made / "runs" / "m0004" / file.name)
    [added] = batches.make_checkpoints(made / "runs", 1, first=20)
    for file in added.parent.glob("model.ckpt.*"):
        shutil.copy(file, made / "runs" / "m0001" / file.name)
    with (made / "models.csv").open("a") as file:
        file.write(f"m0020,runs/m0020/model.ckpt{',' * (file_columns(made / 'models.csv') - 2)}\n")
    dry = run(made / "models.csv", root, "--dry-run", TF_ENABLE_ONEDNN_OPTS="1")
    assert dry.code == 1
    would = {line.split()[0] for line in dry.told.splitlines()[:-1]}
    assert would == {*BROKEN, "m0001", "m0020"}
    assert re.search(r"m0001 +checkpoint: .*runs/m0001/model\.ckpt\.data-00000-of-00001 changed", dry.told)
    assert dry.told.splitlines()[-1] == f"7 of {len(first.results) + 1} models would run"
    assert stamps(root, *names) == before
    again = run(made / "models.csv", root, TF_ENABLE_ONEDNN_OPTS="1")
    assert again.code == 30, again.log
    assert f"batch: 7 to convert or to look at, {len(names) - 1} complete already" in again.log
    after = stamps(root, *names)
    assert {name for name in names if after[name] != before[name]} == {"m0001"}
    assert {name for name, line in again.results.items() if line["verdict"] != "passed"} == set(BROKEN) - {"m0004"}


def file_columns(path: Path) -> int:
    return len(path.read_text().splitlines()[0].split(","))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A list of three good models."""
    prefixes = batches.make_checkpoints(tmp_path / "runs", 3)
    return batches.write_list(
        tmp_path / "models.csv",
        [{"name": prefix.parent.name, "checkpoint": prefix.relative_to(tmp_path)} for prefix in prefixes],
    )


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A list of three good models, and the run that has converted them."""
    folder = tmp_path_factory.mktemp("complete")
    prefixes = batches.make_checkpoints(folder / "runs", 3)
    rows = [{"name": prefix.parent.name, "checkpoint": prefix} for prefix in prefixes]
    manifest = batches.write_list(folder / "models.csv", rows)
    return manifest, run(manifest, folder / "out")


def test_a_finished_batch_exits_0_and_starts_nothing(complete: tuple[Path, Run]) -> None:
    (three, done), root = complete, complete[1].root
    assert done.code == 0, done.log
    assert "passed       3 of 3 models" in done.told
    content = (done.folder / "results.csv").read_bytes()
    again = run(three, root)
    assert again.code == 0
    assert "to convert" not in again.log
    assert "1 complete ones were encountered" in again.log + again.told
    # Without the notes on what was seen, the manifests say the same.
    for note in root.glob("*/.seen.json"):
        note.unlink()
    before = stamps(root, "m0000", "m0001", "m0002", stage="report")
    third = run(three, root)
    assert third.code == 0
    assert stamps(root, "m0000", "m0001", "m0002", stage="report") == before
    assert (third.folder / "results.csv").read_bytes() == content


def test_what_is_damaged_or_was_deleted_since_is_noticed(complete: tuple[Path, Run], tmp_path: Path) -> None:
    three, root = complete[0], Path(shutil.copytree(complete[1].root, tmp_path / "out", symlinks=True))
    (root / "m0001" / "validation" / "results.csv").unlink()
    batches.flip(root / "m0002" / "frozen" / "model.pb")
    done = run(three, root)
    assert done.code == 30
    lines = done.results
    assert lines["m0001"]["verdict"] == "passed"
    assert (root / "m0001" / "validation" / "results.csv").exists()
    assert lines["m0002"]["error"] == "DamagedArtifact"
    assert "m0002/frozen/model.pb: its bytes were changed after it was finished" in lines["m0002"]["reason"]
    shutil.rmtree((root / "m0002" / "frozen").resolve())
    assert run(three, root).code == 0


@pytest.mark.stress  # model by model: tests/unit/tasks/test_acceptance.py
def test_a_batch_is_accepted_as_a_whole_or_model_by_model(complete: tuple[Path, Run], tmp_path: Path) -> None:
    three, root = complete[0], Path(shutil.copytree(complete[1].root, tmp_path / "out", symlinks=True))
    names, stages = ("m0000", "m0001", "m0002"), ("checkpoint", "frozen", "validation")
    for name in names:
        made_with_other_code(root / name, *stages)
    made_with_other_code(root / "m0002", "frozen", settings={"freezing": {"ops_budget": -1}})
    given = ("--manifest", str(three), "--output-root", str(root), "--costs-seconds", "0")
    told = pipeline("why", "ConvertBatch", *given)
    assert told.returncode == 1
    assert (
        f"to keep artifacts whose code or libraries alone changed: python -m pipeline accept models --manifest {three}"
        in told.stdout
    )
    # By its name alone, with the parameters that its manifest records.
    assert pipeline("accept", "m0000", "frozen", "validation", "--output-root", str(root)).returncode == 0
    before = stamps(root, *names)
    accepted = pipeline("accept", "models", *given)
    assert accepted.returncode == 1
    assert "m0000: checkpoint   accepted: code of pipeline/errors.py changed" in accepted.stdout
    assert "m0000: frozen       is complete" in accepted.stdout
    assert "m0001: validation   accepted: code of pipeline/errors.py changed" in accepted.stdout
    assert "m0002: frozen: only changed code and library versions can be accepted" in accepted.stderr
    done = run(three, root)
    assert done.code == 0
    after = stamps(root, *names)
    assert {name for name in names if after[name] != before[name]} == {"m0002"}


def test_a_candidate_that_is_not_equal_fails_in_its_row(three: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    freeze(runs / "m0001" / "model.ckpt", ["probabilities"], ["x"], tmp_path / "other.pb")
    rows: list[dict[str, Any]] = [
        {"name": "same", "checkpoint": "runs/m0001/model.ckpt", "candidate": "other.pb"},
        {"name": "other", "checkpoint": "runs/m0000/model.ckpt", "candidate": "other.pb"},
    ]
    done = run(batches.write_list(tmp_path / "models.csv", rows), tmp_path / "out")
    assert done.code == 30, done.log
    assert done.results["same"]["verdict"] == "passed"
    assert done.results["other"]["verdict"] == "failed"
    assert done.results["other"]["error"] == "ValidationFailed"
    assert "frozen" in done.results["other"]["reason"] or "w0" in done.results["other"]["reason"]
    [suite] = [one for one in ElementTree.parse(done.folder / "junit.xml").getroot() if one.get("name") == "other"]
    assert int(str(suite.get("failures"))) > 0
    # The same failure is told again without being computed again.
    before = stamps(done.root, "other", stage="validation")
    assert run(tmp_path / "models.csv", tmp_path / "out").code == 30
    assert stamps(done.root, "other", stage="validation") == before


def test_a_list_with_faults_runs_nothing(three: Path, tmp_path: Path) -> None:
    with three.open("a") as file:
        file.write("m0001,runs/m0001/model.ckpt\n../up,runs/m0002/model.ckpt\n")
    done = run(three, tmp_path / "out")
    assert done.code in (35, 40)
    assert "line 5: the name m0001 is taken: line 3 has it" in done.log + done.told
    assert "line 6: name: not a valid folder name" in done.log + done.told
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.log
    without = luigi(*BATCH, "--output-root", str(tmp_path / "out"))
    assert without.returncode in (35, 40)
    assert "--manifest: a batch needs a list of its models (wanted a CSV file)" in without.stderr + without.stdout
    assert "Traceback" not in without.stderr


HOSTILE = """
import os, time
import numpy as np
import tensorflow as tf
v1 = tf.compat.v1
class M:
    signature = Signature((TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "float32", (None,)),))
    def examples(self, path):
        raise NotImplementedError
    def forward(self, inputs, training):
        if "{what}" == "hangs":
            time.sleep(3600)
        if "{what}" == "crashes":
            os.kill(os.getpid(), 11)
        if "{what}" == "greedy":
            kept = [np.ones(1 << 24) for _ in range(100)]
            time.sleep(3600)
        return {{"y": inputs["x"] * v1.get_variable("w", [], tf.float32)}}
"""


def test_a_model_that_hangs_crashes_or_takes_too_much_memory_costs_only_itself(three: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    header = "from pipeline.signature import Signature, TensorSpec\n"
    for what in ("hangs", "crashes", "greedy"):
        (tmp_path / f"{what}.py").write_text(header + HOSTILE.format(what=what))
        rows.append({"name": what, "checkpoint": "", "model": f"{tmp_path / what}.py:M"})
    rows.append({"name": "m0000", "checkpoint": "runs/m0000/model.ckpt"})
    manifest = batches.write_list(tmp_path / "models.csv", rows)
    limits = ["--batch-limit-seconds", "40", "--batch-limit-memory-gb", "3"]
    done = run(manifest, tmp_path / "out", *limits)
    assert done.code == 30
    results = done.results
    assert [name for name, line in results.items() if line["verdict"] == "passed"] == ["m0000"]
    assert {results[what]["error"] for what in ("hangs", "crashes", "greedy")} == {"StageCrashed"}
    assert "hangs: it gave no answer in time" in results["hangs"]["reason"]
    assert "limit_seconds" in results["hangs"]["reason"]
    assert "SIGSEGV" in results["crashes"]["reason"]
    assert "it took more memory than it may" in results["greedy"]["reason"]


@dataclass
class Undisturbed:
    """A batch that nobody has killed: its list, what every run must end with, and how long it took."""

    manifest: Path
    wanted: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest = batch_kills.make(folder, models=3)
    return Undisturbed(manifest, *batch_kills.undisturbed(manifest, folder / "out"))


@pytest.mark.parametrize(
    ("share", "is_whole"),
    [
        (0.75, True),
        (0.85, False),
        *(pytest.param(share, is_whole, marks=pytest.mark.stress) for share, is_whole in ((0.4, True), (0.6, False))),
    ],
)
def test_a_batch_that_was_killed_ends_with_the_same_bytes(
    undisturbed: Undisturbed, tmp_path: Path, share: float, is_whole: bool
) -> None:
    batch_kills.kill_one(undisturbed.manifest, tmp_path, share * undisturbed.seconds, random.Random(3), is_whole)
    batch_kills.finish(undisturbed.manifest, tmp_path)
    assert batch_kills.results(tmp_path) == undisturbed.wanted
    assert not batch_kills.leftovers(tmp_path)
