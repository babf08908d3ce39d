"""The commands as users type them: what they make, what they say, how they exit."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from commands import BIN, PROJECT, QUICK, luigi, pipeline, run
from jobs import ALL_STAGES, made_with_other_code, model_file

from pipeline.store.manifest import Manifest

FRUIT = "examples/fruit.py:Fruit"


@pytest.fixture(scope="module")
def fruit_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root in which the chain of the example model is complete."""
    root = tmp_path_factory.mktemp("fruit")
    # With a fork server of its own, as users have it; the other commands of the tests share one.
    done = luigi("WriteReport", "--model", FRUIT, "--output-root", str(root), *QUICK, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    return root


def test_a_model_of_ones_own_goes_the_whole_chain(fruit_root: Path) -> None:
    names = {path.name for path in (fruit_root / "fruit").iterdir() if not path.name.startswith(".")}
    assert names == ALL_STAGES
    for stage, files in {
        "checkpoint": {"checkpoint", "model.ckpt.index", "model.ckpt.meta", "signature.json", "goldens.npz"},
        "frozen": {"model.pb", "signature.json"},
        "validation": {"results.csv", "verdict.json"},
        "costs": {"costs.json", "costs.csv"},
        "report": {"report.html", "summary.md", "junit.xml"},
    }.items():
        assert {path.name for path in (fruit_root / "fruit" / stage).iterdir()} >= {*files, "manifest.json"}


def test_results_have_a_row_for_each_validation_row_and_output(fruit_root: Path) -> None:
    results = pd.read_csv(fruit_root / "fruit/validation/results.csv")
    verdict = json.loads((fruit_root / "fruit/validation/verdict.json").read_text())
    assert ",".join(results.columns) == (
        "model,format,check,output,row,element,reference,candidate,abs_diff,rel_diff,ulp_diff,verdict,runtime"
    )
    assert (results["check"] == "equal").sum() == verdict["rows"]["validation"] > 0
    assert set(results["verdict"]) == {"passed"}


def test_a_run_in_which_all_is_complete_says_the_verdict_and_loads_little(fruit_root: Path) -> None:
    command = [str(BIN / "python"), "-X", "importtime", str(BIN / "luigi"), "--module", "pipeline", "WriteReport"]
    again = run(*command, "--model", FRUIT, "--output-root", str(fruit_root), *QUICK)
    assert again.returncode == 0
    verdict, *files = again.stdout.splitlines()
    assert verdict.startswith("verdict      passed: ")
    assert [line.split()[0] for line in files] == ["frozen", "validation", "costs", "report"]
    assert all(Path(line.split()[1]).is_file() for line in files)
    loaded = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines() if "import time:" in line}
    assert "pipeline.tasks.chain.plan" in loaded
    for library in ("tensorflow", "numpy", "google.protobuf"):
        assert library not in loaded
    # What makes something, or explains what is wrong.
    for module in ("checkpoint.missing", "tasks.chain.report_facts", "workers.child", "workers.reads"):
        assert f"pipeline.{module}" not in loaded
    assert len([name for name in loaded if name.startswith("pipeline.")]) <= 46


def test_why_says_what_would_run_and_runs_nothing(fruit_root: Path) -> None:
    complete = pipeline("why", "WriteReport", "--model", FRUIT, "--output-root", str(fruit_root), *QUICK)
    assert complete.returncode == 0, complete.stdout
    assert complete.stdout.count("is complete") == len(ALL_STAGES)
    before = sorted((fruit_root / "fruit/.versions").iterdir())
    changed = pipeline(
        *("why", "WriteReport", "--model", FRUIT, "--output-root", str(fruit_root), *QUICK, "--training-steps", "50")
    )
    assert changed.returncode == 1
    assert "training     would run: setting training.steps changed: was 40, is 50" in changed.stdout
    assert "graph        is complete" in changed.stdout
    assert "checkpoint   might run: if training gives other bytes" in changed.stdout
    assert sorted((fruit_root / "fruit/.versions").iterdir()) == before


@pytest.fixture
def own_root(fruit_root: Path, tmp_path: Path) -> Path:
    """A copy of the output root, whose artifacts a test may change."""
    shutil.copytree(fruit_root, tmp_path / "out", symlinks=True)
    return tmp_path / "out"


