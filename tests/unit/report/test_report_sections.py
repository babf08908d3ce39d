"""Sections of the report: matrix of checks, values, scores, costs, comparison with previous reports."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import job_for, run
from reports import DECISION, FAILED, FORMATS, check, full_facts, made_up_costs, make_facts, row, scores, written

from pipeline.report import write_report
from pipeline.report.facts import Overview, ReportFacts, RunFacts, StageFacts
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.chain.report_facts import collect_report_facts

# The matrix of checks.


def cells(source: str) -> dict[str, list[str]]:
    """Reads the matrix of a page: the text of each cell by format."""
    table = re.search(r'<table class="matrix">.*?</table>', source, re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", table[0], re.DOTALL)
    return {
        name: [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in re.findall(r"<td.*?</td>", inner, re.DOTALL)]
        for name, inner in rows
    }


def test_each_check_of_each_format_has_a_cell_with_its_sign_and_number(tmp_path: Path) -> None:
    checks = [
        check(check="weights", output="variables"),
        check(bit_equal=False, max_abs_diff=2e-7),
        check(bit_equal=False, max_abs_diff=5e-7, output="other"),
        check(check="decisions"),
        FAILED | {"format": "tflite", "rows_failed": 31},
        check(format="tflite", check="decisions", verdict="failed", rows_failed=2),
        check(format="onnx", check="made", output="file", verdict="failed", rows=0, reason="the op X is unknown"),
    ]
    decisions = {"frozen": DECISION, "tflite": DECISION | {"flipped": 2}}
    facts = make_facts(
        tmp_path, verdict="failed", checks=checks, decisions=decisions, skipped={"golden": "nothing was recorded"}
    )
    page, summary, _ = written(tmp_path, facts)
    assert cells((tmp_path / "report.html").read_text(encoding="utf-8")) == {
        "frozen": ["–", "✓ bit-equal", "✓ 5e-07", "○ skipped", "✓ 0 flipped"],
        "tflite": ["–", "–", "✗ 31 of 1,115 rows", "○ skipped", "✗ 2 flipped"],
        "onnx": ["✗ refused", "–", "–", "–", "–"],
    }
    assert "tflite is not proven equal to the checkpoint; frozen is; onnx could not be made." in page.text
    assert any("skipped, nothing was recorded" in (values.get("title") or "") for _, values in page.tags)
    assert "| tflite | – | – | ❌ 31 of 1,115 rows | ⏭️ skipped | ❌ 2 flipped |" in summary


def test_a_cell_leads_to_the_row_of_what_failed_in_it(tmp_path: Path) -> None:
    checks = [check(output="first"), FAILED | {"output": "second"}]
    page, _, _ = written(tmp_path, make_facts(tmp_path, verdict="failed", checks=checks))
    links = [values["href"] for tag, values in page.tags if tag == "a" and "data-check" in values]
    assert links == ["#check-1"]
    assert "check-1" in {values.get("id") for _, values in page.tags}


def test_every_link_of_the_page_leads_somewhere(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, full_facts(tmp_path, is_passed=False))
    ids = {values.get("id") for _, values in page.tags}
    targets = {str(values["href"]) for tag, values in page.tags if tag == "a"}
    assert len(targets) > 20
    assert {target for target in targets if target.startswith("#")} <= {f"#{name}" for name in ids}
    assert {target for target in targets if not target.startswith("#")} == {
        "../validation/results.csv",
        "../validation/worst/onnx.npz",
        "../validation/worst/reproduce.sh",
    }


def test_many_checks_are_folded_away_and_those_that_failed_are_not(tmp_path: Path) -> None:
    for count, is_open in ((5, True), (40, False)):
        checks = [check(output=f"y{index}") for index in range(count)] + [FAILED]
        page, _, _ = written(tmp_path, make_facts(tmp_path, verdict="failed", checks=checks))
        folded = [values for tag, values in page.tags if tag == "details"]
        assert ["open" in values for values in folded[:2]] == [False, is_open]  # the evidence, what passed
        shown = (tmp_path / "report.html").read_text(encoding="utf-8").split("</header>")[1]
        before = shown.split("<details")[0]
        assert FAILED["reason"] in before
        assert f'id="check-{count}"' in before


def test_a_refused_format_has_a_reason_and_neither_rows_nor_costs(tmp_path: Path) -> None:
    reason = "tflite could not be made: no op for StringLower"
    worst = {"row": "", "element": "", "reference": "", "candidate": "no op for StringLower"}
    refused = check(format="tflite", check="made", output="file", rows=1, rows_failed=1, verdict="failed",
                    bit_equal=False, reason=reason, max_abs_diff=None, worst=worst)  # fmt: skip
    rows = [row(0), row(0, "", "failed", format="tflite", check="made", candidate="no op for StringLower")]
    costs = {"schema": 1, "formats": {name: {"size_bytes": 7, "problem": "no file"} for name in ("frozen", "tflite")}}
    facts = make_facts(tmp_path, rows, verdict="failed", checks=[check(), refused], reasons=[reason])
    page, _, xml = written(tmp_path, replace(facts, costs=costs))
    assert page.text.count("no op for StringLower") == 3  # in the headline, in the evidence, beside its check
    assert "Worst:" not in page.text
    assert "No row differs from its reference." in page.text
    assert "tflite 1 row compared" not in page.text
    assert "Size frozen 7 bytes frozen : no file" in page.text
    failure = xml.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == reason


# Reasons, causes and notes.


def test_a_cause_stands_before_the_reasons_once_for_all_formats_that_share_it(tmp_path: Path) -> None:
    told = ["31 rows differ", "frozen: they differ", "mmap: they differ", "onnx: it rounds"]
    causes = {name: {"kind": "weights_differ", "sentence": "they differ"} for name in ("frozen", "mmap")}
    causes["onnx"] = {"kind": "kernel_rounding", "sentence": "it rounds"}
    facts = make_facts(tmp_path, verdict="failed", checks=[FAILED], reasons=told, causes=causes)
    page, summary, _ = written(tmp_path, facts)
    assert "frozen and mmap, weights differ: they differ onnx, kernel rounding: it rounds 31 rows differ" in page.text
    assert "- Cause: frozen and mmap, weights differ: they differ\n- Cause: onnx, kernel rounding" in summary
    assert (summary.count("they differ"), summary.count("it rounds")) == (1, 1)
    assert page.text.index("they differ") < page.text.index("The evidence") < page.text.index("31 rows differ")


def test_of_many_reasons_the_first_are_in_sight_and_all_on_the_page(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, verdict="failed", checks=[FAILED], reasons=[f"reason {n}." for n in range(40)])
    page, summary, _ = written(tmp_path, facts)
    assert page.text.index("The evidence") < page.text.index("reason 0.")
    assert "reason 39." in page.text
    assert "and 33 more" in summary


def test_notes_and_speeds_are_told(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, notes={"frozen": ["One row agrees only just."]}, rows_per_second={"frozen": 12345.6})
    page, summary, xml = written(tmp_path, facts)
    assert "Notes frozen: One row agrees only just." in page.text
    assert "Rows of equal per second: frozen 12,346." in page.text
    assert "- frozen: One row agrees only just." in summary
    assert [case.get("time") for case in xml.iter("testcase")] == ["0.090", None]


# Values.


def test_values_are_drawn_the_deciding_output_first(tmp_path: Path) -> None:
    rows = [row(n, "1e-8", output=output, reference=f"0.{n}", candidate=f"0.{n}01")
            for output in ("a", "b", "c", "probability") for n in range(9)]  # fmt: skip
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows, history=""))
    assert [label for label in page.drawings if "against" in (label or "")] == [
        "frozen: probability of the checkpoint against the candidate, 9 rows",
        "frozen: a of the checkpoint against the candidate, 9 rows",
    ]


def test_any_number_of_rows_leaves_a_small_page_with_every_kind_of_row(tmp_path: Path) -> None:
    rows = [row(n, "1e-8", reference=f"{n / 50_000}", candidate=f"{n / 50_000}") for n in range(50_000)]
    rows[777] = row(777, "0.9", "failed", reference="0.1", candidate="1.0")
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    [label] = [label for label in page.drawings if "against" in (label or "")]
    assert str(label).endswith("against the candidate, 1,564 rows, one in 32 of those that passed")
    assert (tmp_path / "report.html").stat().st_size < 100_000


def test_what_is_sampled_does_not_depend_on_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    monkeypatch.setattr("pipeline.report.results.MOST_SAMPLED", 50)
    for size in (7, 1000):
        monkeypatch.setattr("pipeline.report.results.CHUNK_ROWS", size)
        rows = [row(n, "1e-8", reference=f"{n * n % 997}", candidate=f"{n * n % 997}") for n in range(333)]
        write_report(tmp_path, make_facts(tmp_path, rows))
        pages.append((tmp_path / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_decisions_and_weights_are_no_differences_of_outputs(tmp_path: Path) -> None:
    rows = [row(0), row(1, "0.9", check="weights"), row(2, "1.0", "failed", check="decisions"), row(3, "0.1", "failed")]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    assert "Answers: 1 without any difference and 1 by 0.1; 1 failed." in page.text
    table = page.text.split("The 2 worst rows")[1]
    # A difference of class numbers is no size: such rows come last.
    assert re.findall(r"(\d+) frozen (\w+) probability", table)[:2] == [("3", "equal"), ("2", "decisions")]


# Decisions.


def test_formats_with_the_same_scores_share_a_drawing(tmp_path: Path) -> None:
    told = {"checkpoint": scores(1), "frozen": scores(1), "onnx": scores(1, shift=0.2)}
    page, _, _ = written(tmp_path, make_facts(tmp_path, history="", scores=told))
    assert "Scores of checkpoint and frozen" in page.text
    assert "Scores of onnx" in page.text
    assert "the dashed line is the threshold" in str(page.drawings[0])
    assert "onnx: off by" in str(page.drawings[2])
    assert len(page.drawings) == 3


@pytest.mark.parametrize("own", [{}, {"edges": [0, 1], "by_label": {}, "calibration": []}])
def test_without_scores_nothing_is_drawn(tmp_path: Path, own: dict[str, Any]) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, history="", scores={"checkpoint": own} if own else {}))
    assert page.drawings == []


def test_scores_without_labels_are_drawn_and_not_called_calibrated(tmp_path: Path) -> None:
    own = scores(1) | {"by_label": {"all": [5] * 20}, "calibration": []}
    page, _, _ = written(tmp_path, make_facts(tmp_path, history="", scores={"checkpoint": own}))
    assert page.drawings == ["Number of rows by score: 100 rows; the dashed line is the threshold."]


def test_flipped_rows_are_named_with_both_decisions(tmp_path: Path) -> None:
    flips = [{"row": 17, "reference": "ham", "candidate": "spam", "distance": 0.25}]
    page, _, _ = written(
        tmp_path, make_facts(tmp_path, decisions={"frozen": DECISION | {"flipped": 1, "flips": flips}})
    )
    assert "1 of 1,115 decisions flipped." in page.text
    assert "17 frozen ham spam 0.25" in page.text


# Costs.


def test_costs_are_a_table_and_drawings_and_what_is_missing_says_why(tmp_path: Path) -> None:
    page, summary, _ = written(tmp_path, replace(make_facts(tmp_path, history=""), costs=made_up_costs()))
    assert "Costs onnx_int8 answers soonest and is the smallest; frozen loads in 0.4 s." in page.text
    assert "frozen 1.0 MiB 2.40 s 0.40 s 0.45 s 0.305 ms 0.550 ms 2.10 ms 3.05 ms 13,000 524.5 MiB" in page.text
    assert "savedmodel : It answered nothing within 60 s." in page.text
    assert "savedmodel –, onnx 0.34 s" in str(page.drawings[1])
    assert len(page.drawings) == 6
    assert "| frozen | 1.0 MiB | 2.40 s | 0.40 s | 0.45 s |" in summary


@pytest.mark.parametrize("costs", [None, {}, {"schema": 1, "formats": {}}])
def test_without_costs_there_is_no_section(tmp_path: Path, costs: dict[str, Any] | None) -> None:
    page, summary, _ = written(tmp_path, replace(make_facts(tmp_path), costs=costs))
    assert "Costs" not in page.text
    assert "## Costs" not in summary


# The report before.


def at(facts: ReportFacts, moment: str, digest: str, **changes: Any) -> ReportFacts:
    """Copies facts, with a validation at the given time."""
    stages = [*facts.stages, StageFacts("validation", digest, "f", 3.0, moment)]
    return replace(facts, stages=stages, **changes)


def reported(folder: Path, facts: ReportFacts) -> dict[str, Any]:
    """Writes a report; returns the content of its report.json."""
    write_report(folder, facts)
    content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


def test_a_report_is_compared_with_the_one_before(tmp_path: Path) -> None:
    first = at(make_facts(tmp_path), "2026-03-01T02:31:00+00:00", "d1", inputs={"data": "aa"})
    told = reported(tmp_path, first)
    assert "Since the last report" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    metrics = {"checkpoint": {"accuracy": 0.97}, "frozen": {"accuracy": 0.97}}
    second = at(
        make_facts(tmp_path, verdict="failed", checks=[FAILED], metrics=metrics), "2026-03-02T02:31:00+00:00", "d2",
        previous=told, settings={"training": {"steps": 800}}, inputs={"data": "bb"}, sizes={"frozen/model.pb": 2097152},
    )  # fmt: skip
    page, summary, _ = written(tmp_path, second)
    assert "It fails now; the last report passed. The last report is from 2026-03-01 02:31 UTC" in page.text
    assert ", this one from 2026-03-02 02:31 UTC." in page.text
    assert "frozen passed → failed 0 → 0.5 0 0.9928 → 0.9700 1.0 MiB → 2.0 MiB" in page.text
    assert "training.steps 600 800 bytes of data aa… bb…" in page.text
    assert "Stages with other bytes than in the last report: none. With the same bytes: frozen." in page.text
    assert "- It fails now; the last report passed." in summary
    assert "Accuracy 0.9928 → 0.9700" in summary


def test_a_report_written_again_on_the_same_validation_is_compared_with_the_one_before_that(tmp_path: Path) -> None:
    first = reported(tmp_path, at(make_facts(tmp_path), "2026-03-01T02:31:00+00:00", "d1"))
    facts = at(make_facts(tmp_path), "2026-03-02T02:31:00+00:00", "d2")
    second = reported(tmp_path, replace(facts, previous=first))
    once = (tmp_path / "report.html").read_bytes()
    assert reported(tmp_path, replace(facts, previous=second)) == second
    assert (tmp_path / "report.html").read_bytes() == once
    assert b"2026-03-01 02:31 UTC" in once


def test_the_same_validation_of_other_bytes_is_compared(tmp_path: Path) -> None:
    facts = at(make_facts(tmp_path), "2026-03-01T02:31:00+00:00", "d1")
    told = reported(tmp_path, facts)
    stages = [replace(stage, digest="other") if stage.stage == "frozen" else stage for stage in facts.stages]
    page, _, _ = written(tmp_path, replace(facts, stages=stages, previous=told))
    assert "Stages with other bytes than in the last report: frozen. With the same bytes: none." in page.text


def test_the_figures_of_the_last_ten_reports_are_carried_on(tmp_path: Path) -> None:
    told = None
    for day in range(1, 15):
        told = reported(
            tmp_path, at(make_facts(tmp_path), f"2026-03-{day:02}T02:31:00+00:00", f"d{day}", previous=told)
        )
    assert told is not None
    assert len(told["before"]) == 10
    assert "The last 11 reports" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("previous", [{}, {"schema": 99, "figures": {}}, {"schema": 1}, {"schema": 1, "figures": 3}])
def test_what_is_no_earlier_report_is_not_compared_with(tmp_path: Path, previous: dict[str, Any]) -> None:
    page, _, _ = written(tmp_path, replace(make_facts(tmp_path), previous=previous))
    assert "Since the last report" not in page.text


def test_a_difference_beyond_all_bounds_is_still_json(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, verdict="failed", checks=[FAILED | {"max_abs_diff": "inf"}])
    assert reported(tmp_path, facts)["figures"]["formats"]["frozen"]["max_abs_diff"] == "inf"
    assert "Infinity" not in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_a_second_run_of_the_chain_is_compared_with_the_first(tmp_path: Path) -> None:
    run(job_for(tmp_path))
    job = job_for(tmp_path, validation={"batch_size": 7})
    assert run(job) == {"validation", "report"}
    page = (job.folder("report") / "report.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "The last report passed too." in text
    assert "validation.batch_size 256 7" in text
    assert "The checkpoint's graph has" in text
    assert "variables have 1 parameter (4 bytes)." in text


@pytest.mark.parametrize("content", ["", "<html>", "[1]", '{"schema": 1}', None])
def test_a_last_report_that_cannot_be_read_is_passed_over(tmp_path: Path, content: str | None) -> None:
    job = job_for(tmp_path)
    run(job)
    path = job.folder("report") / "report.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    facts = collect_report_facts(job, Chain(job).before("report"))
    page, _, _ = written(tmp_path, facts)
    assert "Since the last report" not in page.text


# Where things come from.


def test_graph_inputs_and_worst_rows_are_told(tmp_path: Path) -> None:
    page, _, xml = written(tmp_path, full_facts(tmp_path, is_passed=False))
    assert "The checkpoint's graph has 148 nodes, and its variables have 262,145 parameters (1.0 MiB)." in page.text
    assert "4 kinds of ops Const 52 Identity 17" in page.text
    assert f"data {'ab' * 32}" in page.text
    assert "To run only these rows again: bash output/sms/validation/worst/reproduce.sh" in page.text
    names = {element.attrib["name"] for element in xml.iter("property")}
    assert {"command", "version.tensorflow", "digest.frozen", "sha256.data"} <= names


def test_junit_says_what_was_skipped_and_how_long_it_took(tmp_path: Path) -> None:
    facts = at(make_facts(tmp_path, skipped={"golden": "nothing was recorded"}), "2026-03-01T02:31:00+00:00", "d1")
    _, _, xml = written(tmp_path, facts)
    [suite] = xml
    assert [element.tag for element in suite] == ["properties", "testcase", "testcase", "testcase"]
    assert [suite.attrib[key] for key in ("tests", "failures", "skipped", "time")] == ["3", "0", "1", "3.000"]
    skipped = suite.find("testcase/skipped")
    assert skipped is not None
    assert skipped.attrib == {"message": "nothing was recorded"}


def test_a_summary_fits_a_screen_or_two(tmp_path: Path) -> None:
    _, summary, _ = written(tmp_path, full_facts(tmp_path))
    assert len(summary.splitlines()) <= 60
    assert "| frozen | ✅ bit-equal | ✅ 5e-09 |" in summary
    assert all(f"| {name} |" in summary for name in FORMATS)


# Looks.


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(tmp_path: Path, scheme: int) -> None:
    write_report(tmp_path, make_facts(tmp_path))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", source, re.DOTALL)[scheme]))
    pairs = [(text, behind) for text in ("text", "muted", "first") for behind in ("page", "card")]
    pairs += [(f"{word}", behind) for word in ("good", "bad") for behind in ("card", f"{word}-fill")]
    pairs += [("text", "good-fill"), ("text", "bad-fill"), ("muted", "good-fill"), ("muted", "bad-fill")]
    for text, behind in pairs:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[behind])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, behind)


# The head: when, where, with what, and what it leads back to.


def test_the_head_says_when_where_and_with_which_code(tmp_path: Path) -> None:
    run_facts = RunFacts("2026-11-30T15:22:00+00:00", "ci-7, AMD EPYC, 2 cores", "22acac0976e0-dirty", "0.2.0")
    overview = Overview("batch models", "../../batch/models/report.html")
    page, _, xml = written(tmp_path, replace(make_facts(tmp_path), run=run_facts, overview=overview))
    told = "2026-11-30 15:22 UTC commit 22acac0976e0-dirty freeze-pipeline 0.2.0 ci-7, AMD EPYC, 2 cores"
    assert f"{told} part of batch models Checks" in page.text
    assert ("a", {"href": "../../batch/models/report.html"}) in page.tags
    assert xml.find("testsuite/properties/property[@name='commit']") is not None
    assert "part of" not in written(tmp_path, make_facts(tmp_path))[0].text


def test_made_up_rows_are_said_in_the_headline_with_what_to_do(tmp_path: Path) -> None:
    page, summary, _ = written(tmp_path, replace(make_facts(tmp_path), made_up_rows=64))
    assert "✓ Passed frozen is proven equal to the checkpoint on 64 made-up rows. All 2 checks" in page.text
    assert "Give your own with --data FILE" in page.text
    assert "**frozen is proven equal to the checkpoint on 64 made-up rows.**" in summary
    weights = FAILED | {"check": "weights", "output": "variables"}  # other weights are a fact of any rows
    facts = replace(make_facts(tmp_path, verdict="failed", checks=[FAILED, weights]), made_up_rows=64)
    assert "made-up" not in written(tmp_path, facts)[0].text.split("Next")[0].split("Nobody")[0]


def test_there_is_one_count_of_comparisons(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, comparisons=1180))
    assert "All 2 checks passed, in 1,180 comparisons." in page.text
    assert "Comparisons 1,180 one a line of results.csv" in page.text
    assert json.loads((tmp_path / "report.json").read_text())["figures"]["comparisons"] == 1180


def test_numbers_of_many_digits_are_folded_and_there_on_demand(tmp_path: Path) -> None:
    reason = "row 3: reference 0.020599856972694397, frozen 0.020823391154408455"
    rows = [row(3, "0.1", "failed", reference="0.020599856972694397", candidate="0.020823391154408455")]
    facts = make_facts(tmp_path, rows, verdict="failed", checks=[FAILED | {"reason": reason}], reasons=[reason])
    page, summary, xml = written(tmp_path, facts)
    assert "0.0205999" in page.text
    assert "0.020599856972694397" not in page.text
    assert {"title": "0.020599856972694397", "tabindex": "0"} in [values for tag, values in page.tags if tag == "abbr"]
    assert "0.020599856972694397" not in summary
    failure = xml.find("testsuite/testcase/failure")  # for programs: as it is
    assert failure is not None
    assert "0.020599856972694397" in failure.attrib["message"]


def test_the_worst_rows_are_folded_where_all_is_green(tmp_path: Path) -> None:
    rows = [row(1, "1e-8"), row(2, "2e-8")]
    written(tmp_path, make_facts(tmp_path, rows))
    section = (tmp_path / "report.html").read_text(encoding="utf-8").split('id="worst"')[1].split("</section>")[0]
    assert section.index("<details>") < section.index("2 rows with the largest differences") < section.index("<table")
    written(tmp_path, make_facts(tmp_path, rows, verdict="failed", checks=[FAILED]))
    section = (tmp_path / "report.html").read_text(encoding="utf-8").split('id="worst"')[1].split("</section>")[0]
    assert "<details" not in section
