"""What the console, a headline and a line of a table say of a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from reports import FAILED, check

from pipeline.report import gist
from pipeline.report.wording import round_numbers


def verdict(*checks: dict[str, Any], **causes: tuple[str, str]) -> dict[str, Any]:
    told = {format: {"kind": kind, "sentence": sentence} for format, (kind, sentence) in causes.items()}
    return {"verdict": "failed", "checks": list(checks), "causes": told, "reasons": ["a long reason: 0.12345678901"]}


TRAINING = (
    "all 3 weights are of another training: 99% of their elements differ (w: 0.5 instead of 0.25, largest difference "
    "1.5), and no other checkpoint has them. Freeze the checkpoint again, or find the one that the file was made from"
)


def test_the_cause_comes_first_and_its_claim_has_no_evidence() -> None:
    told = verdict(FAILED, frozen=("other_training", TRAINING))
    assert gist.reason(told) == "frozen: all 3 weights are of another training"
    [failure] = gist.failures(told)
    assert failure.next_step == "Freeze the checkpoint again, or find the one that the file was made from"
    asked = gist.Failure(("frozen",), "node differs", "a:0 (Const), 2.5 instead of 0.5. Compare both: the same code?")
    assert (asked.claim, asked.next_step) == ("a:0 (Const), 2.5 instead of 0.5", "Compare both: the same code?")
    assert gist.figures(told) == "1 of 1,115 comparisons failed; largest difference 0.5"


@pytest.mark.parametrize(
    ("sentence", "claim"),
    [
        ("weights are rounded to float16: w equals it. Again", "weights are rounded to float16"),
        ("those of step 400 (runs: a/b.ckpt-400): w differs", "those of step 400 (runs: a/b.ckpt-400)"),
        ("the file runs/a.b:0 is gone. Make it", "the file runs/a.b:0 is gone"),
        ("off by 0.93612658977508", "off by 0.936127"),
        ("one\n  line", "one line"),
        ("x" * 900, "x" * 240 + "…"),
    ],
)
def test_a_claim_ends_where_its_evidence_begins(sentence: str, claim: str) -> None:
    assert gist.claim_of(sentence) == claim


def test_formats_with_one_cause_share_it_and_others_are_counted() -> None:
    other = {"format": "mmap"}
    told = verdict(FAILED, FAILED | other, frozen=("other_training", TRAINING), mmap=("other_training", TRAINING))
    assert [failure.formats for failure in gist.failures(told)] == [("frozen", "mmap")]
    told = verdict(FAILED, FAILED | other, frozen=("other_training", TRAINING), mmap=("crash", "it ended: killed"))
    assert gist.reason(told) == "frozen: all 3 weights are of another training (and 1 other cause)"


def test_a_failure_on_made_up_rows_alone_is_said_to_be_one() -> None:
    edge = FAILED | {"check": "edge"}
    told = verdict(edge, frozen=("other", "it overflows: at 1e38")) | {"made_up_alone": {"frozen": "it agrees"}}
    assert gist.reason(told) == "frozen: it overflows (on made-up rows alone: all rows of the data agree)"
    told["checks"] = [edge, FAILED | {"format": "mmap"}]
    assert not gist.fails_on_made_up_rows_alone(told)


def test_a_format_that_could_not_be_made_says_at_which_node() -> None:
    why = "tflite could not be made: no file can be made of this (got node a/b: no op for X). Leave it out"
    refused = check(format="tflite", check="made", output="file", rows=1, rows_failed=1, verdict="failed", reason=why)
    [failure] = gist.failures(verdict(refused))
    assert failure.claim == "it could not be made (no file can be made of this (got node a/b: no op for X))"
    assert (failure.detail, failure.next_step) == (
        "no file can be made of this (got node a/b: no op for X)",
        "Leave it out",
    )


def test_without_a_known_cause_the_worst_check_is_told() -> None:
    few = check(check="edge", verdict="failed", rows=11, rows_failed=2)
    for told in (
        verdict(few, FAILED | {"rows_failed": 70}),
        verdict(few, FAILED, frozen=("unknown", "no cause was found")),
    ):
        assert "rows differ in probability (check e" in gist.reason(told)
    assert gist.reason({"verdict": "failed", "reasons": ["nothing was compared"]}) == "nothing was compared"
    assert gist.reason({"verdict": "passed"}) == ""


def test_an_older_verdict_has_its_comparisons_counted() -> None:
    assert gist.count_comparisons({"checks": [check(rows=7), check(rows=5)]}) == 12
    assert gist.count_comparisons({"checks": [check(rows=7)], "comparisons": 9}) == 9


@pytest.mark.parametrize(
    ("text", "rounded"),
    [
        ("row 7: 0.9361265897750854, 0.4258437752723694", "row 7: 0.936127, 0.425844"),
        ("0.53386247158 became 0.53386253118", "0.533862 became 0.533863"),
        ("0.533862471 became 0.533862472", "0.533862471 became 0.533862472"),  # as many as tell them from each other
        ("rtol 1e-05, 12.5, TensorFlow 2.21.0, v1.2345678.9, a0.12345678", None),
        ("-2.0599856972694397e-12.", "-2.05999e-12."),
    ],
)
def test_numbers_are_rounded_and_stay_distinct(text: str, rounded: str | None) -> None:
    assert round_numbers(text) == (text if rounded is None else rounded)


def test_a_check_that_failed_without_a_comparison_says_why_and_what_to_do() -> None:
    other = FAILED | {"check": "stable", "rows_failed": 0, "max_abs_diff": None}
    other |= {"reason": f"stable of {FAILED['output']}: shape [1] instead of [2]"}
    told = verdict(other, frozen=("unknown", "stable failed. Excluded are others. Feed the rows again"))
    [failure] = gist.failures(told)
    assert str(failure) == f"frozen: shape [1] instead of [2] (stable of {FAILED['output']})"
    assert failure.next_step == "Feed the rows again"
    assert gist.figures(told) == "1 of 1 check failed without a comparison, of 1,115 comparisons"