def test_what_the_owner_accepts_is_kept_and_the_report_and_why_say_so(own_root: Path) -> None:
    made_with_other_code(own_root / "fruit", "training", "frozen")
    why = ("why", "WriteReport", "--model", FRUIT, "--output-root", str(own_root), *QUICK)
    told = pipeline(*why)
    assert told.returncode == 1
    assert "training     would run: code of pipeline/errors.py changed: sha256 was 000000000000…" in told.stdout
    *_, offer = told.stdout.splitlines()
    words = shlex.split(offer.removeprefix("to keep finished artifacts: python -m pipeline "))
    assert words[:4] == ["accept", "fruit", "training", "frozen"]
    before = {path: path.read_bytes() for path in (own_root / "fruit/frozen").iterdir()}
    # With the parameters of the offer; and without, as the manifests record them.
    accepted = [pipeline(*words[:3], *words[4:]), pipeline("accept", "fruit", "--output-root", str(own_root))]
    assert [done.returncode for done in accepted] == [0, 0], accepted
    assert "training     accepted: code of pipeline/errors.py changed" in accepted[0].stdout
    assert "frozen" not in accepted[0].stdout
    assert "training     is complete" in accepted[1].stdout
    assert "frozen       accepted: code of pipeline/errors.py changed" in accepted[1].stdout
    done = pipeline(*why)
    assert done.returncode == 0, done.stdout
    assert "frozen       is complete: kept under changed code or libraries, accepted 20" in done.stdout
    for stage in ALL_STAGES:
        assert pipeline("verify", str(own_root / "fruit" / stage)).returncode == 0
    after = {path: path.read_bytes() for path in (own_root / "fruit/frozen").iterdir()}
    assert {path.name for path in after if after[path] != before[path]} == {"manifest.json"}
    for file in ("report.html", "summary.md"):
        text = (own_root / "fruit/report" / file).read_text()
        assert text.count("training: kept under changed code or libraries, accepted 20") == (
            1 if file == "summary.md" else 2
        )
    assert "pipeline/errors.py changed: sha256 was 000000000000…" in (own_root / "fruit/report/report.html").read_text()
    # The next run makes nothing, and says what it said before.
    again = luigi("WriteReport", "--model", FRUIT, "--output-root", str(own_root), *QUICK)
    assert again.returncode == 0
    assert {path: path.read_bytes() for path in (own_root / "fruit/frozen").iterdir()} == after


def test_data_is_not_accepted_and_a_report_follows_its_model(own_root: Path, tmp_path: Path) -> None:
    made_with_other_code(own_root / "fruit", "training", files={"data": "0" * 64})
    refused = pipeline("accept", "fruit", "--output-root", str(own_root))
    assert refused.returncode == 3
    assert "only changed code and library versions can be accepted" in refused.stderr
    assert "examples/fruit.csv changed: sha256 was 000000000000…" in refused.stderr
    told = pipeline("why", "WriteReport", "--model", FRUIT, "--output-root", str(own_root), *QUICK)
    assert "to keep" not in told.stdout


def test_accept_needs_to_know_what_made_the_artifacts(own_root: Path) -> None:
    unknown = pipeline("accept", "pear", "--output-root", str(own_root))
    assert unknown.returncode == 3
    assert unknown.stderr == (
        f"{own_root}: no artifacts of this model (got pear). Known are fruit. Name the root of its run: "
        "python -m pipeline accept pear --output-root FOLDER\n"
    )
    place = pipeline("accept", str(own_root / "fruit"))
    command = f"python -m pipeline accept fruit --output-root {own_root}"
    assert place.stderr == f"{own_root}/fruit: a path in place of a model's name. Give both apart: {command}\n"
    # A manifest may have been written by somebody else: of its command, only parameters of ours are taken.
    folder = (own_root / "fruit/frozen").resolve()
    manifest = Manifest.read(folder)
    command = f"luigi --module pipeline WriteReport --module antigravity --mod=antigravity --model {FRUIT}"
    notes = {**manifest.notes, "command": shlex.join([*shlex.split(command), *QUICK]), "made": "9999"}
    (folder / "manifest.json").write_text(replace(manifest, notes=notes).to_json())
    done = run(str(BIN / "python"), "-v", "-m", "pipeline", "accept", "fruit", "--output-root", str(own_root))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "import 'shlex'" in done.stderr
    assert "antigravity" not in done.stderr


