"""The plan of a job: what it computes once, and what it looks at again."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import small_graphs
import tensorflow as tf

from pipeline.errors import StoreError
from pipeline.inputs import ImportedCheckpoint
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest
from pipeline.tasks.chain import plan, stages
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.chain.stages import PACKAGE, stages_of

v1 = tf.compat.v1


class Openings:
    """Counts how often each file below a folder is opened; Python cannot remove an audit hook, so it is switched."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.counts: Counter[str] = Counter()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self.folder is not None and str(arguments[0]).startswith(self.folder):
            self.counts[Path(str(arguments[0])).name] += 1

    def of_examining(self, folder: Path, chain: Chain, last: str) -> Counter[str]:
        """The openings below a folder while a chain is examined."""
        self.folder, self.counts = str(folder), Counter()
        try:
            chain.examine(last)
        finally:
            self.folder = None
        return self.counts


OPENINGS = Openings()


def save_weights(prefix: Path, values: list[float]) -> None:
    """Writes other weights to a checkpoint whose graph stays."""
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.full((3, 2), values[0], np.float32))
        b = v1.get_variable("b", initializer=np.full(2, values[1], np.float32))
        session.run(v1.global_variables_initializer())
        v1.train.Saver([w, b]).save(session, str(prefix), write_meta_graph=False)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that starts at a checkpoint with its graph in a file beside it."""
    small_graphs.save(tmp_path / "in" / "model.ckpt")
    return Job(
        source=None,
        paths=ArtifactPaths(tmp_path / "out", "m"),
        data=None,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(),
        imported=ImportedCheckpoint(str(tmp_path / "in" / "model.ckpt")),
    )


def add_reasons(job: Job, count: int) -> None:
    """Rewrites the manifest of the checkpoint, so that it names libraries that are gone."""
    folder = job.folder("checkpoint")
    manifest = Manifest.read(folder)
    inputs = dict(manifest.fingerprint_inputs)
    inputs["versions"] = {**inputs["versions"], **{f"library{number}": "1.0" for number in range(count)}}
    (folder / MANIFEST_FILE).write_text(dataclasses.replace(manifest, fingerprint_inputs=inputs).to_json())


def test_wording_reasons_opens_no_file_again(job: Job, tmp_path: Path) -> None:
    Chain(job).build("checkpoint")
    complete = OPENINGS.of_examining(tmp_path / "in", Chain(job), "checkpoint")
    add_reasons(job, 40)
    state = Chain(job).examine("checkpoint")["checkpoint"]
    assert len(state.reasons) == 40
    assert OPENINGS.of_examining(tmp_path / "in", Chain(job), "checkpoint") == complete
    # Its graph is parsed once to find its files, and every file is hashed once.
    assert complete["model.ckpt.meta"] <= 2
    assert complete["model.ckpt.data-00000-of-00001"] == 1


def test_files_from_outside_are_named_by_their_paths(job: Job, tmp_path: Path) -> None:
    Chain(job).build("checkpoint")
    save_weights(tmp_path / "in" / "model.ckpt", [3.0, 4.0])
    reasons = Chain(job).examine("checkpoint")["checkpoint"].reasons
    assert any(reason.startswith(f"{tmp_path / 'in'}/model.ckpt.data-00000-of-00001 changed:") for reason in reasons)


def test_one_plan_sees_what_its_own_run_and_others_change(job: Job, tmp_path: Path) -> None:
    chain = Chain(job)
    assert chain.examine("frozen")["checkpoint"].status is ArtifactStatus.MISSING
    with pytest.raises(StoreError, match="frozen needs checkpoint, which is not complete"):
        chain.build("frozen")
    for stage in chain.up_to("frozen"):
        assert chain.build(stage).is_complete
    states = chain.examine("frozen")
    assert [state.is_complete for state in states.values()] == [True, True]
    before = chain.fingerprint_inputs("frozen", {"checkpoint": Manifest.read(job.folder("checkpoint"))})
    save_weights(tmp_path / "in" / "model.ckpt", [5.0, 6.0])
    assert [state.status for state in chain.examine("frozen").values()] == [
        ArtifactStatus.STALE,
        ArtifactStatus.WAITING,
    ]
    assert chain.build("checkpoint").is_complete
    after = chain.fingerprint_inputs("frozen", {"checkpoint": Manifest.read(job.folder("checkpoint"))})
    assert before["upstream"] != after["upstream"]
    assert chain.examine("frozen")["frozen"].status is ArtifactStatus.STALE
    assert chain.build("frozen").is_complete
    assert chain.examine("frozen")["frozen"].is_complete


def test_a_series_that_goes_on_is_noticed_by_the_same_plan(job: Job, tmp_path: Path) -> None:
    """Which files a checkpoint has is found again by each look."""
    assert job.imported is not None
    series = dataclasses.replace(job, imported=dataclasses.replace(job.imported, path=str(tmp_path / "in")))
    chain = Chain(series)
    assert chain.build("checkpoint").is_complete
    small_graphs.save(tmp_path / "in" / "model.ckpt-2")
    assert chain.examine("checkpoint")["checkpoint"].status is ArtifactStatus.STALE


def test_the_stages_of_a_job_are_computed_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Job] = []

    def count(asked: Job) -> dict[str, plan.Stage]:
        calls.append(asked)
        return stages_of(asked)

    monkeypatch.setattr(plan, "stages_of", count)
    chain = Chain(job)
    for stage in chain.up_to("frozen"):
        chain.build(stage)
    chain.examine("report")
    assert calls == [job]


def test_static_inputs_are_the_callers_own(job: Job) -> None:
    """What one caller adds does not reach the next."""
    chain = Chain(job)
    chain.static_inputs("frozen")["upstream"] = {"a": "b"}
    assert "upstream" not in chain.static_inputs("frozen")


TABLES = {
    "own": stages.STAGES,
    "imported": stages._IMPORTED,
    "imported weights": stages._IMPORTED_WEIGHTS,
    "Keras": stages._KERAS,
    "imported Keras": stages._KERAS_IMPORTED,
    "imported Keras weights": stages._KERAS_IMPORTED_WEIGHTS,
    "candidate": {"candidate": stages._CANDIDATE},
}


@pytest.mark.parametrize("table", TABLES)
def test_each_row_names_functions_and_files_that_exist(table: str) -> None:
    for name, stage in TABLES[table].items():
        assert all((PACKAGE / file).is_file() for file in stage.code), name
        tree = ast.parse((PACKAGE / stage.code[0]).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        functions |= {node.id for each in assigned for node in ast.walk(each) if isinstance(node, ast.Name)}
        assert stage.worker.partition(":")[2] in functions, name
