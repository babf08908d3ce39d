"""A week of nights with a bad one and two gaps, as a cron line makes them; and two weeks, the long form."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import BIN, PROJECT, run
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.tensorflow

FRUIT = {"model": str(PROJECT / "examples/fruit.py:Fruit")}
BAD, MISSING = "2026-01-09", ["2026-01-05", "2026-01-06"]
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


def day(number: int) -> str:
    return f"2026-01-{number:02}"


@dataclass(frozen=True)
class Calendar:
    """The nights of a range, from one day of January to another; both must be around the bad night and the gaps."""

    first: int
    last: int

    @property
    def dates(self) -> list[str]:
        return [day(number) for number in range(self.first, self.last + 1)]

    @property
    def there(self) -> list[str]:
        return [night for night in self.dates if night not in MISSING]


@pytest.fixture(
    scope="module", params=[Calendar(4, 10), pytest.param(Calendar(1, 14), marks=pytest.mark.stress)], ids=str
)
def calendar(request: pytest.FixtureRequest) -> Calendar:
    return request.param  # type: ignore[no-any-return]


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
def simulated(
    tmp_path_factory: pytest.TempPathFactory, mails: tuple[int, list[str]], calendar: Calendar
) -> dict[str, Seen]:
    """Four runs: days of which two are missing and one is bad; again with the two; two days more, the second
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

    start, last = calendar.dates[0], calendar.last
    for night in calendar.there:
        write_day(folder, night, is_bad=night == BAD)
    runs = {"first": see(nights_from(folder, start, day(last + 1)))}
    for night in MISSING:
        write_day(folder, night)
    runs["filled"] = see(nights_from(folder, start, day(last + 1)))
    write_day(folder, day(last + 1))
    (folder / "data" / day(last + 2)).mkdir()
    (folder / "data" / day(last + 2) / "fruit.csv").write_text("weight_g,diameter_mm,redness,fruit\n1,2,many,0\n")
    runs["more"] = see(nights_from(folder, day(last + 1), day(last + 3), "--nightly-keep", "3"))
    runs["again"] = see(nights_from(folder, start, day(last + 2), "--nightly-keep", "3"))
    return runs


def test_a_range_makes_every_night_that_has_data_however_long_ago(
    simulated: dict[str, Seen], calendar: Calendar
) -> None:
    first = simulated["first"]
    assert first.done.returncode == 2, first.done.stderr
    assert "Error 30" in first.done.stderr
    assert list(first.history) == calendar.there
    assert [event["date"] for event in first.events] == list(first.history)  # the oldest first
    assert {night for night, line in first.history.items() if line["verdict"] == "failed"} == {BAD}


def test_current_never_names_the_bad_night(simulated: dict[str, Seen], calendar: Calendar) -> None:
    for seen in simulated.values():
        assert BAD not in {seen.current, *(event["current"] for event in seen.events)}
    first = {event["date"]: event["current"] for event in simulated["first"].events}
    assert first[BAD] == "2026-01-08"
    assert all(current == night for night, current in first.items() if night != BAD)
    assert simulated["first"].current == simulated["filled"].current == calendar.dates[-1]


def test_a_night_is_compared_with_the_newest_earlier_one_that_passed(
    simulated: dict[str, Seen], calendar: Calendar
) -> None:
    first, filled = simulated["first"].history, simulated["filled"].history
    assert first[calendar.dates[0]]["compared_with"] == ""
    assert first[BAD]["compared_with"] == first["2026-01-10"]["compared_with"] == "2026-01-08"
    assert float(first[BAD]["changed_share"]) == 1
    assert BAD in simulated["first"].done.stdout
    assert "([nightly] changed_share)" in simulated["first"].done.stdout
    # What is filled later changes nothing in what was compared before.
    assert first["2026-01-07"]["compared_with"] == filled["2026-01-07"]["compared_with"] == "2026-01-04"
    assert filled["2026-01-06"]["compared_with"] == "2026-01-05"