@pytest.mark.parametrize(
    "file", ["checkpoint/model.ckpt.data-00000-of-00001", "frozen/model.pb", "frozen/manifest.json"]
)
def test_a_flipped_byte_is_named_and_fails_every_command(fruit_root: Path, tmp_path: Path, file: str) -> None:
    root = tmp_path / "out"
    shutil.copytree(fruit_root, root, symlinks=True)
    path = (root / "fruit" / file).resolve()
    path.write_bytes(_flipped(path.read_bytes()))
    verified = pipeline("verify", str(root / "fruit" / Path(file).parent))
    assert verified.returncode != 0
    assert Path(file).name in verified.stderr
    rerun = luigi("WriteReport", "--model", FRUIT, "--output-root", str(root), *QUICK)
    assert rerun.returncode == 30
    assert Path(file).name in rerun.stdout
    assert "Traceback" not in rerun.stderr
    assert path.read_bytes() != (fruit_root / "fruit" / file).read_bytes()


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_verify_names_an_input_that_changed_since(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    shutil.copy(PROJECT / "data/multiply_add.csv", data)
    root = tmp_path / "out"
    assert (
        luigi("TrainModel", "--model", "multiply_add", "--data", str(data), "--output-root", str(root)).returncode == 0
    )
    assert pipeline("verify", str(root / "multiply_add/training")).returncode == 0
    data.write_text(data.read_text() + "8,9\n")
    verified = pipeline("verify", str(root / "multiply_add/training"))
    assert verified.returncode == 1
    assert f"input {data} changed: sha256 was" in verified.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["FreezeModel", "--model", "spm"], 40, "Did you mean 'spam'?"),
        (["FreezeModel", "--model", "examples/fruit.py:Froot"], 40, "no such class in the model's file (got Froot)"),
        (["FreezeModel", "--model", "examples/fruits.py:Fruit"], 40, "no such model file"),
        (["FreezeModel", "--model", "no.such.module:Model"], 40, "no such module"),
        (["FreezeModel", "--formats", "frozn"], 40, "Did you mean 'frozen'?"),
        (["FreezeModel", "--name", "../elsewhere"], 40, "not a valid folder name"),
        (["FreezeModel", "--training-steps", "0"], 40, "[training] steps: out of range (got 0, wanted at least 1)"),
        (["FreezeModel", "--training-steps", "many"], 40, "[training] steps: the value has the wrong type"),
        (["FreezeModel", "--validation-float32-rtol", "nan"], 40, "[validation] float32_rtol: out of range (got nan"),
        (["FreezeModel", "--data", "no/such.tsv"], 20, "failed       no/such.tsv: no such data file"),
        (["FrezeModel"], 1, "Did you mean: FreezeModel"),
    ],
)
def test_a_wrong_parameter_gets_a_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    root = tmp_path / "out"
    done = luigi(*arguments, *([] if code == 1 else ["--output-root", str(root)]))
    assert done.returncode == code
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any(root.rglob("model*"))


