"""Training: saved and kept checkpoints, resuming after a kill, deployed weights."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from jobs import FRUIT, job_for, model_file, run

from pipeline.data import Examples
from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import DataError, ModelError, StageCrashed
from pipeline.settings import TrainingSettings
from pipeline.signature import Signature, TensorSpec
from pipeline.tasks.chain.job import Job
from pipeline.training import train
from pipeline.training.examples import row_order
from pipeline.training.progress import Progress
from pipeline.training.saver import Checkpoints

v1 = tf.compat.v1
MODEL = f"{FRUIT}:Fruit"

SLOPE = """
class M:
    signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    labels = TensorSpec("labels", "float32", [None])

    def forward(self, inputs, training):
        return {"y": inputs["x"] * tf.compat.v1.get_variable("w", [], initializer=tf.ones_initializer())}

    def loss(self, outputs, labels):
        return tf.reduce_mean((outputs["y"] - labels) ** 2)

    def optimizer(self):
        return OPTIMIZER

    def examples(self, path):
        x = np.linspace(-1, 1, ROWS, dtype=np.float32)
        return Examples({"x": x}, LABELS)
"""


def slope(
    folder: Path, optimizer: str = "GradientDescentOptimizer(0.1)", rows: int = 60, labels: str = "3 * x", **kw: Any
) -> Job:
    body = SLOPE.replace("OPTIMIZER", f"tf.compat.v1.train.{optimizer}").replace("ROWS", str(rows))
    return job_for(folder / "output", model_file(folder, body.replace("LABELS", labels)), **kw)


def steps_in(folder: Path) -> list[int]:
    """Lists the steps of the checkpoints in a folder that TensorFlow considers complete."""
    prefixes = [str(path).removesuffix(".index") for path in folder.glob("*.index")]
    assert all(v1.train.checkpoint_exists(prefix) for prefix in prefixes)
    return sorted(int(prefix.rpartition("-")[2]) for prefix in prefixes)


def results(job: Job) -> dict[str, bytes]:
    """Reads the results of a training by file: weights, goldens, state files, history, the last full checkpoint."""
    folder = job.folder("training")
    files = [*folder.glob("deploy/*/*"), folder / "history.csv", folder / "losses.npz"]
    files += folder.glob(f"checkpoints/model.ckpt-{job.settings.training.steps}.*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def kill_training(job: Job, after_step: int) -> Path:
    """Kills the training process after its first checkpoint; returns the folder of the remaining checkpoints."""
    errors: list[Exception] = []

    def train() -> None:
        try:
            run(job, "training")
        except StageCrashed as exc:
            errors.append(exc)

    run(job, "graph")
    thread, others = threading.Thread(target=train), set(multiprocessing.active_children())  # those that tests share
    thread.start()
    wait_for(lambda: any(job.paths.work("training").glob(f"*/checkpoints/model.ckpt-{after_step}.index")))
    [process] = set(multiprocessing.active_children()) - others
    os.kill(process.pid or 0, signal.SIGKILL)
    thread.join()
    assert "SIGKILL" in str(errors[0])
    assert not job.folder("training").exists()
    [work] = job.paths.work("training").iterdir()
    return work / "checkpoints"


# --- what is saved, and what stays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"save_every_steps": 3, "save_every_minutes": 0}, [3, 6, 8]),  # the last one always
        ({"save_every_steps": 0, "save_every_minutes": 1e-9}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"save_every_steps": 0, "save_every_minutes": 0}, [8]),
        ({"save_every_steps": 0, "save_every_minutes": 60}, [8]),
        ({"save_every_steps": 1, "save_every_minutes": 0, "keep": 2}, [7, 8]),
        ({"save_every_steps": 2, "keep": 1, "keep_every_hours": 1e-9}, [2, 4, 6, 8]),
        ({"save_every_steps": 2, "keep": 1, "keep_every_hours": 1}, [8]),
    ],
)
def test_checkpoints_are_saved_and_kept_as_the_settings_say(
    tmp_path: Path, settings: dict[str, Any], expected: list[int]
) -> None:
    job = slope(tmp_path, training={"steps": 8, "keep": 0, **settings})
    run(job, "training")
    folder = job.folder("training") / "checkpoints"
    assert steps_in(folder) == expected
    assert [path.name for path in folder.glob("*.meta")] == ["model.ckpt.meta"]
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(folder, moved)
    shutil.rmtree(tmp_path / "output")
    assert tf.train.latest_checkpoint(str(moved)) == str(moved / "model.ckpt-8")


def test_the_one_meta_graph_restores_every_checkpoint_and_trains_on(tmp_path: Path) -> None:
    job = slope(tmp_path, training={"steps": 4, "save_every_steps": 2})
    run(job, "training")
    folder, weights = job.folder("training") / "checkpoints", []
    for step in (2, 4):
        with tf.Graph().as_default() as graph, v1.Session() as session:
            saver = v1.train.import_meta_graph(str(folder / "model.ckpt.meta"))
            saver.restore(session, str(folder / f"model.ckpt-{step}"))
            [w] = v1.trainable_variables()
            assert session.run(v1.train.get_global_step(graph)) == step
            weights.append(session.run(w))
    assert 1 < weights[0] < weights[1] < 3


class Saves:
    """Training of one variable that only saves, in a session of this process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        with tf.Graph().as_default():
            v1.get_variable("w", [], initializer=tf.ones_initializer())
            self._checkpoints = Checkpoints(folder, TrainingSettings(**settings))
            self._session = v1.Session()
            self._session.run(v1.global_variables_initializer())
            self.restored = self._checkpoints.restore(self._session)

    def save(self, *steps: int) -> None:
        with self._session.graph.as_default():
            for step in steps:
                self._checkpoints.save(self._session, step)


