"""The chain: what the artifacts hold, and exactly which stages a change makes again."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from jobs import ALL_STAGES, FRUIT, PROJECT, job_for, model_file, run

from pipeline import hashing
from pipeline.errors import DamagedArtifact, StoreError
from pipeline.store.artifact import ArtifactStatus, Manifest
from pipeline.tasks.chain import plan, results
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.plan import Chain

v1 = tf.compat.v1


# What multiply_add gives, by TensorFlow's own session over the artifacts.


@pytest.fixture(scope="module")
def multiply_add(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = job_for(tmp_path_factory.mktemp("multiply_add"), "multiply_add")
    assert run(job) == ALL_STAGES
    return job


def _from_checkpoint(job: Job) -> v1.Session:
    prefix = str(job.folder("checkpoint") / "model.ckpt")
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
    return session


def _from_pb(job: Job) -> v1.Session:
    graph_def = v1.GraphDef.FromString((job.folder("frozen") / "model.pb").read_bytes())
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return session


def test_two_times_three_gives_seven_from_the_checkpoint_and_from_the_pb(multiply_add: Job) -> None:
    for session in (_from_checkpoint(multiply_add), _from_pb(multiply_add)):
        assert session.run("op_to_store:0", {"x:0": 2, "y:0": 3}) == 7


def test_five_times_five_gives_26_from_the_pb(multiply_add: Job) -> None:
    assert _from_pb(multiply_add).run("op_to_store:0", {"x:0": 5, "y:0": 5}) == 26


def test_a_new_op_can_be_put_on_top_of_the_restored_checkpoint(multiply_add: Job) -> None:
    session = _from_checkpoint(multiply_add)
    with session.graph.as_default():
        doubled = tf.multiply(session.graph.get_tensor_by_name("op_to_store:0"), 2)
    assert session.run(doubled, {"x:0": 5, "y:0": 5}) == 52


def test_the_value_of_b_is_read_by_its_name(multiply_add: Job) -> None:
    for session in (_from_checkpoint(multiply_add), _from_pb(multiply_add)):
        value = session.run("b:0")
        assert (value, value.dtype) == (1, np.int32)


def test_the_checkpoint_is_the_four_files_of_a_saver(multiply_add: Job) -> None:
    ours = {"manifest.json", "signature.json", "goldens.npz", "validation.npz"}
    names = {path.name for path in multiply_add.folder("checkpoint").iterdir()}
    assert names - ours == {"checkpoint", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "model.ckpt.meta"}


def test_a_moved_checkpoint_folder_is_still_found(multiply_add: Job, tmp_path: Path) -> None:
    moved = shutil.copytree(multiply_add.folder("checkpoint"), tmp_path / "moved")
    assert tf.train.latest_checkpoint(str(moved)) == str(moved / "model.ckpt")


# What a change makes again.


@pytest.fixture(scope="module")
def made_fruit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example model, and with what its chain makes, in `out`."""
    folder = tmp_path_factory.mktemp("fruit")
    for name in ("fruit.py", "fruit.csv"):
        shutil.copy(FRUIT.parent / name, folder / name)
    assert run(job_for(folder / "out", f"{folder / 'fruit.py'}:Fruit")) == ALL_STAGES
    return folder


@pytest.fixture
def own_fruit(made_fruit: Path, tmp_path: Path) -> str:
    """The example model in a folder of its own, where it may be edited; in `out` its chain is complete."""
    shutil.copytree(made_fruit, tmp_path, symlinks=True, dirs_exist_ok=True)
    return f"{tmp_path / 'fruit.py'}:Fruit"


def own_copy(job: Job, root: Path) -> Job:
    """The same job under another root, where all that it has made may be changed."""
    shutil.copytree(job.paths.root, root, symlinks=True)
    return job_for(root)


def test_a_second_run_makes_nothing(own_fruit: str, made_fruit: Path, tmp_path: Path) -> None:
    assert run(job_for(made_fruit / "out", f"{made_fruit / 'fruit.py'}:Fruit")) == set()
    assert run(job_for(tmp_path / "out", own_fruit)) == set()  # nor in a folder that was copied with its model


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BEHIND_TRAINING = {"training", "checkpoint", "frozen", "validation", "costs", "report"}
BEHIND_FROZEN = {"validation", "costs", "report"}