def test_a_model_file_that_does_not_import_is_told_with_its_line(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("class M:\n    data = 'rows.csv'\n\nimport no_such_library\n")
    (tmp_path / "rows.csv").write_text("x\n1\n")
    done = luigi("BuildGraph", "--model", f"{model}:M", "--output-root", str(tmp_path / "out"))
    assert done.returncode == 30
    assert f"No module named 'no_such_library' (at {model}:4)" in done.stdout
    assert "Traceback" not in done.stderr


def test_bad_data_is_a_failed_task_that_names_the_line(tmp_path: Path) -> None:
    data = tmp_path / "messages.csv"
    data.write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    done = luigi("TrainModel", "--data", str(data), "--output-root", str(tmp_path / "out"))
    assert done.returncode == 30
    assert f"{data}:1: an HTML page, not a table" in done.stdout
    assert not (tmp_path / "out/spam/training").exists()


def test_an_output_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = luigi("BuildGraph", "--model", "multiply_add", "--output-root", str(tmp_path / "file/out"))
    assert done.returncode == 30
    assert "cannot be written (got Not a directory)" in done.stdout


def test_a_failed_validation_fails_the_run_and_is_reported(tmp_path: Path) -> None:
    # TensorFlow multiplies constants with each other first, and variables not: with no tolerance that is another value.
    model = model_file(
        tmp_path,
        """
        class M:
            signature = Signature([TensorSpec("x", "float64", [None])], [TensorSpec("y", "float64", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                w = tf.compat.v1.get_variable("w", initializer=tf.constant(0.1, tf.float64))
                v = tf.compat.v1.get_variable("v", initializer=tf.constant(0.3, tf.float64))
                return {"y": (inputs["x"] * w) * v}
            def examples(self, path):
                return Examples({"x": np.arange(100.0) / 7})
        """,
    )
    root = tmp_path / "out"
    for _ in range(2):  # the second run finds the comparison done, and fails all the same
        strict = ("--validation-float64-rtol", "0", "--validation-float64-atol", "0", "--costs-seconds", "0")
        done = luigi("WriteReport", "--model", model, "--output-root", str(root), *strict)
        assert done.returncode == 30
        assert "is not proven equal to its checkpoint" in done.stdout
        verdict, cause, step, figures = done.stdout[done.stdout.index("verdict  ") :].splitlines()[:4]
        assert verdict == "verdict      failed"
        assert cause.startswith("cause        frozen: ")  # before any figure
        assert step.startswith("next         ")
        lines = len((root / "model/validation/results.csv").read_text().splitlines()) - 1
        assert re.match(rf"figures +\d+ of {lines} comparisons failed; largest difference ", figures)
        assert not re.search(r"\d\.\d{10}", done.stdout)
        assert "Traceback" not in done.stderr
    assert json.loads((root / "model/validation/verdict.json").read_text())["verdict"] == "failed"
    assert (root / "model/costs/costs.json").exists()
    assert "Failed" in (root / "model/report/report.html").read_text()
    assert len(list((root / "model/.versions").glob("validation-*"))) == 1


def test_an_unknown_key_in_the_settings_is_refused(tmp_path: Path) -> None:
    for text, sentence in {
        "[training]\nstep = 3\n": "unknown key (got step). Did you mean 'steps'",
        "[trainin]\nsteps = 3\n": "unknown section (got [trainin]). Did you mean 'training'",
        "[FreezeModel]\nmodl = spam\n": "Did you mean 'model'",
        "[worker]\nkeep_alife = true\n": "Did you mean 'keep_alive'",
    }.items():
        (tmp_path / "more.cfg").write_text(text)
        done = luigi("FreezeModel", "--output-root", str(tmp_path), LUIGI_CONFIG_PATH=str(tmp_path / "more.cfg"))
        assert done.returncode == 40
        assert sentence in done.stderr


def test_a_file_named_by_the_environment_overrides_and_the_command_line_overrides_that(tmp_path: Path) -> None:
    (tmp_path / "more.cfg").write_text("[training]\nsteps = 11\n")
    where = {"LUIGI_CONFIG_PATH": str(tmp_path / "more.cfg")}
    arguments = ["TrainModel", "--model", FRUIT, "--output-root", str(tmp_path / "out")]
    assert luigi(*arguments, **where).returncode == 0
    assert _steps(tmp_path) == 11
    assert luigi(*arguments, "--training-steps", "12", **where).returncode == 0
    assert _steps(tmp_path) == 12


def _steps(root: Path) -> int:
    manifest = json.loads((root / "out/fruit/training/manifest.json").read_text())
    return int(manifest["ingredients"]["settings"]["training"]["steps"])


def test_every_key_of_the_settings_is_explained_by_a_comment() -> None:
    lines = (PROJECT / "tasks.cfg").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if "=" in line and not line.startswith("#"):
            assert above.startswith("# "), line


def test_the_settings_file_holds_every_setting_with_its_default() -> None:
    import configparser
    import dataclasses

    from pipeline.settings import Settings

    parser = configparser.ConfigParser()
    parser.read(PROJECT / "tasks.cfg")
    for section, values in dataclasses.asdict(Settings()).items():
        assert {key: type(value)(parser[section][key]) for key, value in values.items()} == values
        assert set(parser[section]) == set(values)


def test_a_central_scheduler_is_used_when_one_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    state = ["--state-path", str(tmp_path / "state"), "--logdir", str(tmp_path)]
    server = subprocess.Popen(
        [BIN / "luigid", "--address", "127.0.0.1", "--port", port, *state], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(int(port))
        where = ["--scheduler-host", "127.0.0.1", "--scheduler-port", port]
        done = luigi("BuildGraph", "--model", "multiply_add", "--output-root", str(tmp_path / "out"), *where)
        assert done.returncode == 0
        seen = run("curl", "-s", f"http://127.0.0.1:{port}/api/task_list?data=%7B%22status%22%3A%22DONE%22%7D")
        assert "BuildGraph" in seen.stdout
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def test_help_explains_every_parameter() -> None:
    done = luigi("WriteReport", "--help")
    assert done.returncode == 0
    for parameter in ("--model", "--name", "--data", "--output-root", "--formats", "--warm-start", "--warm-start-map"):
        assert parameter in done.stdout
    assert "number of training steps" in luigi("--help-all").stdout
