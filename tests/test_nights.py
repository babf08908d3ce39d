"""Fourteen nights with a bad one and two gaps, as a cron line makes them; and the parts of a night by themselves."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
import random
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from commands import BIN, PROJECT, luigi, pipeline, run
from jobs import model_file
from prometheus_client.parser import text_string_to_metric_families

from pipeline import store
from pipeline.errors import DataError, SettingError, StoreError
from pipeline.nightly.drift import signature_changes
from pipeline.nightly.exposition import exposition, write_metrics
from pipeline.nightly.history import (
    Night,
    is_done,
    missing_dates,
    nearest_passed,
    newest_passed,
    read_history,
    write_history,
)
from pipeline.nightly.page import page
from pipeline.nightly.places import Nights
from pipeline.nightly.running import Outcome
from pipeline.nightly.telling import check_telling, run_hook
from pipeline.nights import data_of
from pipeline.settings import NightlySettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.store import Places, hold

FRUIT = {"model": str(PROJECT / "examples/fruit.py:Fruit")}
BAD, MISSING = "2026-01-09", ["2026-01-05", "2026-01-06"]
DATES = [f"2026-01-{day:02}" for day in range(1, 15)]
GOOD = [night for night in DATES if night != BAD]
# What the hook saw: it asks for the link while the night is over and the next one has not begun.
HOOK = """\
import json, os, sys
told = {key.removeprefix("PIPELINE_").lower(): value for key, value in os.environ.items() if key[:9] == "PIPELINE_"}
link = "output/fruit/current"
told["current"] = os.readlink(link) if os.path.islink(link) else None
with open("events.jsonl", "a") as file:
    file.write(json.dumps(told) + "\\n")
"""


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as it takes to be sent a mail."""

    def handle(self) -> None:
        self._say("220 here")
        mail, is_data = list[str](), False
        for line in (raw.decode().rstrip("\r\n") for raw in self.rfile):
            if is_data:
                is_data = line != "."
                mail.append(line)
                if not is_data:
                    self.server.mails.append("\n".join(mail))  # type: ignore[attr-defined]
                    self._say("250 taken")
            elif line.upper().startswith("DATA"):
                is_data = True
                self._say("354 go on")
            elif line.upper().startswith("QUIT"):
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture(scope="module")
def mails() -> Iterator[tuple[int, list[str]]]:
    """The port of a mail server, and what was sent to it."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        server.daemon_threads = True
        server.mails = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], server.mails  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def write_day(folder: Path, night: str, is_bad: bool = False) -> None:
    """A day's fruit, easily told apart; on a bad day all labels are wrong."""
    draw = random.Random(night)
    lines = ["weight_g,diameter_mm,redness,fruit"]
    for _ in range(150):
        kind = draw.randrange(3)
        weight, diameter, redness = [(170, 75, 0.6), (190, 75, 0.2), (8, 20, 0.9)][kind]
        values = (weight + draw.gauss(0, 8), diameter + draw.gauss(0, 4), redness + draw.gauss(0, 0.04))
        lines.append(f"{values[0]:.1f},{values[1]:.1f},{values[2]:.2f},{(kind + 1) % 3 if is_bad else kind}")
    (folder / "data" / night).mkdir(parents=True)
    (folder / "data" / night / "fruit.csv").write_text("\n".join(lines) + "\n")


def make(folder: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A target of the Makefile, from another working folder; the environment is taken for installed.

    Whatever the exit code of the command, make's is 2, and it says the other: `Error 30`.
    """
    venv = BIN.parent
    return run(
        *("make", "-f", str(PROJECT / "Makefile"), "-o", str(venv / ".installed"), target, f"VENV={venv}"),
        *(f"{name}={value}" for name, value in variables.items()),
        cwd=folder,
        LUIGI_CONFIG_PATH=str(folder / "nights.cfg"),
    )


def nights_from(folder: Path, start: str, stop: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The cron line, as `make nights` has it."""
    arguments = " ".join(["--stop", stop, *more])
    return make(folder, "nights", START=start, NIGHT_PARAMS=json.dumps(FRUIT), ARGS=arguments)


def lines_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "output/fruit/history.csv").open(newline="") as file:
        return {row["date"]: row for row in csv.DictReader(file)}


