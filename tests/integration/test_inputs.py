"""What a model's code reads decides it, and what is hashed is what was read."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import candidates
import pytest
from jobs import job_for, model_file, run

from pipeline.errors import PipelineError, StoreError
from pipeline.inputs import Candidate, ImportedCheckpoint
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths, ArtifactStatus
from pipeline.store.manifest import RECORDED, Manifest
from pipeline.store.remote import RemoteStore
from pipeline.tasks.batch import cache
from pipeline.tasks.batch.outcome import Outcome
from pipeline.tasks.chain import plan
from pipeline.tasks.chain.acceptance import accept
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain
from pipeline.training import import_checkpoint

# A model whose value depends on a vocabulary, a variable, a table in a file, and a file that may be missing.
READER = """
import os
from pathlib import Path
HERE = Path(__file__).parent
INDEX = tf.lookup.TextFileIndex
class M:
    signature = Signature([TensorSpec("word", "string", [None])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    def forward(self, inputs, training):
        start = len((HERE / "vocabulary.txt").read_text().split()) + float(os.environ["START"])
        if (HERE / "more.txt").exists():
            start += 100
        table = tf.lookup.TextFileInitializer(
            str(HERE / "table.txt"), tf.string, INDEX.WHOLE_LINE, tf.int64, INDEX.LINE_NUMBER)
        ids = tf.lookup.StaticHashTable(table, -1).lookup(inputs["word"])
        return {"y": tf.cast(ids, tf.float32) * tf.compat.v1.get_variable("w", initializer=start)}
    def examples(self, path):
        return Examples({"word": np.array([b"a", b"b"], object)})
"""


def _statuses(job: Job, last: str) -> dict[str, ArtifactStatus]:
    return {stage: state.status for stage, state in Chain(job).examine(last).items()}


def test_what_a_models_code_reads_decides_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("START", "2")
    for name in ("vocabulary.txt", "table.txt"):
        (tmp_path / name).write_text("a\nb\n")
    job = job_for(tmp_path / "out", model_file(tmp_path, READER))
    assert run(job, "frozen") == {"graph", "training", "checkpoint", "frozen"}
    assert run(job, "frozen") == set()

    def reasons(stage: str = "graph") -> list[str]:
        state = Chain(job).examine(stage)[stage]
        assert state.status is (ArtifactStatus.STALE if state.reasons else ArtifactStatus.COMPLETE)
        return [reason.split(":")[0] for reason in state.reasons]

    (tmp_path / "more.txt").touch()
    assert reasons() == ["the model's file more.txt is new"]
    (tmp_path / "more.txt").unlink()
    monkeypatch.setenv("START", "3")
    assert reasons() == ["the model's environment variable START changed"]
    monkeypatch.delenv("START")
    assert reasons() == ["the model's environment variable START is gone"]
    monkeypatch.setenv("START", "2")
    (tmp_path / "table.txt").rename(tmp_path / "away")
    assert reasons() == ["the model's file table.txt is gone"]
    (tmp_path / "away").rename(tmp_path / "table.txt")
    os.utime(tmp_path / "table.txt", (1, 1))
    assert reasons() == []

    before = (job.folder("frozen") / "model.pb").read_bytes()
    (tmp_path / "table.txt").write_text("c\na\nb\n")
    assert reasons() == ["the model's file table.txt changed"]
    assert reasons("training") == ["the graph's file table.txt changed"]
    # The graph holds only the name of the table's file; the `.pb` holds its lines.
    assert run(job, "frozen") >= {"graph", "frozen"}
    table = (job.folder("frozen") / "model.pb").read_bytes()
    assert table != before
    (tmp_path / "vocabulary.txt").write_text("a\nb\nc\n")
    assert reasons() == ["the model's file vocabulary.txt changed"]
    run(job, "frozen")
    assert (job.folder("frozen") / "model.pb").read_bytes() != table
    assert run(job, "frozen") == set()


ASKER = """
import sys
from pathlib import Path
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "parts.zip"))
import near, part
class M:
    signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    def forward(self, inputs, training):
        import later  # not before: the folder is still on the import path
        current = (HERE / "current").resolve().name
        start = float(current[1:]) + (HERE / "folder").is_dir() + (HERE / "other").exists() + part.X + near.X + later.X
        (HERE / "logs").mkdir(exist_ok=True)
        return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=start)}
    def examples(self, path):
        return Examples({"x": np.ones(2, np.float32)})