def test_one_checkpoint_for_every_so_many_hours_stays_besides_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    started = Saves(tmp_path / "a", keep=2, keep_every_hours=2)
    for step in range(1, 41):
        clock += 30 * 60
        started.save(step)
    *hourly, last_but_one, last = steps_in(tmp_path / "a")
    assert (last_but_one, last) == (39, 40)
    assert 8 <= len(hourly) <= 10  # of 19 hours
    assert set(np.diff(hourly)) <= {4, 5}


def test_a_resumed_training_still_keeps_the_newest_and_the_hourly_ones(tmp_path: Path) -> None:
    Saves(tmp_path / "a", keep=2, keep_every_hours=1e-9).save(1, 2, 3, 4, 5)
    resumed = Saves(tmp_path / "a", keep=2, keep_every_hours=1e-9)
    resumed.save(6, 7, 8)
    assert resumed.restored == 5
    assert steps_in(tmp_path / "a") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_training_killed_before_it_dropped_an_old_checkpoint_drops_it_when_resumed(tmp_path: Path) -> None:
    Saves(tmp_path / "a", keep=3).save(1, 2, 3)
    Saves(tmp_path / "a", keep=2).save(4, 5)
    assert steps_in(tmp_path / "a") == [4, 5]


# --- killed and resumed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"graph": {"moving_average": 0.9}},
        {"training": {"batch_size": 50}},
    ],
    ids=["dropout", "moving averages", "odd batches"],
)
def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path, sections: dict[str, Any]) -> None:
    """Adds damaged checkpoints of every kind to those that the kill left."""
    training = {"steps": 300, "save_every_steps": 20, "evaluate_every_steps": 15, **sections.get("training", {})}
    killed, undisturbed = (
        job_for(tmp_path / name, MODEL, **{**sections, "training": training}) for name in ("killed", "undisturbed")
    )
    folder = kill_training(killed, after_step=60)
    newest = f"model.ckpt-{steps_in(folder)[-1]}"
    index, data = (folder / f"{newest}.index").read_bytes(), (folder / f"{newest}.data-00000-of-00001").read_bytes()
    broken = {
        "model.ckpt-997.index": index[: len(index) // 2],
        "model.ckpt-997.data-00000-of-00001": data,
        "model.ckpt-998.index": index,
        "model.ckpt-998.data-00000-of-00001": b"garbage" + data[7:],
        "model.ckpt-999.index": index,  # its shard is missing
        "model.ckpt-1000.data-00000-of-00001": data,  # its index is missing
        "model.ckpt-1001.index.tempstate123": index,
        "model.ckpt-1001.data-00000-of-00001.tempstate123": data[:9],
        "checkpoint": b'model_checkpoint_path: "model.ckpt-999"\n',
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    (folder / f"{newest}.data-00000-of-00001").write_bytes(data[:-5])  # the newest is cut off: the one before counts
    for job in (killed, undisturbed):
        run(job, "training")
    ours, theirs = results(killed), results(undisturbed)
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    for job in (killed, undisturbed):
        names = {path.name for path in (job.folder("training") / "checkpoints").iterdir()}
        kept = {
            f"model.ckpt-{step}{end}"
            for step in (220, 240, 260, 280, 300)
            for end in (".index", ".data-00000-of-00001")
        }
        assert names == kept | {"checkpoint", "model.ckpt.meta"}


def test_kill_9_of_the_main_process_ends_all_and_the_next_run_goes_on(tmp_path: Path) -> None:
    settings = {"steps": 800, "batch_size": 50, "evaluate_every_steps": 25, "save_every_steps": 60}
    command = [str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", "TrainModel", "--model", MODEL]
    command += ["--output-root", "killed", "--graph-moving-average", "0.9"]  # relative to the folder it is run in
    command += [f"--training-{name.replace('_', '-')}={value}" for name, value in settings.items()]
    killed, undisturbed = (
        job_for(tmp_path / name, MODEL, graph={"moving_average": 0.9}, training={"goldens": 64, **settings})
        for name in ("killed", "undisturbed")
    )
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "step 100 of 800" in line:
                break
        os.kill(process.pid, signal.SIGKILL)
        assert "step 100 of 800" in said[-1], "".join(said)
        wait_for(lambda: not session_members(process.pid), seconds=20)
        assert process.wait() == -signal.SIGKILL
    assert not killed.folder("training").exists()
    [work] = killed.paths.work("training").iterdir()
    assert 60 <= steps_in(work / "checkpoints")[-1] < 800
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stderr
    run(undisturbed, "training")
    ours, theirs = results(killed), results(undisturbed)
    assert [name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)] == []


def session_members(session: int) -> list[str]:
    """Processes of a session that still run, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, member_of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(member_of) == session and state not in "ZX":
            found.append(stat.parent.name)
    return found


def test_a_training_killed_after_its_last_step_has_only_to_be_finished(tmp_path: Path) -> None:
    sections = {"training": {"steps": 300, "save_every_steps": 100}}
    killed, undisturbed = (job_for(tmp_path / name, MODEL, **sections) for name in ("killed", "undisturbed"))
    kill_training(killed, after_step=100)
    run(undisturbed, "training")
    [work] = killed.paths.work("training").iterdir()
    shutil.rmtree(work)
    shutil.copytree(undisturbed.folder("training"), work, ignore=shutil.ignore_patterns("manifest.json", "last"))
    run(killed, "training")
    assert results(killed) == results(undisturbed)


def test_the_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    history = [(step, float(a), float(b)) for step, (a, b) in enumerate(random.normal(size=(2000, 2)), start=1)]
    Progress([float(loss) for loss in random.normal(size=50)], history).write(tmp_path)
    assert Progress.read(tmp_path).history == history


@pytest.mark.parametrize(("rows", "batch"), [(12, 4), (13, 4), (3, 8), (1, 1)])
def test_every_pass_takes_every_row_once_in_an_order_that_a_resumed_training_takes_too(rows: int, batch: int) -> None:
    per_pass = -(-rows // batch)
    order = list(itertools.islice(row_order(rows, batch, seed=5, done=0), 3 * per_pass))
    passes = [np.concatenate(order[start : start + per_pass]).tolist() for start in range(0, len(order), per_pass)]
    assert all(sorted(taken) == list(range(rows)) for taken in passes)
    assert rows < 12 or passes[0] != passes[1]
    for done in range(len(order)):
        resumed = itertools.islice(row_order(rows, batch, seed=5, done=done), len(order) - done)
        assert [a.tolist() for a in resumed] == [a.tolist() for a in order[done:]]


# --- which weights are deployed ----------------------------------------------------------------------------------


def test_moving_averages_are_what_is_deployed(tmp_path: Path) -> None:
    job = job_for(tmp_path / "output", MODEL, graph={"moving_average": 0.8})
    run(job, "training")
    folder = job.folder("training")
    full, deployed = (
        tf.train.load_checkpoint(str(folder / place)) for place in ("checkpoints/model.ckpt-40", "deploy/last")
    )
    names = [name for name, _ in tf.train.list_variables(str(folder / "deploy" / "last"))]
    assert sorted(names) == ["hidden/bias", "hidden/kernel", "logits/bias", "logits/kernel"]
    for name in names:
        average = full.get_tensor(f"{name}/ExponentialMovingAverage")
        assert np.array_equal(deployed.get_tensor(name), average)
        assert not np.array_equal(full.get_tensor(name), average)


def test_the_moving_average_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    job = slope(tmp_path, graph={"moving_average": 0.75}, training={"steps": 5, "batch_size": 1000})
    run(job, "training")
    stored = load_arrays(job.folder("training") / "validation.npz")
    x = np.setdiff1d(np.linspace(-1, 1, 60, dtype=np.float32), of_kind("input", stored)["x"]).astype(np.float64)
    w = average = 1.0
    for _ in range(5):
        w -= 0.1 * np.mean(2 * x * (w * x - 3 * x))
        average = 0.75 * average + 0.25 * w
    deployed = tf.train.load_variable(str(job.folder("training") / "deploy" / "last"), "w")
    assert deployed == pytest.approx(average, rel=1e-5)
    assert deployed != pytest.approx(w, rel=1e-2)


def test_best_is_the_lowest_validation_loss_and_goldens_are_of_their_own_weights(tmp_path: Path) -> None:
    training = {"steps": 30, "evaluate_every_steps": 1}
    weights, goldens = {}, {}
    for which in ("best", "last"):  # a heavy ball: it rolls past the lowest point
        job = slope(tmp_path, "MomentumOptimizer(0.05, 0.95)", training=training, export={"step": which})
        run(job, "checkpoint")
        folder = job.folder("checkpoint")
        weights[which] = tf.train.load_variable(str(folder / "model.ckpt"), "w")
        stored = load_arrays(folder / "goldens.npz")
        goldens[which] = of_kind("output", stored)["y"]
        with tf.Graph().as_default(), v1.Session() as session:
            v1.train.import_meta_graph(str(folder / "model.ckpt.meta")).restore(session, str(folder / "model.ckpt"))
            assert np.array_equal(goldens[which], session.run("y:0", {"x:0": of_kind("input", stored)["x"]}))
    history = pd.read_csv(job.folder("training") / "history.csv").set_index("step")["validation_loss"]
    assert list(history.index) == list(range(1, 31))
    best = history.idxmin()
    assert best < 30
    assert [path.name for path in (job.folder("training") / "deploy" / "best").glob("*.index")] == [
        f"model.ckpt-{best}.index"
    ]
    x = load_arrays(job.folder("training") / "validation.npz")["input/x"].astype(np.float64)
    for which, step in (("best", best), ("last", 30)):
        assert np.mean((weights[which] * x - 3 * x) ** 2) == pytest.approx(history[step], rel=1e-4)
    assert not np.array_equal(goldens["best"], goldens["last"])


# --- what cannot be trained --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "steps", "named"),
    [("1e30", 5, "step 2"), ("1e39", 1, "step 1")],
    ids=["on the way", "by the last step"],
)
def test_a_training_that_diverges_is_an_error_that_names_the_step(
    tmp_path: Path, rate: str, steps: int, named: str
) -> None:
    job = slope(tmp_path, f"GradientDescentOptimizer({rate})", training={"steps": steps})
    with pytest.raises(ModelError, match=f"{named}: .*diverged"):
        run(job, "training")
    assert not job.folder("training").exists()


@pytest.mark.parametrize(
    ("rows", "labels", "words"),
    [(1, "3 * x", "too few different rows"), (60, "None", "no labels to train on")],
)
def test_data_that_nothing_can_be_learned_from_is_refused(tmp_path: Path, rows: int, labels: str, words: str) -> None:
    job = slope(tmp_path, rows=rows, labels=labels)
    with pytest.raises(DataError, match=words):
        run(job, "training")


def test_an_input_with_one_value_for_a_batch_has_one_value_in_all_rows_to_train_on() -> None:
    signature = Signature(
        [TensorSpec("x", "float32", [None]), TensorSpec("t", "float32", [])], [TensorSpec("y", "float32", [None])]
    )
    x = np.arange(3, dtype=np.float32)
    train._require_one_value(Examples({"x": x, "t": np.ones(3, np.float32)}, x), signature)
    with pytest.raises(DataError, match="one value for all rows"):
        train._require_one_value(Examples({"x": x, "t": x}, x), signature)