@pytest.mark.parametrize(
    ("sections", "remade"),
    [
        ({"graph": {"seed": 8}}, ALL_STAGES),
        ({"split": {"seed": 8}}, BEHIND_TRAINING),
        ({"training": {"steps": 41}}, BEHIND_TRAINING),
        # Other checkpoints on the way, the same weights at the end: the chain stops being redone there.
        ({"training": {"save_every_steps": 15}}, {"training"}),
        ({"validation": {"batch_size": 7}}, {"validation"}),
        ({"costs": {"threads": 1}}, {"costs"}),
        ({"export": {"step": "best"}}, {"checkpoint"}),
    ],
)
def test_a_changed_setting_makes_its_stage_and_what_hangs_on_it_again(
    own_fruit: str, tmp_path: Path, sections: dict[str, dict[str, object]], remade: set[str]
) -> None:
    changed = job_for(tmp_path / "out", own_fruit, **sections)
    told = Chain(changed).examine("report")
    made = run(changed)
    if "export" in sections:
        # Whether the best step is the last is up to the training; with it the weights, and all behind them, change.
        notes = Manifest.read(changed.folder("training")).notes
        remade = remade if notes["best_step"] == notes["steps"] else BEHIND_TRAINING - {"training"}
        assert made >= {"checkpoint"}
    assert made - {"validation", "report"} == remade - {"validation", "report"}
    # What was said beforehand: each stage that was made would or might run, and none of the others would.
    for stage, state in told.items():
        assert state.is_complete == (stage not in made) or state.status is ArtifactStatus.WAITING
    assert any(state.status is ArtifactStatus.STALE for state in told.values())