"""


def test_links_folders_and_archives_decide_a_stage_by_what_was_asked_of_them(tmp_path: Path) -> None:
    for name in ("folder", "v1", "v2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("v1")
    for name in ("near", "later"):
        (tmp_path / f"{name}.py").write_text("X = 1\n")
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.py", "X = 1\n")
    job = job_for(tmp_path / "out", model_file(tmp_path, ASKER))
    assert run(job, "graph") == {"graph"}
    (tmp_path / "logs").rmdir()  # the code makes it again: it decides nothing

    def reasons() -> list[str]:
        return list(Chain(job).examine("graph")["graph"].reasons)

    assert reasons() == []
    (tmp_path / "folder" / "name").touch()
    assert reasons() == []
    (tmp_path / "folder").rename(tmp_path / "other")
    assert reasons() == ["the model's file folder is gone: was 'folder'", "the model's file other is new: 'folder'"]
    (tmp_path / "other").rename(tmp_path / "folder")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("v2")
    assert reasons() == ["the model's link current changed: was 'v1', is 'v2'"]
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("v1")
    (tmp_path / "later.py").write_text("X = 2\n")
    assert [reason.split(":")[0] for reason in reasons()] == ["the model's file later.py changed"]
    (tmp_path / "later.py").write_text("X = 1\n")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "__init__.py").write_text("X = 2\n")  # Python takes it before near.py
    assert any("near/__init__.py is new" in reason for reason in reasons())
    shutil.rmtree(tmp_path / "near")
    assert reasons() == []
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.py", "X = 2\n")
    assert [reason.split(":")[0] for reason in reasons()] == ["the model's file parts.zip changed"]


def test_a_model_that_reads_nothing_has_no_recording_and_one_without_stays_complete(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", "multiply_add")
    run(job, "training")
    for stage in ("graph", "training"):
        manifest = Manifest.read(job.folder(stage))
        assert not set(RECORDED) & set(manifest.fingerprint_inputs)
        assert "unwatched" not in manifest.notes
    assert set(_statuses(job, "training").values()) == {ArtifactStatus.COMPLETE}


def test_what_was_read_is_known_to_other_hosts_and_to_a_batch_and_holds_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("START", "2.718281828")
    for name in ("vocabulary.txt", "table.txt"):
        (tmp_path / name).write_text("a\n")
    job = job_for(tmp_path / "out", model_file(tmp_path, READER))
    remote = RemoteStore.at(f"file://{tmp_path}/bucket", "model")
    one, two = (replace(job, paths=ArtifactPaths(tmp_path / host, "model"), remote=remote) for host in ("one", "two"))
    run(one, "graph")

    text = (one.folder("graph") / "manifest.json").read_text()
    assert "START" in text
    assert "718281828" not in text

    assert _statuses(two, "graph") == {"graph": ArtifactStatus.COMPLETE}  # downloaded
    monkeypatch.setattr(Chain, "up_to", lambda chain, last="report": ("graph",))
    local = Chain(replace(two, remote=None))
    seen = tmp_path / "memory" / "seen.json"
    seen.parent.mkdir()
    cache.store(seen, cache.look(local)[0], Outcome("model", "passed"))
    assert cache.load(seen, local) is not None
    monkeypatch.setenv("START", "3")
    assert cache.load(seen, local) is None
    assert _statuses(two, "graph") == {"graph": ArtifactStatus.STALE}
    monkeypatch.setenv("START", "2.718281828")
    (tmp_path / "vocabulary.txt").write_text("b\n")
    assert cache.load(seen, local) is None
    assert _statuses(two, "graph") == {"graph": ArtifactStatus.STALE}


def test_a_keras_models_vocabulary_decides_it(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    model = model_file(
        tmp_path,
        """
        import keras
        from pathlib import Path
        class M:
            signature = Signature([TensorSpec("x", "float32", [None, 2])], [TensorSpec("y", "float32", [None, 2])])
            data = "rows.csv"
            def build(self):
                words = keras.layers.StringLookup(vocabulary=str(Path(__file__).with_name("vocabulary.txt")))
                return keras.Sequential(
                    [keras.Input((2,), name="x"), keras.layers.Dense(words.vocabulary_size() - 1, name="y")])
            def examples(self, path):
                return Examples({"x": np.zeros((4, 2), np.float32)})
        """,
    )
    job = job_for(tmp_path / "out", model)
    run(job, "graph")
    assert _statuses(job, "graph") == {"graph": ArtifactStatus.COMPLETE}
    (tmp_path / "vocabulary.txt").write_text("b\na\n")
    assert "the model's file vocabulary.txt changed" in Chain(job).examine("graph")["graph"].reasons[0]


def test_a_run_says_what_it_cannot_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = model_file(
        tmp_path,
        """
        import subprocess
        subprocess.run(["true"])
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=2.0)}
            def examples(self, path):
                return Examples({"x": np.arange(4, dtype=np.float32)})
        """,
    )
    job = job_for(tmp_path / "out", model)
    run(job, "graph")
    [sentence] = Manifest.read(job.folder("graph")).notes["unwatched"]
    assert sentence == "what another program reads that it starts: true"
    assert _statuses(job, "graph") == {"graph": ArtifactStatus.COMPLETE}


INTERRUPTED = """
import os
from pathlib import Path
class M:
    signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    def forward(self, inputs, training):
        return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=2.0)}
    def examples(self, path):
        Path(__file__).with_name("vocabulary.txt").read_text()
        if Path(__file__).with_name("stop").is_symlink():  # which is not recorded
            raise RuntimeError("stopped")
        return Examples({"x": np.arange(4, dtype=np.float32)})
