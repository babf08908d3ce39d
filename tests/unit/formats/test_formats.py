"""Formats: one contract for all; the subprocess of a runner reports errors, may crash, and serves on after an error."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path

import jobs
import numpy as np
import pytest
from commands import run

from pipeline.errors import CheckpointError, PipelineError, RunnerError, StageCrashed
from pipeline.formats.registry import CANDIDATES, FORMATS, Format
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Signature, TensorSpec
from pipeline.validation.compare.tolerance import tolerance_for

SIGNATURE = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
SPY = """
    import os, signal, sys
    import numpy as np
    from pipeline.errors import RunnerError

    class Spy:
        def run(self, batch):
            word = bytes(batch["x"][0]).decode()
            if word == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "exit":
                os._exit(3)
            if word == "refuse":
                raise RunnerError("not this one", got=word)
            if word == "bug":
                raise LookupError("foreign")
            return {"pid": np.array(os.getpid()), "modules": np.array(sorted(sys.modules), object)}

    def open_runner(folder, signature, threads):
        return Spy()
    """


def ask(word: str) -> dict[str, np.ndarray]:
    return {"x": np.array([word.encode()], object)}


@pytest.fixture
def spy(no_kept_processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a folder in the format `spy`, whose runner reports its process and obeys commands."""
    (tmp_path / "spy_format.py").write_text(textwrap.dedent(SPY))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "spy", Format("spy_format:open_runner"))
    SIGNATURE.write(tmp_path / "signature.json")
    return tmp_path


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> jobs.Job:
    """Makes x * w + y, with two inputs, in every format."""
    folder = tmp_path_factory.mktemp("formats")
    body = """
        class M:
            signature = Signature(
                [TensorSpec("x", "float32", [None]), TensorSpec("y", "float32", [None])],
                [TensorSpec("z", "float32", [None])],
            )
            data = "rows.csv"

            def forward(self, inputs, training):
                w = tf.compat.v1.get_variable("w", initializer=3.0)
                return {"z": inputs["x"] * w + inputs["y"]}

            def examples(self, path):
                return Examples({name: np.arange(20, dtype=np.float32) for name in ("x", "y")}, None)
        """
    model = jobs.model_file(folder, body, "code_of_the_model.py")
    job = jobs.job_for(folder / "output", model, formats=CANDIDATES)
    for format in CANDIDATES:
        jobs.run(job, format)
    return job


BATCH = {"x": np.array([1.0, 2.0], np.float32), "y": np.array([0.5, 0.25], np.float32)}
WANT = np.array([3.5, 6.25], np.float32)
EVERY = pytest.mark.parametrize("format", FORMATS)


def test_a_runner_works_in_a_process_of_its_own_each(spy: Path) -> None:
    with SubprocessRunner("spy", spy, 1) as one, SubprocessRunner("spy", spy, 1) as other:
        pids = {int(runner.run(ask("who"))["pid"]) for runner in (one, one, other)}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_the_models_code_is_not_needed_to_run_its_artifacts(job: jobs.Job, spy: Path) -> None:
    hidden = job.source.file.with_suffix(".hidden")
    job.source.file.rename(hidden)
    try:
        for format in ("checkpoint", *CANDIDATES):
            with SubprocessRunner(format, job.folder(format), 1) as runner:
                np.testing.assert_array_equal(runner.run(BATCH)["z"], WANT, strict=True)
    finally:
        hidden.rename(job.source.file)
    with SubprocessRunner("spy", spy, 1) as runner:
        modules = runner.run(ask("who"))["modules"]
    assert not any("code_of_the_model" in name for name in modules)


def test_a_refused_batch_leaves_the_runner_alive(spy: Path) -> None:
    with SubprocessRunner("spy", spy, 1) as runner:
        pid = int(runner.run(ask("who"))["pid"])
        with pytest.raises(RunnerError, match="not this one") as error:
            runner.run(ask("refuse"))
        assert error.value.got == "refuse"
        assert int(runner.run(ask("who"))["pid"]) == pid


@pytest.mark.parametrize(("word", "named"), [("kill", "SIGKILL"), ("exit", "exit code 3"), ("bug", "LookupError")])
def test_a_runner_that_ends_says_how(word: str, named: str, spy: Path) -> None:
    with SubprocessRunner("spy", spy, 1) as runner:
        with pytest.raises(StageCrashed, match=named):
            runner.run(ask(word))
        with pytest.raises(PipelineError):
            runner.run(ask("who"))


def test_a_closed_runner_leaves_no_process(spy: Path) -> None:
    with SubprocessRunner("spy", spy, 1) as runner:
        pid = int(runner.run(ask("who"))["pid"])
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_runners_can_be_asked_before_either_answers(job: jobs.Job) -> None:
    with (
        SubprocessRunner("checkpoint", job.folder("checkpoint"), 1) as one,
        SubprocessRunner("frozen", job.folder("frozen"), 1) as other,
    ):
        for runner in (one, other):
            runner.ask(BATCH)
        for runner in (one, other):
            np.testing.assert_array_equal(runner.answer()["z"], WANT, strict=True)