def test_a_later_run_fills_the_gaps_and_makes_nothing_else_anew(simulated: dict[str, Seen], calendar: Calendar) -> None:
    first, filled = simulated["first"], simulated["filled"]
    assert "Error 30" in filled.done.stderr  # the bad night is bad as ever
    assert [event["date"] for event in filled.events] == [*MISSING, BAD]
    assert list(filled.history) == calendar.dates
    assert {night for night, line in filled.history.items() if line["verdict"] == "passed"} == {*calendar.dates} - {BAD}
    assert first.versions.items() <= filled.versions.items()
    assert {link.split("/")[0] for link in filled.versions.keys() - first.versions.keys()} == set(MISSING)


def test_the_page_shows_failures_and_gaps_over_the_dates(simulated: dict[str, Seen], calendar: Calendar) -> None:
    labels = re.findall(r'<svg[^>]* aria-label="([^"]*)"', simulated["first"].page)
    assert labels[0] == (
        f"decisions changed, % from {calendar.dates[0]} to {calendar.dates[-1]}; threshold 5; failed: {BAD}; "
        f"no night: {', '.join(MISSING)}; current: {calendar.dates[-1]}"
    )
    assert [label.split(" from ")[0] for label in labels[1:]] == ["metric", "size, KiB", "seconds"]
    filled = simulated["filled"].page
    assert f"failed: {BAD}; current: {calendar.dates[-1]}" in filled
    assert "no night" not in filled
    for night in calendar.dates:
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


def test_the_text_file_says_what_the_nights_are_like(simulated: dict[str, Seen], calendar: Calendar) -> None:
    last = datetime.fromisoformat(f"{calendar.dates[-1]}T00:00:00+00:00").timestamp()
    families = {family.name: family for family in text_string_to_metric_families(simulated["first"].metrics)}
    assert all(family.documentation and family.type == "gauge" for family in families.values())
    values = {name: family.samples[0].value for name, family in families.items()}
    assert values["pipeline_night_passed"] == 1
    assert values["pipeline_night_date_seconds"] == last
    assert 0 <= values["pipeline_night_current_age_seconds"] < 600
    assert values["pipeline_night_changed_decisions_ratio"] <= 0.05
    assert values["pipeline_night_last_success_timestamp_seconds"] > last
    stages = {sample.labels["stage"] for sample in families["pipeline_night_duration_seconds"].samples}
    assert stages == {"graph", "training", "checkpoint", "frozen", "validation", "costs", "report"}
    assert {sample.labels["name"] for family in families.values() for sample in family.samples} == {"fruit"}


def test_old_nights_are_removed_and_stay_in_the_history(simulated: dict[str, Seen], calendar: Calendar) -> None:
    more, after = simulated["more"], [day(calendar.last + 1), day(calendar.last + 2)]
    assert more.kept == [calendar.dates[-1], *after]
    assert list(more.history) == [*calendar.dates, *after]
    assert {night for night, line in more.history.items() if line["removed"] == "yes"} == set(calendar.dates[:-1])
    assert f"failed: {BAD}" in more.page


def test_a_night_whose_chain_fails_is_told_with_its_reason(simulated: dict[str, Seen], calendar: Calendar) -> None:
    more = simulated["more"]
    assert "Error 30" in more.done.stderr
    assert more.current == day(calendar.last + 1)
    failed = more.history[day(calendar.last + 2)]
    assert failed["verdict"] == "failed"
    assert "many" in failed["reason"]
    assert failed["compared_with"] == failed["metric_f1"] == ""
    assert [event["event"] for event in more.events] == ["passed", "failed"]


def test_removed_nights_count_as_done(simulated: dict[str, Seen]) -> None:
    again = simulated["again"]
    assert again.done.returncode == 0, again.done.stderr
    assert again.events == []
    assert again.versions == simulated["more"].versions