"""


@pytest.mark.parametrize("changes", [False, True])
def test_an_interrupted_training_goes_on_only_if_what_it_read_is_the_same(tmp_path: Path, changes: bool) -> None:
    (tmp_path / "vocabulary.txt").write_text("a\n")
    job = job_for(tmp_path / "out", model_file(tmp_path, INTERRUPTED))
    run(job, "graph")
    (tmp_path / "stop").symlink_to("nowhere")
    with pytest.raises(PipelineError, match="stopped"):
        Chain(job).build("training")
    [work] = job.paths.work("training").iterdir()
    (work / "left").touch()  # something to go on with
    with pytest.raises(PipelineError, match="stopped"):
        Chain(job).build("training")
    (tmp_path / "stop").unlink()
    if changes:
        (tmp_path / "vocabulary.txt").write_text("b\n")
    Chain(job).build("training")
    names = {path.name for path in job.folder("training").iterdir()}
    assert ("left" in names) == (not changes)
    assert ".reads" not in names


# Another file for as long as it is read.

SWAPS = {
    "written over": ("cp {other} {path}", "cp {kept} {path}"),
    "with its old time": ("cp -p {other} {path}", "cp -p {kept} {path}"),
    "renamed": ("mv {path} {path}.0; cp {other} {path}", "mv {path}.0 {path}"),
    "linked": ("mv {path} {path}.0; ln -s {other} {path}", "rm {path}; mv {path}.0 {path}"),
}


def _swap(path: Path, other: Path, way: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Commands that put another file in the place of one, and that put it back."""
    kept = shutil.copy2(path, f"{other}.kept")
    there, back = (
        lambda command=command: _require_zero(os.system(command.format(path=path, other=other, kept=kept)))
        for command in SWAPS[way]
    )
    return there, back


def _require_zero(code: int) -> None:
    assert code == 0


@pytest.mark.parametrize("way", SWAPS)
def test_a_data_file_that_is_another_one_while_it_is_read_is_noticed(tmp_path: Path, way: str) -> None:
    there, back = SWAPS[way]
    model = model_file(
        tmp_path,
        f"""
        import subprocess
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                return {{"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=2.0)}}
            def examples(self, path):
                names = dict(path=path, other=path.with_name("other.csv"), kept=path.with_name("kept.csv"))
                subprocess.run({there!r}.format(**names), shell=True, check=True)
                rows = np.array(path.read_text().split(), np.float32)
                subprocess.run({back!r}.format(**names), shell=True, check=True)
                return Examples({{"x": rows}})
        """,
    )
    for name, text in (("rows.csv", "1 2"), ("kept.csv", "1 2"), ("other.csv", "3 4")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1, 1))
    job = job_for(tmp_path / "out", model)
    with pytest.raises(StoreError, match=r"rows\.csv: an input changed while it was used"):
        run(job, "training")
    assert not job.paths.artifact("training").exists()