def versions_of(folder: Path) -> dict[str, str]:
    """Which version each link of each night names."""
    links = (path for path in (folder / "output/fruit").glob("2*/*") if path.is_symlink())
    return {f"{path.parent.name}/{path.name}": os.readlink(path) for path in links}


@dataclass
class Seen:
    """What stood there after a run."""

    done: subprocess.CompletedProcess[str]
    current: str
    history: dict[str, dict[str, str]]
    versions: dict[str, str]
    page: str
    events: list[dict[str, Any]]
    mails: list[str]
    metrics: str
    kept: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, mails: tuple[int, list[str]]) -> dict[str, Seen]:
    """Four runs: fourteen days of which two are missing and one is bad; again with the two; two days more, the second
    broken, of which three stay; and once more over all days."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "hook.py").write_text(HOOK)
    (folder / "nights.cfg").write_text(f"""\
[training]
steps = 60
evaluate_every_steps = 60
save_every_steps = 0
[costs]
seconds = 0
[validation]
checks = equal
[nightly]
data = data/{{date}}/fruit.csv
keep = 0
hook = {sys.executable} hook.py
metrics_file = {{name}}.prom
[email]
receiver = owner@example.org
[smtp]
host = 127.0.0.1
port = {mails[0]}
""")

    def see(done: subprocess.CompletedProcess[str]) -> Seen:
        home, events = folder / "output/fruit", folder / "events.jsonl"
        seen = Seen(
            done,
            os.readlink(home / "current"),
            lines_of(folder),
            versions_of(folder),
            (home / "nights.html").read_text(),
            [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else [],
            list(mails[1]),
            (folder / "fruit.prom").read_text(),
            sorted(path.name for path in home.glob("2*")),
        )
        events.unlink(missing_ok=True)
        mails[1].clear()
        return seen

    for night in DATES:
        if night not in MISSING:
            write_day(folder, night, is_bad=night == BAD)
    runs = {"first": see(nights_from(folder, "2026-01-01", "2026-01-15"))}
    for night in MISSING:
        write_day(folder, night)
    runs["filled"] = see(nights_from(folder, "2026-01-01", "2026-01-15"))
    write_day(folder, "2026-01-15")
    (folder / "data/2026-01-16").mkdir()
    (folder / "data/2026-01-16/fruit.csv").write_text("weight_g,diameter_mm,redness,fruit\n1,2,many,0\n")
    runs["more"] = see(nights_from(folder, "2026-01-15", "2026-01-17", "--nightly-keep", "3"))
    runs["again"] = see(nights_from(folder, "2026-01-01", "2026-01-16", "--nightly-keep", "3"))
    return runs


def test_a_range_makes_every_night_that_has_data_however_long_ago(simulated: dict[str, Seen]) -> None:
    first = simulated["first"]
    assert first.done.returncode == 2, first.done.stderr
    assert "Error 30" in first.done.stderr
    assert list(first.history) == [night for night in DATES if night not in MISSING]
    assert [event["date"] for event in first.events] == list(first.history)  # the oldest first
    assert {night for night, line in first.history.items() if line["verdict"] == "failed"} == {BAD}


def test_current_never_names_the_bad_night(simulated: dict[str, Seen]) -> None:
    for seen in simulated.values():
        assert BAD not in {seen.current, *(event["current"] for event in seen.events)}
    first = {event["date"]: event["current"] for event in simulated["first"].events}
    assert first[BAD] == "2026-01-08"
    assert all(current == night for night, current in first.items() if night != BAD)
    assert simulated["first"].current == simulated["filled"].current == "2026-01-14"


def test_a_night_is_compared_with_the_newest_earlier_one_that_passed(simulated: dict[str, Seen]) -> None:
    first, filled = simulated["first"].history, simulated["filled"].history
    assert first["2026-01-01"]["compared_with"] == ""
    assert first[BAD]["compared_with"] == first["2026-01-10"]["compared_with"] == "2026-01-08"
    assert float(first[BAD]["changed_share"]) == 1
    assert BAD in simulated["first"].done.stdout
    assert "([nightly] changed_share)" in simulated["first"].done.stdout
    # What is filled later changes nothing in what was compared before.
    assert first["2026-01-07"]["compared_with"] == filled["2026-01-07"]["compared_with"] == "2026-01-04"
    assert filled["2026-01-06"]["compared_with"] == "2026-01-05"


def test_a_later_run_fills_the_gaps_and_makes_nothing_else_anew(simulated: dict[str, Seen]) -> None:
    first, filled = simulated["first"], simulated["filled"]
    assert "Error 30" in filled.done.stderr  # the bad night is bad as ever
    assert [event["date"] for event in filled.events] == [*MISSING, BAD]
    assert list(filled.history) == DATES
    assert {night for night, line in filled.history.items() if line["verdict"] == "passed"} == set(GOOD)
    assert first.versions.items() <= filled.versions.items()
    assert {link.split("/")[0] for link in filled.versions.keys() - first.versions.keys()} == set(MISSING)


def test_the_page_shows_failures_and_gaps_over_the_dates(simulated: dict[str, Seen]) -> None:
    labels = re.findall(r'<svg[^>]* aria-label="([^"]*)"', simulated["first"].page)
    assert labels[0] == (
        f"decisions changed, % from 2026-01-01 to 2026-01-14; threshold 5; failed: {BAD}; "
        f"no night: {', '.join(MISSING)}; current: 2026-01-14"
    )
    assert [label.split(" from ")[0] for label in labels[1:]] == ["metric", "size, KiB", "seconds"]
    filled = simulated["filled"].page
    assert f"failed: {BAD}; current: 2026-01-14" in filled
    assert "no night" not in filled
    for night in DATES:
        assert f'href="{night}/report/report.html"' in filled


def test_history_has_the_figures_of_every_night(simulated: dict[str, Seen]) -> None:
    for line in simulated["filled"].history.values():
        assert 0.8 < float(line["metric_f1"]) <= 1
        assert int(line["size_bytes_frozen"]) > 1000
        assert float(line["seconds_training"]) > 0
        assert len(line["digest"]) == 64
        assert line["removed"] == "no"
    compared = [line for line in simulated["filled"].history.values() if line["compared_with"]]
    assert all(int(line["rows"]) > 10 for line in compared)


def test_failure_and_recovery_are_told_once_each(simulated: dict[str, Seen]) -> None:
    first = simulated["first"]
    assert [event["event"] for event in first.events if event["date"] in (BAD, "2026-01-10")] == ["failed", "recovered"]
    assert {event["event"] for event in first.events if event["date"] not in (BAD, "2026-01-10")} == {"passed"}
    bad = next(event for event in first.events if event["date"] == BAD)
    assert bad["name"] == "fruit"
    assert bad["verdict"] == "failed"
    assert "decisions (100.0%) are not those of 2026-01-08" in bad["reason"]
    assert Path(bad["report"]).name == "nights.html"
    subjects = [re.search(r"^Subject: (.*)$", mail, re.MULTILINE)[1] for mail in first.mails]  # type: ignore[index]
    assert len(subjects) == 2
    assert "NightlyRun" in subjects[0]
    assert "FAILED" in subjects[0]
    assert subjects[1] == "Luigi: fruit 2026-01-10 RECOVERED"


def test_the_text_file_says_what_the_nights_are_like(simulated: dict[str, Seen]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(simulated["first"].metrics)}
    assert all(family.documentation and family.type == "gauge" for family in families.values())
    values = {name: family.samples[0].value for name, family in families.items()}
    assert values["pipeline_night_passed"] == 1
    assert values["pipeline_night_date_seconds"] == 1768348800  # 2026-01-14
    assert 0 <= values["pipeline_night_current_age_seconds"] < 600
    assert values["pipeline_night_changed_decisions_ratio"] <= 0.05
    assert values["pipeline_night_last_success_timestamp_seconds"] > 1768348800
    stages = {sample.labels["stage"] for sample in families["pipeline_night_duration_seconds"].samples}
    assert stages == {"graph", "training", "checkpoint", "frozen", "validation", "costs", "report"}
    assert {sample.labels["name"] for family in families.values() for sample in family.samples} == {"fruit"}


def test_old_nights_are_removed_and_stay_in_the_history(simulated: dict[str, Seen]) -> None:
    more = simulated["more"]
    assert more.kept == ["2026-01-14", "2026-01-15", "2026-01-16"]
    assert list(more.history) == [*DATES, "2026-01-15", "2026-01-16"]
    assert {night for night, line in more.history.items() if line["removed"] == "yes"} == set(DATES[:-1])
    assert f"failed: {BAD}" in more.page


def test_a_night_whose_chain_fails_is_told_with_its_reason(simulated: dict[str, Seen]) -> None:
    more = simulated["more"]
    assert "Error 30" in more.done.stderr
    assert more.current == "2026-01-15"
    failed = more.history["2026-01-16"]
    assert failed["verdict"] == "failed"
    assert "many" in failed["reason"]
    assert failed["compared_with"] == failed["metric_f1"] == ""
    assert [event["event"] for event in more.events] == ["passed", "failed"]


def test_removed_nights_count_as_done(simulated: dict[str, Seen]) -> None:
    again = simulated["again"]
    assert again.done.returncode == 0, again.done.stderr
    assert again.events == []
    assert again.versions == simulated["more"].versions


def test_a_day_without_data_ends_with_the_code_of_missing_data(tmp_path: Path) -> None:
    done = luigi(
        *("NightlyRun", "--date", "2026-01-01", "--data", "{year}/{month}/{day}.csv", "--model", FRUIT["model"]),
        cwd=tmp_path,
    )
    assert done.returncode == 20
    assert "2026/01/01.csv: no such data file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "{week}.csv"], "not the data file of a day (got {week}.csv"),
        (["--candidate", "model.pb"], "a night makes its formats, it audits none"),
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


def test_the_data_file_of_a_day_is_told_by_its_parts() -> None:
    assert data_of("data/{date}/x.tsv", date(2026, 1, 5)) == "data/2026-01-05/x.tsv"
    assert data_of("{year}/{month}/{day}", date(2026, 1, 5)) == "2026/01/05"
    assert data_of("", date(2026, 1, 5)) == ""
    for pattern in ("{", "{0}", "{date.x}", "{week}"):
        with pytest.raises(SettingError):
            data_of(pattern, date(2026, 1, 5))


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(Places(tmp_path, "model"))


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

    made = store.build(nights.of(night), "frozen", lambda: {"model": model.decode()}, make_model)
    assert made.manifest is not None
    digest = made.manifest.files["model.pb"].sha256
    if not nights.of(night).artifact("night").exists():
        store.build(nights.of(night), "night", lambda: {"upstream": {"frozen/model.pb": digest}}, make_record)


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
    with pytest.raises(DataError, match="not the history that was written"):
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
    assert signature_changes(then, then) == []
    assert signature_changes(then, now) == [
        "the input x was x float32 [?, 2], is x float32 [?, 3]",
        "the input y int64 [?] is gone",
        "the input z int64 [?] is new",
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
    nights.name_current("2026-01-01")
    assert (nights.link / "frozen/model.pb").read_bytes() == b"model"
    nights.name_current(None)
    assert not nights.link.is_symlink()
    nights.link.mkdir()
    with pytest.raises(StoreError, match="in the way"):
        nights.name_current("2026-01-01")


def test_the_night_that_current_names_stays_however_old(nights: Nights) -> None:
    for day in range(1, 6):
        make_night(nights, f"2026-01-0{day}")
    nights.name_current("2026-01-01")
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


def test_a_night_that_is_done_is_told_and_takes_no_time(tmp_path: Path) -> None:
    night = ["NightlyRun", "--date", "2026-01-01", "--model", "multiply_add"]
    place = ["--output-root", str(tmp_path)]
    waiting = pipeline("why", *night, *place)
    assert waiting.returncode == 1
    assert waiting.stdout.splitlines()[-1] == "night        would run: it was not made yet"
    make_night(Nights(Places(tmp_path, "multiply_add")), "2026-01-01")
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
    run_hook(
        NightlySettings(hook=hook, hook_seconds=0.5), nights, Outcome(Night("2026-01-01", "passed"), "passed", None)
    )
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
    check_telling(NightlySettings(hook="mail owner", metrics_file="/var/lib/{name}.prom"), "fruit")
    with pytest.raises(SettingError, match=rf"\[nightly\] {key}: not a"):
        check_telling(NightlySettings(**{key: value}), "fruit")


def test_the_metrics_are_in_prometheus_own_format_whatever_the_name(nights: Nights) -> None:
    night = Night("2026-01-01", "failed", finished="2026-01-02T02:30:00+00:00", seconds={'a"b\\c': 1.5})
    text = exposition(nights, {night.date: night})
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