def test_an_edited_data_file_redoes_the_training_and_is_named(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    data = tmp_path / "fruit.csv"
    added = [f"15{number}.0,70.0,0.50,1\n" for number in range(10)]  # some for training, some for validation
    data.write_text(data.read_text() + "".join(added))
    state = Chain(job).examine("report")["training"]
    assert state.status is ArtifactStatus.STALE
    assert [reason.split(":")[0] for reason in state.reasons] == [f"{data} changed"]
    assert run(job) == BEHIND_TRAINING


def test_a_touched_or_moved_data_file_redoes_nothing(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    os.utime(tmp_path / "fruit.csv", (1, 1))
    assert run(job) == set()
    moved = shutil.copy(tmp_path / "fruit.csv", tmp_path / "elsewhere.csv")
    assert run(job_for(tmp_path / "out", own_fruit, data=Path(moved))) == set()


def test_a_comment_in_the_model_redoes_nothing_and_code_what_it_decides(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    _edit(tmp_path / "fruit.py", "COLUMNS =", '# the measures\n"""Columns of the file."""\n\nCOLUMNS  =')
    assert run(job) == set()
    _edit(tmp_path / "fruit.py", "COLUMNS ", "unused = 1\nCOLUMNS ")
    assert "the model's file fruit.py changed" in Chain(job).examine("report")["graph"].reasons[0]
    # The graph is the same, and so are the weights: the rest of the chain stays.
    assert run(job) == {"graph", "training"}


def test_a_changed_model_redoes_everything_and_gives_another_pb(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    before = (job.folder("frozen") / "model.pb").read_bytes()
    _edit(tmp_path / "fruit.py", '16, "hidden"', '8, "hidden"')
    assert run(job) == ALL_STAGES
    assert (job.folder("frozen") / "model.pb").read_bytes() != before


def test_a_changed_module_beside_the_model_counts_as_the_models_code(tmp_path: Path) -> None:
    (tmp_path / "weights.py").write_text("START = 2.0\n")
    model = model_file(
        tmp_path,
        """
        from weights import START
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=START)}
            def examples(self, path):
                return Examples({"x": np.arange(4, dtype=np.float32)})
        """,
    )
    job = job_for(tmp_path / "out", model)
    run(job, "frozen")
    assert _from_pb(job).run("y:0", {"x:0": [3.0]}) == [6.0]
    (tmp_path / "weights.py").write_text("START = 5.0\n")
    run(job, "frozen")
    assert _from_pb(job).run("y:0", {"x:0": [3.0]}) == [15.0]


@pytest.mark.parametrize("library", ["tensorflow", "numpy"])
def test_another_version_of_a_library_redoes_everything(
    own_fruit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    now = hashing.version(library)
    hashing.library_versions.cache_clear()
    monkeypatch.setattr(hashing, "version", lambda name: "9.9" if name == library else now)
    try:
        states = Chain(job).examine("frozen")
    finally:
        hashing.library_versions.cache_clear()
    assert {state.status for state in states.values()} == {ArtifactStatus.STALE}
    assert f"{library} changed: version was '{now}', is '9.9'" in states["graph"].reasons


@pytest.fixture(scope="module")
def own_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's code in another place, with other comments and formatting, on which no stage depends."""
    place = tmp_path_factory.mktemp("project") / "pipeline"
    shutil.copytree(PROJECT / "pipeline", place, ignore=shutil.ignore_patterns("__pycache__"))
    hashing_file = place / "hashing.py"
    hashing_file.write_text(ast.unparse(ast.parse(hashing_file.read_text())) + "\n# a comment\n")
    return place


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("training/graphs.py", {"graph", "training"}),  # the training looks up names that building defines
        ("freezing/freeze.py", {"frozen", "validation"}),  # the weights are found as freezing finds them
        ("validation/validate.py", {"validation"}),
        ("formats/benchmark/worker.py", {"costs"}),
        ("report/templates/report.html.j2", {"report"}),
    ],
)
def test_changed_code_of_the_pipeline_redoes_the_stages_that_it_makes(
    multiply_add: Job, own_package: Path, monkeypatch: pytest.MonkeyPatch, module: str, stages: set[str]
) -> None:
    text = (own_package / module).read_text()
    (own_package / module).write_text(text + "changed = 1\n")
    monkeypatch.setattr(plan, "PACKAGE", own_package)
    monkeypatch.setattr(plan, "PROJECT", own_package.parent)
    plan._hash_package_code.cache_clear()
    try:
        states = Chain(multiply_add).examine("report")
    finally:
        plan._hash_package_code.cache_clear()
        (own_package / module).write_text(text)
    assert {stage for stage, state in states.items() if state.status is ArtifactStatus.STALE} == stages


def test_a_setting_changed_back_gives_the_same_bytes_again(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "out", own_fruit)
    before = (job.folder("frozen") / "model.pb").read_bytes()
    run(job_for(tmp_path / "out", own_fruit, training={"steps": 41}), "frozen")
    run(job, "frozen")
    assert (job.folder("frozen") / "model.pb").read_bytes() == before


# Damage and disorder.


@pytest.mark.parametrize(("stage", "file"), [("training", "validation.npz"), ("checkpoint", "model.ckpt.index")])
def test_a_stage_does_not_read_a_damaged_artifact_even_if_its_time_stamp_is_untouched(
    tmp_path: Path, stage: str, file: str
) -> None:
    job = job_for(tmp_path / "out")
    run(job, stage)
    path = job.folder(stage) / file
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    reader = next(name for name, row in Chain(job).stages.items() if stage in row.reads)
    with pytest.raises(DamagedArtifact, match=file):
        run(job, reader)
    assert not job.paths.artifact(reader).exists()


def test_a_lost_file_is_made_again(multiply_add: Job, tmp_path: Path) -> None:
    job = own_copy(multiply_add, tmp_path / "out")
    before = (job.folder("frozen") / "model.pb").read_bytes()
    (job.folder("frozen") / "model.pb").unlink()
    assert "model.pb is missing" in Chain(job).examine("frozen")["frozen"].reasons[0]
    assert run(job) == {"frozen"}
    assert (job.folder("frozen") / "model.pb").read_bytes() == before


def test_a_stage_whose_upstream_is_stale_refuses_to_be_built(tmp_path: Path) -> None:
    job = job_for(tmp_path / "out")
    with pytest.raises(StoreError, match="frozen needs checkpoint, which is not complete"):
        Chain(job).build("frozen")


def test_two_names_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = job_for(tmp_path, name="first"), job_for(tmp_path, name="second", validation={"batch_size": 3})
    assert run(first) == run(second) == ALL_STAGES
    assert run(first) == set()


def test_the_manifest_holds_what_decided_the_artifact(own_fruit: str, tmp_path: Path) -> None:
    job = job_for(tmp_path / "new", own_fruit)
    run(job, "training")
    manifest = json.loads((job.folder("training") / "manifest.json").read_text())
    assert manifest["ingredients"]["settings"]["training"]["steps"] == 40
    assert manifest["ingredients"]["versions"]["tensorflow"] == tf.__version__
    assert manifest["ingredients"]["versions"]["numpy"] == np.__version__
    assert manifest["notes"]["inputs"] == {"data": str(tmp_path / "fruit.csv")}
    assert manifest["notes"]["split_seed"] == 7
    assert {"command", "made", "seconds"} <= set(manifest["notes"])
    history = manifest["files"]["history.csv"]
    assert history["size_bytes"] == (job.folder("training") / "history.csv").stat().st_size


def test_a_data_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    model = model_file(
        tmp_path,
        """
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                return {"y": inputs["x"] * tf.compat.v1.get_variable("w", initializer=2.0)}
            def examples(self, path):
                path.write_text(path.read_text() + "more")
                return Examples({"x": np.arange(4, dtype=np.float32)})
        """,
    )
    job = job_for(tmp_path / "out", model)
    with pytest.raises(StoreError, match="an input changed while it was used"):
        run(job, "training")
    assert not job.paths.artifact("training").exists()


def test_weights_of_half_the_size_are_held_to_the_bounds_of_their_dtype(own_fruit: str, tmp_path: Path) -> None:
    exact, convert_to_float16 = (
        job_for(tmp_path / place, own_fruit, freezing={"weights": weights})
        for place, weights in (("out", "exact"), ("float16", "float16"))
    )
    for job in (exact, convert_to_float16):
        run(job)
    checks = [
        [check for check in results.read_verdict(job)["checks"] if check["format"] == "frozen"]
        for job in (exact, convert_to_float16)
    ]
    exact_checks = ("graph", "weights", "decisions")
    bounds = [{(c["rtol"], c["atol"]) for c in found if c["check"] not in exact_checks} for found in checks]
    assert bounds == [{(1e-5, 1e-6)}, {(5e-3, 5e-3)}]
    assert [(c["rtol"], c["atol"]) for found in checks for c in found if c["check"] == "weights"] == [(0, 0)] * 2
    assert results.read_verdict(convert_to_float16)["verdict"] == "passed"
    assert not all(check["bit_equal"] for check in results.read_verdict(convert_to_float16)["checks"])
    pbs = [(job.folder("frozen") / "model.pb").read_bytes() for job in (exact, convert_to_float16)]
    assert pbs[0] != pbs[1]
    assert run(job_for(tmp_path / "out", own_fruit, freezing={"weights": "float16"})) == {
        *("frozen", "validation", "costs", "report")
    }


WITH_TABLE = """
class M:
    signature = Signature([TensorSpec("word", "string", [None])], [TensorSpec("score", "float32", [None])])
    data = "rows.csv"
    def forward(self, inputs, training):
        keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1], tf.int64))
        ids = tf.lookup.StaticHashTable(keys, 2).lookup(inputs["word"])
        return {"score": tf.gather(tf.compat.v1.get_variable("w", [3]), ids)}
    def loss(self, outputs, labels):
        return tf.reduce_mean((outputs["score"] - tf.cast(labels, tf.float32)) ** 2)
    def examples(self, path):
        words = np.array([b"a", b"b", b"c"] * 20, object)
        return Examples({"word": words}, np.arange(60) % 3, [str(k) for k in range(60)])
"""


def test_a_model_with_a_table_is_trained_and_deployed_with_it_and_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    pbs = []
    for place in ("one", "two"):
        job = job_for(tmp_path / place, model_file(tmp_path, WITH_TABLE))
        run(job)
        assert results.read_verdict(job)["verdict"] == "passed"
        pbs.append((job.folder("frozen") / "model.pb").read_bytes())
    assert pbs[0] == pbs[1]
