"""The report's files: page, summary and XML."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports import DECISION, FAILED, METRICS, check, make_facts, row, written

from pipeline.errors import DataError, StoreError
from pipeline.report import write_report
from pipeline.report.facts import StageFacts
from pipeline.report.html import CHECK_DESCRIPTIONS
from pipeline.settings import CHECKS

HOSTILE = "<script>alert('x')</script>|`[![i](http://evil.example/i.png)]\x00\x1b\ud800"


def test_a_passed_run_says_so_first(tmp_path: Path) -> None:
    page, summary, xml = written(tmp_path, make_facts(tmp_path, reasons=["All rows agree."]))
    assert "✓ Passed frozen is proven equal to the checkpoint. All rows agree." in page.text
    assert summary.startswith("# ✅ Passed: sms\n\n**frozen is proven equal to the checkpoint.**\n\n- All rows agree.")
    assert xml.attrib["failures"] == "0"


def test_a_failed_run_says_why_everywhere(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, verdict="failed", checks=[FAILED], reasons=["frozen: row 17 differs."])
    page, summary, xml = written(tmp_path, facts)
    assert "✗ Failed frozen is not proven equal to the checkpoint: 1 of 1,115 rows differ in probability" in page.text
    assert "frozen: row 17 differs." in page.text
    assert "1 of 1,115 rows differs too much. Worst: row 17, element 1;2: 0.25 became 0.75." in page.text
    assert summary.startswith("# ❌ Failed: sms")
    assert "- frozen: row 17 differs." in summary
    failure = xml.find("testsuite/testcase/failure")
    assert failure is not None
    assert "rows differs too much; row 17, element 1;2: 0.25 became" in failure.attrib["message"]


def test_the_formats_that_did_pass_are_named_beside_the_failed_one(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, verdict="failed", checks=[FAILED, check(format="tflite")])
    page, _, _ = written(tmp_path, facts)
    assert "to the checkpoint: 1 of 1,115 rows differ in probability (check equal); tflite is." in page.text


@pytest.mark.parametrize("checks", [[], [FAILED], [check(verdict="unknown")]])
def test_a_passed_verdict_that_its_checks_do_not_bear_out_is_shown_as_failed(
    tmp_path: Path, checks: list[dict[str, Any]]
) -> None:
    page, summary, xml = written(tmp_path, make_facts(tmp_path, verdict="passed", checks=checks))
    assert "✗ Failed" in page.text
    assert summary.startswith("# ❌ Failed")
    assert xml.attrib["failures"] == "1"


def test_a_failure_without_any_failed_check_is_not_green_in_junit(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, verdict="failed", checks=[], reasons=["The .pb cannot be opened."])
    _, _, xml = written(tmp_path, facts)
    assert (xml.attrib["tests"], xml.attrib["failures"]) == ("1", "1")
    assert "The .pb cannot be opened." in (xml.findtext("testsuite/testcase/failure") or "")


def test_junit_has_one_case_per_check_and_right_counts(tmp_path: Path) -> None:
    checks = [check(), check(check="edge"), FAILED | {"check": "golden"}]
    _, _, xml = written(tmp_path, make_facts(tmp_path, verdict="failed", checks=checks))
    names = [case.attrib["name"] for case in xml.iter("testcase")]
    assert names == ["frozen.equal.probability", "frozen.edge.probability", "frozen.golden.probability"]
    assert {case.attrib["classname"] for case in xml.iter("testcase")} == {"sms"}
    assert [case.attrib["name"] for case in xml.iter("testcase") if case.find("failure") is not None] == names[2:]
    for element in (xml, xml[0]):
        assert [element.attrib[key] for key in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "0"]


def test_a_time_that_is_none_leaves_junit_readable(tmp_path: Path) -> None:
    facts = make_facts(tmp_path)
    stages = [replace(stage, stage="validation", made="\x1b[2J\ud800") for stage in facts.stages]
    _, _, xml = written(tmp_path, replace(facts, stages=stages))
    assert xml[0].attrib["timestamp"] == "\u241b[2J\ufffd"


def test_a_run_without_training_says_that_nothing_was_trained(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, history=""))
    assert "Nothing was trained" in page.text
    assert page.count("svg") == 0


def test_the_training_is_drawn_and_said_in_words(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, history="1,0.7,\n2,nan,0.6\n3,0.5,\n4,nan,\n"))
    words = "Loss from 0.7 at step 1 to 0.5 at step 3. Validation loss from 0.6 at step 2 to 0.6 at step 2."
    assert words in page.text
    assert page.drawings == [words]
    assert "validation loss" in page.text


def test_a_run_without_metrics_or_decisions_is_still_a_page(tmp_path: Path) -> None:
    page, summary, _ = written(tmp_path, make_facts(tmp_path, metrics={}, decisions={}))
    assert "No metrics" in page.text
    assert "Decisions flipped" not in page.text
    assert "## Metrics" not in summary


def test_metrics_stand_side_by_side_and_a_change_is_marked(tmp_path: Path) -> None:
    metrics = {"checkpoint": METRICS, "frozen": METRICS | {"accuracy": 0.98}}
    page, summary, _ = written(tmp_path, make_facts(tmp_path, metrics=metrics))
    assert "accuracy 0.9928 0.9800 (-0.0128)" in page.text
    assert "| accuracy | 0.9928 | 0.9800 |" in summary


def test_a_confusion_matrix_of_several_classes_is_a_table(tmp_path: Path) -> None:
    several = {"rows": 9, "labels": ["a", "b", "c"], "confusion": [[3, 0, 0], [1, 2, 0], [0, 0, 3]]}
    page, _, _ = written(tmp_path, make_facts(tmp_path, metrics={"checkpoint": several, "frozen": several}))
    # Formats that agree share one.
    assert "Confusion matrix of checkpoint and frozen :" in page.text
    assert page.text.count("a b c a 3 100% 0 0% 0 0% b 1 33% 2 67% 0 0% c 0 0% 0 0% 3 100%") == 1


def test_of_many_classes_only_the_commonest_mistakes_are_shown(tmp_path: Path) -> None:
    confusion = [[5 * (i == j) for j in range(40)] for i in range(40)]
    confusion[7][9], confusion[1][2] = 4, 3
    page, _, _ = written(tmp_path, make_facts(tmp_path, metrics={"frozen": {"rows": 207, "confusion": confusion}}))
    assert "of 40 classes Label Prediction Rows 7 9 4 1 2 3 frozen" in page.text


def test_rows_that_are_all_equal_get_a_sentence_and_no_drawing(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, [row(0), row(1)], history=""))
    assert "No answer differs at all" in page.text
    assert "No row differs from its reference." in page.text
    assert page.count("svg") == 0


def test_differences_are_counted_apart_by_kind(tmp_path: Path) -> None:
    rows = [row(0), row(1, "1e-08"), row(2, "2e-07"), row(3, "inf", "failed"), row(4, "nan", "failed"), row(5, "")]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows, history=""))
    words = (
        "Answers: 1 without any difference, 2 between 1e-08 and 2e-07, 1 by infinity and "
        "2 without a number (text, or not a number); 2 failed."
    )
    assert words in page.text
    assert page.drawings == [
        f"frozen: {words}",
        "frozen: probability of the checkpoint against the candidate, 6 rows",
    ]


def test_failed_rows_are_drawn_apart_from_passed_ones(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, [row(0, "1e-8"), row(1, "0.5", "failed")], history=""))
    assert "passed failed" in page.text.split("Answers: 1 between")[-1]
    # A hatch, so that they differ by more than their colour.
    assert page.count("pattern") == 1


def test_a_candidate_against_itself_is_no_difference_from_the_checkpoint(tmp_path: Path) -> None:
    rows = [row(0), row(0, "3e-07", check="stable"), row(1, "2e-07", check="stable")]
    checks = [check(), check(check="stable", bit_equal=False, max_abs_diff=3e-7)]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows, checks=checks))
    assert "No answer differs at all" in page.text
    assert "No row differs from its reference." in page.text
    assert "Largest difference 0 bit-equal" in page.text


def test_answers_that_depend_on_other_rows_are_not_called_unequal(tmp_path: Path) -> None:
    checks = [check(), FAILED | {"check": "stable"}]
    rows = [row(0), row(17, "0.5", "failed", check="stable")]
    facts = make_facts(tmp_path, rows, verdict="failed", checks=checks, reasons=["stable of probability: ..."])
    for text in (written(tmp_path, facts)[0].text, written(tmp_path, facts)[1]):
        assert (
            "frozen is equal to the checkpoint, and the answers to a row depend on other rows or on chance: 1 of"
            in text
        )
    assert "17 frozen stable" in written(tmp_path, facts)[0].text


def test_a_check_that_was_skipped_is_said_with_its_reason(tmp_path: Path) -> None:
    facts = make_facts(tmp_path, skipped={"golden": "nothing was recorded", "stable of y": "no rows"})
    page, summary, _ = written(tmp_path, facts)
    assert "Skipped: golden: nothing was recorded; stable of y: no rows." in page.text
    assert "- Skipped: golden: nothing was recorded\n- Skipped: stable of y: no rows\n" in summary


def test_every_check_is_explained() -> None:
    assert set(CHECK_DESCRIPTIONS) == {*CHECKS, "made"}


def test_the_worst_rows_stand_in_order_failed_first(tmp_path: Path) -> None:
    rows = [row(n, f"{n}e-9") for n in range(1, 90)]
    rows += [
        row(90, "0.3"),
        row(100, "0.1", "failed"),
        row(101, "0.2", "failed", ulp_diff="7.0"),
        row(102, "nan", "failed", candidate="nan"),
    ]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    table = page.text.split("Worst rows", 1)[1].split("Metrics", 1)[0]
    assert re.findall(r"(\d+) frozen equal", table) == ["102", "101", "100", "90", "89", "88", "87", "86"]
    assert "0.25 nan –" in table
    assert "0.2 7 " in table


def test_worst_rows_are_found_in_every_piece_of_a_long_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.results.CHUNK_ROWS", 7)
    rows = [row(n, "1e-9") for n in range(100)]
    rows[3], rows[50] = row(3, "0.5", "failed"), row(50, "0.9", "failed")
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    table = page.text.split("Worst rows", 1)[1]
    assert re.findall(r"(\d+) frozen equal", table)[:3] == ["50", "3", "0"]
    assert "Answers: 0 without any difference and 100 between 1e-09 and 0.9; 2 failed." in page.text


def test_text_results_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [row(0, "", "failed", output="label", reference="nan", candidate=""), row(1, "", output="label")]
    checks = [check(output="label", dtype="string", max_abs_diff=None, max_rel_diff=None, max_ulp_diff=None,
                    bit_equal=None, rtol=None, atol=None)]  # fmt: skip
    page, summary, _ = written(tmp_path, make_facts(tmp_path, rows, checks=checks))
    assert "0 frozen equal label – nan – –" in page.text
    assert "label string 0 of 1,115 – – – – exact" in page.text
    assert "| frozen, equal, label | 0 of 1,115 | – | – | exact |" in summary


def test_a_text_too_long_to_read_is_cut_and_says_so(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, [row(0, "", "failed", candidate="z" * 5000)]))
    assert "z" * 160 + "… (5,000 characters)" in page.text
    assert "z" * 161 not in page.text


def test_hostile_text_is_inert_in_page_summary_and_xml(tmp_path: Path) -> None:
    evil = check(format=HOSTILE, check=HOSTILE, output=HOSTILE, verdict="failed", reason=HOSTILE, dtype=HOSTILE,
                 worst={"row": 1, "element": HOSTILE, "reference": HOSTILE, "candidate": HOSTILE})  # fmt: skip
    metrics = {HOSTILE: METRICS | {"labels": [HOSTILE, "spam"], HOSTILE: HOSTILE}}
    rows = [row(0, "0.5", "failed", format="<script>", check="<script>", reference="<script>", candidate="|<script>")]
    facts = make_facts(tmp_path, rows, name=HOSTILE, checks=[evil], metrics=metrics, reasons=[HOSTILE],
                       decisions={HOSTILE: DECISION | {"nearest_row": None}})  # fmt: skip
    facts = replace(
        facts,
        sizes={HOSTILE: 1},
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        versions={HOSTILE: HOSTILE},
        stages=[StageFacts(HOSTILE, HOSTILE, HOSTILE, None)],
        command=HOSTILE,
        exported=HOSTILE,
    )
    page, summary, xml = written(tmp_path, facts)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert "<script>alert('x')</script>" in page.text
    assert "<" not in summary
    assert not re.search(r"(?<!\\)[\[\]`]", summary)
    for line in summary.split("## Failed checks")[1].split("\n\n")[1].splitlines():
        assert len(re.findall(r"(?<!\\)\|", line)) == 8
    assert xml.attrib["name"] == HOSTILE.replace("\x00", "␀").replace("\x1b", "␛").replace("\ud800", "\ufffd")
    for file in ("report.html", "summary.md"):
        assert not re.search("[\x00-\x08\x0b-\x1f]", (tmp_path / file).read_text(encoding="utf-8"))


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    rows = [row(0, "1e-8"), row(1, "0.5", "failed")]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("svg") == 3
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    for _, values in page.tags:
        assert "src" not in values
        for key in ("href", "xlink:href"):
            assert (values.get(key) or "#").startswith(("#", "../validation/results.csv"))
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", source))
    assert "@import" not in source
    assert not re.search(r"https?:|//\w", re.sub(r'xmlns(:\w+)?="[^"]*"', "", source))


def test_every_id_is_used_once_and_every_reference_has_its_id(tmp_path: Path) -> None:
    rows = [row(0, "1e-8"), row(1, "0.5", "failed"), row(0, "1e-8", format="tflite")]
    page, _, _ = written(tmp_path, make_facts(tmp_path, rows))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert page.count("svg") == 5
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', source)) <= set(ids)


def test_the_drawings_take_their_colours_from_the_page(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, [row(0, "1e-8"), row(1, "0.5", "failed")]))
    drawings = re.findall(r"<svg.*?</svg>", (tmp_path / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "var(--first)" in drawings[0]
    assert "var(--bad)" in drawings[0]
    assert "var(--second)" in drawings[-1]
    assert not re.search(r"(?:fill|stroke): #", "".join(drawings))
    assert page.count("style") == 1


def test_tables_are_readable_without_eyes_and_by_keyboard(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, make_facts(tmp_path, [row(0, "1e-8")]))
    assert page.tags[0] == ("html", {"lang": "en"})
    assert page.count("h1") == 1
    assert page.count("table") == page.count("caption") > 5
    assert all("scope" in values for tag, values in page.tags if tag == "th")
    boxes = [values for _, values in page.tags if values.get("class") == "scroll"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_facts_about_the_files_and_their_origin_are_shown(tmp_path: Path) -> None:
    page, summary, _ = written(tmp_path, make_facts(tmp_path))
    for words in ("frozen/model.pb 1.0 MiB 1,048,576", "input text:0 string [?]", "steps 600", "tensorflow 2.21.0",
                  "frozen 0.41 s d1e5 f1e5", "luigi --module pipeline WriteReport", "Exported: last step, 600 of 600.",
                  "0 of 1,115 decisions flipped. The row closest to flipping is 812, at a distance of 0.0031.",
                  "positive at 0.5 or above; labels ham, spam."):  # fmt: skip
        assert words in page.text
    assert "| frozen/model.pb | 1.0 MiB (1,048,576) |" in summary
    assert "validation/results.csv" in summary
    assert "report/report.html" in summary


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [row(0, "1e-8"), row(1, "0.5", "failed")]
    copies = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        write_report(folder, make_facts(folder, rows))
        copies.append([(folder / file).read_bytes() for file in ("report.html", "summary.md", "junit.xml")])
    assert copies[0] == copies[1]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        write_report(tmp_path / "absent", make_facts(tmp_path))


@pytest.mark.parametrize("file", ["results.csv", "history.csv"])
@pytest.mark.parametrize("content", [None, "", "step,format\n1,frozen\n"])
def test_a_table_that_is_missing_or_lacks_columns_is_refused_by_name(
    tmp_path: Path, file: str, content: str | None
) -> None:
    facts = make_facts(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=re.escape(file)):
        write_report(tmp_path, facts)


def test_importing_the_report_is_light() -> None:
    heavy = "{'matplotlib', 'jinja2', 'pandas', 'tensorflow'}"
    code = f"import sys, pipeline.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