def test_a_module_that_is_another_one_while_it_is_imported_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "weights.py").write_text("START = 2.0\n")
    model = model_file(
        tmp_path,
        """
        import subprocess
        HERE = __file__.rpartition("/")[0]
        subprocess.run("mv weights.py kept; echo START = 3.0 > weights.py", shell=True, check=True, cwd=HERE)
        from weights import START
        subprocess.run("mv kept weights.py", shell=True, check=True, cwd=HERE)
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            def forward(self, inputs, training):
                return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=START)}
            def examples(self, path): ...
        """,
    )
    with pytest.raises(StoreError, match=r"weights\.py: an input changed while it was used"):
        run(job_for(tmp_path / "out", model), "graph")


def test_nothing_is_made_by_code_of_the_pipeline_that_is_not_what_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(job_for(tmp_path))
    chain.static_inputs("graph")
    monkeypatch.setattr(plan, "hash_code", lambda *_: {"upgraded.py": "0" * 64})
    with pytest.raises(StoreError, match="the pipeline's own code was changed while it ran"):
        chain.build("graph")


def test_what_was_read_is_not_accepted_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("START", "2")
    for name in ("vocabulary.txt", "table.txt"):
        (tmp_path / name).write_text("a\n")
    job = job_for(tmp_path / "out", model_file(tmp_path, READER))
    run(job, "graph")
    (tmp_path / "model.py").write_text((tmp_path / "model.py").read_text() + "OTHER = 1\n")
    (tmp_path / "vocabulary.txt").write_text("b\n")
    with pytest.raises(StoreError, match=r"only changed code.*the model's file vocabulary\.txt changed"):
        accept(Chain(job), ["graph"])
    (tmp_path / "vocabulary.txt").write_text("a\n")
    accept(Chain(job), ["graph"])
    assert _statuses(job, "graph") == {"graph": ArtifactStatus.COMPLETE}
    (tmp_path / "vocabulary.txt").write_text("b\n")
    assert _statuses(job, "graph") == {"graph": ArtifactStatus.STALE}


def _imported_job(root: Path, place: Path, candidate: Path | None = None, data: Path | None = None) -> Job:
    return Job(
        source=None,
        paths=ArtifactPaths(root, "m"),
        data=data,
        warm_start=None,
        formats=("frozen",),
        settings=Settings(),
        imported=ImportedCheckpoint(str(place), outputs=("y", "p")),
        candidate=None if candidate is None else Candidate(candidate, "frozen"),
    )


@pytest.mark.parametrize("way", ["with its old time", "linked"])
@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".meta"])
def test_a_checkpoint_that_is_another_one_while_it_is_imported_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, suffix: str
) -> None:
    prefix = candidates.save(tmp_path / "a" / "model.ckpt")
    other = candidates.save(tmp_path / "b" / "model.ckpt", lambda x: candidates.build(x * 2))
    there, back = _swap(Path(f"{prefix}{suffix}"), Path(f"{other}{suffix}"), way)
    original = import_checkpoint.import_checkpoint

    def swapped(*args: Any) -> dict[str, Any]:
        there()
        try:
            return original(*args)
        finally:
            back()

    monkeypatch.setattr(import_checkpoint, "import_checkpoint", swapped)
    job = _imported_job(tmp_path / "out", prefix)
    with pytest.raises(StoreError, match="an input changed while it was used"):
        run(job, "checkpoint")
    assert not job.paths.artifact("checkpoint").exists()


def test_a_candidate_that_is_another_one_while_it_is_imported_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.formats import external

    prefix = candidates.save(tmp_path / "a" / "model.ckpt")
    good = candidates.write_pb(candidates.frozen_graph(prefix), tmp_path / "good.pb")
    bad = candidates.write_pb(candidates.frozen_graph(prefix, candidates.far_off), tmp_path / "bad.pb")
    there, back = _swap(good, bad, "linked")
    original = external.import_candidate

    def swapped(*args: Any) -> dict[str, Any]:
        there()
        try:
            return original(*args)
        finally:
            back()

    job = _imported_job(tmp_path / "out", prefix, good)
    run(job, "checkpoint")
    monkeypatch.setattr(external, "import_candidate", swapped)
    with pytest.raises(StoreError, match="an input changed while it was used"):
        run(job, "candidate")
    assert not job.paths.artifact("candidate").exists()