BAD = {
    "lacks an input": ({"x": BATCH["x"]}, "y"),
    "has an input too many": ({**BATCH, "stray": BATCH["x"]}, "stray"),
    "is of another dtype": ({**BATCH, "y": BATCH["y"].astype(np.float64)}, "float64"),
    "is of another kind": ({**BATCH, "y": np.array([b"a", b"b"], object)}, ""),
    "is of another shape": ({**BATCH, "y": np.zeros((2, 2), np.float32)}, r"\by\b"),
}


@pytest.mark.parametrize("fault", BAD)
@EVERY
def test_a_batch_that_is_not_the_signatures_is_refused_and_the_next_is_answered(
    format: str, fault: str, job: jobs.Job
) -> None:
    batch, named = BAD[fault]
    with SubprocessRunner(format, job.folder(format), 1) as runner:
        with pytest.raises(RunnerError, match=named):
            runner.run(batch)
        np.testing.assert_array_equal(runner.run(BATCH)["z"], WANT, strict=True)


@EVERY
def test_a_graph_without_a_tensor_of_the_signature_is_not_opened(format: str, job: jobs.Job, tmp_path: Path) -> None:
    shutil.copytree(job.folder(format), tmp_path / "copy")
    old = Signature.read(tmp_path / "copy" / "signature.json")
    Signature(old.inputs, [TensorSpec("nowhere", "float32")]).write(tmp_path / "copy" / "signature.json")
    with (
        SubprocessRunner(format, tmp_path / "copy", 1) as runner,
        pytest.raises(RunnerError, match=r"nowhere: .*lacks"),
    ):
        runner.run(BATCH)


@EVERY
def test_a_tensor_of_another_dtype_than_the_signatures_is_not_opened(
    format: str, job: jobs.Job, tmp_path: Path
) -> None:
    shutil.copytree(job.folder(format), tmp_path / "copy")
    old = Signature.read(tmp_path / "copy" / "signature.json")
    Signature(old.inputs, [TensorSpec("z", "float64")]).write(tmp_path / "copy" / "signature.json")
    with SubprocessRunner(format, tmp_path / "copy", 1) as runner, pytest.raises(RunnerError, match="float64"):
        runner.run(BATCH)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("file", ["model.ckpt.data-00000-of-00001", "model.ckpt.index", "model.ckpt.meta"])
def test_a_damaged_checkpoint_file_is_named(file: str, damage: str, job: jobs.Job, tmp_path: Path) -> None:
    shutil.copytree(job.folder("checkpoint"), tmp_path / "copy")
    path = tmp_path / "copy" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif file.endswith(".meta"):
        path.write_bytes(b"\xff" * 20 + content[20:])
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with (
        SubprocessRunner("checkpoint", tmp_path / "copy", 1) as runner,
        pytest.raises(CheckpointError, match=r"model\.ckpt"),
    ):
        runner.run(BATCH)


@pytest.mark.parametrize("content", [b"\x07garbage" * 9, None])
def test_what_is_not_a_frozen_graph_is_named(content: bytes | None, job: jobs.Job, tmp_path: Path) -> None:
    shutil.copytree(job.folder("frozen"), tmp_path / "copy")
    (tmp_path / "copy" / "model.pb").unlink()
    if content is not None:
        (tmp_path / "copy" / "model.pb").write_bytes(content)
    with SubprocessRunner("frozen", tmp_path / "copy", 1) as runner, pytest.raises(RunnerError, match=r"model\.pb"):
        runner.run(BATCH)


# One convolutional network in every format: any batch, by name, with its weights, from whole files alone.

CNN = """
    class M:
        signature = Signature(
            [TensorSpec("image", "float32", [None, 8, 8, 1]), TensorSpec("shift", "float32", [None])],
            [TensorSpec("logits", "float32", [None, 4]), TensorSpec("probabilities", "float32", [None, 4])],
        )
        data = "rows.csv"

        def forward(self, inputs, training):
            v1, draw = tf.compat.v1, np.random.default_rng(5)

            def variable(name, *shape):
                values = draw.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
                return v1.get_variable(name, initializer=values.astype(np.float32))

            x = tf.nn.conv2d(inputs["image"], variable("kernel", 3, 3, 1, 16), 1, "SAME")
            mean, variance = variable("mean", 16), 1 + variable("variance", 16) ** 2
            x = v1.nn.fused_batch_norm(x, variable("g", 16), variable("b", 16), mean, variance, is_training=False)[0]
            x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "SAME")
            x = tf.nn.relu(tf.reshape(x, [-1, 256]) @ variable("dense", 256, 32))
            logits = x @ variable("last", 32, 4) + inputs["shift"][:, None] * tf.constant([0.0, 1.0, 2.0, 3.0])
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        def examples(self, path):
            draw = np.random.default_rng(9)
            images = draw.uniform(size=(20, 8, 8, 1)).astype(np.float32)
            return Examples({"image": images, "shift": draw.normal(size=20).astype(np.float32)}, None)
    """
