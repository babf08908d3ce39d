"""The parts of a night by themselves, and what is said where one cannot be made."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from commands import BIN, PROJECT, luigi, pipeline, run
from jobs import model_file
from luigi.tools.range import RangeDaily, RangeDailyBase
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import DataError, SettingError, StoreError
from pipeline.settings import NightlySettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths, hold
from pipeline.tasks.nightly.drift import describe_signature_changes
from pipeline.tasks.nightly.history import (
    Night,
    is_done,
    missing_dates,
    nearest_passed,
    newest_passed,
    read_history,
    restore_current,
    write_history,
)
from pipeline.tasks.nightly.notify import check_notifications, run_hook
from pipeline.tasks.nightly.page import page
from pipeline.tasks.nightly.paths import Nights
from pipeline.tasks.nightly.prometheus import prometheus_text, write_metrics
from pipeline.tasks.nightly.run import Outcome
from pipeline.tasks.nightly.task import NightlyRun, data_of

FRUIT = str(PROJECT / "examples/fruit.py:Fruit")


def test_a_day_without_data_ends_with_the_code_of_missing_data(tmp_path: Path) -> None:
    done = luigi(
        *(
            "NightlyRun",
            "--date",
            "2026-01-01",
            "--data",
            "{year}/{month}/{day}.csv",
            "--model",
            str(PROJECT / "examples/fruit.py:Fruit"),
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 20
    assert "2026/01/01.csv: no such data file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "{week}.csv"], "not the data file of a day (got {week}.csv"),
        (["--candidate", "model.pb"], "a night makes its formats and takes no candidate"),
        (["--nightly-changed-share", "2"], "[nightly] changed_share: out of range (got 2.0"),
        (["--nightly-keep", "-1"], "[nightly] keep: out of range (got -1"),
        (["--nightly-rows", "0"], "[nightly] rows: out of range (got 0"),
        (["--nightly-hook-seconds", "0"], "[nightly] hook_seconds: out of range (got 0.0"),
    ],
)
def test_what_is_not_right_is_said_before_anything_is_made(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = luigi("NightlyRun", "--date", "2026-01-01", "--model", "multiply_add", *arguments, cwd=tmp_path)
    assert done.returncode in (35, 40)
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["NightlyRun"], 40, "--date: NightlyRun needs it (got nothing, wanted a day, such as 2026-11-25)"),
        (["NightlyRun", "--date", "2026-02-30"], 40, "--date: it cannot be read (got 2026-02-30: day is out of range"),
        (["RangeDaily", "--of", "NightlyRun", "--start", "today"], 40, "--start: it cannot be read (got today: "),
        (["RangeDaily", "--of", "NightlyRunn", "--start", "2026-01-01"], 40, "--of: No task NightlyRunn. Did you mean"),
        (["RangeDailyBase", "--of", "NightlyRun"], 35, "At least one of start and stop needs to be specified"),
        (
            ["RangeDaily", "--of", "NightlyRun", "--start", "2026-01-01", "--of-params", '{"modell": "spam"}'],
            35,
            "unknown parameter modell",
        ),
    ],
)
def test_a_wrong_day_or_range_is_a_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    done = luigi(*arguments, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert sentence in done.stderr


def test_the_parameters_of_other_projects_are_explained_by_luigi_alone(tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(
        "import luigi, pipeline\nclass Publish(luigi.Task):\n    date = luigi.DateParameter()\n"
    )
    done = run(str(BIN / "luigi"), "--module", "team", "Publish", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{PROJECT}")
    assert "MissingParameterException" in done.stderr


def test_the_data_file_of_a_day_is_told_by_its_parts() -> None:
    assert data_of("data/{date}/x.tsv", date(2026, 1, 5)) == "data/2026-01-05/x.tsv"
    assert data_of("{year}/{month}/{day}", date(2026, 1, 5)) == "2026/01/05"
    assert data_of("", date(2026, 1, 5)) == ""
    for pattern in ("{", "{0}", "{date.x}", "{week}"):
        with pytest.raises(SettingError):
            data_of(pattern, date(2026, 1, 5))


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(ArtifactPaths(tmp_path, "model"))


def make_night(nights: Nights, night: str, model: bytes = b"model") -> None:
    """A folder as a night that passed leaves it, with one stage."""

    def make_model(folder: Path) -> dict[str, Any]:
        (folder / "model.pb").write_bytes(model)
        return {}

    def make_record(folder: Path) -> dict[str, Any]:
        told = dataclasses.asdict(Night(night, "passed"))
        noted = {"finished": "2026-01-31T02:30:00+00:00", "seconds": {}}
        record = {name: value for name, value in told.items() if name not in (*noted, "is_removed")}
        (folder / "record.json").write_text(json.dumps(record))
        return {"night": noted}

    made = artifact.build(nights.of(night), "frozen", lambda: {"files": {"model": model.decode()}}, make_model)
    assert made.manifest is not None
    digest = made.manifest.files["model.pb"].sha256
    if not nights.of(night).artifact("night").exists():
        artifact.build(nights.of(night), "night", lambda: {"upstream": {"frozen/model.pb": digest}}, make_record)


@pytest.mark.parametrize("kind", [RangeDaily, RangeDailyBase])
@pytest.mark.parametrize("param_name", ["date", None], ids=["by name", "first parameter"])
def test_luigis_ranges_ask_each_night_whether_it_is_complete(nights: Nights, kind: Any, param_name: str | None) -> None:
    for night in ("2026-01-01", "2026-01-02", "2026-01-03"):
        make_night(nights, night)
    (nights.of("2026-01-02").artifact("frozen") / "model.pb").write_bytes(b"damaged")
    given = {"of_params": {"model": "multiply_add", "name": "model", "output_root": str(nights.home.parent)}}
    days = {"start": date(2026, 1, 1), "stop": date(2026, 1, 5), "days_back": 36500}
    nightly = kind(of=NightlyRun, param_name=param_name, **given, **days)
    missing = nightly.requires()
    assert [task.night for task in missing] == ["2026-01-02", "2026-01-04"], "a damaged night is not complete"
    assert {(task.parameters.model, task.parameters.name) for task in missing} == {("multiply_add", "model")}


def test_history_reads_as_it_was_written(nights: Nights) -> None:
    nights.home.mkdir()
    told = {
        "2026-01-01": Night("2026-01-01", "passed", finished="2026-01-02T02:30:00+00:00", metrics={"f1": 0.1 + 0.2}),
        "2026-01-02": Night(
            *("2026-01-02", "failed", 'it, and "that"', "2026-01-01", 7, 3, float("inf"), "d"),
            finished="2026-01-03T02:30:00+00:00",
            is_removed=True,
            sizes={"frozen": 7},
            latencies={"frozen": 0.25},
        ),
    }
    write_history(nights, told)
    assert read_history(nights) == told


def test_a_history_that_was_changed_is_told_and_not_guessed(nights: Nights) -> None:
    nights.home.mkdir()
    nights.history.write_text("date,verdict\nyesterday,passed\n")
    with pytest.raises(DataError, match="the history of the nights cannot be read"):
        read_history(nights)


def test_the_night_to_compare_with_is_the_newest_earlier_one_or_else_the_next() -> None:
    verdicts = {"2026-01-01": "passed", "2026-01-02": "failed", "2026-01-04": "passed", "2026-01-05": "passed"}
    history = {night: Night(night, verdict) for night, verdict in verdicts.items()}
    assert nearest_passed("2026-01-03", history, history) == "2026-01-01"
    assert nearest_passed("2026-01-06", history, history) == "2026-01-05"
    assert nearest_passed("2026-01-03", history, ["2026-01-04", "2026-01-05"]) == "2026-01-04"
    assert nearest_passed("2026-01-04", history, ["2026-01-02", "2026-01-04"]) is None


def test_days_without_a_night_lie_between_the_first_and_the_last() -> None:
    assert missing_dates(["2026-03-01", "2026-02-27"]) == ["2026-02-28"]
    assert missing_dates([]) == []


def test_another_signature_is_told_in_full() -> None:
    then = Signature(
        [TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "int64")],
        [TensorSpec("p", "float32", (None,), tensor="p:0")],
        Decision("p", 0.5, ("ham", "spam")),
    )
    now = Signature(
        [TensorSpec("x", "float32", (None, 3)), TensorSpec("z", "int64")],
        [TensorSpec("p", "float32", (None,))],
        Decision("p", 0.9, ("spam", "ham")),
    )
    assert describe_signature_changes(then, then) == []
    assert describe_signature_changes(then, now) == [
        "the input x was x float32 [?, 2], is x float32 [?, 3]",
        "the input y int64 [...] is gone",
        "the input z int64 [...] is new",
        "the output that decides was p (ham, spam), is p (spam, ham)",
    ]


SCALED = """
    class M:
        outputs = [TensorSpec("p", "float32", [None])]
        signature = Signature([TensorSpec("x", "DTYPE", [None])], outputs, Decision("p", 0.5))
        data = "rows.csv"

        def forward(self, inputs, training):
            weight = tf.compat.v1.get_variable("weight", [], initializer=tf.constant_initializer(0.25))
            return {"p": tf.cast(inputs["x"], tf.float32) * weight}

        def examples(self, path):
            return Examples({"x": np.arange(40, dtype="DTYPE") / 10})
