"""What a batch leaves behind, from made-up outcomes: for programs, for CI, and for people with a browser."""

from __future__ import annotations

import csv
import html
import io
import os
import pty
import re
import select
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from luigi.cmdline_parser import CmdlineParser
from test_page import CHROMIUM, IS_REQUIRED, PHONE, POLICY, measured, visit

import pipeline.tasks.model  # noqa: F401  # declares the tasks
from pipeline.tasks.batch.listing import Row
from pipeline.tasks.batch.outcome import Outcome
from pipeline.tasks.batch.page import write_tables
from pipeline.tasks.batch.progress import Progress
from pipeline.tasks.batch.tables import Table
from pipeline.tasks.chain.job import Parameters


def check(name: str, verdict: str = "passed", reason: str = "") -> dict[str, str]:
    return {"name": name, "verdict": verdict, "reason": reason}


OUTCOMES = [
    Outcome(
        "small",
        "passed",
        formats=("frozen", "mmap"),
        checks=[check("frozen.equal.p"), check("mmap.equal.p")],
        comparisons=1200,
        max_abs_diff=6e-8,
        size_bytes=900,
        digest="ab" * 32,
        seconds={"frozen": 0.5, "validation": 1.5},
    ),
    Outcome("broken", "error", "CheckpointError", 'a.index: "quoted", <b>bold</b> | and\nmore'),
    Outcome(
        "wrong",
        "failed",
        "ValidationFailed",
        "equal of p: 3 of 7 rows failed",
        ("frozen",),
        [check("frozen.equal.p", "failed", "3 of 7 rows failed"), check("frozen.golden.p")],
        64,
        0.25,
        3,
        5_000_000,
        "cd" * 32,
        {"frozen": 100.0},
    ),
    Outcome("large", "passed", formats=("frozen",), checks=[check("frozen.equal.p")], comparisons=64, size_bytes=10**9),
]


def batch_of(outcomes: list[Outcome]) -> Table:
    rows = [Row(2 + k, Parameters(name=outcome.name), f"runs/{outcome.name}") for k, outcome in enumerate(outcomes)]
    return Table("night", rows, outcomes)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write_tables(tmp_path, batch_of(OUTCOMES))
    return tmp_path