CNN_FILES = {
    "frozen": "model.pb",
    "mmap": "graph.pb",
    "savedmodel": "saved_model.pb",
    **{name: f"model.{name.partition('_')[0]}" for name in CANDIDATES[3:]},
}
EVERY_CANDIDATE = pytest.mark.parametrize("format", CANDIDATES)
FROM_FROZEN = [name for name in CANDIDATES if FORMATS[name].origin == "frozen"]


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> jobs.Job:
    folder = tmp_path_factory.mktemp("cnn")
    job = jobs.job_for(folder / "output", jobs.model_file(folder, CNN), formats=CANDIDATES)
    for format in CANDIDATES:
        jobs.run(job, format)
    return job


def images(rows: int, seed: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shift = draw.normal(size=rows).astype(np.float32)
    return {"shift": shift, "image": draw.uniform(size=(rows, 8, 8, 1)).astype(np.float32)}


@EVERY_CANDIDATE
def test_every_format_answers_batches_of_any_size_as_its_checkpoint_does(format: str, cnn: jobs.Job) -> None:
    settings = cnn.settings.validation
    with (
        SubprocessRunner("checkpoint", cnn.folder("checkpoint"), 1) as reference,
        SubprocessRunner(format, cnn.folder(format), 1) as candidate,
    ):
        for rows in (2, 1, 7, 64, 7):
            ours, theirs = reference.run(images(rows, rows)), candidate.run(images(rows, rows))
            assert {*theirs} == {"logits", "probabilities"}
            tolerance = tolerance_for(settings, "float32", FORMATS[format].tolerance_class)
            for name in ours:
                assert theirs[name].dtype == np.float32
                assert theirs[name].shape == (rows, 4)
                np.testing.assert_allclose(theirs[name], ours[name], tolerance.rtol, tolerance.atol)
            assert np.abs(ours["logits"]).max() > 20 * tolerance.atol


@pytest.mark.parametrize("format", FROM_FROZEN)
def test_another_weight_gives_another_answer(format: str, cnn: jobs.Job, tmp_path: Path) -> None:
    frozen = shutil.copytree(cnn.folder("frozen"), tmp_path / "frozen")
    draw = np.random.default_rng(5)
    kernel = (draw.normal(size=(3, 3, 1, 16)) / 3).astype(np.float32)
    content = (frozen / "model.pb").read_bytes()
    assert content.count(kernel.tobytes()) == 1
    (frozen / "model.pb").write_bytes(content.replace(kernel.tobytes(), (kernel * 2).tobytes()))
    (tmp_path / "made").mkdir()
    FORMATS[format].make(frozen, tmp_path / "made", {})
    with (
        SubprocessRunner(format, cnn.folder(format), 1) as one,
        SubprocessRunner(format, tmp_path / "made", 1) as other,
    ):
        before, after = one.run(images(3))["logits"], other.run(images(3))["logits"]
    assert np.abs(before - after).max() > 0.1


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a page": lambda content: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "gone": lambda content: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
@EVERY_CANDIDATE
def test_a_file_that_is_not_whole_gets_a_sentence(format: str, damage: str, cnn: jobs.Job, tmp_path: Path) -> None:
    folder = shutil.copytree(cnn.folder(format), tmp_path / "copy")
    path = folder / CNN_FILES[format]
    content = DAMAGE[damage](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with SubprocessRunner(format, folder, 1) as runner, pytest.raises(RunnerError, match=r"\w+ \w+ \w+"):
        runner.run(images(1))


@pytest.mark.parametrize("format", [name for name in CANDIDATES if FORMATS[name].is_bare])
def test_formats_of_other_runtimes_are_run_without_tensorflow(format: str, cnn: jobs.Job) -> None:
    code = f"""
        import sys
        sys.modules["tensorflow"] = None  # whoever imports it fails
        import numpy as np
        from pathlib import Path
        from pipeline.formats.{FORMATS[format].family} import open_runner
        from pipeline.signature import Signature
        folder = Path({str(cnn.folder(format))!r})
        runner = open_runner(folder, Signature.read(folder / "signature.json"), 1)
        batch = {{"image": np.ones((3, 8, 8, 1), np.float32), "shift": np.zeros(3, np.float32)}}
        print(runner.run(batch)["logits"].shape)
        """
    done = run(sys.executable, "-c", textwrap.dedent(code))
    assert done.stdout.strip() == "(3, 4)", done.stderr


def test_the_process_of_such_a_format_has_not_loaded_tensorflow(spy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for is_bare in (True, False):
        monkeypatch.setitem(FORMATS, "spy", Format("spy_format:open_runner", is_bare=is_bare))
        with SubprocessRunner("spy", spy, 1) as runner:
            modules = runner.run(ask("who"))["modules"]
        assert ("tensorflow" in modules) != is_bare