"""


def test_another_signature_fails_a_night_unless_it_is_meant(tmp_path: Path) -> None:
    def run_night(night: str, dtype: str, *more: str) -> subprocess.CompletedProcess[str]:
        model = model_file(tmp_path, SCALED.replace("DTYPE", dtype))
        place = ["--model", model, "--name", "scaled", "--output-root", str(tmp_path / "output")]
        return luigi("NightlyRun", "--date", night, *place, "--costs-seconds", "0", *more)

    assert run_night("2026-01-01", "float32").returncode == 0
    failed = run_night("2026-01-02", "float64")
    assert failed.returncode == 30
    assert "its signature is not that of 2026-01-01: the input x was x float32 [?], is x float64 [?]" in failed.stdout
    assert os.readlink(tmp_path / "output/scaled/current") == "2026-01-01"
    meant = run_night("2026-01-02", "float64", "--nightly-changed-share", "1")
    assert meant.returncode == 0
    assert os.readlink(tmp_path / "output/scaled/current") == "2026-01-02"
    changed = json.loads((tmp_path / "output/scaled/current/night/drift.json").read_text())
    assert changed["signature"] == ["the input x was x float32 [?], is x float64 [?]"]
    assert pipeline("verify", str(tmp_path / "output/scaled/current/night")).returncode == 0


def test_current_is_a_link_of_ours_or_nothing(nights: Nights) -> None:
    make_night(nights, "2026-01-01")
    assert nights.current is None
    nights.set_current("2026-01-01")
    assert (nights.link / "frozen/model.pb").read_bytes() == b"model"
    nights.set_current(None)
    assert not nights.link.is_symlink()
    nights.link.mkdir()
    with pytest.raises(StoreError, match="in the way"):
        nights.set_current("2026-01-01")


def test_the_night_that_current_names_stays_however_old(nights: Nights) -> None:
    for day in range(1, 6):
        make_night(nights, f"2026-01-0{day}")
    nights.set_current("2026-01-01")
    assert nights.outdated(2) == ["2026-01-02", "2026-01-03"]
    assert nights.outdated(0) == []


def test_only_what_the_pipeline_made_is_removed_and_nothing_in_use(nights: Nights) -> None:
    for night in ("2026-01-01", "2026-01-02", "2026-01-03"):
        make_night(nights, night)
    (nights.of("2026-01-01").home / "notes.txt").write_text("mine")
    nights.remove("2026-01-01")
    with hold(nights.of("2026-01-02").lock("frozen")):
        nights.remove("2026-01-02")
    nights.remove("2026-01-03")
    assert nights.kept() == ["2026-01-01", "2026-01-02"]


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("file", ["frozen/model.pb", "night/record.json", "night/manifest.json"])
def test_a_damaged_night_is_not_done_and_stops_no_other(nights: Nights, file: str) -> None:
    for night in ("2026-01-01", "2026-01-02"):
        make_night(nights, night)
        assert is_done(nights, night)
    flip(nights.of("2026-01-02").home / file)
    assert not is_done(nights, "2026-01-02")
    assert is_done(nights, "2026-01-01")
    assert newest_passed(nights, read_history(nights)) == "2026-01-01"


def test_bytes_that_changed_under_an_old_time_stamp_are_noticed_in_the_night_that_is_deployed(nights: Nights) -> None:
    for night in ("2026-01-01", "2026-01-02"):
        make_night(nights, night)
    nights.set_current("2026-01-02")
    model = nights.of("2026-01-02").home / "frozen/model.pb"
    stat = model.stat()
    flip(model)
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not is_done(nights, "2026-01-02")
    nights.set_current("2026-01-01")
    restore_current(nights)
    assert nights.current == "2026-01-01"


def test_a_night_that_is_done_is_told_and_takes_no_time(tmp_path: Path) -> None:
    night = ["NightlyRun", "--date", "2026-01-01", "--model", "multiply_add"]
    place = ["--output-root", str(tmp_path)]
    waiting = pipeline("why", *night, *place)
    assert waiting.returncode == 1
    assert waiting.stdout.splitlines()[-1] == "night        would run: it was not made yet"
    make_night(Nights(ArtifactPaths(tmp_path, "multiply_add")), "2026-01-01")
    assert pipeline("why", *night, *place).stdout == "night        is complete\n"
    command = [str(BIN / "python"), "-X", "importtime", str(BIN / "luigi"), "--module", "pipeline", *night, *place]
    done = run(*command)
    assert done.returncode == 0
    assert done.stdout.startswith("2026-01-01   passed: there was no night to compare it with\n")
    assert "import time:" in done.stderr
    assert "numpy" not in done.stderr


def test_a_night_that_was_killed_while_it_was_made_again_is_not_done(nights: Nights) -> None:
    make_night(nights, "2026-01-01")
    make_night(nights, "2026-01-02")
    make_night(nights, "2026-01-02", b"another model, which nothing has proven")
    assert not is_done(nights, "2026-01-02")
    assert newest_passed(nights, read_history(nights)) == "2026-01-01"


def test_a_night_whose_folder_was_deleted_is_made_again_and_one_that_was_removed_is_not(nights: Nights) -> None:
    make_night(nights, "2026-01-03")
    told = read_history(nights)
    for night, is_removed in (("2026-01-01", True), ("2026-01-02", False)):
        told[night] = Night(night, "passed", finished="2026-01-31T02:30:00+00:00", is_removed=is_removed)
    write_history(nights, told)
    assert [is_done(nights, f"2026-01-0{day}") for day in range(1, 5)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("no-such-command", "no-such-command cannot be run"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"nobody listens\")'", "ended with exit code 1: nobody listens"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "took longer than 0.5 s"),
    ],
)
def test_a_hook_that_fails_is_a_warning(
    nights: Nights, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, hook: str, sentence: str
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    seconds = 0.5 if "sleep" in hook else 60  # a busy machine may take longer to start Python
    settings = NightlySettings(hook=hook, hook_seconds=seconds)
    run_hook(settings, nights, Outcome(Night("2026-01-01", "passed"), "passed", None))
    assert sentence in caplog.text


def test_no_shell_reads_what_the_hook_is_told(nights: Nights, tmp_path: Path) -> None:
    write = "import os, sys; open(sys.argv[1], 'w').write(os.environ['PIPELINE_REASON'] + sys.argv[2])"
    settings = NightlySettings(hook=f"{sys.executable} -c \"{write}\" {tmp_path}/told '$(touch {tmp_path}/injected)'")
    night = Night("2026-01-01", "failed", f"$(touch {tmp_path}/injected); `false`")
    run_hook(settings, nights, Outcome(night, "failed", None))
    assert (tmp_path / "told").read_text() == night.reason + f"$(touch {tmp_path}/injected)"
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize(("key", "value"), [("hook", "mail 'owner"), ("metrics_file", "/var/lib/{host}.prom")])
def test_what_nobody_could_be_told_by_is_said_before_the_night(key: str, value: str) -> None:
    check_notifications(NightlySettings(hook="mail owner", metrics_file="/var/lib/{name}.prom"), "fruit")
    with pytest.raises(SettingError, match=rf"\[nightly\] {key}: not a"):
        check_notifications(NightlySettings(**{key: value}), "fruit")


def test_the_metrics_are_in_prometheus_own_format_whatever_the_name(nights: Nights) -> None:
    night = Night("2026-01-01", "failed", finished="2026-01-02T02:30:00+00:00", seconds={'a"b\\c': 1.5})
    text = prometheus_text(nights, {night.date: night})
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["pipeline_night_passed"].samples[0].value == 0
    assert families["pipeline_night_duration_seconds"].samples[0].labels == {"name": "model", "stage": 'a"b\\c'}
    assert "pipeline_night_last_success_timestamp_seconds" not in families


def test_metrics_that_cannot_be_written_are_a_warning(
    nights: Nights, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    write_metrics(nights.home / "no/such/folder.prom", nights, {"2026-01-01": Night("2026-01-01", "failed")})
    assert "the metrics cannot be written" in caplog.text


def test_the_page_takes_no_text_for_markup(nights: Nights) -> None:
    night = Night("2026-01-01", "failed", "<script>alert(1)</script>")
    text = page(nights, {night.date: night}, 0.05)
    assert "<script>" not in text
    assert "No night is current." in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_luigid_counts_nights_for_prometheus_by_luigis_own_option(tmp_path: Path) -> None:
    (tmp_path / "luigid.cfg").write_text("[scheduler]\nmetrics_collector = prometheus\n")
    config = str(tmp_path / "luigid.cfg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(
        [*(BIN / "luigid", "--address", "127.0.0.1", "--port", port), *("--state-path", tmp_path / "state")],
        env={**os.environ, "LUIGI_CONFIG_PATH": config},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.1)
        done = luigi(
            *("NightlyRun", "--date", "2026-01-01", "--model", "multiply_add", "--nightly-hook", "mail 'owner"),
            *("--output-root", str(tmp_path / "output"), "--scheduler-host", "127.0.0.1", "--scheduler-port", port),
            LUIGI_CONFIG_PATH=config,
        )
        assert done.returncode == 30, done.stderr
        told = run("curl", "-s", f"http://127.0.0.1:{port}/metrics").stdout
        assert 'luigi_task_failed_total{family="NightlyRun"} 1.0' in told
    finally:
        server.terminate()
        server.wait()