def test_results_hold_a_line_for_each_model_in_the_order_of_the_list(tables: Path) -> None:
    with (tables / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["small", "broken", "wrong", "large"]
    assert lines[0]["checkpoint"] == "runs/small"
    assert float(lines[0]["max_abs_diff"]) == 6e-8
    assert lines[0]["formats"] == "frozen mmap"
    assert lines[1]["reason"] == 'a.index: "quoted", <b>bold</b> | and more'
    assert (lines[1]["comparisons"], lines[1]["report"]) == ("", "")
    assert lines[2]["report"] == "wrong/report/report.html"
    write_tables(tables, batch_of([Outcome(**{**vars(one), "seconds": {"frozen": 9.0}}) for one in OUTCOMES]))
    with (tables / "results.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == lines  # how long it took is in none of them


def test_junit_has_a_case_for_each_model_and_check(tables: Path) -> None:
    root = ElementTree.parse(tables / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("6", "1", "1")
    assert [suite.get("name") for suite in root] == ["small", "broken", "wrong", "large"]
    [error] = root.findall(".//error")
    assert error.get("type") == "CheckpointError"
    assert "<b>bold</b>" in str(error.get("message"))
    [failure] = root.findall(".//failure")
    assert failure.get("message") == "3 of 7 rows failed"


def test_a_failure_that_no_check_tells_is_a_case_of_its_own(tmp_path: Path) -> None:
    write_tables(tmp_path, batch_of([Outcome("odd", "failed", "ValidationFailed", "nothing was compared")]))
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("1", "1")
    assert "nothing was compared" in ElementTree.tostring(root, encoding="unicode")


def test_the_summary_names_what_failed_and_lets_no_markup_through(tables: Path, tmp_path: Path) -> None:
    text = (tables / "summary.md").read_text()
    assert text.startswith("# ❌ Failed: night\n")
    assert "2 of 4 models did not pass: 1 CheckpointError, 1 ValidationFailed." in text
    assert r"\<b\>bold\</b\> \| and more" in text
    assert "small" not in text
    write_tables(tmp_path, batch_of([OUTCOMES[0]]))
    assert (tmp_path / "summary.md").read_text().startswith("# ✅ Passed: night\n")


def test_a_page_of_thousands_is_small(tmp_path: Path) -> None:
    many = [Outcome(**{**vars(OUTCOMES[k % 4]), "name": f"m{k:05d}"}) for k in range(5000)]
    write_tables(tmp_path, batch_of(many))
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


needs_a_browser = pytest.mark.skipif(
    CHROMIUM is None and not IS_REQUIRED, reason="no chromium here; REQUIRE_CHROMIUM=1 makes that a failure"
)


@needs_a_browser
def test_the_page_runs_its_own_script_and_fetches_nothing(tables: Path, tmp_path: Path) -> None:
    seen = visit(tables / "report.html", tmp_path)
    assert not seen.console
    assert not [url for url in seen.fetched if not url.startswith("file:")]
    assert "4 of 4 shown" in seen.page
    assert "<b>bold</b>" not in seen.page
    assert '<a href="../../wrong/report/report.html">wrong</a>' in seen.page


@needs_a_browser
def test_on_a_phone_its_models_are_cards(tables: Path, tmp_path: Path) -> None:
    measures = measured(tables / "report.html", tmp_path, PHONE)
    for state in (measures["closed"], measures["open"]):
        assert state["pushed"] == state["cut"] == []
        assert state["scrollWidth"] <= state["width"]


def test_an_error_leads_to_the_command_that_runs_the_model_alone(tmp_path: Path) -> None:
    given = Parameters(name="broken", checkpoint="runs/a b.ckpt", outputs="p", output_root="/srv/out")
    write_tables(tmp_path, Table("night", [Row(2, given, "runs/a b.ckpt")], [OUTCOMES[1]]))
    command = html.unescape(
        (tmp_path / "report.html").read_text(encoding="utf-8").split("<code>")[1].split("</code>")[0]
    )
    words = shlex.split(command)
    assert words[:4] == ["luigi", "--module", "pipeline", "WriteReport"]
    assert {"--checkpoint=runs/a b.ckpt", "--outputs=p", "--name=broken", "--output-root=/srv/out"} == set(words[4:])
    assert CmdlineParser(words[3:])  # which ends the process over an unknown task or option


USE = """<script>addEventListener("load", () => {
  const names = () => [...document.querySelectorAll("#models tbody tr")].filter(e => !e.hidden)
    .map(e => e.cells[0].textContent).join(",");
  const told = [names()], heads = document.querySelectorAll("#models thead button");
  const press = label => { [...heads].find(e => e.textContent === label).click(); told.push(names()); };
  const enter = (id, value) => {
    const e = document.getElementById(id);
    e.value = value;
    e.dispatchEvent(new Event("input"));
    told.push(names());
  };
  press("Model"); press("Model"); press("Size"); press("Largest difference");
  enter("words", "rows FAILED"); enter("words", ""); enter("verdict", "passed"); enter("verdict", "");
  enter("kind", "CheckpointError");
  document.title = told.join(" ");
});</script>"""


@needs_a_browser
def test_its_table_can_be_sorted_and_filtered(tables: Path, tmp_path: Path) -> None:
    text = POLICY.sub("", (tables / "report.html").read_text(encoding="utf-8"))
    (tables / "copy.html").write_text(text.replace("</body>", USE + "</body>"), encoding="utf-8")
    page = visit(tables / "copy.html", tmp_path).page
    found = re.search(r"<title>(.*?)</title>", page)
    assert found is not None
    assert found[1].split() == [
        "wrong,broken,small,large",  # what did not pass comes first
        "broken,large,small,wrong",
        "wrong,small,large,broken",
        "small,wrong,large,broken",  # by bytes, not by letters; what has none comes last
        "small,wrong,broken,large",
        "wrong",
        "small,wrong,broken,large",
        "small,large",
        "small,wrong,broken,large",
        "broken",
    ]


# Progress.


def test_progress_tells_lines_and_percentages() -> None:
    stream, told = io.StringIO(), list[tuple[str, int]]()
    progress = Progress(3, 7, lambda line, percent: told.append((line, percent)), stream)
    for number, outcome in enumerate(OUTCOMES[:3]):
        progress.start(number)
        progress.end(number, outcome)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "batch: 3 to convert or to look at, 7 complete already"
    assert lines[1].startswith('broken: CheckpointError: a.index: "quoted"')
    assert lines[-1] == "batch: 3 of 3 done, 2 failed, 0 running, 0 s"
    assert told[-1] == ("3 of 3 done, 2 failed, 0 running, 0 s", 100)


def test_progress_is_a_bar_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        progress = Progress(4, 0, stream=terminal)
        for number, outcome in enumerate(OUTCOMES):
            progress.start(number)
            progress.end(number, outcome)
        progress.close()
        text = ""
        while select.select([ours], [], [], 1)[0]:  # one read may give a part only
            text += os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\r" in text
    assert "4/4" in text
    assert "2 failed, 0 running" in text
    assert "wrong: ValidationFailed: equal of p: 3 of 7 rows failed" in text
